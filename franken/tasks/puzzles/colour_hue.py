"""Colour hue: tiles of a colour gradient out of order. The least number of swaps that restores
it.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations, product

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import INK, Colour, cells, paper, write
from franken.tasks.puzzles.solved import Solved, Unsolvable

SMALLEST = 84
STRATEGIES = ("cycles", "swaps")
LAYOUTS = {
    1: ((1, 4), (1, 5)),
    2: ((1, 6), (2, 3), (2, 4)),
    3: ((3, 3), (3, 4), (4, 4)),
}  # rows, columns
MOST_SWAPS = 10
# the least distance of two tiles' colours, in RGB: side by side they can be told from one another
APART = 30


@dataclass(frozen=True)
class Hues:
    """The board as it should be and as it is, tile by tile in reading order."""

    ideal: tuple[Colour, ...]
    shuffled: tuple[Colour, ...]
    rows: int = 1


@dataclass(frozen=True)
class Swaps:
    """The minimum number of swaps of any two tiles."""


def solve(state: Hues, query: Swaps = Swaps()) -> Solved:
    """The minimum number of swaps: tiles minus cycles, the best over tiles of one colour where
    there are such.
    """
    if sorted(state.ideal) != sorted(state.shuffled):
        raise Unsolvable("the boards differ in their tiles", why="no swap changes a tile's colour")
    goes_to = homes(state)
    cycles_left = cycles(goes_to)
    return Solved(
        str(len(goes_to) - len(cycles_left)),
        "a swap splits one cycle at most, and the cycles of places (from 1) are "
        f"{[[i + 1 for i in c] for c in cycles_left]}",
    )


def homes(state: Hues) -> list[int]:
    """Where the tile of each place belongs; where tiles of one colour leave a choice, what takes
    the fewest swaps.
    """
    return max(_orders(state), key=lambda order: len(cycles(order)))


def cycles(order: Sequence[int]) -> list[list[int]]:
    """The cycles of a permutation."""
    left, closed = set(range(len(order))), []
    while left:
        cycle = [min(left)]
        while (following := order[cycle[-1]]) != cycle[0]:
            cycle.append(following)
        left -= set(cycle)
        closed.append(cycle)
    return closed


def _orders(state: Hues) -> list[list[int]]:
    """Where each tile may belong: one permutation when all colours differ."""
    colours = sorted(set(state.ideal))
    belongs = [[i for i, colour in enumerate(state.ideal) if colour == c] for c in colours]
    tiles = [[i for i, colour in enumerate(state.shuffled) if colour == c] for c in colours]
    orders = []
    for choice in product(*(permutations(places) for places in belongs)):
        order = [0] * len(state.ideal)
        for places, at in zip(choice, tiles, strict=True):
            for place, tile in zip(places, at, strict=True):
                order[tile] = place
        orders.append(order)
    return orders


def sample(rng: random.Random, level: int) -> Hues:
    """A gradient of 4 tiles in a row up to 4 × 4; every number of swaps up to ten is as likely."""
    rows, columns = rng.choice(LAYOUTS[level])
    ideal, n = _gradient(rng, rows, columns), rows * columns
    cycle, order = list(range(n)), list(range(n))  # the cycle each place is in, by its first place
    for _ in range(rng.randint(1, min(n - 1, MOST_SWAPS))):
        one, other = rng.sample(range(n), 2)
        while cycle[one] == cycle[other]:
            one, other = rng.sample(range(n), 2)
        order[one], order[other] = order[other], order[one]  # joins two cycles: one swap more
        cycle = [cycle[one] if c == cycle[other] else c for c in cycle]
    return Hues(ideal, tuple(ideal[i] for i in order), rows)


def _gradient(rng: random.Random, rows: int, columns: int) -> tuple[Colour, ...]:
    """Colours blended between the corners', all of them well apart and darker than the paper."""
    while True:
        corners = [[rng.randrange(16, 226) for _ in range(3)] for _ in range(4 if rows > 1 else 2)]
        down, across = rows - 1 or 1, columns - 1
        tiles = []
        for r in range(rows):
            for c in range(columns):
                shares = [(down - r) * (across - c), (down - r) * c, r * (across - c), r * c]
                mixed = (
                    sum(w * k[i] for w, k in zip(shares, corners, strict=False)) for i in range(3)
                )
                tiles.append(tuple(round(value / (down * across)) for value in mixed))
        near = (
            sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) < APART**2
            for pair in combinations(tiles, 2)
        )
        if not any(near):
            return tuple(tiles)


