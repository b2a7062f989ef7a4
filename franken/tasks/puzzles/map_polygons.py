"""Which polygons are neighbours: those that share a piece of their boundary."""

from collections.abc import Mapping
from math import dist

Point = tuple[float, float]
# published vertices are rounded to 1e-5, so that a vertex on an edge may lie this far off it
OFF_LINE = 5e-5


def adjacency(polygons: Mapping[int, tuple[Point, ...]]) -> frozenset[tuple[int, int]]:
    """The pairs of polygons that share a boundary of non-zero length; a corner in common is
    none.
    """
    names = sorted(polygons)
    return frozenset(
        (a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if _share_boundary(polygons[a], polygons[b])
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
