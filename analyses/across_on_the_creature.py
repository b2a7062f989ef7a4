"""Which layers carry what RL made of the creature? Stitching and patching across models, over
several seeds of RL.

    franken train creature-rl --seed 0 --out runs/rl-0        # and 1, 2, …: about 5 minutes each
    python analyses/across_on_the_creature.py runs/rl-0 runs/rl-1 runs/rl-2

Each seed's last checkpoint is probed against creature:sft (`franken probe RL --against SFT --method
stitch,across`), on held-out puzzles that are the same for all. Shares of the divergence are means
over the prompts at which the two models differ, then over tasks, then seeds, with Student's
interval over seeds; accuracies are paired by prompt, with the interval of an analysis of variance
over seeds and prompts. Resumes; writes the figure beside this file and prints the tables of the
page.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import franken
from franken import stats
from franken.report import theme as look
from franken.report.figures import plots

TASKS = ("count", "sum", "compare")
SAMPLES = 40
HERE = Path(__file__).with_suffix("")
STITCHES = {"stitch-below": "RL up to this layer", "stitch-above": "RL from this layer on"}
GROUPS = ("question", "image", "answer", "last", "all")


def probed(runs: list[Path]) -> pd.DataFrame:
    """The samples of all seeds, one below the other."""
    tables = []
    for seed, run in enumerate(runs):
        made = franken.probe(
            run / "final",
            against="creature:sft",
            methods=["stitch", "across"],
            tasks=TASKS,
            samples=SAMPLES,
            out=HERE / "runs",
            device="cpu",
        )
        tables.append(made.samples.assign(seed=seed))
    return pd.concat(tables, ignore_index=True)


def over_seeds(rows: pd.DataFrame, column: str) -> stats.Estimate:
    """Mean over prompts, then tasks, then seeds, with the interval over seeds."""
    by_seed = rows.groupby(["seed", "task"])[column].mean().groupby("seed").mean()
    return stats.mean(by_seed.to_numpy(float))


def gain(rows: pd.DataFrame) -> stats.Estimate:
    """Accuracy over SFT's, greedy, with the interval over seeds and prompts."""
    won = rows.assign(won=rows["score"].astype(float) - rows["baseline_score"].astype(float))
    return stats.crossed_mean(won.pivot(index="seed", columns="sample", values="won").to_numpy())


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a method, what is measured and layer: value, interval, and of how many prompts."""
    measured = []
    for (method, layer), cell in rows.groupby(["method", "layer"]):
        columns = {"restored": "restored"} if method in STITCHES else {}
        if method not in STITCHES:
            columns = {f"effect_{group}": group for group in GROUPS}
        for column, name in columns.items():
            known = cell[cell[column].notna()]
            if len(known):
                value = over_seeds(known, column)
                measured.append((method, name, layer, *value, len(known)))
        if method in STITCHES:
            measured.append((method, "gain", layer, *gain(cell), len(cell)))
    columns = ["method", "metric", "layer", "value", "ci_low", "ci_high", "n"]
    return pd.DataFrame(measured, columns=columns)


def draw(found: pd.DataFrame, depth: int, seeds: int) -> None:
    """Shares and gains by layer, beside each other."""
    from matplotlib.figure import Figure

    with look.theme():
        figure = Figure(figsize=(11, 3.9), layout="constrained")
        axes = figure.subplots(1, 3)
        for method, name in STITCHES.items():
            tint = look.colour("rl" if method == "stitch-below" else "sft")
            for ax, metric in zip(axes, ("restored", "gain"), strict=False):
                own = found[(found["method"] == method) & (found["metric"] == metric)]
                plots.draw_line(ax, own, tint, name)
        for group, tint in (("last", look.colour("rl")), ("question", look.colour("base"))):
            own = found[(found["method"] == "across-residual") & (found["metric"] == group)]
            plots.draw_line(axes[2], own, tint, f"RL's stream at the {group} token(s)")
        titles = ("Share of the divergence restored", "Accuracy gained over SFT", "Patched")
        for ax, title in zip(axes, titles, strict=True):
            plots.layer_axis(ax, depth, look.LIGHT)
            ax.set_title(title)
            ax.axhline(0, color=look.LIGHT.muted, linewidth=0.8)
            ax.margins(y=0.16)
            ax.legend(fontsize=7, loc="lower right")
        axes[0].set_ylabel("% (95 % over seeds)")
        figure.suptitle(f"What RL's layers bring back in SFT ({seeds} seeds)")
        figure.savefig(HERE.with_suffix(".png"), dpi=150)


def spelled(value: float, low: float, high: float) -> str:
    """In percent, with its interval."""
    inside = "" if np.isnan(low) else f" [{100 * low:.0f}, {100 * high:.0f}]"
    return f"{100 * value:.0f}{inside}"


def main(folders: list[str]) -> None:
    """Probe, summarise, print and draw."""
    rows = probed([Path(folder) for folder in folders])
    rows = rows[rows["error"].isna()]
    found = table(rows)
    found.to_csv(HERE / "layers.csv", index=False)
    for method, part in found.groupby("method", sort=False):
        wide = part.assign(
            text=[spelled(*v) for v in part[["value", "ci_low", "ci_high"]].to_numpy(float)]
        ).pivot(index="layer", columns="metric", values="text")
        print(f"\n{method}\n\n| layer | " + " | ".join(wide.columns) + " |")
        print("|---" * (1 + len(wide.columns)) + "|")
        for layer, line in wide.iterrows():
            print(f"| {layer} | " + " | ".join(line.fillna("-")) + " |")
    one = rows[(rows["method"] == "stitch-below") & (rows["layer"] == rows["layer"].max())]
    for task, cell in one.groupby("task"):
        forks = (cell["compared_at"] == "fork").mean()
        agreed = cell["restored"].isna().mean()
        print(
            f"{task}: {100 * forks:.0f} % of {len(cell)} fork, {100 * agreed:.0f} % agree", end=""
        )
        before, after = cell["baseline_score"].mean(), cell["score"].mean()
        print(f"; greedy accuracy SFT {100 * before:.0f}, RL {100 * after:.0f}")
    draw(found, int(rows["layer"].max()) + 1, len(folders))


if __name__ == "__main__":
    main(sys.argv[1:])
