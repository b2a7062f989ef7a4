"""Where an update is: shares of its squared energy by third and by part, and whether the later
layers carry more than theirs.

The test asks for the share of ‖Δ‖² in a part's middle and late thirds. Its null hypothesis is that
layers are exchangeable: p is the share of random relabellings that give as much. Neighbouring
layers are alike, which makes that p too small; so the p of the L circular shifts, which keep
neighbours together and never fall below 1 / L, stands beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from franken.layers import thirds
from franken.stats import permutation_test

DRAWS = 10_000
MARGIN = 1e-12  # equal shares are equal in spite of the order of summation


def locate(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By update and part: its share of all squared energy and elements, those of its thirds, and
    the test.

    `rows` has a row per update, part and layer (None outside of layers) with the summed `delta` = Σ
    Δ² and `elements`.
    """
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        update = [row for row in rows if row["method"] == method]
        energy, elements = (sum(row[key] for row in update) for key in ("delta", "elements"))
        for part in dict.fromkeys(row["part"] for row in update):
            members = [row for row in update if row["part"] == part]
            here: dict[str, Any] = {"method": method, "part": part}
            here["energy_share"] = _share(sum(row["delta"] for row in members), energy)
            here["element_share"] = _share(sum(row["elements"] for row in members), elements)
            here["thirds"], here["test"] = _within(members)
            found.append(here)
    return found


def late_share_test(energies: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Is the share of `energies` [L] in the layers from L // 3 on more than chance? See the
    module's docstring.
    """
    depth = energies.size
    first = depth // 3
    share = energies[first:].sum() / energies.sum()
    shifted = np.array([np.roll(energies, k)[first:].sum() for k in range(depth)]) / energies.sum()
    early, late = energies[:first], energies[first:]
    return {
        "share": float(share),
        "expected": (depth - first) / depth,
        "p": permutation_test(early, late, greater=True, n_perm=DRAWS, seed=seed),
        "p_shift": float((shifted >= share - MARGIN).mean()),
        "n": depth,
    }


def _within(
    members: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, float | None], dict[str, Any] | None]:
    layers = {row["layer"]: row["delta"] for row in members if row["layer"] is not None}
    depth = max(layers, default=-1) + 1
    if depth < 3 or len(layers) < depth:  # a selection of layers has no thirds
        return {}, None
    energies = np.array([layers[i] for i in range(depth)])
    total = energies.sum()
    shares = {name: _share(energies[a:b].sum(), total) for name, (a, b) in thirds(depth).items()}
    return shares, late_share_test(energies) if total else None


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
