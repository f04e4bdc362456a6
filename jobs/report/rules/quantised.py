"""What weights in fewer bits can gain, and which kernel multiplied them."""

from collections.abc import Iterator

from bench.asked import QUANTISED
from bench.device import gpus
from bench.profile.classes import reads_quantised
from jobs.report.facts import Case, Group
from jobs.report.finding import Note, Verdict
from jobs.report.rules.rule import Hit, note, rule

HALVES = ("bf16", "fp16")
_UNKNOWN = "{precision}: not known whether the products read the weights as they are stored."
_COPIED = (
    "{precision}: no product reads the weights as they are stored. Each request copies them to a"
    " wider type and multiplies the copies ({kernels}), so that it moves more bytes than without"
    " quantisation, and only the memory is saved."
)


@rule(
    Verdict.ACCEPT,
    Verdict.INCONCLUSIVE,
    minor=True,
    cause="{precision}: the products read the weights as they are stored, by {kernels}.",
)
def weights_quantised(case: Case, group: Group) -> Hit | None:
    """At int8, int8-dynamic, int4 and fp8: the kernel that ran, and the most that can be gained.

    At a small batch by the bytes, at a large one by the peak of the products, beside fp32 and
    beside the 16 bits that torchao quantises. Inconclusive: there is no trace.
    """
    if case.precision not in QUANTISED or case.foreign or not case.pace_ms:
        return None
    halves = [one for one in group.cases if one.precision in HALVES]
    bases = filter(None, (group.base_of(case), *halves[:1]))
    trace = case.trace
    products = trace.products if trace else None
    reading = reads_quantised(products or ())
    by_bytes = bool(reading or not products)
    most = [told for base in bases for told in most_gained(case, base, by_bytes)]
    if not trace or not products:
        return Hit(
            [],
            expected=most,
            verdict=Verdict.INCONCLUSIVE,
            cause=_UNKNOWN,
            missing=["a trace (sampling.profile)"],
        )
    kernels = {"kernels": tuple(reading or products[:2])}
    text = "products {products:ms} of {total:ms} traced, changes of type {casts:ms}"
    times = {"products": trace.matmul_ms, "total": trace.traced_ms, "casts": trace.cast_ms}
    evidence = [note(text, **times)]
    compiled = case.workload.engine == "compile"
    if reading:
        return Hit(evidence, kernels, most)
    again = [] if compiled else ["Measure engine = compile, which joins the copy and the product."]
    return Hit(evidence, kernels, most, cause=_COPIED, do=again)


def most_gained(case: Case, base: Case, by_bytes: bool) -> Iterator[Note]:
    """The most that a quantised case gains against another one, by its arithmetic.

    And `by_bytes`, unless its products read a wider copy.
    """
    before, after = (one.roofline.bytes_moved if one.roofline else None for one in (base, case))
    if by_bytes and before and after:
        text = "against {base}, a small batch: at most {gain:.2f}x, by the bytes of a request"
        yield note(text, base=base.precision, gain=before / after)
    pairs = [
        (gpus.peak_tflops(board, case.precision), gpus.peak_tflops(board, base.precision))
        for board in case.boards
    ]
    ratios = [ours / theirs for ours, theirs in pairs if ours and theirs]
    whose = "the datasheet's peaks"
    if case.precision in ("int8", "int4") and base.precision in HALVES:
        ratios, whose = [1.0], "the arithmetic, which is the same,"
    elif not ratios:
        peaks = [one.roofline.matmul_tflops if one.roofline else None for one in (case, base)]
        ratios = [peaks[0] / peaks[1]] if peaks[0] and peaks[1] else []
        whose = "the measured peaks"
    if ratios:
        text = "against {base}, a large batch: at most {gain:.2f}x, by {whose} of the products"
        yield note(text, base=base.precision, gain=max(ratios), whose=whose)
