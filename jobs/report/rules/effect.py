"""What a precision does, and what remains undecided."""

from __future__ import annotations

from bench.profile import work
from bench.stats import Ratio
from jobs.report import compare
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.architecture import expected_gain
from jobs.report.rules.possible import queue_gain
from jobs.report.rules.rule import Hit, note, rule

_CONSISTENT = (0.9, 1.1)  # throughput x latency / batch
_SAME_SIZE = 0.02


@rule(
    "no-significant-difference",
    Verdict.INCONCLUSIVE,
    when="the 95 % interval of a ratio contains 1, alone or among as many ratios as there are; not"
    " where it lies within 2 % of 1",
    cause="No significant difference in {what} (95 % CI of the {ratios} contains 1.00).",
    missing=["more fresh processes"],
    do=["Raise sampling.replicates; claim no difference until then."],
)
def no_significant_difference(case: Case, group: Group) -> Hit | None:
    """An interval that contains 1 decides nothing, nor one that would among so many."""
    if group.base_of(case) is None:
        return None
    found: dict[str, str] = {}
    evidence = []
    for what, name, ratio in (
        ("speed", "speedup", case.speedup),
        ("energy", "energy ratio", case.energy_ratio),
    ):
        if ratio is None or compare.negligible(ratio):
            continue
        if compare.decided(ratio, group.ratios) is not None:
            continue
        found[what] = name
        text = "{precision}: {name} {value:ratio} [{low:ratio}, {high:ratio}]"
        values = {"value": ratio.value, "low": ratio.low, "high": ratio.high}
        if ratio.low <= 1 <= ratio.high:
            text += " contains 1.00"
        else:
            wide = compare.together(ratio, group.ratios)
            values |= {"count": group.ratios, "wide_low": wide.low, "wide_high": wide.high}
            text += (
                " excludes 1.00 alone; one of {count} ratios needs [{wide_low:ratio},"
                " {wide_high:ratio}], which contains it"
            )
        evidence.append(note(text, precision=case.precision, name=name, **values))
    if not found:
        return None
    return Hit({"what": tuple(found), "ratios": tuple(found.values())}, evidence)


@rule(
    "effect",
    Verdict.ACCEPT,
    Verdict.INCONCLUSIVE,
    effect=True,
    when="a ratio of time or energy that is decided among as many as there are, or known to within"
    " 2 % to be 1, with all that is consistent with it. Inconclusive: another finding undermines"
    " its numbers; how the energy was read weakens what is said of the energy alone",
)
def effect(case: Case, group: Group) -> Hit | None:
    """What holds: the ratios of a precision, with all that agrees with them."""
    base = group.base_of(case)
    faster = compare.decided(case.speedup, group.ratios)
    if base is None or (case.precision == "mixed" and faster is not None and faster < 1):
        return None  # mixed-slower says it
    speed = _clause(case.speedup, group, "is {speedup:x} as fast as fp32", "is as fast as fp32")
    differs = "needs {energy:x} the energy" + ("" if speed else " of fp32")
    energy = _clause(case.energy_ratio, group, differs, "needs the same energy")
    if not speed and not energy:
        return None
    values = {
        "precision": case.precision,
        "speedup": case.speedup.value if case.speedup else None,
        "energy": case.energy_ratio.value if case.energy_ratio else None,
    }
    has_interval = case.speedup is not None and case.speedup.low < case.speedup.high
    return Hit(
        values,
        [*_ratios(case, base), *_consistent(case, base)],
        expected_gain(group, case.precision),
        cause=f"{{precision}} {' and '.join(filter(None, (speed, energy)))}.",
        missing=["intervals: one number each, from one process"]
        if group.foreign and not has_interval
        else [],
        energy=bool(energy),
        energy_only=not speed,
    )


def _clause(ratio: Ratio | None, group: Group, differs: str, alike: str) -> str:
    """What a ratio says if it is decided, or known to be none; else nothing."""
    if ratio is None:
        return ""
    if compare.decided(ratio, group.ratios) is not None:
        return differs
    within = max(1 - ratio.low, ratio.high - 1)
    return f"{alike}, to within {within:.1%}" if compare.negligible(ratio) else ""


def _ratios(case: Case, base: Case) -> list[Note]:
    """The numbers behind both ratios; energy = time x power, in the energy's own windows."""
    found = []
    if case.latency_ms and base.latency_ms:
        text = "latency {fp32_ms:ms} -> {found_ms:ms}"
        values = {"fp32_ms": base.latency_ms, "found_ms": case.latency_ms}
        if case.speedup and case.speedup.low < case.speedup.high:
            text += ", 95 % CI of the speedup [{low:.2f}, {high:.2f}]"
            values |= {"low": case.speedup.low, "high": case.speedup.high}
        found.append(Note(text, values))
    if case.energy_ratio is not None and case.energy_mj and base.energy_mj:
        text = "energy {fp32_mj:mJ} -> {found_mj:mJ}"
        values = {"fp32_mj": base.energy_mj, "found_mj": case.energy_mj}
        if case.mean_w and base.mean_w:
            power = case.mean_w / base.mean_w
            text += ": {time:x} by time, {power:x} by power ({fp32_w} -> {found_w:W})"
            values |= {"time": case.energy_ratio.value / power, "power": power}
            values |= {"fp32_w": base.mean_w, "found_w": case.mean_w}
        found.append(Note(text, values))
    return found


def _consistent(case: Case, base: Case) -> list[Note]:
    """What else was measured of both, and whether it agrees."""
    found = []
    gained = queue_gain(case)
    if gained is not None and case.latency_ms and case.throughput_per_s:
        throughput, batch = case.throughput_per_s, case.workload.batch_size
        implied = batch * 1000 / case.latency_ms
        text = "throughput {throughput:g}/s is {gained:.2f}x of batch size / latency"
        if _CONSISTENT[0] <= gained <= _CONSISTENT[1]:
            text = "throughput {throughput}/s is consistent with the latency (implies {implied}/s)"
        found.append(note(text, throughput=throughput, implied=implied, gained=gained))
    least = case.roofline.lower_bound_ms if case.roofline else None
    if least and case.latency_ms:
        text = "{times:2} times its lower bound of {bound_ms:ms} by the measured peaks"
        found.append(note(text, times=case.latency_ms / least, bound_ms=least))
    if case.size_mb is not None and base.size_mb is not None:
        found.append(_size(case, base.size_mb))
    if case.perplexity is not None and case.perplexity == base.perplexity:
        found.append(note("perplexity {value:.5g} at both, as written", value=case.perplexity))
    return found


def _size(case: Case, base_mb: float) -> Note:
    shape, each = work.shape_of(case.workload.model), work.stored_bytes(case.precision)
    text, values = "size {fp32_mb} -> {found_mb:MB}", {"fp32_mb": base_mb, "found_mb": case.size_mb}
    if shape:
        expected = shape.parameters * each / 1e6
        agrees = abs((case.size_mb or 0.0) / expected - 1) < _SAME_SIZE
        text += ": {millions:.2f} M weights x {each} bytes = {expected_mb:.0f} MB, "
        text += "as found" if agrees else "not as found"
        values |= {"millions": shape.parameters / 1e6, "each": each, "expected_mb": expected}
    return Note(text, values)
