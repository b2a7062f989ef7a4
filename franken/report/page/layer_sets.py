"""The sections on layer sets: what RL's layers carry into its parent, and what RL learns when they
are frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from franken import stats
from franken.evaluate.metrics import GREEDY, compare_values
from franken.evaluate.mscores import NEEDS, m_scores
from franken.report import ranges
from franken.report import theme as look
from franken.report.evidence import Evidence
from franken.report.figures import plots
from franken.report.page.panels import Group, Panel, Section, basis
from franken.report.sources import runs_of
from franken.report.verdicts import ALPHA, interval, paired

TRANSFER, NECESSARY = "Does the change transfer?", "Was it necessary?"


def transfer(found: Evidence) -> Section:
    """Hybrids beside the parent, RL and random controls; on the layer axis, as points, and in M
    scores.
    """
    study = found.study
    shown = ranges.all_hybrids(found)
    parent = study.parent
    lead = f"Put RL's layers into {look.name(parent)}, third by third, without any training, and ask again."
    planned = [e for e in shown if e.kind == "graft"]
    if not planned:
        return Section("transfer", TRANSFER, lead, notes=["No hybrid was evaluated."])
    rows = found.layers("eval")
    labels = [
        parent,
        *(e.label for e in planned),
        *(e.label for e in shown if e.kind == "random"),
        "rl",
    ]
    runs = runs_of(found, "eval", labels, "image")
    whole = paired(found, parent, "rl")
    below = basis(found, runs, _all(rows, labels, "acc@1"), "prompts")
    best = max(planned, key=lambda e: e.diff)
    bands = ranges.control_bands(shown)
    fair = [e for e in planned if len(e.layers) in bands]
    won = len(above_random(found, fair, [e for e in shown if e.kind == "random"]))
    over = (
        f"; {won} of {len(fair)} surely gain more than each random set of as many layers"
        if fair
        else ""
    )
    layered = Panel(
        "hybrids-layers",
        "Every hybrid over the layers that it took from RL",
        f"gain in acc@1 over {parent} of every hybrid, drawn over its layers, with the band of random layer sets",
        lambda ax, mode: _effects(
            found, planned, mode, ax, whole, bands, f"acc@1 over {look.name(parent)}, points"
        ),
        layered=True,
    )
    groups = [
        Group(
            "hybrids",
            "Hybrids",
            f"The name gives early:middle:late thirds. Dashed lines and their bands: {look.name(parent)} and RL. Everything but "
            f"the decoder layers (embeddings, vision, head) is {look.name(parent)}'s. Grey: as many layers drawn at random; "
            "their bands span the lowest to the highest estimate. Bars are 95 % bootstrap intervals over prompts.",
            [layered, *_points(rows, labels, parent, "hybrids")],
            f"{best.label} gains most: {best} over {look.name(parent)}{over}",
            below,
            runs,
        )
    ]
    scored = m_differences(found, [e.label for e in shown])
    notes = []
    if len(scored):
        groups.append(_scores(found, scored, [e.label for e in planned], runs))
    else:
        notes.append(
            "M scores of the hybrids were not measured: franken eval HYBRID --arms image,text,black,black-text has what they need."
        )
    return Section("transfer", TRANSFER, lead, groups, notes)


def necessary(found: Evidence) -> Section:
    """Freezing beside merging for the same layers, and the freeze arms beside RL."""
    study, rows = found.study, found.layers("eval")
    lead = "Repeat the RL run with layers frozen, all else equal; and put the same layers in and out by merging."
    have = set(rows["model"]) if len(rows) else set()
    arms = [a for a in study.frozen if a in have]
    same = ranges.effects(found)
    notes = [] if arms else ["No freeze run was given."]
    if not arms and not same:
        return Section("necessary", NECESSARY, lead, notes=notes)
    groups = []
    if same:
        groups.append(_same_layers(found, same))
    if arms:
        labels = [study.parent, *(["control"] if "control" in have else []), *arms, "rl"]
        runs = runs_of(found, "eval", labels, "image")
        groups.append(
            Group(
                "freeze",
                "Freeze arms",
                "If freezing these layers costs the gain, the arm falls back to where RL started from; if not, it stays with "
                "RL. Bars are 95 % bootstrap intervals over prompts.",
                _points(rows, labels, study.parent, "freeze"),
                _freeze_finding(found, arms),
                basis(found, runs, _all(rows, labels, "acc@1"), "prompts"),
                runs,
            )
        )
    return Section("necessary", NECESSARY, lead, groups, notes)


def m_differences(found: Evidence, labels: Sequence[str]) -> Any:
    """Paired differences in the M scores: `gain` over the parent, `lag` behind RL, a row a hybrid
    and score; `all` tasks.
    """
    import pandas as pd

    columns = ["model", "kind", "metric", "diff", "ci_low", "ci_high", "p", "n"]
    frames = []
    for kind, other in (("gain", found.study.parent), ("lag", "rl")):
        before = _m_scores(found, other)
        for label in labels if before else ():
            after = _m_scores(found, label)
            for name in (x for x in before if x in after):
                table = compare_values(before[name], after[name], name)
                frames.append(table[table["task"] == "all"].assign(model=label, kind=kind)[columns])
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def _m_scores(found: Evidence, label: str) -> dict[str, Any]:
    """The M scores whose arms a model was asked in, greedily; none where it was not."""
    rows = found.samples("eval", label)
    rows = (
        rows[rows["draw"] == GREEDY].drop_duplicates(["method", "task", "sample"])
        if len(rows)
        else rows
    )
    arms = set(rows["method"]) if len(rows) else set()
    return m_scores(rows) if any(set(needed) <= arms for needed in NEEDS.values()) else {}


def _scores(found: Evidence, scored: Any, planned: Sequence[str], runs: Sequence[str]) -> Group:
    labels, names = list(dict.fromkeys(scored["model"])), list(dict.fromkeys(scored["metric"]))
    size = (4.2, 0.36 * len(labels) + 1.0)

    def panel(kind: str, title: str) -> Panel:
        table = scored[scored["kind"] == kind]
        return Panel(
            f"mscores-{kind}",
            title,
            f"{title}, M scores of every hybrid",
            lambda ax, mode: ranges.plot_scores(
                table, labels=labels, names=names, mode=mode, ax=ax
            ).set_xlabel("points"),
            size=size,
        )

    top = scored[(scored["kind"] == "gain") & scored["model"].isin(list(planned))]
    runs = tuple(
        dict.fromkeys([*runs, *runs_of(found, "eval", labels, "black"), *runs_of(found, "scores")])
    )
    best = top.loc[top["diff"].astype(float).idxmax()] if len(top) else None
    finding = (
        f"Largest gain of a hybrid: {best['model']}, {best['metric']} {interval(best)}"
        if best is not None
        else ""
    )
    return Group(
        "mscores",
        "Vision, vision to reasoning, reasoning",
        "M_vis: right with the image, wrong with a black one. M_v2r: right with the image, and with a black image beside "
        "the description. M_rea: right from the description alone. Paired by prompt, 95 % bootstrap intervals.",
        [
            panel("gain", f"Gain over {look.name(found.study.parent)}"),
            panel("lag", "Lag behind RL"),
        ],
        finding,
        basis(found, runs, top, "prompts"),
        runs,
    )


def _same_layers(found: Evidence, same: list[ranges.Effect]) -> Group:
    study, parent = found.study, found.study.parent
    labels = list(dict.fromkeys([parent, "rl", *(e.label for e in same)]))
    runs = runs_of(found, "eval", labels, "image")
    grafts = [e for e in same if e.kind == "graft"]
    losses = [e for e in same if e.kind != "graft"]
    whole = paired(found, parent, "rl")
    panels = []
    if grafts:
        bands = ranges.control_bands(ranges.all_hybrids(found), {len(e.layers) for e in grafts})
        panels.append(
            Panel(
                "same-graft",
                f"Enough alone? RL's layers in {look.name(parent)}",
                f"gain of {parent} with RL's layers, over those layers",
                lambda ax, mode: _effects(
                    found, grafts, mode, ax, whole, bands, f"acc@1 over {look.name(parent)}, points"
                ),
                layered=True,
            )
        )
    if losses:
        panels.append(
            Panel(
                "same-loss",
                "Needed? The same layers without RL's change",
                "loss against RL when layers are frozen in training, or put back, over those layers",
                lambda ax, mode: _effects(
                    found, losses, mode, ax, None, None, "acc@1 against RL, points"
                ),
                layered=True,
            )
        )
    rows = _all(found.layers("eval"), labels, "acc@1")
    worst = min(losses, key=lambda e: e.diff, default=None)
    finding = ""
    if worst:
        how = {"freeze": "Freezing", "revert": "Putting back"}[worst.kind]
        finding = f"{how} {_span(worst, study.depth)} costs most: {worst} against RL"
    return Group(
        "same-layers",
        "Freezing beside merging, the same layers",
        "A bar lies over the layers it is about. Put in: the parent with RL's layers, nothing trained. Put back: RL with the "
        "parent's layers (and the parent's embeddings and vision). Frozen: RL trained without changing them. Paired by "
        "prompt, 95 % bootstrap intervals.",
        panels,
        finding,
        basis(found, runs, rows, "prompts"),
        runs,
    )


def _effects(
    found: Evidence,
    shown: list[ranges.Effect],
    mode: look.Mode,
    ax: Any,
    whole: Any,
    bands: Any,
    label: str,
) -> None:
    study = found.study
    ranges.plot_effects(
        shown,
        depth=study.depth,
        parent=study.parent,
        whole=None if whole is None else float(whole["diff"]),
        bands=bands,
        mode=mode,
        ax=ax,
    )
    ax.set_ylabel(label)


def _points(rows: Any, labels: list[str], parent: str, tag: str) -> list[Panel]:
    """acc@1 and a wider acc@k of several models, on one x range."""
    metrics = ["acc@1", *[m for m in ("acc@4", "acc@8") if m in set(rows["metric"])][:1]]
    limits = _limits(rows, labels, metrics)
    return [
        Panel(
            f"{tag}-{m}",
            m,
            f"{m} of {', '.join(look.name(x) for x in labels)}",
            lambda ax, mode, m=m: plots.plot_points(
                rows,
                labels=labels,
                metric=m,
                reference=(parent, "rl"),
                limits=limits,
                mode=mode,
                ax=ax,
            ),
            size=(4.2, max(2.2, 0.27 * len(labels) + 0.8)),
            legend=False,
        )
        for m in metrics
    ]


def _freeze_finding(found: Evidence, arms: list[str]) -> str:
    rows = {a: r for a in arms if (r := paired(found, "rl", a)) is not None}
    if not rows:
        return ""
    worst = min(rows, key=lambda a: float(rows[a]["diff"]))
    return f"The lowest arm: {look.name(worst)}, {interval(rows[worst])} against RL"


def _limits(rows: Any, labels: list[str], metrics: list[str]) -> tuple[float, float] | None:
    """One x range, in percent, for the panels of several metrics, so that widths can be compared."""
    shown = rows[
        rows["model"].isin(labels) & rows["metric"].isin(metrics) & (rows["method"] == "image")
    ]
    shown = shown[(shown["task"] == "all") & shown["ci_low"].notna()]
    if len(shown) == 0:
        return None
    low, high = 100 * float(shown["ci_low"].min()), 100 * float(shown["ci_high"].max())
    return low - 0.04 * (high - low) - 0.5, min(100.5, high + 0.04 * (high - low))


def above_random(found: Evidence, hybrids: Sequence[Any], controls: Sequence[Any]) -> list[str]:
    """The hybrids that gain more than each random set of their size: paired by prompt, p < 0.05
    after Holm over all.
    """
    rows = [
        (h.label, row)
        for h in hybrids
        for c in controls
        if len(c.layers) == len(h.layers) and (row := paired(found, c.label, h.label)) is not None
    ]
    adjusted = stats.holm([float(row["p"]) for _, row in rows])
    above = {label: True for label, _ in rows}
    for (label, row), p in zip(rows, adjusted, strict=True):
        above[label] &= bool(row["diff"] > 0 and p < ALPHA)
    return [label for label, sure in above.items() if sure]


def _all(rows: Any, labels: Sequence[str], metric: str) -> Any:
    keep = rows["model"].isin(list(labels)) & (rows["metric"] == metric) & (rows["task"] == "all")
    return rows[keep & (rows["method"] == "image")]


def _span(effect: ranges.Effect, depth: int) -> str:
    from franken.report.headlines import layer_spans

    return f"layers {layer_spans(list(effect.layers))} of {depth}"
