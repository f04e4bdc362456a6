"""The products of quantised weights: their peaks, and whether they ran at all."""

from collections.abc import Callable, Iterator, Sequence

import torch

from bench.asked import QUANTISED, Workload
from bench.device import precision
from bench.model.quantise import quantise_linears
from bench.profile.classes import reads_quantised
from bench.profile.work import Product
from bench.warnings import RowWarning

# torch._int_mm refuses as many rows on CUDA ("self.size(0) needs to be greater than 16"), and
# torchao then multiplies float32 copies of both sides: kernel/intmm.py, safe_int_mm. So it does
# where cuBLAS refuses two row-major sides, as it makes them: on an A100 (pytorch/pytorch#169956).
_TOO_FEW_ROWS = 16


def product(one: Product, precision_name: str, device_type: str) -> Callable[[], torch.Tensor]:
    """A layer's product as a model computes it eagerly, with the rounding of its input."""
    made = {"device": device_type, "dtype": precision.storage(precision_name, device_type)}
    linear = torch.nn.Linear(one.inner, one.columns, **made).requires_grad_(False)
    quantise_linears([linear], precision_name, device_type)
    left = torch.randn(one.rows, one.inner, **made)
    return lambda: linear(left)


def kernels(
    square: Product, precision_name: str, device_type: str
) -> Iterator[Callable[[], torch.Tensor]]:
    """The kernels alone of a product whose two sides are quantised; a compiler may fuse the rest.

    What is only stored in fewer bits multiplies at the rate of what is not quantised.
    """
    shape, device = (square.rows, square.inner), device_type
    if precision_name == "int8-dynamic":
        right = torch.randint(-127, 128, shape, dtype=torch.int8, device=device).t()
        yield lambda: torch._int_mm(right.t(), right)
        if device_type == "cpu":  # with VNNI alone torchao shifts one side to unsigned
            shifted = torch.randint(0, 256, shape, dtype=torch.uint8)
            yield lambda: torch._int_mm(shifted, right)
    elif precision_name == "fp8":
        eights = torch.randn(shape, device=device).to(torch.float8_e4m3fn)
        one = torch.ones((), device=device)
        yield lambda: torch._scaled_mm(
            eights, eights.t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=True
        )


def warning(
    precision_name: str, workload: Workload, device_type: str, products: Sequence[str] | None
) -> RowWarning | None:
    """What weakens a row whose quantised weights were multiplied as a copy of a wider type.

    `products` are the kernels of a trace; None where there is none, which is a warning as well.
    """
    if precision_name not in QUANTISED:
        return None
    rows = workload.batch_size * (1 if workload.new_tokens > 1 else workload.prompt_tokens)
    few = (precision_name, device_type) == ("int8-dynamic", "cuda") and rows <= _TOO_FEW_ROWS
    if few and workload.engine != "compile":
        kernels = f"products of at most {_TOO_FEW_ROWS} rows"
    elif not products:
        return RowWarning("quantised-kernel-unknown", {"precision": precision_name})
    elif reads_quantised(products):
        return None
    else:
        kernels = ", ".join(products[:2])
    return RowWarning("weights-dequantised", {"precision": precision_name, "kernels": kernels})
