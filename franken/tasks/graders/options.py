"""Which options a reply chooses: by letter in any of the usual layouts, or by the text of the
option.

A letter counts where it stands as a letter: alone, in brackets or quotes, before a mark (`B.`,
`B)`, `B:`), before its own option's text, or after "option", "choice" or "the answer is". The
article "A" and the pronoun "I" are words: "A dog" chooses nothing unless it is an option's text.
When a letter comes with a text ("B. 24"), the text must not be that of another option.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from franken.tasks.graders.latex import to_latex
from franken.tasks.graders.numbers import read_numbers
from franken.tasks.graders.reply import affirmed, narrow
from franken.tasks.graders.verdict import Verdict, decide, refuse
from franken.tasks.graders.words import readings, word_of

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ALONE = re.compile(r"[(\[{'\"]*([A-Za-z])[)\]}'\".:,;!]*")
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
    r"(?:the )?(?:correct )?(?:option|choice|answer"
    r"|letter)\s*(?P<open>[(\[]?)([A-Z])\b(?!['’])(?P<close>[)\]]?)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
HEDGED = re.compile(r"\b(?:or|but|also|maybe|perhaps|possibly)\b", re.IGNORECASE)
OTHER = re.compile(r"\b[B-Z]\b(?!['’])")
IN_BRACKETS = re.compile(r"[(\[]([A-Z])[)\]]")
RUN = re.compile(r"[A-Z]{2,}")  # BD: options B and D
SEVERAL = re.compile(r"\(?[A-Z]\)?(?:\s*(?:,|;|&|\band\b|,\s*and\b)\s*\(?[A-Z]\)?)+\.?")
BEFORE_REASON = re.compile(
    r"([A-Z])(?:[,.;:)]|\s*$|\s+(?:because|since|as|is correct|which|with|for)\b)"
)
IS_RIGHT = re.compile(
    r"[(\[\"']?\b([A-Z])[)\]\"']?(?:(?<![AI])[.:)]?\s+[^.;,:]{1,60}?)?\s+(?:is|must be|would be"
    r"|seems)\s+"
    r"(?:(?:the|most)\s+)*(?:correct|right|best|answer)\b"
)
IS_WRONG = re.compile(
    r"[(\[\"']?\b[A-Z]\b[)\]\"']?[^.;,]{0,60}?\s(?:(?:is|are|was)\s+(?:wrong|incorrect|false|not)|"
    r"cannot|(?:ca|is|does|wo|could|would)n['’]t|(?:does|could|would|must|can) not)\b[^.;,]*[.;,]?"
)
LATE = re.compile(
    r"\b(?i:option|choice|select|choose|pick)\s+[(\[]?([A-Z])\b(?!['’])[)\]]?(?!\s+[a-z]+\s+"
    r"(?!is\b))"
)
HAN_LETTER = re.compile(  # 选项 B 正确, 应选 B 项
    r"(?:应?选择?|选项|而是)\s*([A-Z]+)\s*(?:项|选项)?\s*(?:是?正确的?|对)?(?=[.,]|$)"
    r"|\b([A-Z])\s*(?:项\s*(?:是?正确的?|对)?|是?正确的?|对)(?=[.,]|$)"
)
_AROUND = "()[]{}'\".:,;! "
PRONOUN = re.compile(r"(?i)^(?:the answer|it|this|that|they|there)\s+(?=\S)")

NONE: frozenset[str] = frozenset()


class Choice(NamedTuple):
    """The letters that a reply chooses; none with the reason when it chooses none clearly, or when
    its letter and its text name two options.
    """

    letters: frozenset[str]
    why: str = ""
    contradicts: bool = False


def compare_option(text: str, gold: str, options: Sequence[str]) -> Verdict:
    """Letters or texts of options; several layouts. A gold of several letters ("A, C") needs all of
    them and no other.
    """
    right = right_options(gold, options)
    chosen, why, contradicts = read_options(text, options)
    if contradicts:
        return Verdict(0.0, why, text, _named(right), "letters and texts")
    if not chosen:
        return refuse(why)
    return decide(chosen == right, _named(chosen), _named(right), "letters")


def _named(letters: frozenset[str]) -> str:
    return ", ".join(sorted(letters))


def right_options(gold: str, options: Sequence[str]) -> frozenset[str]:
    """The letters of the right answer: given as letters, or as the text of an option. Raises
    ValueError when it is neither.
    """
    allowed = LETTERS[: len(options)] if options else LETTERS
    texts = [i for i, option in enumerate(options) if _same_text(gold, option)]
    if letters := _run(gold, options):
        return letters
    if texts and not (ALONE.fullmatch(gold) and gold.strip(_AROUND).upper() in allowed):
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


def read_options(said: str, options: Sequence[str]) -> Choice:
    """The letters that a reply chooses; empty with the reason when it chooses none, or none
    clearly.
    """
    allowed = LETTERS[: len(options)] if options else LETTERS
    rest = HAN_LETTER.sub(r" \1\2", narrow(said)).strip()
    opened = OPENING.sub("", rest, count=1) if OPENING.match(rest) else rest
    letters = _letters(opened, options) or (
        _letters(said.strip(), options) if opened != said.strip() else None
    )
    if letters is None:
        by_text = (
            _by_text(said, options)
            or _run(rest.strip(_AROUND), options)
            or _by_text(affirmed(said), options)
            or _by_value(rest, options)
        )
        if len(by_text) == 1:
            return Choice(by_text)
        if len(by_text) > 1 and _run(rest.strip(_AROUND), options):
            return Choice(by_text)
        return Choice(NONE, f"{said!r} chooses {'several options' if by_text else 'no option'}")
    chosen, text = letters
    if not chosen <= set(allowed):
        outside = ", ".join(sorted(chosen))
        return Choice(NONE, f"{outside} is not among the options {allowed[0]} to {allowed[-1]}")
    others = _by_text(text, options) if text else frozenset()
    if others and not others & chosen:
        shown = ", ".join(sorted(chosen))
        why = f"letter {shown} and text {text!r} (option {min(others)}) disagree"
        return Choice(NONE, why, contradicts=True)
    return Choice(chosen)


def _run(text: str, options: Sequence[str]) -> frozenset[str]:
    """The letters of `BD`, in their order; empty when the text is no such run, or an option's."""
    allowed = LETTERS[: len(options)]
    in_order = RUN.fullmatch(text) and list(text) == sorted(set(text)) and set(text) <= set(allowed)
    return frozenset(text if in_order and not _by_text(text, options) else "")


