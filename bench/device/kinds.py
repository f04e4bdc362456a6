"""Which type a GPU is, by what its driver tells of it: pure functions, standard library only."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# One word before the model ("Tesla", "NVIDIA"), then the words in capitals ("RTX", "PRO") up to
# the first that has a digit; what follows a hyphen ("-SXM2-16GB") is not part of the model.
_MODEL = re.compile(r"\w+\s+(?P<model>(?:[A-Z]+\s+)*[A-Z0-9]*\d[A-Z0-9]*)")
# NVIDIA gave the numbers of its Turing workstation boards again: Quadro RTX 6000 (7.5) and RTX 6000
# Ada Generation (8.9) are alike but for this word.
_ADA = re.compile(r"\bAda\b")
_MEMORY = re.compile(r"-(?P<gb>[1-9]\d*)G")
_CAPABILITY = re.compile(r"-sm(?P<digits>\d{2,})")
# An 80 GB A100 has from 79 to 86e9 usable bytes.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Card:
    """A GPU as its driver tells of it."""

    name: str
    uuid: str
    memory_bytes: int | None = None  # None: not known, or shared by MIG slices
    compute_capability: str | None = None  # as 8.0

    @property
    def gpu_type(self) -> str:
        """Its type, without memory or compute capability."""
        return gpu_type(self.name)

    def is_a(self, asked: str) -> bool:
        """Whether it is of a type, which may be finer by its memory or its compute capability.

        >>> a100 = Card("NVIDIA A100-SXM4-80GB", "GPU-1", 85_899_345_920, "8.0")
        >>> [a100.is_a(name) for name in ("A100", "A100-80G", "A100-sm80", "A100-40G", "A10")]
        [True, True, True, False, False]
        """
        if not asked.startswith(self.gpu_type):
            return False
        finer = asked.removeprefix(self.gpu_type)
        if memory := _MEMORY.fullmatch(finer):
            nominal_bytes = int(memory["gb"]) * 1e9
            return abs((self.memory_bytes or 0) / nominal_bytes - 1) < _TOLERANCE
        if capability := _CAPABILITY.fullmatch(finer):
            return capability["digits"] == (self.compute_capability or "").replace(".", "")
        return not finer

    def __str__(self) -> str:
        """Name, type and memory in words."""
        memory = f", {self.memory_bytes / 2**30:.0f} GiB" if self.memory_bytes else ""
        return f"{self.name} ({self.gpu_type}{memory})"


def gpu_type(name: str) -> str:
    """Name a GPU's type as Ray does, but for the Ada generation, which Ray takes for Turing.

    >>> gpu_type("Tesla V100-SXM2-16GB"), gpu_type("NVIDIA GeForce RTX 4090")
    ('V100', 'GeForce-RTX-4090')
    >>> gpu_type("Quadro RTX 6000"), gpu_type("NVIDIA RTX 6000 Ada Generation")
    ('RTX-6000', 'RTX-6000-Ada')
    """
    label = rays_label(name)
    return f"{label}-Ada" if _ADA.search(name) and not _ADA.search(label) else label


def rays_label(name: str) -> str:
    """The label that Ray itself gives to a node whose first GPU has this name.

    Ray (`ray._private.accelerators.nvidia_gpu`) takes the model out of NVML's name and, where there
    is none in capitals, as in consumer GPUs, joins the whole name with hyphens.
    """
    found = _MODEL.match(name)
    if found and len(found["model"]) > 1:
        return found["model"].replace(" ", "-")
    return re.sub(r"^NVIDIA\s+", "", name).strip().replace(" ", "-")


def coarse(asked: str) -> str:
    """A type without its memory or its compute capability.

    >>> coarse("A100-80G"), coarse("RTX-6000-Ada"), coarse("A100-sm80")
    ('A100', 'RTX-6000-Ada', 'A100')
    """
    return re.sub(rf"(?:{_MEMORY.pattern}|{_CAPABILITY.pattern})$", "", asked)


def told_apart(cards: Iterable[Card]) -> set[str]:
    """The types of these GPUs; what one name would mix is named more finely.

    >>> small, large = (Card("NVIDIA A100-SXM4", f"GPU-{g}", g * 2**30, "8.0") for g in (40, 80))
    >>> told_apart([small]), sorted(told_apart([small, large]))
    ({'A100'}, ['A100-40G', 'A100-80G'])
    """
    by_type: dict[str, list[Card]] = {}
    for card in sorted(cards, key=lambda card: card.memory_bytes or 0, reverse=True):
        by_type.setdefault(card.gpu_type, []).append(card)
    names: set[str] = set()
    for name, alike in by_type.items():
        capabilities = {card.compute_capability for card in alike}
        finer: list[str] = []
        if len(capabilities) > 1 and None not in capabilities:
            finer = [f"{name}-sm{str(found).replace('.', '')}" for found in capabilities]
        elif all(card.memory_bytes for card in alike):
            for card in alike:  # the largest first
                if not any(map(card.is_a, finer)):
                    finer.append(f"{name}-{round((card.memory_bytes or 0) / 2**30)}G")
        one_kind = any(all(card.is_a(each) for card in alike) for each in finer)
        names.update([name] if one_kind or not finer else finer)
    return names
