"""What differs between two runs beside the numbers: software, device, protocol, matrix."""

import contextlib
import dataclasses
import statistics
from collections.abc import Iterator, Sequence

from bench import matrix
from bench.asked import Matrix
from bench.energy.flags import CLOCK_SPREAD
from bench.errors import TensorgapError
from bench.results.columns import Source
from jobs.report import words
from jobs.report.changes.pairs import Measured
from jobs.report.changes.records import Condition, RowPlace
from jobs.report.from_rows import METHOD, MUST_AGREE, known

Pairs = Sequence[tuple[Measured, Measured]]

# Fields of a row, in words. All that must or should agree are among them.
FIELDS = {
    "software.driver": "driver",
    "software.torch": "torch",
    "software.cuda": "CUDA of torch",
    "software.cudnn": "cuDNN",
    "software.transformers": "transformers",
    "software.tensorgap": "tensorgap",
    "software.python": "Python",
    "software.ray": "ray",
    "software.os": "operating system",
    "device.name": "device",
    "device.compute_capability": "compute capability",
    "device.memory_bytes": "device memory in bytes",
    "device.power_limit_w": "power limit in W",
    "device.ecc": "ECC",
    "device.persistence": "persistence mode",
    "device.mig": "MIG slice",
    "device.vgpu": "virtual GPU",
    "device.vbios": "firmware of the board",
    "device.simulated": "simulated",
    "device.cpu": "host CPU",
    "device.threads": "CPU threads",
    "device.hostname": "host",
    "device.uuid": "GPU",
    "weights.sha256": "weights (SHA-256)",
    "weights.attention": "attention implementation",
    "trace.attention": "attention kernel",
    METHOD: "energy read by",
    "energy.protocol": "energy protocol",
    "quality.text": "text of the perplexity",
    "quality.mode": "mode of the perplexity",
    "quality.context": "context of the perplexity",
    "quality.stride": "stride of the perplexity",
    "quality.prefix": "token before the text of the perplexity",
    "quality.text_sha256": "text of the perplexity (SHA-256)",
}
# Which were not read where there is no record of their kind: that is no difference.
UNKNOWN_IS_NONE = (
    *(METHOD, "energy.protocol", "trace.attention", "weights.sha256"),
    *(path for path in FIELDS if path.startswith("quality.")),
)
PLANS = ("sampling", "quality", "placement")
MOST_VALUES = 2  # that are told of a field, of several replicates or hosts


def changed(pairs: Pairs, old: Sequence[Source], new: Sequence[Source]) -> list[Condition]:
    """What differs between the rows of the pairs, then between the sweeps that they are of."""
    return [
        *of_fields(pairs),
        *of_clocks(pairs),
        *of_sources(old, new),
    ]


def of_fields(pairs: Pairs) -> Iterator[Condition]:
    """Each field in which rows differ that are compared, once for all rows with the same change."""
    of_both = [pair for pair in pairs if all(one.case.replicates for one in pair)]
    for path, what in FIELDS.items():
        changes: dict[tuple[str, str], list[RowPlace]] = {}
        for old, new in of_both:
            told = told_of(old, path), told_of(new, path)
            if told[0] != told[1] and (all(told) or path not in UNKNOWN_IS_NONE):
                both = (told[0] or "not known", told[1] or "not known")
                changes.setdefault(both, []).append(old.place)
        every = [old.place for old, _ in of_both]
        for (before, after), places in changes.items():
            yield Condition(what, before, after, path in MUST_AGREE, where(places, every))


def told_of(one: Measured, path: str) -> str:
    """The values of a field in the replicates that were measured; empty: none is known."""
    rows = [row for row in one.rows if row.outcome == one.case.outcome]
    values = sorted({str(value) for value in known(rows, path)})
    if path == "device.name":
        return ", ".join(value.removeprefix("NVIDIA ") for value in values)
    more = f" and {len(values) - MOST_VALUES} more"
    return ", ".join(values[:MOST_VALUES]) + (more if len(values) > MOST_VALUES else "")


def where(places: Sequence[RowPlace], every: Sequence[RowPlace]) -> str:
    """Which of all places these are, in words; empty: all of them."""
    if len(places) == len(every):
        return ""
    for name in ("gpu", "precision"):
        here = dict.fromkeys(getattr(place, name) for place in places)
        if len(places) == sum(getattr(place, name) in here for place in every):
            return words.listed(here)
    if len(places) == 1:
        return places[0].text
    return f"{len(places)} of {len(every)} rows, such as {places[0].text}"


def of_clocks(pairs: Pairs) -> Iterator[Condition]:
    """The SM clock under load, of each GPU type where it moved by more than a share."""
    for of_type in words.gathered(pairs, lambda pair: pair[0].place.gpu):
        clocks = [
            [mhz for one in side for mhz in known(one.rows, "conditions.sm_mhz_after") if mhz > 0]
            for side in zip(*of_type, strict=True)
        ]
        if all(clocks):
            old, new = map(statistics.fmean, clocks)
            if abs(new / old - 1) > CLOCK_SPREAD:
                gpu = of_type[0][0].place.gpu
                told = f"{old:.0f} MHz", f"{new:.0f} MHz"
                yield Condition("SM clock under load", *told, must=False, where=gpu)


def of_sources(old: Sequence[Source], new: Sequence[Source]) -> Iterator[Condition]:
    """In what the sweeps differ: the revision of tensorgap, and what their matrices ask for."""
    if not old or not new:
        return
    revisions = [{source.git_revision or "not known" for source in side} for side in (old, new)]
    if revisions[0] != revisions[1]:
        told = [", ".join(sorted(one[:10] for one in side)) for side in revisions]
        yield Condition("revision of tensorgap", told[0], told[1], must=False)
    matrices = [[parsed(source) for source in side] for side in (old, new)]
    if any(one is None for side in matrices for one in side):
        if {source.matrix for source in old} != {source.matrix for source in new}:
            unreadable = "one cannot be read by this version"
            yield Condition("matrix", "another", unreadable, must=False)
        return
    for plan in PLANS:
        plans = [[getattr(one, plan) for one in side] for side in matrices]
        for field in dataclasses.fields(plans[0][0]):
            values = [sorted({str(getattr(one, field.name)) for one in side}) for side in plans]
            if values[0] != values[1]:
                before, after = map(", ".join, values)
                yield Condition(f"{plan}.{field.name}", before, after)


def parsed(source: Source) -> Matrix | None:
    """What a sweep was asked; None where this version cannot read it."""
    with contextlib.suppress(TensorgapError):
        return matrix.parse(source.matrix, "matrix", source.run.partition("/")[0] or "matrix")
    return None
