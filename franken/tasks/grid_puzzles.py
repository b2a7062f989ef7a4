"""Five puzzles on the grid: recognise, read, count, sum, compare.

`recognise` and `read` need one look at one cell. `count` needs all cells; `sum` and `compare` need
two looks and a computation. The last three can be solved by several strategies that show in the
chain of thought: walking the grid by rows or by columns, scanning for hits, going forwards or
backwards, or answering at a glance. The strategies differ in how often they succeed, which is what
reinforcement learning can find out.
"""

import random
import re
from typing import Generic

from PIL import Image

from franken.tasks import grid as world
from franken.tasks.grading import grade_exact, reasoning
from franken.tasks.grid import CELLS, COLORS, DIGITS, SHAPES, Grid, Thing
from franken.tasks.puzzle import (
    Facts,
    Grade,
    Item,
    Pair,
    Query,
    Solutions,
    Span,
    Split,
    draw_items,
    draw_pairs,
)

NO_REASONING = "none"
CONCLUSIONS = ("total", "=", "so")  # what follows is computed, not seen


class GridPuzzle(Generic[Query]):
    """What the five share: the world, and how replies are judged."""

    name: str
    world: str
    strategies: tuple[str, ...] = ("scan",)
    describe_prompt = "Describe rows"  # in the words of franken/tasks/lessons.py

    def sample(self, rng: random.Random) -> Grid:
        raise NotImplementedError

    def ask(self, state: Grid, rng: random.Random) -> Query:
        raise NotImplementedError

    def question(self, state: Grid, query: Query) -> str:
        raise NotImplementedError

    def answer(self, state: Grid, query: Query) -> str:
        raise NotImplementedError

    def solutions(self, state: Grid, query: Query) -> Solutions:
        raise NotImplementedError

    def choices(self, state: Grid, query: Query) -> tuple[str, ...]:
        return ()

    def changes(self, state: Grid, query: Query, rng: random.Random) -> tuple[int, Thing | None]:
        """Which cell a twin changes, and to what."""
        raise NotImplementedError

    def render(self, state: Grid, *, style: int = 0) -> Image.Image:
        return world.render(state, style)

    def describe(self, state: Grid) -> str:
        return world.describe(state)

    def parse(self, text: str) -> Grid:
        return world.parse(text)

    def facts(self, state: Grid) -> Facts:
        return world.facts(state)

    def twin(self, state: Grid, query: Query, rng: random.Random) -> tuple[Grid, str]:
        index, thing = self.changes(state, query, rng)
        return state[:index] + (thing,) + state[index + 1 :], CELLS[index]

    def grade(self, reply: str, item: Item) -> Grade:
        return grade_exact(reply, item.answer)

    def strategy(self, reply: str) -> str:
        first = reasoning(reply).split(" ", 1)[0]
        return first if first in self.strategies else "other" if first else NO_REASONING

    def misread(self, thought: str, item: Item) -> list[str] | None:
        """The cells that a chain of thought states wrongly; None when it states nothing about any
        cell.
        """
        said, facts = stated(thought, self.world), self.facts(item.state)
        return (
            [cell for cell, words in said if not words <= set(facts[cell].split())]
            if said
            else None
        )

    def observations(self, thought: str) -> list[Span]:
        """Where a chain of thought says what the picture shows: cells and what is in them, before
        it concludes. Running counts are computed, not seen.
        """
        seen = _vocabulary(self.world) | set(CELLS)
        spans: list[Span] = []
        for word in re.finditer(r"\S+", thought):
            if word.group() in CONCLUSIONS:
                break
            if word.group() in seen:
                spans.append(word.span())
        return spans

    def items(self, n: int, seed: int, split: Split = "train") -> list[Item]:
        return draw_items(self, n, seed, split)

    def pairs(self, n: int, seed: int, split: Split = "test") -> list[Pair]:
        return draw_pairs(self, n, seed, split)


def digit_grid(rng: random.Random) -> Grid:
    """Digits, with at least two cells filled."""
    while True:
        grid = world.random_grid(rng, DIGITS, 0.15)
        if len(world.filled(grid)) >= 2:
            return grid


def shape_grid(rng: random.Random) -> Grid:
    """Shapes; half of the grids have a frequent colour."""
    return world.clustered_grid(rng) if rng.random() < 0.5 else world.random_grid(rng, SHAPES, 0.25)


