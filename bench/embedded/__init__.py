"""A tiny trained GPT-2 and the text it was made for: perplexity without any hub.

* `bench.embedded.corpus` writes the text and knows its exact entropy, the floor of any perplexity.
* `bench.embedded.grammar` is the grammar of that text.
* `bench.embedded.train` made the checkpoint in ``tiny/``.
"""
