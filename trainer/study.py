"""Comparing recipes: every arm with every seed, looked at on held-out puzzles while it trains.
Resumable.

    out/train/<arm>-<seed>/      the training runs, without checkpoints once complete
        looks/step-<n>.parquet   a row a held-out puzzle: how many draws were right, how they differ
    out/looks.parquet            all looks in one table
    out/training.parquet         all updates in one table

Arms see the same puzzles in the same order, and every look asks the same puzzles with the same
random draws, so that arms are compared paired. Finished runs and finished looks are not done again.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from franken import tasks
from franken.evaluate.embed import Embed, embedder, segment
from franken.generate.native import Response, Sampling, generate
from franken.models.loading import Loaded
from franken.runs import TrainingRun, atomic_write_text, write_parquet
from franken.stats import acc_at_k, crossed_mean
from franken.tasks import Item
from trainer.algorithms.diversity import pairwise_diversity
from trainer.checkpoint_files import Position
from trainer.evaluate import asked_with
from trainer.loop import run_train
from trainer.public import held_out_items
from trainer.recipe import Recipe

METRICS = ("acc@1", "acc@4", "diversity", "strategies", "right_strategies")
LOOK_SEED = 77


@dataclass(frozen=True)
class Look:
    """What is asked at a look: `items` held-out puzzles of every task, or the `held_out` rows of
    `data`, after `request`.

    Of each, `draws` samples at temperature one.
    """

    tasks: tuple[str, ...]
    every: int
    items: int = 40
    draws: int = 8
    max_new_tokens: int = 48
    data: str = ""
    held_out: int = 0
    request: str = ""


Measure = Callable[[Loaded, Look, Embed], pd.DataFrame]
"""(model, look, embedder) → a row a puzzle, with `task`, `item` and the measured columns."""


def run_study(
    arms: dict[str, Recipe],
    seeds: Sequence[int],
    out: Path,
    look: Look,
    *,
    report: Callable[[str], None] | None = None,
    keep: Sequence[str] = (),
    starts: Sequence[str] | None = None,
    measure: Measure | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run what is missing, seed by seed, and return (looks, updates). A recipe has one stage,
    counted in steps.

    Trained checkpoints are removed, except those of the arms in `keep`. The looks before the first
    update, which are of one model, are those of the arms in `starts`, by default of all. `measure`
    makes the rows of a look; `look_at` is the usual one.
    """
    embed, measure = embedder(), measure or look_at
    for seed in seeds:
        for arm, recipe in arms.items():
            folder = out / "train" / f"{arm}-{seed}"
            if not TrainingRun(folder).is_complete():
                if report:
                    report(f"{arm}, seed {seed}")
                run_train(
                    recipe.model_copy(update={"seed": seed}),
                    folder,
                    observe=_looker(
                        folder, look, embed, measure, start=starts is None or arm in starts
                    ),
                )
                for heavy in ("state",) if arm in keep else ("state", "final"):
                    shutil.rmtree(folder / heavy)
    looks, updates = collect(arms, seeds, out)
    looks.to_parquet(out / "looks.parquet", index=False)
    updates.to_parquet(out / "training.parquet", index=False)
    return looks, updates


