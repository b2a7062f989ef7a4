"""The section on localisation: swap curves, single layers, skipped layers, and how much replies
look at the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from franken import stats
from franken.layers import name_layers
from franken.probe import findings, methods
from franken.report import theme as look
from franken.report.figures import plots
from franken.report.page.panels import Group, Panel, Section, basis
from franken.report.sources import runs_of
from franken.runs import RunSet

TITLE = "Where it sees, where it reasons"
LEAD = (
    "Swap the image's keys and values for another image's, in some layers only, and see whether "
    "the answer moves."
)
STITCHES = {"stitch-below": "up to this layer", "stitch-above": "from this layer on"}
BROUGHT = {"restored": "divergence restored", "gain": "accuracy gained"}
PERMUTATIONS = 4000


class Swap(NamedTuple):
    """A figure of swaps: its key on the page, what it draws, and how it is read."""

    key: str
    method: str
    metric: str
    peak: str  # the finding's words; without any, it is the method's own
    title: str
    reading: str


SWAPS = (
    Swap(
        "swap-suffix",
        "swap-suffix",
        "change_rate",
        "",
        "Swapped from this layer up",
        "Each point: the share of answers that change when the source image's visual tokens "
        "replace the target's in this layer and all above it. Where a line falls, the model has "
        "finished reading the image for that task. Bands are 95 % intervals.",
    ),
    Swap(
        "flip-to-source",
        "swap-suffix",
        "flip_to_source_rate",
        "answers turned",
        "Turned into the source's answer",
        "The same swaps, counting only answers that become exactly what the model says about the "
        "source image: a swap that merely breaks the model does not count here.",
    ),
    Swap(
        "swap-single",
        "swap-single",
        "change_rate",
        "answers changed",
        "Swapped in this layer alone",
        "One layer at a time. High points are layers that matter by themselves; low lines mean "
        "that the image is read redundantly.",
    ),
)


def where(runset: RunSet) -> Section:
    """Swaps, ablation and attention of every probed checkpoint."""
    rows = findings.of_decoder(runset.layers("probe"))
    if len(rows) == 0:
        return Section("where", TITLE, LEAD, notes=["No probe was run."])
    models = [m for m in runset.study.stages if m in set(rows["model"])]
    tasks = [t for t in runset.study.tasks if t in set(rows["task"])] or plots.task_names(rows)
    groups = []
    for swap in SWAPS:
        if ((rows["method"] == swap.method) & (rows["metric"] == swap.metric)).any():
            groups.append(_swaps(runset, rows, models, tasks, swap))
    if (rows["method"] == "zero").any():
        groups.append(_skips(runset, rows, models, tasks))
    seen = rows.loc[(rows["method"] == "attention") & (rows["metric"] == "attention_mass")]
    notes = []
    if len(seen):
        groups.append(_attention(runset, seen, models))
    else:
        notes.append(
            "How much replies look at the image was not measured: franken probe CHECKPOINT "
            "--method attention does it."
        )
    stitched = rows.loc[rows["method"].isin(list(STITCHES)) & rows["value"].notna()]
    if len(stitched):
        groups.append(_stitches(runset, stitched, tasks))
    return Section("where", TITLE, LEAD, groups, notes)


def _swaps(
    runset: RunSet, rows: pd.DataFrame, models: Sequence[str], tasks: Sequence[str], swap: Swap
) -> Group:
    last, name = models[-1], look.name(models[-1])
    runs = runs_of(runset, "probe", models, swap.method)
    curve = partial(
        plots.plot_swap,
        rows,
        method=swap.method,
        metric=swap.metric,
        tasks=tasks,
        depth=runset.study.depth,
    )
    panels = [
        Panel(
            f"{swap.key}-{m}",
            look.name(m),
            f"{swap.title}, {look.name(m)}: share of answers by text layer, one line per task",
            partial(curve, model=m),
            layered=True,
        )
        for m in models
    ]
    own = rows.loc[(rows["model"] == last) & (rows["method"] == swap.method)]
    if swap.peak:
        measured = own.loc[(own["metric"] == swap.metric) & own["layer"].notna()]
        finding = _peak(name, plots.pool_tasks(measured), swap.peak)
    else:
        text = methods.get(swap.method).title(own)
        finding = f"{name}: {text[0].lower()}{text[1:]}" if ":" in text else ""
    below = basis(runset, runs, own, "pairs a task", models)
    return Group(swap.key, swap.title, swap.reading, panels, finding, below, runs)


def _peak(name: str, curve: pd.DataFrame, what: str) -> str:
    layers = findings.peak(curve)
    if not layers:
        return ""
    top = f"{100 * curve['value'].max():.0f} % over tasks"
    return f"{name}: most {what} at {name_layers(layers)}, {top}"


def _skips(
    runset: RunSet, rows: pd.DataFrame, models: Sequence[str], tasks: Sequence[str]
) -> Group:
    depth, runs = runset.study.depth, runs_of(runset, "probe", models, "zero")
    own = plots.select(rows, model=models[-1], method="zero", metric="accuracy_drop")
    text = methods.get("zero").title(own)
    panels = [
        Panel(
            "zero" if t == "all" else f"zero-{t}",
            "Accuracy lost, mean over tasks" if t == "all" else t,
            f"accuracy lost on {t} by skipping each text layer, per checkpoint",
            partial(plots.plot_zero, rows, models=models, task=t, depth=depth),
            layered=True,
        )
        for t in ("all", *tasks)
    ]
    return Group(
        "zero",
        "Without this layer",
        "Each decoder layer is skipped (replaced by the identity) and the questions are asked "
        "again.",
        panels,
        f"{look.name(models[-1])}: {text[0].lower()}{text[1:]}",
        basis(runset, runs, own, "questions a task", models),
        runs,
    )


def _stitches(runset: RunSet, rows: pd.DataFrame, tasks: Sequence[str]) -> Group:
    """RL up to a layer, or from it on, in the model that it started from."""
    model = str(rows["model"].iloc[0])
    runs = runs_of(runset, "probe", [model], str(rows["method"].iloc[0]))
    name, depth = look.name(model), runset.study.depth
    panels = [
        Panel(
            f"{method}-{metric}",
            f"{name} {where}: {what}",
            f"{what} by stitched models, {name} {where}, by text layer, one line per task",
            partial(
                plots.plot_stitch, rows, method=method, metric=metric, tasks=tasks, depth=depth
            ),
            layered=True,
        )
        for metric, what in BROUGHT.items()
        for method, where in STITCHES.items()
        if ((rows["method"] == method) & (rows["metric"] == metric)).any()
    ]
    return Group(
        "stitch",
        f"Stitched: whose layers bring {name} back",
        f"All tokens run through {name} in the layers that are named and through "
        f"{look.name(runset.study.parent)} in the others. Divergence restored: of the two models' "
        "next-token distributions where their greedy replies part; 100 % is "
        f"{name}. Accuracy gained: of the stitched model's own greedy replies over "
        f"{look.name(runset.study.parent)}'s. Bands: 95 % intervals over questions; ringed: p < "
        "0.05 after Holm over layers.",
        panels,
        methods.get("stitch-below").title(rows).replace("the probed model", name),
        basis(runset, runs, rows, "questions a task"),
        runs,
    )


def _attention(runset: RunSet, rows: pd.DataFrame, models: Sequence[str]) -> Group:
    """The paper's figure 3, and the paired difference that RL makes."""
    depth, study = runset.study.depth, runset.study
    seen = [m for m in models if (rows["model"] == m).any()]
    runs = runs_of(runset, "probe", seen, "attention")
    whole = rows.loc[rows["component"] == "all"]
    label = "attention to the image, %"
    panels = [
        Panel(
            "attention",
            "Attention to the image, mean over tasks",
            "share of attention on the image by text layer, per checkpoint",
            partial(plots.plot_by_model, whole, models=seen, depth=depth, label=label),
            layered=True,
        )
    ]
    shift = attention_shift(runset, study.parent, "rl")
    finding = ""
    if len(shift):
        panels.append(
            Panel(
                "attention-shift",
                f"RL minus {look.name(study.parent)}, paired by question",
                "difference in attention to the image by text layer",
                partial(plots.plot_shift, shift, depth=depth),
                layered=True,
            )
        )
        sure = shift.loc[shift["p_adjusted"] < stats.ALPHA]
        more, less = (
            [int(i) for i in sure.loc[sign * sure["value"] > 0, "layer"]] for sign in (1, -1)
        )
        ways = [
            f"{way} in {name_layers(layers)}"
            for way, layers in (("more", more), ("less", less))
            if layers
        ]
        finding = " and ".join(ways) or "neither more nor less in any layer"
        finding = f"After RL, replies look at the image {finding}"
    by_head = rows.loc[rows["component"].str.startswith("head ")]
    means = by_head.groupby(["model", "component", "layer"])["value"].mean()
    panels += [
        Panel(
            f"attention-heads-{m}",
            f"{look.name(m)}, by head",
            f"attention to the image by text layer and head, {m}",
            partial(
                plots.plot_heads,
                by_head.loc[by_head["model"] == m],
                depth=depth,
                top=100 * float(means.max()),
            ),
            layered=True,
            legend=False,
        )
        for m in seen
        if (by_head["model"] == m).any()
    ]
    return Group(
        "attention",
        "Looking at the image while writing",
        "Of all attention that the tokens of a reply pay, the share that falls on the image's "
        "tokens. Bands: 95 % intervals over questions; ringed: p < 0.05 after Holm over "
        "layers.",
        panels,
        finding,
        basis(runset, runs, whole, "questions a task"),
        runs,
    )


