"""Plots of what training changed in the weights: rows of a run of `franken diff` in, an Axes out.

Weights are read whole, so there is no sampling error: bands span a layer's attention and its MLP.
After the Frankenstein paper (arXiv 2602.12395), figures 5 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns

from franken.layers import thirds
from franken.report import theme as look
from franken.report.figures.plots import (
    draw_cells,
    draw_line,
    layer_axis,
    measured_layers,
    new_axes,
    shade_thirds,
)
from franken.runs import LoadedRun

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from mpl_toolkits.mplot3d import Axes3D

Spectra = dict[str, np.ndarray]  # update → log₁₀ σᵢ/σ₁, [layer, rank]
Place = tuple[str, int]  # (part, layer)
PARTS = ("vision", "projector", "text")
LOGARITHMIC = ("relative_energy", "energy")
LABELS = {
    "relative_energy": "‖Δ‖ / ‖W‖",
    "energy": "‖Δ‖",
    "unchanged_fraction": "unchanged elements, share",
    "rounding_fraction": "of the changed: one bf16 step",
    "effective_rank": "effective rank of Δ",
    "stable_rank": "stable rank of Δ",
    "cosine": "cosine",
}
RANKS = (10, 20, 30, 40)  # of the paper's trend lines
DEEPEST = 50  # singular values of a matrix that are drawn
LOW = 1e-7  # singular values below this share of the first were not told from zero
SPECTRUM = "log₁₀ σᵢ / σ₁"


def plot_energy(
    df: pd.DataFrame,
    *,
    metric: str = "relative_energy",
    deltas: Sequence[str] = ("base→sft", "sft→rl"),
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """How far each layer moved, vision, projector and text on one axis; a line per delta,
    logarithmic y.
    """
    ax = new_axes(ax)
    df = number_projector(df)
    places = diff_places(df)
    for delta in deltas:
        label: str | None = delta
        for part in PARTS:
            line = _line(df.loc[df["part"] == part], delta, metric)
            x = [places[part, int(i)] for i in line["layer"]]
            draw_line(ax, line, look.DELTAS.get(delta, mode.ink), label, x=x, scale=1.0)
            label = None if len(line) else label
    _metric_axis(ax, metric)
    if metric == "cosine":
        ax.set_ylim(None, 1.14)
    _parts_axis(ax, places, mode)
    return ax


def plot_by_layer(
    df: pd.DataFrame,
    *,
    metric: str,
    deltas: Sequence[str],
    depth: int,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """A metric of the updates by text layer, on the axis that all layered figures share; a line per
    delta.
    """
    ax = new_axes(ax)
    for delta in deltas:
        line = _line(df.loc[df["part"] == "text"], delta, metric)
        draw_line(ax, line, look.DELTAS.get(delta, mode.ink), delta, scale=1.0)
    layer_axis(ax, depth, mode)
    _metric_axis(ax, metric)
    if not metric.endswith("fraction"):
        ax.margins(y=0.18)
    return ax


def plot_update(
    df: pd.DataFrame,
    *,
    delta: str,
    depth: int | None = None,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """Relative energy of one update in the text layers, in percent of the weights' norm."""
    ax = new_axes(ax)
    line = with_component_range(df, delta, "relative_energy")
    draw_line(ax, line, look.DELTAS.get(delta, mode.ink), delta)
    measured_layers(ax, line, mode, depth)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("‖Δ‖ / ‖W‖, %")
    return ax


def plot_ranks(
    spectrum: np.ndarray, *, mode: look.Mode = look.LIGHT, depth: int = 0, ax: Axes | None = None
) -> Axes:
    """A [layer, rank] spectrum at the paper's fixed ranks, by text layer."""
    ax = new_axes(ax)
    for number, rank in enumerate(r for r in RANKS if r <= spectrum.shape[1]):
        tint, marker = look.TASK_COLOURS[number], look.TASK_MARKERS[number]
        ax.plot(spectrum[:, rank - 1], color=tint, marker=marker, label=f"rank {rank}")
    layer_axis(ax, depth or len(spectrum), mode)
    ax.margins(y=0.18)
    ax.set_ylabel(SPECTRUM)
    return ax


