"""Whether launches set the latency.

Then it is that of the host, which launches kernels, and not of the GPU, which runs them. Signals,
strongest first: the same kernels as a CUDA graph take less time; the GPU is idle for a
part of each forward. Weaker ones, which only raise the question: a latency that stays flat over the
batch, as it also does where weights are streamed or few multiprocessors have work; power near idle;
launches that alone take most of the time; a latency far above the lower bound.
"""

from bench.asked import CPU
from bench.device.boards import Board
from jobs.report import bounds, pace, slips
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.architecture import allowed_gain, boards_by_type, fair_gain
from jobs.report.rules.rule import Hit, note, rule
from jobs.report.rules.structure import engines_note, most_launches_ms

BUSY, _QUITE_BUSY = 0.7, 0.85
_ENGINE_GAIN = 2.0
_GRAPH_GAIN, _NO_GRAPH_GAIN = 1.2, 1.1
_FALLS, _FLAT, _SCALES = 0.8, 1.3, 0.7  # less work takes no longer: such times are of another kind
_SAME_LAUNCHES = 1.5  # two precisions launch the same kernels: so much no host differs by
_NEAR_IDLE = 0.15  # of what lies between idle and the limit
_FAR_ABOVE = 5.0  # lower bounds
_MOSTLY = 0.5
_BUSY_POWER = 0.6  # of what lies between idle and the limit


def signals(case: Case, group: Group) -> tuple[list[Note], list[Note], list[Note]]:
    """What speaks for the host, strong and weak, and what against it.

    Nothing on a CPU, which is host and device in one.
    """
    strong: list[Note] = []
    weak: list[Note] = []
    against: list[Note] = []
    one = pace.timed(case)
    if case.gpu_type == CPU or not case.launches_one_by_one or one is None:
        return strong, weak, against
    ms, batch = one.case.latency_ms or 0.0, case.workload.batch_size
    for other in group.others:
        same = other.case(case.precision)
        more = time_beside(case, same) if same else None
        if same is None or more is None:
            continue
        engine, times = same.workload.engine, same.workload.batch_size / batch
        if engine == "graph" and times == 1:
            gain = ms / more
            into = strong if gain > _GRAPH_GAIN else against if gain < _NO_GRAPH_GAIN else []
            text = "{precision}: eager {ms:ms}, as a CUDA graph {graph_ms:ms}: {gain:.2f}x"
            into.append(note(text, ms=ms, graph_ms=more, gain=gain))
        elif engine == case.workload.engine and times >= 2:
            growth = more / ms
            # A step reads all weights, for however many prompts.
            flat = [] if one.case.workload.new_tokens else weak
            into = flat if _FALLS < growth < _FLAT else against if growth > _SCALES * times else []
            text = "{precision}: {times:g}x the batch takes {growth:.2f}x the time"
            text += " ({ms:ms}, {more:ms})"
            into.append(note(text, times=times, growth=growth, ms=ms, more=more))
        elif engine == case.workload.engine and times <= 0.5:
            growth = ms / more
            if growth > _SCALES / times:
                text = "{precision}: {times:g}x the batch took {growth:.2f}x the time"
                text += " ({less:ms}, {ms:ms})"
                against.append(note(text, times=1 / times, growth=growth, less=more, ms=ms))
    if case.foreign and (faster := engines_note(case, group)):
        gain, told = faster
        # Fused kernels and fewer launches: as much as that is no arithmetic.
        (strong if gain > _ENGINE_GAIN else []).append(told)
    against += by_length(case, group)
    against += [] if strong else by_precision(case, group)
    busy = case.trace.busy_share if case.trace else None
    if busy is not None:
        into = strong if busy < BUSY else against if busy > _QUITE_BUSY else []
        into.append(note("{precision}: the GPU is busy for {busy:.0%} of the latency", busy=busy))
    launches = case.roofline.lower_bound_launch_ms if case.roofline else None
    if launches and launches > _MOSTLY * ms:
        text = "{precision}: launching its kernels back to back alone takes {ms:ms}"
        weak.append(note(text, ms=launches))
    weak += near_idle(case)
    least = bounds.of_pytorch(case.boards, case.precision, one.case.workload)
    if least and _FAR_ABOVE * least[1] < ms < most_launches_ms(one.case.workload):
        text = "{precision}: {ms:ms}{of} is {times:.0f} times the lower bound of {bound:ms}"
        weak.append(note(text, ms=ms, of=one.of, times=ms / least[1], bound=least))
    return strong, weak, against


