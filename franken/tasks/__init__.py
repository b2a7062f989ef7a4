"""What is asked: puzzles with exact ground truth, minimal image pairs, public data, grading."""

from franken import plugins
from franken.errors import unknown
from franken.tasks.grading import grade_item
from franken.tasks.grid_puzzles import Compare, Count, GridPuzzle, Read, Recognise, Sum
from franken.tasks.puzzle import Grade, Item, Pair, Puzzle
from franken.tasks.puzzles import suite
from franken.tasks.vision_functionality import grade_public, is_public, load_folder

__all__ = [
    "Grade",
    "Item",
    "Pair",
    "Puzzle",
    "every_name",
    "get",
    "grade",
    "is_puzzle",
    "load_folder",
    "names",
]

PUZZLES: dict[str, GridPuzzle] = {
    p.name: p for p in (Recognise(), Read(), Count(), Sum(), Compare())
}


def names() -> list[str]:
    """The puzzles of the grid, which the creature can read, in their fixed order: what is asked by
    default.
    """
    return list(PUZZLES)


def every_name() -> list[str]:
    """The grid's puzzles, the eighteen types, and those of plugins."""
    return [*PUZZLES, *suite.NAMES, *plugins.names("task")]


def is_puzzle(task: str) -> bool:
    """Whether `get` knows the task."""
    kind = task.partition("+")[0].partition("@")[0].partition(":")[0]
    return task in PUZZLES or kind in suite.NAMES or task in plugins.names("task")


def get(name: str) -> Puzzle:
    """A puzzle by name; the eighteen types as `NAME[:LEVEL][@SIZE][+choice]`. Raises UsageError for
    an unknown one.
    """
    own = plugins.find("task", name, (*PUZZLES, *suite.NAMES))
    if own is not None:
        return own
    if name in PUZZLES:
        return PUZZLES[name]
    if is_puzzle(name):
        return suite.puzzle_of(name)
    raise unknown("task", name, every_name())


def grade(reply: str, item: Item) -> Grade:
    """Judge a reply to any item, by the rule of its task."""
    if is_puzzle(item.task):
        return get(item.task).grade(reply, item)
    if is_public(item.task):
        return grade_public(reply, item)
    return grade_item(reply, item)
