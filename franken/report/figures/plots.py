"""The figures: tidy rows of layers.parquet in, a matplotlib Axes out. No function reads a file or
shows a window.

Shared rules: the x axis of a layer plot is the 0-based layer with the thirds of the stack shaded;
every line has its 95 % band and every point its 95 % bar; colours are those of `theme`. The columns
used are model, method, part, layer, component, task, metric, value, ci_low, ci_high, n (see the
design, §4.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from franken.layers import thirds
from franken.probe.findings import pool_tasks, task_names
from franken.report import theme as look
from franken.runs import STAGES

Frame = Any  # a pandas DataFrame; see franken.evaluate.metrics
if TYPE_CHECKING:
    from matplotlib.axes import Axes

PERCENT = 100.0
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


def plot_swap(
    df: Frame,
    *,
    model: str,
    method: str = "swap-suffix",
    metric: str = "change_rate",
    tasks: Sequence[str] | None = None,
    depth: int | None = None,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """Share of answers that a visual-token swap changes (or turns into the source's), by layer; a
    line per task.

    `df`: rows of `franken probe`. y in percent. `depth`: of the whole decoder, where the rows do
    not reach its last layer.
    """
    ax = _axes(ax)
    rows = _select(df, model=model, method=method, metric=metric)
    order = list(tasks or task_names(rows))
    for task in (t for t in order if t in set(rows["task"])):
        tint, marker = look.task_style(task, order)
        draw_line(ax, rows[rows["task"] == task], tint, task, marker=marker)
    _measured_layers(ax, rows, mode, depth)
    percent_axis(ax, headroom=True)
    ax.set_ylabel(
        {"change_rate": "answers changed, %", "flip_to_source_rate": "answers turned, %"}[metric]
    )
    return ax


def plot_zero(
    df: Frame,
    *,
    models: Sequence[str] = STAGES,
    task: str = "all",
    depth: int | None = None,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy lost, in points, when one decoder layer is replaced by the identity; a line per
    checkpoint.

    `task="all"` is the mean over tasks; where the run holds no such row it is made from the tasks'
    rows, with the
    interval of a mean of independent estimates.
    """
    ax = _axes(ax)
    rows = _select(df, method="zero", metric="accuracy_drop")
    for model in models:
        part = rows[rows["model"] == model]
        line = part[part["task"] == task] if task in set(part["task"]) else pool_tasks(part)
        draw_line(ax, line, look.colour(model), look.name(model), marker="o")
    ax.axhline(0, color=mode.muted, linewidth=0.8)
    _measured_layers(ax, rows, mode, depth)
    low = min(-12.0, PERCENT * float(rows["ci_low"].min())) if len(rows) else -12.0
    ax.set_ylim(low, 100 + 0.125 * (100 - low))  # room for the names of the thirds
    ax.set_ylabel("accuracy lost, points")
    return ax


def use_logarithm(ax: Axes) -> None:
    """Logarithmic y, unless there is nothing to show: no layer moved."""
    if np.isfinite(ax.dataLim.intervaly).all():
        ax.set_yscale("log")


def plot_energy(
    df: Frame,
    *,
    metric: str = "relative_energy",
    deltas: Sequence[str] = ("base→sft", "sft→rl"),
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """How far each layer moved, vision, projector and text on one axis; a line per delta,
    logarithmic y.

    Weights are read whole, so there is no sampling error: the band spans the layer's attention and
    its MLP.
    """
    ax = _axes(ax)
    df = number_projector(df)
    places = diff_places(df)
    for delta in deltas:
        rows = _select(df, method=delta, metric=metric)
        if len(rows) == 0:
            continue
        drawn = False
        for part in ("vision", "projector", "text"):
            line = with_component_range(rows[rows["part"] == part])
            if (
                metric in LOGARITHMIC
            ):  # a layer that did not move has no logarithm: a gap, not a fall
                line[["value", "ci_low", "ci_high"]] = (
                    line[["value", "ci_low", "ci_high"]].astype(float).replace(0.0, np.nan)
                )
            x = [places[(part, int(i))] for i in line["layer"]]
            label = None if drawn else delta
            draw_line(ax, line, look.DELTAS.get(delta, mode.ink), label, x=x, scale=1.0, marker="o")
            drawn = drawn or len(line) > 0
    if metric in LOGARITHMIC:
        use_logarithm(ax)
    elif metric.endswith("fraction") or metric == "cosine":
        ax.set_ylim(None if metric == "cosine" else -0.02, 1.14)
    else:
        ax.set_ylim(bottom=0)
    _parts_axis(ax, places, mode)
    ax.set_ylabel(LABELS.get(metric, metric))
    return ax


def plot_update(
    df: Frame,
    *,
    delta: str,
    depth: int | None = None,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """Relative energy of one update in the text layers, in percent of the weights' norm; band:
    attention to MLP.
    """
    ax = _axes(ax)
    rows = _select(df, method=delta, metric="relative_energy")
    line = with_component_range(rows)
    draw_line(ax, line, look.DELTAS.get(delta, mode.ink), delta)
    _measured_layers(ax, line, mode, depth)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("‖Δ‖ / ‖W‖, %")
    return ax


def plot_points(
    df: Frame,
    *,
    labels: Sequence[str],
    task: str = "all",
    metric: str = "acc@1",
    arm: str = "image",
    reference: Sequence[str] = ("sft", "rl"),
    names: Mapping[str, str] | None = None,
    limits: tuple[float, float] | None = None,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """One point with its interval per model, top to bottom in the order of `labels`; reference
    models as bands.

    For hybrids beside base, donor and control, and for freeze arms beside RL. x in percent, from
    `limits` if given.
    """
    ax = _axes(ax)
    rows = _select(df, task=task, metric=metric, method=arm).set_index("model")
    shown = [label for label in labels if label in rows.index]
    for label in (r for r in reference if r in rows.index):
        low, high, value = (
            float(rows.loc[label, c]) * PERCENT for c in ("ci_low", "ci_high", "value")
        )
        ax.axvspan(low, high, color=look.colour(label), alpha=0.12, linewidth=0, zorder=0)
        ax.axvline(value, color=look.colour(label), linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
    for y, label in enumerate(shown):
        _point(ax, rows.loc[label], y, look.colour(label))
    ax.set_yticks(
        range(len(shown)), [(names or {}).get(label) or look.name(label) for label in shown]
    )
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.grid(axis="x", color=mode.grid)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(f"{metric}, %")
    if limits:
        ax.set_xlim(*limits)
    for tick in ax.get_yticklabels():
        tick.set_color(mode.ink)
    return ax


def plot_acc_at_k(
    df: Frame,
    *,
    models: Sequence[str],
    task: str = "all",
    arm: str = "image",
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """acc@k against k, a line per checkpoint: where a parent overtakes its RL child, the lines
    cross. y in percent.
    """
    ax = _axes(ax)
    rows = df[
        df["metric"].str.fullmatch(r"acc@\d+") & (df["task"] == task) & (df["method"] == arm)
    ].copy()
    rows["k"] = rows["metric"].str[4:].astype(int)
    for model in models:
        line = rows[rows["model"] == model].sort_values("k")
        style = (0, (4, 2)) if model == "control" else "-"
        draw_line(
            ax, line, look.colour(model), look.name(model), x=line["k"], marker="o", linestyle=style
        )
    ks = sorted(set(rows["k"]))
    ax.set_xscale("log", base=2)
    ax.set_xticks(ks, [str(k) for k in ks])
    ax.minorticks_off()
    percent_axis(ax)
    ax.set_xlabel("k: samples a prompt may use")
    ax.set_ylabel("acc@k, %")
    return ax


def plot_arms(
    df: Frame,
    *,
    models: Sequence[str],
    task: str = "all",
    metric: str = "acc@1",
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy with the image, with a description instead, and with neither; a line per checkpoint.
    y in percent.
    """
    ax = _axes(ax)
    rows = _select(df, task=task, metric=metric)
    arms = [a for a in look.ARMS if a in set(rows["method"])]
    shift = np.linspace(-0.12, 0.12, max(2, len(models)))
    for offset, model in zip(shift, models, strict=False):
        line = (
            rows[rows["model"] == model].set_index("method").reindex(arms).dropna(subset=["value"])
        )
        x = np.array([arms.index(a) for a in line.index]) + offset
        value, low, high = (
            line[c].to_numpy(float) * PERCENT for c in ("value", "ci_low", "ci_high")
        )
        tint = look.colour(model)
        ax.errorbar(
            x,
            value,
            yerr=np.clip([value - low, high - value], 0, None),
            color=tint,
            marker="o",
            label=look.name(model),
            linewidth=1,
            elinewidth=1.8,
            capsize=0,
            alpha=0.95,
        )
    ax.set_xticks(
        range(len(arms)),
        [{"image": "image", "text": "description", "blind": "nothing"}[a] for a in arms],
    )
    ax.set_xlim(-0.4, len(arms) - 0.6)
    percent_axis(ax)
    ax.set_ylabel(f"{metric}, %")
    return ax


def draw_cells(
    ax: Axes,
    table: Any,
    depth: int,
    mode: look.Mode,
    unit: str,
    limits: tuple[float, float],
    *,
    palette: str = "mako_r",
) -> None:
    """Cells over the shared layer axis: `table` is [row, layer], the row 0 at the bottom; `limits`
    of the scale above it.
    """
    import seaborn as sns

    layer_axis(ax, depth, mode)
    rows = len(table)
    colours = sns.color_palette(palette, as_cmap=True)
    edges = (np.arange(depth + 1) - 0.5, np.arange(rows + 1) - 0.5)
    mesh = ax.pcolormesh(
        *edges, table, cmap=colours, vmin=limits[0], vmax=limits[1], rasterized=True
    )
    bar = ax.inset_axes((0.0, 1.03, 0.45, 0.035))
    figure: Any = ax.get_figure()
    figure.colorbar(mesh, cax=bar, orientation="horizontal", ticklocation="top")
    bar.tick_params(labelsize=7, length=2, pad=1)
    bar.set_xlabel("")
    ax.annotate(unit, (0.48, 1.03), xycoords="axes fraction", fontsize=7.5, color=mode.muted)
    for text in ax.texts:
        if text.get_text() in ("early", "middle", "late"):  # on the cells, they could not be read
            text.set_visible(False)
    ax.grid(visible=False)


def percent_axis(ax: Axes, *, headroom: bool = False) -> None:
    """y from 0 to 100, the same in every panel; `headroom` leaves space for the names of the
    thirds.
    """
    ax.set_ylim(0, 114 if headroom else 104)
    ax.set_yticks(range(0, 101, 20))


def legend(ax: Axes, *, width: int = 52) -> int:
    """A legend in rows above the plot area, so that it never covers data; `width`: characters in a
    row. Returns the rows.
    """
    handles, labels = ax.get_legend_handles_labels()
    columns = 1
    if handles:
        columns = max(1, min(len(labels), width // (max(len(label) for label in labels) + 5)))
        ax.legend(
            handles,
            labels,
            ncols=columns,
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            borderaxespad=0.3,
            handlelength=1.2,
            columnspacing=0.9,
            labelspacing=0.2,
        )
    return -(-len(labels) // columns)


def diff_places(df: Frame) -> dict[tuple[str, int], float]:
    """x positions that put vision, projector and text side by side: (part, layer) → x, with a gap
    between parts.
    """
    known = df[df["layer"].notna()]
    places: dict[tuple[str, int], float] = {}
    x = 0.0
    for part in ("vision", "projector", "text"):
        layers = sorted({int(i) for i in known[known["part"] == part]["layer"]})
        for layer in layers:
            places[(part, layer)] = x
            x += 1
        x += 0.8 if layers else 0
    return places


def number_projector(df: Any) -> Any:
    """The projector has no layers: it stands on the axis as one place."""
    rows = df.copy()
    rows["layer"] = rows["layer"].astype("Float64").mask(rows["part"] == "projector", 0)
    return rows


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(4.6, 3.1)).add_subplot()


def _select(df: Frame, **where: str) -> Any:
    rows = df
    for column, value in where.items():
        rows = rows[rows[column] == value]
    if "component" in rows.columns and "metric" in where and "part" in rows.columns:
        whole = rows[(rows["component"] == "all") | rows["component"].isna()]
        rows = whole if len(whole) and not _by_component(where) else rows
    return rows


def _by_component(where: Mapping[str, str]) -> bool:
    return "→" in where.get("method", "")


def with_component_range(rows: Any) -> Any:
    """Rows with component `all`, their interval filled with the range over attention and MLP where
    it is empty.
    """
    whole = rows[(rows["component"] == "all") & rows["layer"].notna()].sort_values("layer").copy()
    parts = rows[rows["component"].isin(["attn", "mlp"]) & rows["layer"].notna()].groupby("layer")[
        "value"
    ]
    low, high = parts.min(), parts.max()
    for column, edge, pick in (("ci_low", low, np.fmin), ("ci_high", high, np.fmax)):
        filled = whole["layer"].map(edge).astype(float)
        own = whole[column].astype(float)
        whole[column] = own.where(own.notna(), pick(filled, whole["value"].astype(float)))
    return whole


def draw_line(
    ax: Axes,
    rows: Any,
    tint: str,
    label: str | None,
    *,
    x: Any = None,
    scale: float = PERCENT,
    marker: str = "o",
    linestyle: Any = "-",
) -> None:
    """A line with its interval band; without `x` the rows' layer is on the x axis."""
    if len(rows) == 0:
        return
    rows = rows.sort_values("layer") if x is None else rows
    at = rows["layer"].to_numpy(float) if x is None else np.asarray(x, float)
    value, low, high = (rows[c].to_numpy(float) * scale for c in ("value", "ci_low", "ci_high"))
    ax.fill_between(at, low, high, color=tint, alpha=0.16, linewidth=0)
    label = None if label is None else look.literal(label)
    ax.plot(
        at, value, color=tint, label=label, marker=marker, markeredgewidth=0, linestyle=linestyle
    )


def _point(ax: Axes, row: Any, y: float, tint: str) -> None:
    low, high, value = (float(row[c]) * PERCENT for c in ("ci_low", "ci_high", "value"))
    ax.plot(
        [low, high], [y, y], color=tint, linewidth=2.6, alpha=0.55, solid_capstyle="round", zorder=2
    )
    ax.plot([value], [y], marker="o", color=tint, markersize=6.5, markeredgewidth=0, zorder=3)


def _measured_layers(ax: Axes, rows: Any, mode: look.Mode, depth: int | None) -> None:
    if len(rows) == 0:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", color=mode.muted)
    if len(rows) or depth:
        layer_axis(ax, depth or int(rows["layer"].max()) + 1, mode)


def layer_axis(ax: Axes, depth: int, mode: look.Mode) -> None:
    """The x axis of every plot over text layers: all of them, 0-based, the thirds shaded and named."""
    shade_thirds(ax, depth, mode)
    ax.set_xlim(-0.5, depth - 0.5)
    ax.set_xticks(range(depth) if depth <= 16 else range(0, depth, 4))
    ax.set_xlabel("text layer")


def shade_thirds(ax: Axes, depth: int, mode: look.Mode, *, offset: float = 0.0) -> None:
    """Shade the middle third of a stack and name the thirds at the top of the plot."""
    for third, (start, stop) in thirds(depth).items():
        if third == "middle":
            ax.axvspan(
                start - 0.5 + offset, stop - 0.5 + offset, color=mode.band, zorder=-5, linewidth=0
            )
        if stop > start:
            ax.annotate(
                third,
                ((start + stop - 1) / 2 + offset, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, -3),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=7,
                color=mode.muted,
            )


def _parts_axis(ax: Axes, places: Mapping[tuple[str, int], float], mode: look.Mode) -> None:
    if not places:
        return
    for part in ("vision", "projector", "text"):
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
