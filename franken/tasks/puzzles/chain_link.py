"""Chain link: segments of closed pieces and single open ones. The least time to make one necklace
of them all.

A cut opens a closed piece, which then stands alone and can join two neighbours; a weld closes an
open piece. In the necklace every junction of two closed segments needs an open piece between them.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import paper
from franken.tasks.puzzles.solved import Solved, Unsolvable

SMALLEST = 84
STRATEGIES = ("cuts", "tries")
SIZES = {
    1: (3, 5, 3, 2),
    2: (6, 8, 4, 3),
    3: (9, 14, 5, 4),
}  # level → fewest and most segments, longest, most open pieces
GOLD = ((206, 150, 20), (120, 76, 10))
LINK = 0.66  # how far a piece begins after the one that it is linked to, in its own width


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
        raise Unsolvable(
            "no necklace", why="fewer than three pieces cannot each have two neighbours"
        )
    cuts = fewest_cuts(state)
    welds = state.open_pieces + cuts  # each open piece must be closed in the end
    total = cuts * query.cut + welds * query.weld
    return Solved(
        str(total),
        f"{cuts} cuts at least (shortest segments opened first), and each of the {welds} open "
        f"pieces is welded: {cuts} * {query.cut} + {welds} * {query.weld} minutes",
    )


def fewest_cuts(state: Chains) -> int:
    """The least number of cuts until there is an open piece for every junction of closed segments.

    A cut at a segment's end brings the open pieces one nearer to the closed segments, the cut of a
    single closed piece two nearer, a cut inside a segment none. So `n` cuts are worth n + the
    segments they open up whole, and those are most when the shortest go first.
    """
    missing = len(state.segments) - state.open_pieces
    cuts, opened = 0, 0
    lengths = sorted(state.segments)
    while missing - cuts - opened > 0:
        cuts += 1
        opened = sum(sum(lengths[: i + 1]) <= cuts for i in range(len(lengths)))
    return cuts


def sample(rng: random.Random, level: int) -> Chains:
    """3 to 5, 6 to 8 or 9 to 14 segments and a few open pieces. At level 1 the shortest come first,
    as one would sort them.
    """
    fewest, most, longest, opened = SIZES[level]
    while True:
        segments = [rng.randint(1, longest) for _ in range(rng.randint(fewest, most))]
        state = Chains(rng.randint(0, opened), tuple(sorted(segments) if level == 1 else segments))
        if state.open_pieces + sum(segments) >= 3:
            return state


def ask(state: Chains, rng: random.Random) -> Times:
    """Cuts and welds of two to nine minutes."""
    return Times(rng.randint(2, 9), rng.randint(2, 9))


def questions(state: Chains, query: Times) -> tuple[str, ...]:
    """In words, two wordings. How many pieces there are has to be seen."""
    rule = (
        f"Cutting a closed piece open takes {query.cut} minutes and frees it from its neighbours. "
        "An open piece can be hooked to any others and is then welded closed, which takes "
        f"{query.weld} minutes."
    )
    return (
        "The picture shows segments of a chain, each of one or more closed pieces, and single "
        f"open pieces (with a gap), if any. {rule} All pieces shall make one closed necklace, in "
        "which every piece is linked to exactly two others and none is open. What is the least "
        "total time in minutes?",
        "All pieces of chain in the picture, closed ones in segments and open ones with a gap, "
        f"are to be joined to a single ring of closed pieces, each linked to two others. {rule} "
        "At least how many minutes of cutting and welding is that?",
    )


def distractors(state: Chains, query: Times) -> list[str]:
    """The usual slips: a cut for every junction, the open pieces not welded or not used, a cut or a
    weld too many or few.
    """
    cuts, closed = fewest_cuts(state), len(state.segments)
    simple, without = max(0, closed - state.open_pieces), fewest_cuts(replace(state, open_pieces=0))
    pairs = [
        (simple, simple + state.open_pieces),
        (cuts, cuts),
        (closed, closed),
        (without, without),
    ]
    pairs += [
        (cuts + 1, state.open_pieces + cuts + 1),
        (cuts, closed),
        (cuts, state.open_pieces + cuts + 1),
    ]
    if cuts:
        pairs += [(cuts - 1, state.open_pieces + cuts - 1)]
    return [str(c * query.cut + w * query.weld) for c, w in pairs if c + w]


def steps(state: Chains, query: Times) -> StrategySteps:
    """Cut by cut, the shortest segment first; or more and more cuts tried, until there are enough
    open pieces.
    """
    cuts, opened = fewest_cuts(state), state.open_pieces
    total = cuts * query.cut + (opened + cuts) * query.weld
    last = (f"{cuts} * {query.cut} + {opened + cuts} * {query.weld} = {total}", f"answer {total}")
    return {
        "cuts": (_pieces(opened, state.segments), *_cut(state, cuts), *last),
        "tries": (
            f"{opened} open {len(state.segments)} closed segments",
            *_tries(state, cuts),
            *last,
        ),
    }


def _pieces(opened: int, closed: tuple[int, ...] | list[int]) -> str:
    return f"{opened} open and closed {' '.join(map(str, sorted(closed))) or 'none'}"


def _cut(state: Chains, cuts: int) -> Iterator[str]:
    opened, closed = state.open_pieces, sorted(state.segments)
    for _ in range(cuts):
        length = closed.pop(0)
        opened, closed = opened + 1, [length - 1] * (length > 1) + closed
        yield f"cut the {length} leaves {_pieces(opened, closed)}"
    yield f"{opened} open are enough for {len(closed)} closed segments"


def _tries(state: Chains, cuts: int) -> Iterator[str]:
    lengths = sorted(state.segments)
    for n in range(cuts + 1):
        whole = sum(sum(lengths[: i + 1]) <= n for i in range(len(lengths)))
        enough = "enough" if n == cuts else "too few"
        yield (
            f"{n} cuts give {state.open_pieces + n} open for {len(lengths) - whole} closed: "
            f"{enough}"
        )


def check(state: Chains, query: Times, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. Cuts pieces off a list; how many segments some cuts can open up
    comes from a knapsack.
    """
    opened, closed = state.open_pieces, sorted(state.segments)
    answer = solve(state, query).answer
    for step in steps[:-1]:
        if match := re.fullmatch(r"cut the (\d+) leaves .+", step):
            length = int(match[1])
            if length not in closed:
                return f"{step!r}: there is no such segment"
            closed.remove(length)
            closed, opened = closed + [length - 1] * (length > 1), opened + 1
            right = step == f"cut the {length} leaves {_pieces(opened, closed)}"
        elif match := re.fullmatch(r"(\d+) \* (\d+) \+ (\d+) \* (\d+) = (\d+)", step):
            cuts, cut, welds, weld, total = map(int, match.groups())
            right = (cut, weld, str(total)) == (
                query.cut,
                query.weld,
                answer,
            ) and total == cuts * cut + welds * weld
            right = right and welds - cuts == state.open_pieces
        elif match := re.fullmatch(r"(\d{1,2}) cuts give .+", step):
            cuts = int(match[1])
            have, need = (
                state.open_pieces + cuts,
                len(state.segments) - _whole(state.segments, cuts),
            )
            enough = "enough" if have >= need else "too few"
            right = step == f"{cuts} cuts give {have} open for {need} closed: {enough}"
        else:
            enough = (
                opened >= len(closed)
                and step == f"{opened} open are enough for {len(closed)} closed segments"
            )
            start = (
                _pieces(state.open_pieces, state.segments),
                f"{opened} open {len(closed)} closed segments",
            )
            right = enough or step in start
        if not right:
            return f"{step!r} is wrong or cannot be read"
    return None if steps and steps[-1] == f"answer {answer}" else "the answer is wrong or missing"


