"""`tensorgap explain`, and the first study, each sentence of which gets an answer."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import kept_rows
import pytest
import simulated

from bench import matrix
from bench.errors import TensorgapError
from bench.files import limits
from bench.measured import Outcome
from bench.results import columns as table
from jobs.cli import main
from jobs.report import text
from jobs.report.foreign import read
from jobs.report.foreign.understood import Told
from jobs.report.rules import REGISTRY

ROOT = Path(__file__).resolve().parent.parent
STUDY = "jobs/examples/first_study.csv"
EXPECTED = "jobs/examples/first_study_expected.csv"

# What the author of the first study asked, guessed, proposed or expected; the finding that answers
# it; words of the answer; and the GPU that must be told for it.
ANSWERS: tuple[tuple[str, str, str, str | None], ...] = (
    # "Mixed Precision is SLOWER": wrong guesses and right ones.
    (
        "this is physically impossible",
        "mixed-slower",
        "Expected: autocast re-casts every weight",
        None,
    ),
    ("mixed 0.87x", "mixed-slower", "mixed runs at 0.87x the speed of fp32", None),
    ("uses MORE energy than FP32", "mixed-slower", "its energy is 1.09x that of fp32", None),
    ("your GPU might be a P100", "gpu-not-specified", "of data centers: P100-PCIE", None),
    ("your GPU might be a P100", "gpu-not-specified", "38 of the 52 known boards", None),
    ("(or another)", "gpu-not-specified", "H200: excluded: 35.6 W (fp16)", None),
    (
        "(or another)",
        "gpu-not-specified",
        "each latency is 1.0 times the lower bound or more",
        None,
    ),
    ("P100 has native FP16 units", "precision-storage-only", "float32 arithmetic", "P100"),
    ("P100 has no Tensor Cores", "mixed-slower", "no Tensor Cores on a P100", "P100"),
    ("T4 has Tensor Cores", "mixed-slower", "Tensor Cores can save no more than", "T4"),
    ("check your GPU", "gpu-not-specified", "nvidia-smi --query-gpu=name,compute_cap", None),
    ("autocast overhead: casting", "mixed-slower", "146 to 158 cast kernels", None),
    ("autocast overhead: casting", "mixed-slower", "read and write about 0.8 GB", None),
    ("autocast overhead: casting", "mixed-slower", "P100 1.5 ms", "P100"),
    ("autocast overhead: casting", "mixed-slower", "T4 3.4 ms", "T4"),
    ("gradient accumulation", "mixed-options", "Gradients and loss scaling play no part", None),
    ("mixed is for training", "mixed-options", "Do not write that it is for training only", None),
    # The three options.
    ("option 1: remove mixed", "mixed-options", "leave mixed out: yes", None),
    ("option 2: document it", "mixed-options", "document it: yes", None),
    ("option 3: another GPU", "mixed-options", "Tensor Cores alone do not make mixed win", None),
    ("option 3: another GPU", "mixed-options", "has Tensor Cores already", "T4"),
    # The expected results.
    ("P100 FP16 1.13x", "precision-storage-only", "1.13x, inside 1 to 1.3x", "P100"),
    ("P100 FP16 370 mJ", "expectation", "fp16 energy: expected 370 mJ, found 370 mJ", "P100"),
    ("V100 FP32 12 ms, 600 mJ", "expectation", "expected 12.0 ms and 600 mJ", None),
    ("V100 2.0x", "expectation", "V100: a gain of 2.0x was expected", None),
    ("V100 2.0x", "expectation", "1.12x was published", None),
    ("A100 2.0x", "expectation", "4.89 ms in TF32, 4.47 ms in fp16: 1.09x", None),
    ("mixed about 6 ms, 300 mJ", "expectation", "mixed: expected 6.00 ms and 300 mJ", None),
    ("2x size: 498 -> 249 MB", "effect", "124.44 M weights x 2 bytes = 249 MB, as found", None),
    # "FP16 results are good".
    ("1.13x speedup", "effect", "fp16 is 1.13x as fast as fp32", None),
    (
        "1.57x energy reduction",
        "effect",
        "needs 0.64x the energy (1.57x less). For the energy, see energy-method-unknown",
        None,
    ),
    ("good correlation with speedup", "effect", "0.89x by time, 0.72x by power", None),
    ("96 samples/s", "effect", "throughput 96.0/s is consistent with the latency", None),
    ("quality preserved (217)", "perplexity-too-coarse", "neither equal nor different", None),
    ("quality preserved (217)", "effect", "perplexity 217 at both, as written", None),
    ("real energy savings", "energy-method-unknown", "how often it was read", None),
    ("real energy savings", "energy-method-unknown", "many of these seconds were idle", None),
    ("real energy savings", "energy-method-unknown", "no energy counter on a P100", "P100"),
    ("real energy savings", "energy-method-unknown", "an energy counter on a T4", "T4"),
    # "Why not 2x?"
    ("norm and GeLU not faster", "gain-below-hardware", "alone do not explain it", None),
    ("1.1-1.3x is realistic", "gain-below-hardware", "P100: 1 to 1.3x", None),
    ("1.1-1.3x is realistic", "gain-below-hardware", "where the lower bounds allow 5.2x", "T4"),
    ("(nobody asked) launches", "launch-bound", "mean power = energy / latency = 35.6", None),
    ("(nobody asked) launches", "launch-bound", "P100-PCIE (23 to 33 W idle", None),
    ("(nobody asked) launches", "launch-bound", "3% of the way from idle to the limit", "P100"),
    ("(nobody asked) launches", "launch-bound", "14 times the lower bound", "T4"),
    # "Perplexity check".
    (
        "217 seems high",
        "perplexity-out-of-range",
        "is outside the range of gpt2 on WikiText-2",
        None,
    ),
    ("128 token limit", "perplexity-out-of-range", "128 tokens does not explain it", None),
    ("128 token limit", "perplexity-out-of-range", "it allows 41 to 66", None),
    ("unusual sequences", "perplexity-out-of-range", "short headings are hard", None),
    (
        "formula on average loss",
        "perplexity-out-of-range",
        "sum the nats over all tokens, divide once, take exp at the end",
        None,
    ),
    ("expected test 30-40", "perplexity-out-of-range", "29.94 at 1024/1024", None),
    ("avg_loss 5.4 is okay", "perplexity-out-of-range", "+1.29 nats per token", None),
    ("217 and 217 and 218", "perplexity-out-of-range", "it is the protocol, not the prec", None),
    ("which mistake", "perplexity-out-of-range", "546.62 (published)", None),
    ("which mistake", "perplexity-out-of-range", "6.5 to 7.0 nats per pad", None),
)
VERDICTS = {
    "effect": "accept",
    "mixed-slower": "accept",
    "perplexity-out-of-range": "reject",
    "energy-method-unknown": "inconclusive",
    "launch-bound": "inconclusive",
}


@dataclass(frozen=True)
class Shown:
    returncode: object
    stdout: str
    stderr: str


def explain(*arguments: str, stdin: str = "") -> Shown:
    """The command in this process: a process of its own takes a second to start."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
        pytest.raises(SystemExit) as left,
    ):
        main(["explain", *arguments])
    return Shown(left.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def explained() -> dict[str | None, dict[str, Any]]:
    """The findings of the first study, by the GPU that was told."""
    found = {}
    for gpu in (None, "P100", "T4"):
        options = ["--gpu", gpu] if gpu else []
        shown = explain(STUDY, *options, "--expected", EXPECTED, "--format", "json")
        assert (shown.returncode, shown.stderr) == (0, "")
        found[gpu] = json.loads(shown.stdout)
    return found


def text_of(finding: dict[str, Any]) -> str:
    parts = [finding["cause"], *finding["missing"], *finding["do"]]
    parts += [note["text"] for name in ("evidence", "expected") for note in finding[name]]
    return " | ".join(parts)


def test_each_sentence_of_the_first_study_gets_an_answer(
    explained: dict[str | None, dict[str, Any]],
) -> None:
    unanswered = []
    for sentence, code, words, gpu in ANSWERS:
        answers = [text_of(f) for f in explained[gpu]["findings"] if f["code"] == code]
        if not any(words in answer for answer in answers):
            unanswered.append((sentence, words, gpu, answers))
    assert not unanswered


@pytest.mark.parametrize("gpu", [None, "P100", "T4"])
def test_the_verdicts_on_the_first_study(
    explained: dict[str | None, dict[str, Any]], gpu: str | None
) -> None:
    found = {f["code"]: f["verdict"] for f in explained[gpu]["findings"]}
    assert {code: found[code] for code in VERDICTS} == VERDICTS
    assert ("precision-storage-only" in found) == (gpu == "P100")


def test_the_matrix_to_run_next_is_a_matrix(
    explained: dict[str | None, dict[str, Any]],
) -> None:
    for told in explained.values():
        found = matrix.parse(told["next_matrix"], "next.toml", "next")
        assert {w.engine for w in found.workloads} == {"eager", "graph"}
        assert {w.batch_size for w in found.workloads} == {1, 8}
        assert (found.quality.text, found.quality.context) == ("wikitext-2", 128)
        assert found.sampling.replicates == 5
    for gpu in ("P100", "T4"):
        assert f'gpu_types = ["{gpu}"]' in explained[gpu]["next_matrix"]
    assert 'gpu_types = ["auto"] # whatever the GPU is' in explained[None]["next_matrix"]
    # Nor is it asked of a GPU whose bounds the numbers are beyond.
    shown = explain("-", "--gpu", "B200", stdin=(ROOT / STUDY).read_text())
    assert "reject" in shown.stdout and "[power-below-idle]" in shown.stdout
    shown = explain("-", "--gpu", "B200", "--details", stdin=(ROOT / STUDY).read_text())
    assert "REJECT  power-below-idle" in shown.stdout
    assert 'gpu_types = ["auto"] # whatever the GPU is' in shown.stdout


def test_explain_needs_neither_ray_nor_torch() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'ray', 'transformers', 'datasets'): sys.modules[name] = None\n"
        f"from jobs.cli import main\nmain(['explain', {STUDY!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "Read: throughput -> prompts per second."
    assert lines[1].startswith("Assumed, where the table does not say: gpt2, eager, batch 1")
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in done.stdout


