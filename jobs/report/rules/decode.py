"""Whether generating a token reads the weights as fast as the memory gives them."""

import re

from bench.profile import work
from jobs.report.facts import NO_PRECISION, Case, Group
from jobs.report.finding import Value, Verdict
from jobs.report.rules.rule import Hit, rule

_NEAR = 0.5  # of the bandwidth: what sets the time then is the memory
_MOST = 1.1  # of the bandwidth: rounding, and boards that are clocked up
# Parameters in a model's name: of experts (8x7B, A3B) only some are read for a token.
_PARAMETERS = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d+)?)[Bb](?!\w)")
_EXPERTS = re.compile(r"\d+x\d|moe|a\d+(\.\d+)?b\b|mixtral|deepseek", re.IGNORECASE)


@rule(
    Verdict.ACCEPT,
    Verdict.INCONCLUSIVE,
    minor=True,
    cause="{tokens:3}/s of {weights_gb:3} GB of weights read {read:3} GB/s, {share:.0%} of the"
    " bandwidth of {board}: each token reads the weights, and the memory sets the time.",
)
def decode_reads_weights(case: Case, group: Group) -> Hit | None:
    """At batch 1 each new token of another model than GPT-2 reads weights at half the bandwidth.

    The weights are as large as a table says, or as the parameters in the model's name take.
    Inconclusive: they read more than the bandwidth.
    """
    tokens, weights_mb = tokens_per_s(case), size_mb(case)
    if not tokens or not weights_mb or not case.boards or work.counted(case.workload.model):
        return None
    board = max(case.boards, key=lambda one: one.bandwidth_gb_per_s)
    read = tokens * weights_mb / 1e3
    share = read / board.bandwidth_gb_per_s
    values: dict[str, Value] = {"tokens": tokens, "weights_gb": weights_mb / 1e3}
    values |= {"read": read, "share": share, "board": board.name}
    if share < _NEAR:
        return None
    if share <= _MOST:
        return Hit(values=values)
    return Hit(
        values=values,
        verdict=Verdict.INCONCLUSIVE,
        cause="{tokens:3}/s of {weights_gb:3} GB of weights would read {read:3} GB/s, {share:3}"
        " times the bandwidth of {board}.",
        missing=["whether all weights are read for each token, and whether one prompt ran at once"],
        do=["Say the batch or the requests at once; a draft model makes several tokens a pass."],
    )


def tokens_per_s(case: Case) -> float | None:
    """New tokens per second of a single prompt; None where they are not of one."""
    if not case.foreign or case.workload.batch_size != 1:
        return None
    if case.per_output_token_ms:
        return 1e3 / case.per_output_token_ms
    new = case.workload.new_tokens
    if not new:
        return None
    return case.tokens_per_s or (case.throughput_per_s or 0.0) * new or None


def size_mb(case: Case) -> float | None:
    """What the weights of a case take, all of which a token reads; None where that is not known."""
    model = case.workload.model
    if _EXPERTS.search(model):
        return None
    if case.size_mb:
        return case.size_mb
    found = _PARAMETERS.search(model)
    if found is None or case.precision == NO_PRECISION:
        return None
    return float(found[1]) * 1e3 * work.stored_bytes(case.precision)
