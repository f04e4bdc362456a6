"""What can be known of a model by its name alone: without a network, torch or transformers."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import decoders
from bench.asked import RANDOM
from bench.errors import TensorgapError, Unsupported
from bench.files import limits

CONFIG = "config.json"
TINY_FOLDER = Path(__file__).parent / "text" / "embedded" / "tiny"


def shape_of(name: str) -> decoders.Shape | None:
    """The shape of a model: by a folder's config.json, a known name, or the local cache of the hub.

    None where none of them has it. Raises Unsupported for what is no decoder that is understood.
    """
    base = name.removesuffix(RANDOM)
    folder = TINY_FOLDER if base == "tiny" else Path(os.path.expanduser(base))
    if base != "gpt2" and folder.is_dir():
        return of_file(name, folder / CONFIG)
    if known := decoders.shape_of(base):
        return known
    # 0.3 s that plans of known models do not pay.
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(base, CONFIG)
    except ValueError:  # no name of the hub
        return None
    return of_file(name, Path(cached)) if isinstance(cached, str) else None


def of_file(name: str, path: Path) -> decoders.Shape:
    """The shape that a config.json describes."""
    try:
        config = json.loads(limits.read_file(path, limits.small(str(path))).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        told = getattr(error, "strerror", None) or error
        raise TensorgapError(f"model {name}: {path.name} cannot be read: {told}") from None
    return understood(name, config if isinstance(config, dict) else {})


def understood(name: str, config: Mapping[str, Any]) -> decoders.Shape:
    """The shape of a model's configuration; Unsupported, which names it, where there is none."""
    try:
        return decoders.of_config(config)
    except Unsupported as error:
        raise Unsupported(f"model {name}: {error}") from None
