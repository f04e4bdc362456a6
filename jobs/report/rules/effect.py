"""What a precision does, and what remains undecided."""

from collections.abc import Iterator

from bench.profile import work
from bench.stats import Ratio
from jobs.report import compare
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.architecture import expected_gain
from jobs.report.rules.rule import Hit, note, rule

_CONSISTENT = (0.9, 1.1)  # throughput x latency / batch
_SAME_SIZE = 0.02


@rule(
    Verdict.INCONCLUSIVE,
    missing=["more fresh processes"],
    do=["Raise sampling.replicates; claim no difference until then."],
)
def no_significant_difference(case: Case, group: Group) -> Hit | None:
    """The 95 % interval of a ratio contains 1, alone or among as many, and is wider than 2 %."""
    of = {"speed": ("speedup", case.speedup), "energy": ("energy ratio", case.energy_ratio)}
    open_ratios = {
        what: (name, ratio)
        for what, (name, ratio) in of.items()
        if ratio and not compare.negligible(ratio) and compare.decided(ratio, group.ratios) is None
    }
    evidence: list[Note] = []
    alone: list[str] = []
    widened: list[str] = []
    for name, ratio in open_ratios.values():
        wide = compare.together(ratio, group.ratios)
        text = "{precision}: {name} {value:ratio} [{low:ratio}, {high:ratio}] contains 1.00"
        contains = ratio.low <= 1 <= ratio.high
        (alone if contains else widened).append(name)
        if not contains:
            text = text.replace("contains", "excludes") + (
                " alone; one of {count} ratios needs [{wide_low:ratio}, {wide_high:ratio}], which"
                " contains it"
            )
        ends = {"low": ratio.low, "high": ratio.high, "wide_low": wide.low, "wide_high": wide.high}
        evidence.append(note(text, name=name, value=ratio.value, count=group.ratios, **ends))
    told = {
        "95 % CI of the {alone} contains 1.00": alone,
        "95 % CI of the {widened}, widened for {count} ratios, contains 1.00": widened,
    }
    why = [text for text, names in told.items() if names]
    ratios = {"alone": tuple(alone), "widened": tuple(widened), "what": tuple(open_ratios)}
    cause = f"No significant difference in {{what}} ({'; '.join(why)})."
    return Hit(evidence, {**ratios, "count": group.ratios}, cause=cause) if evidence else None


@rule(Verdict.ACCEPT, Verdict.INCONCLUSIVE, effect=True)
def effect(case: Case, group: Group) -> Hit | None:
    """A ratio of time or energy is decided among as many as there are, or within 2 % of 1."""
    base = group.base_of(case)
    faster = compare.decided(case.speedup, group.ratios)
    if base is None or (case.precision == "mixed" and faster is not None and faster < 1):
        return None  # mixed-slower says it
    speed = clause(case.speedup, group, "is {speedup:x} as fast as fp32", "is as fast as fp32")
    differs = "needs {energy_ratio:x} the energy" + ("" if speed else " of fp32")
    energy = clause(case.energy_ratio, group, differs, "needs the same energy")
    if not speed and not energy:
        return None
    bare = case.foreign and not (case.speedup and case.speedup.has_interval)
    return Hit(
        [*ratios_of(case, base), *consistent_with(case, base)],
        expected=expected_gain(case),
        cause=f"{{precision}} {' and '.join(filter(None, (speed, energy)))}.",
        missing=["intervals: one number each, from one process"] if bare else [],
        speed=bool(speed),
        energy=bool(energy),
    )


def clause(ratio: Ratio | None, group: Group, differs: str, alike: str) -> str:
    """What a ratio says if it is decided, or known to be none; else nothing."""
    if ratio is None:
        return ""
    if compare.decided(ratio, group.ratios) is not None:
        return differs
    within = max(1 - ratio.low, ratio.high - 1)
    return f"{alike}, to within {within:.1%}" if compare.negligible(ratio) else ""


def ratios_of(case: Case, base: Case) -> Iterator[Note]:
    """The numbers behind both ratios; energy = time x power, in the energy's own windows."""
    if case.speedup:
        text = "latency {base_latency_ms:ms} -> {latency_ms:ms}"
        if case.speedup.has_interval:
            text += ", 95 % CI of the speedup [{low:.2f}, {high:.2f}]"
        yield note(text, low=case.speedup.low, high=case.speedup.high)
    if case.energy_ratio:
        text = "energy {base_energy_mj:mJ} -> {energy_mj:mJ}"
        power = case.mean_w / base.mean_w if case.mean_w and base.mean_w else None
        if power:
            text += ": {time:x} by time, {power:x} by power ({base_mean_w} -> {mean_w:W})"
        yield note(text, time=case.energy_ratio.value / (power or 1), power=power)


def consistent_with(case: Case, base: Case) -> Iterator[Note]:
    """What else was measured of both, and whether it agrees."""
    gained = case.queue_gain
    if gained is not None and case.latency_ms:
        text = "throughput {throughput_per_s}/s is {gained:.2f}x of batch size / latency"
        if _CONSISTENT[0] <= gained <= _CONSISTENT[1]:
            text = "throughput {throughput_per_s}/s is consistent with the latency (implies"
            text += " {implied}/s)"
        yield note(text, implied=case.workload.batch_size * 1e3 / case.latency_ms, gained=gained)
    least = case.roofline.lower_bound_ms if case.roofline else None
    if least and case.latency_ms:
        text = "{times:2} times its lower bound of {bound:ms} by the measured peaks"
        yield note(text, times=case.latency_ms / least, bound=least)
    if case.perplexity is not None and case.perplexity == base.perplexity:
        yield note("perplexity {perplexity:.5g} at both, as written")
    if case.size_mb is None or base.size_mb is None:
        return
    text, shape = "size {base_size_mb} -> {size_mb:MB}", work.shape_of(case.workload.model)
    if shape is None:
        yield note(text)
        return
    each = work.stored_bytes(case.precision)
    wanted = shape.parameters * each / 1e6
    text += ": {millions:.2f} M weights x {each} bytes = {wanted:.0f} MB, "
    text += "as found" if abs(case.size_mb / wanted - 1) < _SAME_SIZE else "not as found"
    yield note(text, millions=shape.parameters / 1e6, each=each, wanted=wanted)
