"""How a request is run: one forward pass, or a prompt and its greedy continuation.

    eager     each operation is launched from Python as it comes: what most users run
    graph     the same kernels, recorded once as a CUDA graph and replayed in one launch
    compile   torch.compile: fused kernels, still launched one by one

None of them waits for the device within a request, so that a queue of requests can be full.
"""

import inspect
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from bench.device.boards import Capability
from bench.device.gpus import FIRST_BF16_AND_TF32
from bench.errors import Unsupported
from bench.model import attention
from bench.model.caches import NoCache, StaticCache

Forward = Callable[[torch.Tensor], torch.Tensor]
Run = Callable[..., Any]  # of tensors, giving a tensor

# torch/utils/_triton.py, cuda_extra_check; torch._inductor refuses below it.
_FIRST_TRITON: Capability = (7, 0)
# Of the length that its cache tells, these make a mask of ones, for which they wait.
_COUNT_TOKENS = ("opt",)
_CAPTURE_WARMUPS = 3  # the notes on CUDA graphs: cuBLAS and others set up what a capture must not


def check(
    engine: str,
    device_type: str,
    capability: Capability | None = None,
    precision_name: str | None = None,
) -> None:
    """Raise Unsupported where this device or machine cannot run an engine at a precision."""
    if engine == "graph" and device_type != "cuda":
        raise Unsupported("engine graph replays CUDA graphs, which a CPU does not have; use eager")
    if engine == "graph" and precision_name == "int8-dynamic":
        # safe_int_mm asks its input's `repr` whether it is fake, which copies numbers to the host.
        raise Unsupported(
            "engine graph cannot record int8-dynamic: torchao's product waits for the device"
            " (torchao/kernel/intmm.py); use compile"
        )
    if engine != "compile":
        return
    if capability is not None:
        have = "{}.{}".format(*capability)
        if capability < _FIRST_TRITON:
            raise Unsupported(
                "engine compile needs Triton, and so compute capability 7.0; compute capability"
                f" {have} runs eager and graph"
            )
        if precision_name == "bf16" and capability < FIRST_BF16_AND_TF32:
            # torch/_inductor/compile_fx.py, _check_triton_bf16_support: it skips the function, and
            # torch up to 2.12 then runs it eagerly with no more than a warning.
            raise Unsupported(
                f"engine compile has no bf16 before compute capability 8.0: {have} would run eager"
            )
    # What inductor (C++, CPU) and Triton (C, CUDA) look for.
    variable, names = ("CC", ("gcc", "clang")) if device_type == "cuda" else ("CXX", ("g++",))
    if not any(map(shutil.which, (os.environ.get(variable) or "", *names))):
        raise Unsupported(
            f"engine compile needs a compiler: install {names[0]} or name one in {variable}"
        )


def with_cache(model: PreTrainedModel, cache: Any) -> dict[str, Any]:
    """The arguments of a forward that reads and writes this cache and no other."""
    given = inspect.signature(model.forward).parameters
    # Before transformers 5.24 it has the other name.
    return {"cache" if "cache" in given else "past_key_values": cache, "use_cache": False}


def forward(engine: str, model: PreTrainedModel) -> Forward:
    """A function from token ids (batch, tokens) to logits (batch, tokens, vocabulary)."""
    cached = with_cache(model, NoCache())

    def run(ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = model(ids, **cached).logits
        return logits

    return _launcher(engine)(run)


def generation(engine: str, model: PreTrainedModel, new_tokens: int) -> Forward:
    """A function from token ids (batch, tokens) to the greedy continuation (batch, new_tokens).

    The shape of the first ids is that of all. Prefill and decode with a key-value cache of fixed
    size; each new token stays on the device as the next one's input. It never ends early: each
    request does the same work.
    """
    launch = _launcher(engine)
    steps: tuple[Run, Run, Any] | None = None

    def prepare(ids: torch.Tensor) -> tuple[Run, Run, Any]:
        tokens = ids.shape[1]
        cache = StaticCache(tokens + new_tokens)
        cached = with_cache(model, cache)
        told = model.config.model_type in _COUNT_TOKENS

        def likeliest(ids: torch.Tensor, **given: torch.Tensor) -> torch.Tensor:
            """The likeliest next token (batch, 1)."""
            logits: torch.Tensor = model(ids, logits_to_keep=1, **cached, **given).logits
            return logits[:, -1].argmax(-1, keepdim=True)

        # Two functions: torch.compile keeps by function what it compiled, and searches it.
        def prefill(ids: torch.Tensor) -> torch.Tensor:
            cache.position = None
            return likeliest(ids)

        def decode(token: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            cache.position = position
            if not told:
                return likeliest(token)
            mask = attention.new_token_mask(position, cache.length, model.dtype)
            return likeliest(token, attention_mask=mask, position_ids=position[None])

        # Each by itself: inductor copies inputs whose addresses are not aligned as the first's was.
        places = torch.arange(tokens, tokens + new_tokens, device=ids.device)
        positions = [place.clone() for place in places.split(1)]
        # Eagerly once: a cache that gains its buffers later would be compiled for again.
        decode(prefill(ids), positions[0])
        return launch(prefill), launch(decode), positions

    def run(ids: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps = steps or prepare(ids)
        prefill, decode, positions = steps
        found = torch.empty(ids.shape[0], new_tokens, dtype=ids.dtype, device=ids.device)
        # Each token is copied away: a replayed graph gives the next one in the same memory.
        found[:, :1] = token = prefill(ids)
        for index in range(1, new_tokens):
            found[:, index : index + 1] = token = decode(token, positions[index - 1])
        return found

    return run


def _launcher(engine: str) -> Callable[[Run], Run]:
    """What makes a function of tensors run by an engine."""
    if engine == "eager":
        return lambda run: run
    if engine == "graph":
        return _replayed
    # Dynamo counts the compilations of a function over all workloads of a process and gives
    # up after eight. What was compiled before is compiled again if it is run again.
    torch.compiler.reset()
    # Whole, or an error: a graph break would be a mixture that no one asked for.
    return lambda run: torch.compile(run, fullgraph=True, dynamic=False)


def _replayed(run: Run) -> Run:
    """Records a function of tensors at its first call and replays it from then on.

    The shapes of the first call are those of every call, and the result of a call lies in memory
    that the next call writes again. After pytorch.org/docs/stable/notes/cuda.html, "CUDA Graphs".
    """
    recorded: tuple[Any, list[torch.Tensor], torch.Tensor] | None = None

    def replay(*given: torch.Tensor) -> torch.Tensor:
        nonlocal recorded
        recorded = recorded or _capture(run, [tensor.clone() for tensor in given])
        graph, inputs, output = recorded
        for mine, other in zip(inputs, given, strict=True):
            mine.copy_(other)
        graph.replay()
        return output

    return replay


def _capture(run: Run, inputs: list[torch.Tensor]) -> tuple[Any, list[torch.Tensor], torch.Tensor]:
    """A CUDA graph, with the inputs that it reads and the output that it writes."""
    # A cast that autocast had cached outside would not be in the graph.
    casts = torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with casts:
        with torch.cuda.stream(side):
            for _ in range(_CAPTURE_WARMUPS):
                run(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # On its own stream: torch keeps a workspace of cuBLAS for each, and the end of a graph
        # frees that of every graph that was captured on the same (pytorch#193402).
        with torch.cuda.graph(graph, stream=side):
            return graph, inputs, run(*inputs)
