"""`franken.train`: SFT, GRPO, MUPO, with any layers frozen. The one way from here to `trainer`."""

from collections.abc import Sequence
from pathlib import Path

from franken.runs import TrainingRun
from trainer.loop import run_train
from trainer.recipe import load_recipe


def train(
    recipe: str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    freeze: Sequence[str] = (),
    train: Sequence[str] = (),
) -> TrainingRun:
    """Train a recipe (a name of `franken train --list`, or a YAML file) into `out`; the same call
    resumes.

    >>> short = ["stages.0.steps=1", "stages.0.prompts=2", "stages.0.group=2"]
    >>> run = franken.train("creature-rl", "runs/rl", overrides=short, freeze=["text:0-4"])
    >>> run.manifest.updates, run.frozen_layers()
    (1, [0, 1, 2, 3])
    >>> "reward" in run.metrics()
    True

    `overrides` are `key=value`, as after `--set`. `freeze` adds to what every stage freezes;
    `train` is instead of it: only what it names trains. `final` of the result is the trained
    checkpoint, `updates` its log, `proofs` show that what was frozen is bit-identical. Raises
    UsageError for a recipe that cannot be, or where `out` holds something else.
    """
    made = load_recipe(str(recipe), tuple(overrides))
    run_train(made, Path(out), freeze=tuple(freeze), train=tuple(train))
    return TrainingRun(out)