def look(index: int, grid: Grid) -> str:
    """`r2c1 red square`: what one look at a cell says."""
    return f"{CELLS[index]} {world.words(grid[index])}"


class Recognise(GridPuzzle):
    """What colour, or what shape, is at a cell?"""

    name = "recognise"
    world = "shapes"
    strategies = CELLS

    def sample(self, rng: random.Random) -> Grid:
        return shape_grid(rng)

    def ask(self, state: Grid, rng: random.Random) -> tuple[str, int]:
        return rng.choice(("color", "shape")), rng.choice(world.filled(state))

    def question(self, state: Grid, query: tuple[str, int]) -> str:
        return f"What {query[0]} is {CELLS[query[1]]}?"

    def answer(self, state: Grid, query: tuple[str, int]) -> str:
        thing = state[query[1]]
        assert thing is not None
        return thing.color if query[0] == "color" else thing.kind

    def solutions(self, state: Grid, query: tuple[str, int]) -> Solutions:
        return {"look": look(query[1], state)}

    def changes(self, state: Grid, query: tuple[str, int], rng: random.Random) -> tuple[int, Thing]:
        attribute, index = query
        thing = state[index]
        assert thing is not None
        if attribute == "color":
            return index, Thing(rng.choice([c for c in COLORS if c != thing.color]), thing.kind)
        return index, Thing(thing.color, rng.choice([s for s in SHAPES if s != thing.kind]))

    def strategy(self, reply: str) -> str:
        return "look" if super().strategy(reply) in CELLS else super().strategy(reply)


class Read(GridPuzzle):
    """What digit is at a cell? Optical character recognition at its smallest."""

    name = "read"
    world = "digits"
    strategies = CELLS

    def sample(self, rng: random.Random) -> Grid:
        return digit_grid(rng)

    def ask(self, state: Grid, rng: random.Random) -> int:
        return rng.choice(world.filled(state))

    def question(self, state: Grid, query: int) -> str:
        return f"What digit is {CELLS[query]}?"

    def answer(self, state: Grid, query: int) -> str:
        return _digit(state, query)

    def solutions(self, state: Grid, query: int) -> Solutions:
        return {"look": look(query, state)}

    def changes(self, state: Grid, query: int, rng: random.Random) -> tuple[int, Thing]:
        return query, _other_digit(state, query, rng, DIGITS)

    def strategy(self, reply: str) -> str:
        return "look" if super().strategy(reply) in CELLS else super().strategy(reply)


class Count(GridPuzzle):
    """How many things have a colour? By rows, by columns (a running count over all cells), or
    scanning the hits.
    """

    name = "count"
    world = "shapes"
    strategies = ("rows", "cols", "scan")

    def sample(self, rng: random.Random) -> Grid:
        return shape_grid(rng)

    def ask(self, state: Grid, rng: random.Random) -> str:
        return rng.choice(COLORS)

    def question(self, state: Grid, query: str) -> str:
        return f"How many are {query}?"

    def answer(self, state: Grid, query: str) -> str:
        return str(sum(thing is not None and thing.color == query for thing in state))

    def solutions(self, state: Grid, query: str) -> Solutions:
        total = self.answer(state, query)
        chains = {
            order: f"{order} {tally(state, query, order)} total {total}"
            for order in ("rows", "cols")
        }
        hits = [i for i, thing in enumerate(state) if thing is not None and thing.color == query]
        seen = " ".join(f"{CELLS[i]} {n}" for n, i in enumerate(hits, 1))
        chains["scan"] = " ".join(f"scan {seen} total {total}".split())
        return chains

    def misread(self, thought: str, item: Item) -> list[str] | None:
        """A scan names the cells of the colour and no others: each one too many or too few is
        misread.
        """
        words = thought.split()
        if words[:1] != ["scan"]:
            return super().misread(thought, item)
        hits = [thing is not None and thing.color == item.query for thing in item.state]
        return [cell for cell, hit in zip(CELLS, hits, strict=True) if hit != (cell in words)]

    def changes(self, state: Grid, query: str, rng: random.Random) -> tuple[int, Thing]:
        index = rng.choice(world.filled(state))
        thing = state[index]
        assert thing is not None
        if thing.color == query:
            return index, Thing(rng.choice([c for c in COLORS if c != query]), thing.kind)
        return index, Thing(query, thing.kind)


