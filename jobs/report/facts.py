"""One case: the replicates of one precision on one GPU, or one line of somebody's table.

`Case` is the one shape of a result above `bench.results`: flat, frozen, and each fact optional,
because a table says far less than a row. The path of both:

    cases = from_rows.cases(rows) + foreign.read.load(place, told, allowance).cases
    cases = compare.with_ratios(cases)         speedup, energy_ratio, nats_difference, disagreements
    groups = facts.grouped(cases)              what compares: the precisions of a workload on a GPU
    found = findings.find(groups)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from statistics import fmean as mean
from statistics import geometric_mean
from typing import Any

from bench.asked import CPU, ENGINES, PRECISIONS, Workload
from bench.device.boards import Board, Capability
from bench.measured import Conditions, Outcome
from bench.measured.profiled import Roofline, Trace
from bench.stats import Difference, Median, Ratio
from bench.text.published import TOKEN
from bench.warnings import RowWarning

BASELINE = "fp32"
BASELINES = (BASELINE, "tf32", "bf16", "fp16", "mixed")  # the first of them that there is
PYTORCH = (*ENGINES, "torchscript")
LAUNCHING = ("eager", "torchscript")
NOT_SPECIFIED = "GPU not specified"
_MOST_NEIGHBOURS = 64  # of a group: rules look at each
NO_PRECISION = "no precision"  # of a line that does not say it
WIKITEXT_2 = "wikitext-2"


@dataclass(frozen=True)
class Disagreement:
    """A column in which rows differ that are compared with each other.

    Attributes:
        others: What the rows were compared with: replicates, fp32 or a GPU type.
        must: Whether the column changes time or energy by itself; else it only may.
    """

    others: str
    column: str
    must: bool
    values: tuple[str, ...]

    @property
    def text(self) -> str:
        """In words."""
        with_whom = "replicates" if self.others == "replicates" else f"compared with {self.others}"
        must = "must" if self.must else "should"
        return f"{with_whom}: {self.column} {must} agree: {', '.join(self.values)}"


def each(values: Iterable[Any]) -> tuple[Any, ...]:
    """Every value once, in order."""
    return tuple(dict.fromkeys(values))


def read(path: str, of: Callable[[list[Any]], Any] = itemgetter(0), default: object = None) -> Any:
    """A fact: the field of a row that has it, and what it is of the replicates' values."""
    return field(default=default, metadata={"path": path, "of": of})