def ask(state: Hues, rng: random.Random) -> Swaps:
    """There is one question."""
    return Swaps()


def questions(state: Hues, query: Swaps) -> tuple[str, ...]:
    """In words, two wordings."""
    return (
        "The board (A) above shows coloured tiles out of order, the board (B) below the same "
        "tiles in their ideal order. A swap exchanges any two tiles. What is the minimum number "
        "of swaps that turns (A) into (B)?",
        "At least how many times must two tiles of the upper board change places, wherever they "
        "are, until it looks like the lower one?",
    )


def steps(state: Hues, query: Swaps) -> StrategySteps:
    """Cycles of places, each of which takes a swap less than it has tiles; or tile after tile
    swapped home.
    """
    order, answer = homes(state), f"answer {solve(state, query).answer}"
    start, own_cycles = f"A holds {_numbers(order)}", cycles(order)
    by_cycle = [f"cycle {_numbers(cycle)}" for cycle in own_cycles]
    swaps, now = [], list(order)
    for place in range(len(now)):
        if (other := now.index(place)) != place:
            now[place], now[other] = now[other], now[place]
            swaps.append(f"swap {place + 1} and {other + 1} makes {_numbers(now)}")
    left = len(order) - len(own_cycles)
    return {
        "cycles": (
            start,
            *by_cycle,
            f"{len(order)} tiles - {len(own_cycles)} cycles = {left}",
            answer,
        ),
        "swaps": (start, *swaps, f"{len(swaps)} swaps restore it", answer),
    }


def _numbers(order: Sequence[int]) -> str:
    """Places, counted from 1 in reading order."""
    return " ".join(str(place + 1) for place in order)


