"""Typed comparison of an answer with the right one. Every verdict says why.

The type is data on the row (`Item.answer_type`) and inferred where absent. What a type accepts is
narrow on purpose: the answer is the whole text, or what follows the last mark of an answer in it;
several candidates are no answer; a substring never counts. The extraction errors of the reference
code (0.25 read as 25, the article "A" as option A, `red` found in
`not red`) are rows of the test table.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from franken.tasks.graders.clock import read_times
from franken.tasks.graders.extract import affirmed, narrow, normalise, plain
from franken.tasks.graders.numbers import Quantity, in_base, is_formula, read_numbers

ANSWER_TYPES = ("integer", "number", "clock", "word", "option", "yes_no", "expression", "box")
PERCENT = Fraction(1, 100)
EXACT = Fraction(1, 10**6)  # relative: what a float's digits may lose
LONGEST = 1000  # characters of an answer that are read
IOU = 0.5
DIGITS = 3  # decimals from which on a decimal may stand for a fraction that has no last one
SUBJECT = re.compile(
    r"^(?:so |thus |therefore |hence )?,? ?(?:it|this|that|these|they|the [a-z ]{1,40}?)(?:'s| is| are| was) "
)
LEAD = re.compile(r"^(?:so|thus|therefore|hence|finally)\b,?\s*", re.IGNORECASE)
ARTICLE = re.compile(r"^(?:an?|the) (?=\S)")
YES, NO = {"yes", "true"}, {"no", "false"}
FOLLOWS_YES_NO = {
    "it",
    "there",
    "the",
    "this",
    "that",
    "these",
    "those",
    "he",
    "she",
    "they",
    "because",
    "since",
    "as",
    "we",
    "i",
    "you",
    "both",
    "neither",
}
Box = tuple[float, float, float, float]


class Verdict(NamedTuple):
    """Score in [0, 1], why, and the answer as it was read (None: the text gives no answer of this
    type).
    """

    score: float
    reason: str
    read: str | None


def infer_type(gold: str, options: Sequence[str] = ()) -> str:
    """The type of an answer that does not name one."""
    text = plain(gold)
    if options:
        return "option"
    if normalise(text) in ("yes", "no"):
        return "yes_no"
    if re.fullmatch(r"\d{1,2}:\d\d(?::\d\d)?(?:\s*[ap]\.?m\.?)?", text, re.IGNORECASE):
        return "clock"
    found = read_numbers(text)
    if (
        len(found) == 1
        and not is_formula(text)
        and re.search(r"\d", text)
        and _only(text, found[0])
    ):
        whole = (
            found[0].value.denominator == 1
            and not found[0].percent
            and not found[0].decimals
            and not found[0].unit
        )
        return "integer" if whole else "number"
    if re.fullmatch(r"[-+]?[\d.,]+\s*[A-Za-z]+/[A-Za-z]+[²³]?", text):  # 5 km/h
        return "number"
    if re.search(r"[\\^=√π<>≤≥]|\d\s*[+*/-]\s*\d|\d[a-z]\b|\d\s*,\s*\d|^[-(\[{].*\d", text):
        return "expression"
    return "word"


def _only(text: str, number: Quantity) -> bool:
    return not re.search(r"[A-Za-z0-9]", text[: number.start] + text[number.end :])


def compare(
    said: str,
    gold: str,
    kind: str,
    *,
    options: Sequence[str] = (),
    tolerance: float = 0.0,
    iou_threshold: float = IOU,
) -> Verdict:
    """Compare the answer text of a reply with the right one.

    `tolerance` is relative and for numbers; without it a number must round to the right one at the
    digits that one has.
    Raises ValueError for an unknown type.
    """
    if len(said) > LONGEST and kind != "box":
        said = said[-LONGEST:].partition(" ")[
            2
        ]  # a reply without an end: its answer is at the end, if there is one
    text = plain(said)
    if kind == "option":
        return compare_option(text, plain(gold), [plain(o) for o in options])
    if kind == "number":
        return compare_number(text, plain(gold), tolerance)
    if kind == "box":
        return compare_boxes(said, gold, iou_threshold)
    if kind == "expression":
        from franken.tasks.graders.expressions import compare_expression

        return compare_expression(said, gold)
    simple: dict[str, Callable[[str, str], Verdict]] = {
        "integer": compare_integer,
        "clock": compare_clock,
        "word": compare_word,
        "yes_no": compare_yes_no,
    }
    if kind not in simple:
        raise ValueError(f"unknown answer type {kind!r}; they are {', '.join(ANSWER_TYPES)}")
    return simple[kind](text, plain(gold))


def _verdict(right: bool, said: str, gold: str) -> Verdict:
    return (
        Verdict(1.0, f"{said!r} is right", said)
        if right
        else Verdict(0.0, f"said {said!r}, right is {gold!r}", said)
    )


def one_number(text: str) -> tuple[Quantity | None, str]:
    """The one number that a text gives as its answer, or why there is none. After the last `=` or
    mark, if there is one.
    """
    rest = affirmed(narrow(text))
    rest = re.split(r"=|≈|\\approx", rest)[-1] if re.search(r"=|≈|\\approx", rest) else rest
    if is_formula(rest):
        return None, f"{rest!r} is a formula, not a number"
    found = read_numbers(rest)
    if not found:
        return None, f"no number in {rest!r}"
    if len({(in_base(q), q.percent) for q in found}) > 1:
        return None, f"several numbers in {rest!r}, none marked as the answer"
    return found[0], ""


def compare_integer(said: str, gold: str) -> Verdict:
    """Whole numbers, exactly. 7.0 and seven are 7; 7.5 is not, and 0.25 is never 25."""
    right, _ = one_number(gold)
    if right is None:
        raise ValueError(f"the right answer {gold!r} is not a number")
    number, why = one_number(said)
    if number is None:
        return Verdict(0.0, why, None)
    return _verdict(_same_value(number, right, Fraction(0)), _show(number), _show(right))


def compare_number(said: str, gold: str, tolerance: float = 0.0) -> Verdict:
    """Numbers: equal, or within `tolerance` (relative), or equal once rounded to the digits of the
    right answer.

    A fraction that has no last decimal may be written with three decimals or more.

    A percent sign is a unit: 25 % is right for 25, for 25 % and for 0.25; but 0.25 is not right for
    25. Units that are known on both sides are converted; one that only one side has is ignored.
    """
    right, _ = one_number(gold)
    if right is None:
        raise ValueError(f"the right answer {gold!r} is not a number")
    number, why = one_number(said)
    if number is None:
        return Verdict(0.0, why, None)
    given = number.decimals + 2 * number.percent
    if not tolerance and given >= DIGITS and _endless(right.value):  # 0.333 for 1/3
        return _verdict(
            abs(_ratio(number) - _ratio(right)) * 2 * 10**given <= 1, _show(number), _show(right)
        )
    slack = Fraction(tolerance) * abs(right.value) if tolerance else Fraction(0)
    rounding = (
        Fraction(1, 2 * 10**right.decimals)
        if right.decimals and not tolerance
        else abs(right.value) * EXACT
    )
    return _verdict(_same_value(number, right, max(slack, rounding)), _show(number), _show(right))


def _ratio(number: Quantity) -> Fraction:
    return number.value * (PERCENT if number.percent else 1)


def _endless(value: Fraction) -> bool:
    """Whether a number has no last decimal."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest > 1


