"""Where text leaves: whatever a stranger wrote, a terminal only shows it, and nothing crashes."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import tomllib
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import fakenvml
import hypothesis.strategies as st
import kept_rows
import pytest
from hypothesis import example, given, settings
from test_jobs_report import a_row

from bench import matrix as matrices
from bench.asked import Cell, Workload
from bench.measured import Measurement, Outcome, Stage
from bench.results.columns import Source
from bench.warnings import RowWarning
from jobs import progress, terminal
from jobs.cli import main
from jobs.report import answer, compare, export, from_rows, table, words
from jobs.report import text as as_text
from jobs.report.facts import Case, grouped
from jobs.report.finding import topics
from jobs.report.findings import find
from jobs.report.proposal import next_matrix

CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
HOSTILE = f"T4{CLIPBOARD}\x9b31m\u202egnp\u2066\u200b\u2028\x7f\r\n[link=file:///etc]x[/link]"
# A text with whatever a terminal obeys in it, which hypothesis alone seldom finds.
FOREIGN = st.lists(
    st.one_of(st.text(), st.sampled_from([*HOSTILE, CLIPBOARD, "\x00", "\udc9b", "=", "|", "]("]))
).map("".join)
OURS = re.compile("\x1b\\[[0-9;]*m")


def harm(text: str, ours: re.Pattern[str] = re.compile("(?!)")) -> list[str]:
    """What in a text would be obeyed, or is nothing that can be seen; line ends apart."""
    return [c for c in ours.sub("", text).replace("\n", "") if not c.isprintable()]


def with_texts(row: Measurement, texts: list[str]) -> Measurement:
    """The row with those texts in every foreign place that a report shows."""
    name, model, reason, warning = texts
    device = row.device and dataclasses.replace(
        row.device, name=name, gpu_type=name, hostname=name, cpu=name
    )
    software = row.software and dataclasses.replace(row.software, torch=name, driver=reason)
    return dataclasses.replace(
        row,
        cell=Cell(name, row.cell.precision),
        workload=dataclasses.replace(row.workload, model=model),
        run=reason,
        device=device,
        software=software,
        reason=reason,
        warnings=(RowWarning("energy-meter", {"reason": warning}), RowWarning("mig-slice")),
    )


def rows_of(texts: list[str]) -> list[Measurement]:
    """A table of one workload, measured, failed and lost, in which strangers wrote."""
    rows = [
        with_texts(a_row(precision, latency_ms), texts)
        for precision, latency_ms in (("fp32", 11.7), ("fp16", 10.4), ("mixed", 13.5))
    ]
    lost = dataclasses.replace(rows[2], outcome=Outcome.LOST, timing=None)
    return [*rows[:2], lost]


def cases_of(texts: list[str]) -> list[Case]:
    """The same as cases of the table."""
    return compare.with_ratios(from_rows.cases(rows_of(texts)))


four_texts = st.lists(FOREIGN, min_size=4, max_size=4)


@given(four_texts)
@settings(max_examples=50)
@example([HOSTILE] * 4)
def test_no_format_of_a_report_lets_anything_through(texts: list[str]) -> None:
    cases = cases_of(texts)
    for color in (False, True):
        assert not harm(table.shown(cases, 80, color), OURS)
    assert not harm(table.shown(cases))
    assert not harm(table.markdown(cases))
    assert not harm(export.to_csv(cases))
    as_json = export.to_json(cases)
    assert not harm(as_json)
    assert json.loads(as_json)[0]["gpu_type"] == texts[0]  # whole, and escaped
    beside = [dataclasses.replace(row, cell=Cell("A100", "fp32")) for row in rows_of(texts)[:1]]
    against = compare.against(from_rows.cases(rows_of(texts) + beside), "A100")
    assert not harm(as_text.against(against, "A100"))
    assert not harm(export.against(against, "A100"))


@given(four_texts)
@example([HOSTILE] * 4)
@example(["a\x00b 1", "2", "1 \x00", "\x00 1"])
def test_no_format_of_the_findings_lets_anything_through(texts: list[str]) -> None:
    groups = grouped(cases_of(texts))
    found = find(groups)
    matrix = next_matrix(groups, found)
    assert not harm(as_text.findings(topics(found), matrix, 80, True), OURS)
    rows, sentences = answer.rows(groups, [], found), answer.sentences(found, len(groups))
    assert not harm(as_text.answer(rows, sentences, [], 80, True), OURS)
    assert not harm(export.findings(found, matrix, texts, rows, sentences))


def test_a_markup_in_a_title_makes_no_link() -> None:
    name = "[link=file:///etc/passwd]T4[/link]"
    cases = cases_of([name] * 4)
    assert name in table.shown(cases)
    assert "\x1b]8" not in table.shown(cases, color=True)


@given(st.text())
@example("\x1b[31m\x00\udc80\u202e\u2028\n\t\x7f\x9b")
def test_a_cleaned_text_prints_and_says_what_was_there(text: str) -> None:
    cleaned = terminal.clean(text)
    assert cleaned.isprintable()
    assert cleaned.encode() or not text
    assert (cleaned == text) == text.isprintable()
    assert terminal.clean(cleaned) == cleaned
    printable = text.replace("\\", "")
    restored = terminal.clean(printable).encode("latin-1", "backslashreplace")
    assert restored.decode("unicode_escape") == printable


def test_what_a_terminal_obeys_is_not_printable_to_python() -> None:
    """The categories that the cleaning rests on, for all code points."""
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            assert not chr(code).isprintable()


def test_every_text_leaves_through_one_module() -> None:
    outside = re.compile(r"click\.s?echo|(?<![.\w])print\(|std(out|err)\.write|print_exc\(")
    root = Path(terminal.__file__).parent
    found = {
        f"{path.relative_to(root)}: {line.strip()}"
        for path in root.rglob("*.py")
        if path.name != "terminal.py"
        for line in path.read_text().splitlines()
        if outside.search(line)
    }
    assert not found


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_an_encoding_that_lacks_a_sign_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    place = tmp_path / "\u540d.parquet"
    kept_rows.write(str(place), rows_of(["T4 \u540d", "gpt2", "r", "d"]), [SOURCE])
    for form in ("table", "markdown", "csv", "json"):
        stream = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding))
        with pytest.raises(SystemExit) as left:
            main(["report", str(place), "--format", form])
        assert left.value.code == 0
        shown = stream.getvalue().decode(encoding)
        assert "fp16" in shown
        if encoding != "utf-8":
            assert "\\u540d" in shown
            assert "u2500" not in shown  # a rule is drawn with another sign


def test_a_locale_without_unicode_is_no_crash(tmp_path: Path) -> None:
    place = tmp_path / "\u540d.parquet"
    kept_rows.write(str(place), rows_of(["T4 \u540d", "gpt2", "r", "d"]), [SOURCE])
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "jobs", "report", str(place)]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "\\u540d" in done.stdout.decode("ascii")


SOURCE = Source("study/now", "", "0.1.0", None, (), False)


def told(capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What the program prints, on both streams."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capfd.readouterr()
    assert ended.value.code == code, err
    assert not harm(out + err)
    return out + err


@pytest.fixture
def results_of_a_stranger(tmp_path: Path) -> Path:
    place = tmp_path / "all.parquet"
    kept_rows.write(str(place), rows_of([HOSTILE] * 4), [SOURCE])
    return place


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_a_report_of_a_strangers_file(
    results_of_a_stranger: Path, form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = told(capfd, "report", str(results_of_a_stranger), "--format", form)
    assert ("\\u001b]52" if form == "json" else "\\x1b]52") in shown


@pytest.mark.parametrize("form", ["text", "json"])
def test_findings_of_a_strangers_file(
    results_of_a_stranger: Path, form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    told(capfd, "explain", str(results_of_a_stranger), "--format", form)


@pytest.mark.parametrize("form", ["text", "json"])
def test_findings_of_a_strangers_csv(
    tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    foreign = HOSTILE.replace("\n", "").replace("\r", "").replace("\u2028", "")
    place = tmp_path / "study.csv"
    place.write_text(
        f"precision,latency_ms,gpu,model,text,run,{foreign}\n"
        f"fp32,11.7,{foreign},{foreign},{foreign},{foreign},1\n"
        f"fp16,10.4,{foreign},{foreign},{foreign},{foreign},2\n"
    )
    shown = told(capfd, "explain", str(place), "--format", form)
    assert "x1b]52" in shown or "u001b]52" in shown  # of the column that is not understood
    place.write_text(f"precision,latency_ms\nfp32,{foreign}\n")
    assert "\\x1b]52" in told(capfd, "explain", str(place), code=2)


def test_a_message_about_a_strangers_matrix(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "m.toml"
    place.write_text('[[workloads]]\nmodel = "tiny"\n"\\u001b]52;c;AAAA\\u0007" = 1\n')
    assert "\\x1b]52;c;AAAA\\x07: unknown key" in told(capfd, "plan", str(place), code=2)


def test_a_plan_of_a_strangers_matrix(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "m.toml"
    name = json.dumps(HOSTILE).replace("\x7f", "\\u007f")
    place.write_text(f"[cells]\ngpu_types = [{name}]\n[[workloads]]\nmodel = {name}\n")
    assert "\\x1b]52" in told(capfd, "plan", str(place), code=1)


def test_a_doctor_of_a_gpu_whose_name_is_not_one(
    fake_nvml: Callable[..., fakenvml.FakeDriver],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fake_nvml("gpu = t4", f"name = Tesla {CLIPBOARD}\x9b31m", f"driver = 580{CLIPBOARD}")
    assert "Tesla \\x1b]52" in told(capfd, "doctor")


def test_progress_of_a_host_whose_name_is_not_one(capfd: pytest.CaptureFixture[str]) -> None:
    asked = matrices.parse('[[workloads]]\nmodel = "tiny"\n', "m.toml", "m")
    cell = Cell("CPU", "fp32")
    with progress.display(asked, ["CPU"], [], quiet=False) as show:
        show(Stage(cell, Workload(HOSTILE), 0, "waiting", HOSTILE))
        show(Measurement(cell, Workload(HOSTILE), "r", 0, Outcome.FAILED, reason=HOSTILE))
    shown = capfd.readouterr().err
    assert "\\x1b]52" in shown
    assert not harm(shown)
    assert all(line.startswith("tensorgap: ") for line in shown.splitlines())


def test_the_live_display_of_a_host_whose_name_is_not_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    asked = matrices.parse('[[workloads]]\nmodel = "tiny"\n', "m.toml", "m")
    cell = Cell("CPU", "fp32")
    with progress.display(asked, ["CPU"], [], quiet=False) as show:
        show(Stage(cell, Workload(HOSTILE), 0, "latency", HOSTILE))
        show(Measurement(cell, Workload(HOSTILE), "r", 0, Outcome.FAILED, reason=HOSTILE))
    assert "\\x1b]52" in screen.getvalue()
    for obeyed in (CLIPBOARD, "\x9b", "\u202e", "\u2028"):
        assert obeyed not in screen.getvalue()


def test_an_argument_that_is_repeated_in_a_message(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        [f"--{CLIPBOARD}"],
        ["report", f"--{CLIPBOARD}"],
        ["report", "x", "--format", CLIPBOARD],
        ["report", f"{CLIPBOARD}.parquet"],
        ["report", f"{CLIPBOARD}.csv"],
        ["merge", "x", "-o", CLIPBOARD],
        [CLIPBOARD],
    ):
        assert "\\x1b]52" in told(capfd, *arguments, code=2)


@pytest.mark.parametrize("command", ["plan", "sweep", "report", "explain", "merge -o x.parquet"])
def test_an_argument_of_any_length_is_one_message_at_once(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = told(capfd, *command.split(), "x" * 70_000, code=2)
    assert len(shown) < 5000


def test_a_traceback_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        warnings.warn(HOSTILE, stacklevel=1)
        raise RuntimeError(HOSTILE)

    monkeypatch.setattr(table, "shown", lambda *_: None)
    monkeypatch.setattr("jobs.reading.read", fail)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        shown = told(capfd, "report", "x", "--debug", code=3)
    assert "Traceback" in shown
    assert "UserWarning: T4\\x1b]52" in shown


@given(four_texts)
@settings(max_examples=30)
@example(["=cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "+1"])
def test_no_text_of_a_csv_is_a_formula(texts: list[str]) -> None:
    shown = export.to_csv(cases_of(texts))
    for row in csv.DictReader(io.StringIO(shown)):
        for name in ("run", "gpu_type", "model", "device_name", "torch", "driver", "reason"):
            assert not row[name].startswith(tuple("=+-@\t\r"))


def test_a_negative_number_of_a_csv_stays_one() -> None:
    case = cases_of(["T4", "gpt2", "r", "d"])[0]
    (row,) = csv.DictReader(
        io.StringIO(export.to_csv([dataclasses.replace(case, latency_ms=-1.5)]))
    )
    assert float(row["latency_ms"]) == -1.5


def test_foreign_text_in_markdown_stays_text() -> None:
    text = "[1]: http://h ![x](http://h/) <img src=x> `a` a|b &amp; *b*"
    shown = table.markdown(cases_of([text] * 4))
    for markup in (r"\]\(", "<img", "`a", r"a\|b", "&amp", r"\*b\*", r"^- \[1\]: http"):
        assert re.search(markup, shown.replace("\\", ""), re.MULTILINE)
        assert not re.search(rf"(?<!\\){markup}", shown, re.MULTILINE)


@given(st.text(st.characters(codec="utf-8")))
@example(HOSTILE)
def test_a_text_in_toml_prints_and_is_read_back(text: str) -> None:
    shown = matrices.toml({"x": text})
    assert shown.removesuffix("\n").isprintable()
    assert tomllib.loads(shown)["x"] == text


def test_warnings_alike_but_for_a_nul() -> None:
    reasons = ["1 \x00", "\x00 1"]
    warnings = [RowWarning("energy-meter", {"reason": reason}) for reason in reasons]
    assert words.alike(warnings) == [f"energy: {reason}" for reason in reasons]


def test_warnings_of_replicates_one_of_which_lacks_a_number() -> None:
    asked = {"min_samples": 11, "median_within": 0.03}
    warnings = [
        RowWarning("latency-not-converged", {"samples": samples, "half_width": half, **asked})
        for samples, half in ((40, 0.05), (6, None), (20, 0.08))
    ]
    told = "(asked for: at least 11, ±3.0%)"
    assert words.alike(warnings) == [
        f"latency not converged: 20 to 40 samples, median within ±5.0% to 8.0% {told}",
        f"latency not converged: 6 samples, too few for an interval {told}",
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_behind_standard_output_is_one_message() -> None:
    table = Path(__file__).parents[1] / "jobs/examples/modelled.parquet"
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "jobs", "report", str(table)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "tensorgap: standard output: cannot be written: No space left on device\n"
    )