def check(state: Hues, query: Swaps, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. Swaps are made one by one, cycles followed tile by tile."""
    start: list[int] = []
    now: list[int] = []
    cycled: list[list[int]] = []
    swapped = 0
    for step in steps:
        wrong = f"{step!r} is wrong or cannot be read"
        if match := re.fullmatch(r"A holds (\d+(?: \d+)*)", step):
            start = [int(n) - 1 for n in match[1].split()]
            if sorted(start) != list(range(len(state.ideal))) or start != homes(state):
                return wrong
            now = list(start)
        elif match := re.fullmatch(r"cycle (\d+(?: \d+)*)", step):
            cycle = [int(n) - 1 for n in match[1].split()]
            follows = list(zip(cycle, cycle[1:] + cycle[:1], strict=True))
            if not set(cycle) <= set(range(len(start))) or any(
                start[place] != home for place, home in follows
            ):
                return wrong
            if len(set(cycle)) != len(cycle) or set(cycle) & {
                place for other in cycled for place in other
            }:
                return wrong
            cycled.append(cycle)
        elif match := re.fullmatch(r"(\d+) tiles - (\d+) cycles = (\d+)", step):
            tiles, n, left = map(int, match.groups())
            if (tiles, n, left) != (len(start), len(cycled), tiles - n) or sum(
                map(len, cycled)
            ) != tiles:
                return wrong
        elif match := re.fullmatch(r"swap (\d+) and (\d+) makes (\d+(?: \d+)*)", step):
            one, other = int(match[1]) - 1, int(match[2]) - 1
            if one == other or not {one, other} <= set(range(len(now))):
                return wrong
            now[one], now[other] = now[other], now[one]
            swapped += 1
            if _numbers(now) != match[3]:
                return wrong
        elif match := re.fullmatch(r"(\d+) swaps restore it", step):
            if int(match[1]) != swapped or not now or now != sorted(now):
                return wrong
        elif step != f"answer {solve(state, query).answer}":
            return wrong
    return None if steps and steps[-1].startswith("answer ") else "there is no answer"


def describe(state: Hues) -> str:
    """`hues 1x4 of d73173 e3546c ef7765 fb9a5c order 2 1 4 3`: the tiles of (B), then which of them
    (A) holds where.
    """
    tiles = " ".join(bytes(colour).hex() for colour in state.ideal)
    return (
        f"hues {state.rows}x{len(state.ideal) // state.rows} of {tiles} order "
        f"{_numbers(homes(state))}"
    )


def parse(text: str) -> Hues:
    """The inverse of `describe`. Raises ValueError."""
    match = re.fullmatch(
        r"hues ([1-9]\d*)x([1-9]\d*) of ((?:[0-9a-f]{6} )+)order ([1-9]\d*(?: [1-9]\d*)*)", text
    )
    if not match:
        raise ValueError(f"{text!r} is no pair of boards")
    ideal = tuple(tuple(bytes.fromhex(tile)) for tile in match[3].split())
    order = [int(n) - 1 for n in match[4].split()]
    if len(ideal) != int(match[1]) * int(match[2]) or sorted(order) != list(range(len(ideal))):
        raise ValueError(f"{text!r} has tiles too many, too few or twice")
    return Hues(ideal, tuple(ideal[i] for i in order), int(match[1]))  # pyright: ignore[reportArgumentType]


def facts(state: Hues) -> Facts:
    """The layout, and of every two tiles which one comes first in (A): a swap of two neighbours
    changes one fact.

    Tiles are numbered as in (B). No question depends on the shades themselves.
    """
    order = homes(state)
    sides = {"rows": str(state.rows), "columns": str(len(order) // state.rows)}
    place = {tile: i for i, tile in enumerate(order)}
    pairs = combinations(range(len(order)), 2)
    return sides | {
        f"tiles {a + 1} {b + 1}": "in order" if place[a] < place[b] else "reversed"
        for a, b in pairs
    }


def change(state: Hues, rng: random.Random) -> Hues:
    """Two neighbours in reading order of (A) swapped."""
    tiles = list(state.shuffled)
    at = rng.randrange(len(tiles) - 1)
    tiles[at], tiles[at + 1] = tiles[at + 1], tiles[at]
    return replace(state, shuffled=tuple(tiles))


def distractors(state: Hues, query: Swaps) -> list[str]:
    """The tiles out of place, half of them, the cycles, and numbers nearby."""
    order, right = homes(state), int(solve(state, query).answer)
    moved = sum(place != home for place, home in enumerate(order))
    slips = [
        moved,
        moved // 2,
        len(cycles(order)),
        right + 1,
        right - 1,
        right + 2,
        right - 2,
        right + 3,
    ]
    return [str(n) for n in dict.fromkeys(slips) if n > 0]


def render(state: Hues, size: int, style: int = 0) -> Image.Image:
    """(A) above, (B) below; captions from 120 pixels on."""
    image, pen = paper(size, style)
    named, half = size >= 120, size // 2
    caption = size // 9 if named else 2
    for name, tiles, top in (("(A)", state.shuffled, 0), ("(B)", state.ideal, half)):
        area = (4, top + caption, size - 4, top + half - 3)
        for r, c, box in cells(state.rows, len(tiles) // state.rows, area):
            pen.rectangle(box, tiles[r * len(tiles) // state.rows + c], "white")
        if named:
            write(pen, (half, top + caption / 2), name, caption * 0.7, INK)
    return image
