"""Typed comparison of an answer with the right one. Every verdict says why.

The type is data on the row (`Item.answer_type`) and inferred where absent. What a type accepts is
narrow on purpose: the answer is the whole text, or what follows the last mark of an answer in it;
several candidates are no answer; a substring never counts. The extraction errors of the reference
code (0.25 read as 25, the article "A" as option A, `red` found in `not red`) are rows of the test
table.
"""

import re
from collections.abc import Callable, Sequence

from franken.tasks.graders.boxes import IOU, compare_boxes
from franken.tasks.graders.clock import compare_clock, compare_ratio, read_ratio
from franken.tasks.graders.expressions import compare_expression, only_segment
from franken.tasks.graders.numbers import as_numeral, is_numeral
from franken.tasks.graders.options import compare_option
from franken.tasks.graders.quantities import compare_integer, compare_number
from franken.tasks.graders.reply import right_text
from franken.tasks.graders.spelling import normalise, plain
from franken.tasks.graders.verdict import ANSWER_TYPES, Verdict
from franken.tasks.graders.words import compare_word, compare_yes_no

LONGEST = 1000  # characters of an answer that are read
TIME = re.compile(r"\d{1,2}:\d\d(?::\d\d)?\s*[ap]\.?\s?m\.?|0\d:\d\d|\d{1,2}:\d\d:\d\d", re.I)
LIKE_A_DATE = re.compile(  # 2024-05-06, 05/06/2024, 2012-2013, 192.168.0.1
    r"\d+(?:\s*[-–—]\s*\d+)+|\d+(?:/\d+){2,}|\d+(?:\.\d+){2,}|\d+(?:,\d+)*\s*[-–—]\s*\d+"
)
MATHEMATICAL = re.compile(
    r"[\\^=√π<>≤≥±∞]|\d\s*[+*/-]\s*\d|\d[a-z]\b|\d\s*[,;]\s*[-+]?\d|^[-(\[{].*\d|^[a-z]\s*[-+*/]"
    r"|^[-+]?\d[\d.]*(?:,?\s+(?:and|or)\s+[-+]?\d[\d.]*)+$"
)
COMPOUND = re.compile(r"\d+\s*[A-Za-z]+\.?,?\s+(?:and\s+)?\d+\s*[A-Za-z]+")  # 5 ft 10 in


def infer_type(gold: str, options: Sequence[str] = ()) -> str:
    """The type of an answer that does not name one."""
    text = plain(right_text(gold))
    if options:
        return "option"
    if normalise(text) in ("yes", "no"):
        return "yes_no"
    if TIME.fullmatch(text):
        return "clock"
    if read_ratio(text) is not None and "to" not in text.lower():
        return "ratio"  # or a time: what is right under both is accepted
    if LIKE_A_DATE.fullmatch(text) or COMPOUND.fullmatch(text):
        return "word"
    number = as_numeral(text)
    if number is not None and is_numeral(text, number):
        exact = number.value.denominator == 1 and not number.percent and not number.decimals
        return "integer" if exact and not number.unit else "number"
    if re.fullmatch(r"[-+]?[\d.,]+\s*[A-Za-z]+/[A-Za-z]+[²³]?", text):  # 5 km/h
        return "number"
    return "expression" if MATHEMATICAL.search(text) else "word"


def compare(
    answer: str,
    gold: str,
    kind: str,
    *,
    options: Sequence[str] = (),
    tolerance: float = 0.0,
    iou_threshold: float = IOU,
) -> Verdict:
    """Compare the answer text of a reply with the right one.

    `tolerance` is relative and for numbers; without it a number must round to the right one at the
    digits that one has. Raises ValueError for an unknown type.
    """
    gold = right_text(gold)
    if kind == "box":
        return compare_boxes(answer, gold, iou_threshold)
    if len(answer) > LONGEST:  # without an end: an answer is at the end, if there is one
        answer = answer[-LONGEST:].partition(" ")[2]
    if kind == "expression":
        return compare_expression(answer, gold)
    right = plain(gold)
    if kind in ("integer", "number"):
        answer = only_segment(answer) or answer
    text = plain(answer)
    if kind == "option":
        return compare_option(text, right, [plain(o) for o in options])
    if kind == "number":
        return compare_number(text, right, tolerance)
    simple: dict[str, Callable[[str, str], Verdict]] = {
        "integer": compare_integer,
        "clock": compare_clock,
        "ratio": compare_ratio,
        "word": compare_word,
        "yes_no": compare_yes_no,
    }
    if kind not in simple:
        raise ValueError(f"unknown answer type {kind!r}; they are {', '.join(ANSWER_TYPES)}")
    return simple[kind](text, right)
