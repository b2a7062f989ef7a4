"""What an update did to a mixture of experts, layer by layer: how far its router moved, how far its
experts, and which of them moved most.

Of a layer with E experts that move alike, each has 1/E of the experts' ‖Δ‖². Shared experts, which
every token passes, are no members of this; they are in the layer's `mlp`. Relative energies are
‖Δ‖_F / ‖W_earlier‖_F over all matrices of an expert, as in `franken.diff.metrics`.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from franken.experts import ROUTER
from franken.runs.manifest import Mixture

if TYPE_CHECKING:
    import pandas as pd


def drifts(samples: "pd.DataFrame") -> list[Mixture]:
    """One record an update and layer that has experts, from the rows of all tensors."""
    measured = samples[samples["error"].isna()]
    members = measured[measured["expert"].notna()]
    routers = measured[[bool(ROUTER.fullmatch(str(name))) for name in measured["tensor"]]]
    by_layer = {
        (str(row["method"]), int(row["layer"])): row["relative_energy"]
        for row in routers.to_dict("records")
    }
    found = []
    for (method, layer), cell in members.groupby(["method", "layer"], sort=False):
        where = str(method), int(str(layer).partition(".")[0])
        found.append(_drift(*where, cell, by_layer.get(where)))
    return found


def _drift(method: str, layer: int, cell: "pd.DataFrame", router: float | None) -> Mixture:
    sums = cell.groupby("expert")[["delta", "earlier", "elements", "unchanged"]].sum()
    relative = [
        math.sqrt(delta / earlier)
        for delta, earlier in zip(sums["delta"], sums["earlier"], strict=True)
        if earlier
    ]
    moved, total = sums["delta"].to_numpy(float), float(sums["delta"].sum())
    first = int(moved.argmax())
    return Mixture(
        method=method,
        layer=layer,
        router=None if router is None or router != router else float(router),
        experts=len(sums),
        least=min(relative, default=None),
        median=float(np.median(relative)) if relative else None,
        largest=max(relative, default=None),
        expert=int(sums.index[first]) if total else None,
        share=float(moved[first]) / total if total else None,
        unmoved=int((sums["unchanged"] == sums["elements"]).sum()),
    )
