"""The figures of one `franken diff`: how far each layer moved, what of it, in how many
directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from franken.layers import thirds
from franken.report import theme as look
from franken.report.figures import updates
from franken.report.figures.plots import layer_axis
from franken.report.figures.sheet import name_lines, save, sheet
from franken.runs import LoadedRun, load_run

COMPONENTS = ("attn", "mlp", "router", "norm")
PRINCIPAL = {
    "principal_left": "overlap of U_k",
    "principal_right": "overlap of V_k",
    "spectral_shift": "‖σ′ − σ‖ / ‖σ‖",
    "principal_energy": "share of Δ inside",
}
MIDDLE = "#E3E0D8"  # on the band of a part


def draw_diff(folder: Path) -> list[Path]:
    """Draw the figures of a finished run into its `figures/`; those that exist are kept. Returns
    their paths.
    """
    run = load_run(folder)
    deltas = _adjacent(list(dict.fromkeys(run.layers["method"])))
    if not deltas:  # no tensor could be compared
        return []
    by_layer = partial(_by_layer, run, deltas)
    makers: dict[str, Callable[[], Figure]] = {
        "energy": partial(by_layer, ["relative_energy", "energy"]),
        "unchanged": partial(by_layer, ["unchanged_fraction", "rounding_fraction"]),
        "components": partial(_components, run, deltas),
    }
    if spectra := updates.layer_spectra(run):
        shown = {delta: spectra[delta] for delta in deltas if delta in spectra}
        makers["spectrum-surface"] = partial(_surface, shown)
        makers["spectra-by-third"] = partial(_spectra_by_third, run, deltas)
        makers["ranks"] = partial(by_layer, ["effective_rank", "stable_rank"])
    overlap = run.samples.get("left_overlap")
    if updates.compared_depth(run) and overlap is not None and overlap.notna().any():
        makers["subspaces"] = partial(_subspaces, run)
    turned = run.samples.get("principal_left")
    if updates.compared_depth(run) and turned is not None and turned.notna().any():
        makers["principal"] = partial(_principal, run, deltas)
    drawn = []
    for name, make in makers.items():
        path = folder / "figures" / f"{name}.png"
        if not path.exists():
            with look.theme():
                save(make(), path)
        drawn.append(path)
    return drawn


def _adjacent(deltas: list[str]) -> list[str]:
    """Without base → rl where it is the sum of two others: it would lie on top of the larger
    one.
    """
    return [d for d in deltas if d != "base→rl"] if len(deltas) == 3 else deltas


def _by_layer(run: LoadedRun, deltas: Sequence[str], metrics: Sequence[str]) -> Figure:
    figure, axes = sheet(len(metrics), 1, 9.6, 2.9)
    for ax, metric in zip(axes, metrics, strict=True):
        updates.plot_energy(run.layers, metric=metric, deltas=deltas, ax=ax)
        low, high = ax.get_ylim()
        if ax.get_yscale() == "log":  # room for the names of the thirds
            ax.set_ylim(low, high * (high / low) ** 0.12)
        updates.shade_parts(ax, run.layers, MIDDLE)
    name_lines(figure, axes[0], side="outside upper left")
    return figure


def _components(run: LoadedRun, deltas: Sequence[str]) -> Figure:
    rows = run.layers.loc[run.layers["metric"] == "relative_energy"]
    rows = rows.loc[
        rows["layer"].notna() & rows["component"].isin(COMPONENTS) & (rows["value"] > 0)
    ]
    figure, axes = sheet(len(deltas), 1, 10.5, 1.7)
    places = [place for place in updates.diff_places(run.layers) if place[0] != "projector"]
    components = [name for name in COMPONENTS if (rows["component"] == name).any()]
    step = 1 if len(places) <= 24 else 4
    names = [f"{part[0]}{layer}" if layer % step == 0 else "" for part, layer in places]
    for ax, delta in zip(axes, deltas, strict=True):
        moved = rows.loc[rows["method"] == delta].set_index(["component", "part", "layer"])["value"]
        ax.set_title(f"{delta}  (blank: did not move)")
        if not len(moved):
            ax.set_axis_off()
            continue
        logs = {place: np.log10(value) for place, value in moved.items()}
        sns.heatmap(
            np.array([[logs.get((c, *place), np.nan) for place in places] for c in components]),
            ax=ax,
            cmap="mako_r",
            cbar_kws={"label": "log₁₀ ‖Δ‖ / ‖W‖", "pad": 0.01},
            xticklabels=names,
            yticklabels=components,
        )
        ax.tick_params(axis="y", rotation=0)
    axes[-1].set_xlabel("v: vision layer, t: text layer")
    return figure


def _surface(spectra: updates.Spectra) -> Figure:
    """The paper's figure 6: above the surface over layer × rank, below its lines at fixed ranks."""
    figure = Figure(figsize=(5.2 * len(spectra), 7.6))
    for column, (delta, spectrum) in enumerate(spectra.items(), 1):
        above = figure.add_subplot(2, len(spectra), column, projection="3d")
        updates.plot_surface(spectrum, ax=above).set_title(delta)
        above.set(xlim=(0, len(spectrum) - 1), zlim=(np.nanmin(spectrum), 0))
        below = figure.add_subplot(2, len(spectra), len(spectra) + column)
        updates.plot_ranks(spectrum, ax=below)
    name_lines(figure, figure.axes[1], side="outside lower left")
    return figure


