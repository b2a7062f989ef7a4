"""Evaluations side by side: every measure of every model with its interval, paired differences, and
what goes with what.

It reads the run folders of `franken eval` and asks no model anything, so it can be repeated with
another embedder at no cost. Its own run folder holds

    samples.parquet   a row per model, arm, prompt and measure
    points.parquet    up to `MAX_POINTS` answers on a plane: t-SNE of their reasoning's embeddings
    layers.parquet    per task, `all` (macro) and `pooled` (micro): each measure; `B - A`
                      differences paired by prompt, their p
                      Holm-adjusted over the tasks; solved by one and not by the other;
                      correlations; baselines
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from franken import stats
from franken.errors import FrankenError
from franken.evaluate.diversity import difficulty_controls
from franken.evaluate.measures import Measure, main_arm, measures
from franken.evaluate.metrics import (
    ALL,
    RIGHT,
    Comparison,
    baselines,
    compare_values,
    estimate_row,
    per_prompt,
    spread,
)
from franken.evaluate.perception import usable
from franken.runs import load_run, open_run, write_parquet
from franken.stats import Estimate

if TYPE_CHECKING:
    import pandas as pd

    from franken.evaluate.embed import Embed
    from franken.runs import LayerRow

HASHING = "hashing"
MAX_POINTS = 1000
MINUS = " - "
PERMUTATIONS = 4000
CORRELATED = ("diversity", "distinct-2", "strategies")
POINTS = "points.parquet"
MEASURED = (  # columns of answers that measures are made of
    *("model", "method", "task", "sample", "draw", "gold", "output", "answer", "score"),
    *("strategy", "kind", "error", "ineligible", "well_formed", "truncated", "facts_right"),
    *("tokens", "steps", "reflections", "references"),
)


class Evaluated(NamedTuple):
    """A model's rows, and its measures by (metric, arm)."""

    label: str
    samples: pd.DataFrame
    table: dict[tuple[str, str], Measure]


def compare_runs(
    folders: Sequence[Path],
    *,
    out: Path,
    embedder: str = HASHING,
    device: str = "cpu",
    trained: Collection[str] = (),
    seed: int = 0,
) -> Path:
    """Compare finished evaluations, each with each, later minus earlier. Returns the run folder
    (`out/compare/…`).

    Raises FrankenError when two runs have one label, or nothing in common.
    """
    from franken.evaluate.embed import embedder as make_embedder
    from franken.models.loading import pick_device

    runs = [load_run(folder) for folder in folders]
    labels = [run.label for run in runs]
    if len(set(labels)) < len(labels):
        raise FrankenError(
            "two runs have one name", f"they are {', '.join(labels)}", "give each model its --label"
        )
    k = sorted({j for r in runs for j in r.manifest.config.acc_at})
    identity = {
        "runs": [f.name for f in folders],
        "embedder": embedder,
        "trained": sorted(trained),
        "seed": seed,
    }
    models = {label: str(folder) for label, folder in zip(labels, folders, strict=True)}
    config = {**identity, "models": labels, "k": k}
    label = "-".join(labels)[:80]
    embed = make_embedder(embedder, device=pick_device(device))
    with open_run("compare", label, identity, out, config=config, models=models) as run:
        if run.is_complete():
            return run.folder
        curve = min(r.manifest.config.n or 0 for r in runs)
        rows = [(r.label, r.answers(*MEASURED)) for r in runs]
        evaluated = _measured(rows, k, curve, embed, trained)
        if not run.rows():
            run.append(_values(evaluated))
        write_parquet(_points(evaluated, embed, seed), run.folder / POINTS)
        layers = summary(evaluated, k, seed=seed)
        failed = sum(r.manifest.n_failed for r in runs)
        warnings = [f"{failed} answers failed; see the runs that are compared"] if failed else []
        requested = sum(len(m.values) for model in evaluated for m in model.table.values())
        extra = {
            "answers_failed": failed,
            "answers_requested": sum(r.manifest.n_requested for r in runs),
        }
        return run.finish(layers, n_requested=requested, warnings=warnings, extra=extra)