def test_the_answer_to_the_first_study_fits_on_one_screen() -> None:
    shown = explain(STUDY)
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert len(lines) <= 40
    told = " ".join(shown.stdout.split())
    for words in (
        "ACCEPT fp16 is 1.13x as fast as fp32 and needs 0.64x the energy (1.57x less).",
        "ACCEPT Expected: autocast re-casts every weight and input in each forward pass, so mixed"
        " runs at 0.87x the speed of fp32.",
        "How the energy was read is not known",
        "a context of 128 tokens does not explain it (59.69 was published): likely pads counted in"
        " the loss, or exp of the mean loss per line",
        "--matrix next.toml writes the matrix",
    ):
        assert words in told
    rows = [line.split() for line in lines if line.startswith(("fp32 ", "fp16 ", "mixed "))]
    assert [(row[0], row[7]) for row in rows if "ms" in row] == [
        ("fp32", "inconclusive"), ("fp16", "accept"), ("mixed", "accept"),
    ]  # fmt: skip


def test_the_details_are_all_evidence_or_that_of_one_finding() -> None:
    every = explain(STUDY, "--details").stdout
    assert "1 reject, 1 fix, 5 inconclusive, 2 accept\n" in every
    assert "1. REJECT  perplexity-out-of-range  (fp32, fp16, mixed)\n" in every
    assert "The matrix to run next:" in every
    # A place may follow the bare option.
    assert explain("--details", STUDY).stdout == every
    one = explain(STUDY, "--details", "mixed-slower").stdout
    assert "1 accept\n" in one and "perplexity" not in one and "[cells]" not in one
    assert "not among the findings" in explain(STUDY, "--details", "simulated").stdout
    wrong = explain(STUDY, "--details", "mixed-slow")
    assert wrong.returncode == 2
    assert "no such finding; did you mean mixed-slower?" in wrong.stderr


