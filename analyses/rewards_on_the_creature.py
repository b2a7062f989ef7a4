"""What should RL be paid for? The six designs of arXiv 2601.00215 and description fidelity, on the
creature.

    OMP_NUM_THREADS=1 python analyses/rewards_on_the_creature.py --out runs/rewards-study

Every template has its own SFT, with equal data and steps; every design starts from the SFT of its
template and is trained on two puzzles (count, sum); the other three (compare, recognise, read) are
the transfer. Three seeds, resumable. The tables and figures that
`analyses/rewards_on_the_creature.md` reports are written beside this file.
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

from franken import tasks
from franken.evaluate.embed import Embed
from franken.generate.native import Prompt, Sampling, generate
from franken.models.loading import Loaded
from trainer.loop import run_train
from trainer.recipe import Recipe, load_recipe
from trainer.rewards import REWARDS
from trainer.rewards.fidelity import f1
from trainer.study import LOOK_SEED, Look, collect, look_at, run_study, summarise, write_summary
from trainer.templates import DEFAULT

HERE = Path(__file__).parent / "rewards_on_the_creature"
ARMS: dict[str, dict[str, float]] = {
    "only_accuracy": {"only_accuracy": 1.0},
    "vanilla": {"vanilla": 1.0},
    "mixture": {"mixture": 1.0},
    "continuous": {"continuous": 1.0},
    "visual_fusion": {"visual_fusion": 1.0},
    "no_accuracy": {"no_accuracy": 1.0},
    "fidelity": {"fidelity": 1.0},
    "accuracy_fidelity": {"accuracy": 0.8, "fidelity": 0.2},
}
BASELINE = "only_accuracy"
TRAINED, TRANSFER = ("count", "sum"), ("compare", "recognise", "read")
STEPS = 50
LONGEST = 128  # tokens: a description, two chains, an answer, their tags
LOOK = Look(tasks=(*TRAINED, *TRANSFER), every=STEPS, items=40, draws=4, max_new_tokens=LONGEST)
METRICS = ("acc@1", "described")
SFT_STEPS = 700


def main() -> int:
    """Run what is missing, then write tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--report-only", action="store_true", help="use the runs that are complete")
    options = parser.parse_args()
    torch.set_num_threads(1)
    arms = {arm: _recipe(rewards, options.out) for arm, rewards in ARMS.items()}
    if not options.report_only:
        for template in sorted(
            {
                stage.shape
                for recipe in arms.values()
                for stage in recipe.stages
                if stage.kind == "grpo"
            }
        ):
            print(f"SFT, {template}", file=sys.stderr)
            run_train(_sft(template), options.out / "sft" / template)
        say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
        run_study(arms, options.seeds, options.out, LOOK, report=say, measure=look_and_describe)
    looks, updates = collect(arms, options.seeds, options.out)
    HERE.mkdir(exist_ok=True)
    looks.to_parquet(HERE / "looks.parquet", index=False)
    updates.to_parquet(HERE / "training.parquet", index=False)
    found = tables(looks)
    write_summary(found, HERE / "summary.csv")
    draw(found, HERE / "tradeoff.png")
    return 0


def look_and_describe(loaded: Loaded, look: Look, embed: Embed) -> pd.DataFrame:
    """`look_at`, and `described`: the F1 of the facts when the model is asked, greedily, to
    describe the image.

    The same request for every arm, in the words of the lessons that all of them had: perception
    apart from any template.
    """
    answers = look_at(loaded, look, embed)
    scores = []
    for name in look.tasks:
        items = tasks.get(name).items(look.items, LOOK_SEED, "test")
        prompts = [
            Prompt("Describe rows", (item.image,) if item.image else (), item.id) for item in items
        ]
        replies = generate(
            loaded, prompts, Sampling(1, 0.0, look.max_new_tokens, 0), batch_size=look.items
        )
        scores += [
            f1(reply[0].text.strip(), item) for reply, item in zip(replies, items, strict=True)
        ]
    return answers.assign(described=scores)


