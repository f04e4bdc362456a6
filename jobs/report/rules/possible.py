"""Impossible or contradictory."""

import math
from dataclasses import replace

from bench import decoders
from bench.device import gpus
from jobs.report import bounds, pace, slips, words
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Value, Verdict
from jobs.report.rules.conditions import sharing
from jobs.report.rules.rule import Hit, note, rule

# A full queue hides launches, a closed loop does not; a busy host disturbs one of the two.
_QUEUE = (0.75, 1.6)
_BATCH_FITS = 0.1
_CHECK = "Synchronise before each reading of the clock, and check model, batch size and length."


@rule(
    Verdict.REJECT,
    Verdict.INCONCLUSIVE,
    undermines="effects",
    first=True,
    cause="A latency of {latency_ms:ms} is below the lower bound of the forward pass, {bound:ms}",
    missing=["whether the clock waited for the GPU (synchronise)", "the name of the GPU"],
    do=[_CHECK],
)
def latency_below_lower_bound(case: Case, group: Group) -> Hit | None:
    """The latency is below 0.9 of its lower bound, by measured peaks or else by the datasheet.

    Where the GPU is not known, of every known board; where the model is not named, of GPT-2.
    Inconclusive: only with the length or batch that is assumed; with the model that is, where the
    table has columns or text that are not understood; or of a time for each token that may be of
    one prompt of a batch. fp32 that TF32 explains is told as such.
    """
    least = bounds.of_case(case)
    if not least or not is_below(case, least) or on_tf32(case):
        return None
    found, missing = slips.of_latency(case), None
    known = bool(case.boards) or not case.foreign
    clause, values = slips.as_clause(found, "ms")
    values |= {"bound": least.ms}
    whose = "" if known else " on any known board"
    if known:
        missing = ["whether the clock waited for the GPU (synchronise)"]
    evidence = [note("{why} take {bound:ms}", why=least.why)]
    if is_amortised(case):
        return of_one_or_of_each(case, least, evidence)
    is_sure = is_below(case, bounds.of_case(bounds.certain(case)))
    if is_sure and not case.may_be_another:
        do = ["Check the unit of the column, and write it in its name."] if found else None
        model = " for {model}, which is assumed" if is_of_any_model(case) else ""
        cause = f"{latency_below_lower_bound.cause}{whose}{model}{clause}."
        told: dict[str, Value] = {**values, "model": case.workload.model}
        return Hit(evidence, told, rejects=["latency_ms"], missing=missing, do=do, cause=cause)
    cause = "A latency of {latency_ms:ms} is below the lower bound of {assumed}, {bound:ms}; the"
    unsaid = what_is_unsaid(model=case.may_be_another, length=not is_sure)
    cause += f" table does not {unsaid}{clause}."
    size = f"{case.workload.batch_size} x {case.workload.prompt_tokens} tokens"
    assumed = f"{case.workload.model} at {size}" if case.may_be_another else size
    return Hit(
        evidence,
        {**values, "assumed": assumed},
        verdict=Verdict.INCONCLUSIVE,
        cause=cause,
        missing=(),
        do=["Say it: --model NAME, --tokens N, --batch N."],
        rejects=["latency_ms"],
    )


def what_is_unsaid(model: bool, length: bool) -> str:
    """What a table does not do, in words."""
    unsaid = {"name its model": model, "say how long its prompts are": length}
    return " or ".join(what for what, is_open in unsaid.items() if is_open)


def is_of_any_model(case: Case) -> bool:
    """Whether a table does not name its model, so that a smaller one may be meant."""
    return case.foreign and "model" in case.assumed


def of_one_or_of_each(case: Case, least: bounds.Bound, evidence: list[Note]) -> Hit:
    """Where a time for each token is too short for a step, and not for one prompt's part of it."""
    cause = "{per_output_token_ms:ms} for each token of {batch_size} prompts together is below"
    cause += " the lower bound of a step, {step:ms}; for a token of each, as a throughput is"
    cause += " inverted, it would be {whole:ms} for a step."
    steps = max(1, case.workload.new_tokens)
    whole = (case.per_output_token_ms or 0.0) * case.workload.batch_size
    return Hit(
        evidence,
        {"bound": least.ms, "step": least.ms / steps, "whole": whole},
        verdict=Verdict.INCONCLUSIVE,
        cause=cause,
        missing=["whether a token of one prompt is meant, or one of each prompt"],
        do=["Say what it is of: name the column `step (ms)` or `tok/s`."],
        rejects=["latency_ms"],
    )


