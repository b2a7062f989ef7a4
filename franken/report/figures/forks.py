"""The figures of `franken forks`: how concentrated the divergence of two models is, where in a
reply it is, in which kind of sentence, and what the places carry.

All are drawn from the rows of layers.parquet over all tasks; a model keeps its colour, whose
replies they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from franken.forks.controls import RULES
from franken.forks.kinds import KINDS
from franken.forks.rows import OWN, STORED
from franken.report import theme as look
from franken.report.figures.plots import PERCENT, draw_line, new_axes
from franken.report.figures.sheet import name_lines, save, sheet
from franken.runs import load_run
from franken.runs.lineage import stage_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

TOP = "js in top "
TENTH = "tenth "
RULE_NAMES = {
    "forks": "where they\npart",
    "random": "anywhere",
    "entropy": "where unsure",
    "elsewhere": "forks of\nanother reply",
}


def draw_forks(folder: Path) -> Path:
    """Write figures/forks.png of a finished run, and return its path."""
    run = load_run(folder)
    rows, models = run.layers, list(run.manifest.models)
    plots = [plot_curve, plot_tenths, plot_kinds]
    if has_crossed(rows):
        plots.append(plot_recovered)
    with look.theme():
        figure, axes = sheet(len(plots), 2, 4.8, 3.2, extra=0.3)
        for ax, plot in zip(axes, plots, strict=True):
            plot(rows, models, ax=ax)
        name_lines(figure, axes[0], note="replies of")
        return save(figure, folder / "figures" / "forks.png")


def has_crossed(rows: pd.DataFrame) -> bool:
    """Whether there was cross-sampling."""
    return bool((rows["metric"] == "recovered").any())


def plot_curve(
    rows: pd.DataFrame,
    models: Sequence[str],
    *,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """The share of all divergence in the tokens at which the two differ most; the diagonal would be
    an even spread.
    """
    ax = new_axes(ax)
    part = _scored(rows).loc[lambda r: r["metric"].str.startswith(TOP)]
    part = part.assign(at=part["metric"].str.removeprefix(TOP).str.removesuffix(" %").astype(float))
    for model, marker in zip(models, look.TASK_MARKERS, strict=False):
        line = part.loc[part["model"] == model].sort_values("at")
        draw_line(ax, line, _tint(model, models), look.name(model), x=line["at"], marker=marker)
    at = sorted(part["at"].unique())
    ax.plot(at, at, color=mode.muted, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.set_xscale("log")
    ax.set_xticks(at, [f"{x:g}" for x in at])
    ax.minorticks_off()
    ax.set_ylim(0, 104)
    ax.set_xlabel("tokens at which they differ most, %")
    ax.set_ylabel("of all divergence, %")
    return ax


def plot_tenths(
    rows: pd.DataFrame,
    models: Sequence[str],
    *,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """The share of tokens that are forks, along a reply."""
    ax = new_axes(ax)
    part = _scored(rows).loc[lambda r: r["component"].str.startswith(TENTH)]
    part = part.loc[part["metric"] == "fork_share"]
    part = part.assign(at=part["component"].str.removeprefix(TENTH).astype(int))
    for model, marker in zip(models, look.TASK_MARKERS, strict=False):
        line = part.loc[part["model"] == model].sort_values("at")
        draw_line(ax, line, _tint(model, models), look.name(model), x=line["at"], marker=marker)
    ax.set_xticks(range(1, 11))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("tenth of the reply")
    ax.set_ylabel("tokens that are forks, %")
    return ax


def plot_kinds(
    rows: pd.DataFrame,
    models: Sequence[str],
    *,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """The share of all divergence in each kind of sentence; a tick where an even spread would be,
    its share of the tokens.
    """
    ax = new_axes(ax)
    part = _scored(rows).loc[lambda r: r["component"].isin(KINDS)]
    kinds = [kind for kind in KINDS if (part["component"] == kind).any()]
    step = 0.7 / max(1, len(models))
    for number, model in enumerate(models):
        at = np.arange(len(kinds)) + (number - (len(models) - 1) / 2) * step
        own = part.loc[part["model"] == model]
        shares = own.loc[own["metric"] == "share_of_js"]
        _bars(ax, shares, kinds, at, step, _tint(model, models), look.name(model))
        even = own.loc[own["metric"] == "share_of_tokens"].set_index("component")["value"]
        ticks = PERCENT * even.reindex(kinds).to_numpy(float)
        ax.hlines(ticks, at - step / 2, at + step / 2, color=mode.ink, linewidth=1.2)
    ax.set_xticks(range(len(kinds)), kinds)
    ax.set_ylim(0, 104)
    ax.set_ylabel("of all divergence, %")
    return ax


def plot_recovered(
    rows: pd.DataFrame,
    models: Sequence[str],
    *,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """How much of the difference between the two models each rule of cross-sampling makes up for,
    with its interval; nothing where that difference may be 0.
    """
    ax = new_axes(ax)
    part = rows.loc[(rows["metric"] == "recovered") & (rows["task"] == "all")]
    rules = [rule for rule in RULES if (part["method"] == rule).any()]
    step = 0.7 / max(1, len(models))
    for number, model in enumerate(models):
        at = np.arange(len(rules)) + (number - (len(models) - 1) / 2) * step
        own = part.loc[part["model"] == model].assign(component=lambda r: r["method"])
        _bars(ax, own, rules, at, step, _tint(model, models), look.name(model))
    if part["value"].isna().all():
        text = "the two models may be\nequally good"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", color=mode.muted)
    for level in (0, 100):
        ax.axhline(level, color=mode.muted, linewidth=0.8)
    ax.set_xticks(range(len(rules)), [RULE_NAMES[rule] for rule in rules], fontsize=7.5)
    ax.set_ylabel("of the difference, %")
    return ax


def _bars(
    ax: Axes,
    rows: pd.DataFrame,
    names: Sequence[str],
    at: np.ndarray,
    width: float,
    tint: str,
    label: str,
) -> None:
    """Bars with their 95 % intervals, one a component."""
    table = rows.set_index("component").reindex(list(names))
    low, value, high = PERCENT * table[["ci_low", "value", "ci_high"]].to_numpy(float).T
    ax.bar(
        at,
        np.nan_to_num(value),
        width=0.92 * width,
        color=tint,
        alpha=0.75,
        linewidth=0,
        label=look.literal(label),
    )
    ax.vlines(at, low, high, color=tint, linewidth=2.2)


def _scored(rows: pd.DataFrame) -> pd.DataFrame:
    """What the tokens of replies show, over all tasks: of those that were drawn, else of the stored
    ones.
    """
    whole = rows.loc[rows["task"] == "all"]
    own = whole.loc[whole["method"] == OWN]
    scored = (own["metric"] == "js").any()
    return own if scored else whole.loc[whole["method"] == STORED]


def _tint(model: str, models: Sequence[str]) -> str:
    """A stage's own colour, by the word in its label; else that of SFT for the first, RL for the
    second.
    """
    stages = [stage_named(label) for label in models]
    told = len(set(stages)) == len(models) and None not in stages
    place = list(models).index(model)
    return look.colour(str(stages[place]) if told else ("sft", "rl")[place])
