"""What runs the attention: torch's own choice, or the one that a workload asks for.

    auto        torch chooses, by GPU, precision, mask and cuDNN
    flash       FlashAttention: fp16 and bf16 from compute capability 8.0 on, no mask; and a CPU's
    efficient   the memory-efficient kernel: each precision, with a mask as well
    cudnn       cuDNN's: fp16 and bf16 from compute capability 8.0 on
    math        two products with a softmax between them, anywhere

On an H100 with cuDNN 9.15 torch runs cuDNN's in fp16 and the memory-efficient one in fp32, so that
two precisions differ in their attention as well, unless both ask for the same.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._functorch import config
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from bench.asked import AUTO
from bench.errors import Unsupported
from bench.warnings import RowWarning

# The name, for transformers, of torch's fused attention without a mask where a plain causal one
# would do. transformers drops that mask as well, but in many releases not while a CUDA graph is
# captured or torch.compile traces: those engines would run another kernel than eager does.
FUSED = "tensorgap_fused"
_BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
# How torch begins its reasons why one does not run; math runs anywhere.
_HEADINGS = {
    "flash": "Flash attention",
    "efficient": "Memory efficient",
    "cudnn": "cuDNN attention",
}
# What torch says where it may run no other: on CUDA, on a CPU, and within cuDNN.
_NONE = ("No available kernel", "No viable backend", "No valid execution plans", "No valid engine")


@contextlib.contextmanager
def applied(name: str) -> Iterator[None]:
    """Everything inside runs this attention and no other; `auto` leaves torch its choice."""
    kernel = contextlib.nullcontext() if name == AUTO else sdpa_kernel(_BACKENDS[name])
    # Its cache knows what is compiled by what that was before an attention was chosen: one that
    # was compiled with another, ever on this disk, would run (seen in torch 2.11).
    with config.patch({"enable_autograd_cache": False}), kernel:
        yield


def check(name: str, device_type: str, run: Callable[[], object]) -> None:
    """Raise Unsupported where `run`, one request to its end, cannot run the attention `applied`."""
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


def _why(name: str, told: list[str]) -> str:
    """What torch says of this attention; it says of each other one that it is switched off."""
    heading, about = _HEADINGS.get(name, ""), None
    reasons = []
    for text in told:
        if "not used because" in text:
            about = text.partition(" kernel")[0]
        elif about == heading:
            reasons.append(text.partition(" (Triggered internally")[0].strip().rstrip("."))
    return "; ".join(dict.fromkeys(reasons))


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


def causal_mask(**given: Any) -> Any:
    """The mask of transformers; None where each token attends to itself and to all before it.

    That of a cache of fixed size is one to add, made once: of a boolean one, each layer makes such
    a mask for itself, and another where a row's length is no multiple of 8 (aligned loads).
    """
    # Older releases give the positions themselves.
    queries = given["q_length"] if "q_length" in given else len(given["cache_position"])
    if given["attention_mask"] is None and queries == given["kv_length"]:
        return None
    attended = sdpa_mask(**given)
    if given["attention_mask"] is not None or attended is None:
        return attended
    return added(attended, given["dtype"])


def new_token_mask(position: torch.Tensor, length: int, dtype: torch.dtype) -> torch.Tensor:
    """That of one token at `position` (1,) and of a cache of fixed size, (1, 1, 1, length)."""
    held = torch.arange(length, device=position.device) <= position
    return added(held[None, None, None], dtype)


def added(attended: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask to add that a boolean one stands for, in aligned rows."""
    device_type, length = attended.device.type, attended.shape[-1]
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
    aligned = (*attended.shape[:-1], -(-length // 8) * 8)
    added = torch.full(aligned, float("-inf"), dtype=dtype, device=attended.device)[..., :length]
    return added.masked_fill_(attended, 0)


AttentionInterface.register(FUSED, sdpa_attention_forward)
AttentionMaskInterface.register(FUSED, causal_mask)