def tables(looks: pd.DataFrame) -> pd.DataFrame:
    """Per arm, metric and domain (trained, transfer, and each puzzle): the end, its gain over the
    arm's own start, and its difference from `only_accuracy`, each with a 95 % interval paired by
    seed and puzzle."""
    start, end = looks[looks["step"] == 0], looks[looks["step"] == STEPS]
    start = start.assign(arm=start["arm"] + " start", step=STEPS)
    domains = {
        "trained": TRAINED,
        "transfer": TRANSFER,
        **{name: (name,) for name in (*TRAINED, *TRANSFER)},
    }
    made = []
    for domain, names in domains.items():
        rows = pd.concat([start, end])
        rows = rows[rows["task"].isin(names)]
        arms = [arm for arm in ARMS if (rows["arm"] == arm).any()]
        against = summarise(rows, arms, baseline=BASELINE, metrics=METRICS)
        for arm in arms:
            gained = summarise(
                rows, [f"{arm} start", arm], baseline=f"{arm} start", metrics=METRICS
            )
            gained = gained[gained["arm"] == arm].set_index("metric")
            mine = (
                against[against["arm"] == arm]
                .set_index("metric")
                .rename(columns=lambda c: c.replace("minus_", "minus_accuracy_"))
            )
            mine = mine.rename(columns={"minus_accuracy_baseline": "minus_accuracy"})
            mine["gain"], mine["gain_low"], mine["gain_high"] = (
                gained[f"minus_{c}"] for c in ("baseline", "low", "high")
            )
            made.append(mine.reset_index().assign(arm=arm, domain=domain))
    return pd.concat(made, ignore_index=True)


def draw(found: pd.DataFrame, file: Path) -> None:
    """Gains over each arm's own SFT: trained puzzles against transfer, and descriptions, with 95 %
    intervals.
    """
    sns.set_theme(style="whitegrid", context="paper")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    colours = dict(zip(ARMS, sns.color_palette("colorblind", len(ARMS)), strict=True))
    panels = (
        (left, "acc@1", "trained", "acc@1", "transfer"),
        (right, "acc@1", "trained", "described", "transfer"),
    )
    for axis, metric_x, domain_x, metric_y, domain_y in panels:
        for arm, colour in colours.items():
            x, y = (
                _point(found, arm, metric, domain)
                for metric, domain in ((metric_x, domain_x), (metric_y, domain_y))
            )
            if x is None or y is None:
                continue
            axis.errorbar(
                x[0],
                y[0],
                xerr=[[x[1]], [x[2]]],
                yerr=[[y[1]], [y[2]]],
                fmt="o",
                capsize=2,
                color=colour,
                label=arm,
            )
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set(
            xlabel="acc@1 on the trained puzzles, gain over its SFT",
            ylabel=f"{metric_y} on the others, gain over its SFT",
        )
    left.set_title("Accuracy: trained against transfer")
    right.set_title("Accuracy against description (F1 of facts)")
    right.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _point(
    found: pd.DataFrame, arm: str, metric: str, domain: str
) -> tuple[float, float, float] | None:
    rows = found[(found["arm"] == arm) & (found["metric"] == metric) & (found["domain"] == domain)]
    if rows.empty:
        return None
    row = rows.iloc[0]
    return (
        float(row["gain"]),
        float(row["gain"] - row["gain_low"]),
        float(row["gain_high"] - row["gain"]),
    )


def _sft(template: str) -> Recipe:
    changes = (
        f"stages.0.steps={SFT_STEPS}",
        f"stages.0.template={template}",
        f"name=sft-{template}",
    )
    return load_recipe("creature-sft", changes)


def _recipe(rewards: dict[str, float], out: Path) -> Recipe:
    template = next(filter(None, (REWARDS.get(name).template for name in rewards)), DEFAULT)
    changes = (
        f"model={out / 'sft' / template / 'final'}",
        f"stages.0.steps={STEPS}",
        "stages.0.inner_steps=1",
        "stages.0.group=8",
        f"stages.0.max_new_tokens={LONGEST}",
        f"stages.0.rewards={rewards}",
        "stages.0.tasks={count: 1, sum: 1}",
    )
    return load_recipe("creature-grpo", changes)


if __name__ == "__main__":
    sys.exit(main())
