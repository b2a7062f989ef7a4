"""Perception or reasoning, in the creature: Base, SFT and RL, each asked with more or less beside
the question.

    franken train creature-rl --out RL                                   # about a minute of CPU
                                                            time
    python analyses/perception_of_the_creature.py RL/final --out OUT     # some minutes; the same
                                                            command resumes

Writes the evaluations and their comparison below OUT, copies the figure to analyses/perception.png,
and ends with the numbers that the README quotes.
"""

import argparse
import shutil
from pathlib import Path

from franken.evaluate.compare import compare_runs
from franken.evaluate.run import run_eval
from franken.report.figures.comparison import draw_eval
from franken.runs import load_run

ARMS = (
    "image",
    "text",
    "both",
    "blind",
    "corrupted",
    "conflict",
    "black",
    "black-text",
    "restyled",
    "describe",
)
SAMPLES, N = 40, 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rl", help="the checkpoint that creature-rl ended in")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    folders = run_eval(
        ["creature:base", "creature:sft", given.rl],
        labels=["Base", "SFT", "RL"],
        arms=ARMS,
        samples=SAMPLES,
        n=N,
        k=(1, 2, 4),
        out=given.out,
    )
    compared = compare_runs(folders, out=given.out)
    draw_eval(compared)
    shutil.copy(compared / "figures" / "perception.png", Path(__file__).with_name("perception.png"))
    rows = load_run(compared).layers
    rows = rows[
        (rows["task"] == "all") & ~rows["metric"].str.contains(r"@[234]|strategy", regex=True)
    ]
    print(
        rows[
            ["model", "method", "metric", "value", "ci_low", "ci_high", "n", "p_adjusted"]
        ].to_string(index=False)
    )


if __name__ == "__main__":
    main()
