"""Colour hue: tiles of a colour gradient out of order. The least number of swaps that restores it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

from franken.tasks.puzzles.solved import Solved, Unsolvable

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Hues:
    """The board as it should be and as it is, tile by tile in reading order."""

    ideal: tuple[Colour, ...]
    shuffled: tuple[Colour, ...]


@dataclass(frozen=True)
class Swaps:
    """The minimum number of swaps of any two tiles."""


def solve(state: Hues, query: Swaps = Swaps()) -> Solved:
    """The minimum number of swaps: tiles minus cycles, the best over tiles of one colour where there are such."""
    if sorted(state.ideal) != sorted(state.shuffled):
        raise Unsolvable("the boards differ in their tiles", why="no swap changes a tile's colour")
    goes_to = max(_orders(state), key=lambda order: len(cycles(order)))
    found = cycles(goes_to)
    return Solved(
        str(len(goes_to) - len(found)),
        f"a swap splits one cycle at most, and the cycles of places (from 1) are {[[i + 1 for i in c] for c in found]}",
    )


def cycles(order: Sequence[int]) -> list[list[int]]:
    """The cycles of a permutation."""
    left, found = set(range(len(order))), []
    while left:
        cycle = [min(left)]
        while (following := order[cycle[-1]]) != cycle[0]:
            cycle.append(following)
        left -= set(cycle)
        found.append(cycle)
    return found


def _orders(state: Hues) -> list[list[int]]:
    """Where each tile may belong: one permutation when all colours differ."""
    colours = sorted(set(state.ideal))
    homes = [[i for i, colour in enumerate(state.ideal) if colour == c] for c in colours]
    tiles = [[i for i, colour in enumerate(state.shuffled) if colour == c] for c in colours]
    orders = []
    for choice in product(*(permutations(places) for places in homes)):
        order = [0] * len(state.ideal)
        for places, at in zip(choice, tiles, strict=True):
            for place, tile in zip(places, at, strict=True):
                order[tile] = place
        orders.append(order)
    return orders
