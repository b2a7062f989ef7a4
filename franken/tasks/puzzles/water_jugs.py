"""Water jugs: pour from jug to jug until one is empty or the other full. The minimum number of pourings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from franken.tasks.puzzles.solved import Solved, fewest_moves

Litres = tuple[int, ...]


@dataclass(frozen=True)
class Jugs:
    """Capacities and contents of the jugs in litres, from left to right."""

    capacities: Litres
    water: Litres


@dataclass(frozen=True)
class Reach:
    """The minimum number of pourings to these contents."""

    goal: Litres


def solve(state: Jugs, query: Reach) -> Solved:
    """The minimum number of pourings. Raises Unsolvable when the goal cannot be reached."""
    return fewest_moves(state.water, query.goal, pourings(state.capacities))


def pourings(capacities: Litres) -> Callable[[Litres], Iterator[tuple[str, Litres]]]:
    """The pourings that jugs of these capacities allow: a function of what they hold."""

    def pour(water: Litres) -> Iterator[tuple[str, Litres]]:
        for a, source in enumerate(water):
            for b, target in enumerate(water):
                litres = min(source, capacities[b] - target)
                if a != b and litres > 0:
                    after = list(water)
                    after[a], after[b] = source - litres, target + litres
                    yield f"jug {a + 1} into jug {b + 1}", tuple(after)

    return pour
