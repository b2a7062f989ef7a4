"""Which edges of attention does the creature need to see, and did RL change which?

    OMP_NUM_THREADS=1 python analyses/inside_the_creature.py RL-0/final RL-1/final RL-2/final \
        --out runs/inside-study

`creature:sft` and each RL checkpoint (`franken train creature-rl --set seed=N`) answer the same
puzzles with attention edges cut in windows of layers (`franken probe --method block:…`); about
three minutes of CPU time a model. Interrupt it and run it again: it goes on where it stopped. The
table and the figure that `analyses/inside_the_creature.md` reports are written beside this file.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import torch

import franken
from franken import stats
from franken.report import theme as look
from franken.report.figures.sheet import name_lines, save, sheet

HERE = Path(__file__).parent
NAME = "inside_the_creature"
TASKS = ("sum", "compare")
SAMPLES = 30
EDGES = {
    "block:image>question": "image to question, two layers",
    "block:image>last": "image to what is written, two layers",
    "block:question>last": "question to what is written, two layers",
    "block-suffix:cells>others": "the cell that matters, from here up",
    "block-suffix:elsewhere>others": "another cell, from here up",
}


def lost(checkpoint: str | Path, out: Path) -> pd.Series:
    """Right answers lost by each cut: 1, 0 or −1, by method, layer, task and question."""
    run = franken.probe(
        checkpoint,
        methods=list(EDGES),
        tasks=TASKS,
        samples=SAMPLES,
        max_new_tokens=48,
        device="cpu",
        out=out,
    )
    rows = run.samples
    if (failed := rows["error"].notna() | rows["ineligible"].notna()).any():
        raise SystemExit(f"{checkpoint}: {failed.sum()} rows without an answer")
    drop = rows["baseline_score"].astype(float) - rows["score"].astype(float)
    keys = [rows[name] for name in ("method", "layer", "task", "sample")]
    return drop.groupby(keys).first().sort_index()


def table(sft: pd.Series, rl: list[pd.Series]) -> pd.DataFrame:
    """Accuracy lost in SFT and, over seeds and questions, in RL; their difference, Holm over the
    layers of a cut.
    """
    rows = []
    for method in EDGES:
        p_values, added = [], []
        for layer in sorted(sft.index.get_level_values("layer").unique()):
            own = sft.xs((method, layer), level=("method", "layer"))
            each = np.stack(
                [one.xs((method, layer), level=("method", "layer")).to_numpy() for one in rl]
            )
            gaps = each - own.to_numpy()
            before = stats.difference(
                np.maximum(-own.to_numpy(), 0), np.maximum(own.to_numpy(), 0), rates=True
            )
            after, gap = stats.crossed_mean(each), stats.crossed_mean(gaps)
            p_values.append(stats.sign_flip_test(gaps.mean(0)))
            row = {"edges": method, "layer": layer, "questions": len(own), "seeds": len(rl)}
            for name, estimate in (("sft", before), ("rl", after), ("difference", gap)):
                row |= dict(
                    zip((name, f"{name}_low", f"{name}_high"), tuple(estimate), strict=True)
                )
            added.append(row)
        for row, p in zip(added, stats.holm(p_values), strict=True):
            rows.append({**row, "p_adjusted": p})
    return pd.DataFrame(rows)


def draw(rows: pd.DataFrame) -> None:
    """A plot a cut: what it costs SFT and RL, by layer."""
    with look.theme():
        figure, axes = sheet(len(EDGES), 3, 3.9, 2.7, extra=0.3)
        for ax, (method, title) in zip(axes, EDGES.items(), strict=False):
            own = rows[rows["edges"] == method]
            for model in ("sft", "rl"):
                tint = look.colour(model)
                ax.plot(own["layer"], 100 * own[model], color=tint, label=look.name(model))
                low, high = 100 * own[f"{model}_low"], 100 * own[f"{model}_high"]
                ax.fill_between(own["layer"], low, high, color=tint, alpha=0.15)
            ax.axhline(0, color=look.LIGHT.muted, linewidth=0.8)
            ax.set_title(title)
            ax.set_xlabel("layer")
            ax.set_ylim(-25, 105)
        axes[0].set_ylabel("accuracy lost, points")
        axes[3].set_ylabel("accuracy lost, points")
        name_lines(figure, axes[0])
        save(figure, HERE / f"{NAME}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="RL, a seed each")
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sft = lost("creature:sft", options.out)
    rl = [lost(checkpoint, options.out) for checkpoint in options.checkpoints]
    rows = table(sft, rl)
    (HERE / NAME).mkdir(exist_ok=True)
    rows.to_csv(HERE / NAME / "edges.csv", index=False, float_format="%.4f")
    draw(rows)
    print(rows.round(3).to_string())


if __name__ == "__main__":
    main()
