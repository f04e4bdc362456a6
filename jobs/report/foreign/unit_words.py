"""The words of a header, and the unit among them."""

import re
from collections.abc import Sequence

from jobs.report.foreign import units

_SEPARATORS = re.compile(r"[\s_,:;|]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z](?:[a-z]|$))")
LONGEST = 300  # characters of a name that are looked at
OTHER = "other"  # dimension of a unit that is none of ours: GB/s, $/h, tokens/J
_TIMES = {"latency", "lat", "time", "duration", "elapsed", "runtime"}
_RATES = {"throughput", "tput", "thpt", "speed"}
_EACH_GPU = ("gpu", "device", "card")
_GPUS = tuple([one] for one in _EACH_GPU)


def split(text: str) -> list[str]:
    """The words of a header in lower case, with / and % as words.

    >>> split("torch_dtype"), split("mJ/token"), split("batchSize")
    (['torch', 'dtype'], ['mj', '/', 'token'], ['batch', 'size'])
    """
    found: list[str] = []
    for part in _SEPARATORS.split(text[:LONGEST].replace("μ", "u").replace("µ", "u")):
        for token in re.findall(r"[^\W\d_][^\W_=]*(?:=\d+)?|\d+[A-Za-z]*|[/%#]", part):
            known = units.spelled(token) in units.UNIT
            pieces = [token] if known else _CAMEL.split(token)
            found += [piece.lower().strip(".=") for piece in pieces]
    return found


def per_thousand(words: list[str]) -> tuple[float, list[str]]:
    """The scale of what is per 1,000 tokens, and the words with `per token` in its place.

    >>> per_thousand(["energy", "per", "1k", "tokens"]), per_thousand(["j", "/", "1k"])
    ((0.001, ['energy', 'per', 'tokens']), (0.001, ['j', '/', 'token']))
    """
    for at, word in enumerate(words):
        if word in ("1k", "1000", "k", "1m") and at and words[at - 1] in ("/", "per"):
            counted = words[at + 1 :] if words[at + 1 : at + 2] else ["token"]
            return (1e-6 if word == "1m" else 1e-3), [*words[:at], *counted]
    return 1.0, words


def unit_in(words: list[str], inner: int = 0) -> tuple[str | None, str | None, str, list[str]]:
    """The unit among words, what it is of, its dimension, and the words that are left.

    Single letters are units only in brackets, which are the last `inner` words, or at the end.
    """
    words = ["/" if word == "per" else word for word in words]
    for at, word in enumerate(words[:-2]):  # per output token
        if word == "/" and words[at + 1] in ("output", "out", "generated", "new", "decoded"):
            words = [*words[: at + 1], *words[at + 2 :]]
            break
    words = [w for at, w in enumerate(words) if not _is_each_gpu(words, at)]
    for at, word in enumerate(words):
        if word in units.RATES:
            of_watt = words[at + 1 : at + 2] == ["/"]  # tokens per second and watt
            return (
                None,
                units.RATES[word],
                OTHER if of_watt else "rate",
                words[:at] + words[at + 1 :],
            )
        if word == "/" and 0 < at < len(words) - 1:
            before, after = words[at - 1], words[at + 1]
            over = units.DIMENSION.get(units.UNIT.get(after, ""))
            if before in units.NOUN and over == "time":
                rest = words[: at - 1] + words[at + 2 :]
                return units.UNIT[after], units.NOUN[before], OTHER if "/" in rest else "rate", rest
            if before in units.UNIT and after in units.NOUN:
                unit = units.UNIT[before]
                rest = words[: at - 1] + words[at + 2 :]
                return unit, units.NOUN[after], units.DIMENSION[unit], rest
    for at, word in enumerate(words[: -1 - inner]):  # throughput_tok_s
        if words[at - 1 : at] == ["/"] or not _TIMES.isdisjoint(words):
            break
        if word in units.NOUN and word != "t" and words[at + 1] in ("s", "sec", "second"):
            return "s", units.NOUN[word], "rate", words[:at] + words[at + 2 :]
    per = None
    for at, word in enumerate(words):
        if word == "/" and at + 1 < len(words) and words[at + 1] in units.NOUN:
            per, words = units.NOUN[words[at + 1]], words[:at] + words[at + 2 :]
            break
        before, after = " ".join(words[at - 1 : at]), " ".join(words[at + 1 : at + 2])
        if word == "/" and after in units.UNIT and before in _RATES:
            return units.UNIT[after], "sample", "rate", words[:at] + words[at + 2 :]
        if (
            word == "/"
            and before not in ("bit", "bits")
            and (after in units.UNIT or before in units.UNIT or before in units.NOUN)
        ):
            return None, None, OTHER, words
    for at in reversed(range(len(words))):
        if words[at] not in units.UNIT or (len(words[at]) == 1 and at < len(words) - inner - 1):
            continue
        if words[at] == "b" or (len(words) == 1 and len(words[0]) == 1):
            continue
        unit = units.UNIT[words[at]]
        return unit, per, units.DIMENSION[unit], words[:at] + words[at + 1 :]
    return None, per, "", [word for word in words if word != "/"]


def _is_each_gpu(words: Sequence[str], at: int) -> bool:
    """Whether a word is of `per GPU`, which says nothing where there is one."""
    here = words[at] in _EACH_GPU and words[at - 1 : at] == ["/"]
    before = words[at] == "/" and at > 0 and words[at + 1 : at + 2] in _GPUS
    return (here and at > 1) or before
