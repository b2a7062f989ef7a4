"""Numbers and clock times as people and models write them.

`read_numbers` finds every quantity in a text: sign, thousands separators, decimals, fractions (1/2,
3 1/2, \\frac{1}{2}, ½),
powers of ten, percent, number words, and the unit behind it. Values are exact fractions, so that no
comparison depends on rounding that the answer did not ask for.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
LENGTHS = {"mm": "1/1000", "cm": "1/100", "dm": "1/10", "m": "1", "km": "1000"}
UNITS: dict[str, tuple[str, Fraction]] = {
    **{name: ("length", Fraction(value)) for name, value in LENGTHS.items()},
    **{
        f"{name}{p}": (f"length^{p}", Fraction(value) ** int(p))
        for name, value in LENGTHS.items()
        for p in "23"
    },
    **{n: ("imperial", Fraction(v)) for n, v in {"in": 1, "ft": 12, "yd": 36, "mi": 63360}.items()},
    **{
        n: ("mass", Fraction(v))
        for n, v in {"mg": "1/1000", "g": "1", "kg": "1000", "t": "1000000"}.items()
    },
    **{
        n: ("time", Fraction(v))
        for n, v in {"ms": "1/1000", "s": "1", "min": "60", "h": "3600"}.items()
    },
    **{n: ("volume", Fraction(v)) for n, v in {"ml": "1/1000", "cl": "1/100", "l": "1"}.items()},
    "degrees": ("angle", Fraction(1)),
}
ALIASES = {
    **{
        f"{long}{s}": short
        for short, long in {
            "mm": "millimet",
            "cm": "centimet",
            "dm": "decimet",
            "m": "met",
            "km": "kilomet",
        }.items()
        for s in ("er", "ers", "re", "res")
    },
    "inch": "in",
    "inches": "in",
    "feet": "ft",
    "foot": "ft",
    "yard": "yd",
    "yards": "yd",
    "mile": "mi",
    "miles": "mi",
    "gram": "g",
    "grams": "g",
    "kilogram": "kg",
    "kilograms": "kg",
    "tonne": "t",
    "tonnes": "t",
    "milligrams": "mg",
    "second": "s",
    "seconds": "s",
    "sec": "s",
    "minute": "min",
    "minutes": "min",
    "mins": "min",
    "hour": "h",
    "hours": "h",
    "hr": "h",
    "hrs": "h",
    "liter": "l",
    "liters": "l",
    "litre": "l",
    "litres": "l",
    "L": "l",
    "°": "degrees",
    "degree": "degrees",
    "deg": "degrees",
}
LONGEST = 300  # characters of a number; Python refuses to read integers of thousands of digits
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "dozen": 12}
ONES = f"(?:{'|'.join(sorted(WORDS, key=len, reverse=True))})"
WORD_NUMBER = (
    rf"\b(?:(?:{'|'.join(TENS)})[ -](?:{'|'.join(WORDS[1:10])})|(?:{'|'.join(TENS)})|{ONES})\b"
)
DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d])(?:\.\d+)?|\d{1,3}(?:[ ]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
QUANTITY = re.compile(
    rf"(?P<sign>(?<![\w)\]}}])[-+−–]\s?)?(?:"
    rf"(?P<whole>\d+)?\s*\\[dt]?frac\s*(?:\{{\s*(?P<n1>-?\d+)\s*\}}|(?P<n2>\d))\s*(?:\{{\s*(?P<d1>\d+)\s*\}}|(?P<d2>\d))"
    rf"|(?:(?P<mixed>\d+)\s+)?(?P<num>(?<![\d.])\d+)\s*/\s*(?P<den>\d+)(?![\d/])"
    rf"|(?P<vwhole>\d+)?(?P<vulgar>[¼½¾⅐-⅞])"
    rf"|(?P<digits>{DIGITS})(?:\s*(?:\\times|×|x|\*)\s*10\s*\^\s*\{{?\s*(?P<power>[-−]?\d+)\s*\}}?|[eE](?P<exp>[-+]?\d+))?"
    rf"|(?P<word>{WORD_NUMBER}))"
    rf"(?:\s+(?P<scale>hundred|thousand|million|billion|dozen)\b)?"
    rf"(?P<percent>\s*(?:\\?%|percent\b|per cent\b))?",
    re.IGNORECASE,
)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")  # a numeral in digits, with nothing around it
UNIT = re.compile(
    r"\s*(?:\^?\s*\{?\s*\\circ\s*\}?|°|([A-Za-z]+)\s*(?:\^?\s*\{?\s*([23])\s*\}?(?!\d)|([²³]))?)"
)
FACTOR = re.compile(
    r"[A-Za-z]{1,2}(?![A-Za-z])|_|(?:sin|cos|tan|log|sqrt|pi)|\s*(?:\\[A-Za-z]|[\^√π∛])|\s+[abcdknpqrtxyz]\b(?![/'])"
)
INSIDE = re.compile(
    r"(?:[A-Za-z_√^{]|[A-Za-z]\s*\(\s*|\^\s*[({]?\s*[-−]?|\\(?:sqrt|pi|log|ln|sin|cos|tan)\s*)$"
)
OPERATOR = re.compile(
    r"\\(?:sqrt|pi|cdot|log|ln|sin|cos|tan|pm)\b|(?:\\times|×)(?!\s*10)|[√π÷]|\d\s*[*+]\s*\d|\bsqrt\b"
)
SQUARE = re.compile(r"\s*(square|cubic|sq\.?|cu\.?)\s+([A-Za-z]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Quantity:
    """A number as written: exact value (of 25 % it is 25), whether a percent sign follows, its
    unit, digits after the point.
    """

    value: Fraction
    percent: bool
    unit: str | None
    decimals: int
    start: int
    end: int


def read_numbers(text: str) -> list[Quantity]:
    """Every quantity in a text, in order.

    A numeral that is only part of something else is none: digits inside of words (`r1c2`,
    `bbox_2d`), factors (2x, 2π, 2√3), powers and their exponents, radicands, arguments, numerals
    with a base.
    """
    found: list[Quantity] = []
    for match in QUANTITY.finditer(text):
        if found and match.start() < found[-1].end:
            continue  # the exponent of a unit
        value = _value(match)
        unit, end = (None, match.end()) if match["percent"] else _unit(text, match.end())
        if (
            value is None
            or INSIDE.search(_before(text, match))
            or (unit is None and FACTOR.match(text[match.end() :]))
        ):
            continue
        decimals = len(match["digits"].partition(".")[2]) if match["digits"] else 0
        scaled = bool(match["power"] or match["exp"] or match["scale"])
        found.append(
            Quantity(
                value, bool(match["percent"]), unit, 0 if scaled else decimals, match.start(), end
            )
        )
    return found


def is_formula(text: str) -> bool:
    """Whether the text calculates with its numbers, so that none of them alone is what it says: 2x
    + 1, 2√3, 3 × 4.
    """
    return any(
        FACTOR.match(text[m.end() :])
        and not m["percent"]
        and _unit(text, m.end())[0] is None
        and not _in_word(text, m)
        for m in QUANTITY.finditer(text)
    ) or bool(OPERATOR.search(text))


def _before(text: str, match: re.Match[str]) -> str:
    return text[max(0, match.start() - 12) : match.start()]


def _in_word(text: str, match: re.Match[str]) -> bool:
    return bool(re.search(r"[A-Za-z_]$", _before(text, match)))


def in_base(a: Quantity) -> tuple[str | None, Fraction]:
    """A quantity as (dimension, value in the base unit); the dimension is None without a unit that
    is known.
    """
    if a.unit is None:
        return None, a.value
    dimension, factor = UNITS[a.unit]
    return dimension, a.value * factor


def _value(match: re.Match[str]) -> Fraction | None:
    plain = _unscaled(match)
    return plain if plain is None or not match["scale"] else plain * SCALES[match["scale"].lower()]


def _unscaled(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > LONGEST:
        return None
    sign = -1 if (match["sign"] or "+").strip() in "-−–" else 1
    top, bottom = (
        match["n1"] or match["n2"] or match["num"],
        match["d1"] or match["d2"] or match["den"],
    )
    if top:
        if int(bottom) == 0:
            return None
        whole = int(match["whole"] or match["mixed"] or 0)
        return sign * (whole + Fraction(int(top), int(bottom)))
    if match["vulgar"]:
        part = Fraction(unicodedata.numeric(match["vulgar"])).limit_denominator(10)
        return sign * (int(match["vwhole"] or 0) + part)
    if match["word"]:
        return sign * Fraction(word_value(match["word"].lower()))
    power = int((match["power"] or match["exp"] or "0").replace("−", "-"))
    if abs(power) > 300:
        return None
    return sign * Fraction(re.sub(r"[, ]", "", match["digits"])) * Fraction(10) ** power


def word_value(text: str) -> int:
    """The value of a number word, up to ninety-nine."""
    tens, _, ones = re.sub(r"[ -]+", " ", text).partition(" ")
    first = 10 * (TENS.index(tens) + 2) if tens in TENS else WORDS.index(tens)
    return first + (WORDS.index(ones) if ones else 0)


def _unit(text: str, start: int) -> tuple[str | None, int]:
    """The unit that stands at `start`, and where it ends."""
    rest = text[start:]
    spelled = SQUARE.match(rest)
    match = spelled or UNIT.match(rest)
    if match is None or not match[0].strip():
        return None, start
    if spelled:
        name, power = spelled[2], "2" if spelled[1].lower().startswith("sq") else "3"
    else:
        name, power = match[1] or "°", match[2] or {"²": "2", "³": "3", None: ""}[match[3]]
    short = ALIASES.get(name, ALIASES.get(name.lower(), name if len(name) <= 2 else name.lower()))
    end = start + match.end()
    a_word = short == "in" and re.match(r"[A-Za-z]", text[end:])  # 5 in the box
    ratio = text[end : end + 1] == "/"  # km/h is not km
    return (
        (f"{short}{power}", end)
        if f"{short}{power}" in UNITS and not (a_word or ratio)
        else (None, start)
    )
