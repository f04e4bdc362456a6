"""`tensorgap explain`, and what the report says of perplexities."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from examples import measurement

from bench.asked import Cell
from bench.measured import Measurement, Quality, Weights
from bench.perplexity.variants import Variant
from bench.stats import Difference
from bench.text import published
from jobs import explain
from jobs.report import compare, export, from_rows, perplexity, table
from jobs.report.facts import Case
from jobs.report.observed import Asked, from_published

WINDOWS = (400.0, 380.0, 460.0, 420.0)  # nats
TOKENS = (100, 100, 100, 50)


def a_row(precision: str, added: tuple[float, ...], **changes: Any) -> Measurement:
    """A row whose windows cost so many nats more than those of fp32."""
    nats = tuple(n + more for n, more in zip(WINDOWS, added, strict=True))
    found = Quality(
        "a text",
        nats=math.fsum(nats),
        tokens=sum(TOKENS),
        perplexity=math.exp(math.fsum(nats) / sum(TOKENS)),
        mode="tensorgap",
        context=100,
        stride=100,
        window_nats=nats,
        window_tokens=TOKENS,
        text_sha256="1" * 64,
    )
    return measurement(
        cell=Cell("CPU", precision),
        quality=dataclasses.replace(found, **changes),
        weights=Weights(1, 1, "float32", sha256="2" * 64),
    )


FP32 = a_row("fp32", (0, 0, 0, 0))
WORSE = a_row("bf16", (0.5, 0.4, 0.6, 0.2), logit_rounding_nats=0.004)
UNDECIDED = a_row("mixed", (0.5, -0.6, 0.3, -0.1))


def cases_of(*rows: Measurement) -> dict[str, Case]:
    return {case.precision: case for case in compare.with_ratios(from_rows.cases(rows))}


def test_precisions_are_compared_window_by_window() -> None:
    cases = cases_of(FP32, WORSE, UNDECIDED)
    difference = cases["bf16"].nats_difference
    assert difference is not None
    assert difference.mean == pytest.approx(1.7 / 350)
    assert difference.low is not None and difference.low > 0
    # Unpaired, the windows' own spread would hide it many times over.
    assert WINDOWS[2] - WINDOWS[1] > 40 * 1.7
    unpaired = cases["mixed"].nats_difference
    assert unpaired is not None and unpaired.low is not None and unpaired.high is not None
    assert unpaired.low < 0 < unpaired.high
    assert cases["fp32"].nats_difference is None


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "hf-docs"},
        {"context": 50},
        {"text_sha256": "3" * 64},
        {"tokens_sha256": "3" * 64},
        {"window_tokens": (100, 100, 50, 100)},
        {"window_nats": None},
    ],
    ids=str,
)
def test_what_was_read_otherwise_is_not_compared(changes: dict[str, Any]) -> None:
    other = a_row("bf16", (0.5, 0.4, 0.6, 0.2), **changes)
    assert cases_of(FP32, other)["bf16"].nats_difference is None


def test_other_weights_are_not_compared() -> None:
    other = dataclasses.replace(WORSE, weights=Weights(1, 1, "float32", sha256="4" * 64))
    assert cases_of(FP32, other)["bf16"].nats_difference is None


def test_the_report_says_whether_precisions_differ_and_why() -> None:
    cases = list(cases_of(FP32, WORSE, UNDECIDED).values())
    bf16, mixed = perplexity.compared(cases)
    assert bf16.startswith("bf16: +0.0049 nats per token against fp32 [+0.00")
    assert ": perplexity +0.49%; logits stored in 16 bits account for +0.004" in bf16
    assert mixed.endswith(": no significant difference")
    assert bf16 in table.markdown(cases)
    assert f'"nats_difference": {1.7 / 350:.6f}'[:25] in export.to_json(cases)


def test_a_small_difference_that_is_decided_is_not_shown_as_nothing() -> None:
    nats = Difference(-1.9e-5, 6e-6, -3.1e-5, -6.6e-6)
    case = dataclasses.replace(cases_of(FP32, WORSE)["bf16"], nats_difference=nats)
    (text,) = perplexity.compared([case])
    assert ": perplexity -0.002%" in text


def test_one_window_gives_no_interval() -> None:
    one = {"window_nats": (5.0,), "window_tokens": (10,)}
    rows = [a_row(name, (0, 0, 0, 0), **one) for name in ("fp32", "bf16")]
    (text,) = perplexity.compared(cases_of(*rows).values())
    assert text == "bf16: +0 nats per token against fp32, one window: no interval"


# ------------------------------------------------------------------------------- the ranking

VARIANTS = [
    Variant("context 1024, stride 512, per token", 25.2, right=True),
    Variant("context 128, stride 128, per token", 59.7, right=True),
    Variant("context 1024, stride 512, per word", 46.8, right=True),
    Variant("padding counted", 215.0),
    Variant("labels not shifted", 700.0),
    Variant("rare words as <unk>", reason="no word for <unk>"),
]


def test_the_nearest_variant_comes_first_and_what_is_right_is_said() -> None:
    text = perplexity.ranking(217, "gpt2 on wikitext-2", VARIANTS)
    lines = text.splitlines()
    assert lines[0] == "217 observed; 5 variants on gpt2 on wikitext-2:"
    assert lines[2].split() == ["215", "-0.9%", "wrong", "padding", "counted"]
    assert "within 2%: padding counted" in lines
    assert "right here: 25.2 with context 1024, stride 512, per token" in lines
    assert "not computed: rare words as <unk>: no word for <unk>" in lines


def test_a_number_that_nothing_gives_is_said_to_be_so() -> None:
    assert "none is within 2%" in perplexity.ranking(120, "x", VARIANTS)


@pytest.mark.parametrize(
    ("observed", "answer"),
    [
        (
            217,
            "a context of 128 tokens gives about 59.7, not 217: that is 1.29 nats per token more",
        ),
        (217, "that context does not explain it, only one of at most 38 could"),
        (217, "the study that reported 217 did (20.5% of its labels"),
        (29.8, "within 2% of the number per token: hf-docs 1024/1024"),
        (126, "within 2% of the number per word of the same run: hf-docs 128/128"),
        (38.5, "a right number, if it is of WikiText-2, with a context of 165 to 570 tokens"),
        (10, "lower than joined rows give with any windows (23.6)"),
        (576.76, "576.76 is within 10% of the published mean of the lines' perplexities"),
        (65.85, "within 2% of 65.85, gpt2 on Penn Treebank (GPT-2's paper, table 3)"),
        (100, "a right number per word, if it is of WikiText-2, with a context of 59 to 258"),
        (20, "a model that was fine-tuned on the text"),
        (6996, "int8 activations: 960.52 to 6996 by how their ranges were chosen"),
        (6996, "no context explains it"),
        (math.nan, "nan is no perplexity but an overflow: float16 ends at 65504"),
        (math.inf, "Compute the log-softmax and the sums in float32"),
        (4.23e43, "4.23e+43 is 7.09e+41 times as much"),
        (546.62, "the published mean of the lines' perplexities, each line a sample of its own"),
        (
            699_090,
            "above the vocabulary of 50257 tokens: worse than guessing; the weights were not",
        ),
        (2.6, "pads among the labels, which the model finds easy: 77% of them at no cost"),
        (1.3, "pads among the labels"),
        (6.3, "pads among the labels"),
        (19.93, "the number per word of gpt2-large, paper 1024/1024: was that the model?"),
        (22.76, "the number per word of gpt2-medium, paper 1024/1024: was that the model?"),
        (18.34, "the number per word of gpt2-xl, paper 1024/1024: was that the model?"),
        (19.44, "the number per token of gpt2-large, hf-docs 1024/1024: was that the model?"),
        (16.45, "the number per token of gpt2-large, hf-docs 1024/512: was that the model?"),
    ],
)
def test_published_numbers_answer_without_a_text(observed: float, answer: str) -> None:
    assert answer in from_published(Asked(observed))


@pytest.mark.parametrize(
    ("asked", "answer", "not_said"),
    [
        (
            {"observed": 40.64, "context": 1024},
            "+0.31 nats per token against 29.94",
            "of 128",
        ),
        ({"observed": 48.4, "context": 1024}, "the context does not explain it", "of 128"),
        ({"observed": 48.4, "context": 1024}, "a right number per word, if it", "of 128"),
        ({"observed": 29.94, "context": 1024}, "within 2% of the number per token", "31.04"),
        ({"observed": 217, "context": 127}, "above what is right here, 66.18 at most", "a right"),
        ({"observed": 20000, "context": 100}, "the context does not explain it", "a right"),
        ({"observed": 85, "context": 64}, "a right number, if it is of WikiText-2", "above"),
        ({"observed": 6996}, "no context explains it", "for each pad"),
        ({"observed": 1.9682, "unit": "byte"}, "of the number per byte: lm-eval", "a right"),
        ({"observed": 27.2268, "context": 512}, "only the second half counts", "shifted"),
        ({"observed": 8.63, "model": "gpt2-xl"}, "gpt2-xl on the last words of LAMBADA", "59.7"),
        ({"observed": 1.16, "unit": "byte"}, "make 1.16 of 2.54", "59.7"),
        ({"observed": 21.1, "model": "distilgpt2"}, "fine-tuned on it (its model card)", "nan"),
        ({"observed": 60_000, "unit": "word"}, "above what is right here", "worse than guessing"),
        ({"observed": 546.62, "model": "gpt2-xl"}, "above what is right here", "a mistake"),
        ({"observed": 30, "split": "train"}, "  nothing", "None"),
        ({"observed": 12, "model": "distilgpt2"}, "it cannot be below 23.6", "gpt2-large"),
        ({"observed": 19.5, "model": "gpt2-large"}, "published for gpt2-large", "546.62"),
        ({"observed": 37.4, "unit": "word"}, "of the number per word: lm-eval", "per token  "),
        ({"observed": 30.9, "split": "validation"}, "31.04", "59.69"),
        ({"observed": 2.1, "unit": "byte"}, "a right number per byte", "pads"),
    ],
    ids=str,
)
def test_what_is_known_of_a_perplexity_narrows_the_answer(
    asked: dict[str, Any], answer: str, not_said: str
) -> None:
    told = from_published(Asked(**asked))
    assert answer in told
    assert not_said not in told


def test_the_padding_of_the_first_study_is_what_its_own_counts_say() -> None:
    padding = 1940 * 128 - 197_913
    assert pytest.approx(padding / (1940 * 127)) == published.FIRST_STUDY_PADDING_SHARE


# ------------------------------------------------------------------------------- the command


def test_without_a_model_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom jobs.cli import main\n"
        "try: main(['explain', '--observed-perplexity', '217'])\nexcept SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'transformers', 'ray', 'pyarrow'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "not 217" in done.stdout


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Matrices this small are computed faster by one thread than by several that wait in turn."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_with_a_model_the_mistakes_are_computed_and_ranked(one_thread: None) -> None:
    arguments = ["--observed-perplexity", "5.4", "--model", "tiny", "--rows", "12"]
    done = CliRunner().invoke(explain.command, arguments)
    assert done.exit_code == 0, done.output
    assert "variants on tiny on embedded" in done.stdout
    assert "\nwithin 2%: " in done.stdout
    assert "not computed: rare words as <unk>: the model's vocabulary lacks words" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--observed-perplexity", "0.5"], "a perplexity is above 1; as bits per byte it is 1.414"),
        (["--observed-perplexity", "-3"], "not in the range x>0"),
        ([], "Missing argument '[RESULTS]...' or --observed-perplexity"),
    ],
)
def test_bad_options_are_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(explain.command, arguments)
    assert done.exit_code == 2
    assert message in done.output


MODELS = [
    ["--configuration", "x"],
    ["--column", "x"],
    ["--rows", "3"],
]


@pytest.mark.parametrize(
    ("given", "unread", "partner"),
    [
        *(
            (["--observed-perplexity", "217"], unread, "--observed-perplexity")
            for unread in (
                ["--format", "json"],
                ["--gpu", "T4"],
                ["--expected", "x.csv"],
                ["--tokens", "9"],
                ["--details", "effect"],
                ["--matrix", "x.toml"],
            )
        ),
        *(
            (["--observed-perplexity", "217"], unread, "--observed-perplexity without --text")
            for unread in MODELS
        ),
        *(
            (["study.csv"], unread, "RESULTS")
            for unread in (["--text", "x"], ["--split", "train"], ["--unit", "word"], *MODELS)
        ),
        (["--observed-perplexity", "9", "--text", "x"], ["--context", "64"], "--text"),
    ],
    ids=str,
)
def test_an_option_that_would_be_ignored_is_refused(
    given: list[str], unread: list[str], partner: str
) -> None:
    done = CliRunner().invoke(explain.command, [*given, *unread])
    assert done.exit_code == 2
    assert f"{unread[0]} does not go with {partner}\n" in done.output
