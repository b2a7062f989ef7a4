"""Move box: the storekeeper's puzzle with one box. How many pushes at least until the box stands on the target?"""

from collections.abc import Iterator
from dataclasses import dataclass

from franken.tasks.puzzles.solved import Solved, Unsolvable, shortest

Cell = tuple[int, int]  # row, column, from the top left, from 0
STEPS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}


@dataclass(frozen=True)
class Warehouse:
    """`walls[row][column]` is True for a brick. Player, box and target stand on floor; the player may cross the target."""

    walls: tuple[tuple[bool, ...], ...]
    player: Cell
    box: Cell
    target: Cell


@dataclass(frozen=True)
class Pushes:
    """The minimum number of pushes; walking costs nothing."""


def solve(state: Warehouse, query: Pushes = Pushes()) -> Solved:
    """The minimum number of pushes. Raises Unsolvable where the box cannot be brought to the target."""
    # After a push the player stands where the box was, so (box, player) has a push as its only kind of move.
    path = shortest((state.box, state.player), lambda at: at[0] == state.target, lambda at: _pushes(state, *at))
    if path is None:
        raise Unsolvable("the box cannot reach the target", why="every position it can be pushed to has been tried")
    pushed = ", ".join(name for name, _ in path) or "the box is there already"
    return Solved(str(len(path)), f"{len(path)} suffice ({pushed}), and breadth-first search finds no shorter way")


def _pushes(state: Warehouse, box: Cell, player: Cell) -> Iterator[tuple[str, tuple[Cell, Cell]]]:
    within = _reach(state, box, player)
    for name, (down, right) in STEPS.items():
        behind, ahead = (box[0] - down, box[1] - right), (box[0] + down, box[1] + right)
        if behind in within and _is_floor(state, ahead):
            yield name, (ahead, box)


def _reach(state: Warehouse, box: Cell, player: Cell) -> set[Cell]:
    seen, todo = {player}, [player]
    while todo:
        row, column = todo.pop()
        for down, right in STEPS.values():
            cell = (row + down, column + right)
            if cell not in seen and cell != box and _is_floor(state, cell):
                seen.add(cell)
                todo.append(cell)
    return seen


def _is_floor(state: Warehouse, cell: Cell) -> bool:
    row, column = cell
    return 0 <= row < len(state.walls) and 0 <= column < len(state.walls[row]) and not state.walls[row][column]
