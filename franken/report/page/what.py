"""The section on the weights: how far each layer moved, in how many directions, and the spectra as
a surface.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from franken.report import theme as look
from franken.report.evidence import Evidence
from franken.report.figures import plots
from franken.report.figures.diff import RANKS, layer_spectra
from franken.report.headlines import layer_spans, text_layers
from franken.report.page.panels import Group, Panel, Section, basis
from franken.report.sources import runs_of

TITLE = "What training changed"
METRICS = {
    "relative_energy": "Relative energy ‖Δ‖ / ‖W‖",
    "unchanged_fraction": "Elements left unchanged",
    "effective_rank": "Effective rank of the update",
}


def what(found: Evidence) -> Section:
    """Energies, shapes and spectra of the updates."""
    rows = found.layers("diff")
    lead = "Subtract the weights of consecutive checkpoints, tensor by tensor."
    if len(rows) == 0:
        return Section("what", TITLE, lead, notes=["The parameters were not compared."])
    deltas = ["base→sft", "sft→rl"] if "sft" in found.study.models else ["base→rl"]
    runs = runs_of(found, "diff")
    depth = found.study.depth
    shown = [m for m in METRICS if (rows["metric"] == m).any()]
    text = Group(
        "updates",
        "Size and shape of the updates, by text layer",
        "Lines are whole layers; bands span the layer's attention and MLP. Weights are read completely, so there is no "
        "sampling error. A layer that did not move has no place on a logarithmic axis.",
        [
            Panel(
                f"diff-{m}",
                METRICS[m],
                f"{METRICS[m]} by text layer, per update",
                lambda ax, mode, m=m: plot_by_layer(
                    rows, metric=m, deltas=deltas, depth=depth, mode=mode, ax=ax
                ),
                layered=True,
            )
            for m in shown
        ],
        _largest(rows, deltas[-1]),
        basis(found, runs, rows.iloc[:0], "", found.study.stages),
        runs,
    )
    groups = [text]
    if (rows["part"] != "text").any():
        groups.append(
            Group(
                "parts",
                "Vision tower and projector beside the decoder",
                "The same three on one axis from the vision tower's first layer to the decoder's last. A part that did not move "
                "(frozen in training) has no line on the logarithmic axis.",
                [
                    Panel(
                        f"parts-{m}",
                        METRICS[m],
                        f"{METRICS[m]} by layer of vision, projector and text, per update",
                        lambda ax, mode, m=m: plots.plot_energy(
                            rows, metric=m, deltas=deltas, mode=mode, ax=ax
                        ),
                    )
                    for m in shown
                ],
                "",
                text.basis,
                runs,
            )
        )
    spectra = _spectra(found)
    notes = []
    if spectra:
        groups.append(
            _surfaces(spectra, [d for d in deltas if d in spectra], depth, text.basis, runs)
        )
    else:
        notes.append(
            "The spectra of the updates were not computed: franken diff … --spectra does it."
        )
    return Section("what", TITLE, lead, groups, notes)


def plot_by_layer(
    df: Any,
    *,
    metric: str,
    deltas: Sequence[str],
    depth: int,
    mode: look.Mode = look.LIGHT,
    ax: Any,
) -> Any:
    """A metric of the updates by text layer, on the axis that all layered figures share; a line an
    update.
    """
    text = df[(df["part"] == "text") & df["layer"].notna()]
    for delta in deltas:
        line = plots.with_component_range(
            text[(text["method"] == delta) & (text["metric"] == metric)]
        )
        if metric in plots.LOGARITHMIC:
            cells = ["value", "ci_low", "ci_high"]
            line[cells] = line[cells].astype(float).replace(0.0, np.nan)
        plots.draw_line(ax, line, look.DELTAS.get(delta, mode.ink), delta, scale=1.0)
    plots.layer_axis(ax, depth, mode)
    if metric in plots.LOGARITHMIC:
        plots.use_logarithm(ax)
        ax.margins(y=0.18)
    elif metric.endswith("fraction"):
        ax.set_ylim(-0.02, 1.14)
    else:
        ax.set_ylim(bottom=0)
        ax.margins(y=0.18)
    ax.set_ylabel(plots.LABELS.get(metric, metric))
    return ax


def _largest(rows: Any, delta: str) -> str:
    """The layers within 5 % of the largest relative energy."""
    energy = text_layers(rows, delta, "relative_energy")
    if len(energy) < 2 or not energy.max() > 0:
        return ""
    near = [int(i) for i in np.flatnonzero(energy >= 0.95 * energy.max())]
    who = f"layer {near[0]}" if len(near) == 1 else f"layers {layer_spans(near)}"
    return (
        f"{delta} moved {who} furthest: {100 * energy.max():.2g} % of the weights' norm, "
        f"{energy.max() / energy.min():.1f} times the least"
        if energy.min() > 0
        else f"{delta} moved {who} furthest"
    )


def _spectra(found: Evidence) -> dict[str, np.ndarray]:
    """log₁₀ σᵢ/σ₁ by update, of the first comparison that has singular values."""
    for run in found.runs:
        rows: Any = run.samples
        if (
            run.verb == "diff"
            and "singular_values" in rows
            and rows["singular_values"].notna().any()
        ):
            return layer_spectra(run)
    return {}


def _surfaces(
    spectra: dict[str, np.ndarray], shown: list[str], depth: int, below: str, runs: tuple[str, ...]
) -> Group:
    panels: list[Panel] = []
    low = min(
        (float(np.nanmin(spectra[u])) for u in shown if np.isfinite(spectra[u]).any()), default=-1.0
    )
    for update in shown:
        table = spectra[update]
        panels.append(
            Panel(
                f"spectra-{update}",
                f"{update}: layer × rank",
                f"singular values over the first, by text layer and rank, {update}",
                lambda ax, mode, t=table: _plot_spectra(ax, mode, t, depth, low),
                layered=True,
                legend=False,
            )
        )
        panels.append(
            Panel(
                f"spectra-ranks-{update}",
                f"{update}: at fixed ranks",
                f"singular values at fixed ranks by text layer, {update}",
                lambda ax, mode, t=table: _plot_ranks(ax, mode, t, depth),
                layered=True,
            )
        )
        panels.append(
            Panel(
                f"spectra-surface-{update}",
                f"{update}: the surface",
                f"the same as a surface over layer and rank, {update}",
                lambda ax, mode, t=table: _plot_surface(ax, mode, t),
                projection="3d",
                legend=False,
            )
        )
    return Group(
        "spectra",
        "Spectra of the updates",
        "How fast the singular values of a layer's update fall: log₁₀ σᵢ/σ₁, the mean over its matrices, after the paper's "
        "figure 6. Darker, or lower, is steeper: the update has fewer directions.",
        panels,
        _steepest(spectra[shown[-1]], shown[-1]) if shown else "",
        below,
        runs,
    )


def _steepest(table: np.ndarray, update: str) -> str:
    rank = min(max(RANKS), table.shape[1])
    at = table[:, rank - 1]
    if not np.isfinite(at).any():
        return ""
    low, high = int(np.nanargmin(at)), int(np.nanargmax(at))
    return (
        f"{update}: the spectrum is steepest in layer {low} (singular value {rank} is {10 ** at[low]:.2g} of the first) and "
        f"flattest in layer {high} ({10 ** at[high]:.2g})"
    )


def _plot_spectra(ax: Any, mode: look.Mode, table: np.ndarray, depth: int, low: float) -> None:
    full = np.full((depth, table.shape[1]), np.nan)
    full[: len(table)] = table
    plots.draw_cells(ax, full.T, depth, mode, "log₁₀ σᵢ/σ₁", (low, 0.0), palette="mako")
    ticks = [r for r in (1, *RANKS) if r <= table.shape[1]]
    ax.set_yticks([r - 1 for r in ticks], [str(r) for r in ticks])
    ax.set_ylabel("rank i")


def _plot_ranks(ax: Any, mode: look.Mode, table: np.ndarray, depth: int) -> None:
    for number, rank in enumerate(r for r in RANKS if r <= table.shape[1]):
        tint, marker = look.TASK_COLOURS[number], look.TASK_MARKERS[number]
        ax.plot(
            range(len(table)), table[:, rank - 1], color=tint, marker=marker, label=f"rank {rank}"
        )
    plots.layer_axis(ax, depth, mode)
    ax.margins(y=0.18)
    ax.set_ylabel("log₁₀ σᵢ / σ₁")


def _plot_surface(ax: Any, mode: look.Mode, table: np.ndarray) -> None:
    import seaborn as sns

    layer, rank = np.meshgrid(
        range(table.shape[0]), np.arange(1, table.shape[1] + 1), indexing="ij"
    )
    ax.plot_surface(
        layer,
        rank,
        table,
        cmap=sns.color_palette("mako", as_cmap=True),
        linewidth=0,
        antialiased=True,
        rcount=40,
        ccount=40,
    )
    ax.set_xlabel("text layer", labelpad=-4)
    ax.set_ylabel("rank i", labelpad=-4)
    ax.set_zlabel("log₁₀ σᵢ / σ₁", labelpad=-4)
    ax.tick_params(pad=-2, labelsize=7)
    ax.view_init(elev=22, azim=-60)
    ax.set_box_aspect((1.5, 1.1, 0.9), zoom=0.9)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.pane.set_facecolor(mode.band)
        axis.pane.set_alpha(0.4)
