"""A task: how many cells of the grid are empty?

    franken --plugin task.py eval creature:sft --tasks empties --samples 20
    franken --plugin task.py tasks show empties

It draws the creature's grid of digits, so `GridPuzzle` gives it the picture, the description and
the facts. A world of your own is a class with every method of `franken.tasks.Puzzle` (`render`,
`describe` and `parse` of its states are the larger ones;
`draw_items` and `draw_pairs` in `franken.tasks.puzzle` then make the items and pairs).
"""

import random

from franken.plugins import register
from franken.tasks.grid import CELLS, COLORS, DIGITS, Grid, Thing, filled
from franken.tasks.grid_puzzles import GridPuzzle, digit_grid


class Empties(GridPuzzle):
    """How many cells are empty?"""

    name = "empties"
    world = "digits"  # puzzles of one world draw the same states
    strategies = ("scan",)

    def sample(self, rng: random.Random) -> Grid:
        return digit_grid(rng)

    def ask(self, state: Grid, rng: random.Random) -> None:
        return None  # there is one question a state; otherwise: which cell, which colour, …

    def question(self, state: Grid, query: None) -> str:
        return "How many cells are empty?"

    def answer(self, state: Grid, query: None) -> str:
        return str(len(CELLS) - len(filled(state)))

    def solutions(self, state: Grid, query: None) -> dict[str, str]:
        empty = [cell for i, cell in enumerate(CELLS) if i not in filled(state)]
        return {"scan": f"scan {' '.join([*empty, 'total', self.answer(state, query)])}"}

    def changes(self, state: Grid, query: None, rng: random.Random) -> tuple[int, Thing | None]:
        """The one cell that differs between the two images of a pair, and what it then holds: the
        answer must change.
        """
        index = rng.randrange(len(CELLS))
        return index, None if index in filled(state) else Thing(
            rng.choice(COLORS), rng.choice(DIGITS)
        )


register("task", "empties", Empties())
