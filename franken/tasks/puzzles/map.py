"""Map: a partly coloured map of polygons. In how many ways can four colours complete it?"""

import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice, product
from math import prod

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.map_drawing import borders, draw, grown, is_connected
from franken.tasks.puzzles.solved import Solved

COLOURS = ("Red", "Green", "Blue", "Yellow")
SMALLEST = 84
STRATEGIES = ("groups", "list")
PAINTS = {
    "Red": (240, 92, 88),
    "Green": (70, 170, 80),
    "Blue": (70, 150, 245),
    "Yellow": (252, 208, 50),
    "White": (255, 255, 255),
}


@dataclass(frozen=True)
class Map:
    """Regions by number. `adjacent` holds pairs (a, b) with a < b; `known` the regions coloured
    already.
    """

    regions: tuple[int, ...]
    adjacent: frozenset[tuple[int, int]]
    known: tuple[tuple[int, str], ...]
    layout: tuple[
        str, ...
    ] = ()  # rows of cells by their region's letter, where the map is one that `render` draws


@dataclass(frozen=True)
class Completions:
    """The number of complete maps, by colours out of `colours`."""

    colours: tuple[str, ...] = COLOURS


def solve(state: Map, query: Completions = Completions()) -> Solved:
    """The number of proper colourings that extend the known one; none when that is not proper
    itself.
    """
    known = dict(state.known)
    clash = [
        (a, b) for a, b in state.adjacent if a in known and b in known and known[a] == known[b]
    ]
    if clash:
        return Solved("0", f"the neighbours {clash[0]} have one colour already")
    ways = list(colourings(state, query.colours))
    shown = "; ".join(", ".join(f"{r} {c}" for r, c in sorted(way.items())) for way in ways[:16])
    return Solved(
        str(len(ways)),
        f"all of them: {shown}" if len(ways) <= 16 else f"the first sixteen: {shown}",
    )


def colourings(state: Map, colours: tuple[str, ...]) -> Iterator[dict[int, str]]:
    """Every way to colour the regions that are not known so that no two neighbours share a
    colour.
    """
    neighbours: dict[int, set[int]] = {region: set() for region in state.regions}
    for a, b in state.adjacent:
        neighbours[a].add(b)
        neighbours[b].add(a)
    given = dict(state.known)
    white = [region for region in state.regions if region not in given]

    def extend(chosen: dict[int, str]) -> Iterator[dict[int, str]]:
        if len(chosen) == len(white):
            yield dict(chosen)
            return
        region = white[len(chosen)]
        taken = {chosen.get(n) or given.get(n) for n in neighbours[region]}
        for colour in colours:
            if colour not in taken:
                yield from extend({**chosen, region: colour})

    yield from extend({})


def sample(rng: random.Random, level: int) -> Map:
    """A map of 6, 9 or 14 regions with two, three or four to five white ones, and 1 to 4 or 1 to 8
    completions.
    """
    side, regions, white = ((4, 6, (2,)), (5, 9, (3,)), (7, 14, (4, 5)))[level - 1]
    wanted = rng.choice(_likely(regions))
    while True:
        state = of_layout(grown(rng, side, side, regions), {})
        whole = next(colourings(state, tuple(rng.sample(COLOURS, 4))), {})
        for _ in range(12 if whole else 0):
            blank = rng.sample(state.regions, rng.choice(white))
            given = replace(
                state, known=tuple((r, whole[r]) for r in state.regions if r not in blank)
            )
            if sum(1 for _ in islice(colourings(given, COLOURS), wanted + 1)) == wanted:
                return given


def _likely(regions: int) -> tuple[int, ...]:
    """The numbers of completions that sampled maps have, equally often."""
    return (1, 2, 3, 4) if regions <= 6 else (1, 2, 3, 4, 6, 8)


def of_layout(layout: tuple[str, ...], known: Mapping[int, str]) -> Map:
    """The map that a layout draws. Region 1 is A."""
    letters = sorted(set("".join(layout)))
    pairs = frozenset((ord(a) - 64, ord(b) - 64) for a, b in borders(layout))
    return Map(
        tuple(ord(letter) - 64 for letter in letters), pairs, tuple(sorted(known.items())), layout
    )


def ask(state: Map, rng: random.Random) -> Completions:
    """There is one question."""
    return Completions()


def questions(state: Map, query: Completions) -> tuple[str, ...]:
    """In words, two wordings."""
    colours = f"{', '.join(query.colours[:-1])} and {query.colours[-1]}".lower()
    rule = (
        "no two adjacent regions have the same colour. Two regions are adjacent when they share a "
        "boundary of non-zero length. A corner in common does not count"
    )
    return (
        "The map has lettered regions. Some are coloured, the white ones are not yet. You may "
        f"use {len(query.colours)} colours: {colours}, such that {rule}. How many unique complete "
        "maps can be made by colouring all the white regions?",
        "In how many different ways can every white region of this map be given one of the "
        f"colours {colours} so that {rule}?",
    )


