"""`extrapolate`: a checkpoint made of the way of a training run, W₀ + ĉ u₁, tensor by tensor.

u₁ is the first direction of the stacked updates of all its checkpoints, ĉ what the line of their
coefficients says at an update, which may lie beyond the last one (arXiv 2605.21468). `rank` takes
more directions than one; without `fitted`, ĉ is the coefficient of the checkpoint that was taken
at the update, so that all directions together give that checkpoint. Streamed as `franken diff
--along` streams: the memory is that of one tensor in float64, whatever the number of checkpoints.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from franken.diff.along_plan import find_run
from franken.diff.steps import combined, step_products
from franken.diff.trajectory import Way
from franken.diff.values import opened
from franken.errors import FrankenError, UsageError

if TYPE_CHECKING:
    from franken.merge.plan import Row
    from franken.merge.recipe import Parameters, Rule

EXTRAPOLATE = "extrapolate"
PARAMETERS = ("update", "rank", "fitted", "at")


def expand(checkpoints: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """BASE RUN as BASE and all checkpoints of the run, and after which update each was taken, by
    its folder. Raises UsageError.
    """
    if len(checkpoints) != 2:
        raise UsageError(
            f"{EXTRAPOLATE} takes a base and one run",
            why=f"{len(checkpoints)} folders are given",
            fix=f"franken merge BASE RUN --method {EXTRAPOLATE}",
        )
    run = find_run(Path(checkpoints[1]))
    folders = [str(folder) for folder in run.checkpoints]
    return [checkpoints[0], *folders], dict(zip(folders, run.updates, strict=True))


def check_extrapolate(rule: "Rule", inputs: Sequence[str]) -> None:
    """Raises UsageError unless a rule has what the method needs."""
    given = rule.parameters
    odd = [name for name in given if name not in PARAMETERS]
    if odd:
        raise UsageError(f"{EXTRAPOLATE} has no parameter {odd[0]!r}", f"it has {PARAMETERS}")
    at = given.get("at")
    if not isinstance(at, Mapping) or set(at) != set(inputs) or len(inputs) < 2:
        raise UsageError(
            f"{EXTRAPOLATE} needs two checkpoints or more, and `at`: the update of each",
            why=f"the inputs are {', '.join(inputs) or 'none'}",
            fix=f"franken merge BASE RUN --method {EXTRAPOLATE} reads both from the run",
        )
    _settings(given, inputs)


def extrapolated(row: "Row") -> np.ndarray:
    """The tensor that a row makes, as float64 in its shape. Raises FrankenError where a weight is
    not finite.
    """
    start, *later = row.sources
    updates, update, rank, fitted = _settings(row.parameters, [s.name for s in later])
    order = np.argsort(updates)
    with ExitStack() as stack:
        first = stack.enter_context(opened(start.entry, start.update))
        run = [stack.enter_context(opened(later[i].entry, later[i].update)) for i in order]
        products, _ = step_products(first, [run])
        if not np.isfinite(products).all():
            raise FrankenError(f"{row.key} holds a value that is NaN or infinite")
        way = Way(tuple(float(updates[i]) for i in order), products)
        made = combined(first, run, way.weights(update, rank=rank, fitted=fitted))
    return made.reshape(row.target.shape)


def _settings(given: "Parameters", inputs: Sequence[str]) -> tuple[list[float], float, int, bool]:
    """The updates of the inputs, and update, rank and fitted. Raises UsageError."""
    at = given["at"]
    assert isinstance(at, Mapping)
    updates = [at[name] for name in inputs]
    if not all(_is_number(u) and u > 0 for u in updates) or len(set(updates)) < len(updates):  # pyright: ignore[reportOperatorIssue]
        raise UsageError(
            "the updates of `at` are not numbers above 0, each once", f"they are {updates}"
        )
    known = [float(u) for u in updates]  # pyright: ignore[reportArgumentType]
    update, rank, fitted = (
        given.get("update", max(known)),
        given.get("rank", 1),
        given.get("fitted", True),
    )
    if not _is_number(update) or not _is_number(rank) or rank < 1 or not isinstance(fitted, bool):  # pyright: ignore[reportOperatorIssue]
        raise UsageError(
            f"cannot extrapolate to update {update} at rank {rank}",
            why="update and rank are numbers, the rank from 1, and fitted is true or false",
            fix="--param update=200 --param rank=1",
        )
    return known, float(update), int(rank), fitted  # pyright: ignore[reportArgumentType]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