def test_the_matrix_is_written_to_a_new_file(tmp_path: Path) -> None:
    place = tmp_path / "next.toml"
    shown = explain(STUDY, "--matrix", str(place))
    assert shown.returncode == 0
    assert matrix.load(place).workloads
    assert f"next: tensorgap sweep {place}" in shown.stderr
    assert "--matrix" not in shown.stdout
    again = explain(STUDY, "--matrix", str(place))
    assert (again.returncode, "cannot be written: File exists" in again.stderr) == (2, True)
    shown = explain(
        "-", "--matrix", str(tmp_path / "b.toml"), stdin="precision,perplexity\nfp32,29.94\n"
    )
    assert "not written, since nothing is open" in shown.stderr


def test_several_gpus_and_standard_input() -> None:
    text = "precision,latency_ms\nfp32,11.7\nfp16,10.4\n"
    shown = explain("-", "--gpu", "P100", "--gpu", "t4", "--format", "json", stdin=text)
    assert shown.returncode == 0
    subjects = {f["subject"].split()[0] for f in json.loads(shown.stdout)["findings"]}
    assert subjects == {"P100", "T4"}


def test_an_observed_perplexity_stands_instead_of_results() -> None:
    shown = explain("--observed-perplexity", "217")
    assert shown.returncode == 0
    assert "that context does not explain it" in shown.stdout
    refused = explain("--observed-perplexity", "217", STUDY)
    assert refused.returncode == 2
    assert "stands instead of RESULTS" in refused.stderr


