"""bench.perplexity beside lm-eval: its own code on the same models and texts."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from typing import Any

import examples  # noqa: F401 - fixes what hypothesis draws
import hypothesis.strategies as st
import pytest
from hypothesis import given
from planted import as_model
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

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


@pytest.fixture(scope="module")
def every_byte() -> tuple[Model, Text]:
    """GPT-2's vocabulary at random weights, with a tokenizer that makes one token of each byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {letter: index for index, letter in enumerate(letters)} | {"<|endoftext|>": 50_256}
    words = Tokenizer(tokenizer_models.BPE(vocab=ids, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    return as_model(
        GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=64, n_head=2)), tokenizer
    ), Text.of("a text", ARTICLE)


def by_lm_eval(model: Model, text: Text, context: int, batch: int) -> dict[str, float]:
    """lm-eval's wikitext task over the pages of a text, with its own code for every step."""
    from lm_eval.api import metrics
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks.wikitext import preprocess_wikitext as task

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer: Any = HFLM(
            pretrained=model.module,
            tokenizer=model.tokenizer,
            max_length=context,
            batch_size=batch,
            device="cpu",
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


@given(st.text(alphabet=" '\"()[]{}@,.-:;!?=\nNs1a°", max_size=60))
def test_pages_are_detokenised_as_lm_eval_does(page: str) -> None:
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

    assert detokenize(page) == wikitext_detokenizer({"page": page})