def is_amortised(case: Case) -> bool:
    """Whether a time for each token of several prompts may be the step's, shared among them."""
    per_token, batch = case.per_output_token_ms, case.workload.batch_size
    if not case.foreign or not per_token or batch == 1 or not case.latency_ms:
        return False
    steps = max(1, case.workload.new_tokens)
    alone = abs(case.latency_ms / steps / per_token - 1) < _BATCH_FITS
    whole = replace(case, latency_ms=case.latency_ms * batch)
    return alone and not is_below(whole, bounds.of_case(case))


def is_below(case: Case, least: bounds.Bound | None) -> bool:
    """Whether the latency is below a lower bound."""
    return bool(least and case.latency_ms and case.latency_ms < bounds.LEAST_LATENCY * least.ms)


@rule(
    Verdict.REJECT,
    Verdict.INCONCLUSIVE,
    undermines="effects",
    first=True,
    cause="A throughput of {rate} is more than {whose} can compute, {most}.",
    missing=["what was counted: prompts, batches or tokens, and per second or per minute"],
    do=["Check what the number counts, and over which time."],
)
def throughput_above_upper_bound(case: Case, group: Group) -> Hit | None:
    """A throughput that stands alone is above what the arithmetic of any board in question allows.

    Of tokens: of the layers' weights, each used once; of new tokens of a stated batch, of reading
    the weights for each. Inconclusive: only with the length or the model that is assumed.
    """
    shape = decoders.shape_of(case.workload.model)
    rate = case.throughput_per_s or case.tokens_per_s
    boards = bounds.in_question(case)
    if (case.latency_ms and case.throughput_per_s) or not rate or shape is None or not boards:
        return None
    if hit := faster_than_a_batch(case):
        return hit
    fastest = max(boards, key=lambda board: gpus.hardware_peak_tflops(board, case.precision))
    peak = gpus.hardware_peak_tflops(fastest, case.precision)
    tokens, what = 1, "tokens/s"
    if case.throughput_per_s:
        tokens, what = case.workload.prompt_tokens + case.workload.new_tokens, "prompts/s"
    flops = 2.0 * shape.layer_weights * tokens
    most = peak * 1e12 / flops
    if rate * bounds.LEAST_LATENCY <= most:
        return None
    is_long = rate * bounds.LEAST_LATENCY <= most * tokens and is_assumed(case)
    rates = {"rate": f"{rate:.0f} {what}", "most": f"{most:.0f} {what}"}
    rejects = ["throughput_per_s", "tokens_per_s"]
    evidence = [f"{flops / 1e9:.3g} GFLOP at {peak:.3g} TFLOP/s ({fastest.name})"]
    is_any = is_of_any_model(case)
    values = {**rates, "whose": of_whom(case), "unsaid": what_is_unsaid(is_any, is_long)}
    options = {"--model NAME": is_any, "--tokens N": is_long}
    unsaid = [name for name, is_open in options.items() if is_open]
    do = [f"Say it: {', '.join(unsaid)}."]
    if not unsaid:
        return Hit(evidence, values, rejects=rejects)
    cause = "A throughput of {rate} is more than {whose} can compute of what is assumed, {most};"
    cause += " the table does not {unsaid}."
    return Hit(evidence, values, verdict=Verdict.INCONCLUSIVE, cause=cause, do=do, rejects=rejects)


def faster_than_a_batch(case: Case) -> Hit | None:
    """New tokens of a stated batch, made faster than its weights can be read for each."""
    unsaid = {"batch_size", "model"} & case.assumed
    least = bounds.of_case(bounds.certain(case))
    if not case.workload.new_tokens or not case.throughput_per_s or unsaid or not least:
        return None
    if (case.pace_ms or 0.0) >= bounds.LEAST_LATENCY * least.ms:
        return None
    batch, steps = case.workload.batch_size, case.workload.new_tokens
    counted = {"rate": case.tokens_per_s, "most": batch * steps * 1e3 / least.ms}
    unit = "tokens/s"
    if case.tokens_per_s is None:
        unit, counted = "prompts/s", {"rate": case.throughput_per_s, "most": batch * 1e3 / least.ms}
    shown = {name: f"{value:.0f} {unit}" for name, value in counted.items()}
    return Hit(
        [f"{steps} new tokens of {batch} prompts: {least.why}"],
        {**shown, "whose": of_whom(case)},
        rejects=["throughput_per_s", "tokens_per_s"],
    )


def of_whom(case: Case) -> str:
    """The boards whose bounds hold for a case, in words."""
    return words.with_article(case.gpu) if case.boards else "any known board"


