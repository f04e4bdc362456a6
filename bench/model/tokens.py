"""Token ids: of a text by a model's tokenizer, and of the embedded text for prompts."""

from typing import Any

from tokenizers import Tokenizer

from bench.errors import TensorgapError
from bench.lookup import TINY_FOLDER
from bench.model.load import Model
from bench.text.embedded import corpus

_LETTERS_PER_TOKEN = 8  # of the embedded text, and more


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

    A model without a tokenizer gets those of the embedded tokenizer, modulo its vocabulary: the
    time of a forward depends on how many ids there are, not on which.
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
        found = embedded.encode(text, add_special_tokens=False).ids
        return [token % model.vocabulary for token in found]
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
