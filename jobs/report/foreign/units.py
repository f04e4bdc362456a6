"""Units and numbers as people write them: `11.7ms`, `"1,200"`, `1.29s`, `~78 min`, `tok/s`, `Wh`.

A quantity has a dimension, and each dimension one unit in which `Case` holds it.
"""

import decimal
import functools
import math
import re
import unicodedata
from dataclasses import dataclass, field

# Dimension -> what a number is multiplied by, to be in the unit that `Case` has it in.
TIME = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4, "h": 3.6e6}
ENERGY = {"uj": 1e-3, "mj": 1.0, "j": 1e3, "kj": 1e6, "mwh": 3.6e3, "wh": 3.6e6, "kwh": 3.6e9}
POWER = {"mw": 1e-3, "w": 1.0, "kw": 1e3}
MEMORY = {"b": 1e-6, "kb": 1e-3, "mb": 1.0, "gb": 1e3, "kib": 2**10 / 1e6, "mib": 2**20 / 1e6}
MEMORY |= {"gib": 2**30 / 1e6}
DIMENSIONS = {"time": TIME, "energy": ENERGY, "power": POWER, "memory": MEMORY}
SHOWN = {"time": "ms", "energy": "mJ", "power": "W", "memory": "MB"}

SPELLINGS = {
    "s": "sec secs second seconds",
    "ms": "msec msecs millisecond milliseconds millis",
    "us": "usec usecs microsecond microseconds micros",
    "ns": "nsec nanosecond nanoseconds",
    "min": "mins minute minutes",
    "h": "hr hrs hour hours",
    "j": "joule joules",
    "mj": "millijoule millijoules",
    "uj": "microjoule microjoules",
    "kj": "kilojoule kilojoules",
    "w": "watt watts",
    "mw": "milliwatt milliwatts",
    "kw": "kilowatt kilowatts",
    "wh": "watthour watthours",
    "kwh": "kilowatthour kilowatthours",
    "mib": "mebibyte mebibytes",
    "gib": "gibibyte gibibytes",
    "mb": "megabyte megabytes mbytes",
    "gb": "gigabyte gigabytes gbytes",
}
UNIT = {name: unit for unit, names in SPELLINGS.items() for name in (unit, *names.split())}
UNIT |= {unit: unit for units in DIMENSIONS.values() for unit in units}
DIMENSION = {unit: name for name, units in DIMENSIONS.items() for unit in units}

# What a rate counts, and what a time or an energy may be of.
NOUNS = {
    "token": "tokens token toks tok tkn tkns t",
    "sample": "samples sample samp sents sent sentences sentence seqs seq sequences sequence"
    " prompts prompt examples example ex inputs input queries query requests request req reqs"
    " images image img imgs items item texts",
    "batch": "batches batch iterations iteration iters iter its it steps step runs run passes pass"
    " forwards forward calls call inferences inference inf infs",
}
NOUN = {word: noun for noun, words in NOUNS.items() for word in words.split()}
RATES = {"tps": "token", "qps": "sample", "rps": "sample", "ips": "sample", "fps": "sample"}

FAILED = {
    "oom",
    "failed",
    "fail",
    "fails",
    "failure",
    "error",
    "err",
    "crash",
    "crashed",
    "timeout",
}
FAILED |= {"unsupported", "\u00d7", "\u2717", "\u274c", "\u2718", "killed", "segfault"}
_FAILURES = ("out of memory", "cuda error", "not supported", "timed out", "oom", "failed")
EMPTY = {
    "",
    "-",
    "--",
    "---",
    "\u2013",
    "\u2014",
    "n/a",
    "na",
    "none",
    "null",
    "n.a.",
    "tbd",
    "?",
    "nil",
}
EMPTY |= {"/", ".", "not measured", "not available", "not applicable", "#n/a", "<na>", "missing"}
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "infinity": math.inf}

_NUMBER = re.compile(
    r"(?P<about>[~≈<>≤≥=±]*)\s*(?P<number>[-+]?(?:\d[\d,'_  ]*)?(?:\.\d*)?\d*(?:e[-+]?\d+)?)"
    r"\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_FOOTNOTE = re.compile(r"(?<=[A-Za-z)\]])[\u00b9\u00b2\u00b3\u2070-\u2079\u2020\u2021]+$")
_MARKS = re.compile(r"[*`✓✔✅❌⚠️🚀🔥⭐]+|~~|\\$")
_HTML = re.compile(r"</?[a-z]+ */?>", re.IGNORECASE)
_GROUPS = re.compile(r"(?<=\d)[,'_  ](?=\d{3}(?!\d))")
_CELLS = 50_000  # that are remembered: the cells of a column repeat
_LONGEST = 200  # characters of a cell that can be a number
_THOUSANDS = {"k": 1e3}
_RANGE = re.compile(r"[-:/\u2013]\s*\d|(h|m|min|s|sec)\w*\s*\d|,\d")  # what is more than a number
TIMES = ("x", "\u00d7", "%")  # behind a number that is a ratio
_SECOND = re.compile(r"[/|;,]\s*[~≈]?(?!1k|1m|1000\b)\d")  # a second number: 12 ms / 650 samples/s
_MOST_DIGITS = 300  # of an exponent, beyond which a float ends


