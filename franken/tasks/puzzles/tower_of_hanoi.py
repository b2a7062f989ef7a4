"""Tower of Hanoi between any two configurations: the minimum number of moves."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import INK, paper, write
from franken.tasks.puzzles.solved import Solved, Unsolvable, fewest_moves, shortest

Rods = tuple[tuple[int, ...], ...]  # the disks of each rod from the bottom up, by diameter
SMALLEST = 84
STRATEGIES = ("moves", "counting")
RODS = 3
WANTED = {1: (3, 1, 4), 2: (4, 3, 8), 3: (6, 6, 14)}  # level → disks, fewest and most moves
WOOD = (120, 84, 50)
COLOURS = (
    (250, 210, 60),
    (240, 140, 40),
    (215, 60, 50),
    (170, 60, 150),
    (70, 80, 190),
    (50, 150, 200),
    (40, 150, 90),
    (120, 190, 80),
    (90, 90, 100),
)


@dataclass(frozen=True)
class Hanoi:
    """The starting and the ending configuration."""

    start: Rods
    end: Rods


@dataclass(frozen=True)
class Moves:
    """The minimum number of moves from start to end."""


def solve(state: Hanoi, query: Moves = Moves()) -> Solved:
    """The minimum number of moves. Raises Unsolvable when a configuration breaks the rules or disks
    differ.
    """
    for rods in (state.start, state.end):
        if any(lower <= upper for rod in rods for lower, upper in zip(rod, rod[1:], strict=False)):
            raise Unsolvable("a disk lies on a smaller one", why=f"in {rods}")
    return _fewest(state)


@lru_cache(256)
def _fewest(state: Hanoi) -> Solved:
    return fewest_moves(state.start, state.end, moves)


def moves(rods: Rods) -> Iterator[tuple[str, Rods]]:
    """Every legal move, and the configuration after it."""
    for a, source in enumerate(rods):
        for b, target in enumerate(rods):
            if a != b and source and (not target or target[-1] > source[-1]):
                after = list(rods)
                after[a], after[b] = source[:-1], (*target, source[-1])
                yield f"disk {source[-1]} to rod {b + 1}", tuple(after)


def sample(rng: random.Random, level: int) -> Hanoi:
    """3, 4 or 6 disks on three rods; every number of moves in the level's range is as frequent."""
    disks, fewest, most = WANTED[level]
    wanted = rng.randint(fewest, most)
    while True:
        start = _stacked([rng.randrange(RODS) for _ in range(disks)])
        seen, front = {start}, {start}
        for _ in range(wanted):
            front = {after for rods in front for _, after in moves(rods)} - seen
            seen |= front
        if front:
            return Hanoi(start, rng.choice(sorted(front)))


def _stacked(at: list[int]) -> Rods:
    """`at[i]` is the rod of disk i + 1."""
    return tuple(tuple(d for d in range(len(at), 0, -1) if at[d - 1] == rod) for rod in range(RODS))


def _places(rods: Rods) -> list[int]:
    return [rod for _, rod in sorted((disk, r) for r, disks in enumerate(rods) for disk in disks)]


def ask(state: Hanoi, rng: random.Random) -> Moves:
    """There is one question."""
    return Moves()


def questions(state: Hanoi, query: Moves) -> tuple[str, ...]:
    """In words, two wordings."""
    rules = (
        "Only one disk may be moved at a time, always the uppermost disk of a rod, onto an empty "
        "rod or onto a larger disk."
    )
    return (
        "The picture shows a Tower of Hanoi: above how it starts, below how it has to end. "
        f"{rules} What is the least number of moves from the start to the end?",
        "Disks lie on three rods as in the upper half of the picture and have to be brought into "
        f"the position of the lower half. {rules} At least how many moves does that take?",
    )