def _same_value(said: Quantity, right: Quantity, slack: Fraction) -> bool:
    (unit, value), (other, truth) = in_base(said), in_base(right)
    if unit and other and unit != other:
        return False
    if unit and other:
        factor = truth / right.value if right.value else Fraction(1)
        return abs(value - truth) <= slack * abs(factor)
    scaled = said.percent and not right.percent
    candidates = [] if scaled and 0 < abs(right.value) < 1 else [(said.value, right.value, slack)]
    if scaled:  # 25 % for 0.25; but 0.25 % is not 0.25, while for 25 the sign is only the unit
        candidates.append((said.value * PERCENT, right.value, slack))
    if right.percent and not said.percent:  # 0.25 for 25 %
        candidates.append((said.value, right.value * PERCENT, slack * PERCENT))
    return any(abs(a - b) <= s for a, b, s in candidates)


def _show(number: Quantity) -> str:
    value = number.value
    digits = str(value.numerator) if value.denominator == 1 else f"{float(value):.10g}"
    return f"{digits}{' %' if number.percent else ''}{f' {number.unit}' if number.unit else ''}"


def compare_clock(said: str, gold: str) -> Verdict:
    """Times of a dial: 2:43, 02:43, 14:43, half past two; 0:37 is 12:37. A gold with am or pm, or
    from 13:00, is a time of day.
    """
    right = read_times(gold)
    if len(right) != 1:
        raise ValueError(f"the right answer {gold!r} is not a time")
    rest = affirmed(narrow(said))
    times = list(dict.fromkeys(read_times(rest)))
    if not times:
        return Verdict(0.0, f"no time in {rest!r}", None)
    if len(times) > 1:
        return Verdict(0.0, f"several times in {rest!r}", None)
    truth, time = right[0], times[0]
    if truth.fixed:
        if not time.fixed and truth.shown != time.shown:
            return Verdict(
                0.0, f"{time} does not say which half of the day, right is {truth}", str(time)
            )
        return _verdict(time.seconds == truth.seconds, str(time), str(truth))
    return _verdict(time.seconds % 43200 == truth.seconds % 43200, str(time), str(truth))


