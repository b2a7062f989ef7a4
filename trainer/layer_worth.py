"""What is one layer worth? Dear and cheap answers side by side, and which cheap one predicts the
dear one.

    alone     RL in which nothing but the layer trains: the share of RL's gain that it reaches
    graft     the start with RL's layer: the share of the gain that comes with it
    revert    RL with the layer put back: the share of the gain that goes with it
    energy    ‖Δ‖ of the layer in plain RL, and relative to ‖W‖
    skip      probes in the same folder, of the start or RL: accuracy lost without the layer
    stitch    the share of the divergence that comes back with it, above what the layers below bring

Shares are of (RL − start), over seeds and puzzles, with Fieller's interval. Correlations are of
ranks over layers, their intervals a jackknife over layers, p exact by permutation up to eight
layers, after Holm over all that have `alone` in them. Layer contribution: arXiv 2607.01232.

    out/layers.csv          a row a layer and measure
    out/correlations.csv    a row a pair of measures
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from franken.checkpoints import fingerprint, open_checkpoint
from franken.diff.plan import plan_diff
from franken.diff.run import run_diff
from franken.probe.findings import pool_tasks
from franken.runs import LoadedRun, load_run, open_runs
from franken.stats import (
    Estimate,
    correlation,
    holm,
    mean,
    rank_test,
    recovered_over_seeds,
)
from franken.study.hybrids import Hybrid
from trainer.recipe import Recipe

ALONE, GRAFT, REVERT, ENERGY, RELATIVE = "alone", "graft", "revert", "energy", "relative energy"
SKIP, STITCH = "skip", "stitch"
LAYERS, CORRELATIONS = "layers.csv", "correlations.csv"
RUNS = "runs"
Answers = NDArray[np.float64]


def layer_worth(
    recipe: Recipe, arms: Sequence[Hybrid], seeds: Sequence[int], out: Path, answers: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of a study in which single layers train alone, written into its folder.

    `answers`: arm, seed, task, item, acc@1 of `start`, `none`, and for every arm itself, `graft
    ARM` and `revert ARM`.
    """
    single = [arm for arm in arms if len(arm.layers) == 1]
    rows = [*_shares(single, seeds, answers)]
    rows += _energies(recipe, single, seeds, out)
    rows += _probed(recipe, single, seeds, out)
    table = pd.DataFrame(rows, columns=["layer", "measure", *Estimate._fields, "n"])
    table.to_csv(out / LAYERS, index=False)
    found = rank_correlations(table)
    found.to_csv(out / CORRELATIONS, index=False)
    return table, found


def rank_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of every two measures over the layers that have both; fewer than four
    give none.
    """
    wide = table.pivot(index="layer", columns="measure", values="value")
    names = [name for name in dict.fromkeys(table["measure"]) if wide[name].notna().any()]
    rows = []
    for one, other in combinations(names, 2):
        both = wide[[one, other]].dropna()
        if len(both) < 4:
            continue
        x, y = both[one].to_numpy(float), both[other].to_numpy(float)
        found = correlation(x, y, ranks=True)
        rows.append(
            {"one": one, "other": other, **found._asdict(), "p": rank_test(x, y), "n": len(both)}
        )
    made = pd.DataFrame(rows, columns=["one", "other", *Estimate._fields, "p", "n"])
    dear = made["one"] == ALONE
    made["p_adjusted"] = np.nan
    made.loc[dear, "p_adjusted"] = holm(made.loc[dear, "p"].tolist())
    return made


def _shares(
    arms: Sequence[Hybrid], seeds: Sequence[int], answers: pd.DataFrame
) -> Iterator[tuple[object, ...]]:
    def of(arm: str) -> Answers:
        own = answers[answers["arm"] == arm].sort_values(["task", "item"])
        return np.stack([own.loc[own["seed"] == s, "acc@1"].to_numpy(float) for s in seeds])

    start, end = of("start"), of("none")
    for arm in arms:
        kept = {
            ALONE: of(arm.label),
            GRAFT: of(f"graft {arm.label}"),
            REVERT: start + end - of(f"revert {arm.label}"),  # what is lost, as if it were gained
        }
        for measure, own in kept.items():
            found = recovered_over_seeds(start, end, own)
            yield (arm.layers[0], measure, *found, start.shape[1])


def _energies(
    recipe: Recipe, arms: Sequence[Hybrid], seeds: Sequence[int], out: Path
) -> Iterator[tuple[object, ...]]:
    found: dict[tuple[int, str], list[float]] = {}
    for seed in seeds:
        plan = plan_diff([recipe.model, out / "train" / f"none-{seed}" / "final"], parts=["text"])
        rows = load_run(run_diff(plan, out=out / RUNS)).layers
        rows = rows[(rows["component"] == "all") & rows["layer"].notna()]
        for measure, metric in ((ENERGY, "energy"), (RELATIVE, "relative_energy")):
            own = rows[rows["metric"] == metric].set_index("layer")["value"]
            for arm in arms:
                found.setdefault((arm.layers[0], measure), []).append(float(own[arm.layers[0]]))
    for (layer, measure), values in found.items():
        yield (layer, measure, *mean(values), len(values))


def _probed(
    recipe: Recipe, arms: Sequence[Hybrid], seeds: Sequence[int], out: Path
) -> Iterator[tuple[object, ...]]:
    """What probes of the start and of plain RL say, where the folder holds some: the mean over
    them.
    """
    finals = [out / "train" / f"none-{seed}" / "final" for seed in seeds]
    start = fingerprint(open_checkpoint(recipe.model))
    ends = {fingerprint(open_checkpoint(final)) for final in finals if final.is_dir()}
    by_measure: dict[str, list[pd.Series]] = {}
    for run in open_runs(out).of("probe"):
        content = (run.contents or [""])[0]
        if content not in {start, *ends}:
            continue
        if len(skipped := _curve(run, "zero", "accuracy_drop")):
            name = f"{SKIP}, {'start' if content == start else 'RL'}"
            by_measure.setdefault(name, []).append(skipped)
        if content in ends and len(below := _curve(run, "stitch-below", "restored")):
            by_measure.setdefault(STITCH, []).append(below.diff().fillna(below))
    for measure, curves in by_measure.items():
        for arm in arms:
            values = [c[arm.layers[0]] for c in curves if arm.layers[0] in c.index]
            if values:
                found = mean(values) if len(values) > 1 else Estimate(values[0], np.nan, np.nan)
                yield (arm.layers[0], measure, *found, len(values))


def _curve(run: LoadedRun, method: str, metric: str) -> pd.Series:
    """Layer → value over all tasks of a probe's method."""
    rows = run.layers
    rows = rows[(rows["method"] == method) & (rows["metric"] == metric) & (rows["part"] == "text")]
    rows = rows[(rows["component"] == "all") & rows["layer"].notna()]
    pooled = rows[rows["task"] == "all"] if (rows["task"] == "all").any() else pool_tasks(rows)
    return pooled.sort_values("layer").set_index("layer")["value"].astype(float)
