"""Water jugs: pour from jug to jug until one is empty or the other full. The minimum number of
pourings.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import INK, paper, write
from franken.tasks.puzzles.solved import Solved, fewest_moves, shortest

Litres = tuple[int, ...]
SMALLEST = 84
STRATEGIES = ("pours", "backward", "waves")
JUGS = {1: (3, 6), 2: (4, 9), 3: (5, 12)}  # level → jugs, largest capacity
WANTED = {3: (1, 4), 4: (2, 5), 5: (3, 5)}  # jugs → fewest and most pourings asked for
SCALE = 6  # the picture's scale ends at a multiple of so many litres
LISTED = 60  # waves are written down up to so many contents
WATER, LINE = (120, 170, 240), (205, 208, 214)


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
    return _fewest(state, query)


@lru_cache(256)
def _fewest(state: Jugs, query: Reach) -> Solved:
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


@lru_cache(64)
def waves(state: Jugs, enough: int, listed: int = 10**9) -> list[list[Litres]]:
    """The contents that 0, 1, 2 … pourings lead to first, in order: `enough` pourings and `listed`
    contents at most.
    """
    pour, seen, reached = pourings(state.capacities), {state.water}, [[state.water]]
    while reached[-1] and len(reached) <= enough and len(seen) <= listed:
        front = {after for water in reached[-1] for _, after in pour(water)} - seen
        seen |= front
        reached.append(sorted(front))
    return [wave for wave in reached if wave]


def sample(rng: random.Random, level: int) -> Jugs:
    """3, 4 or 5 jugs of up to 6, 9 or 12 litres; some contents are as many pourings away as are
    ever asked for.
    """
    jugs, largest = JUGS[level]
    most = WANTED[jugs][1]
    while True:
        capacities = tuple(rng.randint(1, largest) for _ in range(jugs))
        water = tuple(rng.randint(0, c) for c in capacities)
        state = Jugs(capacities, water)
        if len(waves(state, most)) > most:
            return state


def ask(state: Jugs, rng: random.Random) -> Reach:
    """Contents some pourings away: the more jugs, the more; every number as frequent."""
    fewest, most = WANTED.get(len(state.water), (1, 4))
    reached = waves(state, most)
    return Reach(rng.choice(reached[min(rng.randint(fewest, most), len(reached) - 1)]))


def questions(state: Jugs, query: Reach) -> tuple[str, ...]:
    """In words, two wordings. The capacities are in the picture, so that they, too, have to be
    read.
    """
    goal = ", ".join(map(str, query.goal))
    return (
        f"The picture shows {len(query.goal)} jugs on a scale in litres: the height of a jug is "
        "its capacity, blue is its water. Water may only be poured from one jug into another "
        "until the first is empty or the second is full. What is the least number of pourings "
        f"until the jugs hold {goal} litres, from left to right?",
        "Read the capacity (height) and the water (blue) of each jug off the scale in litres. A "
        "pouring goes from one jug to another and ends when the one is empty or the other full; "
        f"nothing is spilled or added. At least how many pourings lead to {goal} litres in the "
        "jugs from left to right?",
    )


def steps(state: Jugs, query: Reach) -> StrategySteps:
    """A shortest row of pourings, forward or from the goal back; and all that can be reached, where
    that is not too much.
    """
    path = (
        shortest(state.water, lambda water: water == query.goal, pourings(state.capacities)) or []
    )
    before = [state.water, *(after for _, after in path)]
    seen, answer = (
        f"{describe(state)} goal {_show(query.goal)}",
        f"answer {solve(state, query).answer}",
    )
    pours = [f"{name} gives {_show(after)}" for name, after in path]
    back = [
        f"{_show(b)} comes from {_show(a)} by {name}"
        for a, (name, b) in zip(before[:-1], path, strict=True)
    ]
    chains = {"pours": (seen, *pours, answer), "backward": (seen, *back[::-1], answer)}
    reached = waves(state, len(path), LISTED)
    if sum(map(len, reached)) <= LISTED:
        listed = [f"after {n} {', '.join(map(_show, wave))}" for n, wave in enumerate(reached)]
        chains["waves"] = (seen, *listed, answer)
    return chains


def _show(water: Litres) -> str:
    return " ".join(map(str, water))


def check(state: Jugs, query: Reach, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. Pours by arithmetic of its own."""
    now, end, poured = state.water, query.goal, 0
    for step in steps[:-1]:
        right = step == f"{describe(state)} goal {_show(query.goal)}"
        if match := re.fullmatch(r"jug (\d+) into jug (\d+) gives ([\d ]+)", step):
            now, poured = _poured(state.capacities, now, int(match[1]), int(match[2])), poured + 1
            right = now is not None and _show(now) == match[3]
        elif match := re.fullmatch(
            r"([\d ]+) comes from ([\d ]+) by jug (\d+) into jug (\d+)", step
        ):
            source = tuple(map(int, match[2].split()))
            poured, right = poured + 1, match[1] == _show(end) and len(source) == len(end)
            right = right and _poured(state.capacities, source, int(match[3]), int(match[4])) == end
            end = source
        elif match := re.fullmatch(r"after (\d+) ([\d ,]+)", step):
            right = int(match[1]) < 100 and match[2] == _wave(state, int(match[1]))
        if not right or now is None:
            return f"{step!r} is wrong or cannot be read"
    answer = solve(state, query).answer
    if not steps or steps[-1] != f"answer {answer}":
        return "the answer is wrong or missing"
    if poured and (now != end or str(poured) != answer):
        return f"{poured} pourings do not join {_show(now)} and {_show(end)}"
    return None