@dataclass(frozen=True)
class Number:
    """A number as it was written.

    Attributes:
        value: In its own unit.
        rest: What stands behind it, such as a unit, in lower case without blanks around.
        step: Of its last digit.
        about: Whether the author says that it is approximate.
        attached: Whether no blank stands between the number and the rest.
    """

    value: float
    rest: str = ""
    step: float | None = None
    about: bool = False
    attached: bool = field(default=False, compare=False, repr=False)


@functools.lru_cache(_CELLS)
def plain(text: str) -> str:
    """A cell without the marks of Markdown, check marks and odd blanks."""
    text = (
        unicodedata.normalize("NFKC", _FOOTNOTE.sub("", text.strip()))
        .replace("\u2212", "-")
        .replace("\xa0", " ")
    )
    return _MARKS.sub("", _HTML.sub(" ", text)).strip().strip("\"'").strip()


@functools.lru_cache(_CELLS)
def is_empty(text: str) -> bool:
    """Whether a cell says that nothing was measured.

    >>> is_empty(" - "), is_empty("N/A"), is_empty("0")
    (True, True, False)
    """
    told = plain(text)
    return told.lower() in EMPTY or not told.strip("-\u2013\u2014")


@functools.lru_cache(_CELLS)
def failure(text: str) -> str | None:
    """How a cell says that its row failed; None: it does not.

    >>> failure("CUDA out of memory"), failure("OOM"), failure("12.5")
    ('CUDA out of memory', 'OOM', None)
    """
    told = plain(text)
    lower = told.lower() or text.strip()
    failed = lower in FAILED or any(words in lower for words in _FAILURES)
    return (told or text.strip()) if failed else None


@functools.lru_cache(_CELLS)
def number_of(text: str, decimal_comma: bool = False) -> Number | None:
    """The number at the begin of a cell; None where there is none.

    >>> number_of("1,200"), number_of("~78 min").rest
    (Number(value=1200.0, rest='', step=1.0, about=False), 'min')
    >>> number_of("11,7 ms", decimal_comma=True).value, number_of("4.3x faster").rest
    (11.7, 'x faster')
    >>> number_of("fp16"), number_of("nan").value
    (None, nan)
    """
    told = plain(text)
    if told.lower() in NOT_FINITE:
        return Number(NOT_FINITE[told.lower()])
    found = _NUMBER.match(told) if len(told) <= _LONGEST else _long(told)
    if not found or not any(one.isdigit() for one in found["number"]):
        return None
    written, rest = found["number"].strip(), found["rest"].strip().lower()
    if decimal_comma:
        written = written.replace(".", "").replace(",", ".")
    else:
        written = _GROUPS.sub("", written)
    if _RANGE.match(rest) or _SECOND.search(rest.partition("(")[0]):
        return None
    if re.match(r"(±|\+/?-)", rest):  # the spread beside it
        rest = re.sub(r"^(±|\+/?-)\s*[\d.,e-]+\s*", "", rest)
    try:
        value = float(written)
        exponent = decimal.Decimal(written).as_tuple().exponent
    except (ValueError, decimal.InvalidOperation):
        return None
    scale = 1.0
    if rest[:1] in _THOUSANDS and (len(rest) == 1 or rest[1] == " "):
        scale, rest = _THOUSANDS[rest[0]], rest[1:].strip()
    known = isinstance(exponent, int) and abs(exponent) < _MOST_DIGITS
    step = 10.0 ** int(exponent) * scale if known else None
    attached = bool(rest) and told[found.start("rest") - 1 : found.start("rest")].isalnum()
    return Number(value * scale, rest, step, bool(found["about"]), attached)


def _long(told: str) -> re.Match[str] | None:
    """A long cell is a number where it is nothing else: zeros without end are one too."""
    return _NUMBER.match(told) if re.fullmatch(r"[-+\d.eE]+", told) else None


def factor(unit: str, dimension: str) -> float | None:
    """What a number in a unit is multiplied by; None where it is no unit of this dimension.

    >>> factor("Wh", "energy"), factor("seconds", "time"), factor("W", "energy")
    (3600000.0, 1000.0, None)
    """
    name = UNIT.get(spelled(unit), "")
    return DIMENSIONS.get(dimension, {}).get(name)


def spelled(unit: str) -> str:
    """A unit in lower case and with Latin letters.

    >>> spelled("µs"), spelled(" mJ ")
    ('us', 'mj')
    """
    return unicodedata.normalize("NFKC", unit).strip().lower().replace("μ", "u").strip(".")