def collect(
    arms: Iterable[str], seeds: Sequence[int], out: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of all finished runs: looks (arm, seed, step, task, item, …) and updates (arm,
    seed, step, metrics).
    """
    looks, updates = [], []
    for seed in seeds:
        for arm in arms:
            folder = out / "train" / f"{arm}-{seed}"
            run = TrainingRun(folder)
            if not run.is_complete():
                continue
            for file in sorted((folder / "looks").glob("step-*.parquet")):
                looks.append(
                    pd.read_parquet(file).assign(
                        arm=arm, seed=seed, step=int(file.stem.split("-")[1])
                    )
                )
            lines = [update.stored() for update in run.updates]
            updates.append(pd.DataFrame(lines).assign(arm=arm, seed=seed))
    return pd.concat(looks, ignore_index=True), pd.concat(updates, ignore_index=True)


def look_at(loaded: Loaded, look: Look, embed: Embed) -> pd.DataFrame:
    """One row a puzzle: acc@1 and acc@4 (unbiased, of `draws`), the mean pairwise cosine distance
    of the reasoning, and the number of distinct strategies among all draws and among the right ones
    (of data, unknown)."""
    rows = []
    questions = [tasks.get(name).items(look.items, LOOK_SEED, "test") for name in look.tasks]
    if look.data:
        questions.append(held_out_items(look.data, look.held_out))
    for items in questions:
        prompts = [asked_with(look.request, item) for item in items]
        drawn = generate(
            loaded,
            prompts,
            Sampling(look.draws, 1.0, look.max_new_tokens, LOOK_SEED),
            batch_size=64 if look.data else look.draws * look.items,
        )
        rows += [_row(item, replies, embed) for item, replies in zip(items, drawn, strict=True)]
    return pd.DataFrame(rows)


def summarise(
    looks: pd.DataFrame,
    arms: Sequence[str],
    *,
    baseline: str,
    metrics: Sequence[str] = METRICS,
) -> pd.DataFrame:
    """Per arm and metric at the last step: mean, 95 % interval, and the same for arm − `baseline`.

    Seeds and puzzles are both draws (`stats.crossed_mean`); differences are paired by seed and
    puzzle. `by_seed` holds each seed's mean.
    """
    at: Any = looks[looks["step"] == looks["step"].max()]
    seeds = sorted(set(at["seed"]))
    count = at[(at["arm"] == arms[0]) & (at["seed"] == seeds[0])].shape[0]
    rows = []
    for metric in metrics:
        table = {arm: _table(at, arm, metric, seeds) for arm in arms}
        for arm in arms:
            value, gap = table[arm], table[arm] - table[baseline]
            _, low, high = crossed_mean(value)
            _, gap_low, gap_high = crossed_mean(gap)
            rows.append(
                {
                    "arm": arm,
                    "metric": metric,
                    "value": value.mean(),
                    "low": low,
                    "high": high,
                    "minus_baseline": gap.mean(),
                    "minus_low": gap_low,
                    "minus_high": gap_high,
                    "by_seed": json.dumps([round(float(v), 4) for v in value.mean(1)]),
                    "seeds": len(seeds),
                    "n": count,
                }
            )
    return pd.DataFrame(rows)


def _looker(
    folder: Path, look: Look, embed: Embed, measure: Measure, *, start: bool
) -> Callable[[Position, Loaded], None]:
    def observe(position: Position, loaded: Loaded) -> None:
        file = folder / "looks" / f"step-{position.step:04d}.parquet"
        if position.step % look.every or not (position.step or start) or file.exists():
            return
        file.parent.mkdir(exist_ok=True)
        write_parquet(measure(loaded, look, embed), file)

    return observe


def _row(item: Item, replies: list[Response], embed: Embed) -> dict[str, object]:
    right = [tasks.grade(r.text, item).score == 1 for r in replies]
    used = (
        [tasks.get(item.task).strategy(r.text) for r in replies]
        if tasks.is_puzzle(item.task)
        else []
    )
    vectors = embed([segment(r.text) for r in replies])
    count = sum(right)
    return {
        "task": item.task,
        "item": item.id,
        "right": count,
        "draws": len(replies),
        "acc@1": acc_at_k(len(replies), count, 1),
        "acc@4": acc_at_k(len(replies), count, 4),
        "diversity": float(pairwise_diversity(vectors[None]).mean()),
        "strategies": float(len(set(used))) if used else math.nan,
        "right_strategies": float(len({s for s, ok in zip(used, right, strict=True) if ok}))
        if used
        else math.nan,
    }


def _table(at: Any, arm: str, metric: str, seeds: Sequence[int]) -> NDArray[np.float64]:
    """`[seeds, puzzles]` of one arm, puzzles in one order."""
    mine = at[at["arm"] == arm].sort_values(["task", "item"])
    return np.stack([mine.loc[mine["seed"] == seed, metric].to_numpy(float) for seed in seeds])


def write_summary(summary: pd.DataFrame, file: Path) -> None:
    """The summary as CSV, rounded to four places."""
    atomic_write_text(file, summary.round(4).to_csv(index=False))
