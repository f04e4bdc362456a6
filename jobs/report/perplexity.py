"""What a perplexity says: precisions compared as pairs, and which mistake gives an odd number."""

import math
from collections.abc import Iterable, Iterator, Sequence

from bench.perplexity.variants import Variant
from jobs.report.facts import BASELINE, Case
from jobs.terminal import clean

NEAR = 0.02  # a variant within this share of the observed number gives it
_LISTED = 12
_LEAST_PERCENT = 0.01  # of what two decimals show


def compared(cases: Iterable[Case]) -> Iterator[str]:
    """Each precision's perplexity against fp32, decided by windows as pairs."""
    for case in cases:
        difference = case.nats_difference
        if difference is None:
            continue
        text = f"{case.precision}: {difference.mean:+.2g} nats per token against {BASELINE}"
        if difference.low is None or difference.high is None:
            text += ", one window: no interval"
        else:
            text += f" [{difference.low:+.2g}, {difference.high:+.2g}]"
            decided = difference.low > 0 or difference.high < 0
            percent = 100 * math.expm1(difference.mean)
            shown = f"{percent:+.2f}" if abs(percent) >= _LEAST_PERCENT else f"{percent:+.1g}"
            text += f": perplexity {shown}%" if decided else ": no significant difference"
        if case.logit_rounding_nats is not None:
            text += f"; logits stored in 16 bits account for {case.logit_rounding_nats:+.2g}"
            if case.logit_rounding_error_nats is not None:
                text += f" (standard error {case.logit_rounding_error_nats:.1g})"
        yield text


def ranking(observed: float, where: str, variants: Sequence[Variant]) -> str:
    """The variants nearest to an observed perplexity, and whether one gives it."""
    where, variants = clean(where), clean(variants)
    known = [(v.perplexity / observed, v) for v in variants if v.perplexity]
    known.sort(key=lambda pair: abs(math.log(pair[0])))
    near = [v.what for times, v in known if abs(times - 1) <= NEAR]
    # The best protocol per token: what should have been reported.
    right = [v for _, v in known if v.right and "per token" in v.what]
    right.sort(key=lambda v: v.perplexity or 0.0)
    lines = [f"{observed:g} observed; {len(known)} variants on {where}:", ""]
    lines += [
        f"  {v.perplexity:10.5g} {times - 1:+9.1%}  {'right' if v.right else 'wrong'}  {v.what}"
        for times, v in known[:_LISTED]
    ]
    other = f"none is within {NEAR:.0%}: this number has another cause"
    lines += ["", f"within {NEAR:.0%}: {'; '.join(near)}" if near else other]
    lines += [f"right here: {v.perplexity:.5g} with {v.what}" for v in right[:1]]
    lines += [f"not computed: {v.what}: {v.reason}" for v in variants if v.perplexity is None]
    return "\n".join(lines)
