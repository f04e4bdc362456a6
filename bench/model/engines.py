"""How a request is run: one forward pass, or a prompt and its greedy continuation.

    eager     each operation is launched from Python as it comes: what most users run
    graph     the same kernels, recorded once as a CUDA graph and replayed in one launch
    compile   torch.compile: fused kernels, still launched one by one

None of them waits for the device within a request, so that a queue of requests can be full.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.device.gpus import FIRST_BF16_AND_TF32, Capability
from bench.errors import Unsupported
from bench.files import private

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel
    from transformers.cache_utils import Cache

Forward = Callable[["torch.Tensor"], "torch.Tensor"]
Run = Callable[..., Any]  # of tensors, giving a tensor

# torch/utils/_triton.py, cuda_extra_check; torch._inductor refuses below it.
FIRST_TRITON: Capability = (7, 0)
_CAPTURE_WARMUPS = 3  # the notes on CUDA graphs: cuBLAS and others set up what a capture must not


def check(
    engine: str,
    device_type: str,
    capability: Capability | None = None,
    precision_name: str | None = None,
) -> None:
    """Raise Unsupported where this device or this machine cannot run an engine.

    Args:
        engine: one of `bench.asked.ENGINES`.
        device_type: `cuda` or `cpu`.
        capability: compute capability of the GPU.
        precision_name: at which the engine is to run.
    """
    if engine == "graph" and device_type != "cuda":
        raise Unsupported("engine graph replays CUDA graphs, which a CPU has not; use eager")
    if engine != "compile":
        return
    if capability is not None and capability < FIRST_TRITON:
        have = f"compute capability {capability[0]}.{capability[1]}"
        raise Unsupported(
            f"engine compile needs Triton, and so compute capability 7.0; {have} runs eager and"
            " graph"
        )
    if precision_name == "bf16" and capability is not None and capability < FIRST_BF16_AND_TF32:
        # torch/_inductor/compile_fx.py, _check_triton_bf16_support: it skips the function, and
        # torch up to 2.12 then runs it eagerly with no more than a warning.
        raise Unsupported(
            "engine compile has no bf16 before compute capability 8.0:"
            f" {capability[0]}.{capability[1]} would run eager"
        )
    # What inductor (C++, CPU) and Triton (C, CUDA) look for.
    variable, names = ("CC", ("gcc", "clang")) if device_type == "cuda" else ("CXX", ("g++",))
    if not any(map(shutil.which, (os.environ.get(variable) or "", *names))):
        raise Unsupported(
            f"engine compile needs a compiler: install {names[0]} or name one in {variable}"
        )


def keep_compiled() -> None:
    """Say where torch keeps what it compiles, and runs when it finds it there.

    Its own place, torchinductor_USER of the temporary folder, is one that others can make first;
    the import of transformers' GPT-2 makes it. Raises OSError where there is no room.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private.folder() / "inductor")


def forward(engine: str, model: GPT2LMHeadModel) -> Forward:
    """A function from token ids (batch, tokens) to logits (batch, tokens, vocabulary)."""
    nothing = _no_cache()

    def run(ids: torch.Tensor) -> torch.Tensor:
        # By position: the cache is called past_key_values before transformers 5.24.
        logits: torch.Tensor = model(ids, nothing, use_cache=False).logits
        return logits

    return _launcher(engine)(run)


