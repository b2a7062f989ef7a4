"""The section on the weights: how far each layer moved, in how many directions, and the spectra as
a surface.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from franken.layers import name_layers
from franken.report.figures import updates
from franken.report.headlines import text_layers
from franken.report.page.along import trajectories
from franken.report.page.panels import Group, Panel, Section, basis
from franken.report.sources import runs_of
from franken.runs import RunSet

if TYPE_CHECKING:
    import pandas as pd

TITLE = "What training changed"
LEAD = "Subtract the weights of consecutive checkpoints, tensor by tensor."
METRICS = {
    "relative_energy": "Relative energy ‖Δ‖ / ‖W‖",
    "unchanged_fraction": "Elements left unchanged",
    "effective_rank": "Effective rank of the update",
}


def what(runset: RunSet) -> Section:
    """Energies, shapes and spectra of the updates."""
    rows, ways = runset.layers("diff"), trajectories(runset)
    if len(rows) == 0:
        notes = [] if ways else ["The parameters were not compared."]
        return Section("what", TITLE, LEAD, ways, notes=notes)
    deltas = ["base→sft", "sft→rl"] if "sft" in runset.study.models else ["base→rl"]
    runs = runs_of(runset, "diff")
    depth = runset.study.depth
    shown = [m for m in METRICS if (rows["metric"] == m).any()]
    below = basis(runset, runs, rows.iloc[:0], "", runset.study.stages)
    by_layer = partial(updates.plot_by_layer, rows, deltas=deltas, depth=depth)
    by_part = partial(updates.plot_energy, rows, deltas=deltas)
    alone = [
        Panel(
            f"diff-{m}",
            METRICS[m],
            f"{METRICS[m]} by text layer, per update",
            partial(by_layer, metric=m),
            layered=True,
        )
        for m in shown
    ]
    groups = [
        Group(
            "updates",
            "Size and shape of the updates, by text layer",
            "Lines are whole layers; bands span the layer's attention and MLP. Weights are read "
            "completely, so there is no sampling error. A layer that did not move has no place on "
            "a logarithmic axis.",
            alone,
            _largest(rows, deltas[-1]),
            below,
            runs,
        )
    ]
    if (rows["part"] != "text").any():
        beside = [
            Panel(
                f"parts-{m}",
                METRICS[m],
                f"{METRICS[m]} by layer of vision, projector and text, per update",
                partial(by_part, metric=m),
            )
            for m in shown
        ]
        reading = (
            "The same three on one axis from the vision tower's first layer to the decoder's last. "
            "A part that did not move (frozen in training) has no line on the logarithmic axis."
        )
        title = "Vision tower and projector beside the decoder"
        groups.append(Group("parts", title, reading, beside, "", below, runs))
    spectra = next((s for run in runset.of("diff") if (s := updates.layer_spectra(run))), {})
    notes = []
    if spectra:
        drawn = {delta: spectra[delta] for delta in deltas if delta in spectra}
        groups.append(_spectra(drawn, depth, below, runs))
    else:
        notes.append(
            "The spectra of the updates were not computed: franken diff … --spectra does it."
        )
    return Section("what", TITLE, LEAD, [*groups, *ways], notes)


def _largest(rows: pd.DataFrame, delta: str) -> str:
    """The layers within 5 % of the largest relative energy."""
    energy = text_layers(rows, delta, "relative_energy")
    if len(energy) < 2 or not energy.max() > 0:
        return ""
    near = [int(i) for i in np.flatnonzero(energy >= 0.95 * energy.max())]
    moved = f"{delta} moved {name_layers(near)} furthest"
    if not energy.min() > 0:
        return moved
    share, ratio = 100 * energy.max(), energy.max() / energy.min()
    return f"{moved}: {share:.2g} % of the weights' norm, {ratio:.1f} times the least"


def _spectra(spectra: updates.Spectra, depth: int, below: str, runs: Sequence[str]) -> Group:
    panels: list[Panel] = []
    lows = [float(np.nanmin(s)) for s in spectra.values() if np.isfinite(s).any()]
    low = min(lows, default=-1.0)
    for delta, spectrum in spectra.items():
        panels += [
            Panel(
                f"spectra-{delta}",
                f"{delta}: layer × rank",
                f"singular values over the first, by text layer and rank, {delta}",
                partial(updates.plot_spectrum, spectrum, depth=depth, low=low),
                layered=True,
                legend=False,
            ),
            Panel(
                f"spectra-ranks-{delta}",
                f"{delta}: at fixed ranks",
                f"singular values at fixed ranks by text layer, {delta}",
                partial(updates.plot_ranks, spectrum, depth=depth),
                layered=True,
            ),
            Panel(
                f"spectra-surface-{delta}",
                f"{delta}: the surface",
                f"the same as a surface over layer and rank, {delta}",
                partial(updates.plot_surface, spectrum),
                projection="3d",
                legend=False,
            ),
        ]
    return Group(
        "spectra",
        "Spectra of the updates",
        "How fast the singular values of a layer's update fall: log₁₀ σᵢ/σ₁, the mean over its "
        "matrices, after the paper's figure 6. Darker, or lower, is steeper: the update has fewer "
        "directions.",
        panels,
        _steepest(*list(spectra.items())[-1]) if spectra else "",
        below,
        runs,
    )


def _steepest(delta: str, spectrum: np.ndarray) -> str:
    rank = min(max(updates.RANKS), spectrum.shape[1])
    at = spectrum[:, rank - 1]
    if not np.isfinite(at).any():
        return ""
    low, high = int(np.nanargmin(at)), int(np.nanargmax(at))
    return (
        f"{delta}: the spectrum is steepest in layer {low} (singular value {rank} is "
        f"{10 ** at[low]:.2g} of the first) and flattest in layer {high} ({10 ** at[high]:.2g})"
    )
