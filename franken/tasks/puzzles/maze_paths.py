"""Paths through a maze as runs and corners."""

Cell = tuple[int, int]  # row, column, from the top left, from 0
WAYS = ("right", "down", "left", "up")  # each a right turn after the one before
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # of those ways, in rows and columns


def runs_of(path: list[Cell]) -> list[tuple[int, int, Cell]]:
    """(way, cells, last cell) of each straight run."""
    runs: list[tuple[int, int, Cell]] = []
    for one, other in zip(path, path[1:], strict=False):
        way = STEPS.index((other[0] - one[0], other[1] - one[1]))
        n = runs.pop()[1] if runs and runs[-1][0] == way else 0
        runs.append((way, n + 1, other))
    return runs


def corners(bends: list[tuple[int, Cell]], by: int) -> list[Cell]:
    """Where the way turns `by` quarters to the right; each bend is a way and the cell it ends
    in.
    """
    return [
        cell
        for (way, cell), (after, _) in zip(bends, bends[1:], strict=False)
        if (after - way) % 4 == by
    ]


def turns(path: list[Cell]) -> tuple[int, int]:
    """Left and right turns along a path."""
    bends = [(way, end) for way, _, end in runs_of(path)]
    return len(corners(bends, 3)), len(corners(bends, 1))
