"""Does RL turn the creature's weights, or stretch them, more than other updates of the same norm?
Several training seeds.

    OMP_NUM_THREADS=1 python analyses/geometry_of_the_creature.py RL-0 RL-1 RL-2 …

Each argument is a checkpoint of RL from the shipped SFT. `geometry_of_the_creature/summary.csv` has
the mean over seeds of every measure of `franken diff --principal`, beside a random update and
SFT's of the same norm, with the paired differences and Student's intervals over seeds.
"""

import argparse
from pathlib import Path

import pandas as pd

from franken import stats
from franken.diff.plan import plan_diff
from franken.diff.principal import OWN
from franken.diff.run import DiffOptions, run_diff
from franken.runs import load_run

HERE = Path(__file__).parent / "geometry_of_the_creature"
K = 8  # of the 32 to 128 directions of a matrix


def main() -> None:
    """Compare each seed, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", help="RL, one a seed")
    parser.add_argument("--out", type=Path, default=Path("runs/geometry-study"))
    options = parser.parse_args()
    seeds = [measured(path, seed, options.out) for seed, path in enumerate(options.checkpoints)]
    HERE.mkdir(exist_ok=True)
    table(pd.DataFrame(seeds)).to_csv(HERE / "summary.csv", index=False, float_format="%.6g")


def measured(path: str, seed: int, out: Path) -> "pd.Series[float]":
    """Every measure of SFT → RL, the mean over the text layers."""
    plan = plan_diff(["creature:base", "creature:sft", path])
    options = DiffOptions(principal=True, k=K, seed=seed)
    rows = load_run(run_diff(plan, out=out / str(seed), options=options)).layers
    own = rows[(rows["method"] == "sft→rl") & (rows["part"] == "text") & rows["layer"].notna()]
    own = own[own["component"] == "all"]
    return own.groupby("metric")["value"].mean()


def table(seeds: pd.DataFrame) -> pd.DataFrame:
    """A row per measure and comparison: both means, and their difference by seed."""
    made = []
    for name in OWN:
        for null in ("random", "sft"):
            before, after = seeds[f"{name}_{null}"].to_numpy(), seeds[name].to_numpy()
            found = stats.difference(before, after)
            made.append((name, null, after.mean(), before.mean(), *found, len(seeds)))
    columns = ["measure", "null", "rl", "null_value", "difference", "ci_low", "ci_high", "seeds"]
    return pd.DataFrame(made, columns=columns)


if __name__ == "__main__":
    main()