def steps(state: Map, query: Completions) -> StrategySteps:
    """The ways of groups of white regions that touch, multiplied; or every complete map, one by
    one.
    """
    near, known = _neighbours(state), dict(state.known)
    white = [region for region in state.regions if region not in known]
    start = [f"white are {_names(white)}"]
    for region in white:
        touching = sorted({known[n] for n in near[region] if n in known})
        free = [colour for colour in query.colours if colour not in touching]
        start.append(
            f"{_names([region])} touches {' '.join(touching) or 'no colour'} and may be "
            f"{' '.join(free) or 'nothing'}"
        )
    grouped, counts = [], []
    for group in _groups(white, near):
        ways = list(colourings(_part(state, group), query.colours))
        counts.append(str(len(ways)))
        listed = ", ".join(_way(way) for way in ways) or "none"
        grouped.append(f"group {_names(group)} has {len(ways)}: {listed}")
    answer = solve(state, query).answer
    listed = [f"map {n}: {_way(way)}" for n, way in enumerate(colourings(state, query.colours), 1)]
    return {
        "groups": (*start, *grouped, f"{' * '.join(counts) or '1'} = {answer}", f"answer {answer}"),
        "list": (*start, *listed, f"no other of {answer}", f"answer {answer}"),
    }


def _neighbours(state: Map) -> dict[int, set[int]]:
    near: dict[int, set[int]] = {region: set() for region in state.regions}
    for a, b in state.adjacent:
        near[a].add(b)
        near[b].add(a)
    return near


def _groups(white: list[int], near: Mapping[int, set[int]]) -> list[list[int]]:
    """The white regions, those together that hang together by white ones."""
    left, groups = list(white), []
    while left:
        group = {left[0]}
        while more := {n for region in group for n in near[region] if n in left} - group:
            group |= more
        groups.append(sorted(group))
        left = [region for region in left if region not in group]
    return groups


def _part(state: Map, group: list[int]) -> Map:
    """The map without the white regions outside `group`."""
    kept = {*group, *dict(state.known)}
    adjacent = frozenset(pair for pair in state.adjacent if kept.issuperset(pair))
    return Map(tuple(sorted(kept)), adjacent, state.known)


def _names(regions: Iterable[int]) -> str:
    return " ".join(chr(64 + region) for region in regions) or "none"


def _way(way: Mapping[int, str]) -> str:
    return " ".join(f"{chr(64 + region)} {colour}" for region, colour in way.items())


