"""What llama.cpp's programs print: llama-bench, llama-batched-bench, and the timings of a run.

A test of llama-bench is `pp N`, a prompt of N tokens, or `tg N`, N tokens that are generated from
an empty context; its t/s are the tokens of a test over its time (llama.cpp, tools/llama-bench). Of
llama-batched-bench, `T s` is the time of B prompts with PP tokens each, and of TG new tokens each
(tools/batched-bench/README.md).
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from jobs.report.foreign import units
from jobs.report.foreign.grid import Grid, gpu_above, of_pairs, written_in

ENGINE = "llama.cpp"
_TEST = re.compile(
    r"(?:pp ?(\d{1,7}))?(?: ?\+ ?)?(?:tg ?(\d{1,7}))?(?: ?@ ?d ?(\d{1,7}))?", re.IGNORECASE
)
_STORED = re.compile(r" (?:mostly |all )?(BF16|F16|F32|I?Q\d\w*|TQ\d\w*|MXFP4)\b.*", re.IGNORECASE)
# Sizes by which llama.cpp tells the models of GPT-2 apart (src/llama-model.cpp, llm_type_name).
_GPT2 = {"0.1b": "gpt2", "0.4b": "gpt2-medium", "0.8b": "gpt2-large", "1.5b": "gpt2-xl"}
_BENCH, _BENCH_CSV = {"test", "t/s"}, {"n_prompt", "n_gen", "avg_ts"}
_BATCHED = {"pp", "tg", "b", "t_pp s", "t s"}
_NO_SETTING = {"model", "size", "params", "test", "t/s"}  # of the columns of llama-bench
_ON_CPU = {"cpu", "blas"}
_TIMING = re.compile(r"(prompt )?eval time\s*=\s*([\d.]{1,20}) ms\s*/\s*(\d{1,9}) (?:tokens|runs)")
_META = re.compile(r"(general\.name|model ftype)\s*=\s*(\S.{0,60})")
_PARAMETERS = re.compile(r"\b\d{1,4}(?:\.\d{1,3})?[Bb]\b")
_LONGEST = 400  # characters of a line that are looked at


def of_table(grid: Grid) -> Grid | None:
    """A table of llama.cpp as one that says what each number is of; None: it is no such table."""
    names = {*grid.plain_names}
    if names >= _BENCH:
        return of_bench(grid, [by_name(grid, cells) for _, cells in grid.lines])
    if names >= _BENCH_CSV:
        return of_bench(grid, [of_fields(by_name(grid, cells)) for _, cells in grid.lines])
    return of_batched(grid) if names >= _BATCHED else None


def by_name(grid: Grid, cells: Sequence[str]) -> dict[str, str]:
    """The cells of a line by the names of their columns in lower case."""
    return dict(zip(grid.plain_names, cells, strict=True))


def of_fields(line: Mapping[str, str]) -> dict[str, str]:
    """A line of `llama-bench -o csv` or `-o json` as one of its table of Markdown."""
    parts = {"pp": line["n_prompt"], "tg": line["n_gen"]}
    test = "+".join(f"{name}{count}" for name, count in parts.items() if count not in ("", "0"))
    depth = line.get("n_depth", "0")
    found = {
        "model": line.get("model_type", ""),
        "gpu": line.get("gpu_info", ""),
        "test": f"{test} @ d{depth}" if depth not in ("", "0") else test,
        "t/s": line["avg_ts"],
    }
    settings = ("n_gpu_layers", "n_threads", "flash_attn", "type_k", "type_v", "backends")
    return found | {name: line[name] for name in settings if name in line}


def of_bench(grid: Grid, lines: Sequence[Mapping[str, str]]) -> Grid | None:
    """The tests of llama-bench; None where one is unknown."""
    settings = [name for name in (lines[0] if lines else {}) if name not in {*_NO_SETTING, "gpu"}]
    varying = [name for name in settings if len({line[name] for line in lines}) > 1]
    found = []
    for (number, _), line in zip(grid.lines, lines, strict=True):
        test = test_of(line["test"])
        if test is None:
            return None
        prompt, new, depth = test
        rate = units.number_of(line["t/s"])
        per_s = f"{rate.value / (prompt + new):.6g}" if rate else line["t/s"]
        apart = [f"{name} {line[name]}" for name in varying] + [f"depth {depth}"] * (depth > 0)
        on_cpu = line.get("backend", line.get("backends", "")).strip().lower() in _ON_CPU
        model, precision = model_of(line.get("model", ""))
        cells = {
            "model": model,
            "precision": precision,
            "gpu": "CPU" if on_cpu else line.get("gpu", ""),
            "engine": ENGINE,
            "configuration": ", ".join(apart),
            "size": line.get("size", ""),
            "batch_size": "1",
            "prompt_tokens": str(prompt or 1),
            "new_tokens": str(new),
            "throughput (prompts/s)": per_s,
        }
        found.append((number, cells))
    told = "llama-bench, of which a prompt per second is t/s over the tokens of a test"
    return without_empty(of_pairs(found, told, grid.left_out, grid.gpu))


def without_empty(grid: Grid) -> Grid:
    """A grid without the columns in which no line says anything."""
    kept = [i for i in range(len(grid.names)) if any(cells[i] for _, cells in grid.lines)]
    lines = ((n, {grid.names[i]: cells[i] for i in kept}) for n, cells in grid.lines)
    return of_pairs(lines, grid.separator, grid.left_out, grid.gpu)


def test_of(told: str) -> tuple[int, int, int] | None:
    """The tokens of the prompt, the new ones, and those before both; None: it is no such test.

    >>> test_of("pp 512"), test_of("tg128"), test_of("pp512+tg128"), test_of("tg128 @ d4096")
    ((512, 0, 0), (0, 128, 0), (512, 128, 0), (0, 128, 4096))
    >>> test_of("warm up") is None
    True
    """
    found = _TEST.fullmatch(units.plain(told))
    if not found:
        return None
    prompt, new, depth = (int(one or 0) for one in found.groups())
    return (prompt, new, depth) if prompt + new else None


def model_of(told: str) -> tuple[str, str]:
    """A model, and in what its weights are stored.

    >>> model_of("llama 7B mostly Q4_K - Medium"), model_of("gpt2 0.4B F16")
    (('llama 7B', 'Q4_K'), ('gpt2-medium', 'F16'))
    """
    told = units.plain(told)
    found = _STORED.search(told)
    model = told[: found.start()] if found else told
    family, _, size = model.lower().partition(" ")
    return (_GPT2.get(size, model) if family == "gpt2" else model), found[1] if found else ""


def of_batched(grid: Grid) -> Grid:
    """The lines of llama-batched-bench; of a prompt that all share only the generation."""
    found = []
    for number, cells in grid.lines:
        line = by_name(grid, cells)
        known = [units.number_of(line.get(name, "")) for name in ("pp", "tg", "b", "n_kv")]
        prompt, new, batch, cached = (one.value if one else 0.0 for one in known)
        is_shared = batch > 1 and cached == prompt + batch * new
        row = {"engine": ENGINE, "batch_size": line["b"], "new_tokens": line["tg"]}
        if is_shared:
            row |= {"prompt_tokens": "1", "latency (s)": line.get("t_tg s", "")}
        else:
            row |= {"prompt_tokens": line["pp"], "latency (s)": line["t s"]}
            row["time to first token (s)"] = line["t_pp s"]
        found.append((number, row))
    return of_pairs(found, "llama-batched-bench", grid.left_out, grid.gpu)


def of_timings(rows: Sequence[str]) -> Grid | None:
    """The timings that llama.cpp prints at the end of each run; None: there are none."""
    found = list(runs_of(rows))
    if not found:
        return None
    left_out = written_in(rows) - 2 * len(found)
    return without_empty(of_pairs(found, "llama.cpp's timings", left_out))


def runs_of(rows: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Each run with a prompt and new tokens: the first of them is made with the prompt."""
    about: dict[str, str] = {}
    prompt: tuple[float, int] | None = None
    last = 0
    for at, row in enumerate(rows):
        told = row[:_LONGEST]
        if named := _META.search(told):
            stored = named[1] != "general.name"
            key, value = ("precision", named[2].split()[-1]) if stored else ("model", named[2])
            about[key] = value.strip()
        timing = _TIMING.search(told)
        if not timing:
            sizes = {one.upper() for one in _PARAMETERS.findall(told)}
            if len(sizes) == 1 and ":" in told:
                about.setdefault("model", sizes.pop())
            continue
        if timing[1]:
            prompt = float_of(timing[2]), int(timing[3])
            continue
        if prompt is None:
            continue
        about["gpu"] = gpu_above(rows[last:at]) or about.get("gpu", "")
        last, steps = at + 1, int(timing[3])
        first_ms, more_ms = prompt[0], float_of(timing[2])
        yield (
            at + 1,
            {
                **about,
                "engine": ENGINE,
                "batch_size": "1",
                "prompt_tokens": str(prompt[1]),
                "new_tokens": str(steps + 1),
                "latency (ms)": f"{first_ms + more_ms:.6g}",
                "time to first token (ms)": str(first_ms),
            },
        )
        prompt = None


def float_of(told: str) -> float:
    """A number of digits and points; 0 where it has too many of these."""
    try:
        return float(told)
    except ValueError:
        return 0.0
