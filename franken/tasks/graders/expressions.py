"""Mathematical expressions, read and compared by math-verify; never a calculation of our own.

What math-verify would read wrongly is decided before it is asked: equal spellings are equal, plain
numbers go to the number rules, units are split off, prose (which it multiplies out letter by
letter) and numerals with an index (10_8, whose base it drops) are compared as they are spelled.
"""

import re
from typing import NamedTuple

from franken.tasks.graders.latex import PROSE, is_mathematics, split_unit, to_latex
from franken.tasks.graders.mathematics import is_same
from franken.tasks.graders.numbers import as_numeral
from franken.tasks.graders.quantities import compare_quantities
from franken.tasks.graders.reply import MARK, SENTENCE
from franken.tasks.graders.spelling import plain, tidy
from franken.tasks.graders.units import UNITS
from franken.tasks.graders.verdict import Verdict, decide, refuse

SEGMENT = re.compile(
    r"\$\$(.+?)\$\$|\\\[(.+?)(?<!\\)\\\]|(?<!\\)\$([^$\n]+)\$|\\\((.+?)\\\)", re.DOTALL
)
LEADS = re.compile(
    r"(?:\b(?:is|are|be|equals?|to|gives?|get|obtain|as|by|then|so|thus|hence|therefore|that"
    r"|have)|[:=→])\s*$",
    re.I,
)
MONEY = re.compile(r"\$\s?\d[\d,.]*(?:\s|$)")
MATRIX = re.compile(r"\\begin\s*\{(?:[pb]matrix|array)\}")
ROWS = re.compile(r"\[\s*\[[^\[\]]+\](?:\s*,\s*\[[^\[\]]+\])*\s*\]")
WORDS_THAT_CHANGE = re.compile(
    r"\b(?:not|never|neither|nor|or|than|least|most|from|between|over|under|above|below|nearly|"
    r"almost|except|up to|within|plus|minus|times|half of|twice|double|square of|root of|cannot"
    r"|if)\b|n['’]t\b",
    re.IGNORECASE,
)


class Expression(NamedTuple):
    """One expression in LaTeX, its unit split off."""

    latex: str
    unit: str

    @property
    def spelling(self) -> str:
        """It without spaces."""
        return re.sub(r"\s+", "", self.latex)


def compare_expression(text: str, gold: str) -> Verdict:
    """Whether two expressions are equal: as spelled, as numbers, or mathematically. Order counts in
    tuples, not in sets. A unit counts when both sides name one.
    """
    right = _expression(to_latex(gold))
    source = find_expression(text)
    if source is None:
        return refuse(f"no expression, or none that is marked, in {text!r}")
    said = _expression(to_latex(source))
    if not said.latex:
        return refuse(f"no expression in {text!r}")
    if said.unit and right.unit and said.unit != right.unit:
        return _in_other_unit(said, right)
    if {_brackets(said.latex), _brackets(right.latex)} == {"set", "tuple"}:
        return decide(False, said.latex, right.latex, "a set has no order, a tuple has one")
    if MATRIX.search(said.latex) or MATRIX.search(right.latex):
        said, right = (e._replace(latex=_rows_as_matrix(e.latex)) for e in (said, right))
    if _spelt_alike(said, right):
        return decide(True, said.latex, right.latex, "spelling")
    left, other = as_numeral(plain(source)), as_numeral(plain(gold))
    if left is not None and other is not None and re.match(r"[-+.\d\\]", right.latex):
        return compare_quantities(left, other)
    for expression in (said, right):
        if not is_mathematics(expression.latex):
            rule = (
                "spelling"
                if PROSE.search(said.latex + right.latex)
                else "spelling (no digits side by side, no bases)"
            )
            return decide(False, said.latex, right.latex, rule)
    return _ask(said.latex, right.latex)


def _brackets(latex: str) -> str:
    """Whether one pair of brackets makes a text a set or a tuple; empty when none does."""
    if re.fullmatch(r"\\\{[^{}()]*,[^{}()]*\\\}", latex):
        return "set"
    return "tuple" if re.fullmatch(r"\([^()]*,[^()]*\)", latex) else ""


def _rows_as_matrix(latex: str) -> str:
    """`[[1, 2], [3, 4]]` as LaTeX; any other text as it is."""
    if not ROWS.fullmatch(latex):
        return latex
    rows = [row.replace(",", "&") for row in re.findall(r"\[([^\[\]]+)\]", latex)]
    return "\\begin{pmatrix}" + "\\\\".join(rows) + "\\end{pmatrix}"


