"""The time of a request, or of one step of it, by a latency or else by a throughput.

At batch 1, 1000 / tokens per s is the time of a decode step: 96.2 tok/s are 10.4 ms for each token.
Where several requests are in flight, a throughput gives the time of none of them.
"""

from dataclasses import dataclass, replace

from jobs.report import bounds
from jobs.report.facts import Case


@dataclass(frozen=True)
class Timed:
    """A case whose latency is that of its workload, one request or one step.

    Attributes:
        of: What the time is of and how it is known, behind a number; empty: a stated latency.
    """

    case: Case
    of: str = ""


def timed(case: Case) -> Timed | None:
    """The case with a latency and the work that it is of; None: neither is known.

    A throughput counts where one request can be in flight: at batch 1, and no faster than the lower
    bound of what it would be the time of. Of prompts, the batch must be stated.
    """
    asked, each = case.workload, case.per_output_token_ms
    if case.latency_ms is not None:
        if not case.foreign or asked.new_tokens or not each:
            return Timed(case)
        alone = asked.batch_size == 1 and case.latency_ms == each
        return Timed(step(case, each), " for each token") if alone else None
    rate = case.throughput_per_s
    if not case.foreign or asked.batch_size > 1 or not (rate or case.tokens_per_s):
        return None
    if not rate:
        found = Timed(step(case, 1e3 / (case.tokens_per_s or 1)), " for each token")
    elif asked.new_tokens or "batch_size" not in case.assumed:
        found = Timed(replace(case, latency_ms=1e3 / rate))
    else:
        return None
    least = bounds.of_case(found.case)
    if least is None or (found.case.latency_ms or 0.0) < bounds.LEAST_LATENCY * least.ms:
        return None
    return replace(found, of=f"{found.of}, by the throughput,")


def step(case: Case, ms: float) -> Case:
    """The case as one decode step, which reads all weights for one token of each prompt."""
    asked = replace(case.workload, prompt_tokens=1, new_tokens=1)
    return replace(case, latency_ms=ms, workload=asked)


def work_of(case: Case) -> Case:
    """The case with the work that its time is of; as it is where the time is not known."""
    one = timed(case)
    return one.case if one else case


def is_of_a_token(case: Case) -> bool:
    """Whether its latency is of one token, and a request has an unknown number of them."""
    return case.foreign and case.per_output_token_ms is not None and not case.workload.new_tokens