def steps(state: Hanoi, query: Moves) -> StrategySteps:
    """The moves of a shortest solution; or the number of moves counted from the largest disk down,
    without a search.
    """
    path = shortest(state.start, lambda rods: rods == state.end, moves) or []
    seen, answer = (
        f"start {_show(state.start)} end {_show(state.end)}",
        f"answer {solve(state, query).answer}",
    )
    return {
        "moves": (seen, *(name for name, _ in path), answer),
        "counting": (seen, *_counted(_places(state.start), _places(state.end)), answer),
    }


def _counted(start: list[int], end: list[int]) -> Iterator[str]:
    """The largest disk out of place moves once, or twice by way of the third rod; before, between
    and after, the smaller disks lie gathered on the one rod that is not in its way."""
    large = max((d for d in range(len(start)) if start[d] != end[d]), default=None)
    if large is None:
        yield "no disk moves"
        return
    a, b = start[large], end[large]
    c = 3 - a - b
    yield f"disk {large + 1} is the largest to move from rod {a + 1} to rod {b + 1}"
    smaller, ended = start[:large], end[:large]
    whole = 2**large - 1
    once = (_gather(smaller, c), _gather(ended, c))
    twice = (_gather(smaller, b), _gather(ended, a))
    yield (
        f"moved once with the smaller on rod {c + 1} it takes {once[0]} + 1 + {once[1]} = "
        f"{sum(once) + 1}"
    )
    yield (
        f"moved twice by rod {c + 1} it takes {twice[0]} + 1 + {whole} + 1 + {twice[1]} = "
        f"{sum(twice) + whole + 2}"
    )


def _gather(at: list[int], rod: int) -> int:
    """The moves that bring disks 1, 2 … from their rods to one: each that is elsewhere needs the
    smaller out of the way.
    """
    total = 0
    for disk in range(len(at) - 1, -1, -1):
        if at[disk] != rod:
            total, rod = total + 2**disk, 3 - rod - at[disk]
    return total


