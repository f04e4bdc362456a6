"""A dense decoder: from the hub or a folder, with random weights, or the embedded tiny GPT-2.

Only safetensors are read, and no code that comes with a model is run: a model from a stranger can
be wrong, but it cannot do anything.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from bench import decoders, shelf
from bench.asked import RANDOM
from bench.device import precision
from bench.errors import TensorgapError, Unsupported
from bench.files import limits
from bench.lookup import understood
from bench.measured import Weights
from bench.model import quantise, weights
from bench.model.folders import GPT2_RANDOM, WEIGHTS, Files, files_of, key_of, refused, source_of
from bench.outcomes import is_out_of_memory

_LONGEST_REASON = 300  # letters: transformers explains at length


@dataclass(frozen=True)
class Model:
    """A model on its device at its precision; `tokenizer` is None for random weights."""

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    weights: Weights
    shape: decoders.Shape

    @property
    def positions(self) -> int:
        """The longest request, in tokens."""
        return self.shape.longest

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows."""
        return self.shape.vocabulary

    @property
    def bos(self) -> int:
        """The token before the first one of a text: BOS, or of a tokenizer without it EOS."""
        return self.prefix[1]

    @property
    def prefix(self) -> tuple[str, int]:
        """Whether that is `bos` or `eos`, and its id; chosen as in lm-eval (HFLM.prefix_token_id).

        Raises TensorgapError where there is none, or the model does not know it.
        """
        given = [(one, getattr(self.tokenizer, f"{one}_token_id", None)) for one in ("bos", "eos")]
        given.append(("bos", self.module.config.bos_token_id))
        kind, found = next((one for one in given if one[1] is not None), ("", None))
        if found is None:
            raise TensorgapError(
                "the model has no token to stand before a text: its tokenizer names neither a BOS"
                " nor an EOS, and config.json no bos_token_id"
            )
        if found not in range(self.vocabulary):
            raise TensorgapError(
                f"the token before a text has the id {found}, and the model's vocabulary has"
                f" {self.vocabulary} tokens: the tokenizer does not belong to the model"
            )
        return kind, int(found)


def load_model(name: str, precision_name: str, device_type: str) -> Model:
    """Load a model onto a device (`cuda` or `cpu`) at a precision.

    Its name is `tiny`, a folder with config.json and safetensors, or that of a model of the hub or
    its cache, such as `gpt2`. NAME:random is its architecture with random weights, which needs
    config.json alone, and nothing of `gpt2:random`. Raises TensorgapError where it may not be
    loaded, or the hub cannot be reached, and Unsupported where it is not understood; the text says
    what to do.
    """
    dtype = precision.storage(precision_name, device_type)
    source = source_of(name)
    is_random = name.endswith(RANDOM)
    key = key_of(source) + (RANDOM if is_random else "")
    with _loading(name):
        files = None if name == GPT2_RANDOM else files_of(name, source)
        if files and device_type == "cpu":
            check_room(name, files, dtype)
        held = weights.kept(key) or weights.put(key, _held(name, files))
        # Of what transformers builds, with what stands for a key that is left out.
        shape = understood(name, held.config.to_dict())
        tokenizer = None if is_random else _tokenizer(name, source, held.config)
    # A head of its own that the configuration ties to the embedding is seen by this, too.
    parameters = sum(tensor.numel() for tensor in held.tensors.values())
    if parameters != shape.parameters:
        raise Unsupported(
            f"model {name}: it has {parameters:,} parameters, and {shape.parameters:,} by what its"
            " configuration says: it is not understood"
        )
    module = weights.placed(held, device_type, dtype)
    described = Weights(
        parameters=parameters,
        **quantise.stored(module, precision_name, device_type),
        sha256=held.sha256,
        attention="sdpa",
        published_as=held.published_as,
    )
    return Model(module, tokenizer, described, shape)


def check_room(name: str, files: Files, dtype: torch.dtype) -> None:
    """Raise MemoryError where a CPU's memory cannot hold the weights, before it is filled.

    Beside other processes even less is free; theirs would be ended, too.
    """
    # Random weights are in memory twice, and of two bytes at least; those of files may be mapped.
    each = dtype.itemsize + (0 if files.weights else 2)
    needed, held = each * files.shape.parameters, shelf.memory_bytes()
    if needed > held:
        kind, has = str(dtype).removeprefix("torch."), limits.shown(held)
        told = f"needs at least {limits.shown(needed)} to be loaded as {kind}"
        raise MemoryError(f"model {name}: {told}, and this machine has {has}")


def _held(name: str, files: Files | None) -> weights.Held:
    config = weights.config_of(files.folder if files else None)
    if files is None or not files.weights:
        return weights.at_random(config)
    return weights.read(name, files, config)


def _tokenizer(name: str, source: Path | str, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to the weights of a folder, which was checked, or the hub."""
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    # A wrong value in its configuration shows only when it is used.
    tokenizer("a", add_special_tokens=False, verbose=False)
    if not tokenizer.vocab_size:  # transformers makes one without words
        raise refused(name, "it has no tokenizer; save tokenizer.json with it")
    bos, tokens = config.bos_token_id, config.vocab_size
    if bos is not None and bos not in range(tokens):
        raise refused(name, f"config.json: bos_token_id = {bos} is none of the {tokens} tokens")
    return tokenizer


@contextlib.contextmanager
def _loading(name: str) -> Iterator[None]:
    """No output of transformers, and one message for what ends it, but for a lack of memory."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except (TensorgapError, Unsupported):
        raise
    # transformers raises whatever a wrong value in a file leads to, from KeyError to ImportError.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        words = " ".join(str(error).split())[:_LONGEST_REASON]
        raise refused(
            name,
            f"cannot be loaded: {type(error).__name__}: {words} (give a folder with config.json,"
            f" {WEIGHTS} and the tokenizer's files; or the name of a decoder of the hub, with the"
            f" hub or its cache within reach; or {GPT2_RANDOM}, which needs neither)",
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