def plot_spectrum(
    spectrum: np.ndarray,
    *,
    depth: int,
    low: float,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """A [layer, rank] spectrum as cells, coloured from `low` to 0."""
    ax = new_axes(ax)
    full = np.full((depth, spectrum.shape[1]), np.nan)
    full[: len(spectrum)] = spectrum
    draw_cells(ax, full.T, depth, mode, "log₁₀ σᵢ/σ₁", (low, 0.0), palette="mako")
    ticks = [r for r in (1, *RANKS) if r <= spectrum.shape[1]]
    ax.set_yticks([r - 1 for r in ticks], [str(r) for r in ticks])
    ax.set_ylabel("rank i")
    return ax


def plot_surface(spectrum: np.ndarray, *, mode: look.Mode = look.LIGHT, ax: Axes3D) -> Axes3D:
    """A [layer, rank] spectrum as a surface, as the paper's figure 6."""
    layers, ranks = spectrum.shape
    layer, rank = np.meshgrid(range(layers), np.arange(1, ranks + 1), indexing="ij")
    colours = sns.color_palette("mako", as_cmap=True)
    ax.plot_surface(
        layer, rank, spectrum, cmap=colours, linewidth=0, antialiased=True, rcount=40, ccount=40
    )
    ax.set_xlabel("text layer", labelpad=-4)
    ax.set_ylabel("rank i", labelpad=-4)
    ax.set_zlabel(SPECTRUM, labelpad=-4)
    ax.tick_params(pad=-2, labelsize=7)
    ax.view_init(elev=22, azim=-60)
    ax.set_box_aspect((1.5, 1.1, 0.9), zoom=0.9)  # pyright: ignore[reportArgumentType]
    axes: tuple[Any, ...] = (ax.xaxis, ax.yaxis, ax.zaxis)  # Axis3D, though typed as Axis
    for axis in axes:
        axis.pane.set_facecolor(mode.band)
        axis.pane.set_alpha(0.4)
    return ax


def layer_spectra(run: LoadedRun) -> Spectra:
    """By update: log₁₀ σᵢ/σ₁ of the text layers [layer, rank], the mean over a layer's matrices;
    NaN where nothing moved. Empty without singular values.
    """
    rows, spectra, depth = spectral_rows(run), {}, compared_depth(run)
    if not len(rows):
        return {}
    for update, members in rows.groupby("method", sort=False):
        deepest = min(DEEPEST, min(len(s) for s in members["singular_values"]))
        spectrum = np.full((depth, deepest), np.nan)
        for layer in sorted(set(members["layer"].astype(int))):
            matrices = members.loc[members["layer"] == layer, "singular_values"]
            spectrum[layer] = np.mean([log_share(s)[:deepest] for s in matrices], axis=0)
        spectra[str(update)] = spectrum
    return spectra


def spectral_rows(run: LoadedRun) -> pd.DataFrame:
    """The rows of text layers' matrices that have singular values."""
    rows = run.samples
    if "singular_values" not in rows:
        return rows.iloc[:0]
    known = (rows["part"] == "text") & rows["layer"].notna() & rows["singular_values"].notna()
    return rows.loc[known]


def compared_depth(run: LoadedRun) -> int:
    """Number of decoder layers that were compared up to; 0 when none was."""
    layers = run.layers.loc[run.layers["part"] == "text", "layer"].dropna()
    return max(map(int, layers), default=-1) + 1


def log_share(sigma: Sequence[float]) -> np.ndarray:
    """log₁₀ σᵢ/σ₁, with what could not be told from zero at the floor."""
    values = np.asarray(sigma, float)
    return np.log10(np.maximum(values / values[0], LOW))


def diff_places(df: pd.DataFrame) -> dict[Place, float]:
    """x positions that put vision, projector and text side by side: (part, layer) → x, with a gap
    between parts.
    """
    known = df.loc[df["layer"].notna()]
    places: dict[Place, float] = {}
    x = 0.0
    for part in PARTS:
        layers = sorted({int(i) for i in known.loc[known["part"] == part, "layer"]})
        for layer in layers:
            places[part, layer] = x
            x += 1
        x += 0.8 if layers else 0
    return places


def number_projector(df: pd.DataFrame) -> pd.DataFrame:
    """The projector has no layers: it stands on the axis as one place."""
    layer = df["layer"].astype("Float64").mask(df["part"] == "projector", 0)
    return df.assign(layer=layer)


def shade_parts(ax: Axes, df: pd.DataFrame, tint: str) -> None:
    """The middle third of the tower and of the decoder, shaded on the axis they share."""
    places = diff_places(number_projector(df))
    for part in ("vision", "text"):
        layers = [layer for (p, layer) in places if p == part]
        if len(layers) >= 3 and len(layers) == max(layers) + 1:
            offset = places[part, 0]
            start, stop = (edge - 0.5 + offset for edge in thirds(len(layers))["middle"])
            ax.axvspan(start, stop, color=tint, zorder=-4, linewidth=0)
            shade_thirds(ax, len(layers), look.LIGHT, offset=offset)


def with_component_range(df: pd.DataFrame, delta: str, metric: str) -> pd.DataFrame:
    """The whole layers of an update, their interval filled with the range over attention and MLP
    where it is empty.
    """
    rows = df.loc[(df["method"] == delta) & (df["metric"] == metric) & df["layer"].notna()]
    whole = rows.loc[rows["component"] == "all"].sort_values("layer").copy()
    parts = rows.loc[rows["component"].isin(["attn", "mlp"])].groupby("layer")["value"]
    value = whole["value"].astype(float)
    for column, edge, pick in (
        ("ci_low", parts.min(), np.fmin),
        ("ci_high", parts.max(), np.fmax),
    ):
        own, filled = whole[column].astype(float), whole["layer"].map(edge).astype(float)
        whole[column] = own.where(own.notna(), pick(filled, value))
    return whole


def _line(df: pd.DataFrame, delta: str, metric: str) -> pd.DataFrame:
    line = with_component_range(df, delta, metric)
    if metric in LOGARITHMIC:  # a layer that did not move has no logarithm: a gap, not a fall
        cells = ["value", "ci_low", "ci_high"]
        line[cells] = line[cells].astype(float).replace(0.0, np.nan)
    return line


def _metric_axis(ax: Axes, metric: str) -> None:
    """Logarithmic y unless no layer moved; shares from 0 to 1; else from 0."""
    if metric in LOGARITHMIC:
        if np.isfinite(ax.dataLim.intervaly).all():
            ax.set_yscale("log")
    elif metric.endswith("fraction"):
        ax.set_ylim(-0.02, 1.14)
    elif metric != "cosine":
        ax.set_ylim(bottom=0)
    ax.set_ylabel(LABELS.get(metric, metric))


def _parts_axis(ax: Axes, places: Mapping[Place, float], mode: look.Mode) -> None:
    if not places:
        return
    for part in PARTS:
        xs = [x for (p, _), x in places.items() if p == part]
        if not xs:
            continue
        ax.axvspan(min(xs) - 0.45, max(xs) + 0.45, color=mode.band, zorder=-5, linewidth=0)
        ax.annotate(
            part,
            ((min(xs) + max(xs)) / 2, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -15),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
            color=mode.muted,
        )
    step = 1 if len(places) <= 20 else 4
    shown = [
        (x, layer)
        for (part, layer), x in places.items()
        if part != "projector" and layer % step == 0
    ]
    ax.set_xticks([x for x, _ in shown], [str(layer) for _, layer in shown])
    ax.set_xlabel(" ")  # room for the names of the parts
