"""Whether the host that launches kernels, and not the GPU that runs them, sets the latency.

Signals, strongest first: the same kernels as a CUDA graph take less time; the GPU is idle for a
part of each forward. Weaker ones, which only raise the question: a latency that stays flat over the
batch, as it also does where weights are streamed or few multiprocessors have work; power near idle;
launches that alone take most of the time; a latency far above every floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.asked import CPU
from bench.device.gpus import GPUS, Board
from jobs.report.cases import Case, Group
from jobs.report.finding import Code, Finding, Verdict
from jobs.report.rules import floors
from jobs.report.words import listed, number, span

_GRAPH_GAIN, _NO_GRAPH_GAIN = 1.2, 1.1
BUSY, _QUITE_BUSY = 0.7, 0.85
_FLAT, _SCALES = 1.3, 0.7
_NEAR_IDLE = 0.15  # of what lies between idle and the limit
_FAR_ABOVE = 5.0  # floors
_MOSTLY = 0.5


@dataclass(frozen=True)
class Signals:
    """What speaks for the host (strong or weak) and what speaks against it."""

    strong: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()
    against: tuple[str, ...] = ()

    @property
    def bound(self) -> bool:
        """Measured: the host sets the latency."""
        return bool(self.strong) and not self.against

    @property
    def perhaps(self) -> bool:
        """It may, and nothing measured says that it does not."""
        return bool(self.strong or self.weak) and not self.against


def signals(group: Group, case: Case) -> Signals:
    """Every signal for one case of a group; none on a CPU, which is host and device in one."""
    if group.gpu_type == CPU or group.workload.engine != "eager" or not case.latency_ms:
        return Signals()
    strong, weak, against = [], [], []
    graph = _elsewhere(group, case, "graph", group.workload.batch_size)
    if graph and graph.latency_ms:
        gain = case.latency_ms / graph.latency_ms
        text = (
            f"{case.precision}: eager {number(case.latency_ms, ' ms')}, as a CUDA graph"
            f" {number(graph.latency_ms, ' ms')}: {gain:.2f}x"
        )
        if gain > _GRAPH_GAIN:
            strong.append(text)
        elif gain < _NO_GRAPH_GAIN:
            against.append(text)
    busy = case.trace.busy_share if case.trace else None
    if busy is not None:
        text = f"{case.precision}: the GPU is busy for {busy:.0%} of the latency"
        if busy < BUSY:
            strong.append(text)
        elif busy > _QUITE_BUSY:
            against.append(text)
    for other in group.others:
        larger = other.case(case.precision)
        times = other.workload.batch_size / group.workload.batch_size
        if other.workload.engine != "eager" or times < 2 or not larger or not larger.latency_ms:
            continue
        growth = larger.latency_ms / case.latency_ms
        text = (
            f"{case.precision}: {times:g}x the batch takes {growth:.2f}x the time"
            f" ({number(case.latency_ms, ' ms')}, {number(larger.latency_ms, ' ms')})"
        )
        if growth < _FLAT:
            weak.append(text)
        elif growth > _SCALES * times:
            against.append(text)
    launches = case.roofline.lower_bound_launch_ms if case.roofline else None
    if launches and launches > _MOSTLY * case.latency_ms:
        weak.append(
            f"{case.precision}: launching its kernels back to back alone takes"
            f" {number(launches, ' ms')}"
        )
    if idle := _near_idle(case):
        weak.append(f"{case.precision}: {idle}")
    floor = floors.pytorch_floor_ms(group.boards, case.precision, group.workload)
    if floor and case.latency_ms > _FAR_ABOVE * floor[1]:
        weak.append(
            f"{case.precision}: {number(case.latency_ms, ' ms')} is"
            f" {case.latency_ms / floor[1]:.0f} times the floor of {span(floor, ' ms')}"
        )
    return Signals(tuple(strong), tuple(weak), tuple(against))


def _elsewhere(group: Group, case: Case, engine: str, batch_size: int) -> Case | None:
    for other in group.others:
        if (other.workload.engine, other.workload.batch_size) == (engine, batch_size):
            return other.case(case.precision)
    return None


def _near_idle(case: Case) -> str | None:
    """Where the mean power leaves next to nothing for computing."""
    power = case.mean_w
    if power is None or not case.boards:
        return None
    if case.idle_w is not None:
        limit = case.tdp_w or 0.0
        share = (power - case.idle_w) / (limit - case.idle_w) if limit > case.idle_w else 1.0
        if share >= _NEAR_IDLE:
            return None
        return (
            f"{number(power, ' W')}, {number(power - case.idle_w, ' W')} above the idle power of"
            f" {number(case.idle_w, ' W')}; the limit is {limit:g} W"
        )
    if any(above_idle(gpu, power) >= _NEAR_IDLE for gpu in case.boards):
        return None
    return (
        f"{number(power, ' W')}, {_way(case.boards[0], [power])}"
        f" of the {idle_and_limit(case.boards[0])}"
    )


def above_idle(gpu: Board, power_w: float) -> float:
    """How far a power is above the middle of the idle range, as a share of the way to the limit."""
    idle = sum(gpu.idle_w) / 2
    return (power_w - idle) / (gpu.tdp_w - idle)


def idle_and_limit(gpu: Board) -> str:
    """The two powers between which a board works."""
    return f"{gpu.name} ({span(gpu.idle_w, ' W', 2)} idle, limit {gpu.tdp_w:g} W)"


def launch_bound(group: Group) -> Iterator[Finding]:
    """The host sets the latency: measured, or no more than likely."""
    found = {case.precision: signals(group, case) for case in group.cases}
    bound = [precision for precision, s in found.items() if s.bound]
    if bound:
        yield Finding(
            Code.LAUNCH_BOUND,
            Verdict.FIX,
            group.title,
            tuple(bound),
            f"{listed(bound)}: launching the kernels takes longer than running them, so the latency"
            " is the host's and not the GPU's.",
            evidence=tuple(
                text
                for precision in bound
                for text in found[precision].strong + found[precision].weak
            ),
            expected=_floor_texts(group, bound),
            actions=(
                'Measure engine = ["eager", "graph"] and larger batches; compare GPUs on these.',
                "Keep the host's CPU with each number: it is part of the result.",
            ),
        )
        return
    perhaps = [precision for precision, s in found.items() if s.perhaps]
    evidence = [text for precision in perhaps for text in found[precision].weak]
    cause = (
        f"{listed(perhaps)}: the GPU seems to wait for the host most of the time (launch-bound)."
    )
    if not group.boards and group.gpu_type is None:
        perhaps, evidence, cause = _of_an_unknown_gpu(group)
    if perhaps:
        yield Finding(
            Code.LAUNCH_BOUND,
            Verdict.CANNOT_TELL,
            group.title,
            tuple(perhaps),
            cause,
            evidence=tuple(evidence),
            expected=_floor_texts(group, perhaps),
            missing=(
                "the same forward as a CUDA graph, which launches everything at once",
                "the share of the time in which a kernel runs (a trace)",
                "the latency at larger batches: where it grows with them, launches do not set it",
            ),
            actions=("Run the matrix below: it brings all three.",),
        )


def _floor_texts(group: Group, precisions: list[str]) -> tuple[str, ...]:
    texts = []
    for precision in precisions:
        floor = floors.pytorch_floor_ms(group.boards, precision, group.workload)
        if floor:
            texts.append(f"{precision}: no less than {span(floor, ' ms')}, by the datasheet")
    return tuple(texts)


def _of_an_unknown_gpu(group: Group) -> tuple[list[str], list[str], str]:
    """Where a power would be near idle on some types, these and the others, told one by one."""
    powers = {case.precision: case.mean_w for case in group.cases if case.mean_w is not None}
    if not powers or group.workload.engine != "eager":
        return [], [], ""
    boards: dict[str, Board] = {}
    for gpu in GPUS:
        boards.setdefault(gpu.gpu_type, gpu)
    able = [gpu for gpu in boards.values() if min(powers.values()) > 0.8 * gpu.idle_w[0]]
    near = [gpu for gpu in able if above_idle(gpu, max(powers.values())) < _NEAR_IDLE]
    if not near:
        return [], [], ""
    evidence = [
        f"mean power = energy / latency = {span(powers.values(), ' W')}"
        f" ({', '.join(f'{p} {number(w)}' for p, w in powers.items())})",
        *(
            f"{idle_and_limit(gpu)}: {_way(gpu, powers.values())}, "
            + ("near idle: it mostly waited" if gpu in near else "it worked for a part of the time")
            for gpu in able
        ),
    ]
    others = [gpu.name for gpu in able if gpu not in near]
    cause = (
        "Whether the GPU waits for the host depends on which it is: on"
        f" {listed(gpu.name for gpu in near)} this power is near idle, on {listed(others)} it is"
        " not."
        if others
        else f"{listed(powers)}: on every type that it can be, this power is near idle: the GPU"
        " seems to wait for the host most of the time (launch-bound)."
    )
    return list(powers), evidence, cause


def _way(gpu: Board, powers_w: Iterable[float]) -> str:
    """How far powers are on the way from idle to the limit."""
    shares = [f"{max(0.0, above_idle(gpu, power)):.0%}" for power in sorted(powers_w)]
    told = shares[0] if shares[0] == shares[-1] else f"{shares[0]} to {shares[-1]}"
    return f"{told} of the way from idle to the limit"
