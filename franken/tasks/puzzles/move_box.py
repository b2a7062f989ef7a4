"""Move box: the storekeeper's puzzle with one box. How many pushes at least until the box stands on
the target?
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import cells, paper
from franken.tasks.puzzles.move_box_drawing import draw_box, draw_brick, draw_flag, draw_player
from franken.tasks.puzzles.solved import Solved, Unsolvable, shortest

Cell = tuple[int, int]  # row, column, from the top left, from 0
STEPS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}
SMALLEST = 84
STRATEGIES = ("pushes", "waves")
BRICK, FLOOR, PLAYER, BOX, FLAG = "#.PBF"
WANTED = {1: (6, 1, 4), 2: (7, 2, 6), 3: (8, 4, 8)}  # level → side, fewest and most pushes


@dataclass(frozen=True)
class Warehouse:
    """`walls[row][column]` is True for a brick. Player, box and target stand on floor; the player
    may cross the target.
    """

    walls: tuple[tuple[bool, ...], ...]
    player: Cell
    box: Cell
    target: Cell


@dataclass(frozen=True)
class Pushes:
    """The minimum number of pushes; walking costs nothing."""


def solve(state: Warehouse, query: Pushes = Pushes()) -> Solved:
    """The minimum number of pushes. Raises Unsolvable where the box cannot be brought to the
    target.
    """
    path = _path(state)
    if path is None:
        raise Unsolvable(
            "the box cannot reach the target",
            why="every position it can be pushed to has been tried",
        )
    pushed = ", ".join(name for name, _ in path) or "the box is there already"
    return Solved(
        str(len(path)),
        f"{len(path)} suffice ({pushed}), and breadth-first search finds no shorter way",
    )


@lru_cache(256)
def _path(state: Warehouse) -> list[tuple[str, tuple[Cell, Cell]]] | None:
    # After a push the player stands where the box was, so (box, player) has a push as its only kind
    # of move.
    return shortest(
        (state.box, state.player), lambda at: at[0] == state.target, lambda at: _pushes(state, *at)
    )


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
    return (
        0 <= row < len(state.walls)
        and 0 <= column < len(state.walls[row])
        and not state.walls[row][column]
    )


def waves(state: Warehouse, enough: int) -> list[list[Cell]]:
    """The cells that the box can first reach after 0, 1, 2 … pushes, in reading order; `enough`
    pushes at most.
    """
    front, seen, boxes = [(state.box, state.player)], {(state.box, state.player)}, {state.box}
    reached = [[state.box]]
    while front and len(reached) <= enough:
        after = {at for box, player in front for _, at in _pushes(state, box, player)}
        front = [at for at in after if at not in seen]
        seen.update(front)
        reached.append(sorted({box for box, _ in front} - boxes))
        boxes.update(reached[-1])
    return reached


def sample(rng: random.Random, level: int) -> Warehouse:
    """A walled yard of 6 × 6, 7 × 7 or 8 × 8 cells with some bricks; every number of pushes is as
    frequent.
    """
    side, fewest, most = WANTED[level]
    wanted = rng.randint(fewest, most)
    inner = [(r, c) for r in range(1, side - 1) for c in range(1, side - 1)]
    while True:
        bricks = set(rng.sample(inner, rng.randint(len(inner) // 8, len(inner) // 4)))
        floor = [cell for cell in inner if cell not in bricks]
        walls = tuple(
            tuple(not ((r, c) in inner and (r, c) not in bricks) for c in range(side))
            for r in range(side)
        )
        box, player = rng.sample(floor, 2)
        state = Warehouse(walls, player, box, box)
        reached = waves(state, wanted)
        ends = [cell for cell in reached[wanted] if cell != player] if len(reached) > wanted else []
        if ends:
            return replace(state, target=rng.choice(ends))


def ask(state: Warehouse, rng: random.Random) -> Pushes:
    """There is one question."""
    return Pushes()


def questions(state: Warehouse, query: Pushes) -> tuple[str, ...]:
    """In words, two wordings."""
    return (
        "The picture shows a warehouse of brick walls and free floor, a person, a box and a flag. "
        "The person walks up, down, left and right over free cells and the flag, never through "
        "the box. Walking into the box pushes it one cell on, if the cell behind it is free or "
        "holds the flag. What is the least number of pushes that brings the box to the flag? "
        "Walking costs nothing.",
        "A person moves about the free floor of this warehouse in four directions, and can push "
        "the box from the cell beside it straight ahead by one cell, if no brick is there; the "
        "box cannot be pulled or walked through, the flag is no obstacle. At least how many "
        "pushes does it take until the box stands on the flag?",
    )


def steps(state: Warehouse, query: Pushes) -> StrategySteps:
    """A shortest row of pushes; or every cell that the box can reach, push by push."""
    least = int(solve(state, query).answer)
    seen = f"person {_name(state.player)} box {_name(state.box)} flag {_name(state.target)}"
    pushes = [
        f"push {name} from {_name(_before(name, player))} puts the box on {_name(box)}"
        for name, (box, player) in _path(state) or ()
    ]
    reached = [
        f"after {n} {' '.join(map(_name, cells))}" for n, cells in enumerate(waves(state, least))
    ]
    return {
        "pushes": (seen, *pushes, f"answer {least}"),
        "waves": (seen, *reached, f"answer {least}"),
    }


def _before(name: str, box: Cell) -> Cell:
    return box[0] - STEPS[name][0], box[1] - STEPS[name][1]


def _name(cell: Cell) -> str:
    return f"r{cell[0] + 1}c{cell[1] + 1}"


def check(state: Warehouse, query: Pushes, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. Walks cell by cell, on its own."""
    at, pushed = (state.player, state.box), 0
    rounds = _rounds(state) if any(step.startswith("after") for step in steps) else []
    for step in steps[:-1]:
        right = (
            step
            == f"person {_name(state.player)} box {_name(state.box)} flag {_name(state.target)}"
        )
        if match := re.fullmatch(r"push (\w+) from r\d+c\d+ puts the box on r\d+c\d+", step):
            down, across = STEPS.get(match[1], (0, 0))
            (r, c), pushed = at[1], pushed + 1
            stand, to = (r - down, c - across), (r + down, c + across)
            can = (stand, at[1]) in _walk(state, {at}) and (at[1], to) in _step(
                state, (stand, at[1])
            )
            right = (
                can and step == f"push {match[1]} from {_name(stand)} puts the box on {_name(to)}"
            )
            at = (at[1], to)
        elif match := re.fullmatch(r"after (\d+) .+", step):
            n = int(match[1])
            right = (
                n < len(rounds) and step == f"after {n} {' '.join(map(_name, sorted(rounds[n])))}"
            )
        if not right:
            return f"{step!r} is wrong or cannot be read"
    answer = solve(state, query).answer
    if not steps or steps[-1] != f"answer {answer}":
        return "the answer is wrong or missing"
    if pushed and (at[1] != state.target or str(pushed) != answer):
        return f"{pushed} pushes leave the box at {_name(at[1])}"
    return None


