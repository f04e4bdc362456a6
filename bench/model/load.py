"""GPT-2 in its forms: from the hub or a folder, with random weights, and the embedded tiny one.

Only safetensors are read, and no code that comes with a model is run: a model from a stranger can
be wrong, but it cannot do anything.
"""

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase
from transformers.utils import cached_file, logging

from bench import shelf
from bench.device import precision
from bench.errors import TensorgapError
from bench.files import limits
from bench.measured import UNRECOGNISED, Weights
from bench.model import attention
from bench.outcomes import is_out_of_memory
from bench.text import published
from bench.text.embedded import corpus

TINY = "tiny"
RANDOM = "gpt2:random"
TINY_FOLDER = Path(__file__).parents[1] / "text" / "embedded" / "tiny"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_SEED = 0
_RANDOM_NUMBERS = 1_000_003  # a prime, so that no two rows of a matrix are alike
_OLD_BUFFERS = (".attn.bias", ".attn.masked_bias")  # masks that older transformers saved
_LARGEST_NUMBER = 1_000_000  # of config.json
_MOST_LABELS = 10_000  # for each of which transformers makes a name, again and again
_LARGEST_FILE_BYTES = 50 * 10**6  # GPT-2's tokenizer.json has 1.4 MB, one of 256,000 words 34 MB
_LARGEST_HEADER_BYTES = 10 * 10**6  # GPT-2 XL's has 60 KB
_READ_WHOLE = (".json", ".txt", ".jinja", ".model")
_DTYPES = {torch.float32: "F32", torch.bool: "BOOL"}  # as safetensors writes them
_LETTERS_PER_TOKEN = 8  # of the embedded text, and more
_LONGEST_REASON = 300  # letters: transformers explains at length


@dataclass(frozen=True)
class Model:
    """A model on its device at its precision; `tokenizer` is None for random weights."""

    module: GPT2LMHeadModel
    tokenizer: PreTrainedTokenizerBase | None
    weights: Weights

    @property
    def positions(self) -> int:
        """The longest input, in tokens."""
        config: Any = self.module.config
        return int(getattr(config, "n_positions", None) or config.max_position_embeddings)

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows."""
        return int(self.module.config.vocab_size)

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


@dataclass(frozen=True)
class _Found:
    """Weights in the host's memory, as float32, and what is known of them."""

    config: GPT2Config
    tensors: Mapping[str, torch.Tensor]
    sha256: str | None = None
    published_as: str | None = None


def load_model(name: str, precision_name: str, device_type: str) -> Model:
    """Load a model onto a device (`cuda` or `cpu`) at a precision.

    Its name is `tiny`, `gpt2:random`, a folder with config.json and model.safetensors, or that of a
    GPT-2 of the hub or its cache, such as `gpt2`. Raises TensorgapError where it is not a GPT-2 in
    safetensors, or the hub cannot be reached; the text says what to do.
    """
    dtype = precision.storage(precision_name)
    source = source_of(name)
    if isinstance(source, Path):
        _check_folder(source)
    key = key_of(source)
    found = _kept(key) or _put(key, _random() if name == RANDOM else _pretrained(name, source))
    tokenizer = None if name == RANDOM else _tokenizer(name, source, found.config)
    module = _placed(found, device_type, dtype)
    described = Weights(
        parameters=module.num_parameters(),
        size_bytes=module.get_memory_footprint(),
        dtype=str(dtype).removeprefix("torch."),
        sha256=found.sha256,
        attention="sdpa",
        published_as=found.published_as,
    )
    return Model(module, tokenizer, described)


def _placed(found: _Found, device_type: str, dtype: torch.dtype) -> GPT2LMHeadModel:
    """The model in memory of its own on the device, wherever its weights come from."""
    with torch.device("meta"):
        module = GPT2LMHeadModel(found.config)
    module = module.to(dtype).to_empty(device=device_type)
    module.tie_weights()
    # With one, each eager forward asks the device whether a prompt is padded; ours never is.
    module.config.pad_token_id = None
    for name, tensor in _tensors(module).items():
        tensor.copy_(found.tensors[name])
    return module.eval().requires_grad_(False)


# ------------------------------------------------------------------------------- where it is from


def source_of(name: str) -> Path | str:
    """The folder of a model, or the name by which the hub knows it, or which is RANDOM."""
    if name == RANDOM:
        return name
    folder = TINY_FOLDER if name == TINY else Path(os.path.expanduser(name))
    if not os.path.isdir(folder):
        if name.startswith((".", "/", "~")):
            raise _refused(name, "there is no such folder")
        return name
    return folder


def key_of(source: Path | str) -> str:
    """What identifies a model on the shelf of a node: of a folder also the state of its files."""
    if isinstance(source, str):
        return source
    states = [os.stat(source / name) for name in (_WEIGHTS, _CONFIG)]
    told = [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in states]
    return f"{source.resolve()} {told}"


