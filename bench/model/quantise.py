"""Weights in fewer bits, through torchao: which of a model, and what they then take.

    precision      stored                     multiplied
    int8           int8, a scale per column   bf16: by a kernel that reads int8, or as a bf16 copy
    int8-dynamic   int8, a scale per column   int8 by int8: each row of the input is rounded as well
    int4           4 bits, in groups of 128   bf16 by int4, in one kernel
    fp8            e4m3, one scale            e4m3 by e4m3: the input is rounded as well

These are torchao's own choices. Quantised is what multiplies in the layers; embeddings, norms,
biases and the head stay as `precision.storage` says, a head that is the embedding and one that is
not. Which kernel ran tells a trace: torchao chooses by engine, rows and instruction set.
"""

import warnings
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers.pytorch_utils import Conv1D

from bench.asked import QUANTISED
from bench.device import precision, software, support
from bench.errors import Unsupported

STORED = {"int8": "int8", "int8-dynamic": "int8", "int4": "int4", "fp8": "float8_e4m3fn"}
_MULTIPLIED = {"tf32": "tf32", "int8-dynamic": "int8", "fp8": "float8_e4m3fn"}
_GROUPS = (128, 64, 32)  # torchao's own choice first; the others its CPU kernel has as well


def stored(module: Any, precision_name: str, device_type: str) -> dict[str, Any]:
    """Quantise a loaded model in place where the precision says so; fields of its Weights.

    Raises Unsupported as `quantise` does.
    """
    rest = str(precision.storage(precision_name, device_type)).removeprefix("torch.")
    operands = str(precision.arithmetic(precision_name, device_type)).removeprefix("torch.")
    quantised = precision_name in QUANTISED
    return {
        "quantised_parameters": (
            quantise(module, precision_name, device_type) if quantised else None
        ),
        "quantised_by": f"torchao {software.installed('torchao')}" if quantised else None,
        "size_bytes": size_bytes(module),
        "dtype": f"{STORED[precision_name]} + {rest}" if quantised else rest,
        "arithmetic": _MULTIPLIED.get(precision_name, operands),
    }


def quantise(module: Any, precision_name: str, device_type: str) -> int:
    """Quantise the matrices of a loaded model's layers in place; how many weights they have.

    Raises Unsupported, with the reason, where torchao is absent or cannot quantise one of them.
    """
    as_linear(module)
    head = module.get_output_embeddings()
    layers = [one for one in module.modules() if isinstance(one, torch.nn.Linear)]
    chosen = [one for one in layers if one is not head]
    quantise_linears(chosen, precision_name, device_type)
    return sum(linear.weight.numel() for linear in chosen)


def as_linear(module: torch.nn.Module) -> None:
    """Replace each Conv1D of transformers, which torchao does not know, by the equal Linear."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv1D):
                inner, columns = child.weight.shape
                with torch.device("meta"):
                    linear = torch.nn.Linear(inner, columns)
                weight = child.weight.detach().T.contiguous()
                linear.weight = torch.nn.Parameter(weight, requires_grad=False)
                linear.bias = child.bias
                child.weight = None  # else all of them would be held twice at once
                setattr(parent, name, linear)


def quantise_linears(
    linears: Collection[torch.nn.Linear], precision_name: str, device_type: str
) -> None:
    """Quantise the weights of some Linears in place; errors as of `quantise`."""
    support.check_installed(precision_name)
    from torchao.quantization import quantize_

    group = next((g for g in _GROUPS if all(not one.in_features % g for one in linears)), None)
    if group is None and precision_name == "int4":
        raise Unsupported(f"int4 takes groups of {_GROUPS[-1]} weights, and a matrix has no such")
    # Its tensors lack a key for the cache of what was compiled, which torch tells at each matrix.
    warnings.filterwarnings("ignore", message=".*_stable_hash_for_caching", category=UserWarning)
    version = f"torchao {software.installed('torchao')}"
    try:
        how = config(precision_name, device_type, group)
        for linear in linears:
            quantize_(linear, how)
    except (AssertionError, ImportError, NotImplementedError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Unsupported(f"{version} cannot quantise to {precision_name}: {first}") from error
    # Where a size does not suit its kernel, it leaves the weight as it is and only logs it.
    for linear in linears:
        if not is_traceable_wrapper_subclass(linear.weight):
            sizes = f"{linear.in_features} x {linear.out_features}"
            raise Unsupported(f"{version} has no {precision_name} kernel for a matrix of {sizes}")


def config(precision_name: str, device_type: str, group: int | None) -> Any:
    """How torchao is to quantise: by its defaults, with the formats whose kernels torch has."""
    from torchao import quantization
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    from torchao.utils import should_reduce_range

    if precision_name == "int8":
        return quantization.Int8WeightOnlyConfig()
    if precision_name == "int8-dynamic":
        # Without VNNI sums of 16 bits would overflow: 7 bits then.
        narrow = should_reduce_range(torch.device(device_type))
        return quantization.Int8DynamicActivationInt8WeightConfig(reduce_range=narrow)
    if precision_name == "fp8":
        return quantization.Float8DynamicActivationFloat8WeightConfig()
    if device_type == "cpu":
        return PrototypeInt4WeightOnlyConfig(group_size=group)
    # The default, `plain`, multiplies by another package (mslk).
    return quantization.Int4WeightOnlyConfig(
        group_size=group, int4_packing_format="tile_packed_to_4d"
    )


def parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors that a tensor is stored in: itself, or packed weights and their scales."""
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from parts(getattr(tensor, name))


def size_bytes(module: torch.nn.Module) -> int:
    """Bytes of all parameters and buffers as they are stored, a tied one counted once."""
    held = [*module.parameters(), *module.buffers()]
    return sum(part.nbytes for tensor in held for part in parts(tensor))