def _step(state: Warehouse, at: tuple[Cell, Cell]) -> list[tuple[Cell, Cell]]:
    """(person, box) after each single step of the person."""
    (r, c), box = at
    after = []
    for down, across in STEPS.values():
        to, beyond = (r + down, c + across), (r + 2 * down, c + 2 * across)
        if to == box and _is_floor(state, beyond):
            after.append((to, beyond))
        elif to != box and _is_floor(state, to):
            after.append((to, box))
    return after


def _walk(state: Warehouse, ats: set[tuple[Cell, Cell]]) -> set[tuple[Cell, Cell]]:
    """All that walking alone leads to."""
    while True:
        grown = ats | {after for at in ats for after in _step(state, at) if after[1] == at[1]}
        if grown == ats:
            return ats
        ats = grown


def _rounds(state: Warehouse) -> list[set[Cell]]:
    """The cells that the box first reaches after 0, 1, 2 … pushes."""
    ats = seen = _walk(state, {(state.player, state.box)})
    rounds = [{state.box}]
    while ats and state.target not in rounds[-1]:
        ats = (
            _walk(
                state,
                {after for at in ats for after in _step(state, at) if after[1] != at[1]} - seen,
            )
            - seen
        )
        rounds.append({box for _, box in ats} - {box for _, box in seen})
        seen = seen | ats
    return rounds


def describe(state: Warehouse) -> str:
    """`warehouse` and the rows: # brick, . floor, P person, B box, F flag."""
    grid = [[BRICK if brick else FLOOR for brick in row] for row in state.walls]
    for (r, c), letter in ((state.player, PLAYER), (state.box, BOX), (state.target, FLAG)):
        grid[r][c] = letter
    return "warehouse " + "/".join("".join(row) for row in grid)


def parse(text: str) -> Warehouse:
    """The inverse of `describe`. Raises ValueError."""
    match = re.fullmatch(r"warehouse ([#.PBF]+(?:/[#.PBF]+)*)", text)
    rows = match[1].split("/") if match else []
    if len({len(row) for row in rows}) != 1 or any(text.count(letter) != 1 for letter in "PBF"):
        raise ValueError(f"{text!r} is no warehouse with one person, one box and one flag")
    at = {letter: (r, c) for r, row in enumerate(rows) for c, letter in enumerate(row)}
    walls = tuple(tuple(letter == BRICK for letter in row) for row in rows)
    return Warehouse(walls, at[PLAYER], at[BOX], at[FLAG])


def facts(state: Warehouse) -> Facts:
    """Whether each cell is brick or floor, and where person, box and flag are."""
    slots = {"person": _name(state.player), "box": _name(state.box), "flag": _name(state.target)}
    for r, row in enumerate(state.walls):
        slots |= {_name((r, c)): "brick" if brick else "floor" for c, brick in enumerate(row)}
    return slots


def change(state: Warehouse, rng: random.Random) -> Warehouse:
    """Person, box or flag on another free cell; or a brick more or less inside."""
    taken = {state.player, state.box, state.target}
    inner = [
        (r, c) for r in range(1, len(state.walls) - 1) for c in range(1, len(state.walls[r]) - 1)
    ]
    cell = rng.choice([cell for cell in inner if cell not in taken] or [state.player])
    what = rng.choice(("player", "box", "target", "brick"))
    if cell in taken or (what != "brick" and not _is_floor(state, cell)):
        return state
    if what != "brick":
        return replace(state, **{what: cell})
    walls = [list(row) for row in state.walls]
    walls[cell[0]][cell[1]] = not walls[cell[0]][cell[1]]
    return replace(state, walls=tuple(map(tuple, walls)))


def render(state: Warehouse, size: int, style: int = 0) -> Image.Image:
    """Bricks, floor, a person, a box and a chequered flag. The bond of the bricks follows from
    `style`.
    """
    image, pen = paper(size, style)
    bond = random.Random(style).randrange(2)
    for r, c, box in cells(len(state.walls), len(state.walls[0]), (0, 0, size, size)):
        if state.walls[r][c]:
            draw_brick(pen, box, bond)
        elif (r, c) == state.player:
            draw_player(pen, box)
        elif (r, c) == state.box:
            draw_box(pen, box)
        elif (r, c) == state.target:
            draw_flag(pen, box)
    return image