def _whole(segments: tuple[int, ...], cuts: int) -> int:
    """The most segments whose pieces can all be cut open."""
    most = [0] * (cuts + 1)
    for length in segments:
        for n in range(cuts, length - 1, -1):
            most[n] = max(most[n], most[n - length] + 1)
    return most[cuts]


def describe(state: Chains) -> str:
    """`chains 3 open, closed 1 2 2 3`: the segments in the order of the picture."""
    return f"chains {state.open_pieces} open, closed {' '.join(map(str, state.segments))}"


def parse(text: str) -> Chains:
    """The inverse of `describe`. Raises ValueError."""
    match = re.fullmatch(
        r"chains (0|[1-9]\d*) open, closed ([1-9]\d*(?: [1-9]\d*)*)", text, re.ASCII
    )
    if not match:
        raise ValueError(f"{text!r} is no heap of chains")
    return Chains(int(match[1]), tuple(map(int, match[2].split(" "))))


def facts(state: Chains) -> Facts:
    """The number of open pieces, and the length of each segment."""
    lengths = {f"segment {i}": str(length) for i, length in enumerate(state.segments, 1)}
    return {"open pieces": str(state.open_pieces)} | lengths


def change(state: Chains, rng: random.Random) -> Chains:
    """An open piece more or less, or another length of a segment."""
    if rng.random() < 0.3:
        return replace(state, open_pieces=max(0, state.open_pieces + rng.choice((-1, 1))))
    i, segments = rng.randrange(len(state.segments)), list(state.segments)
    segments[i] = rng.randint(1, _widest(state))
    return replace(state, segments=tuple(segments))


def _widest(state: Chains) -> int:
    """The length of segment that the picture leaves room for."""
    longest = max(state.segments)
    return 3 if longest <= 3 else max(5, longest)


def render(state: Chains, size: int, style: int = 0) -> Image.Image:
    """Segments of linked pieces in reading order, then the open pieces, each with a gap on its
    right.
    """
    image, pen = paper(size, style)
    shapes = [*state.segments, *([0] * state.open_pieces)]
    columns = 2 if len(shapes) <= 10 else 3
    rows = max(4, -(-len(shapes) // columns))
    wide, high = size / columns, size / rows
    width = wide * 0.9 / (1 + LINK * (_widest(state) - 1))
    height = min(high * 0.72, width * 0.8)
    thick = max(2, round(width / 9))
    jitter = random.Random(style)
    for i, length in enumerate(shapes):
        row, column = divmod(i, columns)
        x = column * wide + wide * (0.04 + 0.03 * jitter.random())
        y = (row + 0.5) * high - height / 2
        if length == 0:
            _piece(pen, x, y, width, height, GOLD[0], thick, 45)
        for piece in range(length):
            _piece(pen, x + piece * LINK * width, y, width, height, GOLD[piece % 2], thick, 0)
    return image


def _piece(
    pen: ImageDraw.ImageDraw,
    x: float,
    y: float,
    width: float,
    height: float,
    colour: tuple[int, int, int],
    thick: int,
    gap: int,
) -> None:
    """An oval ring; `gap` degrees to either side of its right end are left open."""
    pen.arc(
        (round(x), round(y), round(x + width), round(y + height)), gap, 360 - gap, colour, thick
    )
