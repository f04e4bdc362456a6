"""GPUs by what their drivers and people call them: `Tesla P100-PCIE-16GB`, `A100-80GB`, `4090`.

Standard library only, as `gpus`, whose boards it finds.
"""

import functools
import re
from collections.abc import Sequence

from bench.device import gpus
from bench.device.boards import GPUS, Board

_MOST_NAMES = 10_000  # that are remembered
_LONGEST = 100  # characters of a name
_MAKERS = {"nvidia", "tesla", "geforce", "quadro", "corporation", "gpu", "graphics", "gpus"}
_FORMS = {"sxm2": "sxm", "sxm3": "sxm", "sxm4": "sxm", "sxm5": "sxm", "nvl": "pcie", "hbm3": "sxm"}
# Virtual machines by the GPU that they have: AWS, Google and Azure, from their lists of instances.
INSTANCES = {"g4dn": "T4", "g5": "A10G", "g6": "L4", "g6e": "L40S", "p3": "V100", "p4d": "A100",
             "p4de": "A100-80G", "p5": "H100", "g2-standard": "L4"}  # fmt: skip
NOT_NVIDIA = re.compile(
    r"\b(amd|radeon|mi\s?\d{2,3}x?|rx\s?\d{4}|instinct|gfx\d+|intel arc|arc a\d+|gaudi\d?|habana"
    r"|tpu|apple|m[1-4]( (pro|max|ultra))?|mps|inferentia\d?|npu|ascend)\b"
)
# What else is named as a board is: of it only that is known.
UNKNOWN = re.compile(
    r"\b(?:RTX|GTX|Quadro RTX|TITAN) ?A?\d{3,4}(?: ?Ti\b| ?SUPER\b)?|\bTesla [KM]\d\d\b"
    r"|\bMI\d{3}X?\b|\b(?:Radeon )?RX \d{4}(?: ?XTX?)?\b",
    re.IGNORECASE | re.ASCII,
)
_UNSAID = {"gpu", "cuda", "cuda:0", "0", "gpu0", "gpu:0", "cuda0", "nvidia", "nvidia gpu", "gpu 0"}
_SEVERAL = re.compile(r"(?<![\w.])([2-9]|\d\d)\s*[x\u00d7*]\s*(?=[a-z])|[x\u00d7*]\s*([2-9]|\d\d)$")
_CPU = re.compile(r"\b(cpu|xeon|epyc|core i\d|ryzen|graviton\d?|threadripper)\b")


@functools.lru_cache(_MOST_NAMES)
def boards(name: str) -> tuple[Board, ...]:
    """The boards that a name stands for; none where nothing is known of it.

    >>> [board.name for board in boards("NVIDIA A100-SXM4-40GB")]
    ['A100-SXM-40GB']
    >>> [board.name for board in boards("Tesla P100-PCIE-16GB")], boards("MI250")
    (['P100-PCIE'], ())
    >>> [board.name for board in boards("Tesla T4")], [b.name for b in boards("v100 32gb")]
    (['T4'], ['V100-PCIE', 'V100-SXM2'])
    """
    if len(name) > _LONGEST:
        return ()
    if found := gpus.named(name):
        return found
    told = words_of(name)
    if is_of_another_maker(name):
        return ()
    instance = name.strip().lower().partition(".")[0]
    if instance in INSTANCES:
        return gpus.named(INSTANCES[instance])
    wanted = [word for word in told if word not in _MAKERS]
    by_type = {kind: members for kind, members in _types().items() if said(kind, wanted)}
    if not by_type:
        return ()
    kind = max(by_type, key=lambda words: (len(words), len("".join(words))))
    left = {_FORMS.get(word, word) for word in wanted if word not in kind}
    members = by_type[kind]
    finer = [b for b in members if {_FORMS.get(w, w) for w in form_of(b)} <= left]
    # By the memory or the form alone.
    some = [b for b in members if left & {_FORMS.get(w, w) for w in form_of(b)}]
    return tuple(finer or some or members)


