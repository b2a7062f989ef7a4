"""Mathematical expressions, compared by math-verify (sympy behind it); never a calculation of our
own.

What math-verify would read wrongly is decided before it is asked: equal spellings are equal, plain
numbers go to the number rules, prose (which it multiplies out letter by letter) and numerals with
an index (10_8, whose base it drops) are compared as they are spelled.
"""

import re
import threading
from typing import Any

from franken.tasks.graders.compare import Verdict, compare_number, one_number, readings
from franken.tasks.graders.extract import LATEX_SPACE, MARKUP, TEXT, extract, narrow, plain

SECONDS = 5  # what one parse or comparison may take
PROSE = re.compile(
    r"(?<![\\A-Za-z])(?!(?:sqrt|sin|cos|tan|log|exp|max|min|and|inf|pi)\b)[A-Za-z]{3,}"
)
HUGE = re.compile(
    r"\^\s*[{(]*\s*\d+\s*[)}]*\s*\^|\^\s*[{(]*\s*\d{4,}|\d{4,}\s*!|!\s*!|\d{60,}"
)  # sympy would try
LONGEST = 300  # characters of an expression that is worked out
NAMES = {
    "−": "-",
    "–": "-",
    "×": "\\times ",
    "·": "\\cdot ",
    "÷": "/",
    "π": "\\pi ",
    "√": "\\sqrt",
    "≤": "\\le ",
    "≥": "\\ge ",
    "∞": "\\infty ",
    "°": "^\\circ ",
    "²": "^2",
    "³": "^3",
    "\\dfrac": "\\frac",
    "\\tfrac": "\\frac",
    "\\left": "",
    "\\right": "",
    "\\%": "%",
}


def compare_expression(said: str, gold: str) -> Verdict:
    """Whether two expressions are equal: as spelled, as numbers, or mathematically. Order counts in
    tuples, not in sets.
    """
    right = _latex(gold)
    answers = [
        a
        for a in dict.fromkeys(_latex(t) for t in (said, narrow(plain(said)), *readings(said)[2:]))
        if a
    ]
    if not answers:
        return Verdict(0.0, "no expression", None)
    for answer in answers:
        if _spelling(answer) == _spelling(right):
            return Verdict(1.0, f"{answer!r} is right", answer)
    number, _ = one_number(right)
    if number is not None and not re.search(
        r"[A-Za-z(\[{,=]", re.sub(r"\\frac\{\d+\}\{\d+\}|\d,\d{3}", "", right)
    ):
        verdict = compare_number(plain(said), right)
        if verdict.score or verdict.read is not None:
            return verdict
    answer = answers[-1] if PROSE.search(answers[0]) else answers[0]
    if HUGE.search(answer) or len(answer) > LONGEST:
        return Verdict(0.0, f"{answer[:80]!r} is too large to be worked out", answer)
    if PROSE.search(answer) or PROSE.search(right) or re.search(r"\d_", answer + right):
        return Verdict(0.0, f"said {answer!r}, right is {right!r}", answer)
    return _ask(answer, right)


def _ask(answer: str, right: str) -> Verdict:
    from math_verify import verify
    from math_verify.errors import TimeoutException

    timeout = (
        SECONDS if threading.current_thread() is threading.main_thread() else None
    )  # its clock is a signal
    try:
        truth, read = (_parse(text, timeout) for text in (right, answer))
        if not truth:
            return Verdict(
                0.0, f"said {answer!r}, right is {right!r}, which math-verify cannot read", answer
            )
        if not read:
            return Verdict(0.0, f"{answer!r} is not an expression", None)
        same = verify(truth, read, timeout_seconds=timeout)
    except TimeoutException:
        return Verdict(
            0.0, f"no comparison of {answer!r} with {right!r} within {SECONDS} s", answer
        )
    return Verdict(
        float(same),
        f"{answer!r} equals {right!r}" if same else f"said {answer!r}, right is {right!r}",
        answer,
    )


def _parse(text: str, timeout: int | None) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    limit: Any = timeout  # the library documents None and does not declare it
    config = [LatexExtractionConfig()]
    return parse(
        f"${text}$", extraction_config=config, fallback_mode="no_fallback", parsing_timeout=limit
    )


def _latex(text: str) -> str:
    inner = extract(text) if "<answer>" in text or "\\boxed{" in text else text
    bare = TEXT.sub(r" \1 ", (inner or "").replace("\\$", ""))
    bare = LATEX_SPACE.sub(" ", MARKUP.sub("", bare))
    for name, latex in NAMES.items():
        bare = re.sub(
            re.escape(name) + (r"(?![A-Za-z])" if name[0] == "\\" and name != "\\%" else ""),
            lambda _, to=latex: to,
            bare,
        )
    return " ".join(
        re.sub(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", bare).split()
    ).strip(" .;,")


def _spelling(latex: str) -> str:
    return re.sub(r"\s+", "", latex)