def _spectra_by_third(run: LoadedRun, deltas: Sequence[str]) -> Figure:
    """The same matrix in early, middle and late layers: comparable, unlike one matrix of each third
    picked by position.
    """
    rows, depth = updates.spectral_rows(run), updates.compared_depth(run)
    matrix = rows["tensor"].str.replace(r"^text\.layers\.\d+\.|\.weight$", "", regex=True)
    shown = [d for d in deltas if (rows["method"] == d).any()]
    kinds = [(name, delta) for name in sorted(matrix.unique()) for delta in shown]
    figure, axes = sheet(len(kinds), len(shown), 3.6, 1.9, sharey=True)
    for place, (ax, (name, delta)) in enumerate(zip(axes, kinds, strict=True)):
        own = rows.loc[(matrix == name) & (rows["method"] == delta)]
        for tint, (third, (start, stop)) in zip(
            look.TASK_COLOURS, thirds(depth).items(), strict=False
        ):
            members = own.loc[own["layer"].between(start, stop - 1), "singular_values"]
            if len(members):
                curve = np.mean([updates.log_share(s) for s in members], axis=0)
                ax.plot(np.arange(1, curve.size + 1), curve, color=tint, label=third)
        ax.set_title(f"{name}, {delta}", fontsize=8)
        if place % len(shown) == 0:
            ax.set_ylabel(updates.SPECTRUM)
    for ax in axes[-len(shown) :]:
        ax.set_xlabel("i")
    name_lines(figure, axes[0], side="outside upper left")
    return figure


def _principal(run: LoadedRun, deltas: Sequence[str]) -> Figure:
    """Each measure of the leading directions by layer, beside both nulls of the same norm."""
    rows = run.layers.loc[(run.layers["part"] == "text") & (run.layers["component"] == "all")]
    rows = rows.dropna(subset=["layer", "value"]).sort_values("layer")
    figure, axes = sheet(len(deltas) * len(PRINCIPAL), len(PRINCIPAL), 3.6, 2.7)
    for place, ax in enumerate(axes):
        delta, metric = deltas[place // len(PRINCIPAL)], list(PRINCIPAL)[place % len(PRINCIPAL)]
        own = rows.loc[rows["method"] == delta]
        for suffix, tint, label in (
            ("", look.DELTAS.get(delta, look.LIGHT.ink), "the update"),
            ("_sft", look.LIGHT.ink, "SFT's update of that norm"),
            ("_random", look.LIGHT.muted, "a random update of that norm"),
        ):
            line = own.loc[own["metric"] == f"{metric}{suffix}"]
            if len(line):
                values = line["value"].to_numpy(float)
                ax.plot(line["layer"].to_numpy(int), values, color=tint, marker="o", label=label)
        layer_axis(ax, updates.compared_depth(run), look.LIGHT)
        ax.set_title(f"{delta}: {PRINCIPAL[metric]}", fontsize=9)
    name_lines(figure, axes[-1], side="outside upper left")
    return figure


def _subspaces(run: LoadedRun) -> Figure:
    figure, axes = sheet(2, 2, 5.6, 3.2, sharey=True)
    rows = run.layers.loc[(run.layers["part"] == "text") & (run.layers["component"] == "all")]
    rows = rows.dropna(subset=["layer", "value"]).sort_values("layer")
    for ax, side in zip(axes, ("left", "right"), strict=True):
        for metric, tint, label in (
            (f"{side}_overlap", look.DELTAS["sft→rl"], "SFT's and RL's updates"),
            (f"{side}_overlap_random", look.LIGHT.muted, "random subspaces"),
        ):
            line = rows.loc[rows["metric"] == metric]
            ax.plot(line["layer"].to_numpy(int), line["value"], color=tint, marker="o", label=label)
        layer_axis(ax, updates.compared_depth(run), look.LIGHT)
        ax.set_ylim(-0.02, 1.08)
        ax.set_title(f"{side} singular subspaces")
    axes[0].set_ylabel("overlap ‖U₁ᵀU₂‖² / k")
    name_lines(figure, axes[0], side="outside upper left")
    return figure
