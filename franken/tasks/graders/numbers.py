"""Numbers as people and models write them.

A text that is one numeral (sign, thousands separators, decimals, fractions, powers of ten, percent,
number words, a unit or a noun behind it) is read here; other mathematics is math-verify's; from a
sentence the one number that it states is taken, unless what stands beside it makes it another
(`5!`, `x > 5`, `10³`, ±5, "at least 5", 5 to 7). Values are exact fractions, so that no comparison
depends on rounding that the answer did not ask for.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from franken.tasks.graders.latex import is_mathematics, split_unit, to_latex
from franken.tasks.graders.mathematics import evaluate
from franken.tasks.graders.reply import affirmed, narrow
from franken.tasks.graders.spelling import sign_in_digits
from franken.tasks.graders.units import base, short_speed, unit_at

UP_TO_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
BY_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS: list[str] = [*UP_TO_TWENTY.split()]
TENS: list[str] = [*BY_TENS.split()]
WORD_VALUES = {word: n for n, word in enumerate(WORDS)} | {w: 10 * n for n, w in enumerate(TENS, 2)}
HAN_DIGITS = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
HAN_NUMBER = re.compile(r"[零〇一二两三四五六七八九十百]+")
LONGEST = 300  # characters of a number; Python refuses to read integers of thousands of digits
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "dozen": 12}
SCALES |= {"百": 100, "千": 1000, "万": 10**4, "亿": 10**8}
ONES = f"(?:{'|'.join(sorted(WORDS, key=len, reverse=True))})"
TO_99 = rf"(?:(?:{'|'.join(TENS)})(?:[ -](?:{'|'.join(WORDS[1:10])})\b)?|{ONES})\b"
TO_999 = rf"(?:{TO_99}|a(?=\s+hundred))(?:\s+hundred\b(?:\s+(?:and\s+)?{TO_99})?)?"
WORD_NUMBER = (  # two hundred and five thousand three hundred
    rf"\b(?:{TO_999}|a(?=\s+(?:thousand|million|billion|dozen)\b))"
    rf"(?:\s+(?:thousand|million|billion)\b(?:,?\s+(?:and\s+)?{TO_999})?)*"
)
PARTS = dict(half=2, halves=2, third=3, quarter=4, fourth=4, fifth=5, sixth=6, seventh=7, eighth=8)
PARTS |= dict(ninth=9, tenth=10, hundredth=100, thousandth=1000)
WORD_FRACTION = re.compile(  # three and a half, two thirds, half of the cake
    rf"(?:(?P<whole>\d{{1,9}}|{WORD_NUMBER})\s+and\s+)?(?:(?P<top>an?|\d{{1,9}}"
    rf"|{WORD_NUMBER})[ -])?"
    rf"(?P<part>{'|'.join(PARTS)})s?(?:\s+of\s+(?:the|a|an)\s+[A-Za-z ]{{1,40}})?\s*[.!]?",
    re.IGNORECASE,
)
REPEATED = re.compile(rf"({WORD_NUMBER})\s*\((\d{{1,9}})\)", re.IGNORECASE)
HAN_LEAD = re.compile(r"(?:总共|一共|图中|共|有)*(负?)")
HAN_FRACTION = re.compile(
    r"([零〇一二两三四五六七八九十百]+|\d+)分之([零〇一二两三四五六七八九十百]+|\d+(?:\.\d+)?)"
)
DIGITS = (
    r"(?:[1-9]\d{0,2}(?:,\d{3})+(?![\d])(?:\.\d+)?|[1-9]\d{0,2}(?:[ ]\d{3})+(?!\d)(?:\.\d+)?"
    r"|\d+(?:\.\d+)?|\.\d+)"
)
TIMES_TEN = (
    r"\s*(?:\\times|\\cdot|×|·|x|\*)\s*10\s*"
    r"(?:\^\s*\{?\s*(?P<power>[-−]?\d+)\s*\}?|(?P<raised>[⁺⁻]?[⁰¹²³⁴-⁹]+))"
)
QUANTITY = re.compile(
    rf"(?P<sign>(?<![\w)\]}}])[-+−–]\s?)?(?:"
    rf"(?P<whole>\d+)?\s*\\[dtc]?frac\s*(?:\{{\s*(?P<n1>-?\d+)\s*\}}|(?P<n2>\d))"
    rf"\s*(?:\{{\s*(?P<d1>\d+)\s*\}}|(?P<d2>\d))"
    rf"|(?:(?P<mixed>\d+)\s+)?(?P<num>(?<![\d.])\d+)\s*/\s*(?P<den>\d+)(?![\d/])"
    rf"|(?P<vwhole>\d+)?\s?(?P<vulgar>[¼½¾⅐-⅞])"
    rf"|(?P<digits>{DIGITS})(?:{TIMES_TEN}|[eE](?P<exp>[-+]?\d+))?"
    rf"|(?P<word>{WORD_NUMBER}))"
    rf"(?:\s+(?P<scale>hundred|thousand|million|billion|dozen)\b|(?P<han>[百万亿]|千(?![克米瓦])))?"
    rf"(?P<percent>\s*(?:\\?%|percent(?:age)?\b|per cent\b|pct\b))?",
    re.IGNORECASE,
)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")  # a numeral in digits, with nothing around it
FACTOR = re.compile(
    r"[A-Za-z]{1,2}(?![A-Za-z])|_|(?:sin|cos|tan|log|sqrt|pi)|\s*(?:\\[A-Za-z]|[\^√π∛(])"
    r"|\s+[abcdiknpqrtxyz]\b(?![/'])"
)
INSIDE = re.compile(
    r"(?:[A-Za-z_√∛^{]|[A-Za-z]\s*\(\s*|\^\s*[({]?\s*[-−]?|\\(?:sqrt|pi|log|ln|sin|cos|tan)\s*)$"
)
CURRENCY = r"[$€£¥₹]|(?:USD|EUR|GBP)\b|Rs\.?(?=\s|\d)"
ABOUT = r"(?:(?:\\approx|≈|~|=|about|approximately|around|roughly|exactly|only)\s*)"
BEFORE_WHOLE = re.compile(rf"{ABOUT}*(?:{CURRENCY})?\s*", re.IGNORECASE)
BESIDE = re.compile(  # before a number, makes it another
    r"(?:[\^_!±√∛∜<>≤≥≠|*×·÷/∓∞#]|[\d)]\s*[-+]"
    r"|\\(?:pm|mp|leq?|geq?|neq?|lt|gt|sqrt|times|cdot|div|sim|infty|log|ln)\b"
    r"|\b(?:than|least|most|from|between|over|under|above|below|nearly|almost|except|up to|within|"
    r"plus|minus|times|multiple of|half of|twice|double|option|room|no\.|square of|square root of"
    r"|root of|factor of|"
    r"factorial of|divi(?:ded|sible) by|multiplied by|power of|before|after|until|every|question"
    r"|step|figure|part|"
    r"page|row|column|line|object|image|number of|base|january|february|march|april|may|june|july|"
    r"august|september|october|november|december)"
    r"|第|至少|至多|最多|最少|大于|小于|多于|少于|超过|不到|不足|高于|低于|接近|除了)\s*$",
    re.IGNORECASE,
)
BEHIND = re.compile(  # behind a number, makes it another
    r"\s*(?:[!‰‱^_⁰¹²³⁴-⁹₀-₉…*×·÷±<>≤≥≠∞]|[-+/–]\s*[\d\\A-Za-z(]|[:,.]\d"
    r"|\\(?:pm|mp|leq?|geq?|neq?|times|cdot|div|infty|pi|sqrt)\b"
    r"|(?:or|to)\s+(?:more|less|fewer|so|[-\d]|"
    + WORD_NUMBER
    + r")|(?:or|to|and)\s+-?\d|(?:or|to|and|than)\s*[.…]*$"
    r"|(?:times|over)\s+(?:[\d\\]|"
    + WORD_NUMBER
    + r")|\\l?dots|(?-i:(?<=\d)[MB]\b)|(?:point|squared|cubed|factorial|plus|minus|divided"
    r"|multiplied|mod"
    r"|modulo|base|halves|"
    r"half|thirds?|quarters?|fifths?|sixths?|eighths?|tenths?|hundredths?|thousandths?|and a"
    r"|per mille|"
    r"out of|of (?:them|the) are|hundred|thousand|million|billion|trillion)\b|分之|倍|点"
    r"|[个只条张本块支棵头匹辆人元]?(?:多|余|以上|以下|以内|或|至|到|又))",
    re.IGNORECASE,
)
NOUN = re.compile(
    r"\s*(?:\((?!\s*(?:or|not)\b)[^()\d]{0,60}\)|[A-Za-z'’]+(?:[ -/][A-Za-z'’]+){0,3}"
    r"|[\u4e00-\u9fff]{1,4})?\s*(?:[$€£¥₹])?\s*[.!;,?]*\s*",
)
EXPLAINED = re.compile(
    r"[\s,;(]+(?:because|since|as|which|where|given that|whereas|so that)\b.*", re.I | re.S
)
CONCLUSION = re.compile(
    r"\b(?:so|therefore|thus|hence|altogether|in total|in all|for a total of|a total of|total is|"
    r"which (?:is|gives|makes)|making|giving)\b|所以|因此|一共|总共",
    re.IGNORECASE,
)
EQUALS = re.compile(r"=|≈|\\approx\b")


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

    def __str__(self) -> str:
        whole = self.value.denominator == 1
        digits = str(self.value.numerator) if whole else f"{float(self.value):.10g}"
        return f"{digits}{' %' if self.percent else ''}{f' {self.unit}' if self.unit else ''}"


@dataclass(frozen=True)
class Reading:
    """The number that a text states, or why it states none; `rule` is who read it."""

    number: Quantity | None
    why: str
    rule: str = "numeral"
    irrational: Fraction | None = None  # the value, to thirty digits, of what has no last one


def read_number(text: str) -> Reading:
    """The one number that a text (of one spelling, `plain`) gives as its answer."""
    text = HAN_FRACTION.sub(_han_fraction, short_speed(sign_in_digits(text)))
    text = REPEATED.sub(_said_once, text)
    rest = affirmed(narrow(text)).strip()
    rest = EXPLAINED.sub("", rest).strip() or rest
    whole = as_numeral(rest) or _word_fraction(rest)
    if whole is not None:
        return Reading(whole, "")
    latex = to_latex(rest)
    if is_mathematics(latex):
        return _by_mathematics(rest, latex)
    return _from_sentence(rest)


def as_numeral(text: str) -> Quantity | None:
    """A text that is one numeral with at most a currency before it and a unit or noun behind it."""
    start = BEFORE_WHOLE.match(text).end()  # pyright: ignore[reportOptionalMemberAccess]
    match = QUANTITY.match(text, start)
    if match is None:
        return _han_numeral(text)
    number = _quantity(text, match)
    if number is None or BEHIND.match(text, number.end):
        return None
    if number.unit is None and FACTOR.match(text, match.end()) and not number.percent:
        return None
    return number if NOUN.fullmatch(text, number.end) else None


def _han_numeral(text: str) -> Quantity | None:
    lead = HAN_LEAD.match(text)
    negative, start = (bool(lead[1]), lead.end()) if lead else (False, 0)
    match = HAN_NUMBER.match(text, start)
    if match is None or BEHIND.match(text, match.end()) or not NOUN.fullmatch(text, match.end()):
        return None
    value = han_value(match[0])
    if value is None:
        return None
    unit, end = unit_at(text, match.end())
    return Quantity(Fraction(-value if negative else value), False, unit, 0, 0, end)


def _han_fraction(match: re.Match[str]) -> str:
    """百分之二十五 → 25 %, 四分之三 → 3/4."""
    bottom, top = (part if part[0].isdigit() else str(han_value(part)) for part in match.groups())
    return f"{top} %" if bottom == "100" else f"{top}/{bottom}"


def _said_once(match: re.Match[str]) -> str:
    """five (5) → 5."""
    return match[2] if word_value(match[1].lower()) == int(match[2]) else match[0]


def _word_fraction(text: str) -> Quantity | None:
    """A fraction in words; an ordinal alone ("third") is none."""
    match = WORD_FRACTION.fullmatch(text)
    if match is None or not (match["top"] or match["part"].lower() == "half"):
        return None
    top = match["top"] or "a"
    whole = word_value(match["whole"].lower()) if match["whole"] else 0
    count = 1 if top.lower() in ("a", "an") else word_value(top.lower())
    value = whole + Fraction(count, PARTS[match["part"].lower()])
    return Quantity(value, False, None, 0, 0, len(text))


def han_value(text: str) -> int | None:
    """The value of a Chinese numeral below a thousand."""
    total, digit = 0, None
    for sign in text:
        if sign in "十百":
            total += (1 if digit is None else digit) * (10 if sign == "十" else 100)
            digit = None
        elif digit not in (None, 0):
            return None
        else:
            digit = HAN_DIGITS[sign]
    return total + (digit or 0)


def _by_mathematics(text: str, latex: str) -> Reading:
    """A text that is mathematics and no plain numeral: 10^3, \\frac{100}{3}, x = 7."""
    percent = bool(re.search(r"\\?%\s*[.]?\s*$", latex))
    bare, unit = split_unit(re.sub(r"\\?%\s*[.]?\s*$", "", latex) if percent else latex)
    last = EQUALS.split(bare)[-1].strip()
    if last != bare and not re.search(r"[,;]", bare):
        numeral = as_numeral(last)  # x = 7, 3 + 4 = 7: the digits that were written count
        value = evaluate(bare.replace("≈", "=").replace("\\approx", "="))
        if numeral is not None and (
            value.number == numeral.value or "≈" in text or "approx" in text
        ):
            return Reading(numeral, "", "math-verify")
    else:
        value = evaluate(bare)
    if value.number is None:
        return Reading(None, f"{text!r}: {value.why}", "math-verify", value.irrational)
    known, _ = unit_at(f" {unit}", 0) if unit else (None, 0)
    return Reading(Quantity(value.number, percent, known, 0, 0, len(text)), "", "math-verify")


def _from_sentence(text: str) -> Reading:
    """The number that a sentence states: the only one, or the one behind its conclusion."""
    rest = text
    signs = list(EQUALS.finditer(rest))
    if signs:
        listed = re.search(r"[,;]|\b(?:or|and)\b", rest[signs[0].end() : signs[-1].start()])
        if listed and len(signs) > 1:
            return Reading(None, f"several results in {text!r}", "sentence")
        rest = rest[signs[-1].end() :].strip()
        whole = as_numeral(rest)
        if whole is not None:
            return Reading(whole, "", "sentence")
    numbers = read_numbers(rest)
    conclusions = list(CONCLUSION.finditer(rest))
    if len(numbers) > 1 and conclusions:
        rest = rest[conclusions[-1].end() :]
        numbers = read_numbers(rest)
    if not numbers:
        reason = "a formula, not a number" if re.search(r"\d", rest) else "no number"
        return Reading(None, f"{reason} in {rest!r}", "sentence")
    if len({(in_base(q), q.percent) for q in numbers}) > 1:
        return Reading(None, f"several numbers in {rest!r}, none marked as the answer", "sentence")
    for number in numbers:
        if BESIDE.search(rest[max(0, number.start - 30) : number.start]) or BEHIND.match(
            rest, number.end
        ):
            return Reading(
                None, f"what stands beside it changes the number in {rest!r}", "sentence"
            )
    if re.search(r"\d\s*[*+×÷]\s*\d|[√∛∞±]|\\sqrt|\\pi\b|\\pm", rest):
        return Reading(None, f"a formula, not a number, in {rest!r}", "sentence")
    return Reading(numbers[0], "", "sentence")


def read_numbers(text: str) -> list[Quantity]:
    """Every quantity in a text, in order.

    A numeral that is only part of something else is none: digits inside of words (`r1c2`,
    `bbox_2d`), factors (2x, 2π, 2√3), powers and their exponents, radicands, arguments, numerals
    with a base.
    """
    numbers: list[Quantity] = []
    for match in QUANTITY.finditer(text):
        if numbers and match.start() < numbers[-1].end:
            continue  # the exponent of a unit
        number = _quantity(text, match)
        if (
            number is None
            or INSIDE.search(text[max(0, match.start() - 12) : match.start()])
            or (number.unit is None and not number.percent and FACTOR.match(text, match.end()))
        ):
            continue
        numbers.append(number)
    return numbers


def in_base(a: Quantity) -> tuple[str | None, Fraction]:
    """A quantity as (dimension, value in the base unit); the dimension is None without a unit that
    is known.
    """
    return (None, a.value) if a.unit is None else base(a.unit, a.value)


def _quantity(text: str, match: re.Match[str]) -> Quantity | None:
    value = _value(match)
    if value is None:
        return None
    unit, end = (None, match.end()) if match["percent"] else unit_at(text, match.end())
    scaled = any(match[name] for name in ("power", "raised", "exp", "scale", "han"))
    decimals = len(match["digits"].partition(".")[2]) if match["digits"] and not scaled else 0
    return Quantity(value, bool(match["percent"]), unit, decimals, match.start(), end)


def _value(match: re.Match[str]) -> Fraction | None:
    plain = _unscaled(match)
    scale = match["scale"] or match["han"]
    return plain if plain is None or not scale else plain * SCALES[scale.lower()]


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
    raised = unicodedata.normalize("NFKC", match["raised"] or "")
    power = int((match["power"] or raised or match["exp"] or "0").replace("−", "-"))
    if abs(power) > 300:
        return None
    return sign * Fraction(re.sub(r"[, ]", "", match["digits"])) * Fraction(10) ** power


def word_value(text: str) -> int:
    """The value of a number in words, `two thousand and fifty-one`."""
    total = below = 0  # the thousands and more, and what stands below them
    for word in re.findall(r"[a-z]+|\d+", text):
        if word.isdigit():
            below += int(word)
        elif word == "hundred":
            below *= 100
        elif word in SCALES:
            total, below = total + below * SCALES[word], 0
        elif word != "and":
            below += 1 if word == "a" else WORD_VALUES[word]
    return total + below


def is_numeral(text: str, number: Quantity) -> bool:
    """Whether a text is a number in digits and nothing else but its sign, currency and unit."""
    outside = text[: number.start] + text[number.end :]
    return bool(re.search(r"\d", text)) and not re.search(r"[A-Za-z0-9\u4e00-\u9fff]", outside)
