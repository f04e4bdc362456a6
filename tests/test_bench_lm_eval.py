"""bench.perplexity beside lm-eval: its own code on the same models and texts."""

from __future__ import annotations

import logging
import math
import string
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from decoders import built
from hypothesis import given
from planted import as_model
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers import decoders as byte_decoders
from tokenizers import models as tokenizer_models
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from bench.asked import QualityPlan
from bench.model.load import Model, load_model
from bench.perplexity.evaluate import evaluate
from bench.text.detokenizer import detokenize
from bench.text.embedded import corpus
from bench.text.load import Text

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install '.[test]'")
pytestmark = pytest.mark.filterwarnings("ignore")

ARTICLE = (
    " = Some well @-@ known river = \n",
    "",
    ' The river , 1 @,@ 200 km long , " flows " ( slowly ) to the sea : it is N 3 @.@ 5 m deep ;'
    " the boats ' sails are white . \n",
    "",
    " = = Bridges = = \n",
    " Are there any ? It 's said there are [ three ] . Grüße ! \n",
    " = Another river = \n",
    " It is short . \n",
)


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """Without the log of a program that is not under test."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def tiny() -> tuple[Model, Text]:
    stories = [corpus.generate(seed=seed, paragraphs=6).text for seed in (7, 8, 9)]
    return load_model("tiny", "fp32", "cpu"), Text.of("a text", stories)


def byte_tokenizer(
    bos: str | None, eos: str | None, unknown: str | None = None, adds_bos: bool = False
) -> PreTrainedTokenizerFast:
    """One token of each byte, and the special tokens behind them."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    named = dict.fromkeys(token for token in (bos, eos, unknown) if token)
    words = Tokenizer(
        tokenizer_models.BPE(vocab={t: i for i, t in enumerate([*letters, *named])}, merges=[])
    )
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = byte_decoders.ByteLevel()
    if adds_bos:
        words.post_processor = before_each_text(words, str(bos))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=bos, eos_token=eos, unk_token=unknown
    )


def sentence_piece() -> PreTrainedTokenizerFast:
    """Spaces as part of the words, and bytes for what is no letter, as Llama 2 has it."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581"]
    vocabulary = {token: index for index, token in enumerate([*tokens, *string.ascii_letters])}
    words = Tokenizer(
        tokenizer_models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    words.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    words.post_processor = before_each_text(words, "<s>")
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def before_each_text(words: Tokenizer, bos: str) -> processors.PostProcessor:
    return processors.TemplateProcessing(f"{bos} $A", None, [(bos, words.token_to_id(bos))])


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "one special token": lambda: byte_tokenizer(*["<|endoftext|>"] * 3),
    "no BOS": lambda: byte_tokenizer(None, "<|im_end|>", "<|endoftext|>"),
    "adds BOS": lambda: byte_tokenizer("<s>", "</s>", adds_bos=True),
    "SentencePiece": sentence_piece,
}
TOKENIZER_OF = {
    "gpt2": "one special token",
    "llama": "SentencePiece",
    "mistral": "adds BOS",
    "qwen2": "no BOS",
    "qwen3": "no BOS",
    "gpt_neox": "one special token",
    "opt": "adds BOS",
    "gemma2": "adds BOS",
    "phi": "one special token",
}


def saved(family: str, folder: Path) -> Path:
    """A small model of random weights, as `save_pretrained` writes it, and its tokenizer."""
    tokenizer = TOKENIZERS[TOKENIZER_OF[family]]()
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos")}
    built(family, vocab_size=len(tokenizer), **ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loaded(folder: Path) -> Model:
    return load_model(str(folder), "fp32", "cpu")


@pytest.fixture(scope="module", params=TOKENIZER_OF)
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a decoder."""
    return saved(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def every_byte() -> tuple[Model, Text]:
    """GPT-2's vocabulary at random weights, with a tokenizer that makes one token of each byte."""
    tokenizer = byte_tokenizer("<|endoftext|>", "<|endoftext|>")
    return as_model(
        GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=64, n_head=2)), tokenizer
    ), Text.of("a text", ARTICLE)


def by_lm_eval(
    model: Model | Path, text: Text, context: int, batch: int, **options: Any
) -> dict[str, float]:
    """lm-eval's wikitext task over the pages of a text, with its own code for every step."""
    from lm_eval.api import metrics
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks.wikitext import preprocess_wikitext as task

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer: Any = HFLM(
            pretrained=str(model) if isinstance(model, Path) else model.module,
            tokenizer=None if isinstance(model, Path) else model.tokenizer,
            max_length=context,
            batch_size=batch,
            device="cpu",
            **options,
        )
    docs = [{"page": page} for page in text.pages()]
    targets = [task.wikitext_detokenizer(doc) for doc in docs]
    requests = [Instance("loglikelihood_rolling", {}, (target,), 0) for target in targets]
    found = peer.loglikelihood_rolling(requests, disable_tqdm=True)
    results = [task.process_results(doc, (nats,)) for doc, nats in zip(docs, found, strict=True)]
    return {
        "nats": -math.fsum(found),
        "tokens": sum(len(peer.tok_encode(target)) for target in targets),
        "words": sum(result["word_perplexity"][1] for result in results),
        "bytes": sum(result["byte_perplexity"][1] for result in results),
        "word_perplexity": metrics.weighted_perplexity([r["word_perplexity"] for r in results]),
        "byte_perplexity": metrics.weighted_perplexity([r["byte_perplexity"] for r in results]),
        "bits_per_byte": metrics.bits_per_byte([r["bits_per_byte"] for r in results]),
    }