def typical(values: Sequence[float]) -> float:
    """Of times or rates of replicates: their geometric mean, as their ratios and intervals take.

    >>> typical([1.0, 4.0]), typical([7.0])
    (2.0, 7.0)
    """
    return geometric_mean(values) if len(values) > 1 else values[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is known of one precision of one workload on one GPU; None: not known.

    Attributes:
        run: Sweep, or what the table calls it.
        gpu: As shown: the type, a board, or that the GPU is not specified.
        boards: The datasheets that may apply; none for a CPU or a foreign GPU.
        capability: Of the device that measured, or of the type.
        foreign: From a line of somebody's table, without rows.
        line: Where it stands there.
        assumed: Fields of the workload that the table does not say.
        may_be_another: So is the model, in a table with columns or text that are not understood.
        outcome: OK where any replicate was measured; `reason` is of those that failed.
        replicates: Numbers of those that were measured; `failed` counts the others.
        warnings: Of those that were measured, on which the rules rest.
        baseline: The precision that the others compare with: fp32, or else the best there is.
        columns: Column -> its value in each replicate, as text.
        latency_step_ms: Step of the last digit of a table's latency.
        latency_unit: In which a table says that its latency is; None: it does not.
        latencies_ms: Median of each replicate; `throughputs_per_s` of those that have one.
        tokens_per_s: Of all prompts together, where it is not known how many tokens each has.
        energy_mj: Gross energy of a prompt; `energies_mj` has each replicate's.
        energy_uncertainty: Relative, of the replicate that is known least.
        energy_windows: How many windows that replicate has.
        energy_edge_error: What a tick of the meter at either edge of these windows explains.
        energy_ticks: Fewest changes of the meter; `energy_window_s` is the time they took.
        energy_reasons: Why there is no energy, as `perplexity_reasons`.
        energy_per_token_mj: Where it is not known how many tokens a prompt has.
        energy_is_zero: A table says 0, which no energy is.
        mean_w: Mean power: measured, or energy / latency where a table gives only these.
        neighbours: Cells of the sweep beside replicates whose host was busy with other work.
        perplexity_unit: What it is per: token, word or byte.
        perplexity_is_finite: Whether a table has a number in the place of a perplexity.
        text_is_assumed: A table does not say it.
        perplexity_step: Step of the last digit of the perplexity as it was written.
        perplexity_protocol: What must be equal for `window_nats` to be compared as pairs.
        speedup_ends: Interval of the speedup as a table states it, as `energy_ratio_ends`.
        speedup: Latency of fp32 / latency: from `compare`, as all below.
        energy_ratio: Energy / energy of fp32.
        nats_difference: Nats per token above fp32, windows as pairs.
    """

    gpu: str
    gpu_type: str | None
    workload: Workload
    precision: str
    run: str = ""
    boards: tuple[Board, ...] = ()
    capability: Capability | None = None
    foreign: bool = False
    line: int | None = None
    assumed: frozenset[str] = frozenset()
    may_be_another: bool = False
    outcome: Outcome = Outcome.OK
    reason: str | None = None
    replicates: tuple[int, ...] = (0,)
    failed: int = 0
    warnings: tuple[RowWarning, ...] = ()
    failed_warnings: tuple[RowWarning, ...] = ()
    baseline: str = BASELINE
    columns: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict, hash=False)
    latency_ms: float | None = read("timing.latency_ms_p50", typical)
    latency_step_ms: float | None = None
    latency_unit: str | None = None
    latencies_ms: tuple[Median, ...] = ()
    throughput_per_s: float | None = read("timing.throughput_samples_per_s", typical)
    throughputs_per_s: tuple[float, ...] = read("timing.throughput_samples_per_s", tuple, ())
    tokens_per_s: float | None = None
    first_token_ms: float | None = read("timing.first_token_ms_p50", typical)
    per_output_token_ms: float | None = read("timing.per_output_token_ms", mean)
    memory_mb: float | None = None
    size_mb: float | None = read("weights.size_bytes", lambda sizes: mean(sizes) / 1e6)
    energy_mj: float | None = read("energy.per_sample_mj", mean)
    energy_per_token_mj: float | None = None
    energy_is_zero: bool = False
    energies_mj: tuple[float, ...] = read("energy.per_sample_mj", tuple, ())
    energy_methods: tuple[str, ...] = read("energy.method", each, ())
    energy_uncertainty: float | None = None
    energy_windows: int | None = None
    energy_edge_error: float | None = None
    energy_ticks: int | None = None
    energy_window_s: float | None = None
    energy_systematic: float | None = read("energy.systematic", max)
    energy_reasons: tuple[str, ...] = ()
    mean_w: float | None = read("energy.mean_w", mean)
    idle_w: float | None = read("energy.idle_w", mean)
    power_limit_w: float | None = read("device.power_limit_w", max)
    default_power_limit_w: float | None = read("device.default_power_limit_w", max)
    max_sm_mhz: float | None = read("device.max_sm_mhz", max)
    perplexity: float | None = read("quality.perplexity")
    perplexity_step: float | None = None
    perplexity_unit: str = TOKEN
    perplexity_is_finite: bool = True
    perplexity_lower_bound: float | None = read("quality.lower_bound_perplexity")
    perplexity_reasons: tuple[str, ...] = read("quality.reason", each, ())
    perplexity_protocol: tuple[object, ...] | None = None
    text: str | None = read("quality.text")
    text_is_assumed: bool = False
    context: int | None = read("quality.context")
    window_nats: tuple[float, ...] | None = read("quality.window_nats")
    window_tokens: tuple[int, ...] | None = read("quality.window_tokens")
    logit_rounding_nats: float | None = read("quality.logit_rounding_nats")
    logit_rounding_error_nats: float | None = read("quality.logit_rounding_error_nats")
    trace: Trace | None = None
    roofline: Roofline | None = None
    conditions: tuple[Conditions, ...] = read("conditions", tuple, ())
    simulated: bool = read("device.simulated", any, False)
    mig: bool = read("device.mig", any, False)
    vgpu: bool = read("device.vgpu", any, False)
    neighbours: tuple[str, ...] = ()
    speedup_ends: tuple[float, float] | None = None
    energy_ratio_ends: tuple[float, float] | None = None
    speedup: Ratio | None = None
    energy_ratio: Ratio | None = None
    nats_difference: Difference | None = None
    disagreements: tuple[Disagreement, ...] = ()

    def title(self, with_run: bool) -> str:
        """GPU and workload, and the run where there are several."""
        asked = f"   {self.workload}" if self.has_workload else ""
        return f"{self.gpu}{asked}" + (f"   ({self.run})" if with_run and self.run else "")

    @property
    def has_workload(self) -> bool:
        """Whether its numbers are of requests, and not of a log of power alone."""
        return not (self.foreign and self.precision == NO_PRECISION and self.pace_ms is None
                    and self.mean_w is not None)  # fmt: skip

    @property
    def key(self) -> tuple[bool, str, str, Workload]:
        """What a case and its baseline have in common."""
        return self.foreign, self.run, self.gpu, self.workload

    @property
    def place(self) -> tuple[object, ...]:
        """The key without what neighbours differ in: engine and batch size."""
        return *self.key[:3], replace(self.workload, engine="", batch_size=0)

    @property
    def but_for_length(self) -> tuple[object, ...]:
        """The key without numbers of tokens, and without a model that is assumed by them."""
        model = "" if "model" in self.assumed else self.workload.model
        asked = replace(self.workload, model=model, prompt_tokens=0, new_tokens=0)
        return *self.key[:3], asked

    @property
    def is_baseline(self) -> bool:
        """Whether the others compare with it."""
        return self.precision == self.baseline

    @property
    def by_pytorch(self) -> bool:
        """Whether PyTorch's own kernels compute it, as what is known of it takes for granted."""
        return self.workload.engine in PYTORCH

    @property
    def launches_one_by_one(self) -> bool:
        """Whether a program launches each kernel by itself, so that the host may set the pace."""
        return self.workload.engine in LAUNCHING

    @property
    def half_precision(self) -> str:
        """What autocast casts to here, and so what mixed compares with."""
        return "bf16" if self.gpu_type == CPU else "fp16"

    @property
    def pace_ms(self) -> float | None:
        """Time of a request: its latency, or what a throughput alone says of it."""
        batch_ms = 1e3 * self.workload.batch_size
        if self.latency_ms or not self.foreign:
            return self.latency_ms
        rate = self.throughput_per_s or self.tokens_per_s
        return batch_ms / rate if rate else None

    @property
    def queue_gain(self) -> float | None:
        """Throughput x latency / batch size: 1 in a closed loop, more with a full queue."""
        if not self.throughput_per_s or not self.latency_ms:
            return None
        return self.throughput_per_s * self.latency_ms / 1000 / self.workload.batch_size

    @property
    def device_name(self) -> str | None:
        """What the replicates call their device, each once: it should be one."""
        return self.shown("device_name")

    def shown(self, column: str) -> str | None:
        """The values of a column in words; None where none is known."""
        return "; ".join(self.seen(column)) or None

    def seen(self, column: str) -> list[str]:
        """The values of a column, each once, in the order of the replicates."""
        return [value for value in each(self.columns.get(column, ())) if value is not None]


@dataclass(frozen=True)
class Group:
    """What compares: the measured precisions of one workload on one GPU in one run.

    Attributes:
        title: GPU and workload, with the run where there are several.
        others: The groups of the same GPU and run with another engine or batch size.
        elsewhere: The groups of the same workload and run on another GPU.
        lengths: The groups of the same GPU, run, engine and batch with other numbers of tokens.
        ratios: How many ratios all groups together have an interval of: each misses its true value
            in 1 of 20, so that a single one must be wider to decide (`compare.decided`).
    """

    title: str
    cases: tuple[Case, ...]
    others: tuple[Group, ...] = ()
    elsewhere: tuple[Group, ...] = ()
    lengths: tuple[Group, ...] = ()
    ratios: int = 1

    @property
    def baseline(self) -> Case | None:
        """The case that the others compare with."""
        return next((case for case in self.cases if case.is_baseline), None)

    def case(self, precision: str) -> Case | None:
        """The case of a precision that was measured."""
        return next((case for case in self.cases if case.precision == precision), None)

    def base_of(self, case: Case) -> Case | None:
        """What a case compares with; None for the baseline itself."""
        return None if case.is_baseline else self.baseline


def grouped(cases: Iterable[Case]) -> list[Group]:
    """The measured cases in groups, in the order of the precisions, each with its neighbours."""
    measured = [case for case in cases if case.outcome == Outcome.OK]
    several_runs = len({case.run for case in measured}) > 1
    ratios = intervals(measured)
    by_key: dict[object, list[Case]] = {}
    for case in measured:
        by_key.setdefault(case.key, []).append(case)
    groups = []
    for members in by_key.values():
        members.sort(key=lambda case: rank(case.precision))
        groups.append(Group(members[0].title(several_runs), tuple(members), ratios=ratios))
    return linked(groups)


def linked(groups: Sequence[Group]) -> list[Group]:
    """The groups, each with its neighbours: of very many, those of the nearest sizes."""
    by_place: dict[object, list[Group]] = {}
    by_workload: dict[object, list[Group]] = {}
    by_all_but_length: dict[object, list[Group]] = {}
    for group in groups:
        head = group.cases[0]
        by_place.setdefault(head.place, []).append(group)
        by_workload.setdefault((head.run, head.foreign, head.workload), []).append(group)
        by_all_but_length.setdefault(head.but_for_length, []).append(group)

    place_of: dict[tuple[int, int], int] = {}
    for near in (*by_place.values(), *by_workload.values(), *by_all_but_length.values()):
        if len(near) > _MOST_NEIGHBOURS:
            near.sort(key=lambda group: size_of(group.cases[0]))
            place_of |= {(id(near), id(group)): place for place, group in enumerate(near)}

    def others(near: dict[object, list[Group]], key: object, group: Group) -> tuple[Group, ...]:
        around = near[key]
        if len(around) > _MOST_NEIGHBOURS:
            begin = max(0, place_of[id(around), id(group)] - _MOST_NEIGHBOURS // 2)
            around = around[begin : begin + _MOST_NEIGHBOURS]
        return tuple(other for other in around if other is not group)

    return [
        replace(
            group,
            others=others(by_place, (head := group.cases[0]).place, group),
            elsewhere=others(by_workload, (head.run, head.foreign, head.workload), group),
            lengths=others(by_all_but_length, head.but_for_length, group),
        )
        for group in groups
    ]


def size_of(case: Case) -> tuple[int, int, int, str]:
    """Where a case stands among others that differ in one of these."""
    asked = case.workload
    return asked.batch_size, asked.prompt_tokens, asked.new_tokens, case.gpu


def intervals(cases: Iterable[Case]) -> int:
    """How many ratios have an interval, and so can miss their true value by chance."""
    ratios = (ratio for case in cases for ratio in (case.speedup, case.energy_ratio))
    return sum(ratio is not None and ratio.has_interval for ratio in ratios)


def rank(precision: str) -> tuple[int, str]:
    """Where a precision stands among others."""
    known = precision in PRECISIONS
    return PRECISIONS.index(precision) if known else len(PRECISIONS), precision
