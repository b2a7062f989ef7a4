"""Which updates of a run keep their weights for good, how many, and how many bytes that is.

A function of the recipe and of how far the run is, and of nothing else: `every` so many updates, or
the powers of two; with `at_most`, the distance between them doubles as often as it must, and those
that fall out go. Whatever is kept at the end was kept at every moment before, so that a run that
was killed and goes on ends with the same ones.
"""

from trainer.recipe import Keep, Recipe

POWERS = "powers"
MOST_POWERS = 32  # of a run that is counted in time: 2³² updates are never reached


def is_kept(keep: Keep, update: int, updates: int) -> bool:
    """Whether the weights after `update` (from 1) are there once a run has made `updates`, the last
    update aside.
    """
    if keep.every == POWERS:
        return update & (update - 1) == 0
    return bool(keep.every) and update % spacing(keep, updates) == 0


def spacing(keep: Keep, updates: int) -> int:
    """Updates from one kept checkpoint to the next: `every`, doubled until at most `at_most` fit
    into `updates`.
    """
    assert isinstance(keep.every, int)
    apart = keep.every
    while keep.at_most and updates // apart > keep.at_most:
        apart *= 2
    return apart


def most_kept(recipe: Recipe) -> int:
    """How many checkpoints stay at the fullest moment: one more than are kept while the next one is
    written, and the last one.
    """
    keep, lengths = recipe.keep, [stage.steps for stage in recipe.stages]
    steps = None if None in lengths else sum(filter(None, lengths))
    if not keep.every:
        return 0
    if keep.every == POWERS:
        return (MOST_POWERS if steps is None else steps.bit_length()) + 1
    assert isinstance(keep.every, int)
    bounds = [keep.at_most + 1] if keep.at_most else []
    bounds += [] if steps is None else [steps // keep.every]
    return min(bounds) + 1
