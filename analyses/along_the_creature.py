"""The way of RL on the creature, and what one layer is worth: the figure of along_the_creature.md.

    for s in 0 1 2; do
        franken train creature-rl --out rl-$s --set seed=$s --set 'keep={every: 5}' \
            --set stages.0.eval_every=10
    done
    franken diff creature:sft --along rl-0 --along rl-1 --along rl-2 --spectra
    franken freeze-train creature-rl --arms each --train arms --seeds 3 \
        --set stages.0.steps=60 --set stages.0.eval_every=null --out one-layer
    python analyses/along_the_creature.py runs/trajectory/rl-0-and-others-… one-layer
"""

import sys
from pathlib import Path

import pandas as pd

from franken.report import theme as look
from franken.report.behaviour import behaviour
from franken.report.figures.along import (
    plot_behaviour,
    plot_coefficient,
    plot_distance,
    plot_layers,
)
from franken.report.figures.layer_worth import plot_measure
from franken.report.figures.sheet import save, sheet
from franken.runs import load_run, open_runs

MEASURES = ("alone", "graft", "revert", "energy", "stitch")


def main(trajectory: Path, study: Path) -> None:
    """Draw the trajectory above and the layers below, into along_the_creature.png."""
    run = load_run(trajectory)
    known = behaviour(run, open_runs(trajectory.parents[1]))
    table = pd.read_csv(study / "layers.csv")
    with look.theme():
        figure, axes = sheet(9, 3, 4.2, 2.9)
        plot_distance(run, ax=axes[0])
        plot_coefficient(run, ax=axes[1])
        plot_behaviour(run, known, ax=axes[2])
        plot_layers(run, "rank_one_share", "rank-1 share", ax=axes[3])
        for ax in axes[:3]:
            ax.legend(fontsize=6.5)
        for ax, name in zip(axes[4:], MEASURES, strict=True):
            plot_measure(ax, table[table["measure"] == name], name)
        save(figure, Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
