"""Map: a partly coloured map of polygons. In how many ways can four colours complete it?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import dist

from franken.tasks.puzzles.solved import Solved

COLOURS = ("Red", "Green", "Blue", "Yellow")
Point = tuple[float, float]
OFF_LINE = 5e-5  # published vertices are rounded to 1e-5, so that a vertex on an edge may lie this far off it


@dataclass(frozen=True)
class Map:
    """Regions by number. `adjacent` holds pairs (a, b) with a < b; `known` the regions coloured already."""

    regions: tuple[int, ...]
    adjacent: frozenset[tuple[int, int]]
    known: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Completions:
    """The number of complete maps, by colours out of `colours`."""

    colours: tuple[str, ...] = COLOURS


def solve(state: Map, query: Completions = Completions()) -> Solved:
    """The number of proper colourings that extend the known one; none when that is not proper itself."""
    known = dict(state.known)
    clash = [(a, b) for a, b in state.adjacent if a in known and b in known and known[a] == known[b]]
    if clash:
        return Solved("0", f"the neighbours {clash[0]} have one colour already")
    found = list(colourings(state, query.colours))
    shown = "; ".join(", ".join(f"{r} {c}" for r, c in sorted(way.items())) for way in found[:16])
    return Solved(str(len(found)), f"all of them: {shown}" if len(found) <= 16 else f"the first sixteen: {shown}")


def colourings(state: Map, colours: tuple[str, ...]) -> Iterator[dict[int, str]]:
    """Every way to colour the regions that are not known so that no two neighbours share a colour."""
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


def adjacency(polygons: Mapping[int, tuple[Point, ...]]) -> frozenset[tuple[int, int]]:
    """The pairs of polygons that share a boundary of non-zero length; a corner in common is none."""
    names = sorted(polygons)
    return frozenset(
        (a, b) for i, a in enumerate(names) for b in names[i + 1 :] if _share_boundary(polygons[a], polygons[b])
    )


def _share_boundary(a: tuple[Point, ...], b: tuple[Point, ...]) -> bool:
    return any(_overlap(p, q, r, s) > 2 * OFF_LINE for p, q in _edges(a) for r, s in _edges(b))


def _edges(polygon: tuple[Point, ...]) -> list[tuple[Point, Point]]:
    return list(zip(polygon, (*polygon[1:], polygon[0]), strict=True))


def _overlap(p: Point, q: Point, r: Point, s: Point) -> float:
    """The length that two segments share when both lie on one line, else 0."""
    if dist(p, q) < dist(r, s):  # the longer one gives the line: rounding turns a short one by more
        p, q, r, s = r, s, p, q
    length = dist(p, q)
    if length == 0:
        return 0.0
    along = ((q[0] - p[0]) / length, (q[1] - p[1]) / length)

    def place(point: Point) -> tuple[float, float]:
        x, y = point[0] - p[0], point[1] - p[1]
        return x * along[0] + y * along[1], abs(x * along[1] - y * along[0])

    (t1, off1), (t2, off2) = place(r), place(s)
    if max(off1, off2) > OFF_LINE:
        return 0.0
    return min(length, max(t1, t2)) - max(0.0, min(t1, t2))
