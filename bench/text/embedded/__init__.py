"""A tiny trained GPT-2 and the text it was made for: perplexity without any hub.

* `bench.text.embedded.corpus` writes the text and knows its exact entropy, the floor of any perplexity.
* `bench.text.embedded.grammar` is the grammar of that text.
* `bench.text.embedded.train` made the checkpoint in ``tiny/``.
"""
