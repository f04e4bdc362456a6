"""A decoder: loaded, run by an engine, with the attention that was asked for."""

import logging
import os
import sys

from transformers.utils import import_utils

from bench.files import private

# torch makes the folder of what it compiles, and runs what it finds there, as soon as something
# imports torch._dynamo, which transformers' GPT-2 does. Its own place, torchinductor_USER of the
# temporary folder, is one that others can make first. So ours is named before that import.
if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private.folder() / "inductor")

# Where torchao is installed, transformers would import it at every precision, and with it ask CUDA
# for the GPU: a process that is forked later could not use it. transformers keeps its answer.
if "torchao" not in sys.modules:
    sys.modules["torchao"] = None  # type: ignore[assignment]
    import_utils.is_torchao_available()
    del sys.modules["torchao"]

# What is quantised imports it: it tells of each extension that is not for this machine, and torch
# of what is deprecated in it.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
