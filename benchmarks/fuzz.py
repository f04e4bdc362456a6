"""Does anything but one message come of a file that a stranger made?

    python benchmarks/fuzz.py [--inputs N] [--seed N] [--kind KIND ...] [--keep FOLDER]

Each kind of file that tensorgap reads is made from a valid one: bits flipped, bytes cut, doubled,
spliced or replaced, and, by its own structure, values, columns, types, lengths and names that a
stranger would try. The real readers read it, in child processes with a limit of memory above what
their imports took, and of processor time for each input; a part goes through the command line. A
fault is: an exception other than the one message, a crash, a hang, too much memory, a control
character on standard output or standard error, a file made, changed or opened for writing outside
the folder, a program started, a connection opened.

Prints a row for each kind, with the faults, then all inputs and faults. Exits 1 where there is a
fault; what it was found with lies in --keep then.
"""

from __future__ import annotations

import abc
import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

CPU_S = 20  # for one input
SILENT_S = 300.0  # of the clock, after which a child waits for what never comes
MORE_BYTES = 3 * 10**9  # above what the imports of the readers take of address space
BATCH = 2000  # inputs of one child
# Of all inputs: what is read fastest is read most.
SHARES = {
    "source.json": 0.1,
    "matrix.toml": 0.4,
    "table.csv": 0.15,
    "table of anybody": 0.15,
    "rows.parquet": 0.1,
    "model": 0.03,
    "commands": 0.07,
}
CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
TEXTS = (
    "", " ", "-", "..", "../../canary", "/etc/passwd", "~", "a/b", "a\\b", "\x00", "\n", "\r\n",
   "'",     '"', ",", "=1+1", "|", "{}", "[]", "nan", "inf", "-1", "0", "1e999999999", "9" * 5000,
    "x" * 70_000, f"T4{CLIPBOARD}", "\x9b31m", "\u202egnp", "\u2028", "\ufeff", "\U000e0041",
    "[link=file:///]x[/]", "s3://bucket/x", "file:///etc/passwd", "%s%n", "{0.__class__}",
    "$(touch x)", "__import__('os')", "gpt2", "tiny", "CPU", "auto", "fp32", "mixed", "OK", "eager",
    "2026-11-24T12:00:00Z", "1_0", "\u0661",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 255, 1024, 65_536, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, -(2**63), 10**30,
    0.0, -0.0, 0.5, 1e-308, 5e-324, 1e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
BYTES = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xff" * 8,
    b"\x00" * 64,
)


class Hang(BaseException):
    """An input took all the processor time that one may."""


class Escape(BaseException):
    """An input led to something outside its folder."""


def bytes_changed(rng: random.Random, content: bytes) -> bytes:
    """The content with a few changes that know nothing of its structure."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(changed) + 1)
        size = min(rng.choice((1, 2, 4, 8, 64, 1024)), len(changed) - at)
        match rng.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at : at + size]
            case 2:
                changed[at : at + size] = rng.randbytes(size)
            case 3:
                changed[at:at] = rng.choice(BYTES)
            case 4:
                changed[at:at] = changed[at : at + size] * rng.choice((1, 2, 50))
            case 5:
                other = rng.randrange(len(changed) + 1)
                changed[at : at + size] = changed[other : other + size]
            case 6 if rng.random() < 0.2:
                del changed[at:]
    return bytes(changed)


def hostile(rng: random.Random, depth: int = 0) -> Any:
    """A value of JSON that no one expects there."""
    match rng.randrange(8 if depth < 3 else 5):
        case 0:
            return rng.choice(NUMBERS)
        case 1 | 2:
            return rng.choice(TEXTS)
        case 3:
            return "".join(rng.choice(TEXTS)[:50] for _ in range(rng.randrange(4)))
        case 4:
            return rng.choice((None, True, False))
        case 5:
            return [hostile(rng, depth + 1) for _ in range(rng.randrange(4))]
        case 6:
            return {rng.choice(TEXTS)[:99]: hostile(rng, depth + 1) for _ in range(2)}
    return rng.randrange(-10, 2000)


def json_changed(rng: random.Random, value: Any) -> Any:
    """The value with one node of it, or a few, replaced, dropped or added."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        copied = dict(value)
        key = rng.choice(list(copied))
        match rng.randrange(6):
            case 0:
                del copied[key]
            case 1:
                copied[rng.choice(TEXTS)[:99]] = hostile(rng)
            case 2:
                copied[key] = hostile(rng)
            case _:
                copied[key] = json_changed(rng, copied[key])
        return copied if rng.random() < 0.7 else json_changed(rng, copied)
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], json_changed(rng, value[at]), *value[at + 1 :]]
    return hostile(rng)


