"""Whether a table's numbers fit the GPU that it is said to be from, and which they would fit."""

from __future__ import annotations

from collections.abc import Iterator

from bench.profile import work as gpt2
from jobs.report import candidates
from jobs.report.candidates import Fit
from jobs.report.cases import Group
from jobs.report.finding import Code, Finding, Verdict
from jobs.report.words import listed, number

_SHOWN = 5
_LOAD_SHARE = 0.5


def gpu_doubtful(group: Group) -> Iterator[Finding]:
    """The GPU types, ranked by how well a model of launches, GPU and power gives the numbers."""
    if not group.plain or group.workload.engine != "eager" or group.workload.new_tokens:
        return
    shape = gpt2.shape_of(group.workload.model)
    if shape is None or (group.gpu_type is not None and not group.boards):
        return
    latencies = {c.precision: c.latency_ms for c in group.cases if c.latency_ms is not None}
    powers = {c.precision: c.mean_w for c in group.cases if c.mean_w is not None}
    size = (group.workload.batch_size, group.workload.prompt_tokens)
    fits = candidates.rank(latencies, powers, shape, *size)
    if not fits:
        return
    told = next((fit for fit in fits if fit.gpu.gpu_type == group.gpu_type), None)
    good = [fit.gpu.gpu_type for fit in fits if fit.verdict == "fits"]
    shown = fits[:_SHOWN] + [fit for fit in fits[_SHOWN:] if fit is told or _suspected(fit)]
    evidence = [
        "model: the host launches an operation every c us, the GPU runs them in order,"
        " power = idle + k x busy share",
        *(_told(fit) for fit in shown),
    ]
    if not powers:
        evidence.append("latencies alone fit almost any type: only powers tell them apart")
    else:
        alone = candidates.rank(latencies, {}, shape, *size)
        as_good = [fit.gpu.gpu_type for fit in alone if fit.verdict == "fits"]
        evidence.append(
            f"the latencies alone fit {len(as_good)} of {len(alone)} types"
            f" ({listed(as_good) or 'none'})"
            + (": it is the energy that tells them apart" if {*as_good} > {*good} else "")
        )
        diluted = candidates.rank(latencies, powers, shape, *size, load_share=_LOAD_SHARE)
        fitting = [fit.gpu.gpu_type for fit in diluted if fit.verdict == "fits"]
        evidence.append(
            f"if up to {1 - _LOAD_SHARE:.0%} of the energy's time was idle (a logger that starts"
            f" early and stops late), {listed(fitting) or 'none'} fit"
        )
    # A launch, a cast's share of it, idle and k; two rates where none is published.
    fitted = 1 + ("mixed" in latencies) + 2 * bool(powers)
    caution = (
        f"{fitted} to {fitted + 2} numbers are fitted to {len(latencies) + len(powers)} found:"
        " this is a hint, no proof."
    )
    if told is not None and told.verdict == "fits" and powers:
        verdict, cause = Verdict.ACCEPT, f"The numbers fit a {group.gpu_type}. {caution}"
    elif told is not None and told.verdict != "fits":
        verdict = Verdict.CANNOT_TELL
        cause = (
            f"A {group.gpu_type} is doubtful: the best fit is {told.error:.0%} off"
            + (f", where a {good[0]} fits within {fits[0].error:.0%}. " if good else ". ")
            + caution
        )
    elif told is not None:
        verdict = Verdict.CANNOT_TELL
        others = listed(name for name in good if name != group.gpu_type) or "another type"
        cause = f"Latencies alone cannot tell a {group.gpu_type} from {others}. {caution}"
    else:
        verdict = Verdict.CANNOT_TELL
        cause = (
            f"The GPU is not told; {listed(good[:3]) or 'none of the types'}"
            f" fit{'s' if len(good[:3]) <= 1 else ''} best. {caution}"
        )
    yield Finding(
        Code.GPU_DOUBTFUL,
        verdict,
        group.title,
        tuple(latencies),
        cause,
        evidence=tuple(evidence),
        missing=()
        if verdict == Verdict.ACCEPT
        else ("the driver's name of the GPU, its clocks, the busy share", "how energy was read"),
        actions=("nvidia-smi --query-gpu=name,compute_cap,power.limit --format=csv",),
    )


def _suspected(fit: Fit) -> bool:
    """The type that a study without Tensor Cores is most often thought to be from."""
    return fit.gpu.gpu_type == "P100"


def _told(fit: Fit) -> str:
    latencies = " / ".join(number(ms) for ms in fit.latencies_ms.values())
    busy = " / ".join(f"{share:.2f}" for share in fit.busy.values())
    rates = " and ".join(number(rate) for rate in fit.rates)
    text = (
        f"{fit.gpu.name}: {fit.verdict}, {fit.error:.0%} off."
        f" {'/'.join(fit.latencies_ms)}: {latencies} ms with c = {fit.launch_us:.0f} us,"
        f" {fit.cast_share:g} c per cast, products at {rates} TFLOP/s"
        f" ({'published' if fit.published else 'assumed'}); busy {busy}"
    )
    powers = [fit.power_w(precision) for precision in fit.latencies_ms]
    if fit.idle_w is None or fit.slope_w is None:
        return text
    return (
        f"{text}; {number(fit.idle_w)} + {number(fit.slope_w)} x busy ="
        f" {' / '.join(number(power) for power in powers)} W"
    )