def generation(engine: str, model: GPT2LMHeadModel, new_tokens: int) -> Forward:
    """A function from token ids (batch, tokens) to the greedy continuation (batch, new_tokens).

    The shape of the first ids is that of all.
    Prefill and decode with a key-value cache of fixed size; each new token stays on the device as
    the next one's input. It never ends early: each request does the same work.
    """
    import torch

    launch = _launcher(engine)
    steps: tuple[Run, Run, Any] | None = None

    def prepare(ids: torch.Tensor) -> tuple[Run, Run, Any]:
        tokens = ids.shape[1]
        cache: Any = _static_cache(tokens + new_tokens)

        def prefill(ids: torch.Tensor) -> torch.Tensor:
            cache.position = None
            return _greedy(model, ids, cache)

        def decode(token: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            cache.position = position
            return _greedy(model, token, cache)

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


def _greedy(model: GPT2LMHeadModel, ids: torch.Tensor, cache: Cache) -> torch.Tensor:
    """The likeliest next token (batch, 1)."""
    logits: torch.Tensor = model(ids, cache, use_cache=False, logits_to_keep=1).logits
    return logits[:, -1].argmax(-1, keepdim=True)


def _launcher(engine: str) -> Callable[[Run], Run]:
    if engine == "compile":
        import torch

        # Dynamo counts the compilations of a function over all workloads of a process and gives
        # up after eight. What was compiled before is compiled again if it is run again.
        torch.compiler.reset()
    launchers: dict[str, Callable[[Run], Run]]
    launchers = {"eager": lambda run: run, "graph": _Replay, "compile": _compiled}
    return launchers[engine]


def _compiled(run: Run) -> Run:
    import torch

    # Whole, or an error: a graph break would be a mixture that nobody asked for.
    compiled: Run = torch.compile(run, fullgraph=True, dynamic=False)
    return compiled


class _Replay:
    """Records a function of tensors at its first call and replays it from then on.

    The shapes of the first call are those of every call, and the result of a call lies in memory
    that the next call writes again. After pytorch.org/docs/stable/notes/cuda.html, "CUDA Graphs".
    """

    def __init__(self, run: Callable[..., torch.Tensor]) -> None:
        self._run = run
        self._graph: Any = None

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        if self._graph is None:
            self._capture(inputs)
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._output

    def _capture(self, inputs: tuple[torch.Tensor, ...]) -> None:
        import torch

        self._inputs = tuple(tensor.clone() for tensor in inputs)
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
                    self._run(*self._inputs)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # On its own stream: torch keeps a workspace of cuBLAS for each, and the end of a graph
            # frees that of every graph that was captured on the same (pytorch#193402).
            with torch.cuda.graph(graph, stream=side):
                self._output = self._run(*self._inputs)
        self._graph = graph


def _no_cache() -> Cache:
    from transformers.cache_utils import Cache

    class NoCache(Cache):  # type: ignore[misc]  # transformers is not typed for us
        """Keeps nothing and says so.

        With use_cache alone, either each forward copies its keys and values (true), or it waits for
        the device to tell whether positions are packed (false; masking_utils.py of transformers 5),
        so that no queue could ever be full.
        """

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return key_states, value_states

        def get_seq_length(self, *_: Any, **__: Any) -> int:
            return 0

        def get_mask_sizes(self, query_length: Any, *_: Any, **__: Any) -> tuple[int, int]:
            # Older releases give the positions themselves.
            return query_length if isinstance(query_length, int) else len(query_length), 0

    return NoCache(layers=[])


def _static_cache(length: int) -> Cache:
    """A cache of a fixed length whose `position` is None for a prompt, else a new token's (1,)."""
    from transformers.cache_utils import Cache

    class StaticCache(Cache):  # type: ignore[misc]  # transformers is not typed for us
        """As transformers' own, but a prompt always begins it anew, without asking the device.

        transformers' own reads its length back from the device at each prompt after the first, and
        while a graph is captured it builds a mask in place of the causal attention kernel.
        """

        is_compileable = True  # so that a mask hides what no token was written to yet
        position: torch.Tensor | None = None

        def __init__(self) -> None:
            super().__init__(layers=[])
            self.buffers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def update(
            self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            if layer not in self.buffers:
                # Zeros: what is masked is multiplied by 0, and a NaN would stay one.
                shape = (*keys.shape[:2], length, keys.shape[3])
                self.buffers[layer] = keys.new_zeros(shape), values.new_zeros(shape)
            mine = self.buffers[layer]
            if self.position is None:
                for buffer, given in zip(mine, (keys, values), strict=True):
                    buffer[:, :, : keys.shape[2]] = given
                return keys, values
            for buffer, given in zip(mine, (keys, values), strict=True):
                buffer.index_copy_(2, self.position, given)
            return mine

        def get_seq_length(self, *_: Any, **__: Any) -> Any:
            return 0 if self.position is None else self.position

        def get_mask_sizes(self, query_length: Any, *_: Any, **__: Any) -> tuple[int, int]:
            return query_length if self.position is None else length, 0

    return StaticCache()
