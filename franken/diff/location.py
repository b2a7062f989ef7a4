"""Where an update is: shares of its squared energy by third and by part, and whether the later
layers carry more than theirs.

The test asks for the share of ‖Δ‖² in a part's middle and late thirds. Its null hypothesis is that
layers are exchangeable: p is the share of random relabellings that give as much. Neighbouring
layers are alike, which makes that p too small; so the p of the L circular shifts, which keep
neighbours together and never fall below 1 / L, stands beside it.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from franken.diff.metrics import Sums
from franken.layers import thirds
from franken.runs.manifest import Location, ShareTest
from franken.stats import permutation_test

DRAWS = 10_000
MARGIN = 1e-12  # equal shares are equal in spite of the order of summation


class LayerSums(NamedTuple):
    """What a layer's tensors add up to in one update; `layer` is None outside of layers."""

    method: str
    part: str
    layer: int | None
    sums: Sums


def locate(rows: Sequence[LayerSums]) -> list[Location]:
    """By update and part: its share of all squared energy and elements, those of its thirds, and
    the test.
    """
    located = []
    for method in dict.fromkeys(row.method for row in rows):
        update = [row for row in rows if row.method == method]
        energy, elements = _energy(update), _elements(update)
        for part in dict.fromkeys(row.part for row in update):
            members = [row for row in update if row.part == part]
            energies = _by_layer(members)
            total = energies.sum()
            shares = {
                name: _share(energies[a:b].sum(), total)
                for name, (a, b) in (thirds(energies.size) if energies.size else {}).items()
            }
            located.append(
                Location(
                    method=method,
                    part=part,
                    energy_share=_share(_energy(members), energy),
                    element_share=_share(_elements(members), elements),
                    thirds=shares,
                    test=late_share_test(energies) if total else None,
                )
            )
    return located


def late_share_test(energies: np.ndarray, seed: int = 0) -> ShareTest:
    """Is the share of `energies` [L] in the layers from L // 3 on more than chance? See the
    module's docstring.
    """
    depth = energies.size
    first = depth // 3
    share = energies[first:].sum() / energies.sum()
    shifted = np.array([np.roll(energies, k)[first:].sum() for k in range(depth)]) / energies.sum()
    early, late = energies[:first], energies[first:]
    return ShareTest(
        share=float(share),
        expected=(depth - first) / depth,
        p=permutation_test(early, late, greater=True, n_perm=DRAWS, seed=seed),
        p_shift=float((shifted >= share - MARGIN).mean()),
        n=depth,
    )


def _energy(rows: Iterable[LayerSums]) -> float:
    return sum(row.sums.delta for row in rows)


def _elements(rows: Iterable[LayerSums]) -> int:
    return sum(row.sums.elements for row in rows)


def _by_layer(members: Sequence[LayerSums]) -> np.ndarray:
    """Σ Δ² of every layer [L]; empty where there are no thirds: fewer than three layers, or a
    selection of them.
    """
    layers = {row.layer: row.sums.delta for row in members if row.layer is not None}
    depth = max(layers, default=-1) + 1
    whole = depth >= 3 and len(layers) == depth
    return np.array([layers[i] for i in range(depth)] if whole else [])


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
