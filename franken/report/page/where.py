"""The section on localisation: swap curves, single layers, skipped layers, and how much replies
look at the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from franken import stats
from franken.evaluate.metrics import macro_interval
from franken.probe import findings, methods
from franken.report import theme as look
from franken.report.evidence import Evidence
from franken.report.figures import plots
from franken.report.page.panels import Group, Panel, Section, basis
from franken.report.sources import runs_of

TITLE = "Where it sees, where it reasons"
PERMUTATIONS = 4000
SWAPS = (
    (
        "swap-suffix",
        "change_rate",
        "swap-suffix",
        "Swapped from this layer up",
        "Each point: the share of answers that change when the source image's visual tokens replace the target's in this "
        "layer and all above it. Where a line falls, the model has finished reading the image for that task. Bands are "
        "95 % Wilson intervals.",
    ),
    (
        "swap-suffix",
        "flip_to_source_rate",
        "flip-to-source",
        "Turned into the source's answer",
        "The same swaps, counting only answers that become exactly what the model says about the source image: a swap "
        "that merely breaks the model does not count here.",
    ),
    (
        "swap-single",
        "change_rate",
        "swap-single",
        "Swapped in this layer alone",
        "One layer at a time. High points are layers that matter by themselves; low lines mean that the image is read "
        "redundantly.",
    ),
)


def where(found: Evidence) -> Section:
    """Swaps, ablation and attention of every probed checkpoint."""
    rows = found.layers("probe")
    lead = "Swap the image's keys and values for another image's, in some layers only, and see whether the answer moves."
    if len(rows) == 0:
        return Section("where", TITLE, lead, notes=["No probe was run."])
    models = [m for m in found.study.stages if m in set(rows["model"])]
    tasks = [t for t in found.study.tasks if t in set(rows["task"])] or plots.task_names(rows)
    groups = [
        _swaps(found, rows, models, tasks, *kind)
        for kind in SWAPS
        if ((rows["method"] == kind[0]) & (rows["metric"] == kind[1])).any()
    ]
    if (rows["method"] == "zero").any():
        groups.append(_skips(found, rows, models, tasks))
    seen = rows[(rows["method"] == "attention") & (rows["metric"] == "attention_mass")]
    notes = []
    if len(seen):
        groups.append(_attention(found, seen, models))
    else:
        notes.append(
            "How much replies look at the image was not measured: franken probe CHECKPOINT --method attention does it."
        )
    return Section("where", TITLE, lead, groups, notes)


def _swaps(
    found: Evidence,
    rows: Any,
    models: list[str],
    tasks: list[str],
    method: str,
    metric: str,
    tag: str,
    title: str,
    reading: str,
) -> Group:
    depth, last = found.study.depth, models[-1]
    runs = runs_of(found, "probe", models, method)
    panels = [
        Panel(
            f"{tag}-{m}",
            look.name(m),
            f"{title}, {look.name(m)}: share of answers by text layer, one line per task",
            lambda ax, mode, m=m: plots.plot_swap(
                rows,
                model=m,
                method=method,
                metric=metric,
                tasks=tasks,
                depth=depth,
                mode=mode,
                ax=ax,
            ),
            layered=True,
        )
        for m in models
    ]
    own = rows[(rows["model"] == last) & (rows["method"] == method)]
    if tag == "swap-suffix":
        text = methods.get(method).title(own)
        finding = f"{look.name(last)}: {text[0].lower()}{text[1:]}" if ":" in text else ""
    else:
        curve = plots.pool_tasks(own[(own["metric"] == metric) & own["layer"].notna()])
        finding = _peak(
            last, curve, "answers turned" if tag == "flip-to-source" else "answers changed"
        )
    return Group(
        tag, title, reading, panels, finding, basis(found, runs, own, "pairs a task", models), runs
    )


def _peak(model: str, curve: Any, what: str) -> str:
    layers = findings.peak(curve)
    if not layers:
        return ""
    return f"{look.name(model)}: most {what} at {findings.layers_of(layers)}, {100 * curve['value'].max():.0f} % over tasks"


def _skips(found: Evidence, rows: Any, models: list[str], tasks: list[str]) -> Group:
    depth, runs = found.study.depth, runs_of(found, "probe", models, "zero")
    own = rows[
        (rows["model"] == models[-1])
        & (rows["method"] == "zero")
        & (rows["metric"] == "accuracy_drop")
    ]
    said = methods.get("zero").title(own)
    return Group(
        "zero",
        "Without this layer",
        "Each decoder layer is skipped (replaced by the identity) and the questions are asked again.",
        [
            Panel(
                "zero" if t == "all" else f"zero-{t}",
                "Accuracy lost, mean over tasks" if t == "all" else t,
                f"accuracy lost on {t} by skipping each text layer, per checkpoint",
                lambda ax, mode, t=t: plots.plot_zero(
                    rows, models=models, task=t, depth=depth, mode=mode, ax=ax
                ),
                layered=True,
            )
            for t in ("all", *tasks)
        ],
        f"{look.name(models[-1])}: {said[0].lower()}{said[1:]}",
        basis(found, runs, own, "questions a task", models),
        runs,
    )


def _attention(found: Evidence, rows: Any, models: list[str]) -> Group:
    """The paper's figure 3, and the paired difference that RL makes."""
    depth, study = found.study.depth, found.study
    seen = [m for m in models if (rows["model"] == m).any()]
    runs = runs_of(found, "probe", seen, "attention")
    whole = rows[rows["component"] == "all"]
    panels = [
        Panel(
            "attention",
            "Attention to the image, mean over tasks",
            "share of attention on the image by text layer, per checkpoint",
            lambda ax, mode: _plot_attention(ax, mode, whole, seen, depth),
            layered=True,
        )
    ]
    shift = attention_shift(found, study.parent, "rl")
    finding = ""
    if len(shift):
        panels.append(
            Panel(
                "attention-shift",
                f"RL minus {look.name(study.parent)}, paired by question",
                "difference in attention to the image by text layer",
                lambda ax, mode: _plot_shift(ax, mode, shift, depth),
                layered=True,
            )
        )
        sure = shift[shift["p_adjusted"] < 0.05]
        ways = [("more", sure[sure["value"] > 0]), ("less", sure[sure["value"] < 0])]
        said = [
            f"{way} in {findings.layers_of([int(i) for i in part['layer']])}"
            for way, part in ways
            if len(part)
        ]
        finding = f"After RL, replies look at the image {' and '.join(said) or 'neither more nor less in any layer'}"
    by_head = rows[rows["component"].str.startswith("head ")]
    top = (
        100 * float(by_head.groupby(["model", "component", "layer"])["value"].mean().max())
        if len(by_head)
        else 0.0
    )
    for m in seen:
        heads = rows[(rows["model"] == m) & rows["component"].str.startswith("head ")]
        if len(heads):
            panels.append(
                Panel(
                    f"attention-heads-{m}",
                    f"{look.name(m)}, by head",
                    f"attention to the image by text layer and head, {m}",
                    lambda ax, mode, heads=heads: _plot_heads(ax, mode, heads, depth, top),
                    layered=True,
                    legend=False,
                )
            )
    return Group(
        "attention",
        "Looking at the image while writing",
        "Of all attention that the tokens of a reply pay, the share that falls on the image's tokens. Bands: 95 % "
        "bootstrap intervals over questions; ringed: p < 0.05 after Holm over layers.",
        panels,
        finding,
        basis(found, runs, whole, "questions a task"),
        runs,
    )