def check(state: Map, query: Completions, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. Counts are compared with trying every assignment of colours."""
    near, known = _neighbours(state), dict(state.known)
    white = [region for region in state.regions if region not in known]
    counted: list[int] = []
    listed: list[dict[int, str]] = []
    for step in steps:
        if match := re.fullmatch(r"([A-Z]) touches ([\w ]+) and may be ([\w ]+)", step):
            touching = {known[n] for n in near.get(ord(match[1]) - 64, ()) if n in known}
            free = set(query.colours) - touching
            right = (ord(match[1]) - 64 in white, touching or {"no", "colour"}, free or {"nothing"})
            holds = right == (True, set(match[2].split()), set(match[3].split()))
        elif match := re.fullmatch(r"group ([A-Z ]+) has (\d{1,9}): ([\w ,]+)", step):
            group = [ord(letter) - 64 for letter in match[1].split()]
            ways = [] if match[3] == "none" else [_read_way(way) for way in match[3].split(", ")]
            right = (
                _tried(_part(state, group), query.colours)
                if group in _groups(white, near)
                else None
            )
            once = all(ways.count(way) == 1 for way in ways)
            holds = (
                right is not None
                and once
                and len(ways) == len(right)
                and all(way in right for way in ways)
            )
            holds, counted = holds and int(match[2]) == len(ways), [*counted, int(match[2])]
        elif match := re.fullmatch(r"([\d *]+) = (\d{1,9})", step):
            factors = (
                [int(n) for n in match[1].split(" * ")]
                if re.fullmatch(r"\d{1,9}( \* \d{1,9})*", match[1])
                else []
            )
            complete = len(counted) == len(_groups(white, near))
            holds = complete and factors == (counted or [1]) and prod(factors) == int(match[2])
        elif match := re.fullmatch(r"map (\d{1,9}): ([\w ]+)", step):
            way = _read_way(match[2])
            holds = (
                int(match[1]) == len(listed) + 1
                and way not in listed
                and _is_proper(state, query.colours, way)
            )
            listed.append(way)
        elif match := re.fullmatch(r"no other of (\d{1,9})", step):
            holds = int(match[1]) == len(listed) == len(_tried(state, query.colours))
        elif step.startswith("answer "):
            concluded = any(re.match(r"[\d *]+ = |no other of ", before) for before in steps)
            holds = concluded and step == f"answer {len(_tried(state, query.colours))}"
        else:
            holds = step == f"white are {_names(white)}"
        if not holds:
            return f"{step!r} is wrong or cannot be read"
    return None if steps and steps[-1].startswith("answer ") else "there is no answer"


def _read_way(text: str) -> dict[int, str]:
    return {ord(region) - 64: colour for region, colour in re.findall(r"([A-Z]) (\w+)", text)}


def _is_proper(state: Map, colours: tuple[str, ...], way: Mapping[int, str]) -> bool:
    """Whether exactly the white regions have colours, and no two neighbours the same one."""
    known = dict(state.known)
    whole = {**way, **known}
    fits = set(way) == set(state.regions) - set(known) and set(way.values()) <= set(colours)
    return fits and all(whole[a] != whole[b] for a, b in state.adjacent)


@lru_cache(64)
def _tried(state: Map, colours: tuple[str, ...]) -> list[dict[int, str]]:
    """Every proper completion, by trying each assignment."""
    known = dict(state.known)
    white = [region for region in state.regions if region not in known]
    tried = (dict(zip(white, way, strict=True)) for way in product(colours, repeat=len(white)))
    return [way for way in tried if _is_proper(state, colours, way)]


def describe(state: Map) -> str:
    """`map AAB/CCB with A Red, C Blue`: the layout and the known colours. Raises ValueError without
    a layout.
    """
    if not state.layout:
        raise ValueError("this map has no layout to describe")
    known = (
        ", ".join(f"{chr(64 + region)} {colour}" for region, colour in state.known) or "no colours"
    )
    return f"map {'/'.join(state.layout)} with {known}"


def parse(text: str) -> Map:
    """The inverse of `describe`. Raises ValueError."""
    match = re.fullmatch(r"map ([A-Z/]+) with (.+)", text)
    layout: tuple[str, ...] = tuple(match[1].split("/")) if match else ("",)
    if not match or len({len(row) for row in layout}) != 1 or not layout[0]:
        raise ValueError(f"{text!r} is no map")
    letters = sorted(set("".join(layout)))
    known = {} if match[2] == "no colours" else _read_way(match[2])
    state = of_layout(layout, known)
    if letters != [chr(65 + i) for i in range(len(letters))] or not all(
        is_connected(layout, x) for x in letters
    ):
        raise ValueError(f"the regions of {text!r} are not A, B, C …, each of one piece")
    if (
        not set(known) <= set(state.regions)
        or not set(known.values()) <= set(COLOURS)
        or describe(state) != text
    ):
        raise ValueError(f"the colours of {text!r} cannot be read")
    if any(a in known and known[a] == known.get(b) for a, b in state.adjacent):
        raise ValueError(f"neighbours in {text!r} have one colour")
    return state


def facts(state: Map) -> Facts:
    """Each region's colour, and which regions share a boundary."""
    known = dict(state.known)
    slots = {f"colour {chr(64 + region)}": known.get(region, "White") for region in state.regions}
    return slots | {f"{chr(64 + a)}-{chr(64 + b)}": "adjacent" for a, b in sorted(state.adjacent)}


def change(state: Map, rng: random.Random) -> Map:
    """Another colour for one region: one that no coloured neighbour has, or white. Some region
    stays white.
    """
    near, known = _neighbours(state), dict(state.known)
    region = rng.choice(state.regions)
    others = [
        c
        for c in COLOURS
        if c != known.get(region) and c not in {known.get(n) for n in near[region]}
    ]
    if region in known:
        others.append("White")
    elif len(known) + 1 == len(state.regions):
        others = []
    if not others:
        return state
    colour = rng.choice(others)
    after = (
        {**known, region: colour}
        if colour != "White"
        else {r: c for r, c in known.items() if r != region}
    )
    return replace(state, known=tuple(sorted(after.items())))


def distractors(state: Map, query: Completions) -> list[str]:
    """The other numbers that maps of this size have: each is as likely as the right one."""
    right = solve(state, query).answer
    return [str(n) for n in _likely(len(state.regions)) if str(n) != right]


def render(state: Map, size: int, style: int = 0) -> Image.Image:
    """Coloured and white regions with their letters. Raises ValueError for a map without a
    layout.
    """
    if not state.layout:
        raise ValueError("this map has no layout to draw")
    paint = {
        chr(64 + region): PAINTS[dict(state.known).get(region, "White")] for region in state.regions
    }
    return draw(state.layout, paint, size, style)
