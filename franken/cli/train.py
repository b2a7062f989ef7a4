"""`franken train` and `franken freeze-train`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from franken.cli.options import DryRun, Json, split_list
from franken.console import Frozen, print_freeze_table, print_object, print_table, training_lines
from franken.errors import UsageError
from franken.outputs import output_folder

if TYPE_CHECKING:
    from franken.runs.training import FrozenRow
    from trainer.recipe import Recipe

Freeze = Annotated[
    str,
    typer.Option(
        help="vision, projector, embed, head, norm, text:0-3, text.attn, early, re:PATTERN; "
        "with commas."
    ),
]
Train = Annotated[
    str, typer.Option(help="Only this trains, whatever the recipe says; in the words of --freeze.")
]


ARMS = "arms"  # in place of a spec of --train: what --arms names


def train(
    recipe: Annotated[
        str, typer.Argument(help="A .yaml file, or the name of a built-in recipe.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="The training run's own folder.")] = None,
    freeze: Freeze = "",
    train: Train = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, e.g. stages.0.steps=5.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name the built-in recipes.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the resolved recipe.")] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only estimate memory, disk and time; refuse what cannot fit."),
    ] = False,
    device_memory: Annotated[
        float | None, typer.Option(help="With --plan: a device of so many GiB instead of this one.")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="With --plan: over so many processes of torchrun.")
    ] = 1,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write OUT/tensorboard as well.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Train a recipe: SFT and GRPO stages. The same command resumes."""
    if list_:
        return _list(json)
    if plan:
        return _plan(recipe, freeze, train, out, set_ or [], device_memory, processes, json)
    return _train(
        recipe,
        freeze,
        train,
        out,
        set_ or [],
        dry_run,
        json,
        show=show,
        tensorboard=tensorboard,
    )


def freeze_train(
    recipe: Annotated[str, typer.Argument(help="A .yaml file, or the name of a built-in recipe.")],
    freeze: Freeze = "",
    train: Train = "",
    arms: Annotated[
        str,
        typer.Option(
            help="A study: early, middle, late, 2-5, each, random:3, complement; with commas. "
            "Plain RL is always one. With --train arms they train alone, instead of being frozen."
        ),
    ] = "",
    layers: Annotated[
        str, typer.Option(help="With --arms each: only these layers of the decoder, as 4-8.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of a study.")] = 3,
    items: Annotated[
        int, typer.Option(min=1, help="Held-out puzzles a task that a study asks.")
    ] = 40,
    out: Annotated[Path | None, typer.Option(help="The training run's own folder.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, e.g. stages.0.steps=5.")
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Was it necessary? Train with layers frozen, and prove that they did not move; or study many
    sets with --arms.
    """
    trained = bool(arms) and train == ARMS
    if bool(freeze or (train and not trained)) == bool(arms):
        raise UsageError(
            "give --freeze or --train for one run, or --arms for a study",
            fix="--arms early,middle,late,random:3",
        )
    if arms:
        return _study(
            recipe,
            split_list(arms),
            seeds,
            items,
            out,
            set_ or [],
            dry_run,
            json,
            layers=layers,
            trained=trained,
        )
    return _train(recipe, freeze, train, out, set_ or [], dry_run, json)


def _list(json: bool) -> int:
    """A line for every built-in recipe: its name and what its file says first."""
    from trainer.recipe_files import describe, recipe_groups, recipe_names

    recipes = {name: describe(name) for name in recipe_names()}
    if json:
        return print_object({"recipes": recipes}, True)
    width = max(map(len, recipes))
    for group, names in recipe_groups().items():
        print(f"{group}:")
        for name in names:
            print(f"  {name:{width}}  {recipes[name]}")
    return 0


def _plan(
    name: str,
    frozen: str,
    trained: str,
    out: Path | None,
    overrides: list[str],
    memory: float | None,
    processes: int,
    json: bool,
) -> int:
    from franken.cli.train_plan import print_plan
    from trainer.plan import memory_plan, refuse_what_cannot_fit
    from trainer.recipe import load_recipe, with_trained
    from trainer.rounding import warn_of_lost_updates
    from trainer.row_rules import failing_rows

    recipe = with_trained(
        load_recipe(name, tuple(overrides)), tuple(split_list(frozen)), tuple(split_list(trained))
    )
    warn_of_lost_updates(recipe)
    plan = memory_plan(recipe, out=out, memory=memory, processes=processes)
    if json:
        print_object({**asdict(plan), "failing_rows": failing_rows(recipe)}, True)
    else:
        print_plan(plan)
        _print_failing(recipe)
    refuse_what_cannot_fit(plan)
    return 0


def _print_failing(recipe: "Recipe") -> None:
    """Rows of a recipe's data that cannot be asked, among the first ones."""
    from trainer.row_rules import CHECKED, failing_rows

    for data, errors in failing_rows(recipe).items():
        print(f"of the first {CHECKED} rows of {data}, {sum(errors.values())} fail:")
        for why, count in errors.items():
            print(f"  {count}  {why}")


def _study(
    name: str,
    arms: list[str],
    seeds: int,
    items: int,
    out: Path | None,
    overrides: list[str],
    dry_run: bool,
    json: bool,
    *,
    layers: str,
    trained: bool,
) -> int:
    from trainer.freeze_study import depth_of, plan_arms, run_freeze_study
    from trainer.recipe import load_recipe

    recipe = load_recipe(name, tuple(overrides))
    planned = plan_arms(arms, depth_of(recipe), layers=layers, trained=trained)
    runs = {arm.label: arm.ranges or "nothing" for arm in planned}
    if dry_run:
        what = "trained alone" if trained else "frozen"
        cost = {what: runs, "seeds": seeds, "runs": len(runs) * seeds}
        return print_object({**cost, "hybrids": 2 * (len(runs) - 1) * seeds}, json)
    if out is None:
        raise UsageError("no --out given", why="a study needs its own folder", fix="add --out DIR")
    out = output_folder(out)
    say = None if json else lambda line: print(line, file=sys.stderr, flush=True)
    summary = run_freeze_study(
        recipe, planned, range(seeds), out, items=items, trained=trained, report=say
    )
    from franken.report.figures.freezing import draw_freezing

    figure = draw_freezing(summary, out / "freezing.png")
    shown: Any = summary[summary["metric"] == "acc@1"]
    if json:
        return print_object({"figure": str(figure), "arms": shown.to_dict("records")}, json)
    head = ["layers", "what", "acc@1", "minus plain RL", "minus start"]
    print_table(head, [_line(row) for row in shown.to_dict("records")])
    print(figure)
    return _print_worth(out) if trained else 0


def _print_worth(out: Path) -> int:
    """What single layers are worth by every measure, and what predicts training them alone."""
    import pandas as pd

    from franken.report.figures.layer_worth import draw_worth, worth_table
    from trainer.layer_worth import ALONE, CORRELATIONS, LAYERS

    if not (out / LAYERS).exists():
        return 0
    table, found = pd.read_csv(out / LAYERS), pd.read_csv(out / CORRELATIONS)
    print_table(*worth_table(table))
    for row in found[found["one"] == ALONE].to_dict("records"):
        print(
            f"{row['other']} orders {row['n']} layers as training them alone does: Spearman "
            f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}], p = {row['p']:.3g} "
            f"(Holm {row['p_adjusted']:.3g})"
        )
    print(draw_worth(table, found, out / "layers.png"))
    return 0


