"""What a precision does, and what remains undecided."""

from collections.abc import Iterator

from bench import decoders
from bench.asked import CPU, QUANTISED
from bench.profile import work
from bench.stats import Ratio
from jobs.report import compare
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.architecture import expected_gain
from jobs.report.rules.rule import Hit, note, rule

_CONSISTENT = (0.9, 1.1)  # throughput x latency / batch
_SAME_SIZE = 0.02
_FEW_DIGITS, _LEAST_ROUNDING = 1 / 3, 0.02


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


@rule(
    Verdict.INCONCLUSIVE,
    undermines="effects",
    minor=True,
    cause="The latencies have too few digits for {speedup:x}: {base_latency_ms} and"
    " {latency_ms:ms} are"
    " known within {within:.0%} of each other by how they are written.",
    missing=["a further digit"],
    do=["Write the latencies with three digits or more."],
)
def latency_too_coarse(case: Case, group: Group) -> Hit | None:
    """The digits of a table's latencies leave open over a third of the difference, or all of it."""
    base, ratio = group.base_of(case), case.speedup
    if base is None or ratio is None or not case.latency_ms or not base.latency_ms:
        return None
    within = sum((one.latency_step_ms or 0) / 2 / (one.latency_ms or 1) for one in (case, base))
    if within <= _FEW_DIGITS * abs(ratio.value - 1) or within < _LEAST_ROUNDING:
        return None
    return Hit(values={"within": within})


@rule(Verdict.ACCEPT, Verdict.INCONCLUSIVE, effect=True)
def effect(case: Case, group: Group) -> Hit | None:
    """A ratio of time or energy is decided among as many as there are, or within 2 % of 1."""
    base = group.base_of(case)
    faster = compare.decided(case.speedup, group.ratios)
    if base is None or (case.precision == "mixed" and faster is not None and faster < 1):
        return None  # mixed-slower says it
    speed = clause(
        case.speedup,
        group,
        "is {speedup:x} as fast as {base_precision}",
        "is as fast as {base_precision}",
    )
    less = ""
    if case.foreign and case.energy_ratio and 0 < case.energy_ratio.value < 1:
        less = " ({less:.2f}x less)"
    differs = "needs {energy_ratio:x} the energy" + ("" if speed else " of {base_precision}") + less
    energy = clause(case.energy_ratio, group, differs, "needs the same energy")
    if not speed and not energy:
        return None
    values = {"less": 1 / case.energy_ratio.value} if less and case.energy_ratio else {}
    bare = case.foreign and not (case.speedup and case.speedup.has_interval)
    return Hit(
        [*ratios_of(case, base), *consistent_with(case, base)],
        values,
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
    if case.speedup and case.latency_ms:
        text = "latency {base_latency_ms:ms} -> {latency_ms:ms}"
        if case.speedup.has_interval:
            text += ", 95 % CI of the speedup [{low:.2f}, {high:.2f}]"
        yield note(text, low=case.speedup.low, high=case.speedup.high)
    if case.speedup and not case.latency_ms:
        of = "request" if case.throughput_per_s else "token"
        text = "by the throughputs: {before:ms} -> {after:ms} for each {of}"
        yield note(text, before=base.pace_ms, after=case.pace_ms, of=of)
    if case.energy_ratio and case.energy_mj:
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
    text, shape = "size {base_size_mb} -> {size_mb:MB}", decoders.shape_of(case.workload.model)
    if shape is None:
        yield note(text)
        return
    each, stored_as = work.stored_bytes(case.precision), (case.precision, case.gpu_type != CPU)
    wanted, few = work.model_bytes(shape, *stored_as) / 1e6, ""
    if case.precision in QUANTISED:
        few = "{few:.2f} M x {each:.2g} bytes, with the others "
    text += ": " + (few or "{millions:.2f} M weights x {each} bytes = ") + "{wanted:.0f} MB, "
    text += "as found" if abs(case.size_mb / wanted - 1) < _SAME_SIZE else "not as found"
    counts = {
        "millions": shape.parameters / 1e6,
        "few": work.stored_weights(shape, *stored_as) / 1e6,
    }
    yield note(text, each=each, wanted=wanted, **counts)