def json_text(rng: random.Random, value: Any) -> bytes:
    """JSON as others may write it, and a nest that no parser follows now and then."""
    if rng.random() < 0.02:
        return b"[" * rng.choice((100, 5000, 200_000))
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def text_changed(rng: random.Random, text: str, token: re.Pattern[str]) -> bytes:
    """Text with some of its tokens replaced, dropped, doubled or exchanged."""
    parts = token.split(text)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(parts))
        match rng.randrange(5):
            case 0:
                parts[at] = str(rng.choice(NUMBERS))
            case 1:
                parts[at] = rng.choice(TEXTS)
            case 2:
                parts[at] = json.dumps(hostile(rng))
            case 3:
                parts[at] = parts[at] * rng.choice((0, 2, 3, 500))
            case 4:
                parts[at] = parts[rng.randrange(len(parts))]
    joined = "".join(parts)
    encoding = "utf-16" if rng.random() < 0.01 else "utf-8"
    return joined.encode(encoding, "surrogatepass")


# ------------------------------------------------------------------------------- the kinds


class Kind(abc.ABC):
    """One kind of file: made valid once, changed for each input, and read as the program does."""

    place: Path

    def __init__(self, folder: Path) -> None:
        """Args: folder: all that an input may touch."""
        self.folder = folder

    @abc.abstractmethod
    def make(self, rng: random.Random) -> None:
        """Write the input."""

    @abc.abstractmethod
    def read(self, rng: random.Random) -> None:
        """Read it with the real reader."""


class TextKind(Kind):
    """Text whose bytes are changed, or its tokens."""

    TOKEN: re.Pattern[str]
    BYTES_SHARE: float
    valid: list[str]

    def make(self, rng: random.Random) -> None:
        text = rng.choice(self.valid)
        if rng.random() < self.BYTES_SHARE:
            content = bytes_changed(rng, text.encode())
        else:
            content = text_changed(rng, text, self.TOKEN)
        self.place.write_bytes(content)