@pytest.mark.parametrize(
    ("which", "context", "batch"),
    [("tiny", 256, 1), ("tiny", 32, 3), ("every_byte", 128, 2)],
)
def test_mode_lm_eval_is_what_lm_eval_computes(
    quiet: None, which: str, context: int, batch: int, request: pytest.FixtureRequest
) -> None:
    model, text = request.getfixturevalue(which)
    assert len(text.pages()) > 1
    theirs = by_lm_eval(model, text, context, batch)
    ours = evaluate(model, text, QualityPlan(mode="lm-eval", context=context))
    assert (ours.tokens, ours.words, ours.bytes) == (
        theirs["tokens"],
        theirs["words"],
        theirs["bytes"],
    )
    assert ours.nats is not None
    assert abs(ours.nats - theirs["nats"]) / theirs["tokens"] < 1e-6
    assert ours.word_perplexity == pytest.approx(theirs["word_perplexity"], rel=2e-5)
    assert ours.bits_per_byte == pytest.approx(theirs["bits_per_byte"], rel=1e-6)
    assert (ours.mode, ours.context, ours.stride) == ("lm-eval", context, context)


def test_one_page_without_overlap_is_the_same_in_our_own_mode(
    quiet: None, tiny: tuple[Model, Text]
) -> None:
    model, text = tiny
    page = Text.of("a text", text.rows[:1])
    theirs = by_lm_eval(model, page, 64, 1)
    ours = evaluate(model, page, QualityPlan(context=64, stride=64))
    assert ours.nats is not None
    assert ours.tokens == theirs["tokens"]
    assert abs(ours.nats - theirs["nats"]) / theirs["tokens"] < 1e-6


@pytest.mark.parametrize("context", [64, 20])
def test_any_decoder_has_the_perplexity_that_lm_eval_gives_it(
    quiet: None, decoder: Path, context: int
) -> None:
    """lm-eval loads the folder by itself. A sliding window bounds the context."""
    text = Text.of("a text", ARTICLE)
    ours = evaluate(loaded(decoder), text, QualityPlan(mode="lm-eval", context=context))
    assert ours.context is not None
    theirs = by_lm_eval(decoder, text, ours.context, batch=2)
    assert (ours.tokens, ours.words, ours.bytes) == (
        theirs["tokens"],
        theirs["words"],
        theirs["bytes"],
    )
    assert ours.nats is not None
    assert ours.bits_per_byte is not None
    assert abs(ours.nats - theirs["nats"]) / theirs["tokens"] < 1e-6
    assert ours.word_perplexity == pytest.approx(theirs["word_perplexity"], rel=2e-5)
    assert 2**ours.bits_per_byte == pytest.approx(theirs["byte_perplexity"], rel=1e-6)
    assert ours.bits_per_byte == pytest.approx(theirs["bits_per_byte"], rel=1e-6)


def test_any_decoder_in_our_own_mode_is_a_plain_loop_over_its_logits(decoder: Path) -> None:
    """With one BOS before the text, also where the tokenizer would add another."""
    text = Text.of("a text", ARTICLE)
    ours = evaluate(loaded(decoder), text, QualityPlan(context=20, stride=7))
    module = AutoModelForCausalLM.from_pretrained(decoder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    has_bos = TOKENIZER_OF[module.config.model_type] != "no BOS"
    before = tokenizer.bos_token_id if has_bos else tokenizer.eos_token_id
    ids = [before, *tokenizer.encode(text.text, add_special_tokens=False)]
    nats, scored, end = 0.0, 1, min(20, len(ids) - 1)
    while scored < len(ids):
        start = max(0, end - 20)
        with torch.inference_mode():
            logits = module(torch.tensor([ids[start:end]])).logits[0].double()
        for at in range(scored, end + 1):
            nats -= float(logits[at - 1 - start].log_softmax(0)[ids[at]])
        scored, end = end + 1, min(end + 7, len(ids) - 1)
    assert ours.tokens == len(ids) - 1
    assert ours.nats == pytest.approx(nats, rel=1e-6)
    assert ours.prefix == f"{'bos' if has_bos else 'eos'} (id {before})"


def test_one_page_of_any_decoder_is_the_same_in_our_own_mode_and_with_one_bos_in_lm_eval(
    quiet: None, decoder: Path
) -> None:
    page = Text.of("a text", ARTICLE[-1:])
    theirs = by_lm_eval(decoder, page, 20, 1, add_bos_token=False)
    plain = Text.of("a text", [detokenize(page.text)])
    ours = evaluate(loaded(decoder), plain, QualityPlan(context=20, stride=20))
    assert ours.nats is not None
    assert ours.tokens == theirs["tokens"]
    assert abs(ours.nats - theirs["nats"]) / theirs["tokens"] < 1e-6


@pytest.mark.parametrize(
    ("family", "prefix"),
    [("gpt2", "bos (id 256)"), ("qwen2", "eos (id 256)"), ("llama", "bos (id 1), twice")],
)
def test_what_stands_before_a_page_is_kept(family: str, prefix: str, tmp_path: Path) -> None:
    model = loaded(saved(family, tmp_path))
    text = Text.of("a text", ARTICLE)
    assert evaluate(model, text, QualityPlan(mode="lm-eval", context=40)).prefix == prefix
    assert evaluate(model, text, QualityPlan(mode="hf-docs", context=40)).prefix == "none"


@given(st.text(alphabet=" '\"()[]{}@,.-:;!?=\nNs1a°", max_size=60))
def test_pages_are_detokenised_as_lm_eval_does(page: str) -> None:
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

    assert detokenize(page) == wikitext_detokenizer({"page": page})