def _kept(key: str) -> _Found | None:
    """The weights that another process of this node has loaded before."""
    path = shelf.find(key)
    if path is None:
        return None
    with safe_open(path, "pt") as file:
        facts, names = json.loads(file.metadata()["facts"]), file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    config = GPT2Config.from_dict(facts.pop("config"), attn_implementation=attention.FUSED)
    return _Found(config, tensors, **facts)


def _put(key: str, found: _Found) -> _Found:
    """Keep the weights for the next processes of this node, as safetensors would write them."""
    facts = {
        "config": found.config.to_dict(),
        "sha256": found.sha256,
        "published_as": found.published_as,
    }
    header: dict[str, Any] = {"__metadata__": {"facts": json.dumps(facts)}}
    end = 0
    for name, tensor in found.tensors.items():
        start, end = end, end + tensor.nbytes
        offsets = [start, end]
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    contents = (memoryview(t.contiguous().numpy()).cast("B") for t in found.tensors.values())
    head = len(written).to_bytes(8, "little") + written
    shelf.put(key, len(head) + end, itertools.chain([head], contents))
    return found


def _random() -> _Found:
    """The 124M architecture with seeded random weights: the same time, no knowledge.

    They are distributed as transformers initialises them. What repeats after a million takes 0.1 s,
    where transformers takes 1.5 s.
    """
    config = GPT2Config(attn_implementation=attention.FUSED)
    with torch.device("meta"):
        shapes = _tensors(GPT2LMHeadModel(config))
    seeded = torch.Generator().manual_seed(_SEED)
    block = torch.empty(_RANDOM_NUMBERS).normal_(std=config.initializer_range, generator=seeded)
    tensors = {}
    for name, like in shapes.items():
        if not name.endswith("weight"):
            tensors[name] = torch.zeros(like.shape)
        elif "ln_" in name:
            tensors[name] = torch.ones(like.shape)
        else:
            times = -(-like.numel() // len(block))
            tensors[name] = block.repeat(times)[: like.numel()].reshape(like.shape)
    return _Found(config, tensors)


def _tensors(module: GPT2LMHeadModel) -> dict[str, torch.Tensor]:
    """What a model consists of; what is changed here is changed in it."""
    named = itertools.chain(module.named_parameters(), module.named_buffers())
    return {name: tensor.detach() for name, tensor in named}


def _pretrained(name: str, source: Path | str) -> _Found:
    """The weights of a folder, which was checked, or the hub."""
    with _loading(name):
        if isinstance(source, Path):
            weights = source / _WEIGHTS
        else:
            weights = Path(str(cached_file(name, _WEIGHTS)))
        _check_weights(name, weights, GPT2Config.from_pretrained(source))
        module, loading = GPT2LMHeadModel.from_pretrained(
            source,
            use_safetensors=True,
            trust_remote_code=False,
            dtype="float32",
            # Named, so that a config.json cannot have kernels of its own fetched.
            attn_implementation=attention.FUSED,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    # transformers would fill the gaps with random weights.
    mismatched = {key for key, *_shapes in loading["mismatched_keys"]}
    extra = {key for key in loading["unexpected_keys"] if not key.endswith(_OLD_BUFFERS)}
    if wrong := sorted({*loading["missing_keys"], *mismatched, *extra}):
        raise _unlike(name, f"they differ in {len(wrong)} weights, such as {wrong[0]}")
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    known_as = published.WEIGHTS.get(sha256, UNRECOGNISED)
    return _Found(module.config, _tensors(module), sha256, known_as)


def _tokenizer(name: str, source: Path | str, config: GPT2Config) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to the weights of a folder, which was checked, or the hub."""
    with _loading(name):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        # A wrong value in its configuration shows only when it is used.
        tokenizer("a", add_special_tokens=False, verbose=False)
    if not tokenizer.vocab_size:  # transformers makes one without words
        raise _refused(name, "it has no tokenizer; save tokenizer.json with it")
    bos, tokens = config.bos_token_id, config.vocab_size
    if bos not in range(tokens):
        raise _refused(name, f"config.json: bos_token_id = {bos} is none of the {tokens} tokens")
    return tokenizer


@contextlib.contextmanager
def _loading(name: str) -> Iterator[None]:
    """No output of transformers, and one message for what ends it, but for a lack of memory."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except TensorgapError:
        raise
    # transformers raises whatever a wrong value in a file leads to, from KeyError to ImportError.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        words = " ".join(str(error).split())[:_LONGEST_REASON]
        raise _refused(
            name,
            f"cannot be loaded: {type(error).__name__}: {words} (give a folder with config.json,"
            f" {_WEIGHTS} and the tokenizer's files; or the name of a GPT-2 of the hub, with the"
            f" hub or its cache within reach; or {RANDOM}, which needs neither)",
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


# ------------------------------------------------------------------------------- strangers' files


def _check_folder(folder: Path) -> None:
    """Refuse what could run code or is no GPT-2, before transformers opens it."""
    check = limits.small(f"model {folder}: config.json")
    try:
        config = json.loads(limits.read_file(folder / _CONFIG, check).decode("utf-8"))
    except FileNotFoundError:
        raise _refused(folder, "it has no config.json") from None
    except (OSError, ValueError, RecursionError) as error:
        told = getattr(error, "strerror", None) or error
        raise _refused(folder, f"config.json cannot be read: {told}") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "gpt2":
        raise _refused(folder, f'model_type is "{kind}", must be "gpt2"')
    if "quantization_config" in config:
        raise _refused(
            folder,
            "its weights are quantised (quantization_config); a precision of the matrix is that of"
            " the arithmetic, so give a folder with float32 weights",
        )
    for key, value in config.items():
        most = _MOST_LABELS if key == "num_labels" else _LARGEST_NUMBER
        if isinstance(value, int) and abs(value) > most:
            shown = f"{value:,}"[:30]
            raise _refused(folder, f"config.json: {key} = {shown}: must be at most {most:,}")
    for path in folder.iterdir():
        # A link to nothing is as good as no file.
        if path.suffix not in _READ_WHOLE or not os.path.exists(path) or os.path.isdir(path):
            continue
        if not os.path.isfile(path):
            raise _refused(folder, f"{path.name}: not a regular file")
        limits.at_most(_LARGEST_FILE_BYTES, f"model {folder}: {path.name}")(path.stat().st_size)
    if not (folder / _WEIGHTS).is_file():
        raise _refused(
            folder,
            f"it has no {_WEIGHTS}; pickled weights are not loaded, because they can run code:"
            " save it with save_pretrained of transformers 5",
        )


def _check_weights(name: str, path: Path, config: GPT2Config) -> None:
    """Refuse a header that would fill memory, and a model of more weights than its file holds."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    limits.at_most(_LARGEST_HEADER_BYTES, f"model {name}: header of {_WEIGHTS}")(header_bytes)
    width, layers = abs(config.n_embd), abs(config.n_layer)
    inner = 4 * width if config.n_inner is None else abs(config.n_inner)
    weights = (abs(config.vocab_size) + abs(config.n_positions)) * width
    weights += layers * (4 * width * width + 2 * width * inner)
    if weights > size_bytes:  # each takes at least a byte
        raise _unlike(name, f"{weights:,} weights do not fit into {size_bytes:,} bytes")


def _refused(name: str | Path, problem: str) -> TensorgapError:
    return TensorgapError(f"model {name}: {problem}")


def _unlike(name: str, problem: str) -> TensorgapError:
    return _refused(name, f"config.json and {_WEIGHTS} do not belong together: {problem}")


# ------------------------------------------------------------------------------- tokens


def token_ids(model: Model, text: str, special: bool = False) -> list[int]:
    """The text's token ids; with `special`, also those that the tokenizer adds by itself.

    Raises TensorgapError where the vocabulary lacks a word: its perplexity would mean nothing.
    """
    ids = _ids(model, text, special)
    unknown = model.tokenizer.unk_token_id if model.tokenizer else None
    if unknown in ids and unknown != model.bos:
        raise TensorgapError(
            "the model's vocabulary lacks words of the text"
            f" ({ids.count(unknown)} of {len(ids)} tokens); choose the text it was trained for"
        )
    return ids


def prompt_ids(model: Model, fewest: int | None = None) -> list[int]:
    """Ids of the embedded text, to make prompts of: so many if there are, or all.

    A model without a tokenizer gets those of the embedded tokenizer: the time of a forward depends
    on how many ids there are, not on which.
    """
    text = corpus.split("test").text
    if fewest is not None:
        # To the end of a word, where no tokenizer joins what stands on both sides.
        ids = _prompt_ids(model, text[: text.find(" ", _LETTERS_PER_TOKEN * fewest)])
        if len(ids) >= fewest:
            return ids[:fewest]
    return _prompt_ids(model, text)


def _prompt_ids(model: Model, text: str) -> list[int]:
    if model.tokenizer is None:
        embedded = Tokenizer.from_file(str(TINY_FOLDER / "tokenizer.json"))
        return list(embedded.encode(text, add_special_tokens=False).ids)
    return _ids(model, text)


def _ids(model: Model, text: str, special: bool = False) -> list[int]:
    tokenizer: Any = model.tokenizer
    ids: list[int] = tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
    # On a GPU an id beyond the embedding would end the process.
    if max(ids, default=0) >= model.vocabulary:
        raise TensorgapError(
            f"the tokenizer does not belong to the model: it made the token {max(ids)}, and the"
            f" model's vocabulary has {model.vocabulary} tokens"
        )
    return ids
