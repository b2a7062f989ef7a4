"""Chain link: segments of closed pieces and single open ones. The least time to make one necklace of them all.

A cut opens a closed piece, which then stands alone and can join two neighbours; a weld closes an open piece. In the
necklace every junction of two closed segments needs an open piece between them.
"""

from dataclasses import dataclass

from franken.tasks.puzzles.solved import Solved, Unsolvable


@dataclass(frozen=True)
class Chains:
    """`open_pieces` single open pieces, and the lengths of the closed segments."""

    open_pieces: int
    segments: tuple[int, ...]


@dataclass(frozen=True)
class Times:
    """Minutes a cut and a weld take."""

    cut: int
    weld: int


def solve(state: Chains, query: Times) -> Solved:
    """The least total time in minutes. Raises Unsolvable when the pieces are too few for a ring."""
    if state.open_pieces + sum(state.segments) < 3:
        raise Unsolvable("no necklace", why="fewer than three pieces cannot each have two neighbours")
    cuts = fewest_cuts(state)
    welds = state.open_pieces + cuts  # each open piece must be closed in the end
    total = cuts * query.cut + welds * query.weld
    return Solved(
        str(total),
        f"{cuts} cuts at least (shortest segments opened first), and each of the {welds} open pieces is welded: "
        f"{cuts} * {query.cut} + {welds} * {query.weld} minutes",
    )


def fewest_cuts(state: Chains) -> int:
    """The least number of cuts until there is an open piece for every junction of closed segments.

    A cut at a segment's end brings the open pieces one nearer to the closed segments, the cut of a single closed piece
    two nearer, a cut inside a segment none. So `n` cuts are worth n + the segments they open up whole, and those are
    most when the shortest go first.
    """
    missing = len(state.segments) - state.open_pieces
    cuts, opened = 0, 0
    lengths = sorted(state.segments)
    while missing - cuts - opened > 0:
        cuts += 1
        opened = sum(sum(lengths[: i + 1]) <= cuts for i in range(len(lengths)))
    return cuts