def by_length(case: Case, group: Group) -> list[Note]:
    """Where the time grows with the length of the prompt, as that of launches does not."""
    if not case.latency_ms or slips.is_decode(case, group.lengths):
        return []
    found, asked = [], case.workload
    for other in group.lengths:
        same = other.case(case.precision)
        if same is None or not same.latency_ms or same.workload.new_tokens != asked.new_tokens:
            continue
        (short, before), (long, after) = sorted(
            (one.workload.prompt_tokens, one.latency_ms or 0.0) for one in (case, same)
        )
        times, growth = long / short, after / before
        if times >= 2 and growth > _SCALES * times:
            text = "{precision}: {times:.3g}x the tokens take {growth:.2f}x the time"
            text += " ({before:ms}, {after:ms})"
            found.append(note(text, times=times, growth=growth, before=before, after=after))
    return found[:1]


def by_precision(case: Case, group: Group) -> list[Note]:
    """Where another precision, which launches the same kernels, takes another time."""
    base = group.base_of(case)
    for other in group.cases:
        times = time_beside(case, other), time_beside(other, case)
        if "mixed" in (case.precision, other.precision) or None in times:
            continue
        theirs, ours = (ms or 0.0 for ms in times)
        gain = ours / theirs
        if gain >= _SAME_LAUNCHES:
            text = "{precision}: {ours:ms}, {other} with the same launches {theirs:ms}"
            return [note(text, other=other.precision, theirs=theirs, ours=ours)]
        if other is not base or base.precision not in ("fp32", "tf32"):
            continue
        allowed, by = allowed_gain(pace.work_of(case), pace.work_of(base))
        if allowed and 1 / gain >= fair_gain(allowed):
            text = "{precision}: gains {gain:.2f}x where the {by} allow {allowed:.1f}x"
            return [note(text, gain=1 / gain, by=by, allowed=allowed)]
    return []


def time_beside(case: Case, other: Case) -> float | None:
    """The time of another case that compares with this one's; None: they say different things."""
    if other.foreign and other.per_output_token_ms and not other.workload.new_tokens:
        return None  # of a token of each prompt, or of all together
    return other.latency_ms if case.latency_ms else other.pace_ms


def near_limit(case: Case) -> bool:
    """Whether the mean power shows that the GPU computes most of the time."""
    boards = [board for board in case.boards if board.idle_w]
    return bool(case.mean_w and boards) and all(
        above_idle(board, case.mean_w or 0.0) > _BUSY_POWER for board in boards
    )


def near_idle(case: Case) -> list[Note]:
    """Where the mean power leaves next to nothing for computing."""
    power, idle = case.mean_w, case.idle_w
    if power is None or not case.boards:
        return []
    text = "{precision}: {mean_w:W}, "
    if idle is not None:
        limit = max(board.tdp_w for board in case.boards)
        share = (power - idle) / (limit - idle) if limit > idle else 1.0
        text += "{above:W} above the idle power of {idle_w:W}; the limit is {limit:g W}"
        return [note(text, above=power - idle, limit=limit)] if share < _NEAR_IDLE else []
    if any(board.idle_w is None for board in case.boards):
        return []
    shares = [above_idle(board, power) for board in case.boards]
    text += "{share:.0%} of the way from idle to the limit of the {board}"
    told = note(text, share=max(0.0, shares[0]), board=idle_and_limit(case.boards[0]))
    return [told] if max(shares) < _NEAR_IDLE else []


def above_idle(board: Board, power_w: float) -> float:
    """How far a power is above the middle of the idle range, as a share of the way to the limit."""
    idle = sum(board.idle_w or (0.0,)) / 2
    return (power_w - idle) / (board.tdp_w - idle)


def idle_and_limit(board: Board) -> str:
    """The two powers between which a board works."""
    if board.idle_w is None:
        return f"{board.name} (limit {board.tdp_w:g} W)"
    low, high = board.idle_w
    return f"{board.name} ({low:g} to {high:g} W idle, limit {board.tdp_w:g} W)"


