"""`franken eval`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from franken.cli.options import (
    Columns,
    Device,
    Download,
    DryRun,
    Dtype,
    Json,
    Out,
    Questions,
    Seed,
    Tasks,
    split_list,
    whole_numbers,
)
from franken.console import finish_comparison, print_object, progress_bar
from franken.evaluate.arms import HELP


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(help="One or several checkpoints, or openai:NAME with --endpoint."),
    ],
    tasks: Tasks = "",
    samples: Annotated[int, typer.Option(help="Held-out puzzles per task.")] = 100,
    n: Annotated[int, typer.Option(help="Samples per prompt.")] = 4,
    k: Annotated[str, typer.Option(help="The k of acc@k, with commas.")] = "1,4",
    arms: Annotated[str, typer.Option(help=HELP)] = "image",
    label: Annotated[
        list[str] | None, typer.Option(help="A model's name in tables; again for each, in order.")
    ] = None,
    trained: Annotated[
        str, typer.Option(help="Tasks that were trained on: adds levels of generalisation.")
    ] = "",
    embedder: Annotated[
        str,
        typer.Option(
            help="For diversity: hashing, or an embedding model's folder or cached hub id."
        ),
    ] = "hashing",
    data: Questions = None,
    columns: Columns = "",
    download: Download = False,
    out: Out = Path("runs"),
    seed: Seed = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    device: Device = "auto",
    dtype: Dtype = "auto",
    engine: Annotated[
        str, typer.Option(help="What runs the checkpoints: native, vllm, openai.")
    ] = "native",
    endpoint: Annotated[
        str | None, typer.Option(help="Where models written openai:NAME are asked: https://…/v1.")
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """How good, how diverse, and is it perception or reasoning? Models side by side, paired; the
    same command resumes.
    """
    from franken.checkpoints import open_checkpoint, resolve
    from franken.evaluate.compare import compare_runs
    from franken.evaluate.run import labels_of, load_items, plan_eval, run_eval
    from franken.generate.engine import check_engine, hosted_name
    from franken.tasks.sources import canonical, fetch

    if data is not None:
        data = canonical(data, columns)
    if data is not None and download and not dry_run:
        fetch(data)
    options: dict[str, Any] = {
        "tasks": split_list(tasks) or None,
        "samples": samples,
        "n": n,
        "k": whole_numbers(k),
        "arms": arms,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
        "data": data,
    }
    plan = plan_eval(**options)
    check_engine(models, engine, endpoint)
    labels = labels_of(models, label)
    for model in models:
        if hosted_name(model, engine) is None:
            open_checkpoint(model, download=download and not dry_run)
    if embedder != "hashing":
        resolve(
            embedder, download=download and not dry_run
        )  # before the work: a missing one is known at once
    if dry_run:
        questions = len(load_items(plan)) if plan.data else len(plan.tasks) * samples
        prompts = len(models) * questions * len(plan.arms)
        return print_object(
            {"models": models, "prompts": prompts, "answers": prompts * (n + 1)}, json
        )
    with progress_bar(not json) as tick:
        folders = run_eval(
            models,
            **options,
            out=out,
            labels=labels,
            device=device,
            dtype=dtype,
            engine=engine,
            endpoint=endpoint,
            progress=tick,
        )
    compared = compare_runs(
        folders, out=out, embedder=embedder, device=device, trained=split_list(trained), seed=seed
    )
    from franken.report.figures.comparison import draw_eval

    draw_eval(compared)
    return finish_comparison(compared, folders, json)
