"""What a column holds, by its header: quantity, unit, what it counts, and whom it is about.

`FT Latency (ms)` is a latency in ms of FasterTransformer, `fp16 tok/s` a rate of tokens at fp16,
`energy_mj_per_token` an energy per token. What is left over of a header tells its column apart from
others of the same quantity, or it is not understood.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.asked import CPU
from bench.device import gpu_names
from jobs.report.foreign import names, units

# Field -> the words that name it, of which all must be there; the longest name counts.
LABELS = {
    "precision": "precision, dtype, format, data type, datatype, torch dtype, quant, quantization,"
    " quantisation, compute type, weights dtype, weight dtype, model dtype, numeric format, fp,"
    " precision type, prec, param dtype, floating point",
    "gpu": "gpu, gpu type, gpu name, gpu model, device, device name, hardware, accelerator, card,"
    " machine, gpus, gpu card, graphics card, device type, hw, gpu device",
    "model": "model, model name, network, arch, architecture, model id, checkpoint, models",
    "engine": "engine, backend, framework, implementation, runtime, provider, execution provider,"
    " inference engine, library, executor, compiler, toolkit",
    "attention": "attention, attn, attn implementation, attention implementation, sdpa",
    "batch_size": "batch, batch size, batchsize, bs, bsz, bsize, concurrent seqs, concurrency,"
    " num seqs, concurrent sequences, concurrent requests, num sequences, number of sequences,"
    " n seqs, b, per device batch size, eval batch size, max batch size",
    "prompt_tokens": "tokens, prefill length, prefill len, context tokens, prompt tokens, prompt length, prompt len, prompt size, input tokens,"
    " input length, input len, seq len, seqlen, seq length, sequence length, sequence len, seq,"
    " sequence, max seq len, max seq length, max sequence length, input size, token length,"
    " n tokens, num tokens, length, seq lengths, input seq len, input sequence length, prompt,"
    " n prompt, isl, sl",
    "new_tokens": "new tokens, tokens generated, generated tokens, output tokens, output length,"
    " output len, gen len, gen length, max new tokens, num new tokens, generation length, gen tokens,"
    " tokens out, completion tokens, decode tokens, output seq len, output sequence length,"
    " n new tokens, generated, n gen, osl, generate length, decode length",
    "context": "context, ctx, context length, context window, quality context, ctx len, n ctx,"
    " window, context size, context len",
    "stride": "stride",
    "text": "text, dataset, corpus, task, quality text, eval dataset, evaluation set, data",
    "split": "split",
    "run": "run, sweep",
    "trial": "trial, rep, repetition, replicate, seed, run id, run number, try, round",
    "outcome": "outcome, status, state",
    "reason": "reason, error message",
    "energy_methods": "energy method, meter, energy meter, power meter, measurement method, energy"
    " source, energy tool",
    "configuration": "configuration, config, setup, setting, settings, variant, method, approach,"
    " name, label, experiment, case, test, system, option, mode, optimization, optimisation",
    "metric": "metric, measure, measurement, quantity, metric name, indicator, statistic, property",
    "value": "value, result, val, score, reading, results, values",
    "unit": "unit, units, metric unit",
    "speedup_low": "speedup low",
    "speedup_high": "speedup high",
    "energy_ratio_low": "energy ratio low",
    "energy_ratio_high": "energy ratio high",
}
# Quantities: the words that name them, and the dimension of their unit.
QUANTITIES = {
    "latency_ms": (
        "time",
        "latency, lat, time, times, duration, elapsed, elapsed time, inference time, forward time,"
        " inference, forward, latencies, timing, batch time, batch latency, step time, e2e, e2e"
        " latency, end to end latency, wall time, walltime, wall clock, generation time, run time,"
        " total time, total latency, response time, execution time, exec time, gpu time, forward"
        " pass, forward latency, generate, model latency, inference latency, generation latency,"
        " request latency, avg inference, time taken, processing time, iteration time, predict time",
    ),
    "first_token_ms": (
        "time",
        "ttft, first token, time to first token, first token latency, prefill, prefill latency,"
        " prefill time, prompt processing, prompt latency, first token time, prefill forward",
    ),
    "per_output_token_ms": (
        "time",
        "tpot, time per output token, per output token, itl, inter token latency, decode latency,"
        " decode time, per token latency, time per token, latency per token, token latency, decode",
    ),
    "throughput_per_s": (
        "rate",
        "throughput, tput, thpt, speed, rate, thruput, inference speed, generation speed, decode"
        " speed, decoding speed, throughputs, decode throughput, generation throughput",
    ),
    "energy_mj": (
        "energy",
        "energy, energy consumption, consumption, energy consumed, energy used, total energy, gpu"
        " energy, energy usage, energy cost, joules, gpu energy consumption, net energy",
    ),
    "mean_w": (
        "power",
        "power, power draw, mean power, average power, gpu power, power consumption, power usage,"
        " load power, power avg, draw, watts, active power",
    ),
    "idle_w": ("power", "idle, idle power, energy idle, idle draw, power idle, idle power draw"),
    "power_limit_w": ("power", "power limit, tdp, power cap"),
    "perplexity": (
        "",
        "perplexity, ppl, quality perplexity, perplexities, wikitext ppl, wikitext perplexity, wiki"
        " ppl, test ppl, test perplexity, ppl score, wikitext2 ppl, wikitext2 perplexity, wiki2 ppl",
    ),
    "bits_per_byte": ("", "bits per byte, bits byte, bpb, bit b, bits b"),
    "memory_mb": (
        "memory",
        "mem, memory, vram, peak memory, gpu memory, memory usage, gpu mem, peak mem, max memory,"
        " memory footprint, peak vram, vram usage, max memory used, gpu memory usage, memory used,"
        " mem usage, max memory allocated, peak gpu memory, ram",
    ),
    "size_mb": (
        "memory",
        "size, model size, weights, weights size, weight size, file size, params size, model weight,"
        " size on disk, checkpoint size, footprint",
    ),
    "energy_window_s": ("time", "energy window, measurement window, window of the energy"),
    "duration_s": ("time", "period, log duration"),
}
BY_DIMENSION = {
    "time": "latency_ms",
    "rate": "throughput_per_s",
    "energy": "energy_mj",
    "power": "mean_w",
    "memory": "memory_mb",
}
# The unit of a quantity whose name alone does not say it, and so must be told as an assumption.
USUAL_UNIT = {"time": "ms", "energy": "mJ", "power": "W", "memory": "MB"}
STATISTICS = {
    "median": "median med",
    "mean": "mean avg average",
    "best": "min minimum best fastest",
    "tail": "p999 p100 max maximum worst slowest tail",
    "spread": "std stdev stddev sd var variance cv iqr se sem err error ci ci95 deviation spread"
    " jitter uncertainty",
}
STATISTIC = {word: name for name, words in STATISTICS.items() for word in words.split()}
PREFERRED = ("median", "", "mean", "best")  # of several columns of one quantity; no other is read
_RATIO = set(
    "speedup speedups gain gains improvement improvements compression ratio relative reduction"
    " advantage overhead vs versus factor increase decrease saving savings diff difference delta"
    " change percent utilization utilisation util utilized normalized efficiency loss degradation"
    " drop scaling bound".split()
)
_NOT_A_LATENCY = set("load loading build compile compilation warmup warm train training epoch".split())
_NOT_A_LATENCY |= set("start startup init export convert conversion download backward".split())
_FILLER = set(
    "of the in for a an to at with on and by used measured using total gpu model inference number"
    " num no per size torch all host cpu timing".split()
)
_QUANTILE = re.compile(r"p\d\d(\.\d+)?|\d\d(p|th)")
_SEPARATORS = re.compile(r"[\s_,:;|]+")
_BRACKETS = re.compile(r"[(\[{]([^)\]}]*)[)\]}]")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")
_BATCH_TAG = re.compile(r"(?:bs|bsz|b|batch|batchsize)[=x-]?(\d+)")
_TOKENS_TAG = re.compile(r"(?:seq|seqlen|sl|len|s)[=x-]?(\d+)")


def _phrases(text: str) -> list[tuple[str, ...]]:
    return [tuple(phrase.split()) for phrase in text.replace("\n", " ").split(", ")]


_LABEL = {words: name for name, text in LABELS.items() for words in _phrases(text)}
_QUANTITY = {words: name for name, (_, text) in QUANTITIES.items() for words in _phrases(text)}
KNOWN_WORDS = sorted({" ".join(words) for words in (*_LABEL, *_QUANTITY)})


@dataclass(frozen=True)
class Heading:
    """A column, as its header was understood.

    Attributes:
        name: As it stands there.
        field: What it holds; "ratio" of what is derived from others; None: not understood.
        unit: As people write it; None where the header has none.
        per: What a time or an energy is of, or what a rate counts: token, sample or batch.
        scale: What a number is multiplied by besides its unit: 0.001 per 1,000 tokens.
        statistic: median, mean, best, tail or spread; empty: not said.
        tags: Whom it is about: precision, engine, gpu, batch_size, prompt_tokens.
        rest: Words that are left over.
    """

    name: str
    field: str | None
    unit: str | None = None
    per: str | None = None
    statistic: str = ""
    scale: float = 1.0
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    rest: tuple[str, ...] = ()

    @property
    def is_quantity(self) -> bool:
        """Whether its cells are measured numbers."""
        return self.field in QUANTITIES

    @property
    def dimension(self) -> str:
        """Of its unit."""
        return QUANTITIES[self.field][0] if self.field in QUANTITIES else ""


def heading_of(name: str) -> Heading:
    """What a header says.

    >>> heading_of("Latency (ms)").field, heading_of("Latency (ms)").unit
    ('latency_ms', 'ms')
    >>> found = heading_of("Energy (mJ/token)")
    >>> found.field, found.unit, found.per
    ('energy_mj', 'mj', 'token')
    >>> found = heading_of("fp16 tok/s")
    >>> found.field, found.per, found.tags
    ('throughput_per_s', 'token', {'precision': 'fp16'})
    >>> heading_of("EFF-FT Latency (ms)").tags, heading_of("FT Speedup").field
    ({'engine': 'eff-ft'}, 'ratio')
    >>> heading_of("timing_latency_ms_p50").statistic, heading_of("mood").field
    ('median', None)
    """
    told = units.plain(name)
    inner = " ".join(found[1] for found in _BRACKETS.finditer(told))
    outer = _BRACKETS.sub(" ", told)
    words = [*split(outer), *split(inner)]
    scale, words = per_thousand(words)
    inside = len(split(inner))
    statistic, words = statistic_in(words, len(words) - inside)
    unit, per, dimension, words = unit_in(words, len(statistic_in(split(inner), 0)[1]))
    if tuple(words) not in _LABEL and not _RATIO.isdisjoint(words):
        return Heading(name, "ratio", rest=tuple(words))
    if ("speed", "up") in zip(words, words[1:], strict=False):
        return Heading(name, "ratio", rest=tuple(words))
    if statistic == "spread" and not words:
        return Heading(name, "spread", statistic=statistic)
    tags, words = tags_in(words)
    found, rest = named(words, dimension)
    if found == "latency_ms" and not _NOT_A_LATENCY.isdisjoint(words):
        found = None
    if found is None and not rest and tags and not dimension:
        return Heading(name, None, unit, per, statistic, scale, tags)
    if found in QUANTITIES and dimension and QUANTITIES[found][0] != dimension:
        # `decode tok/s` is a rate, and of the prompt's tokens it is none that is compared.
        found = None if found == "first_token_ms" else BY_DIMENSION[dimension]
    elif found is None and dimension:
        found = BY_DIMENSION[dimension] if _NOT_A_LATENCY.isdisjoint(words) else None
    if found == "latency_ms" and per == "token":
        found = "per_output_token_ms"
    if found == "latency_ms" and {"first", "token"} <= set(words):
        found = "first_token_ms"
    if found in LABELS and dimension and dimension != "rate":
        found = None
    if found in ("perplexity", "bits_per_byte"):
        per = next((word for word in ("word", "byte", "token") if word in words), None)
    if found in QUANTITIES and statistic == "spread":
        return Heading(name, "spread", unit, per, statistic, scale, tags, rest)
    if found == "gpu" and tags:  # GPU FP16
        found = None
    # A dimension that does not fit, as of `batch_ms`, is more than the word before it.
    if found in LABELS and tags and found not in tags:
        tags = {}
    return Heading(name, found, unit, per, statistic, scale, tags, rest)


def split(text: str) -> list[str]:
    """The words of a header in lower case, with / and % as words.

    >>> split("torch_dtype"), split("mJ/token"), split("batchSize")
    (['torch', 'dtype'], ['mj', '/', 'token'], ['batch', 'size'])
    """
    found: list[str] = []
    for part in _SEPARATORS.split(text.replace("μ", "u").replace("µ", "u")):
        for token in re.findall(r"[A-Za-z][A-Za-z0-9=.]*|\d+[A-Za-z]*|[/%#]", part):
            known = units.spelled(token) in units.UNIT
            pieces = [token] if known else _CAMEL.split(token)
            found += [piece.lower().strip(".=") for piece in pieces]
    return found


def per_thousand(words: list[str]) -> tuple[float, list[str]]:
    """The scale of what is per 1,000 tokens, and the words with `per token` in its place.

    >>> per_thousand(["energy", "per", "1k", "tokens"]), per_thousand(["j", "/", "1k"])
    ((0.001, ['energy', 'per', 'tokens']), (0.001, ['j', '/', 'token']))
    """
    for at, word in enumerate(words):
        if word in ("1k", "1000", "k", "1m") and at and words[at - 1] in ("/", "per"):
            counted = words[at + 1 :] if words[at + 1 : at + 2] else ["token"]
            return (1e-6 if word == "1m" else 1e-3), [*words[:at], *counted]
    return 1.0, words


def unit_in(words: list[str], inner: int = 0) -> tuple[str | None, str | None, str, list[str]]:
    """The unit among words, what it is of, its dimension, and the words that are left.

    Single letters are units only in brackets, which are the last `inner` words, or at the end.
    """
    words = ["/" if word == "per" else word for word in words]
    for at, word in enumerate(words[:-2]):  # per output token
        if word == "/" and words[at + 1] in ("output", "generated", "new", "decoded"):
            words = [*words[: at + 1], *words[at + 2 :]]
            break
    for at, word in enumerate(words):
        if word in units.RATES:
            return None, units.RATES[word], "rate", words[:at] + words[at + 1 :]
        if word == "/" and 0 < at < len(words) - 1:
            before, after = words[at - 1], words[at + 1]
            over = units.DIMENSION.get(units.UNIT.get(after, ""))
            if before in units.NOUN and over == "time":
                rest = words[: at - 1] + words[at + 2 :]
                return units.UNIT[after], units.NOUN[before], "rate", rest
            if before in units.UNIT and after in units.NOUN:
                unit = units.UNIT[before]
                rest = words[: at - 1] + words[at + 2 :]
                return unit, units.NOUN[after], units.DIMENSION[unit], rest
    for at, word in enumerate(words[:-1]):  # throughput_tok_s
        if word in units.NOUN and word != "t" and words[at + 1] in ("s", "sec", "second"):
            return "s", units.NOUN[word], "rate", words[:at] + words[at + 2 :]
    per = None
    for at, word in enumerate(words):
        if word == "/" and at + 1 < len(words) and words[at + 1] in units.NOUN:
            per, words = units.NOUN[words[at + 1]], words[:at] + words[at + 2 :]
            break
        if word == "/" and at + 1 < len(words) and words[at + 1] in units.TIME:
            return words[at + 1], "sample", "rate", words[:at] + words[at + 2 :]
    for at in reversed(range(len(words))):
        unit = units.UNIT.get(words[at])
        if unit is None or (len(words[at]) == 1 and at < len(words) - inner - 1):
            continue
        if words[at] == "b" or (len(words) == 1 and len(words[0]) == 1):
            continue
        return unit, per, units.DIMENSION[unit], words[:at] + words[at + 1 :]
    return None, per, "", [word for word in words if word != "/"]


def statistic_in(words: list[str], outer: int) -> tuple[str, list[str]]:
    """The statistic that words name, and the others; a spread where one of several is one.

    `min` is a minute in brackets, which are the words from `outer` on, and after `per`.
    """
    found: list[str] = []
    rest: list[str] = []
    for at, word in enumerate(words):
        minute = word == "min" and (at >= outer or words[at - 1 : at] in (["/"], ["per"]))
        if minute:
            rest.append(word)
        elif _QUANTILE.fullmatch(word):
            found.append("median" if "50" in word else "tail")
        elif word in STATISTIC and not (word == "max" and words[at + 1 : at + 2] in _MAXIMA):
            found.append(STATISTIC[word])
        else:
            rest.append(word)
    return ("spread" if "spread" in found else found[-1] if found else ""), rest


_MAXIMA = (["new"], ["seq"], ["sequence"], ["batch"], ["length"], ["memory"], ["tokens"])


def tags_in(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Precision, GPU, batch size, length and engine among words, and the others."""
    tags: dict[str, str] = {}
    rest: list[str] = []
    at = 0
    while at < len(words):
        word, following = words[at], words[at + 1] if at + 1 < len(words) else ""
        if found := _BATCH_TAG.fullmatch(word):
            tags["batch_size"] = found[1]
        elif found := _TOKENS_TAG.fullmatch(word):
            tags["prompt_tokens"] = found[1]
        elif word in ("batch", "bs", "bsz") and following.isdigit():
            tags["batch_size"] = following
            at += 1
        elif word in ("batch",) and following == "size" and words[at + 2 : at + 3]:
            if words[at + 2].isdigit():
                tags["batch_size"] = words[at + 2]
                at += 2
            else:
                rest.append(word)
        else:
            rest.append(word)
        at += 1
    precision = names.precision_in(rest)
    if precision.what:
        tags["precision"] = precision.what
        rest = list(precision.rest)
    if "cpu" in rest and rest[rest.index("cpu") + 1 :][:1] != ["time"]:
        tags["gpu"] = CPU
        rest.remove("cpu")
    elif gpu := gpu_names.among(rest):
        tags["gpu"], rest = gpu[0], list(gpu[1])
    engine = names.engine_in([word for word in rest])
    if engine.what and engine.rest != tuple(rest):
        tags["engine"] = engine.what
        rest = list(engine.rest)
    return tags, rest


def named(words: Sequence[str], dimension: str) -> tuple[str | None, tuple[str, ...]]:
    """The field that words name, by the longest name among them, and the words that are left."""
    best: tuple[int, int, str, tuple[str, ...]] | None = None
    for known, of in ((_QUANTITY, 1), (_LABEL, 0)):
        for begin in range(len(words)):
            for count in range(min(5, len(words) - begin), 0, -1):
                phrase = tuple(words[begin : begin + count])
                if phrase not in known:
                    continue
                name = known[phrase]
                rest = (*words[:begin], *words[begin + count :])
                # A unit beside it makes a quantity of a word that is both.
                wanted = of if dimension else 0
                score = (count, wanted, name, rest)
                if best is None or score[:2] > best[:2]:
                    best = score
                break
    if best is None:
        return None, tuple(words)
    _, _, name, rest = best
    left = tuple(word for word in rest if word not in _FILLER and word != "/")
    return name, left


def explained(heading: Heading) -> bool:
    """Whether a header says what its column holds, and nothing besides."""
    return heading.field is not None and not heading.rest