@rule(
    Verdict.FIX,
    Verdict.INCONCLUSIVE,
    undermines="effects",
    first=True,
    cause="A latency of {ms:ms}{of} is {times:.0f} times what {what} takes at most on a slow host",
    missing=["the unit of the latency, and whether it is of one run"],
    do=["Write the unit into the name of the column, and the time of one run into its cells."],
)
def latency_implausibly_high(case: Case, group: Group) -> Hit | None:
    """A table's latency is over 20 times its lower bound and the launches of a slow host.

    So is the time of a token or request by a throughput at batch 1, of a model that is named.
    Inconclusive: a throughput beside it agrees.
    """
    one = pace.timed(case)
    ours, of = (one.case, one.of) if one else (case, "")
    by_throughput = case.latency_ms is None
    if not slips.is_far_above(ours) or (by_throughput and "model" in case.assumed):
        return None
    limits = slips.plausible_ms(ours)
    assert limits and ours.latency_ms
    times = ours.latency_ms / (limits[1] / slips.SLOWEST)
    what, steps = f"a forward pass of {case.workload.model}", ours.workload.new_tokens
    if steps:
        what = f"generating {steps} tokens" if steps > 1 else "generating a token"
    told: dict[str, Value] = {"ms": ours.latency_ms, "of": of, "times": times, "what": what}
    cause = latency_implausibly_high.cause
    if by_throughput:
        missing = ["what was counted, and per second or per minute"]
        do = ["Write into the name of the column what the number counts, and over which time."]
        rejects = ["throughput_per_s", "tokens_per_s"]
        return Hit(values=told, rejects=rejects, cause=f"{cause}.", missing=missing, do=do)
    if slips.is_decode(ours, group.lengths):
        cause += ". It is proportional to the tokens, {step:ms} for each, as where they are"
        cause += " generated one by one."
        told["step"] = ours.latency_ms / ours.workload.prompt_tokens
        missing, do = ["how many tokens were generated"], ["Say it: --new-tokens N."]
        return Hit(values=told, rejects=["latency_ms"], cause=cause, missing=missing, do=do)
    if rate_agrees(ours):
        cause += ". The throughput beside it agrees, so the unit is right: a slow program, or"
        cause += " another model than {model}."
        told["model"] = case.workload.model
        missing, do = ["the model, and what its engine computes"], ["Say it: --model NAME."]
        inconclusive = Verdict.INCONCLUSIVE
        return Hit(values=told, verdict=inconclusive, cause=cause, missing=missing, do=do)
    clause, values = slips.as_clause(slips.of_latency(ours), "ms")
    unsaid = "model" in case.assumed and not case.workload.new_tokens
    clause += "; or it is of another model, or of generated tokens." if unsaid else "."
    return Hit(values={**values, **told}, rejects=["latency_ms"], cause=cause + clause)


def rate_agrees(case: Case) -> bool:
    """Whether a throughput beside a latency is that of one batch after another."""
    if not case.foreign or not case.throughput_per_s or not case.latency_ms:
        return False
    expected = case.workload.batch_size / case.latency_ms * 1e3
    return abs(case.throughput_per_s / expected - 1) < _BATCH_FITS


@rule(
    Verdict.REJECT,
    Verdict.FIX,
    undermines="effects",
    cause="fp32 ran on Tensor Cores, so TF32 was on: the row is tf32, not fp32.",
    do=["Switch TF32 off, and measure tf32 as a precision of its own."],
)
def fp32_on_tensor_cores(case: Case, group: Group) -> Hit | None:
    """A trace of fp32 shows Tensor Core kernels, or its latency is only possible with TF32.

    Fix: with a length that is assumed, or a model beside columns or text that are not understood,
    or where another batch of the same table shows it.
    """
    if case.precision != "fp32":
        return None
    if case.trace and case.trace.tensor_cores == "yes":
        return Hit(kernels_of(case))
    engine = case.workload.engine
    beside = [o.case("fp32") for o in group.others if o.cases[0].workload.engine == engine]
    shows = next((one for one in (case, *beside) if one and on_tf32(one)), None)
    if shows is None:
        return None
    least, with_tf32 = bounds.of_case(shows), bounds.of_case(as_tf32(shows))
    assert least and with_tf32
    cause = "fp32 was TF32: {ms:ms} is below the lower bound of fp32, {bound:ms}, and above that of"
    cause += " TF32, {tf32:ms}."
    if shows is not case:
        cause = "fp32 was probably TF32 here too: at batch {batch} {ms:ms} is below the lower bound"
        cause += " of fp32, {bound:ms}, and above that of TF32, {tf32:ms}."
    why = "torch before 1.12, and many containers, switch TF32 on by themselves"
    sure = shows is case and not is_assumed(case) and not case.may_be_another
    told = {"ms": shows.latency_ms, "bound": least.ms, "tf32": with_tf32.ms}
    values = {**told, "batch": shows.workload.batch_size}
    return Hit([why], values, cause=cause, verdict=None if sure else Verdict.FIX)