def _by_text(said: str, options: Sequence[str]) -> frozenset[str]:
    """The options whose text a reply may give as its answer."""
    texts = [text for reading in readings(said) for text in (reading, PRONOUN.sub("", reading))]
    return frozenset(
        LETTERS[i] for i, option in enumerate(options) if any(_same_text(t, option) for t in texts)
    )


def _letters(text: str, options: Sequence[str]) -> tuple[frozenset[str], str] | None:
    """(letters, the text beside them) of one reading; None when no letter stands as one."""
    if SEVERAL.fullmatch(text):
        return frozenset(re.findall(r"\b[A-Z]\b", text)), ""
    if any(_same_text(text, option) for option in options) and not ALONE.fullmatch(text):
        return None
    whole, text = text, affirmed(IS_WRONG.sub(" ", text)).strip(" .,;:-")
    if ALONE.fullmatch(text):
        return frozenset(text.strip(_AROUND).upper()), ""
    brackets = set(IN_BRACKETS.findall(text))
    if len(brackets) < 2:
        labelled = LABELLED.fullmatch(text)
        if labelled and not re.match(r"(?:or|and|,|/)\W*[A-Z]\b", labelled[4] or ""):
            return frozenset(next(g for g in labelled.groups()[:3] if g).upper()), labelled[4] or ""
        beside = _beside_its_text(text, options)
        if beside:
            return beside
    right = {m[1] for m in IS_RIGHT.finditer(text)}
    if len(right) == 1 and len(brackets | right) == 1:
        return frozenset(right), ""
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
        rest = whole[reason.end() :]
        if HEDGED.search(rest) and OTHER.search(affirmed(rest)):
            return None
        return frozenset(reason[1]), rest.strip(_AROUND)
    if len(brackets) == 1:
        return frozenset(brackets), IN_BRACKETS.sub("", text).strip(_AROUND)
    late = LATE.search(text)
    return (frozenset(late[1]), "") if late else None


def _beside_its_text(text: str, options: Sequence[str]) -> tuple[frozenset[str], str] | None:
    """`B cat`, `B is the cat`: a letter before its own option's text."""
    match = re.fullmatch(r"([A-Z])\s+(?:is\s+)?(\S.*)", text)
    if match is None or match[1] not in LETTERS[: len(options)]:
        return None
    own = _same_text(match[2].strip(" .()"), options[LETTERS.index(match[1])])
    return (frozenset(match[1]), match[2]) if own else None


def _by_value(text: str, options: Sequence[str]) -> frozenset[str]:
    """The options whose number is the one that a text gives without a unit: 145 for 145°, when no
    other has it.
    """
    number = _number(text)
    if number is None or number[1] or number[2]:
        return frozenset()
    values = [_number(option) for option in options]
    return frozenset(
        LETTERS[i] for i, value in enumerate(values) if value is not None and value[0] == number[0]
    )


class Forms(NamedTuple):
    """A text as a word, as a formula and as a number with its percent sign and unit."""

    word: str
    formula: str
    number: tuple[Fraction, bool, str | None] | None


@lru_cache(maxsize=4096)
def _forms(text: str) -> Forms:
    return Forms(word_of(text), _formula(text), _number(text))


def _same_text(a: str, b: str) -> bool:
    x, y = _forms(a), _forms(b)
    if x.word == y.word or x.formula == y.formula:
        return bool(x.word)
    return x.number is not None and x.number == y.number


def _formula(text: str) -> str:
    """One spelling of simple formulas: 2√{3}, 2\\sqrt{3} and 2 √3 are one."""
    return re.sub(r"\s+", "", to_latex(text))


def _number(text: str) -> tuple[Fraction, bool, str | None] | None:
    """A text that is one number and nothing else, with its unit and percent sign; None
    otherwise.
    """
    numbers = read_numbers(text.strip())
    if len(numbers) != 1:
        return None
    number = numbers[0]
    outside = text.strip()[: number.start] + text.strip()[number.end :]
    return (number.value, number.percent, number.unit) if not outside.strip(" .%\\") else None
