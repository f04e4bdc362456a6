"""A model's files: where they lie, and whether they may be opened.

They are a stranger's: each is looked at before transformers opens it. Only safetensors are read,
and no code that comes with a model is run.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from bench import decoders, shelf
from bench.asked import RANDOM
from bench.errors import TensorgapError, Unsupported
from bench.files import limits
from bench.lookup import CONFIG, TINY_FOLDER, understood

TINY, GPT2_RANDOM = "tiny", f"gpt2{RANDOM}"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_LARGEST_NUMBER = 10**9  # of config.json; a base of rotary positions is 10 million
_MOST_LABELS = 10_000  # for each of which transformers makes a name, again and again
_MOST_LAYERS = 1000  # each is built, however little it holds; Llama 3.1 405B has 126
_MOST_SHARDS = 1000
_SHARD = re.compile(r"[\w.-]{1,200}\.safetensors", re.ASCII)
_LARGEST_FILE_BYTES = 50 * 10**6  # GPT-2's tokenizer.json has 1.4 MB, one of 256,000 words 34 MB
_LARGEST_HEADER_BYTES = 10 * 10**6  # GPT-2 XL's has 60 KB
_READ_WHOLE = (".json", ".txt", ".jinja", ".model")


@dataclass(frozen=True)
class Files:
    """The files of a model, which were checked."""

    folder: Path
    shape: decoders.Shape
    weights: tuple[Path, ...]  # in the order of their names; none of random weights


def source_of(name: str) -> Path | str:
    """The folder of a model, or the name by which the hub knows it; with random weights, too."""
    base = name.removesuffix(RANDOM)
    path = str(TINY_FOLDER) if base == TINY else os.path.expanduser(base)
    if os.path.isdir(path) and name != GPT2_RANDOM:
        return Path(path)
    if base.startswith((".", "/", "~")):
        raise refused(name, "there is no such folder")
    return base


def key_of(source: Path | str) -> str:
    """What identifies a model on the shelf of a node: of a folder also the state of its files."""
    if isinstance(source, str):
        return source
    paths = [p for p in source.iterdir() if p.suffix == ".safetensors" or p.name in (CONFIG, INDEX)]
    states = [os.stat(path) for path in sorted(paths) if os.path.exists(path)]
    told = [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in states]
    return f"{source.resolve()} {told}"


def files_of(name: str, source: Path | str) -> Files:
    """The files of a folder, or of the hub or its cache, which are fetched there.

    Raises TensorgapError for what must not be opened, Unsupported for what is no dense decoder
    that we understand.
    """
    is_random = name.endswith(RANDOM)
    folder = source if isinstance(source, Path) else Path(str(cached_file(source, CONFIG))).parent
    config = read_json(name, folder / CONFIG)
    check_config(name, config)
    shape = understood(name, config)
    if is_random:
        check_size(name, shape)
        return Files(folder, shape, ())
    if isinstance(source, str):
        fetch_weights(name, source, folder)
    check_files(name, folder)
    files = Files(folder, shape, weights_in(name, folder))
    check_weights(name, files)
    return files


def read_json(name: str, path: Path) -> dict[str, Any]:
    """The object of a small JSON file."""
    check = limits.small(f"model {name}: {path.name}")
    try:
        found = json.loads(limits.read_file(path, check).decode("utf-8"))
    except FileNotFoundError:
        raise refused(name, f"it has no {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        told = getattr(error, "strerror", None) or error
        raise refused(name, f"{path.name} cannot be read: {told}") from None
    return found if isinstance(found, dict) else {}


def check_config(name: str, config: Mapping[str, Any]) -> None:
    """Refuse weights of other numbers, and what would fill memory."""
    if not config.get("is_causal", True):
        raise Unsupported(f"model {name}: is_causal = false: each token sees all others")
    if config.get("quantization_config") is not None:
        raise Unsupported(
            f"model {name}: its weights are quantised (quantization_config); a precision of the"
            " matrix is that of the arithmetic, so give a folder with fp32, fp16 or bf16 weights"
        )
    for key, value in config.items():
        most = _MOST_LABELS if key == "num_labels" else _LARGEST_NUMBER
        if isinstance(value, int) and abs(value) > most:
            shown = f"{value:,}"[:30]
            raise refused(name, f"config.json: {key} = {shown}: must be at most {most:,}")


def check_size(name: str, shape: decoders.Shape) -> None:
    """Refuse random weights that would take all memory or, layer by layer, all time."""
    if shape.layers > _MOST_LAYERS:
        raise refused(name, f"{shape.layers:,} layers: must be at most {_MOST_LAYERS:,}")
    least_bytes, memory_bytes = 2 * shape.parameters, shelf.memory_bytes()
    if least_bytes > memory_bytes:
        needed, held = limits.shown(least_bytes), limits.shown(int(memory_bytes))
        raise Unsupported(f"model {name}: {needed} of weights do not fit into {held} of memory")


def fetch_weights(name: str, source: str, folder: Path) -> None:
    """Bring the weights of the hub beside the configuration, unless they are there."""
    if (folder / WEIGHTS).exists() or cached_file(
        source, WEIGHTS, _raise_exceptions_for_missing_entries=False
    ):
        return
    if cached_file(source, INDEX, _raise_exceptions_for_missing_entries=False):
        for shard in shards_of(name, folder):
            cached_file(source, shard)


def shards_of(name: str, folder: Path) -> list[str]:
    """The names of the files that the weights are spread over, which lead out of no folder."""
    names = read_json(name, folder / INDEX).get("weight_map")
    found = sorted(set(map(str, names.values()))) if isinstance(names, dict) else []
    if not 0 < len(found) <= _MOST_SHARDS:
        raise refused(name, f"{INDEX}: {len(found):,} files; must be from 1 to {_MOST_SHARDS:,}")
    for shard in found:
        if not _SHARD.fullmatch(shard):
            told = ascii(shard)[:100]
            raise refused(name, f"{INDEX}: {told} is no name of a .safetensors file beside it")
    return found


def check_files(name: str, folder: Path) -> None:
    """Refuse what transformers may open and read whole."""
    if (folder / "adapter_config.json").exists():
        raise refused(name, "it holds an adapter of another model; merge the two and save them")
    for path in folder.iterdir():
        # A link to nothing is as good as no file.
        if path.suffix not in _READ_WHOLE or not os.path.exists(path) or os.path.isdir(path):
            continue
        if not os.path.isfile(path):
            raise refused(name, f"{path.name}: not a regular file")
        limits.at_most(_LARGEST_FILE_BYTES, f"model {name}: {path.name}")(path.stat().st_size)


def weights_in(name: str, folder: Path) -> tuple[Path, ...]:
    """The files of the weights: one, or those of an index where there is none, as transformers."""
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if (folder / INDEX).exists():
        paths = tuple(folder / shard for shard in shards_of(name, folder))
        if missing := [path.name for path in paths if not path.is_file()]:
            raise refused(name, f"it has no {missing[0]}, which {INDEX} names")
        return paths
    raise refused(
        name,
        f"it has no {WEIGHTS}; pickled weights are not loaded, because they can run code:"
        " save it with save_pretrained of transformers 5",
    )


def check_weights(name: str, files: Files) -> None:
    """Refuse a header that would fill memory, and a model of more weights than its files hold."""
    size_bytes = 0
    for path in files.weights:
        size_bytes += path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
        limits.at_most(_LARGEST_HEADER_BYTES, f"model {name}: header of {path.name}")(header_bytes)
    if files.shape.parameters > size_bytes:  # each takes at least a byte
        count = f"{files.shape.parameters:,}"
        raise unlike(name, f"{count} weights do not fit into {size_bytes:,} bytes")


def refused(name: str, problem: str) -> TensorgapError:
    """An error that names the model."""
    return TensorgapError(f"model {name}: {problem}")


def unlike(name: str, problem: str) -> TensorgapError:
    """An error of a configuration and weights of which one is another model's."""
    return refused(name, f"{CONFIG} and its weights do not belong together: {problem}")