@rule(
    Verdict.FIX,
    Verdict.INCONCLUSIVE,
    cause="Launching the kernels takes longer than running them: the host sets the latency.",
    do=["Run the matrix below: it brings what is missing."],
)
def launch_bound(case: Case, group: Group) -> Hit | None:
    """The host, which launches kernels, sets the latency, or may.

    Fix: a CUDA graph is over 1.2x faster, or the GPU is busy for less than 70 %. Inconclusive: 2x
    the batch takes less than 1.3x the time (so it also does where few multiprocessors have work,
    and in every decode, which streams its weights: there it does not count), power near idle (15 %
    of the way to the limit), launching its kernels alone takes over half of the latency, or 5 times
    the lower bound. Silent where the GPU is busy for over 85 %, a graph gains less than 1.1x, time
    grows with the batch or the length, or a precision gains as much as the hardware allows; on a
    CPU; in another engine than eager.
    """
    strong, weak, against = signals(case, group)
    one = pace.timed(case)
    asked = one.case.workload if one else case.workload
    least = bounds.of_pytorch(case.boards, case.precision, asked)
    text = "{precision}: no less than {bound:ms}, by the datasheet"
    expected = [note(text, bound=least)] if least else []
    if strong and not against:
        return Hit(
            strong + weak,
            expected=expected,
            missing=(),
            do=[
                'Measure engine = ["eager", "graph"] and larger batches; compare GPUs on these.',
                "Keep the host's CPU with each number: it is part of the result.",
            ],
        )
    if case.gpu_type is None:
        return on_unspecified(case, group)
    # Measured evidence against it outweighs what only raises the question.
    if not weak or against:
        return None
    seems, lacking = "The GPU seems to wait for the host most of the time (launch-bound).", []
    if one and one.of and "model" in case.assumed:
        seems = "Of gpt2, which is assumed, such a time for each token means that the GPU waits for"
        seems += " the host most of the time (launch-bound)."
        lacking = ["the name of the model: to read the weights of a larger one takes as long"]
    lacking += missing(group)
    return Hit(weak, expected=expected, verdict=Verdict.INCONCLUSIVE, cause=seems, missing=lacking)


def missing(group: Group) -> list[str]:
    """What would tell launches from arithmetic, and is not in the table."""
    head = group.cases[0].workload
    engines = {other.cases[0].workload.engine for other in group.others}
    larger = any(o.cases[0].workload.batch_size >= 2 * head.batch_size for o in group.others)
    lacking = {
        "the same forward pass as a CUDA graph, which launches everything at once": "graph"
        in engines,
        "the share of the time in which a kernel runs (a trace)": any(c.trace for c in group.cases),
        "the latency at larger batches: where it grows with them, launches do not set it": larger,
    }
    return [what for what, is_there in lacking.items() if not is_there]


def on_unspecified(case: Case, group: Group) -> Hit | None:
    """Where a power would be near idle on some types, these and the others, told one by one."""
    powers = {one.precision: one.mean_w for one in group.cases if one.mean_w is not None}
    if case.precision not in powers or not case.launches_one_by_one or not case.latency_ms:
        return None
    watts = tuple(powers.values())
    each = ", ".join(f"{precision} {watt:.1f}" for precision, watt in powers.items())
    evidence: list[str | Note] = [
        note("mean power = energy / latency = {watts:W} ({each})", watts=watts, each=each)
    ]
    near: list[str] = []
    others: list[str] = []
    for board, *_ in boards_by_type(case).values():
        if board.idle_w is None or not board.is_for_servers:
            continue
        if min(watts) <= bounds.LEAST_POWER_OF_OTHERS * board.idle_w[0]:
            continue  # it would be below its idle power
        shares = tuple(max(0.0, above_idle(board, watt)) for watt in watts)
        is_near = max(shares) < _NEAR_IDLE
        (near if is_near else others).append(board.name)
        text = "{board}: {share:.0%} of the way, "
        text += "near idle: it mostly waited" if is_near else "it worked for a part of the time"
        evidence.append(note(text, board=idle_and_limit(board), share=shares))
    cause = "On every type that it can be, this power is near idle: the GPU seems to wait for the"
    cause += " host most of the time (launch-bound)."
    if others:
        cause = "Whether the GPU waits for the host depends on which it is: on {near} this power is"
        cause += " near idle, on {others} it is not."
    values = {"near": tuple(near), "others": tuple(others)}
    lacking = missing(group)
    found = Hit(evidence, values, verdict=Verdict.INCONCLUSIVE, cause=cause, missing=lacking)
    return found if near else None
