"""What runs the attention: torch's own choice, or the one that a workload asks for.

    auto        torch chooses, by GPU, precision, mask and cuDNN
    flash       FlashAttention: fp16 and bf16 from compute capability 8.0 on, no mask; and a CPU's
    efficient   the memory-efficient kernel: each precision, with a mask as well
    cudnn       cuDNN's: fp16 and bf16 from compute capability 8.0 on
    math        two products with a softmax between them, anywhere

On an H100 with cuDNN 9.15 torch runs cuDNN's in fp16 and the memory-efficient one in fp32, so that
two precisions differ in their attention as well, unless both ask for the same.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

from bench.asked import AUTO
from bench.errors import Unsupported
from bench.warnings import RowWarning

# torch.nn.attention.SDPBackend, and what torch calls it where it says why it does not run.
_BACKENDS = {
    "flash": ("FLASH_ATTENTION", "Flash attention kernel not used"),
    "efficient": ("EFFICIENT_ATTENTION", "Memory efficient kernel not used"),
    "cudnn": ("CUDNN_ATTENTION", "cuDNN attention kernel not used"),
    "math": ("MATH", ""),
}
# What torch says where it may run no other: on CUDA, on a CPU, and within cuDNN.
_NONE = ("No available kernel", "No viable backend", "No valid execution plans", "No valid engine")
_NO_CACHE = {"enable_autograd_cache": False}


@contextlib.contextmanager
def applied(name: str) -> Iterator[None]:
    """Everything inside runs this attention and no other; `auto` leaves torch its choice."""
    from torch._functorch import config
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with contextlib.ExitStack() as stack:
        # Its cache knows what is compiled by what that was before an attention was chosen: one that
        # was compiled with another, ever on this disk, would run (seen in torch 2.11).
        stack.enter_context(config.patch(_NO_CACHE))
        if name != AUTO:
            stack.enter_context(sdpa_kernel(getattr(SDPBackend, _BACKENDS[name][0])))
        yield


def check(name: str, device_type: str, run: Callable[[], object]) -> None:
    """Raise Unsupported where a request cannot run this attention, found out by running it.

    Args:
        name: one of `bench.asked.ATTENTIONS`, which the caller has `applied`.
        device_type: `cuda` or `cpu`.
        run: one request, to its end.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            run()
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            if not any(sign in first for sign in _NONE):
                raise
            why = _why(name, [str(warning.message) for warning in told]) or first
            where = "a CPU" if device_type == "cpu" else "this GPU at this precision and length"
            raise Unsupported(f"attention {name} does not run on {where}: {why}") from error


def warning(asked: str, ran: str | None) -> RowWarning | None:
    """What weakens a row in which another attention ran than was asked for.

    >>> warning("math", "math"), warning("auto", "flash"), warning("flash", None)
    (None, None, None)
    >>> warning("math", "flash").text
    'attention math was asked for, but flash ran'
    """
    if asked == AUTO or ran in (asked, None):
        return None
    return RowWarning("attention-differs", {"asked": asked, "ran": ran})


def _why(name: str, told: list[str]) -> str:
    """What torch says of this attention; it says of each other one that it is switched off."""
    heading = _BACKENDS[name][1]
    texts = [text.split(" (Triggered internally", 1)[0].strip() for text in told]
    reasons = []
    about = False
    for text in texts:
        if "not used because" in text:
            about = bool(heading) and text.startswith(heading)
        elif about:
            reasons.append(text.rstrip("."))
    return "; ".join(dict.fromkeys(reasons))
