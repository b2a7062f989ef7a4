"""What is asked: puzzles with exact ground truth, minimal image pairs, public data, grading."""

from franken.errors import UsageError, did_you_mean
from franken.tasks.grading import grade_exact
from franken.tasks.grid_puzzles import Compare, Count, GridPuzzle, Read, Recognise, Sum
from franken.tasks.puzzle import Grade, Item, Pair, Puzzle
from franken.tasks.vision_functionality import grade_public, is_public, load_folder

__all__ = ["Grade", "Item", "Pair", "Puzzle", "get", "grade", "load_folder", "names"]

PUZZLES: dict[str, GridPuzzle] = {p.name: p for p in (Recognise(), Read(), Count(), Sum(), Compare())}


def names() -> list[str]:
    """The built-in puzzles, in their fixed order."""
    return list(PUZZLES)


def get(name: str) -> GridPuzzle:
    """A puzzle by name. Raises UsageError for an unknown one."""
    if name not in PUZZLES:
        raise UsageError(
            f"unknown task {name!r}",
            why=f"the tasks are {', '.join(PUZZLES)}",
            fix=did_you_mean(name, PUZZLES) or "pick one of them",
        )
    return PUZZLES[name]


def grade(reply: str, item: Item) -> Grade:
    """Judge a reply to any item, by the rule of its task."""
    if item.task in PUZZLES:
        return PUZZLES[item.task].grade(reply, item)
    if is_public(item.task):
        return grade_public(reply, item)
    return grade_exact(reply, item.answer)