def _ask(said: str, right: str) -> Verdict:
    is_right, why = is_same(said, right)
    verdict = decide(is_right, said, right, "math-verify")
    if not why:
        return verdict
    read = None if "cannot be read" in why and "right answer" not in why else said
    return verdict._replace(reason=f"{verdict.reason}: {why}", read=read)


def _expression(latex: str) -> Expression:
    return Expression(*split_unit(latex))


def _spelt_alike(a: Expression, b: Expression) -> bool:
    if a.spelling == b.spelling:
        return True
    return PROSE.search(a.latex) is not None and a.spelling.lower() == b.spelling.lower()


def _in_other_unit(said: Expression, right: Expression) -> Verdict:
    """Both name a unit, and not the same: one dimension is converted, two are wrong."""
    shown, other = f"{said.latex} {said.unit}", f"{right.latex} {right.unit}"
    a, b = UNITS.get(said.unit), UNITS.get(right.unit)
    if a is None or b is None or a[0] != b[0] or not is_mathematics(said.latex):
        return decide(False, shown, other, "unit")
    ratio = a[1] / b[1]
    scaled = f"({said.latex})\\cdot\\frac{{{ratio.numerator}}}{{{ratio.denominator}}}"
    verdict = _ask(scaled, right.latex)
    return decide(bool(verdict.score), shown, other, "math-verify, unit converted")


def find_expression(text: str) -> str | None:
    """The expression that a text gives as its answer: all of it when it is mathematics, else what
    its dollars hold, or what follows `is`; None when several could be meant.
    """
    text = tidy(text).strip().strip("*_ ")
    if is_mathematics(to_latex(text)):
        return text
    segments = list(SEGMENT.finditer(text))
    if segments:
        contents = list(dict.fromkeys(_content(m) for m in segments))
        last = segments[-1]
        tail, lead = text[last.end() :], text[: last.start()]
        if len(contents) == 1:
            changed = WORDS_THAT_CHANGE.search(re.split(r"[.;:]", lead)[-1])
            return None if changed else f"{contents[0]} {_unit_behind(tail)}"
        joined = _listed(text, segments)
        if joined:
            return joined
        ends = re.fullmatch(r"[\s.,;!*]*(?:[A-Za-z]+[.]?\s*)?", tail)
        if ends and LEADS.search(lead) and not re.search(r"\bnot\b", lead[segments[-2].end() :]):
            return f"{contents[-1]} {_unit_behind(tail)}"
        return None
    marks = list(MARK.finditer(text))
    rest = text[marks[-1].end() :].strip(" :") if marks else text
    if is_mathematics(to_latex(rest)):
        return rest
    subject = re.match(
        r"(?:so |thus |therefore |hence )?,? ?(?:[a-z' ]{1,60}?) (?:is|are|equals)\s+", rest, re.I
    )
    after = rest[subject.end() :] if subject else rest
    if subject and is_mathematics(to_latex(after)) and not re.search(r"\bnot\b", subject[0]):
        return after
    return rest if len(SENTENCE.split(rest)) == 1 else None


def only_segment(text: str) -> str | None:
    """The one piece of mathematics that a sentence sets off (`The sum is $3 + 4$.`), with its unit;
    None when there are more, or when the words may change it.
    """
    segments = list(SEGMENT.finditer(text))
    if len(segments) != 1 or MONEY.search(text):
        return None
    lead, tail = text[: segments[0].start()], text[segments[0].end() :]
    if re.search(r"\d", lead + tail) or not re.search(r"[A-Za-z]{2}", lead):
        return None
    if WORDS_THAT_CHANGE.search(lead + tail):
        return None
    return f"{_content(segments[0])} {_unit_behind(tail)}"


def _content(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None).strip()


def _listed(text: str, segments: list[re.Match[str]]) -> str:
    """Segments that are listed one after another, as one list: `$1$ and $2$`, `$x = 1$, $y =
    2$`.
    """
    between = [text[a.end() : b.start()] for a, b in zip(segments, segments[1:], strict=False)]
    if not all(re.fullmatch(r"\s*(?:,|;|and|or|,\s*(?:and|or))\s*", gap) for gap in between):
        return ""
    return ", ".join(map(_content, segments))


def _unit_behind(tail: str) -> str:
    _, unit = split_unit(f"1 {tail.strip(' .,;*')}")
    return tail.strip(" .,;*") if unit else ("%" if re.match(r"\s*(?:%|percent|pct)", tail) else "")