def words_of(name: str) -> list[str]:
    """The words of a GPU's name in lower case: `GTX1080Ti` and `RTX 4090` have their number apart.

    >>> words_of("GTX1080Ti"), words_of("A100-SXM4-80GB"), words_of("RTX A6000 48G")
    (['gtx', '1080', 'ti'], ['a100', 'sxm4', '80gb'], ['rtx', 'a6000', '48gb'])
    """
    told = re.sub(r"\b(gtx|rtx|titan)(?=\d)", r"\1 ", name.lower())
    told = re.sub(r"(?<=\d)(ti|super)\b", r" \1", told)
    told = re.sub(r"\b(\d+)\s*g(i?b)?\b", r"\1gb", told)
    return re.findall(r"[a-z0-9]+", told)


def said(kind: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether the words of a type stand in a name, and no other type's words beside them."""
    if not set(kind) <= set(wanted):
        return False
    return not ({"ti", "super", "laptop", "mobile", "ada", "max"} & set(wanted)) - set(kind)


@functools.cache
def _types() -> dict[tuple[str, ...], tuple[Board, ...]]:
    """The boards by the words of their type, without their maker's and with short names."""
    found: dict[tuple[str, ...], list[Board]] = {}
    for board in GPUS:
        words = tuple(word for word in words_of(board.gpu_type) if word not in _MAKERS)
        found.setdefault(words, []).append(board)
        # 4090 and 1080 Ti for the GeForce cards, A6000 for the workstation's.
        short = tuple(word for word in words if word not in ("rtx", "gtx"))
        if short != words and any(len(word) > 3 and word[-1].isdigit() for word in short):
            found.setdefault(short, []).append(board)
    return {words: tuple(members) for words, members in found.items()}


def form_of(board: Board) -> list[str]:
    """The words of a board's name beside its type."""
    return words_of(board.name.removeprefix(board.gpu_type))


def is_of_another_maker(name: str) -> bool:
    """Whether it is no GPU of NVIDIA.

    >>> is_of_another_maker("AMD Instinct MI250X"), is_of_another_maker("RTX 4090")
    (True, False)
    """
    return bool(NOT_NVIDIA.search(name.lower())) and "nvidia" not in name.lower()


def is_several(name: str) -> bool:
    """Whether it names several GPUs, whose numbers are not those of one.

    >>> is_several("4xA100 80GB"), is_several("2 x V100"), is_several("A100"), is_several("1x T4")
    (True, True, False, False)
    """
    return bool(_SEVERAL.search(name.lower()))


def finer_type(name: str, found: Sequence[Board]) -> str:
    """The type of some boards, with their memory where they are all that a type with it has.

    >>> finer_type("A100-80GB", boards("A100-80GB")), finer_type("tesla v100", boards("tesla v100"))
    ('A100-80G', 'V100')
    """
    gpu_type = found[0].gpu_type
    memory = f"{gpu_type}-{found[0].memory_gb:g}G"
    return memory if set(gpus.named(memory)) == set(found) else gpu_type


def is_cpu(name: str) -> bool:
    """Whether it names a CPU.

    >>> is_cpu("Intel Xeon E5-2690"), is_cpu("T4")
    (True, False)
    """
    return bool(_CPU.search(name.lower())) and not boards(name)


def is_unsaid(name: str) -> bool:
    """Whether it says that there is a GPU, and not which."""
    return name.strip().lower() in _UNSAID


@functools.lru_cache(_MOST_NAMES)
def is_exactly(name: str) -> bool:
    """Whether all words of a text name a known GPU, its form or its memory.

    >>> is_exactly("T4"), is_exactly("A100 80GB"), is_exactly("T4 latency"), is_exactly("2080")
    (True, True, False, False)
    """
    found = boards(name)
    foreign = any(one.isalpha() and not one.isascii() for one in name)  # a word in another script
    if not found or foreign or name.strip().isdigit():
        return False
    known = {word for board in found for word in (*words_of(board.name), *words_of(board.gpu_type))}
    known |= _MAKERS | _FORMS.keys() | {"pcie", "sxm", "nvlink"}
    return all(word in known or re.fullmatch(r"\d+gb", word) for word in words_of(name))


def among(words: Sequence[str]) -> tuple[str, tuple[str, ...]] | None:
    """A known GPU among the words of a header, and the other words; None: there is none.

    >>> among(["t4", "latency"]), among(["batch"])
    (('t4', ('latency',)), None)
    """
    for count in range(min(5, len(words)), 0, -1):
        for begin in range(len(words) - count + 1):
            name = " ".join(words[begin : begin + count])
            if any(one.isdigit() for one in name) and is_exactly(name):
                return name, (*words[:begin], *words[begin + count :])
    return None