def attention_shift(found: Evidence, a: str, b: str) -> Any:
    """By text layer: attention to the image of b minus a, paired by question, tasks weighing the
    same, Holm over layers.
    """
    import pandas as pd

    rows = found.samples("probe")
    columns = ["layer", "value", "ci_low", "ci_high", "n", "p_adjusted"]
    if len(rows) == 0 or "mass" not in rows:
        return pd.DataFrame(columns=columns)
    rows = rows[(rows["method"] == "attention") & rows["error"].isna() & rows["ineligible"].isna()]
    table = rows.pivot_table(index=["layer", "task", "sample"], columns="model", values="mass")
    if not {a, b} <= set(table.columns):
        return pd.DataFrame(columns=columns)
    difference = (table[b] - table[a]).dropna()
    found_rows, p_values = [], []
    for layer, part in difference.groupby(level="layer"):
        groups = [g.to_numpy(float) for _, g in part.groupby(level="task")]
        value, low, high = macro_interval(groups)
        weighted = np.concatenate([g * (len(part) / (len(groups) * len(g))) for g in groups])
        p_values.append(stats.sign_flip_test(weighted, n_perm=PERMUTATIONS))
        found_rows.append(
            {"layer": layer, "value": value, "ci_low": low, "ci_high": high, "n": len(part)}
        )
    return pd.DataFrame(found_rows).assign(p_adjusted=stats.holm(p_values))


def _plot_attention(ax: Any, mode: look.Mode, rows: Any, models: list[str], depth: int) -> None:
    for m in models:
        plots.draw_line(
            ax, plots.pool_tasks(rows[rows["model"] == m]), look.colour(m), look.name(m)
        )
    plots.layer_axis(ax, depth, mode)
    ax.set_ylim(bottom=0)
    ax.margins(y=0.16)
    ax.set_ylabel("attention to the image, %")


def _plot_shift(ax: Any, mode: look.Mode, shift: Any, depth: int) -> None:
    plots.draw_line(ax, shift, look.colour("rl"), "difference")
    sure = shift[shift["p_adjusted"] < 0.05]
    ax.plot(
        sure["layer"].astype(float),
        100 * sure["value"],
        linestyle="",
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=mode.ink,
        markeredgewidth=0.9,
        label="p < 0.05",
    )
    ax.axhline(0, color=mode.muted, linewidth=0.8)
    plots.layer_axis(ax, depth, mode)
    ax.margins(y=0.16)
    ax.set_ylabel("difference, points")


def _plot_heads(ax: Any, mode: look.Mode, rows: Any, depth: int, top: float) -> None:
    """Layer × head, the mean over tasks, on the layer axis of all figures; one scale for all
    checkpoints.
    """
    mean = rows.groupby(["component", "layer"])["value"].mean().unstack("layer")
    order = sorted(mean.index, key=lambda text: int(text.split()[-1]))
    table = 100 * mean.reindex(index=order, columns=range(depth)).to_numpy(float)
    plots.draw_cells(ax, table, depth, mode, "%", (0.0, top))
    step = 1 if len(order) <= 16 else 4
    ax.set_yticks(
        range(0, len(order), step), [name.removeprefix("head ") for name in order[::step]]
    )
    ax.set_ylabel("head")