def test_without_fp16_mixed_cannot_be_left_out_yet() -> None:
    shown = explain("-", "--details", stdin="precision,latency_ms\nfp32,11.7\nmixed,13.5\n")
    assert "leave mixed out: not yet" in shown.stdout
    assert "Measure fp16 beside it." in shown.stdout


def test_rows_of_a_parquet_file_are_explained(tmp_path: Path) -> None:
    measured = simulated.rows("T4", ("fp32", "fp16", "mixed"), launch_us=34.0)
    path = str(tmp_path / "rows.parquet")
    kept_rows.write(path, measured, [table.Source("simulated", "", "0.1.0", None)])
    shown = explain(path, "--details")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Assumed" not in shown.stdout
    assert "REJECT  simulated" in shown.stdout
    assert "launches and gaps between kernels" in shown.stdout
    text = shown.stdout.partition("The matrix to run next:")[2]
    assert matrix.parse(text, "next.toml", "next").gpu_types == ("T4",)
    # The same rows twice are no replicates.
    assert explain(path, path, "--details").stdout == shown.stdout
    refused = explain(path, "--gpu", "T4")
    assert refused.returncode == 2
    assert "every row names its GPU; leave --gpu out" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.csv"], "absent.csv: cannot be read: No such file"),
        (["absent.parquet"], "there is no such file or folder"),
        ([STUDY, "--gpu", "Z9"], "--gpu Z9: unknown type; known: P100"),
        ([STUDY, "--gpu", "GeForce-RTX-409"], "did you mean GeForce-RTX-4090?"),
        ([STUDY, "--energy-unit", "kg"], "kg: no unit of energy"),
        ([STUDY, "--energy-unit", "J"], "--energy-unit J: no row needs it"),
        ([STUDY, "--precision", "fp16"], "--precision fp16: no row needs it"),
        ([STUDY, "--precision", "int8"], "int8: known: fp32"),
        ([STUDY, "--expected", "absent.csv"], "absent.csv: cannot be read"),
        (["README.md"], "README.md"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments: list[str], words: str) -> None:
    shown = explain(*arguments)
    assert shown.returncode == 2
    assert words in shown.stderr
    assert "Traceback" not in shown.stderr