def summary(evaluated: Sequence[Evaluated], k: Collection[int], *, seed: int = 0) -> list[LayerRow]:
    """The rows of layers.parquet of a comparison."""
    import pandas as pd

    everything = pd.concat([model.samples for model in evaluated], ignore_index=True)
    tasks = list(dict.fromkeys(everything["task"]))
    rows = baselines(everything[everything["method"] == _arm(evaluated[0].samples)])
    for model in evaluated:
        for (metric, arm), m in model.table.items():
            rows += spread(
                m.values,
                tasks,
                metric,
                model=model.label,
                arm=arm,
                pooled=True,
                counts=not m.is_rate,
            )
    for one, two in itertools.combinations(evaluated, 2):
        rows += _differences(one, two, seed=seed)
    for one, two in itertools.combinations(evaluated, 2):
        rows += solved_by_one(one.label, one.samples, two.label, two.samples)
    return rows + correlations(evaluated, k)


def solved_by_one(one: str, a: pd.DataFrame, two: str, b: pd.DataFrame) -> list[LayerRow]:
    """How often one model succeeds where the other fails: greedily, and with any of its draws, per
    task and overall.
    """
    arm = main_arm(list(dict.fromkeys(a["method"])))
    a, b = a[a["method"] == arm], b[b["method"] == arm]
    n = int(min(x[x["draw"] >= 0].groupby(["task", "sample"]).size().max() for x in (a, b)))
    rows: list[LayerRow] = []
    for metric, name in (("greedy", "greedily"), (f"first@{n}", f"in {n} draws")):
        left, right = per_prompt(a, metric), per_prompt(b, metric)
        both = left.index.intersection(right.index, sort=False)
        left, right = left[both] > RIGHT, right[both] > RIGHT
        tasks = list(dict.fromkeys(both.get_level_values("task")))
        for model, only in (
            (f"{one}, not {two}", left & ~right),
            (f"{two}, not {one}", right & ~left),
        ):
            rows += spread(
                only.astype(float),
                tasks,
                f"solved {name}",
                model=model,
                arm=arm or "",
                pooled=True,
            )
    return rows


def correlations(evaluated: Sequence[Evaluated], k: Collection[int]) -> list[LayerRow]:
    """Diversity against acc@k over prompts, per model and over all models: raw, and controlled for
    difficulty.

    Controlled: partial correlation within tasks (and models), given the mean acc@1 of the OTHER
    models on the prompt; with one model, within tasks only (its own acc@1 would explain its acc@k
    away). The metric's name says which.
    """
    import pandas as pd

    frames = []
    for model in evaluated:
        arm = next((a for metric, a in model.table if metric in CORRELATED), "")
        columns = {metric: m.values for (metric, a), m in model.table.items() if a == arm}
        others = [
            other.table[("acc@1", arm)].values
            for other in evaluated
            if other is not model and ("acc@1", arm) in other.table
        ]
        frame = pd.DataFrame(columns).rename_axis(["task", "sample"]).reset_index()
        peers = pd.concat(others, axis=1).mean(axis=1).rename("difficulty") if others else None
        frame = frame.merge(peers.reset_index(), how="left") if peers is not None else frame
        frames.append(frame.assign(model=model.label))
    pooled = pd.concat(frames, ignore_index=True)
    rows: list[LayerRow] = []
    for label, frame in [
        *zip([m.label for m in evaluated], frames, strict=True),
        *([("all models", pooled)] if len(frames) > 1 else []),
    ]:
        successes = [f"acc@{j}" for j in sorted(k) if j > 1 and f"acc@{j}" in frame]
        for x, y in itertools.product([c for c in CORRELATED if c in frame], successes):
            if x == CORRELATED[0] or y == successes[-1]:
                rows += _correlated(frame, label, x, y)
    return rows