def attention_shift(runset: RunSet, a: str, b: str) -> pd.DataFrame:
    """By text layer: attention to the image of b minus a, paired by question, tasks weighing the
    same, Holm over layers. Columns: layer, value, ci_low, ci_high, n, p_adjusted.
    """
    rows = findings.of_decoder(runset.samples("probe"))
    columns = ["layer", "value", "ci_low", "ci_high", "n", "p_adjusted"]
    if len(rows) == 0 or "mass" not in rows:
        return pd.DataFrame(columns=columns)
    usable = rows["error"].isna() & rows["ineligible"].isna()
    rows = rows.loc[(rows["method"] == "attention") & usable]
    table = rows.pivot_table(index=["layer", "task", "sample"], columns="model", values="mass")
    if not {a, b} <= set(table.columns):
        return pd.DataFrame(columns=columns)
    measured, p_values = [], []
    for layer, part in (table[b] - table[a]).dropna().groupby(level="layer"):
        groups = [g.to_numpy(float) for _, g in part.groupby(level="task")]
        weighted = np.concatenate([g * (len(part) / (len(groups) * len(g))) for g in groups])
        p_values.append(stats.sign_flip_test(weighted, n_perm=PERMUTATIONS))
        measured.append((layer, *stats.mean(*groups), len(part)))
    shift = pd.DataFrame(measured, columns=columns[:-1])
    return shift.assign(p_adjusted=stats.holm(p_values))
