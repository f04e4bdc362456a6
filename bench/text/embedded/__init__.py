"""A tiny trained GPT-2 and the text it was made for: perplexity without any hub.

`bench.text.embedded.corpus` writes the text by the rules of `grammar.toml` and knows its exact
entropy; `benchmarks/train_tiny.py` made the checkpoint in `tiny/`.
"""
