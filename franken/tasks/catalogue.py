"""What can be asked: every built-in task in a line, and one item of a task in full."""

import importlib
from collections import Counter
from typing import NotRequired, TypedDict

from franken import plugins, tasks
from franken.errors import UsageError
from franken.tasks.puzzle import Split
from franken.tasks.puzzles import suite


class Entry(TypedDict):
    """A task in a line; `smallest` is the least side of a picture of the eighteen types, in
    pixels.
    """

    task: str
    about: str
    strategies: list[str]
    smallest: NotRequired[int]


class Flips(TypedDict):
    """How many pairs were drawn, how many are ineligible, and how many of the others flip a
    fact.
    """

    n: int
    ineligible: int
    facts: dict[str, int]


class Shown(TypedDict):
    """An item without its image, and what its task's pairs flip."""

    task: str
    id: str
    question: str
    options: list[str]
    answer: str
    description: str
    facts: dict[str, str]
    solutions: dict[str, str]
    pairs: Flips


def catalogue() -> list[Entry]:
    """Every built-in task, then those of plugins."""
    grid = [_row(name, type(tasks.get(name)).__doc__, None) for name in tasks.names()]
    types = []
    for name in suite.NAMES:
        module = importlib.import_module(f"franken.tasks.puzzles.{name}")
        types.append(_row(name, module.__doc__, module.SMALLEST))
    return (
        grid
        + types
        + [_row(name, type(tasks.get(name)).__doc__, None) for name in plugins.names("task")]
    )


def _row(name: str, text: str | None, smallest: int | None) -> Entry:
    about = (text or "").strip().splitlines()[0].partition(": ")
    row: Entry = {
        "task": name,
        "about": about[2] or about[0],
        "strategies": list(tasks.get(name).strategies),
    }
    if smallest is not None:
        row["smallest"] = smallest
    return row


def shown(task: str, *, index: int, split: Split, seed: int, pairs: int) -> Shown:
    """The `index`-th item without its image, and how many of the first `pairs` pairs flip each
    fact.
    """
    puzzle = tasks.get(task)
    item = puzzle.items(index + 1, seed, split)[index]
    drawn = puzzle.pairs(pairs, seed, split)
    flipped = Counter(pair.fact for pair in drawn if not pair.ineligible)
    return {
        "task": puzzle.name,
        "id": item.id,
        "question": item.question,
        "options": list(item.options),
        "answer": item.answer,
        "description": item.description,
        "facts": puzzle.facts(item.state),
        "solutions": item.solutions,
        "pairs": {
            "n": len(drawn),
            "ineligible": sum(bool(pair.ineligible) for pair in drawn),
            "facts": dict(flipped.most_common()),
        },
    }


def split_named(text: str) -> Split:
    """`train` or `test`. Raises UsageError."""
    if text == "train" or text == "test":
        return text
    raise UsageError(f"there is no split {text!r}", fix="use train or test")
