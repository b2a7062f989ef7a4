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
from franken.console import finish_run, print_object, progress_bar


def evaluate(
    models: Annotated[list[str], typer.Argument(help="One or several checkpoints, or openai:NAME with --endpoint.")],
    tasks: Tasks = "",
    samples: Annotated[int, typer.Option(help="Held-out puzzles per task.")] = 100,
    n: Annotated[int, typer.Option(help="Samples per prompt.")] = 4,
    k: Annotated[str, typer.Option(help="The k of acc@k, with commas.")] = "1,4",
    arms: Annotated[str, typer.Option(help="image, text (the description instead), blind.")] = "image",
    data: Questions = None,
    columns: Columns = "",
    download: Download = False,
    out: Out = Path("runs"),
    seed: Seed = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    device: Device = "auto",
    dtype: Dtype = "auto",
    engine: Annotated[str, typer.Option(help="What runs the checkpoints: native, vllm, openai.")] = "native",
    endpoint: Annotated[
        str | None, typer.Option(help="Where models written openai:NAME are asked: https://…/v1.")
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """How good is it, and is it perception or reasoning? acc@k with and without the image."""
    from franken.checkpoints import open_checkpoint
    from franken.evaluate.run import load_items, plan_eval, run_eval
    from franken.generate.engine import check_engine, hosted_name
    from franken.tasks.sources import canonical, fetch

    if data is not None:
        data = canonical(data, columns)
    if data is not None and download and not dry_run:
        fetch(data)
    options: dict[str, Any] = {
        "tasks": split_list(tasks) or None, "samples": samples, "n": n, "k": whole_numbers(k), "arms": arms, "seed": seed,
        "max_new_tokens": max_new_tokens, "data": data,
    }  # fmt: skip
    plan = plan_eval(**options)
    check_engine(models, engine, endpoint)
    for model in models:
        if hosted_name(model, engine) is None:
            open_checkpoint(model)
    if dry_run:
        questions = len(load_items(plan)) if plan.data else len(plan.tasks) * samples
        prompts = len(models) * questions * len(plan.arms)
        return print_object({"models": models, "prompts": prompts, "answers": prompts * (n + 1)}, json)
    with progress_bar(not json) as tick:
        folders = run_eval(
            models, **options, out=out, device=device, dtype=dtype, engine=engine, endpoint=endpoint, progress=tick
        )
    codes = [finish_run(f, json, rows="metric", columns="task", metrics=None) for f in folders]
    return max(codes)
