"""How many tokens carry what RL gained on the creature, and is it the places or the words?

    OMP_NUM_THREADS=1 python analyses/forks_on_the_creature.py RL-0/final RL-1/final RL-2/final \
        --out runs/forks-study

Each RL checkpoint (`franken train creature-rl --set seed=N`) is compared with `creature:sft` by
`franken forks`, with all forks and with one a reply; about four minutes of CPU time each. Interrupt
it and run it again: it goes on where it stopped. The tables and the figure that
`analyses/forks_on_the_creature.md` reports are written beside this file.
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
from franken.evaluate.metrics import per_prompt
from franken.forks.controls import RULES
from franken.report import theme as look
from franken.report.figures.sheet import name_lines, save, sheet

HERE = Path(__file__).parent
NAME = "forks_on_the_creature"
TASKS = ("recognise", "read", "count", "sum", "compare")
SAMPLES, DRAWS = 40, 4
ONE = "one fork"
NAMES = {
    "forks": "where they\npart",
    ONE: "… once\na reply",
    "random": "anywhere",
    "entropy": "where unsure",
    "elsewhere": "forks of\nanother reply",
}
SHOWN = ("fork_share", "forks a reply", "js in top 1 %", "js in top 5 %", "vision_a", "vision_b")


def runs_of(checkpoint: Path, out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(answers, rows of layers.parquet) of one RL checkpoint, both budgets."""
    options = {"tasks": TASKS, "samples": SAMPLES, "draws": DRAWS, "labels": ["sft", "rl"]}
    every = franken.forks("creature:sft", checkpoint, **options, out=out)
    once = franken.forks(
        "creature:sft", checkpoint, **options, budget="1", rules=["forks"], out=out
    )
    answers = once.samples[once.samples["method"] == "forks"].assign(method=ONE)
    return pd.concat([every.samples, answers], ignore_index=True), every.layers


def right(answers: pd.DataFrame, model: str, method: str) -> pd.Series:
    """The share of right draws of every prompt."""
    return per_prompt(
        answers[(answers["model"] == model) & (answers["method"] == method)], "acc@1"
    ).sort_index()


def by_rule(answers: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """Accuracy (interval over seeds and puzzles) and the share of the gain (over puzzles, seeds
    averaged), a row a model and rule.
    """
    rows = []
    for model, other in (("sft", "rl"), ("rl", "sft")):
        ends = [
            np.mean([right(a, m, "own").to_numpy() for a in answers.values()], axis=0)
            for m in (model, other)
        ]
        tasks = right(answers[0], model, "own").index.get_level_values("task").to_numpy()
        for rule in ("own", *NAMES):
            each = np.stack([right(a, model, rule).to_numpy() for a in answers.values()])
            sides = [(*(e[tasks == t] for e in ends), each.mean(0)[tasks == t]) for t in TASKS]
            share = stats.recovered(*(side for three in sides for side in three))
            accuracy = stats.crossed_mean(each)
            shares = [
                (one.mean() - a.mean()) / (b.mean() - a.mean())
                for one, a, b in zip(
                    each,
                    [right(x, model, "own").to_numpy() for x in answers.values()],
                    [right(x, other, "own").to_numpy() for x in answers.values()],
                    strict=True,
                )
            ]
            places = [
                a[(a["model"] == model) & (a["method"] == rule)]["places"].map(_count).mean()
                for a in answers.values()
            ]
            rows.append(
                {
                    "model": model,
                    "rule": rule,
                    "accuracy": accuracy.value,
                    "low": accuracy.low,
                    "high": accuracy.high,
                    "places": float(np.mean(places)),
                    "share": share.value if rule != "own" else np.nan,
                    "share_low": share.low if rule != "own" else np.nan,
                    "share_high": share.high if rule != "own" else np.nan,
                    "lowest_seed": min(shares),
                    "highest_seed": max(shares),
                    "seeds": len(each),
                    "prompts": each.shape[1],
                }
            )
    return pd.DataFrame(rows)


def _count(places: object) -> int:
    return len(places) if isinstance(places, np.ndarray | list) else 0


def of_tokens(layers: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """What the tokens show: the mean of the seeds, the lowest and the highest."""
    rows = pd.concat([t.assign(seed=seed) for seed, t in layers.items()])
    rows = rows[(rows["task"] == "all") & (rows["method"] == "own")]
    kinds = rows["metric"].isin(["share_of_js", "share_of_tokens"]) & (rows["component"] != "all")
    whole = rows["metric"].isin(SHOWN) & (rows["component"] == "all")
    at = rows["metric"].str.startswith("vision") & rows["component"].isin(["at forks", "elsewhere"])
    favourites = rows["metric"].isin(["b_among_a's_5"])
    rows = rows[kinds | whole | at | favourites]
    of = rows.groupby(["component", "metric", "model"], sort=False)["value"]
    return of.agg(["mean", "min", "max", "count"]).reset_index()


def draw(layers: dict[int, pd.DataFrame], rules: pd.DataFrame) -> None:
    """The curve of each seed, and what every rule recovers."""
    with look.theme():
        figure, axes = sheet(2, 2, 5.4, 3.4, extra=0.3)
        for model in ("sft", "rl"):
            for seed, table in layers.items():
                rows = table[
                    (table["model"] == model) & table["metric"].str.startswith("js in top")
                ]
                at = rows["metric"].str.extract(r"top ([\d.]+) %")[0].astype(float)
                label = look.name(model) if seed == 0 else None
                axes[0].plot(
                    at, 100 * rows["value"], color=look.colour(model), alpha=0.7, label=label
                )
        axes[0].set_xscale("log")
        axes[0].set_xticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
        axes[0].minorticks_off()
        axes[0].set_xlabel("tokens at which they differ most, %")
        axes[0].set_ylabel("of all divergence, %; a line a seed")
        for number, model in enumerate(("sft", "rl")):
            rows = rules[(rules["model"] == model) & (rules["rule"] != "own")]
            at = np.arange(len(rows)) + 0.35 * number - 0.18
            tint = look.colour(model)
            axes[1].bar(at, 100 * rows["share"], 0.32, color=tint, alpha=0.75)
            axes[1].vlines(at, 100 * rows["share_low"], 100 * rows["share_high"], color=tint)
        for level in (0, 100):
            axes[1].axhline(level, color=look.LIGHT.muted, linewidth=0.8)
        axes[1].set_xticks(range(len(NAMES)), NAMES.values(), fontsize=7)
        axes[1].set_ylabel("of the difference of SFT and RL, %")
        name_lines(figure, axes[0], note="replies of")
        save(figure, HERE / f"{NAME}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="RL, a seed each")
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    answers: dict[int, pd.DataFrame] = {}
    layers: dict[int, pd.DataFrame] = {}
    for seed, checkpoint in enumerate(options.checkpoints):
        answers[seed], layers[seed] = runs_of(checkpoint, options.out)
        print(f"{checkpoint}: compared", flush=True)
    rules, tokens = by_rule(answers), of_tokens(layers)
    (HERE / NAME).mkdir(exist_ok=True)
    rules.to_csv(HERE / NAME / "rules.csv", index=False, float_format="%.4f")
    tokens.to_csv(HERE / NAME / "tokens.csv", index=False, float_format="%.4f")
    draw(layers, rules)
    print(rules.to_string(), tokens.to_string(), sep="\n\n")


if __name__ == "__main__":
    assert set(NAMES) == {*RULES, ONE}
    main()
