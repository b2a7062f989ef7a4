"""The pictures of one `franken probe`, and of two compared: each says in its title what it shows,
of which model, and n.

Curves by layer have 95 % bands and the decoder's thirds shaded. A "peak" is the set of layers whose
interval overlaps the best one's, since the best layer alone is mostly noise. Heatmaps show effects
from −1 to 1, with 0 white.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from franken.report import probe_titles as say
from franken.report import theme as look
from franken.report.figures import plots
from franken.runs import LoadedRun, load_run

GROUPS = ("system", "image", "question", "answer", "last", "all")
PAGE = "#FFFFFF"
SWAPS = {
    "swap-suffix": "Swapped in this layer and all above",
    "swap-single": "Swapped in this layer alone",
    "swap-prefix": "Swapped in all layers below this one",
}
RATES = {
    "change_rate": "answers changed, %",
    "task_change_rate": "answers changed,\nas the task counts, %",
    "flip_to_source_rate": "answers turned into\nthe source's, %",
}
ABLATED = {"": "Layer", "attention": "Attention", "mlp": "MLP"}
HOW = {"zero": "skipped", "mean": "set to its mean", "noise": "plus noise"}
SURE = 0.05
NUMBERED = "numbers where p < 0.05 after Holm"
Maker = Callable[[], Any]


def draw_probe(folder: Path) -> list[Path]:
    """Draw the figures of a finished probe into its `figures/`. Returns their paths."""
    run = load_run(folder)
    rows: Any = run.layers[run.layers["value"].notna()]
    methods = list(dict.fromkeys(rows["method"]))
    makers: dict[str, Maker] = {}
    swaps = [m for m in methods if m.startswith("swap-")]
    if swaps:
        makers["change-rate"] = lambda: _swaps(run, rows[rows["method"].isin(swaps)], swaps)
    drops = [m for m in methods if (rows[rows["method"] == m]["metric"] == "accuracy_drop").any()]
    if drops:
        makers["ablation"] = lambda: _ablation(run, rows, drops)
    if "attention" in methods:
        makers["attention"] = lambda: _attention(run, rows[rows["method"] == "attention"])
    for method in (m for m in methods if m.startswith("patch-")):
        makers[method] = lambda m=method: _patching(run, rows[rows["method"] == m], m)
    if "lens" in methods:
        makers["lens"] = lambda: _lens(run, rows[rows["method"] == "lens"])
    return _save(folder, makers)


def draw_comparison(folder: Path) -> list[Path]:
    """Draw the figures of a finished `probe-compare`: a picture a method, second checkpoint −
    first.
    """
    run = load_run(folder)
    makers: dict[str, Maker] = {}
    for name, found in run.layers.groupby("method", sort=False):
        method = str(name)
        if method.startswith("patch-"):
            makers[f"{method}-shift"] = lambda found=found, m=method: _patching(run, found, m)
        else:
            makers[f"{method}-shift"] = lambda found=found, m=method: _shift(run, found, m)
    return _save(folder, makers)


def _save(folder: Path, makers: dict[str, Maker]) -> list[Path]:
    import matplotlib

    matplotlib.use("Agg")
    drawn = []
    (folder / "figures").mkdir(exist_ok=True)
    for name, make in makers.items():
        path = folder / "figures" / f"{name}.png"
        with look.theme():
            make().savefig(path, dpi=150, facecolor=PAGE)
        drawn.append(path)
    return drawn


def _swaps(run: LoadedRun, rows: Any, methods: list[str]) -> Any:
    rates = [m for m in RATES if (rows["metric"] == m).any()]
    figure, axes = _grid(len(rates), len(methods), sharey=True)
    for line, metric in zip(axes, rates, strict=True):
        for ax, method in zip(line, methods, strict=True):
            found = _all(rows, method=method, metric=metric)
            _lines(ax, found, run, plots.PERCENT)
            plots.percent_axis(ax, headroom=True)
            ax.set_title(SWAPS.get(method, method))
        line[0].set_ylabel(RATES[metric])
    return _finish(figure, axes, run, say.of_swaps(rows), _all(rows, metric="change_rate"), "pairs")


def _ablation(run: LoadedRun, rows: Any, methods: list[str]) -> Any:
    columns = min(3, len(methods))
    figure, axes = _grid(-(-len(methods) // columns), columns, sharey=True)
    for ax, method in zip(axes.flat, methods, strict=False):
        _lines(ax, _all(rows, method=method, metric="accuracy_drop"), run, plots.PERCENT)
        ax.axhline(0, color=look.LIGHT.muted, linewidth=0.8)
        how, _, site = method.partition("-")
        ax.set_title(f"{ABLATED.get(site, site)} {HOW.get(how, how)}")
        ax.margins(y=0.14)
    _hide(axes, len(methods))
    axes[0, 0].set_ylabel("accuracy lost, points")
    found = _all(rows, metric="accuracy_drop")
    return _finish(figure, axes, run, say.of_ablation(found), found, "questions")


def _attention(run: LoadedRun, rows: Any) -> Any:
    figure, axes = _grid(1, 2)
    found = _all(rows, metric="attention_mass")
    _lines(axes[0, 0], found, run, plots.PERCENT)
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].margins(y=0.14)
    axes[0, 0].set_ylabel("attention to the image, %")
    axes[0, 0].set_title("Of what each written token looks at")
    heads = rows[(rows["metric"] == "attention_mass") & rows["component"].str.startswith("head ")]
    _heads(axes[0, 1], heads, 100, "mako_r", "% on the image")
    axes[0, 1].set_title("By head, mean over tasks")
    return _finish(figure, axes[:, :1], run, say.of_attention(found), found, "replies")


def _patching(run: LoadedRun, rows: Any, method: str) -> Any:
    if "-heads" in method:
        return _patched_heads(run, rows, method)
    tasks = plots.task_names(rows)
    groups = [g for g in GROUPS if g in set(rows["component"])]
    columns = min(3, len(tasks))
    figure, axes = _grid(-(-len(tasks) // columns), columns, height=0.3 * len(groups) + 1.1)
    for number, (ax, task) in enumerate(zip(axes.flat, tasks, strict=False)):
        part = rows[rows["task"] == task]
        _heatmap(
            ax,
            part,
            groups,
            "vlag",
            {"vmin": -1, "vmax": 1, "cbar": (number + 1) % columns == 0},
            sure=SURE,
        )
        ax.set_title(task)
    _hide(axes, len(tasks))
    return _finish(figure, None, run, say.of_patching(rows, method), rows, "pairs", NUMBERED)


def _patched_heads(run: LoadedRun, rows: Any, method: str) -> Any:
    groups = [g for g in GROUPS if rows["component"].str.startswith(f"{g}, head").any()]
    columns = min(3, len(groups))
    figure, axes = _grid(-(-len(groups) // columns), columns)
    top = max(0.05, float(rows["value"].abs().max()))
    for number, (ax, group) in enumerate(zip(axes.flat, groups, strict=False)):
        part = rows[rows["component"].str.startswith(f"{group}, head")].copy()
        part["component"] = part["component"].str.removeprefix(f"{group}, ")
        _heads(
            ax,
            part,
            1,
            "vlag",
            "share",
            {"vmin": -top, "vmax": top, "cbar": (number + 1) % columns == 0},
        )
        ax.set_title("last token" if group == "last" else f"{group} tokens")
    _hide(axes, len(groups))
    return _finish(
        figure, None, run, say.of_patched_heads(rows, method), rows, "pairs", "mean over tasks"
    )


def _hide(axes: Any, used: int) -> None:
    for ax in list(axes.flat)[used:]:
        ax.set_visible(False)


def _lens(run: LoadedRun, rows: Any) -> Any:
    panels = {
        "answer_probability": "probability of the answer, %",
        "answer_rank": "rank of the answer",
        "entropy": "entropy, nats",
    }
    places = {"all": "where the answer begins", "image": "at the image's tokens"}
    places = {c: text for c, text in places.items() if c in set(rows["component"])}
    figure, axes = _grid(len(places), 3, width=3.9)
    for line, (component, place) in zip(axes, places.items(), strict=True):
        for ax, (metric, label) in zip(line, panels.items(), strict=True):
            found = rows[(rows["metric"] == metric) & (rows["component"] == component)]
            _lines(ax, found, run, plots.PERCENT if metric == "answer_probability" else 1)
            if metric == "answer_rank":
                ax.set_yscale("log")
            ax.set_ylabel(label)
            ax.margins(y=0.14)
            ax.set_title(place if metric == "answer_probability" else "")
    return _finish(
        figure, axes, run, say.of_lens(rows), _all(rows, metric="answer_probability"), "questions"
    )


def _shift(run: LoadedRun, rows: Any, method: str) -> Any:
    metrics = [m for m in dict.fromkeys(rows["metric"]) if m != "attention_per_pair_difference"]
    heads = rows[rows["component"].str.startswith("head ")]
    figure, axes = _grid(1, len(metrics) + bool(len(heads)))
    for ax, metric in zip(axes[0], metrics, strict=False):
        found = _all(rows, metric=metric)
        scale = 1 if metric.startswith("entropy") else plots.PERCENT
        _lines(ax, found, run, scale)
        sure = found[found["p_adjusted"] < SURE]
        ax.plot(
            sure["layer"].astype(float),
            sure["value"] * scale,
            linestyle="",
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=look.LIGHT.ink,
            markeredgewidth=0.9,
        )
        ax.axhline(0, color=look.LIGHT.muted, linewidth=0.8)
        ax.margins(y=0.14)
        ax.set_title(say.METRICS.get(metric.removesuffix("_difference"), metric))
    if len(heads):
        _heads(axes[0, -1], heads, 100, "vlag", "points", {"center": 0})
        axes[0, -1].set_title("By head, mean over tasks")
    first, second = run.label.split("→")
    title = say.of_shift(rows, first, second)
    axes[0, 0].set_ylabel(f"{second} − {first}" + (", points" if method != "lens" else ""))
    return _finish(
        figure,
        axes[:, : len(metrics)],
        run,
        title,
        rows,
        "pairs",
        f"{method}; ringed where p < 0.05 after Holm",
    )


def _lines(ax: Any, rows: Any, run: LoadedRun, scale: float) -> None:
    tasks = plots.task_names(rows)
    for task in tasks:
        tint, marker = look.task_style(task, tasks)
        plots.draw_line(ax, rows[rows["task"] == task], tint, task, marker=marker, scale=scale)
    depth = _depth(run)
    plots.shade_thirds(ax, depth, look.LIGHT)
    ax.set_xlim(-0.5, depth - 0.5)
    ax.set_xticks(range(depth) if depth <= 16 else range(0, depth, 4))
    ax.set_xlabel("text layer")


def _heads(
    ax: Any,
    rows: Any,
    scale: float,
    palette: str,
    label: str,
    options: dict[str, Any] | None = None,
) -> None:
    """Layer × head, the mean over tasks."""
    mean = rows.groupby(["component", "layer"])["value"].mean().mul(scale).reset_index()
    order = sorted(set(mean["component"]), key=lambda name: int(name.split()[-1]))
    _heatmap(ax, mean, order, palette, {"vmin": 0} if options is None else options, label)
    if len(order) <= 16:
        ax.set_yticks(
            [i + 0.5 for i in range(len(order))], [name.removeprefix("head ") for name in order]
        )
    ax.set_ylabel("head")


def _heatmap(
    ax: Any,
    rows: Any,
    order: list[str],
    palette: str,
    options: dict[str, Any],
    label: str = "share",
    sure: float = 1.0,
) -> None:
    """Components × layers. Few enough cells get their number, but those whose adjusted p is not
    below `sure` do not.
    """
    import seaborn as sns

    table = (
        rows.pivot_table(index="component", columns="layer", values="value", dropna=False)
        .reindex(order)
        .astype(float)
    )
    written = table.map(
        lambda x: f"{x:.2f}" if options.get("vmax", 100) < 2 else f"{x:.0f}"
    ).replace("-0", "0")
    written = written.where(table.abs() >= (0.005 if options.get("vmax", 100) < 2 else 0), "")
    if sure < 1:
        p = rows.pivot_table(index="component", columns="layer", values="p_adjusted", dropna=False)
        written = written.where(p.reindex(order) < sure, "")
    annotation = written.to_numpy() if table.size <= 200 else False
    sns.heatmap(
        table,
        ax=ax,
        cmap=palette,
        annot=annotation,
        fmt="",
        annot_kws={"fontsize": 6.5},
        cbar_kws={"label": label, "pad": 0.02} if options.get("cbar", True) else None,
        **options,
    )
    step = 1 if table.shape[1] <= 16 else 4
    ax.set_xticks(
        [i + 0.5 for i in range(0, table.shape[1], step)], [str(c) for c in table.columns[::step]]
    )
    ax.tick_params(axis="both", rotation=0, length=0)
    ax.set_ylabel("")
    ax.set_xlabel("text layer")


def _grid(
    rows: int, columns: int, *, width: float = 4.6, height: float = 3.0, **kwargs: Any
) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.4, width * columns), height * rows + 0.9))
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def _finish(
    figure: Any, axes: Any, run: LoadedRun, title: str, rows: Any, unit: str, note: str = ""
) -> Any:
    """Title (what was found), subtitle (model, n, how to read it), and one legend for the lines of
    all panels.
    """
    counts = sorted({int(n) for n in rows["n"]})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    lines = textwrap.wrap(title, int(11.5 * figure.get_figwidth()))
    figure.suptitle("\n".join(lines) + "\n\n", x=0.01, ha="left", fontsize=11, fontweight="bold")
    below = f"{run.label}, n = {n} {unit} a task" + (f"; {note}" if note else "")
    at = 1 - (0.14 + 0.19 * len(lines)) / figure.get_figheight()
    figure.text(0.01, at, below, fontsize=9, color=look.LIGHT.muted, va="top")
    if axes is not None:
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=max(1, len(labels)))
    return figure


def _all(rows: Any, **where: str) -> Any:
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows[(rows["component"] == "all") & rows["layer"].notna()]


def _depth(run: LoadedRun) -> int:
    """The decoder's depth as far as the run tells: up to its last probed layer."""
    layers: Any = run.layers["layer"]
    return int(layers.max()) + 1