def _line(row: dict[str, Any]) -> list[str]:
    """A row of the study's table, in points with 95 % intervals."""

    def span(value: str, low: str, high: str, sign: str = "+") -> str:
        at, bottom, top = (f"{100 * row[key]:{sign}.1f}" for key in (value, low, high))
        return f"{at} [{bottom}, {top}]"

    differences = [
        span(*(f"minus_{end}{x}" for x in ("", "_low", "_high"))) for end in ("none", "start")
    ]
    layers = f"{row['arm']} {row['layers'].replace('text:', '')}".strip()
    return [layers, row["kind"], span("value", "low", "high", ""), *differences]


def _frozen(row: "FrozenRow") -> Frozen:
    return {
        "part": row.part,
        "layer": row.layer,
        "frozen": row.frozen,
        "tensors": row.tensors,
        "parameters": row.parameters,
    }


def _train(
    name: str,
    frozen: str,
    trained: str,
    out: Path | None,
    overrides: list[str],
    dry_run: bool,
    json: bool,
    *,
    show: bool = False,
    tensorboard: bool = False,
) -> int:
    from trainer.recipe import load_recipe, with_trained

    if not name:
        raise UsageError(
            "no recipe given",
            why="train needs one",
            fix="franken train --list names the built-in ones",
        )
    freeze, train = tuple(split_list(frozen)), tuple(split_list(trained))
    recipe = load_recipe(name, tuple(overrides))
    if show:
        return print_object(recipe.model_dump(mode="json"), True)
    from trainer.distributed import is_main_process
    from trainer.freeze_plan import freeze_plan
    from trainer.rounding import warn_of_lost_updates

    if dry_run and not is_main_process():
        return 0
    if is_main_process() and (dry_run or ((freeze or train) and not json)):
        stages = freeze_plan(with_trained(recipe, freeze, train))
        if dry_run:
            warn_of_lost_updates(recipe)
        if json:
            tables = [
                {**vars(stage), "table": [row.stored() for row in stage.table]} for stage in stages
            ]
            return print_object({"recipe": recipe.name, "stages": tables}, json)
        for stage in stages:
            what = "trains" if stage.train else "frozen"
            named = ", ".join(stage.train or stage.freeze) or "nothing"
            print(f"{stage.kind}, {stage.length}, {what}: {named}")
            print_freeze_table(_frozen(row) for row in stage.table)
        if dry_run:
            _print_failing(recipe)
            return 0
    if out is None:
        raise UsageError(
            "no --out given", why="a training run needs its own folder", fix="add --out DIR"
        )
    out = output_folder(out)
    from franken.cli.train_watch import reports, summarise
    from franken.runs import TrainingRun
    from trainer.loop import run_train
    from trainer.watch import watcher

    report = reports(out, None if json else training_lines(), tensorboard)
    final = run_train(
        recipe, out, freeze=freeze, train=train, report=report, observe=watcher(recipe, out)
    )
    if not is_main_process():
        return 0
    summary, run = summarise(out), TrainingRun(out)
    if json:
        return print_object(
            {
                "final": str(final),
                "run": run.manifest.stored(),
                **summary,
            },
            json,
        )
    if freeze or train:
        count = sum(proof.verified.tensors for proof in run.proofs if proof.verified)
        print(f"{count} frozen tensors are bit-identical to before")
    for first, last in summary["hacked"]:
        print(
            f"updates {first} to {last}: the reward rose while fewer replies were right; "
            "look at the rewards"
        )
    print(f"trained checkpoint: {final}")
    print(
        f"figures: {summary['figure']}"
        + (f", replies: {summary['gallery']}" if summary["gallery"] else "")
    )
    return 0
