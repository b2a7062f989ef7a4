"""Which options a reply chooses: by letter in any of the usual layouts, or by the text of the
option.

A letter counts where it stands as a letter: alone, in brackets, before a mark (`B.`, `B)`, `B:`),
or after "option", "choice" or "the answer is". The article "A" and the pronoun "I" are words: "A
dog" chooses nothing unless it is an option's text. When a letter comes with a text ("B. 24"), the
text must not be that of another option.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from franken.tasks.graders.compare import readings, word_of
from franken.tasks.graders.extract import affirmed, narrow
from franken.tasks.graders.numbers import read_numbers

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ALONE = re.compile(r"[(\[]?([A-Za-z])[)\].:]*")
LABELLED = re.compile(
    r"(?:[(\[]([A-Za-z])[)\]][.:]?|([A-Za-z])[).:]|([A-Z])\s+(?:[-–—]|(?=\(\S{2})))\s*(\S.*)?",
    re.DOTALL,
)
OPENING = re.compile(
    r"(?:so|thus|therefore|hence|finally)\b,?\s*|it(?:['’]s| is)\s+|"
    r"i(?:['’]d| would|['’]ll| will)?\s+(?:choose|pick|select|say|go with)\s+",
    re.IGNORECASE,
)
NAMED = re.compile(
    r"(?:the )?(?:correct )?(?:option|choice|answer|letter)\s*(?P<open>[(\[]?)([A-Z])\b(?!['’])(?P<close>[)\]]?)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
IN_BRACKETS = re.compile(r"[(\[]([A-Z])[)\]]")
SEVERAL = re.compile(r"\(?[A-Z]\)?(?:\s*(?:,|;|&|\band\b|,\s*and\b)\s*\(?[A-Z]\)?)+\.?")
BEFORE_REASON = re.compile(
    r"([A-Z])(?:[,.;:)]|\s*$|\s+(?:because|since|as|is correct|which|with|for)\b)"
)


def right_options(gold: str, options: Sequence[str]) -> frozenset[str]:
    """The letters of the right answer: given as letters, or as the text of an option. Raises
    ValueError when it is neither.
    """
    allowed = LETTERS[: len(options)] if options else LETTERS
    texts = [i for i, option in enumerate(options) if _same_text(gold, option)]
    if texts and not (ALONE.fullmatch(gold) and gold.strip("()[].: ").upper() in allowed):
        return frozenset(LETTERS[texts[0]])
    if ALONE.fullmatch(gold) or SEVERAL.fullmatch(gold):
        letters = frozenset(re.findall(r"\b[A-Za-z]\b", gold.replace("and", ",").upper()))
        if letters and letters <= set(allowed):
            return letters
    labelled = LABELLED.fullmatch(gold)
    letter = next((g for g in labelled.groups()[:3] if g), "").upper() if labelled else ""
    if letter and letter in allowed:
        return frozenset(letter)
    raise ValueError(f"the right answer {gold!r} is none of the options")


def read_options(said: str, options: Sequence[str]) -> tuple[frozenset[str], str]:
    """The letters that a reply chooses; empty with the reason when it chooses none, or none
    clearly.
    """
    allowed = LETTERS[: len(options)] if options else LETTERS
    rest = narrow(said).strip()
    letters = _letters(
        OPENING.sub("", rest, count=1) if OPENING.match(rest) else rest, options
    ) or (_letters(said.strip(), options) if rest != said else None)
    if letters is None:
        by_text = {
            LETTERS[i]
            for r in readings(said)
            for i, option in enumerate(options)
            if _same_text(r, option)
        }
        by_text = by_text or _by_value(rest, options)
        if len(by_text) == 1:
            return frozenset(by_text), ""
        return frozenset(), f"{said!r} chooses {'several options' if by_text else 'no option'}"
    chosen, text = letters
    if not chosen <= set(allowed):
        return (
            frozenset(),
            f"{', '.join(sorted(chosen))} is not among the options {allowed[0]} to {allowed[-1]}",
        )
    others = {LETTERS[i] for i, option in enumerate(options) if text and _same_text(text, option)}
    if others and not others & chosen:
        return (
            frozenset(),
            f"letter {', '.join(sorted(chosen))} and text {text!r} (option {min(others)}) disagree",
        )
    return chosen, ""


def _letters(text: str, options: Sequence[str]) -> tuple[frozenset[str], str] | None:
    """(letters, the text beside them) of one reading; None when no letter stands as one."""
    if ALONE.fullmatch(text):
        return frozenset(text.strip("()[].: ").upper()), ""
    if SEVERAL.fullmatch(text):
        return frozenset(re.findall(r"\b[A-Z]\b", text)), ""
    if any(_same_text(text, option) for option in options):
        return None
    whole, text = text, affirmed(text).strip()
    brackets = set(IN_BRACKETS.findall(text))
    labelled = LABELLED.fullmatch(text)
    if (
        labelled
        and len(brackets) < 2
        and not re.match(r"(?:or|and|,|/)\W*[A-Z]\b", labelled[4] or "")
    ):
        return frozenset(next(g for g in labelled.groups()[:3] if g).upper()), labelled[4] or ""
    if len(brackets) > 1:
        return None
    named = NAMED.fullmatch(text)
    if named and (
        (named["open"] and named["close"])
        or (named[2].isupper() and not re.match(r"\s+[a-z]", named["rest"]))
        or BEFORE_REASON.match(named[2] + named["rest"])
    ):
        return frozenset(named[2].upper()), named["rest"].strip(" :.,-")
    reason = BEFORE_REASON.match(whole)
    if reason and (reason[1] not in "AI" or re.match(r"[A-Z],?\s+because\b", whole)):
        return frozenset(reason[1]), ""
    if len(brackets) == 1:
        return frozenset(brackets), ""
    late = re.search(
        r"\b(?:option|choice|select|choose|pick)\s+[(\[]?([A-Z])\b(?!['’])[)\]]?(?!\s+[a-z]+\s+(?!is\b))",
        text,
    )
    return (frozenset(late[1]), "") if late else None


def _by_value(text: str, options: Sequence[str]) -> set[str]:
    """The options whose number is the one that a text gives without a unit: 145 for 145°, when no
    other has it.
    """
    number = _number(text)
    if number is None or number[1] or number[2]:
        return set()
    values = [_number(option) for option in options]
    return {
        LETTERS[i] for i, value in enumerate(values) if value is not None and value[0] == number[0]
    }


def _same_text(a: str, b: str) -> bool:
    if word_of(a) == word_of(b) or _formula(a) == _formula(b):
        return bool(word_of(a))
    x, y = _number(a), _number(b)
    return x is not None and x == y


def _formula(text: str) -> str:
    """One spelling of simple formulas: 2√{3}, 2\\sqrt{3} and 2 √3 are one."""
    one = (
        text.replace("\\sqrt", "√")
        .replace("\\pi", "π")
        .replace("^\\circ", "°")
        .replace("^{\\circ}", "°")
    )
    return re.sub(r"\s+", "", re.sub(r"(?<=√)\s*\{(\w+)\}|\{(\w)\}", r"\1\2", one))


def _number(text: str) -> tuple[Fraction, bool, str | None] | None:
    """A text that is one number and nothing else, with its unit and percent sign; None otherwise."""
    found = read_numbers(text.strip())
    if len(found) != 1:
        return None
    number = found[0]
    outside = text.strip()[: number.start] + text.strip()[number.end :]
    return (number.value, number.percent, number.unit) if not outside.strip(" .%\\") else None