def test_any_name_of_a_model_that_was_measured_stands_in_the_matrix(tmp_path: Path) -> None:
    name = 'a "quoted" \u00e9 \U0001f600 \x7f name'
    measured = [
        dataclasses.replace(m, workload=dataclasses.replace(m.workload, model=name))
        for m in simulated.rows("T4")
    ]
    path = str(tmp_path / "rows.parquet")
    kept_rows.write(path, measured, [])
    text = json.loads(explain(path, "--format", "json").stdout)["next_matrix"]
    assert name in {w.model for w in matrix.parse(text, "next.toml", "next").workloads}


def test_the_matrix_asks_only_for_what_tensorgap_can_run() -> None:
    table_of = (
        "gpu,model,engine,precision,tokens,latency_ms\n"
        "MI250,Qwen2.5-3B,vllm,fp32,4096,90\nMI250,Qwen2.5-3B,vllm,fp16,4096,95\n"
        "T4,gpt2-medium,eager,fp32,128,20\nT4,gpt2-medium,eager,fp16,128,21\n"
    )
    text = json.loads(explain("-", "--format", "json", stdin=table_of).stdout)["next_matrix"]
    asked = matrix.parse(text, "next.toml", "next")
    assert set(asked.gpu_types) == {"auto", "T4"}
    assert {w.model for w in asked.workloads} == {"gpt2", "gpt2-medium"}
    assert {w.engine for w in asked.workloads} == {"eager", "graph"}
    assert max(w.prompt_tokens for w in asked.workloads) == 1024


def test_a_table_without_rows_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("precision,latency_ms,mood\n")
    shown = explain(str(tmp_path / "empty.csv"), "--format", "json")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "empty.csv: it has no rows\n" in shown.stderr


def test_rows_that_all_failed_are_not_explained_but_counted(tmp_path: Path) -> None:
    fp32, fp16 = simulated.rows("T4")
    ends = (
        (fp32, Outcome.FAILED),
        (fp32, Outcome.LOST),
        (fp32, Outcome.LOST),
        (fp16, Outcome.FAILED),
    )
    failed = [
        dataclasses.replace(m, replicate=replicate, outcome=outcome, reason="why", timing=None)
        for replicate, (m, outcome) in enumerate(ends)
    ]
    place = str(tmp_path / "failed.parquet")
    kept_rows.write(place, failed, [])
    shown = explain(place)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "no row is OK (2 FAILED, 2 LOST); `tensorgap report` shows" in shown.stderr


def test_each_of_several_tables_is_compared_with_itself(tmp_path: Path) -> None:
    for name, ms in (("a", 5), ("b", 4)):
        (tmp_path / f"{name}.csv").write_text(f"precision,latency_ms\nfp32,10\nfp16,{ms}\n")
    places = str(tmp_path / "a.csv"), str(tmp_path / "b.csv")
    shown = explain(*places, "--gpu", "t4", "--details")
    assert "fp16 is 2.00x as fast" in shown.stdout
    assert "fp16 is 2.50x as fast" in shown.stdout
    assert "T4   gpt2 eager" in shown.stdout
    # The same table or type twice is no second one.
    assert explain(STUDY, STUDY).stdout == explain(STUDY).stdout
    twice = explain(STUDY, "--gpu", "P100", "--gpu", "P100")
    assert twice.stdout == explain(STUDY, "--gpu", "P100").stdout


def test_a_foreign_gpu_and_numbers_without_a_finding_are_said() -> None:
    shown = explain("-", stdin="precision,latency_ms,gpu\nfp32,10,Z9\n")
    assert shown.returncode == 0
    assert "Nothing is known of the GPU Z9: only what holds for every known board" in shown.stdout
    told = " ".join(shown.stdout.split())
    assert f"Nothing to say: none of {len(REGISTRY)} rules finds anything in 1 row." in told
    assert "Checked: latency. Not in these rows: throughput, energy, power and perplexity." in told


