"""Lessons about grids as supervised examples; a recipe names them among its tasks."""

import random
from collections.abc import Callable
from functools import partial

from franken.tasks import lessons
from franken.tasks.puzzle import split_of
from trainer.data import Conversation

DIALOGUE_WEIGHT = 2.0


def lesson(
    kind: str, rng: random.Random, *, shares: dict[str, float] | None = None, weight: float = 1.0
) -> Conversation:
    """One lesson about a grid of the training split. `shares` weighs a dialogue's questions."""
    while True:
        grid = lessons.lesson_grid(rng)
        if split_of(lessons.world.describe(grid)) == "train":
            break
    turns = lessons.lesson(kind, grid, rng, shares or lessons.LATE_SHARES)
    return Conversation(lessons.world.render(grid, rng.getrandbits(32)), turns, weight)


LESSONS: dict[str, Callable[[random.Random], Conversation]] = {
    "caption": partial(lesson, "caption"),
    "tally": partial(lesson, "tally"),
    "early-dialogue": partial(
        lesson, "dialogue", shares=lessons.EARLY_SHARES, weight=DIALOGUE_WEIGHT
    ),
    "dialogue": partial(lesson, "dialogue", weight=DIALOGUE_WEIGHT),
}
