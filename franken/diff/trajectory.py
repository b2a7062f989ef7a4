"""What the products of a run's steps say of its path through weight space.

Checkpoints W₁ … W_N after updates t₁ < … < t_N, and the start W₀ at 0: the steps are dᵢ = Wᵢ −
Wᵢ₋₁, the way so far Δᵢ = Wᵢ − W₀. All of this follows from the N × N matrix of the steps' inner
products, which adds up over tensors; no tensor is decomposed:

- `distance` ‖Δᵢ‖, `cosine` of Δₛ and Δₜ, `path_length` Σ‖dᵢ‖, and `straightness` ‖Δ_N‖ / Σ‖dᵢ‖;
- the singular value decomposition of the stacked Δ₁ … Δ_N: `rank_one_share` σ₁² / Σσ², and the
  `coefficient` cᵢ = ⟨Δᵢ, u₁⟩ on the first direction u₁ (arXiv 2510.00553, 2605.21468);
- `linearity`: R² of cᵢ on tᵢ, the start counting as a point (0, 0), for which the line is not bent;
- `half_change`: the update at which ‖Δ‖ first reaches half of ‖Δ_N‖, linear between checkpoints.

Each has a null, in closed form: a walk whose steps are as long as these and have nothing in common
(dᵢ ⊥ dⱼ). It has a rank-1 share near 8/π² = 81 %, a straightness of 1/√N and an R² of 97 % all by
itself, since what was walked stays in every later Δ: shares as they are published say little
without it. Left out: change points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from franken.errors import FrankenError

TINY = 1e-12  # of the whole: what is left of an eigenvalue below it is rounding
Matrix = Float[np.ndarray, "n n"]
Vector = Float[np.ndarray, "n"]


class Measures(NamedTuple):
    """Of a whole path; null where nothing moved, or where one checkpoint makes no line."""

    distance: float
    path_length: float
    straightness: float | None = None
    rank_one_share: float | None = None
    linearity: float | None = None
    half_change: float | None = None
    straightness_null: float | None = None
    rank_one_share_null: float | None = None
    linearity_null: float | None = None
    half_change_null: float | None = None


@dataclass(frozen=True)
class Line:
    """The least-squares line of a coefficient over updates, through points that include the
    start.
    """

    intercept: float
    slope: float
    r2: float | None

    def at(self, update: float) -> float:
        """The line's value after an update."""
        return self.intercept + self.slope * update


@dataclass(frozen=True)
class Way:
    """One run's path: the `updates` of its checkpoints, ascending, and the inner products of its
    steps [N, N].
    """

    updates: tuple[float, ...]
    steps: np.ndarray

    @cached_property
    def gram(self) -> Matrix:
        """⟨Δₛ, Δₜ⟩ for all checkpoints."""
        return np.cumsum(np.cumsum(self.steps, axis=0), axis=1)

    @cached_property
    def distances(self) -> Vector:
        """‖Δᵢ‖."""
        return np.sqrt(np.clip(np.diag(self.gram), 0.0, None))

    @cached_property
    def lengths(self) -> Vector:
        """‖dᵢ‖."""
        return np.sqrt(np.clip(np.diag(self.steps), 0.0, None))

    @cached_property
    def cosines(self) -> Matrix:
        """Between Δₛ and Δₜ; nan where one of them is zero."""
        sizes = np.outer(self.distances, self.distances)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(sizes > 0, np.clip(self.gram / sizes, -1.0, 1.0), np.nan)

    @cached_property
    def directions(self) -> tuple[Vector, Matrix]:
        """The singular values of the stacked Δ, largest first, and the right vectors v as columns:
        uᵢ = Σₜ vₜᵢ Δₜ / σᵢ. Signs are such that the last checkpoint's coefficient is not negative.
        """
        values, vectors = np.linalg.eigh(self.gram)
        values, vectors = np.clip(values[::-1], 0.0, None), vectors[:, ::-1]
        values = np.where(values > TINY * values[0], values, 0.0)
        return np.sqrt(values), vectors * np.where(vectors[-1] < 0, -1.0, 1.0)

    def coefficients(self, direction: int = 0) -> Vector:
        """cᵢ = ⟨Δᵢ, u⟩ of every checkpoint on a direction."""
        sizes, vectors = self.directions
        return sizes[direction] * vectors[:, direction]

    def line(self, direction: int = 0) -> Line:
        """The coefficient as a line over updates."""
        at = np.array([0.0, *self.updates])
        values = np.array([0.0, *self.coefficients(direction)])
        centred = at - at.mean()
        slope = float(centred @ values / (centred @ centred))
        intercept = float(values.mean() - slope * at.mean())
        spread = float(((values - values.mean()) ** 2).sum())
        rest = float(((values - intercept - slope * at) ** 2).sum())
        return Line(intercept, slope, 1.0 - rest / spread if spread else None)

    def half(self) -> float | None:
        """`half_change`."""
        goal = self.distances[-1] / 2
        if not goal:
            return None
        before, at = 0.0, 0.0
        for distance, update in zip(self.distances, self.updates, strict=True):
            if distance >= goal:
                return at + (goal - before) / (distance - before) * (update - at)
            before, at = float(distance), update
        raise AssertionError("the last checkpoint has all of its own change")

    def walk(self) -> "Way":
        """The null: steps as long as these that have nothing in common."""
        return Way(self.updates, np.diag(np.diag(self.steps)))

    def weights(self, update: float, *, rank: int = 1, fitted: bool = True) -> Vector:
        """How much of every Δᵢ makes Σ ĉⱼ uⱼ over the first `rank` directions, where ĉ is the line
        at `update`, or, not `fitted`, the coefficient of the checkpoint that was taken there.

        Raises FrankenError for an update without a checkpoint.
        """
        sizes, vectors = self.directions
        used = range(min(rank, int((sizes > 0).sum())))
        if not fitted and update not in self.updates:
            known = ", ".join(f"{u:g}" for u in self.updates)
            raise FrankenError(f"no checkpoint after update {update:g}", f"there are {known}")
        total = np.zeros(len(self.updates))
        for j in used:
            known = self.coefficients(j)
            value = self.line(j).at(update) if fitted else known[self.updates.index(update)]
            total += value / sizes[j] * vectors[:, j]
        return total


def measures(path: Way) -> Measures:
    """Everything that is one number, beside the null."""
    found, null = _numbers(path), _numbers(path.walk())
    return Measures(float(path.distances[-1]), float(path.lengths.sum()), *found, *null)


def _numbers(path: Way) -> tuple[float | None, float | None, float | None, float | None]:
    length, squared = float(path.lengths.sum()), path.directions[0] ** 2
    if not length or not squared.sum():
        return None, None, None, None
    straight, share = path.distances[-1] / length, squared[0] / squared.sum()
    r2 = path.line().r2 if len(path.updates) > 1 else None
    return float(straight), float(share), r2, path.half()


def ways_of(
    products: np.ndarray, updates: Sequence[Sequence[float]]
) -> tuple[list[Way], list[slice]]:
    """The path of every run from the products of all their steps, and each one's place in them."""
    ways, places, start = [], [], 0
    for own in updates:
        place = slice(start, start + len(own))
        ways.append(Way(tuple(own), products[place, place]))
        places.append(place)
        start = place.stop
    return ways, places


def cosine_of_ends(products: np.ndarray, one: slice, other: slice) -> float | None:
    """Between the last Δ of two runs from one start."""
    inner = products[one, other].sum()
    sizes = np.sqrt(products[one, one].sum() * products[other, other].sum())
    return float(np.clip(inner / sizes, -1.0, 1.0)) if sizes > 0 else None
