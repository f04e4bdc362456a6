"""A decoder: loaded, run by an engine, with the attention that was asked for."""

import os

from bench.files import private

# torch makes the folder of what it compiles, and runs what it finds there, as soon as something
# imports torch._dynamo, which transformers' GPT-2 does. Its own place, torchinductor_USER of the
# temporary folder, is one that others can make first. So ours is named before that import.
if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private.folder() / "inductor")