def is_assumed(case: Case) -> bool:
    """Whether the table does not say how much work a request is."""
    return "prompt_tokens" in case.assumed and not case.workload.new_tokens


def as_tf32(case: Case) -> Case:
    """The case as if it were tf32."""
    return replace(case, precision="tf32")


def on_tf32(case: Case) -> bool:
    """Whether a latency of fp32 is below its lower bound, and above that of TF32 on its GPU."""
    if case.precision != "fp32" or not case.foreign or not case.boards:
        return False
    if any(gpus.peak_tflops(board, "tf32") is None for board in case.boards) or is_amortised(case):
        return False
    is_tf32 = is_below(case, bounds.of_case(case))
    return is_tf32 and not is_below(case, bounds.of_case(as_tf32(case)))


@rule(
    Verdict.REJECT,
    undermines="effects",
    cause="The GPU is a simulation of a {name}: nothing here was measured on one.",
    do=["Run the same matrix on the real GPU."],
)
def simulated(case: Case, group: Group) -> Hit | None:
    """The row comes from a simulated GPU."""
    return Hit(values={"name": case.device_name}) if case.simulated else None


@rule(
    Verdict.FIX,
    Verdict.INCONCLUSIVE,
    undermines="effects",
    cause="A throughput of {throughput_per_s:prompts/s} contradicts the latency of"
    " {latency_ms:ms}. {likely}",
    missing=["whether the queue was full while the throughput was measured"],
    do=["Measure both on the same batch, with one synchronise at the end."],
)
def throughput_contradicts_latency(case: Case, group: Group) -> Hit | None:
    """Throughput x latency / batch size is below 0.75, or above both 1.6 and 1.1 / busy share.

    Inconclusive: a batch that the table does not say would explain it.
    """
    ratio, batch = case.queue_gain, case.workload.batch_size
    # A full queue can at most hide all but the kernels themselves.
    busy = case.trace.busy_share if case.trace else None
    most = max(_QUEUE[1], 1.1 / busy) if busy else _QUEUE[1]
    if ratio is None or _QUEUE[0] <= ratio <= most or sharing(case):  # which explains it
        return None
    fitting, unsaid = 2 ** round(math.log2(ratio * batch)), False
    likely = "One of the two was measured on something else, or the host was busy."
    if slip := slips.of_throughput(ratio, case.workload):
        likely = f"Probably {slip}."
    elif fitting > batch and abs(ratio * batch / fitting - 1) < _BATCH_FITS:
        likely = f"A batch of {fitting} would fit: was that the batch size?"
        unsaid = "batch_size" in case.assumed
    implied = batch * 1000 / (case.latency_ms or 1.0)
    return Hit(
        ["{batch_size} / {latency_ms:ms} = {implied:prompts/s}; {ratio:.3g}x of it was found"],
        {"ratio": ratio, "implied": implied, "likely": likely},
        verdict=Verdict.INCONCLUSIVE if unsaid else None,
        do=["Say it: --batch N."] if unsaid else None,
    )


@rule(
    Verdict.FIX,
    undermines="effects",
    cause="{precision} did not run on the Tensor Cores that this GPU has.",
    missing=["hardware counters of the Tensor Cores"],
    do=["Check that sizes are multiples of 8, and that the torch build knows this GPU."],
)
def tensor_cores_unused(case: Case, group: Group) -> Hit | None:
    """The GPU has Tensor Cores for this precision, and the trace shows none."""
    if case.precision == "fp32" or case.trace is None or case.trace.tensor_cores != "no":
        return None
    if not on_tensor_cores(case.precision, case):
        return None
    peaks = tuple(p for board in case.boards if (p := gpus.peak_tflops(board, case.precision)))
    return Hit(
        ["products: {ms:ms} of {traced_ms:ms} traced", *kernels_of(case)],
        {"ms": case.trace.matmul_ms, "traced_ms": case.trace.traced_ms, "peaks": peaks},
        ["up to {peaks:TFLOP/s} on Tensor Cores"] if peaks else (),
    )


def on_tensor_cores(precision: str, case: Case) -> bool:
    """Whether PyTorch computes a precision on Tensor Cores on this GPU."""
    known = gpus.arithmetic(precision, case.capability) if case.capability else None
    return known is not None and known.kind == "tensor cores"


def kernels_of(case: Case) -> list[Note]:
    """The kernels that took most of the time."""
    names = (case.trace and case.trace.names) or ()
    return [note("kernel {name}", name=name) for name in names[:3]]