def _poured(capacities: Litres, water: Litres, source: int, target: int) -> Litres | None:
    """The contents after a pouring between jugs counted from 1; None where it is none."""
    if not (0 < source <= len(water) and 0 < target <= len(water) and source != target):
        return None
    jugs = list(water)
    while jugs[source - 1] > 0 and jugs[target - 1] < capacities[target - 1]:  # litre by litre
        jugs[source - 1] -= 1
        jugs[target - 1] += 1
    return None if tuple(jugs) == water else tuple(jugs)


def _wave(state: Jugs, pourings: int) -> str:
    jugs = range(1, len(state.water) + 1)
    seen = front = {state.water}
    for _ in range(pourings):
        after = {
            _poured(state.capacities, water, a, b) for water in front for a in jugs for b in jugs
        }
        front = {water for water in after if water is not None} - seen
        seen = seen | front
    return ", ".join(map(_show, sorted(front)))


def describe(state: Jugs) -> str:
    """`jugs 4/6 2/5 1/1`: litres of water and capacity of each, from left to right."""
    return "jugs " + " ".join(
        f"{w}/{c}" for w, c in zip(state.water, state.capacities, strict=True)
    )


def parse(text: str) -> Jugs:
    """The inverse of `describe`. Raises ValueError."""
    litres = r"(?:0|[1-9]\d*)"
    if not re.fullmatch(rf"jugs(?: {litres}/{litres})+", text, re.ASCII):
        raise ValueError(f"{text!r} is no row of jugs")
    water, capacities = zip(*(map(int, jug.split("/")) for jug in text.split(" ")[1:]), strict=True)
    if any(w > c or c == 0 for w, c in zip(water, capacities, strict=True)):
        raise ValueError(f"a jug of {text!r} holds more than it can, or can hold nothing")
    return Jugs(capacities, water)


def facts(state: Jugs) -> Facts:
    """Capacity and water of each jug."""
    slots = {f"jug {i} capacity": str(c) for i, c in enumerate(state.capacities, 1)}
    return slots | {f"jug {i} water": str(w) for i, w in enumerate(state.water, 1)}


def change(state: Jugs, rng: random.Random) -> Jugs:
    """Another capacity, within the scale; or more or less water (which no pouring makes up for)."""
    jug = rng.randrange(len(state.water))
    if rng.random() < 0.2:
        water = rng.randint(0, state.capacities[jug])
        return replace(state, water=(*state.water[:jug], water, *state.water[jug + 1 :]))
    capacity = rng.randint(max(1, state.water[jug]), _scale(state))
    return replace(
        state, capacities=(*state.capacities[:jug], capacity, *state.capacities[jug + 1 :])
    )


def _scale(state: Jugs) -> int:
    return -(-max(state.capacities) // SCALE) * SCALE


def render(state: Jugs, size: int, style: int = 0) -> Image.Image:
    """Jugs of one width beside a scale in litres. The scale grows by sixes, so that most changes
    leave it as it is.
    """
    image, pen = paper(size, style)
    top, n = _scale(state), len(state.water)
    left, ground, litre = round(size * 0.13), round(size * 0.88), size * 0.81 / top
    wall, width = max(1, size // 80), (size - left) / n

    def y(litres: int) -> int:
        return round(ground - litres * litre)

    for jug, water in enumerate(state.water):
        x0, x1 = round(left + (jug + 0.14) * width), round(left + (jug + 0.86) * width)
        pen.rectangle((x0, y(water), x1, ground), WATER)
        write(pen, ((x0 + x1) / 2, size * 0.945), str(jug + 1), max(8, size * 0.06))
    for litres in range(top + 1):
        pen.line((left, y(litres), size, y(litres)), LINE)
        if litre >= 8 or litres % 2 == 0:
            write(
                pen,
                (left * 0.85, y(litres)),
                str(litres),
                min(max(9, size * 0.06), litre * 1.1),
                anchor="rm",
            )
    for jug, capacity in enumerate(state.capacities):
        x0, x1 = round(left + (jug + 0.14) * width), round(left + (jug + 0.86) * width)
        for x in (x0 - wall, x1):
            pen.rectangle((x, y(capacity), x + wall, ground), INK)
        pen.rectangle((x0 - wall, ground, x1 + wall, ground + wall), INK)
    return image