def check(state: Hanoi, query: Moves, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. Moves disks between lists; a number of moves to gather disks is
    found by trying all.
    """
    rods, moved = [list(rod) for rod in state.start], 0
    for step in steps[:-1]:
        right = step in (
            f"start {_show(state.start)} end {_show(state.end)}",
            *_right_counts(state, step),
        )
        if match := re.fullmatch(r"disk (\d) to rod ([123])", step):
            disk, to = int(match[1]), rods[int(match[2]) - 1]
            source = next((rod for rod in rods if rod and rod[-1] == disk), None)
            right = source is not None and source is not to and (not to or to[-1] > disk)
            if right and source is not None:
                to.append(source.pop())
                moved += 1
        if not right:
            return f"{step!r} is wrong or cannot be read"
    answer = solve(state, query).answer
    if not steps or steps[-1] != f"answer {answer}":
        return "the answer is wrong or missing"
    if moved and (tuple(map(tuple, rods)) != state.end or str(moved) != answer):
        return f"{moved} moves lead to {_show(tuple(map(tuple, rods)))}"
    return None


def _right_counts(state: Hanoi, step: str) -> list[str]:
    """What can truly be said about the largest disk that moves."""
    if not step.startswith(("moved", "disk", "no disk")):
        return []
    wrong = [
        disk
        for rod, ends in zip(state.start, state.end, strict=True)
        for disk in rod
        if disk not in ends
    ]
    if not wrong:
        return ["no disk moves"]
    disk = max(wrong)
    a, b = (next(r for r in range(RODS) if disk in rods[r]) for rods in (state.start, state.end))
    c = 3 - a - b
    below, above = (
        tuple(tuple(d for d in rod if d < disk) for rod in rods)
        for rods in (state.start, state.end)
    )
    tower = [
        tuple(tuple(range(disk - 1, 0, -1)) if r == rod else () for r in range(RODS))
        for rod in range(RODS)
    ]

    def apart(one: Rods, other: Rods) -> int:
        return int(fewest_moves(one, other, moves).answer)

    one, two = (
        (apart(below, tower[c]), apart(tower[c], above)),
        (apart(below, tower[b]), apart(tower[a], above)),
    )
    between = apart(tower[b], tower[a])
    return [
        f"disk {disk} is the largest to move from rod {a + 1} to rod {b + 1}",
        f"moved once with the smaller on rod {c + 1} it takes {one[0]} + 1 + {one[1]} = "
        f"{sum(one) + 1}",
        f"moved twice by rod {c + 1} it takes {two[0]} + 1 + {between} + 1 + {two[1]} = "
        f"{sum(two) + between + 2}",
    ]


def _show(rods: Rods) -> str:
    """`41/32/65`, the disks of each rod from the bottom up, - for none."""
    return "/".join("".join(map(str, rod)) or "-" for rod in rods)


def describe(state: Hanoi) -> str:
    """`hanoi 41/32/65 to 4/321/65`: the disks of each rod from the bottom up, 1 the smallest, -
    where there is none.
    """
    return f"hanoi {_show(state.start)} to {_show(state.end)}"


def parse(text: str) -> Hanoi:
    """The inverse of `describe`. Raises ValueError."""
    rods = "/".join([r"(-|9?8?7?6?5?4?3?2?1?)"] * RODS)
    match = re.fullmatch(f"hanoi {rods} to {rods}", text)
    if not match or "" in match.groups():
        raise ValueError(f"{text!r} is no Tower of Hanoi on three rods")
    stacks = [tuple(int(disk) for disk in rod if disk != "-") for rod in match.groups()]
    disks = [sorted(d for rod in half for d in rod) for half in (stacks[:RODS], stacks[RODS:])]
    if not disks[0] or disks[0] != list(range(1, len(disks[0]) + 1)) or disks[0] != disks[1]:
        raise ValueError(f"{text!r} does not hold disks 1, 2 … in both halves")
    return Hanoi(tuple(stacks[:RODS]), tuple(stacks[RODS:]))


def facts(state: Hanoi) -> Facts:
    """The rod of each disk, at the start and at the end."""
    halves = {"start": _places(state.start), "end": _places(state.end)}
    return {
        f"{when} disk {d}": str(rod + 1)
        for when, at in halves.items()
        for d, rod in enumerate(at, 1)
    }


def change(state: Hanoi, rng: random.Random) -> Hanoi:
    """One disk on another rod, at the start or at the end."""
    which = rng.choice(("start", "end"))
    at = _places(getattr(state, which))
    at[rng.randrange(len(at))] = rng.randrange(RODS)
    return replace(state, **{which: _stacked(at)})


def render(state: Hanoi, size: int, style: int = 0) -> Image.Image:
    """The start above, the end below; the colour of a disk goes with its size. From 120 pixels on
    the halves are named.
    """
    image, pen = paper(size, style)
    disks, named = sum(map(len, state.start)), size >= 120
    half, column = size / 2, size / RODS
    thick = min(half * 0.72 / disks, half * 0.16)
    for top, rods, name in ((0, state.start, "Start"), (half, state.end, "End")):
        ground = top + half * 0.93
        if named:
            write(pen, (size * 0.01, top + size * 0.035), name, size * 0.045, anchor="lm")
        for r, rod in enumerate(rods):
            x = (r + 0.5) * column
            pen.line((x, top + half * 0.12, x, ground), WOOD, max(2, size // 60))
            for height, disk in enumerate(rod):
                wide = column * (0.2 + 0.75 * disk / disks) / 2
                low = ground - height * thick
                box = tuple(map(round, (x - wide, low - thick, x + wide, low - 1)))
                pen.rectangle(box, COLOURS[(disk - 1) % len(COLOURS)], INK if size >= 120 else None)
        pen.rectangle((size * 0.01, ground, size * 0.99, ground + max(1, size // 80)), WOOD)
    pen.line((0, half, size, half), INK)
    return image