def _correlated(frame: pd.DataFrame, model: str, x: str, y: str) -> list[LayerRow]:
    peers = frame["difficulty"].to_numpy() if "difficulty" in frame else None
    several = frame["model"].nunique() > 1
    given = ("models, " if several else "") + (
        "tasks and difficulty" if peers is not None else "tasks"
    )
    strata = (frame["model"] + "/" + frame["task"] if several else frame["task"]).tolist()
    controls = difficulty_controls(strata, peers)
    n = int(frame[[x, y]].notna().all(axis=1).sum())
    rows = []
    for name, ranks in (("Pearson", False), ("Spearman", True)):
        for suffix, columns in (("", None), (f" | {given}", controls)):
            estimate = stats.correlation(
                frame[x],
                frame[y],
                ranks=ranks,
                controls=columns,
                units=frame["task"] + "/" + frame["sample"],
            )
            metric = f"{name} {x} ~ {y}{suffix}"
            rows.append(estimate_row(model, None, ALL, metric, estimate, n))
    return rows


def _differences(first: Evaluated, other: Evaluated, *, seed: int) -> list[LayerRow]:
    """`other` minus `first` in every measure of which both have values on a common prompt."""
    rows = []
    label = other.label + MINUS + first.label
    for (metric, arm), ours in first.table.items():
        theirs = other.table.get((metric, arm))
        if theirs is None:
            continue
        left, right = ours.values.dropna(), theirs.values.dropna()
        if not len(left.index.intersection(right.index)):
            continue
        table = compare_values(
            left, right, metric, counts=not ours.is_rate, seed=seed, n_perm=PERMUTATIONS
        )
        for row in map(Comparison._make, table.itertuples(index=False)):
            estimate = Estimate(row.diff, row.ci_low, row.ci_high)
            rows.append(
                estimate_row(label, arm, row.task, metric, estimate, row.n, p=row.p_adjusted)
            )
    return rows


def _arm(samples: pd.DataFrame) -> str | None:
    return main_arm(list(dict.fromkeys(samples["method"])))


def _measured(
    runs: Sequence[tuple[str, pd.DataFrame]],
    k: list[int],
    curve: int,
    embed: Embed,
    trained: Collection[str],
) -> list[Evaluated]:
    """The models of (label, rows), with all their measures."""
    arm = _arm(runs[0][1])
    used = {
        strategy
        for _, rows in runs
        for strategy in rows.loc[rows["method"] == arm, "strategy"].dropna()
    }
    evaluated = []
    for label, rows in runs:
        each = measures(
            rows,
            k=[j for j in k if j <= curve],
            curve=curve,
            embed=embed,
            trained=trained,
            strategies=sorted(used),
        )
        evaluated.append(Evaluated(label, rows, {(m.metric, m.arm): m for m in each}))
    return evaluated


def _values(evaluated: Sequence[Evaluated]) -> list[dict]:
    return [
        {
            "model": model.label,
            "method": m.arm,
            "task": task,
            "sample": sample,
            "metric": m.metric,
            "value": value,
            "error": None,
        }
        for model in evaluated
        for m in model.table.values()
        for (task, sample), value in zip(m.values.index.tolist(), m.values, strict=True)
    ]


def _points(evaluated: Sequence[Evaluated], embed: Embed, seed: int) -> pd.DataFrame:
    """Answers on a plane (MUPO, figures 4 and 6): cosine t-SNE from PCA, perplexity min(30, (n -
    1)/3).
    """
    import pandas as pd
    from sklearn.manifold import TSNE

    from franken.evaluate.embed import segment

    arm = _arm(evaluated[0].samples) or ""
    rows = pd.concat([usable(model.samples, arm) for model in evaluated], ignore_index=True)
    rows = rows[rows["draw"] >= 0]
    rows = rows.sample(min(len(rows), MAX_POINTS), random_state=seed).sort_index()
    points = pd.DataFrame(rows[["model", "task", "sample", "draw", "strategy"]])
    points["right"] = rows["score"].astype(float) > RIGHT
    vectors = (
        embed([segment(text) for text in rows["output"]]).numpy() if len(rows) else np.zeros((0, 2))
    )
    if len(np.unique(vectors, axis=0)) < 4:  # nothing to lay out
        return points.assign(x=np.nan, y=np.nan)
    layout: Any = TSNE(
        perplexity=min(30.0, (len(rows) - 1) / 3),
        metric="cosine",
        init="pca",
        random_state=seed,
        n_jobs=1,
    )
    placed = layout.fit_transform(vectors)
    return points.assign(x=placed[:, 0], y=placed[:, 1])
