"""`fidelity`: F1 of the facts in the image description, the perception-aware reward that arXiv
2601.00215 calls for and nobody has tried.

    stated = the distinct (slot, value) statements of the description; true = those of the state
    precision = |stated ∩ true| / |stated|, recall = |stated ∩ true| / |true|, F1 = harmonic mean

Saying a fact twice changes nothing, and listing several values for one slot costs precision:
neither repeating nor listing everything raises it. A description that the puzzle can parse is read
that way; any other is read slot by slot: what stands between the name of a slot and the next one is
its value. An item without facts is an error, since nothing could be paid.
"""

import re
from collections.abc import Sequence

from franken import tasks
from franken.errors import FrankenError
from franken.generate.native import Response
from franken.tasks import Item
from franken.tasks.grading import normalise
from franken.tasks.puzzle import Facts
from trainer.rewards.registry import REWARDS, Context
from trainer.templates import DESCRIPTION, section

Statements = set[tuple[str, str]]


@REWARDS.register("fidelity", template="describe-think-answer", paper="after arXiv 2601.00215")
def fidelity(responses: Sequence[Response], items: Sequence[Item], context: Context) -> list[float]:
    """F1 of the description's facts in [0, 1]; 0 without a description."""
    return [
        f1(section(response.text, DESCRIPTION) or "", item)
        for response, item in zip(responses, items, strict=True)
    ]


def f1(description: str, item: Item) -> float:
    """F1 of a description of the item's image. Raises FrankenError for an item without facts."""
    true = true_facts(item)
    statements = stated(description, item, [slot for slot, _ in true])
    hits = len(statements & true)
    return 2 * hits / (len(statements) + len(true)) if statements else 0.0


def true_facts(item: Item) -> Statements:
    """The facts of the item's state. Raises FrankenError where there are none."""
    if item.state is None or not tasks.is_puzzle(item.task):
        raise FrankenError(
            f"{item.id} has no facts",
            why="fidelity pays for facts of puzzles",
            fix="use another reward",
        )
    return _normalised(tasks.get(item.task).facts(item.state))


def stated(description: str, item: Item, slots: Sequence[str]) -> Statements:
    """The distinct statements of a description."""
    text = " ".join(description.split())
    puzzle = tasks.get(item.task)
    try:
        return _normalised(puzzle.facts(puzzle.parse(text)))
    except ValueError:  # not a whole description
        names = "|".join(re.escape(slot) for slot in sorted(slots, key=len, reverse=True))
        pieces = re.split(rf"(?<!\w)({names})(?!\w)", text)
        return {
            (slot, normalise(value.strip(" :,;.")))
            for slot, value in zip(pieces[1::2], pieces[2::2], strict=True)
        }


def _normalised(facts: Facts) -> Statements:
    return {(slot, normalise(value)) for slot, value in facts.items()}