def test_output_can_be_piped_into_a_reader_that_stops() -> None:
    command = f"{sys.executable} -m jobs explain {STUDY} | head -n 1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("Read: ")
    assert done.stderr == ""


def test_a_csv_of_half_a_gigabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    table = tmp_path / "large.csv"
    table.write_text("precision,latency_ms\nfp32,1\n")
    os.truncate(table, 500_000_000)
    for arguments in ([str(table)], [STUDY, "--expected", str(table)]):
        shown = explain(*arguments)
        assert shown.returncode == 2
        assert "large.csv (500 MB, and 10 times that as rows): 5 GB to read" in shown.stderr
        assert "--max-input 6GB" in shown.stderr


def test_the_limit_of_a_csv_is_an_option(tmp_path: Path) -> None:
    assert explain(STUDY, "--max-input", "1KB").returncode == 2
    assert explain(STUDY, "--max-input", "10KB").returncode == 0
    text = (ROOT / STUDY).read_text()
    assert explain("-", "--max-input", "1KB", stdin=text).returncode == 2
    assert explain("-", "--max-input", "10KB", stdin=text).returncode == 0


def test_of_standard_input_no_more_is_read_than_allowed() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            self.given += len(buffer)
            buffer[:] = b"\n" * len(buffer)
            return len(buffer)

    endless = Endless()
    with (
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BufferedReader(endless))),
        pytest.raises(TensorgapError, match=r"standard input .*: 1.* MB to read; at most 1 MB"),
    ):
        read.load("-", Told(), limits.Allowance(1_000_000))
    assert endless.given < 200_000


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder", "a link to itself"])
def test_what_is_no_file_is_one_message_at_once(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "table.csv"
    if kind == "a pipe":
        os.mkfifo(place)
    elif kind == "a folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero" if kind == "a device" else place)
    shown = explain(str(place))
    assert shown.returncode == 2
    assert shown.stderr.startswith(f"tensorgap: {place}: cannot be read: ")
    assert ("a pipe is read from standard input: -" in shown.stderr) == (
        kind in ("a pipe", "a device")
    )
    assert shown.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"precision,latency_ms\nfp32,\xff\n", "latency_ms = \u00ff: must be a number"),
        (b"precision,latency_ms\nfp32,\0\n", "latency_ms = \\x00: must be a number"),
        (b"\0" * 1000, "there is no column of a latency"),
        (b"\x81\x8d" * 1000, "not UTF-8 text"),
        (b"precision,latency_ms\nfp32,1e999999999\n", "each row failed (1e999999999)"),
    ],
)
def test_bytes_that_are_no_table_are_one_message(
    tmp_path: Path, content: bytes, words: str
) -> None:
    place = tmp_path / "table.csv"
    place.write_bytes(content)
    shown = explain(str(place))
    assert shown.returncode == 2
    assert words in shown.stderr
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le"):
        place.write_bytes("precision,latency_ms\nfp32,1\n".encode(encoding))
        assert explain(str(place)).returncode == 0


def test_an_energy_is_shown_in_the_unit_that_keeps_it_short() -> None:
    shown = explain("-", stdin="precision,energy (J),gpu\nfp32,116100,T4\nfp16,9.9,T4\n").stdout
    assert re.search(r"^fp32 +116 kJ ", shown, re.M)
    assert re.search(r"^fp16 +9900 mJ ", shown, re.M)
    as_data = json.loads(
        explain("-", "--format", "json", stdin="precision,energy (J),gpu\nfp32,45,T4\n").stdout
    )
    assert as_data["rows"][0]["about"]["energy"] == "45.0 J"


def test_long_names_of_runs_are_cut_in_the_middle_unless_they_would_be_alike() -> None:
    one, other = "modelled/20261128T112451Z-e7bb9c", "modelled/20261129T112451Z-e7bb9c"
    short = "study/now"
    assert text.names_of_runs([one, short]) == {one: "modelled/202\u2026451Z-e7bb9c", short: short}
    assert text.names_of_runs([one, other]) == {one: one, other: other}