class TwoDigits(GridPuzzle):
    """A question about the digits of two cells."""

    world = "digits"
    strategies = ("fwd", "back", "scan")

    def sample(self, rng: random.Random) -> Grid:
        return digit_grid(rng)

    def ask(self, state: Grid, rng: random.Random) -> tuple[int, int]:
        first, second = rng.sample(world.filled(state), 2)
        return first, second


class Sum(TwoDigits):
    """What is the sum of two cells? Forwards or backwards, looking first, or at a glance
    (`scan`).
    """

    name = "sum"

    def question(self, state: Grid, query: tuple[int, int]) -> str:
        return f"What is {CELLS[query[0]]} plus {CELLS[query[1]]}?"

    def answer(self, state: Grid, query: tuple[int, int]) -> str:
        return str(int(_digit(state, query[0])) + int(_digit(state, query[1])))

    def solutions(self, state: Grid, query: tuple[int, int]) -> Solutions:
        return two_looks(state, query, f"= {self.answer(state, query)}")

    def changes(self, state: Grid, query: tuple[int, int], rng: random.Random) -> tuple[int, Thing]:
        index = rng.choice(query)
        return index, _other_digit(state, index, rng, DIGITS)


class Compare(TwoDigits):
    """Which of two cells holds more? The answer is the larger digit, or `same`."""

    name = "compare"

    def question(self, state: Grid, query: tuple[int, int]) -> str:
        return f"Which is more, {CELLS[query[0]]} or {CELLS[query[1]]}?"

    def answer(self, state: Grid, query: tuple[int, int]) -> str:
        first, second = (int(_digit(state, i)) for i in query)
        return "same" if first == second else CELLS[query[0] if first > second else query[1]]

    def solutions(self, state: Grid, query: tuple[int, int]) -> Solutions:
        return two_looks(state, query, f"so {self.answer(state, query)}")

    def changes(self, state: Grid, query: tuple[int, int], rng: random.Random) -> tuple[int, Thing]:
        index, other = query if rng.random() < 0.5 else query[::-1]
        here, there = int(_digit(state, index)), int(_digit(state, other))
        flips = [d for d in DIGITS if _sign(int(d) - there) != _sign(here - there)]
        return index, _other_digit(state, index, rng, flips)


def stated(thought: str, kind: str) -> list[tuple[str, set[str]]]:
    """What a chain says of cells before it concludes: (cell, words that name a colour, shape, digit
    or `empty`).

    Running counts are no facts in the world of shapes, digits are in the world of digits. Cells
    without words are left out.
    """
    vocabulary = _vocabulary(kind)
    statements: list[tuple[str, set[str]]] = []
    for word in thought.split():
        if word in CONCLUSIONS:
            break
        if word in CELLS:
            statements.append((word, set()))
        elif statements and word in vocabulary:
            statements[-1][1].add(word)
    return [(cell, words) for cell, words in statements if words]


def _vocabulary(kind: str) -> set[str]:
    """The words for what a cell of a world may hold."""
    return {*COLORS, world.EMPTY, *(DIGITS if kind == "digits" else SHAPES)}


def tally(grid: Grid, color: str, order: str) -> str:
    """Every cell in order with its colour and the running count of `color`: `r1c1 blue 1 r1c2 empty
    1 …`.
    """
    count, steps = 0, []
    for i in world.ORDERS[order]:
        thing = grid[i]
        count += thing is not None and thing.color == color
        steps.append(f"{CELLS[i]} {thing.color if thing else world.EMPTY} {count}")
    return " ".join(steps)


def two_looks(grid: Grid, query: tuple[int, int], conclusion: str) -> Solutions:
    """Look at both cells in either order, or conclude at a glance."""
    first, second = (f"{CELLS[i]} {_digit(grid, i)}" for i in query)
    return {
        "fwd": f"fwd {first} {second} {conclusion}",
        "back": f"back {second} {first} {conclusion}",
        "scan": f"scan {conclusion}",
    }


def _digit(grid: Grid, index: int) -> str:
    thing = grid[index]
    assert thing is not None
    return thing.kind


def _other_digit(
    grid: Grid, index: int, rng: random.Random, allowed: tuple[str, ...] | list[str]
) -> Thing:
    thing = grid[index]
    assert thing is not None
    return Thing(thing.color, rng.choice([d for d in allowed if d != thing.kind]))


def _sign(x: int) -> int:
    return (x > 0) - (x < 0)
