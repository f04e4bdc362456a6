"""bench.warnings: every code is given by somebody, with the values that its words need."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.warnings import CODES, RowWarning, having

ROOT = Path(__file__).parents[1]
# Their producers are given the code as a parameter.
INDIRECT = {"latency-not-converged", "first-token-not-converged"}


class AnyValue(float):
    """What formats as a number and as a text."""


def meant(found: ast.expr, function: ast.AST) -> ast.expr:
    """An expression, or what a name stands for by its last assignment before, if it has one."""
    if not isinstance(found, ast.Name):
        return found
    assigned = {
        node.lineno: node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.lineno < found.lineno
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id == found.id
    }
    return assigned.get(max(assigned, default=0)) or found


def codes_given(call: ast.Call, function: ast.AST) -> set[str]:
    """The codes that a call may give; none where that cannot be read from it."""
    code = meant(call.args[0], function)
    either = [code.body, code.orelse] if isinstance(code, ast.IfExp) else [code]
    return {str(each.value) for each in either if isinstance(each, ast.Constant)}


def keys_given(call: ast.Call, function: ast.AST) -> set[str] | None:
    """The names of the values that a call gives; None where that cannot be read from it."""
    if len(call.args) == 1:
        return {keyword.arg for keyword in call.keywords if keyword.arg}
    values = meant(call.args[1], function)
    if not isinstance(values, ast.Dict):
        return None
    return {str(key.value) for key in values.keys if isinstance(key, ast.Constant)}


def producers() -> Iterator[tuple[str, str, set[str] | None]]:
    """Every call that makes a warning: where it is, the code, the names of its values."""
    for package in ("bench", "cluster", "jobs"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            inside = {
                id(node): function
                for function in ast.walk(tree)
                if isinstance(function, ast.FunctionDef)
                for node in ast.walk(function)
            }
            for node in ast.walk(tree):
                if not (isinstance(node, ast.Call) and node.args):
                    continue
                if ast.unparse(node.func).rpartition(".")[2] in ("RowWarning", "flag"):
                    function = inside.get(id(node), tree)
                    for code in codes_given(node, function):
                        place = f"{path.relative_to(ROOT)}:{node.lineno}"
                        yield place, code, keys_given(node, function)


def test_every_code_has_a_producer_and_words_for_the_values_that_it_gives() -> None:
    seen = set()
    for place, code, keys in producers():
        assert code in CODES, f"{place}: {code} has no words"
        assert keys is not None, f"{place}: give {code} its values where it is made"
        try:
            text = RowWarning(code, {key: AnyValue(0.5) for key in keys}).text
        except KeyError as error:
            pytest.fail(f"{place}: the words of {code} need {error}")
        assert text
        seen.add(code)
    assert seen == CODES - INDIRECT


def test_a_latency_that_has_not_converged_says_how_far_it_is() -> None:
    values = {"samples": 12, "half_width": 0.03, "min_samples": 662, "median_within": 0.01}
    assert RowWarning("latency-not-converged", values).text == (
        "latency not converged: 12 samples, median within ±3.0% (asked for: at least 662, ±1.0%)"
    )
    few = RowWarning("first-token-not-converged", values | {"half_width": None})
    assert "time to first token not converged: 12 samples, too few for an interval" in few.text


@pytest.mark.parametrize(
    ("causes", "seconds", "text"),
    [
        ("power cap", 0.16, "clocks were throttled (power cap) for 0.2 s"),
        ("", 0.16, "clocks were throttled for 0.2 s"),
        ("power cap", None, "clocks were throttled (power cap)"),
        ("power cap", 0.0, "clocks were throttled (power cap)"),
    ],
)
def test_throttling_tells_what_is_known_of_it(
    causes: str, seconds: float | None, text: str
) -> None:
    assert RowWarning("throttled", {"causes": causes, "seconds": seconds}).text == text


def test_a_precision_is_emulated_by_gpus_and_cpus() -> None:
    gpu = RowWarning("precision-emulated", {"precision": "bf16", "compute_capability": "7.5"})
    assert gpu.text.endswith(
        "compute capability 7.5 has no bf16 arithmetic (8.0 and newer have it)"
    )
    cpu = RowWarning("precision-emulated", {"precision": "fp16", "instructions": "amx_fp16"})
    assert cpu.text == "fp16 is emulated: this CPU has none of amx_fp16"


def test_a_warning_of_an_energy_window_names_the_window() -> None:
    warning = RowWarning("few-ticks", {"ticks": 3, "window": 2})
    assert str(warning) == warning.text == "energy window 2: only 3 ticks of the meter"


def test_warnings_are_found_by_their_code() -> None:
    shared, slice_ = RowWarning("gpu-shared", {"processes": 1}), RowWarning("mig-slice")
    assert having([shared, slice_], "mig-slice", "virtual-gpu") == [slice_]
