"""What weakens a row, as data: a code and its values, by which to decide; words are for readers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Value = str | float | int | bool | None
Values = Mapping[str, Any]


@dataclass(frozen=True)
class RowWarning:
    """One thing that weakens a row, or one of its energy windows."""

    code: str  # one of `CODES`
    # What the code's words need; of an energy window also `window`, its number, and `repeated`, if
    # it was measured again for this reason.
    values: Mapping[str, Value] = field(default_factory=dict, hash=False)

    @property
    def text(self) -> str:
        """The warning in words.

        >>> RowWarning("host-busy", {"share": 0.07}).text
        'other processes used 7% of the host CPU time'
        >>> RowWarning("few-ticks", {"ticks": 3, "window": 2, "repeated": True}).text
        'energy window 2 (measured again): only 3 ticks of the meter'
        """
        words = _WORDS[self.code]
        text = words.format(**self.values) if isinstance(words, str) else words(self.values)
        if (window := self.values.get("window")) is None:
            return text
        again = " (measured again)" if self.values.get("repeated") else ""
        return f"energy window {window}{again}: {text}"

    def __str__(self) -> str:
        return self.text


def having(warnings: Iterable[RowWarning], *codes: str) -> list[RowWarning]:
    """Those of these codes."""
    return [warning for warning in warnings if warning.code in codes]


def _samples(v: Values) -> str:
    half = v["half_width"]
    known = "too few for an interval" if half is None else f"median within ±{half:.1%}"
    asked = f"at least {v['min_samples']}, ±{v['median_within']:.1%}"
    return f"{v['samples']} samples, {known} (asked for: {asked})"


def _not_steady(v: Values) -> str:
    text = f"the latency was not steady after {v['seconds']:.1f} s of warm-up"
    drift = v.get("drift")  # `stats.drift` of the samples, which older rows lack
    return text if drift is None else f"{text}, and drifted to {drift:.2f}x"


def _throttled(v: Values) -> str:
    causes = f" ({v['causes']})" if v["causes"] else ""
    seconds = f" for {v['seconds']:.1f} s" if (v["seconds"] or 0) >= 0.05 else ""
    return f"clocks were throttled{causes}{seconds}"


def _emulated(v: Values) -> str:
    precision, capability = v["precision"], v.get("compute_capability")
    if capability is None:
        return f"{precision} is emulated: this CPU has none of {v['instructions']}"
    lacks = f"compute capability {capability} has no {precision} arithmetic"
    return f"{precision} is emulated: {lacks} (8.0 and newer have it)"


_WORDS: Mapping[str, str | Callable[[Values], str]] = {
    # device
    "simulated-meter": "simulated: energy, clocks and temperature are those of a simulated {gpu}",
    "simulated-gpu": "simulated: the CPU computed in place of a {gpu}; no number is a GPU's",
    "modelled-gpu": "simulated: a model of a {gpu}, whose kernels take time but compute nothing",
    "gpu-unknown-to-driver": "no clocks, temperature or energy: {reason}",
    "mig-slice": "the GPU is a MIG slice: other slices share its memory system and power",
    "virtual-gpu": "the GPU is virtual: other machines share its board",
    "precision-emulated": _emulated,
    "no-tensor-cores": (
        "{precision} runs without Tensor Cores: on compute capability {compute_capability} PyTorch"
        " multiplies float16 in float32 arithmetic, so that only the bytes are halved"
    ),
    "weights-dequantised": (
        "{precision}: each request copies the weights to a wider type and multiplies the copies"
        " ({kernels}): only what is stored is smaller"
    ),
    "quantised-kernel-unknown": (
        "{precision}: not known which kernel multiplied the weights, as stored or as a copy of"
        " a wider type: there is no trace (sampling.profile)"
    ),
    "host-busy": "other processes used {share:.0%} of the host CPU time",
    "gpu-shared": "other processes on the same GPU: {processes}",
    "throttled": _throttled,
    # timing
    "warm-up-not-steady": _not_steady,
    "latency-not-converged": lambda v: f"latency not converged: {_samples(v)}",
    "first-token-not-converged": lambda v: f"time to first token not converged: {_samples(v)}",
    "attention-differs": "attention {asked} was asked for, but {ran} ran",
    # energy
    "sensor-unknown": "power sensor unknown: {reason}",
    "energy-meter": "energy: {reason}",
    "energy-uncertain": (
        "energy within ±{uncertainty:.1%}: {window_s:.1f} s of windows for a meter that ticks every"
        " {resolution_s:.2f} s (raise sampling.energy_s)"
    ),
    "no-idle-power": "no idle power: {reason}",
    "meter-unusable": "{reason}",
    "readings-instead": "energy: {reason}: power readings are used instead",
    "counter-disagrees-idle": (
        "energy: while idle the counter gave {counter_w:.1f} W, the readings {readings_w:.1f} W"
    ),
    "counter-disagrees": "the energy counter gave {ratio:.2f} times the power of the readings",
    "not-steady": "energy: clock and temperature were not steady after {seconds:.0f} s",
    "clock-moved": "the SM clock moved by {share:.0%}",
    "temperature-moved": "the temperature moved by {celsius:.0f} C",
    "meter-stuck": "the power reading never changed: the sensor may be stuck",
    "few-ticks": "only {ticks} ticks of the meter",
    "meter-stood-still": "the meter did not change for {seconds:.2f} s",
    "readings-failed": "{count} readings failed",
    "ticks-missed": "{share:.0%} of the meter's ticks were missed",
    "aliasing": "aliasing: the sensor sampled in phase with the load ({discrepancy:.2f})",
    # perplexity
    "perplexity-not-measured": "perplexity not measured: {reason}",
    "weights-not-published": "the weights are called {model} but do not have its published hash",
    "perplexity-depends-on-batch": (
        "perplexity depends on the batch: a window alone and in a batch differ by {nats:.2g} nats"
        " per token (allowed: {allowed:g})"
    ),
    "perplexity-unlike-published": (
        "perplexity {value:.5g} per {unit}, but {published:g} ±{within:.1%} is published for this"
        " protocol ({source})"
    ),
    "perplexity-out-of-range": (
        "perplexity {value:.5g} is outside {low:.1f} to {high:.1f}, the range of the numbers that"
        " are published for gpt2 and a context of {context} tokens"
    ),
}
CODES = frozenset(_WORDS)
SIMULATED = ("simulated-meter", "simulated-gpu", "modelled-gpu")  # all that these say of a row
