"""How little of RL's update is enough, and how little is needed? On the creature, several training
seeds.

    OMP_NUM_THREADS=1 python analyses/surgery_on_the_creature.py --out runs/surgery-study

Every seed trains RL from the shipped SFT (recipe creature-rl), then `merge-sweep --along` tries
parts of its update. Resumable. The table and the figure that `analyses/surgery_on_the_creature.md`
reports are written beside this file. `--runs FOLDER …` reads sweeps that exist instead.
"""

import argparse
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from franken import stats
from franken.merge.parts import DROP, KEEP, parse_part
from franken.report import theme as look
from franken.report.figures.sheet import name_lines, save, sheet
from franken.report.figures.surgery import kinds_of, plot_curves
from franken.runs import load_run
from franken.study.surgery import plan_surgery, run_surgery
from trainer.loop import run_train
from trainer.recipe import load_recipe

HERE = Path(__file__).parent / "surgery_on_the_creature"
TASKS = ("count", "sum", "compare")  # those that RL changes; it answers the others already
RANKS, SHARES = (1, 2, 4, 8, 16, 32), (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
ALONG = ("rank", "top", "sign", "norms", "random")


def main() -> None:
    """Run what is missing, then write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/surgery-study"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3])
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="sweeps that exist")
    options = parser.parse_args()
    folders = options.runs or [swept(seed, options.out) for seed in options.seeds]
    rows = pd.concat([load_run(folder).layers.assign(seed=i) for i, folder in enumerate(folders)])
    HERE.mkdir(exist_ok=True)
    rows.to_csv(HERE / "rows.csv", index=False, float_format="%.5f")
    table(rows).to_csv(HERE / "summary.csv", index=False, float_format="%.3f")
    draw(rows)


def swept(seed: int, out: Path) -> Path:
    """The sweep over one seed's update."""
    recipe = load_recipe("creature-rl", overrides=(f"seed={seed}",))
    trained = run_train(recipe, out / f"rl-{seed}")
    surgery = plan_surgery(
        "creature:sft", str(trained), along=ALONG, ranks=RANKS, shares=SHARES, controls=2
    )
    return run_surgery(surgery, out=out / str(seed), tasks=TASKS, samples=60)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """The share of RL's gain by part, the mean over seeds with Student's interval over seeds."""
    shares = rows[rows["metric"].isin(["recovered", "redundancy"])]
    made = []
    for (part, method), own in shares.groupby(["component", "method"], sort=False):
        by_seed = own.groupby("seed")["value"].mean()
        value, low, high = stats.mean(by_seed.to_numpy())
        made.append((part, method, value, low, high, len(by_seed)))
    return pd.DataFrame(made, columns=["part", "method", "value", "ci_low", "ci_high", "seeds"])


def draw(rows: pd.DataFrame) -> None:
    """Both curves over the seeds' means; bars are 95 % intervals over seeds."""
    summary = table(rows)
    named = summary.assign(
        model=[model_of(p, m) for p, m in zip(summary["part"], summary["method"], strict=True)],
        component=summary["part"],
        metric=["redundancy" if m == "both" else "recovered" for m in summary["method"]],
    )
    with look.theme():
        kinds = kinds_of(named)
        figure, axes = sheet(len(kinds), 3, 4.3, 3.2, sharey=True)
        for ax, kind in zip(axes, kinds, strict=True):
            plot_curves(named, kind, ax=ax)
        axes[0].set_ylabel("of RL's gain, %")
        name_lines(figure, axes[0])
        save(figure, HERE / "curves.png", dpi=160)


def model_of(part: str, method: str) -> str:
    """The label that the figure knows a curve by."""
    how = KEEP if method.endswith(KEEP) else DROP
    if not method.startswith("random"):
        return f"{how} {part}"
    own = parse_part(part)
    null = {"rank": "random-rank", "top": "random"}[own.kind]
    return f"{how} {null}{str(own)[len(own.kind) :]} #1"


if __name__ == "__main__":
    main()
