"""The sections on layer sets: what RL's layers carry into its parent, and what RL learns when they
are frozen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from franken import stats
from franken.evaluate.metrics import GREEDY, compare_values
from franken.evaluate.mscores import NEEDS, m_scores
from franken.layers import name_layers
from franken.report import ranges
from franken.report import theme as look
from franken.report.figures.answers import plot_points
from franken.report.page.panels import Group, Panel, Plot, Section, basis
from franken.report.ranges import Effect
from franken.report.sources import runs_of
from franken.report.verdicts import interval, paired
from franken.runs import RunSet

if TYPE_CHECKING:
    from franken.evaluate.metrics import PromptValues

TRANSFER, NECESSARY = "Does the change transfer?", "Was it necessary?"


def transfer(runset: RunSet) -> Section:
    """Hybrids beside the parent, RL and random controls; on the layer axis, as points, and in M
    scores.
    """
    parent, name = runset.study.parent, look.name(runset.study.parent)
    lead = f"Put RL's layers into {name}, third by third, without any training, and ask again."
    shown = ranges.all_hybrids(runset)
    planned = [e for e in shown if e.kind == "graft"]
    controls = [e for e in shown if e.kind == "random"]
    if not planned:
        return Section("transfer", TRANSFER, lead, notes=["No hybrid was evaluated."])
    rows = runset.layers("eval")
    labels = [parent, *(e.label for e in [*planned, *controls]), "rl"]
    runs = runs_of(runset, "eval", labels, "image")
    best = max(planned, key=lambda e: e.diff)
    finding = f"{best.label} gains most: {best} over {name}"
    bands = ranges.control_bands(shown)
    if fair := [e for e in planned if len(e.layers) in bands]:
        won = len(above_random(runset, fair, controls))
        size = "each random set of as many layers"
        finding += f"; {won} of {len(fair)} surely gain more than {size}"
    layered = Panel(
        "hybrids-layers",
        "Every hybrid over the layers that it took from RL",
        f"gain in acc@1 over {parent} of every hybrid, drawn over its layers, with the band of "
        "random layer sets",
        effects_plot(runset, planned, f"acc@1 over {name}, points", bands, gain=True),
        layered=True,
    )
    groups = [
        Group(
            "hybrids",
            "Hybrids",
            "The name gives early:middle:late thirds. Dashed lines and their bands: "
            f"{name} and RL. Everything but the decoder layers (embeddings, vision, head) is "
            f"{name}'s. Grey: as many layers drawn at random; their bands span the lowest to the "
            "highest estimate. Bars are 95 % intervals over prompts.",
            [layered, *_points(rows, labels, parent, "hybrids")],
            finding,
            basis(runset, runs, _pooled(rows, labels, ["acc@1"]), "prompts"),
            runs,
        )
    ]
    scored = m_differences(runset, [e.label for e in shown])
    notes = []
    if len(scored):
        groups.append(_scores(runset, scored, [e.label for e in planned], runs))
    else:
        notes.append(
            "M scores of the hybrids were not measured: franken eval HYBRID --arms "
            "image,text,black,black-text has what they need."
        )
    return Section("transfer", TRANSFER, lead, groups, notes)


def necessary(runset: RunSet) -> Section:
    """Freezing beside merging for the same layers, and the freeze arms beside RL."""
    study, rows = runset.study, runset.layers("eval")
    lead = (
        "Repeat the RL run with layers frozen, all else equal; and put the same layers in and out "
        "by merging."
    )
    have = set(rows["model"]) if len(rows) else set()
    arms = [a for a in study.frozen if a in have]
    same = ranges.effects(runset)
    groups = [_same_layers(runset, same)] if same else []
    if arms:
        labels = [study.parent, *(["control"] if "control" in have else []), *arms, "rl"]
        runs = runs_of(runset, "eval", labels, "image")
        groups.append(
            Group(
                "freeze",
                "Freeze arms",
                "If freezing these layers costs the gain, the arm falls back to where RL started "
                "from; if not, it stays with RL. Bars are 95 % intervals over prompts.",
                _points(rows, labels, study.parent, "freeze"),
                _freeze_finding(runset, arms),
                basis(runset, runs, _pooled(rows, labels, ["acc@1"]), "prompts"),
                runs,
            )
        )
    notes = [] if arms else ["No freeze run was given."]
    return Section("necessary", NECESSARY, lead, groups, notes)


def m_differences(runset: RunSet, labels: Sequence[str]) -> pd.DataFrame:
    """Paired differences in the M scores: `gain` over the parent, `lag` behind RL, a row a hybrid
    and score; `all` tasks.
    """
    columns = ["model", "kind", "metric", "diff", "ci_low", "ci_high", "p", "n"]
    frames = []
    for kind, other in (("gain", runset.study.parent), ("lag", "rl")):
        before = _m_scores(runset, other)
        for label in labels if before else ():
            after = _m_scores(runset, label)
            for name in (x for x in before if x in after):
                table = compare_values(before[name], after[name], name)
                pooled = table.loc[table["task"] == "all"]
                frames.append(pooled.assign(model=label, kind=kind)[columns])
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def above_random(
    runset: RunSet, hybrids: Sequence[Effect], controls: Sequence[Effect]
) -> list[str]:
    """The hybrids that gain more than each random set of their size: paired by prompt, p < 0.05
    after Holm over all.
    """
    rows = [
        (h.label, row)
        for h in hybrids
        for c in controls
        if len(c.layers) == len(h.layers) and (row := paired(runset, c.label, h.label)) is not None
    ]
    adjusted = stats.holm([float(row["p"]) for _, row in rows])
    above = {label: True for label, _ in rows}
    for (label, row), p in zip(rows, adjusted, strict=True):
        above[label] &= bool(row["diff"] > 0 and p < stats.ALPHA)
    return [label for label, sure in above.items() if sure]


def _m_scores(runset: RunSet, label: str) -> PromptValues:
    """The M scores whose arms a model was evaluated in, greedily; none where it was not."""
    rows = runset.samples("eval", label)
    if not len(rows):
        return {}
    greedy = rows.loc[rows["draw"] == GREEDY].drop_duplicates(["method", "task", "sample"])
    arms = set(greedy["method"])
    return m_scores(greedy) if any(set(needed) <= arms for needed in NEEDS.values()) else {}


def _scores(
    runset: RunSet, scored: pd.DataFrame, planned: Sequence[str], runs: Sequence[str]
) -> Group:
    labels, names = list(dict.fromkeys(scored["model"])), list(dict.fromkeys(scored["metric"]))

    def panel(kind: str, title: str) -> Panel:
        def plot(*, mode: look.Mode, ax: Any) -> None:
            table = scored.loc[scored["kind"] == kind]
            ranges.plot_scores(table, labels=labels, names=names, mode=mode, ax=ax)
            ax.set_xlabel("points")

        size = (4.2, 0.36 * len(labels) + 1.0)
        alt = f"{title}, M scores of every hybrid"
        return Panel(f"mscores-{kind}", title, alt, plot, size=size)

    top = scored.loc[(scored["kind"] == "gain") & scored["model"].isin(planned)]
    own = [*runs_of(runset, "eval", labels, "black"), *runs_of(runset, "scores")]
    runs = tuple(dict.fromkeys([*runs, *own]))
    finding = ""
    if len(top):
        best = top.sort_values("diff").iloc[-1]
        finding = f"Largest gain of a hybrid: {best['model']}, {best['metric']} {interval(best)}"
    parent = look.name(runset.study.parent)
    return Group(
        "mscores",
        "Vision, vision to reasoning, reasoning",
        "M_vis: right with the image, wrong with a black one. M_v2r: right with the image, and "
        "with a black image beside the description. M_rea: right from the description alone. "
        "Paired by prompt, 95 % intervals.",
        [panel("gain", f"Gain over {parent}"), panel("lag", "Lag behind RL")],
        finding,
        basis(runset, runs, top, "prompts"),
        runs,
    )


def _same_layers(runset: RunSet, same: Sequence[Effect]) -> Group:
    parent, name = runset.study.parent, look.name(runset.study.parent)
    labels = list(dict.fromkeys([parent, "rl", *(e.label for e in same)]))
    runs = runs_of(runset, "eval", labels, "image")
    grafts = [e for e in same if e.kind == "graft"]
    losses = [e for e in same if e.kind != "graft"]
    panels = []
    if grafts:
        bands = ranges.control_bands(ranges.all_hybrids(runset), {len(e.layers) for e in grafts})
        panels.append(
            Panel(
                "same-graft",
                f"Enough alone? RL's layers in {name}",
                f"gain of {parent} with RL's layers, over those layers",
                effects_plot(runset, grafts, f"acc@1 over {name}, points", bands, gain=True),
                layered=True,
            )
        )
    finding = ""
    if losses:
        panels.append(
            Panel(
                "same-loss",
                "Needed? The same layers without RL's change",
                "loss against RL when layers are frozen in training, or put back, over those "
                "layers",
                effects_plot(runset, losses, "acc@1 against RL, points"),
                layered=True,
            )
        )
        worst = min(losses, key=lambda e: e.diff)
        how = {"freeze": "Freezing", "revert": "Putting back"}[worst.kind]
        layers = f"{name_layers(worst.layers)} of {runset.study.depth}"
        finding = f"{how} {layers} costs most: {worst} against RL"
    return Group(
        "same-layers",
        "Freezing beside merging, the same layers",
        "A bar lies over the layers it is about. Put in: the parent with RL's layers, nothing "
        "trained. Put back: RL with the parent's layers (and the parent's embeddings and vision). "
        "Frozen: RL trained without changing them. Paired by prompt, 95 % intervals.",
        panels,
        finding,
        basis(runset, runs, _pooled(runset.layers("eval"), labels, ["acc@1"]), "prompts"),
        runs,
    )


def effects_plot(
    runset: RunSet,
    shown: Sequence[Effect],
    label: str,
    bands: Mapping[int, ranges.Band] | None = None,
    *,
    gain: bool = False,
) -> Plot:
    """Effects over their layers; a `gain` stands beside that of all of RL."""
    study = runset.study
    whole = paired(runset, study.parent, "rl") if gain else None
    total = None if whole is None else float(whole["diff"])
    draw = partial(ranges.plot_effects, shown, depth=study.depth, parent=study.parent)

    def plot(*, mode: look.Mode, ax: Any) -> None:
        draw(whole=total, bands=bands, mode=mode, ax=ax).set_ylabel(label)

    return plot


def _points(rows: pd.DataFrame, labels: Sequence[str], parent: str, tag: str) -> list[Panel]:
    """acc@1 and a wider acc@k of several models, on one x range."""
    metrics = ["acc@1", *[m for m in ("acc@4", "acc@8") if m in set(rows["metric"])][:1]]
    limits = _limits(_pooled(rows, labels, metrics))
    points = partial(plot_points, rows, labels=labels, reference=(parent, "rl"), limits=limits)
    names = ", ".join(look.name(x) for x in labels)
    size = (4.2, max(2.2, 0.27 * len(labels) + 0.8))
    return [
        Panel(
            f"{tag}-{metric}",
            metric,
            f"{metric} of {names}",
            partial(points, metric=metric),
            size=size,
            legend=False,
        )
        for metric in metrics
    ]


def _freeze_finding(runset: RunSet, arms: Sequence[str]) -> str:
    rows = {a: r for a in arms if (r := paired(runset, "rl", a)) is not None}
    if not rows:
        return ""
    worst = min(rows, key=lambda a: float(rows[a]["diff"]))
    return f"The lowest arm: {look.name(worst)}, {interval(rows[worst])} against RL"


def _limits(rows: pd.DataFrame) -> tuple[float, float] | None:
    """One x range, in percent, for the panels of several metrics, so that widths can be
    compared.
    """
    if not rows["ci_low"].notna().any():
        return None
    low, high = 100 * float(rows["ci_low"].min()), 100 * float(rows["ci_high"].max())
    return low - 0.04 * (high - low) - 0.5, min(100.5, high + 0.04 * (high - low))


def _pooled(rows: pd.DataFrame, labels: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """The rows over all tasks in the image arm."""
    keep = rows["model"].isin(labels) & rows["metric"].isin(metrics) & (rows["task"] == "all")
    return rows.loc[keep & (rows["method"] == "image")]
