"""`franken train` and `franken freeze-train`."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from franken.cli.options import DryRun, Json, split_list
from franken.console import print_freeze_table, print_object, training_lines
from franken.errors import UsageError


def train(
    recipe: Annotated[str, typer.Argument(help="A .yaml file, or the name of a built-in recipe.")] = "",
    out: Annotated[Path | None, typer.Option(help="The training run's own folder.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, e.g. stages.0.steps=5.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name the built-in recipes.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the resolved recipe.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Train a recipe: SFT and GRPO stages. The same command resumes."""
    return _train(recipe, (), out, set_ or [], dry_run, json, list_=list_, show=show)


def freeze_train(
    recipe: Annotated[str, typer.Argument(help="A .yaml file, or the name of a built-in recipe.")],
    freeze: Annotated[
        str, typer.Option(help="vision, projector, embed, head, norm, text:0-3, early, re:PATTERN; with commas.")
    ],
    out: Annotated[Path | None, typer.Option(help="The training run's own folder.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, e.g. stages.0.steps=5.")] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Was it necessary? Train with layers frozen, and prove that they did not move."""
    return _train(recipe, tuple(split_list(freeze)), out, set_ or [], dry_run, json)


def _train(
    name: str, freeze: tuple[str, ...], out: Path | None, overrides: list[str], dry_run: bool, json: bool,
    *, list_: bool = False, show: bool = False,
) -> int:  # fmt: skip
    from trainer.stages import load_recipe, recipe_names

    if list_:
        return print_object({"recipes": recipe_names()}, json)
    if not name:
        raise UsageError("no recipe given", why="train needs one", fix="franken train --list names the built-in ones")
    recipe = load_recipe(name, tuple(overrides))
    if show:
        return print_object(recipe.model_dump(mode="json"), True)
    from trainer.loop import plan, run_train

    if dry_run or (freeze and not json):
        stages = plan(recipe, freeze)
        if json:
            return print_object({"recipe": recipe.name, "stages": stages}, json)
        for stage in stages:
            print(f"{stage['kind']}, {stage['length']}, frozen: {', '.join(stage['freeze']) or 'nothing'}")
            print_freeze_table(stage["table"])
        if dry_run:
            return 0
    if out is None:
        raise UsageError("no --out given", why="a training run needs its own folder", fix="add --out DIR")
    final = run_train(recipe, out, freeze=freeze, report=None if json else training_lines())
    if json:
        return print_object({"final": str(final), "run": json_module.loads((out / "train.json").read_text())}, json)
    if freeze:
        proofs = json_module.loads((out / "freeze.json").read_text()).values()
        print(f"{sum(p['verified']['tensors'] for p in proofs)} frozen tensors are bit-identical to before")
    print(f"trained checkpoint: {final}")
    return 0
