"""Does GRPO's diversity collapse, does MUPO prevent it, and which of its parts does it? On the
creature.

    OMP_NUM_THREADS=1 python analyses/mupo_on_the_creature.py --out runs/mupo-study

Seven recipes from the same SFT checkpoint, with the same puzzles, samples and updates, three seeds
each; about half an hour of CPU time on one core. Interrupt it and run it again: it goes on where it
stopped. The tables and figures that `analyses/mupo_on_the_creature.md` reports are written beside
this file.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import seaborn as sns
import torch

from trainer.recipe import load_recipe
from trainer.study import METRICS, Look, collect, run_study, summarise, write_summary

HERE = Path(__file__).parent / "mupo_on_the_creature"
ARMS = {
    "GRPO": "creature-grpo",
    "MUPO": "creature-mupo",
    "MUPO, random clusters": "creature-mupo-random",
    "MUPO, λ = 0": "creature-mupo-clusters",
    "GRPO + diversity reward": "creature-grpo-diversity",
    "GRPO, clip-higher": "creature-grpo-clip-higher",
    "GRPO + entropy bonus": "creature-grpo-entropy",
}
LOOK = Look(tasks=("count", "sum", "compare"), every=10)
TITLES = {
    "acc@1": "acc@1",
    "acc@4": "acc@4",
    "diversity": "diversity (mean cosine distance)",
    "strategies": "strategies per prompt, 8 draws",
    "right_strategies": "strategies that are right, 8 draws",
}


def main() -> int:
    """Run what is missing, then write tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report-only", action="store_true", help="use the runs that are complete")
    options = parser.parse_args()
    torch.set_num_threads(1)
    arms = {recipe.removeprefix("creature-"): load_recipe(recipe) for recipe in ARMS.values()}
    if not options.report_only:
        run_study(
            arms,
            range(options.seeds),
            options.out,
            LOOK,
            report=lambda line: print(line, file=sys.stderr),
        )
    looks, updates = collect(arms, range(options.seeds), options.out)
    HERE.mkdir(exist_ok=True)
    looks.to_parquet(HERE / "looks.parquet", index=False)
    updates.to_parquet(HERE / "training.parquet", index=False)
    summary = summarise(looks, list(arms), baseline="grpo")
    write_summary(summary, HERE / "summary.csv")
    start = looks[looks["step"] == 0]
    write_summary(
        start[list(METRICS)].mean().to_frame("value").reset_index(names="metric"),
        HERE / "start.csv",
    )
    names = {recipe.removeprefix("creature-"): title for title, recipe in ARMS.items()}
    draw_curves(looks.assign(arm=looks["arm"].map(names)), HERE / "curves.png")
    draw_gaps(summary.assign(arm=summary["arm"].map(names)), HERE / "final.png")
    return 0


def draw_curves(looks: pd.DataFrame, file: Path) -> None:
    """Every metric over updates: the mean over seeds, and the band from the lowest to the highest
    seed.
    """
    by_seed = looks.groupby(["arm", "seed", "step"], sort=False)[list(METRICS)].mean().reset_index()
    sns.set_theme(style="whitegrid", context="paper")
    figure, axes = plt.subplots(1, len(METRICS), figsize=(17, 3.6), layout="constrained")
    for axis, metric in zip(axes, METRICS, strict=True):
        sns.lineplot(
            by_seed,
            x="step",
            y=metric,
            hue="arm",
            hue_order=list(ARMS),
            errorbar=("pi", 100),
            ax=axis,
            legend=metric == METRICS[-1],
            err_kws={"alpha": 0.08},
            palette="colorblind",
        )
        axis.set(title=TITLES[metric], xlabel="step", ylabel="")
    sns.move_legend(axes[-1], "center left", bbox_to_anchor=(1.02, 0.5), title="", frameon=False)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def draw_gaps(summary: pd.DataFrame, file: Path) -> None:
    """Each arm minus GRPO at the last step, with 95 % intervals (bootstrap over seeds and puzzles,
    paired).
    """
    sns.set_theme(style="whitegrid", context="paper")
    arms = [arm for arm in ARMS if arm != "GRPO"]
    figure, axes = plt.subplots(
        1, len(METRICS), figsize=(15, 2.8), sharey=True, layout="constrained"
    )
    for axis, metric in zip(axes, METRICS, strict=True):
        rows = summary[summary["metric"] == metric].set_index("arm").loc[arms]
        middle = rows["minus_baseline"]
        spans = [middle - rows["minus_low"], rows["minus_high"] - middle]
        axis.errorbar(middle, range(len(arms)), xerr=spans, fmt="o", capsize=3, color="C0")
        axis.axvline(0, color="grey", linewidth=1)
        axis.set(title=TITLES[metric], xlabel="minus GRPO")
    axes[0].set(yticks=range(len(arms)), yticklabels=arms)
    axes[0].invert_yaxis()
    figure.savefig(file, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