def compare_word(said: str, gold: str) -> Verdict:
    """Words: the whole answer, or all that follows its mark or its subject ("the colour is red");
    articles do not count.
    """
    right = word_of(gold)
    for reading in readings(said):
        if word_of(reading) == right:
            return Verdict(1.0, f"{reading!r} is right", reading)
    return _verdict(False, normalise(said), right)


def readings(text: str) -> list[str]:
    """The texts that a sentence may give as its answer: itself, after its mark, after its subject."""
    rest = LEAD.sub("", narrow(text)).strip()
    lowered = normalise(rest)
    subject = SUBJECT.sub("", lowered)
    return list(dict.fromkeys([text.strip(), rest, lowered, subject]))


def word_of(text: str) -> str:
    """A word or phrase without case, article, quotes and end marks."""
    bare = normalise(text).strip("'\"“”‘’?() ").rstrip(".!;,:")
    return ARTICLE.sub("", bare)


def compare_yes_no(said: str, gold: str) -> Verdict:
    """Yes or no (true, false) as the first word of the answer, unless both are said or the word
    means something else.
    """
    right = read_yes_no(gold)
    if right is None:
        raise ValueError(f"the right answer {gold!r} is neither yes nor no")
    answer = read_yes_no(said)
    return (
        Verdict(0.0, f"neither yes nor no in {said!r}", None)
        if answer is None
        else _verdict(answer == right, answer, right)
    )


def read_yes_no(text: str) -> str | None:
    """`yes` or `no`, or None: "no idea" and "yes and no" are neither."""
    for reading in readings(text):
        found = re.match(
            r"['\"(]*(yes|no|true|false)\b['\")]*\s*([/,.;:!?—–-]?)\s*(\w*)", reading, re.IGNORECASE
        )
        if not found:
            continue
        word, mark, follower = found[1].lower(), found[2], found[3].lower()
        if (mark == "/" or follower in ("and", "or")) or (
            not mark and follower and follower not in FOLLOWS_YES_NO
        ):
            return None
        other = NO if word in YES else YES
        if not mark.strip(",.;:!?—–-") and follower in other:
            return None
        return "yes" if word in YES else "no"
    return None


def compare_option(said: str, gold: str, options: Sequence[str]) -> Verdict:
    """Letters or texts of options; several layouts. A gold of several letters ("A, C") needs all of
    them and no other.
    """
    from franken.tasks.graders.options import read_options, right_options

    right = right_options(gold, options)
    chosen, why = read_options(said, options)
    if not chosen:
        return Verdict(0.0, why, None)
    return _verdict(chosen == right, ", ".join(sorted(chosen)), ", ".join(sorted(right)))


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2), in [0, 1]."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(0.0, width) * max(0.0, height)
    union = _area(a) + _area(b) - overlap
    return overlap / union if union > 0 else 0.0


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def read_boxes(text: str) -> list[Box] | None:
    """Boxes (x1, y1, x2, y2) from lists, JSON objects (`bbox_2d`) or bare numbers in fours; None
    when it is not fours.
    """
    try:
        numbers = _numbers_in(json.loads(text))
    except (
        ValueError,
        RecursionError,
    ):  # no JSON, a number too long for Python, or brackets too deep
        numbers = [float(x) for x in re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?![\w])", text)]
    if not numbers or len(numbers) % 4 or not all(map(math.isfinite, numbers)):
        return None
    return [tuple(numbers[i : i + 4]) for i in range(0, len(numbers), 4)]  # pyright: ignore[reportReturnType]


def _numbers_in(content: object) -> list[float]:
    if isinstance(content, dict):
        return [x for key, value in content.items() if key != "label" for x in _numbers_in(value)]
    if isinstance(content, list):
        return [x for value in content for x in _numbers_in(value)]
    return (
        [float(content)]
        if isinstance(content, int | float) and not isinstance(content, bool)
        else []
    )


def compare_boxes(said: str, gold: str, threshold: float = IOU) -> Verdict:
    """Every right box is met by one of the said ones with an IoU above the threshold, one to one,
    and none is left over.
    """
    right = read_boxes(gold)
    if right is None:
        raise ValueError(f"the right answer {gold!r} is not a box")
    boxes = read_boxes(said)
    if boxes is None:
        count = len(re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?![\w])", said))
        return Verdict(0.0, f"{count} numbers are not a box", None)
    if len(boxes) != len(right):
        return Verdict(0.0, f"{len(boxes)} boxes, there are {len(right)}", said)
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    overlaps = np.array([[iou(a, b) for b in right] for a in boxes])
    met = overlaps > threshold
    rows, columns = linear_sum_assignment(met + overlaps / (1 + len(right)), maximize=True)
    lowest = float(overlaps[rows, columns].min())
    return Verdict(float(met[rows, columns].all()), f"IoU {lowest:.2f} against {threshold}", said)
