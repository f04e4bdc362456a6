"""What a finding is: a code, a verdict, its cause, the numbers behind it, and what to do."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """What to do with the numbers that a finding is about, worst first."""

    REJECT = "reject"  # they cannot be right
    FIX = "fix"  # something can be mended, and the numbers would change
    CANNOT_TELL = "cannot tell"  # evidence is missing
    ACCEPT = "accept"  # they stand, and the cause is known


class Code(enum.StrEnum):
    """Every kind of finding, in the order in which equal verdicts are shown."""

    LATENCY_BELOW_FLOOR = "latency-below-floor"
    POWER_ABOVE_LIMIT = "power-above-limit"
    POWER_BELOW_IDLE = "power-below-idle"
    PERPLEXITY_BELOW_FLOOR = "perplexity-below-floor"
    PERPLEXITY_OUT_OF_RANGE = "perplexity-out-of-range"
    FP32_ON_TENSOR_CORES = "fp32-on-tensor-cores"
    SIMULATED = "simulated"
    THROUGHPUT_CONTRADICTS_LATENCY = "throughput-contradicts-latency"
    GPU_THROTTLED = "gpu-throttled"
    GPU_SHARED = "gpu-shared"
    GPU_CAPPED = "gpu-capped"
    CONFOUNDED = "confounded"
    ATTENTION_DIFFERS = "attention-differs"
    WARM_UP_UNSTEADY = "warm-up-unsteady"
    LATENCY_NOT_CONVERGED = "latency-not-converged"
    TENSOR_CORES_UNUSED = "tensor-cores-unused"
    PRECISION_EMULATED = "precision-emulated"
    LAUNCH_BOUND = "launch-bound"
    ENERGY_WINDOW_TOO_SHORT = "energy-window-too-short"
    ENERGY_METHODS_DIFFER = "energy-methods-differ"
    ENERGY_METHOD_UNKNOWN = "energy-method-unknown"
    PERPLEXITY_DIFFERS = "perplexity-differs"
    PERPLEXITY_TOO_COARSE = "perplexity-too-coarse"
    GPU_DOUBTFUL = "gpu-doubtful"
    GAIN_BELOW_HARDWARE = "gain-below-hardware"
    NOISE_HIDES_EFFECT = "noise-hides-effect"
    MIXED_OPTIONS = "mixed-options"
    EXPECTATION = "expectation"
    MIXED_SLOWER = "mixed-slower"
    PRECISION_STORAGE_ONLY = "precision-storage-only"
    EFFECT = "effect"


@dataclass(frozen=True)
class Finding:
    """One thing that the rows show.

    Attributes:
        subject: Which rows: GPU type and workload.
        precisions: Which of their precisions.
        cause: One sentence: what it is and why.
        evidence: The numbers that support it.
        expected: What the facts about this architecture let one expect, beside what was found.
        missing: Evidence that would decide what these rows leave open.
        actions: What to do.
    """

    code: Code
    verdict: Verdict
    subject: str
    precisions: tuple[str, ...]
    cause: str
    evidence: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once, with every subject that it holds for, in the order to read them."""
    subjects: dict[Finding, dict[str, None]] = {}
    for finding in findings:
        key = dataclasses.replace(finding, subject="")
        subjects.setdefault(key, {})[finding.subject] = None
    joined = [
        dataclasses.replace(finding, subject="; ".join(names))
        for finding, names in subjects.items()
    ]
    verdicts, codes = list(Verdict), list(Code)
    return sorted(joined, key=lambda f: (verdicts.index(f.verdict), codes.index(f.code)))