class SourceJson(Kind):
    """The source.json of a results folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import datetime

        from examples import measurement

        from bench.results.store import Results

        text = '[[workloads]]\nmodel = "tiny"\n'
        now = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)
        made = Results.create(str(folder), "local", text, now, ("T4", "CPU"))
        made.write(measurement(run=made.source.run))
        self.place = Path(made.location)
        self.valid = (self.place / "source.json").read_bytes()

    def make(self, rng: random.Random) -> None:
        if rng.random() < 0.3:
            content = bytes_changed(rng, self.valid)
        else:
            content = json_text(rng, json_changed(rng, json.loads(self.valid)))
        (self.place / "source.json").write_bytes(content)

    def read(self, rng: random.Random) -> None:
        from bench import matrix
        from bench.results import store as results

        opened = results.Results.open(str(self.place))
        matrix.cells(opened.matrix(), opened.source.gpu_types)
        results.read(str(self.place))


class MatrixToml(TextKind):
    """A matrix."""

    TOKEN = re.compile(r'("[^"\n]*"|\w+|[\[\]{}=,.#\n])')
    BYTES_SHARE = 0.3

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from bench import matrix

        shipped = [path.read_text() for path in (ROOT / "jobs" / "matrices").glob("*.toml")]
        whole = [matrix.dump(matrix.parse(text, "m.toml", "m")) for text in shipped]
        self.valid = [*shipped, *whole]
        self.place = folder / "m.toml"
        self.place.write_text(self.valid[0])

    def read(self, rng: random.Random) -> None:
        from bench import matrix

        read = matrix.load(self.place)
        matrix.cells(read, ["CPU", "T4"])
        again = matrix.parse(matrix.dump(matrix.localise(read)), "m.toml", "m")
        assert again.workloads == matrix.localise(read).workloads


class TableCsv(TextKind):
    """A table that somebody else made."""

    TOKEN = re.compile(r"([,\n])")
    BYTES_SHARE = 0.2

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.place = folder / "table.csv"
        examples = ROOT / "jobs" / "examples"
        self.valid = [path.read_text() for path in examples.glob("*.csv")]
        self.valid += [
            "precision,latency_ms,energy_mj,gpu,model,batch,tokens,run,perplexity,speedup_low,"
            "speedup_high,idle_w,energy_window_s,context,text,energy_method,outcome\n"
            "fp32,11.7,580,T4,gpt2,1,128,a,29.94,0.9,1.1,10,4,1024,wikitext-2 test,counter,OK\n"
            "fp16,10.4,370,T4,gpt2,1,128,a,29.95,1.1,1.2,10,4,1024,wikitext-2 test,counter,OK\n"
        ]
        self.place.write_text(self.valid[0])

    def read(self, rng: random.Random) -> None:
        explained(self.place, rng)


def explained(place: Path, rng: random.Random) -> None:
    """What `tensorgap explain` does with a table, to the text that it prints."""
    from bench.files.limits import Allowance
    from jobs.report import answer, compare, facts, findings, proposal, text
    from jobs.report.finding import topics
    from jobs.report.foreign import lines, read
    from jobs.report.foreign.understood import Told

    found = read.load(str(place), Told(), Allowance()).cases
    gpus = rng.choice(([], ["T4"], ["P100-PCIE"], ["CPU"]))
    cases = compare.with_ratios(lines.on_each(found, gpus))
    failures = [case for case in cases if case.outcome != "OK"]
    groups = facts.grouped(cases)
    shown = findings.find(groups, failures=failures)
    text.answer(answer.rows(groups, failures, shown), answer.sentences(shown, len(groups)), [])
    text.findings(topics(shown), proposal.next_matrix(groups, shown))


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


class TableAny(Kind):
    """A table of anybody: any header, separator, encoding, shape and size."""

    WORDS = words(
        "precision dtype Format latency Latency(ms) time (s) ms/token tok/s throughput samples/s"
        " Energy (J) mJ/token kWh power W idle perplexity ppl bits_per_byte batch bs seq_len"
        " tokens new_tokens gpu device model engine backend run trial speedup CV std p50 p99 mean"
        " min max fp16 fp32 bf16 amp int8 TorchScript FT eager T4 A100 RTX-4090 mem (GB) metric"
        " value unit configuration notes timestamp tag duration nvidia_gpu_0 CPU half Speed Up %"
        " per / _ #"
    )
    CELLS = words(
        "fp32 fp16 FP16 torch.float16 half AMP bf16 NF4 INT8 eager graph TensorRT T4 A100-80GB"
        " V100 MI250 CPU cuda:0 gpt2 GPT2LMHeadModel Qwen2.5-3B OOM - n/a nan inf failed 0 -1"
        " 1e999 1e-9 11.7 11.7ms 1,200 1.29s ~78 96 samp/s 12.3k 0.0117 217 29.94 1 8 32 128 1024"
        " 65536 4.3x 12% true wikitext-2 idle active ** | ; \u2713 \u00b5s"
        " 1:23 18-21 2m 1.021,5 11,7"
    )
    TITLE = words(
        "GPT-2 medium on of in at vs T4 A100 fp16 fp32 batch size seq len 8 0 128 tokens new"
        " latency (ms) throughput (tok/s) dtype: latency: 0.1s, | = 99999999999 results"
    )
    ENCODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "latin-1")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.place = folder / "table.csv"
        self.place.write_text("precision,latency_ms\nfp32,1\n")

    def make(self, rng: random.Random) -> None:
        rows = rng.choice((0, 1, 2, 3, 8, 40, 40, 300))
        if rng.random() < 0.01:
            rows = rng.choice((3_000, 30_000, 100_000, 100_001))
        columns = rng.choice((1, 2, 3, 4, 6, 6, 12, 40)) if rows <= 300 else rng.choice((2, 5))
        columns = rng.choice((900, 1001)) if rng.random() < 0.01 and rows <= 40 else columns
        pool = (*self.WORDS, *TEXTS) if rng.random() < 0.3 else self.WORDS
        cells = (*self.CELLS, *TEXTS) if rng.random() < 0.3 else self.CELLS
        separator = rng.choice((",", ",", ";", "\t", "|", " | ", "  ", ":"))

        def head() -> str:
            return rng.choice(("", " ", "_")).join(rng.choices(pool, k=rng.choice((1, 1, 2, 3))))

        lines = [[head() for _ in range(columns)]]
        kinds = [rng.sample(cells, min(len(cells), rng.choice((1, 2, 5, 30)))) for _ in lines[0]]
        for _ in range(rows):
            line = [rng.choice(kind) for kind in kinds]
            lines.append(line[: rng.randrange(columns + 1)] if rng.random() < 0.05 else line)
        if rng.random() < 0.2 and rows <= 300:  # on its side
            lines = [list(column) for column in zip(*lines, strict=False)]
        if separator in ("|", " | ") and rng.random() < 0.7:
            lines.insert(1, ["---"] * columns)
        if rng.random() < 0.2:
            line = " ".join(rng.choices((*cells, *self.TITLE), k=rng.choice((2, 5, 12))))
            lines[0:0] = [[line], []] if rng.random() < 0.5 else [[line]]
        if rng.random() < 0.05:
            lines += lines[:2]  # a head that is repeated
        text = "\n".join(separator.join(line) for line in lines)
        content = text.encode(rng.choice(self.ENCODINGS), errors="replace")
        self.place.write_bytes(bytes_changed(rng, content) if rng.random() < 0.1 else content)

    def read(self, rng: random.Random) -> None:
        explained(self.place, rng)


class RowsParquet(Kind):
    """Rows in Parquet: damaged as bytes, or whole with other columns, types, values, metadata."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import kept_rows
        import pyarrow.parquet as pq
        from examples import measurement
        from test_jobs_report import the_first_study
        from two_runs import a_run

        from bench.results.columns import Source

        self.place = folder / "rows.parquet"
        source = Source("local/20261124T120000Z", "", "0.1.0", None, (), False)
        replicates = a_run(replicates=2, cells=(("A100-SXM-40GB", "fp16"),))
        rows = [*the_first_study(), measurement(), *replicates]
        kept_rows.write(self.place, rows, [source])
        self.valid = self.place.read_bytes()
        self.table = pq.read_table(self.place)

    def make(self, rng: random.Random) -> None:
        content = self.valid if rng.random() < 0.5 else self._other_table(rng)
        if content is self.valid or rng.random() < 0.1:
            # The footer is a tenth of the file, and decides how the rest is read.
            at = rng.choice((0, -len(content) // 10, -len(content) // 50))
            content = content[:at] + bytes_changed(rng, content[at:])
        self.place.write_bytes(content)

    def _other_table(self, rng: random.Random) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = self.table
        for _ in range(rng.choice((1, 2, 5))):
            at = rng.randrange(table.num_columns)
            column, named = table.column(at), table.field(at)
            with contextlib.suppress(pa.ArrowException, OverflowError, TypeError, ValueError):
                match rng.randrange(7):
                    case 0:
                        table = table.remove_column(at)
                    case 1:
                        table = table.append_column(rng.choice(TEXTS)[:99], column)
                    case 2:
                        table = table.append_column(named, column)
                    case 3:
                        values = [hostile(rng) for _ in range(table.num_rows)]
                        table = table.set_column(at, named, pa.array(values, named.type))
                    case 4:
                        values = [hostile(rng)] * table.num_rows
                        table = table.set_column(at, named.name, pa.array(values))
                    case 5:
                        kind = rng.choice((pa.null(), pa.string(), pa.binary(), pa.int8()))
                        nulls = pa.nulls(table.num_rows, kind)
                        table = table.set_column(at, named.name, nulls)
                    case 6:
                        metadata = dict(table.schema.metadata)
                        key = rng.choice(list(metadata))
                        metadata[key] = bytes_changed(rng, metadata[key])
                        table = table.replace_schema_metadata(metadata)
        if rng.random() < 0.2:
            times = rng.choice((0, 2, 50))
            table = pa.concat_tables([table] * times) if times else table.slice(0, 0)
        sink = pa.BufferOutputStream()
        kinds = rng.choice(("zstd", "snappy", "none", "gzip"))
        try:
            pq.write_table(table, sink, compression=kinds, write_page_checksum=rng.random() < 0.5)
        except (pa.ArrowException, ValueError):
            return self.valid
        return bytes(sink.getvalue())

    def read(self, rng: random.Random) -> None:
        from bench.results import store as results
        from jobs.report import compare, export, from_rows
        from jobs.report import table as report

        rows, _, _ = results.read(str(self.place))
        cases = compare.with_ratios(from_rows.cases(rows))
        for shown in (report.shown, report.markdown, export.to_csv, export.to_json):
            print(shown(cases))
        self.compare()

    def compare(self) -> None:
        """With the valid file, which has one of its cells at least in common, or is refused."""
        from bench.files.limits import Allowance
        from jobs.report.changes import compared, export, history, history_table, opened, table

        valid = self.folder / "valid.parquet"
        if not valid.exists():
            valid.write_bytes(self.valid)
        both = [opened.run_at(str(one), "old", Allowance()) for one in (valid, self.place)]
        for first, other in (both, reversed(both)):
            found = compared.compare(first, [other])
            for shown in (table.shown, table.markdown, export.to_csv, export.to_json):
                print(shown(found))
        told = history.of_runs(both)
        for shown in (history_table.shown, history_table.to_csv, history_table.to_json):
            print(shown(told))


class Model(Kind):
    """A folder with a model: its configuration, its weights, its tokenizer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        from bench.lookup import TINY_FOLDER

        torch.set_num_threads(1)
        self.place = folder / "model"
        words = json.loads((TINY_FOLDER / "tokenizer.json").read_text())["model"]["vocab"]
        size = {"vocab_size": len(words), "n_positions": 32, "n_embd": 16, "n_layer": 2}
        config = GPT2Config(**size, n_head=2, bos_token_id=0, eos_token_id=0)
        with contextlib.redirect_stderr(io.StringIO()):
            GPT2LMHeadModel(config).save_pretrained(self.place)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TINY_FOLDER / name, self.place / name)
        self.valid = {path.name: path.read_bytes() for path in self.place.iterdir()}

    def make(self, rng: random.Random) -> None:
        shutil.rmtree(self.place)
        self.place.mkdir()
        for name, content in self.valid.items():
            (self.place / name).write_bytes(content)
        name = rng.choice(list(self.valid))
        content = self.valid[name]
        if name == "model.safetensors" and rng.random() < 0.7:
            length = int.from_bytes(content[:8], "little")
            header = json_text(rng, json_changed(rng, json.loads(content[8 : 8 + length])))
            content = len(header).to_bytes(8, "little") + header + content[8 + length :]
        elif name.endswith(".json") and rng.random() < 0.8:
            content = json_text(rng, self._configured(rng, json.loads(content)))
        else:
            content = bytes_changed(rng, content)
        (self.place / name).write_bytes(content)
        match rng.randrange(20):
            case 0:
                (self.place / name).unlink()
            case 1:
                index = {"weight_map": {"x": "../../canary/secret", "y": "/etc/passwd"}}
                (self.place / "model.safetensors.index.json").write_text(json.dumps(index))
            case 2:
                (self.place / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch x'\ntR.")
            case 3:
                (self.place / name).unlink()
                target = rng.choice(("/dev/zero", "/etc/passwd", ".", name, "../../canary/secret"))
                (self.place / name).symlink_to(target)
            case 4:
                (self.place / name).unlink()
                os.mkfifo(self.place / name)

    @staticmethod
    def _configured(rng: random.Random, config: Any) -> Any:
        if rng.random() < 0.5:
            return json_changed(rng, config)
        names = (
            "n_embd", "n_layer", "n_head", "n_inner", "n_positions", "vocab_size", "hidden_size",
            "num_hidden_layers", "max_position_embeddings", "num_labels", "auto_map", "id2label",
            "tokenizer_class", "architectures", "torch_dtype", "dtype", "activation_function",
            "attn_implementation", "_name_or_path", "transformers_version", "chat_template",
            "added_tokens_decoder", "model_max_length", "processor_class", "tie_word_embeddings",
            "base_model_name_or_path", "bos_token_id", "layer_norm_epsilon", "rope_scaling",
        )  # fmt: skip
        values = (10**6, 10**9, {"AutoTokenizer": ["evil.Evil", None]}, ["Evil"], hostile(rng))
        return config | {rng.choice(names): rng.choice(values)}

    def read(self, rng: random.Random) -> None:
        from bench.errors import Unsupported
        from bench.model.load import load_model
        from bench.model.tokens import prompt_ids

        with contextlib.suppress(Unsupported):
            prompt_ids(load_model(str(self.place), "fp32", "cpu"))


class Commands(Kind):
    """The command line itself, on files of the other kinds, with odd arguments now and then."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.others: list[Kind] = []
        for kind in (SourceJson, MatrixToml, TableCsv, RowsParquet):
            (folder / kind.__name__).mkdir(exist_ok=True)
            self.others.append(kind(folder / kind.__name__))
        self.chosen = self.others[-1]

    def make(self, rng: random.Random) -> None:
        self.chosen = rng.choice(self.others)
        self.chosen.make(rng)

    def read(self, rng: random.Random) -> None:
        from jobs.cli import main

        place = str(self.chosen.place)
        report = ["report", place, "--format", rng.choice(("table", "markdown", "csv", "json"))]
        explain = ["explain", place, "--format", rng.choice(("text", "json")), "--gpu", "T4"]
        if isinstance(self.chosen, MatrixToml):
            arguments = ["plan", place]
        elif isinstance(self.chosen, TableCsv):
            arguments = explain
        else:
            merge = ["merge", place, "-o", str(self.folder / "all.parquet"), "--force"]
            compare = ["compare", place, place, "--fail-on", "latency>5%"]
            arguments = rng.choice((report, explain[:-2], merge, compare))
        if rng.random() < 0.2:
            # The system ends an argument at a NUL.
            arguments.insert(rng.randrange(len(arguments) + 1), rng.choice(TEXTS).rstrip("\0"))
        try:
            main(arguments)
        except SystemExit as ended:
            if ended.code not in (0, 1, 2):
                raise AssertionError(f"exit code {ended.code} of {arguments}") from None


KINDS: dict[str, type[Kind]] = dict(
    zip(
        SHARES,
        (SourceJson, MatrixToml, TableCsv, TableAny, RowsParquet, Model, Commands),
        strict=True,
    )
)


# ------------------------------------------------------------------------------- a child


def child(name: str, seed: int, first: int, count: int, sandbox: Path, report: int) -> None:
    """Read so many inputs, and tell of each on the descriptor `report`."""
    folder = sandbox / "folder"
    from bench.errors import TensorgapError

    # Standard output and standard error of the readers, whoever writes there.
    screen = os.open(sandbox / "screen", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(screen, 1)
    kind = KINDS[name](folder)
    kind.read(random.Random(0))  # of what is valid, so that what is imported late is imported
    os.dup2(screen, 2)
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = address_space + MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.signal(signal.SIGPROF, _hang)
    guard = _Guard(folder)
    sys.addaudithook(guard)
    for number in range(first, first + count):
        rng = random.Random(f"{seed} {name} {number}")
        kind.make(rng)
        before = _listing(sandbox)
        os.write(report, f"begin {number}\n".encode())
        began, outcome = time.monotonic(), "accepted"
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        guard.on = True
        try:
            kind.read(rng)
        except TensorgapError:
            outcome = "refused"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            outcome += f" at {_where(error)}"
        finally:
            guard.on = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        took_s = time.monotonic() - began
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        if outcome in ("accepted", "refused"):
            outcome = _trace(screen, before, _listing(sandbox), folder) or outcome
        if outcome not in ("accepted", "refused"):
            _copy(folder, sandbox / "faults" / f"{name}-{number}")
        os.ftruncate(screen, 0)
        os.lseek(screen, 0, os.SEEK_SET)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        os.write(report, f"{json.dumps([number, outcome, took_s, memory])}\n".encode())


def _hang(*_: object) -> NoReturn:
    raise Hang(f"more than {CPU_S} s of processor time")


class _Guard:
    """An audit hook that refuses what no reader needs; for Python's own calls, not a library's."""

    STARTS = ("subprocess.Popen", "os.exec", "os.system", "os.posix_spawn", "os.fork")
    CHANGES = (
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.symlink",
        "os.link",
        "os.chmod",
    )
    WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def __init__(self, folder: Path) -> None:
        self.on = False
        self.within = (f"{folder}/", "/dev/null", f"{folder.parent}/tmp/")

    def __call__(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in self.STARTS or event == "socket.connect":
            raise Escape(f"{event} {given}")
        if event in self.CHANGES or (event == "open" and given[2] & self.WRITES):
            path = given[0]
            if isinstance(path, str | bytes | Path):
                real = os.path.abspath(os.fsdecode(path))
                if not real.startswith(self.within):
                    raise Escape(f"{event} {real}")


def _listing(sandbox: Path) -> dict[str, tuple[int, int, int]]:
    """All that lies beside the folder of the inputs: size, time of the last change, mode."""
    found = {}
    for root, folders, files in os.walk(sandbox):
        if root == str(sandbox):
            folders.remove("folder")
            files = [name for name in files if name != "screen"]
        for entry in (*folders, *files):
            path = os.path.join(root, entry)
            state = os.lstat(path)
            found[path] = (state.st_size, state.st_mtime_ns, state.st_mode)
    return found


def _trace(screen: int, before: object, after: object, folder: Path) -> str | None:
    """What an input left outside its folder or on the screen that it must not."""
    if before != after:
        return "changed something outside its folder"
    shown = os.pread(screen, os.lseek(screen, 0, os.SEEK_END), 0)
    try:
        bad = {c for c in shown.decode() if c != "\n" and not c.isprintable()}
    except UnicodeDecodeError as error:
        return f"printed what is no text: {error.reason}"
    if bad:
        return f"printed {sorted(bad)}"
    return "printed a traceback" if b"Traceback (most" in shown else None


def _where(error: BaseException) -> str:
    """The innermost line of ours."""
    at, found = error.__traceback__, "?"
    while at:
        path = at.tb_frame.f_code.co_filename
        if path.startswith(str(ROOT)) and ".venv" not in path and "benchmarks" not in path:
            found = f"{path.removeprefix(f'{ROOT}/')}:{at.tb_lineno}"
        at = at.tb_next
    return found


# ------------------------------------------------------------------------------- the parent


@dataclass
class Tally:
    """What came of the inputs of a kind."""

    inputs: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    memory: int = 0
    faults: dict[int, str] = field(default_factory=dict)  # by the number of the input


def fuzz(name: str, seed: int, inputs: int, keep: Path) -> Tally:
    """Read inputs of one kind in children, one after the other."""
    tally = Tally()
    number = 0
    while number < inputs:
        count = min(BATCH, inputs - number)
        done = _told(name, seed, number, count, keep)
        for number, outcome, took_s, memory in done:
            tally.inputs += 1
            tally.refused += outcome == "refused"
            tally.slowest_s = max(tally.slowest_s, took_s)
            tally.memory = max(tally.memory, memory)
            if outcome not in ("accepted", "refused"):
                tally.faults[number] = outcome
        number += 1
    return tally


def _told(
    name: str, seed: int, first: int, count: int, keep: Path
) -> Iterator[tuple[int, str, float, int]]:
    """What a child tells of its inputs, to the last of them or to one that ended it."""
    with tempfile.TemporaryDirectory(prefix="tensorgap-fuzz-") as made:
        sandbox = Path(made).resolve()
        for inner in ("folder", "home", "tmp", "cwd", "canary"):
            (sandbox / inner).mkdir(mode=0o700)
        (sandbox / "canary" / "secret").write_text("a canary\n")
        told, tells = os.pipe()
        given = [name, seed, first, count, sandbox, tells]
        paths = {"HOME": sandbox / "home", "TMPDIR": sandbox / "tmp"}
        environment = {**os.environ, **{key: str(path) for key, path in paths.items()}}
        environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        process = subprocess.Popen(
            [sys.executable, __file__, "--child", *map(str, given)],
            cwd=sandbox / "cwd",
            env=environment,
            pass_fds=(tells,),
        )
        os.close(tells)
        begun: int | None = None
        with os.fdopen(told, "rb") as lines:
            for line in _lines(lines, process):
                if line.startswith(b"begin "):
                    begun = int(line.split()[1])
                else:
                    begun = None
                    number, outcome, took_s, memory = json.loads(line)
                    yield number, outcome, took_s, memory
        code = process.wait()
        if (sandbox / "faults").exists():
            _copy(sandbox / "faults", keep)
        if begun is not None:
            _copy(sandbox / "folder", keep / f"{name}-{begun}")
            yield begun, f"the process ended with {code}", 0.0, 0
        elif code:
            words = (sandbox / "screen").read_text(errors="replace")[-2000:]
            raise SystemExit(f"{words}\nthe child for {name} ended with {code} before an input")


def _lines(pipe: Any, process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Lines of a child, which is ended where it is silent for too long."""
    rest = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], SILENT_S)
        chunk = os.read(pipe.fileno(), 65_536) if ready else b""
        if not ready:
            process.kill()
        if not chunk:
            return
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


def _copy(source: Path, target: Path) -> None:
    # A pipe cannot be copied; what lies beside it is.
    with contextlib.suppress(shutil.Error):
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--kind", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"))
    asked = parser.parse_args(arguments)
    print(f"{'kind':13} {'inputs':>7} {'refused':>8} {'faults':>7} {'slowest':>9} {'memory':>8}")
    every = []
    for name in asked.kind:
        share = SHARES[name] / sum(SHARES[kind] for kind in asked.kind)
        tally = fuzz(name, asked.seed, round(share * asked.inputs), asked.keep)
        every.append(tally)
        print(
            f"{name:13} {tally.inputs:7,} {tally.refused:8,} {len(tally.faults):7}"
            f" {tally.slowest_s:7.2f} s {tally.memory / 1e6:5.0f} MB",
            flush=True,
        )
        for number, what in tally.faults.items():
            print(f"  {number}: {what}", flush=True)
    faults = sum(len(tally.faults) for tally in every)
    print(f"{sum(tally.inputs for tally in every):,} inputs, {faults} faults")
    return 1 if faults else 0


def run(arguments: Sequence[str]) -> int:
    """The script, or a child of it."""
    if arguments[:1] != ["--child"]:
        return main(arguments)
    kind, seed, first, count, sandbox, tells = arguments[1:]
    child(kind, int(seed), int(first), int(count), Path(sandbox), int(tells))
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
