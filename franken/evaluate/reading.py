"""What a reply shows beyond right or wrong: which facts it has, where it fails, and the shape of
its reasoning.

A wrong answer is of one of five kinds, the first that applies: `never stops` (cut off at the
longest length), `self-contradiction` (the answer given is not the one its reasoning ends in),
`perception` (the reasoning states a fact of the image wrongly), `algorithm` (it states facts, all
of them right, and errs behind them), `unclear` (it states none that could be checked, or what is
wrong may be either). The first four are the error kinds of the AlgoPuzzleVQA study; the fifth is
what cannot be told, which the study has none of.

The counts are of words, by the lists below: a rough measure, the same for every model.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypedDict

from franken.evaluate.hints import needed_slots, puzzle_of
from franken.tasks.grading import normalise, reasoning
from franken.tasks.puzzle import Facts

if TYPE_CHECKING:
    from franken.tasks import Grade, Item

NEVER_STOPS, CONTRADICTION, PERCEPTION, ALGORITHM, UNCLEAR = KINDS = (
    "never stops",
    "self-contradiction",
    "perception",
    "algorithm",
    "unclear",
)
CONCLUDES = re.compile(
    r"(?:^|\s)(?:total|=|so|answer(?: is)?|therefore|thus|hence)[:,]?(?=\s|$)", re.IGNORECASE
)
REFLECTS = re.compile(
    r"\b(?:wait|hmm+|actually|alternatively|however|mistake|re-?(?:check|consider|think|examine|verify)\w*"
    r"|(?:double|let me|let's)[ -](?:check|verify)|verify)\b",
    re.IGNORECASE,
)
REFERS = re.compile(
    r"\b(?:image|picture|figure|diagram|chart|graph|photo|shown|depicted|visible|see|"
    r"look(?:s|ing)? at)\b",
    re.IGNORECASE,
)
STEP_ENDS = re.compile(r"\n+|;\s|(?<=[.!?])\s+")


def error_kind(reply: str, item: Item, grade: Grade, *, truncated: bool) -> str:
    """Why a wrong reply is wrong, one of `KINDS`."""
    if truncated:
        return NEVER_STOPS
    thought = reasoning(reply)
    if (
        thought
        and grade.answer is not None
        and not any(concludes(thought, a) for a in _spelt(grade.answer, item))
    ):
        return CONTRADICTION
    misread = getattr(puzzle_of(item), "misread", None)
    wrong = misread(thought, item) if misread and thought else None
    if wrong is None:
        return UNCLEAR
    return PERCEPTION if wrong else ALGORITHM


def _spelt(answer: str, item: Item) -> tuple[str, ...]:
    """An answer, and the text of the option whose letter it is: the reasoning may end in either."""
    texts = dict(zip("ABCDEFGH", item.options, strict=False))
    return (answer, *([texts[answer]] if answer in texts else []))


def concludes(thought: str, answer: str) -> bool:
    """Whether the reasoning ends in the answer: it stands behind the last `so`, `=`, `total`, …, or
    anywhere without one.
    """
    ends = list(CONCLUDES.finditer(thought))
    conclusion = thought[ends[-1].end() :] if ends else thought
    return (
        re.search(
            rf"(?<!\w){re.escape(normalise(answer))}(?!\w)", " ".join(conclusion.lower().split())
        )
        is not None
    )


def compare_facts(reply: str, item: Item) -> tuple[float, list[str], bool]:
    """A description against the facts: (share of all facts right, slots that the question needs and
    that are wrong, read whole).

    A reply that is no whole description is read slot by slot: what stands between the first naming
    of a slot and the next slot is its value.
    """
    puzzle = puzzle_of(item)
    assert puzzle is not None  # only of a puzzle can a description be asked for
    facts = puzzle.facts(item.state)
    text = " ".join(re.sub(r"</?\w+>", " ", reply).split())
    whole = True
    try:
        said = puzzle.facts(puzzle.parse(text))
    except ValueError:
        said, whole = _by_slot(text, facts), False
    right = {
        slot: normalise(said.get(slot, "")) == normalise(value) for slot, value in facts.items()
    }
    chain = next(iter(item.solutions.values()), "")
    wrong = [slot for slot in needed_slots(chain, facts) if not right[slot]]
    return sum(right.values()) / max(len(right), 1), wrong, whole


def _by_slot(text: str, facts: Facts) -> Facts:
    names = "|".join(re.escape(slot) for slot in sorted(facts, key=len, reverse=True))
    pieces = re.split(rf"(?<!\w)({names})(?!\w)", text) if names else []
    values: Facts = {}
    for slot, value in zip(pieces[1::2], pieces[2::2], strict=True):
        values.setdefault(slot, value.strip(" :,;."))
    return values


class Shape(TypedDict):
    """Counts over the reasoning: `reflections` are words of doubt, `references` words for looking
    and named slots.
    """

    steps: int
    reflections: int
    references: int


def shape(reply: str, item: Item) -> Shape:
    """The counts of a reply. Steps are lines, sentences and parts between semicolons; in a chain
    that is one such part, the slots it visits and its conclusion.
    """
    thought = reasoning(reply)
    puzzle = puzzle_of(item)
    slots = set(puzzle.facts(item.state)) if puzzle is not None else set()
    visits = sum(word.strip(",.;:") in slots for word in thought.split())
    parts = [part for part in STEP_ENDS.split(thought) if part.strip()]
    steps = visits + bool(CONCLUDES.search(thought)) if len(parts) == 1 and visits else len(parts)
    references = len(REFERS.findall(thought)) + visits
    return {"steps": steps, "reflections": len(REFLECTS.findall(thought)), "references": references}
