"""`franken eval`, and `eval-compare` and `m-scores` over evaluations that exist."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
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
from franken.console import (
    finish_comparison,
    finish_run,
    print_object,
    progress_bar,
)
from franken.errors import UsageError
from franken.evaluate.arms import HELP

Trained = Annotated[
    str, typer.Option(help="Tasks that were trained on: adds levels of generalisation.")
]
Embedder = Annotated[
    str,
    typer.Option(help="For diversity: hashing, or an embedding model's folder or cached hub id."),
]


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
    graft: Annotated[
        list[str] | None,
        typer.Option(
            help="Evaluate a hybrid in place of the model: LABEL=DONOR:16-28, in memory; again for "
            "each."
        ),
    ] = None,
    take: Annotated[
        str,
        typer.Option(
            help="With --graft: these pieces of its (first) donor too: vision, embed, …, with "
            "commas."
        ),
    ] = "",
    compare: Annotated[
        bool, typer.Option(help="Tables and figures over the models, beside each one's run.")
    ] = True,
    trained: Trained = "",
    embedder: Embedder = "hashing",
    data: Questions = None,
    columns: Columns = "",
    download: Download = False,
    out: Out = Path("runs"),
    seed: Seed = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers that are decoded together.")] = 64,
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
    from franken.endpoints import check_endpoint
    from franken.evaluate.graft import parse_graft
    from franken.evaluate.run import load_questions, plan_eval, run_eval
    from franken.evaluate.source import labels_of
    from franken.generate.engine import check_engine, hosted_name
    from franken.tasks.look import short_reason
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
    pieces = tuple(split_list(take))
    grafts = [replace(parse_graft(text), take=pieces) for text in graft or []]
    if pieces and not grafts:
        raise UsageError("--take without --graft", fix="say whose: --graft LABEL=DONOR:16-28")
    if grafts and (len(models) > 1 or label):
        raise UsageError(
            "--graft goes with one model",
            why="the hybrids are evaluated in its place, under names of their own",
            fix="name the model that receives the layers, and no --label",
        )
    donors = [donor for hybrid in grafts for donor, _ in hybrid.parts]
    for model in (*models, *donors):
        if hosted_name(model, engine) is None:
            open_checkpoint(model, download=download and not dry_run)
    if re.match(r"https?://", embedder):  # before the work: a wrong one is known at once
        check_endpoint(embedder.partition("#")[0])
    elif embedder != "hashing":
        resolve(embedder, download=download and not dry_run)
    if dry_run:
        items = load_questions(plan).items if plan.data else []
        questions = len(items) if plan.data else len(plan.tasks) * samples
        prompts = len(grafts or models) * questions * len(plan.arms)
        failing = Counter(short_reason(item.error) for item in items if item.error)
        told = {"models": models, "prompts": prompts, "answers": prompts * (n + 1)}
        return print_object({**told, **({"rows that fail": failing} if failing else {})}, json)
    with progress_bar(not json) as tick:
        folders = run_eval(
            models,
            **options,
            out=out,
            labels=labels,
            grafts=grafts or None,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            engine=engine,
            endpoint=endpoint,
            progress=tick,
        )
    if not compare:
        return _list(folders, json)
    return _compare(folders, out, embedder, device, trained, seed, True, json)


def eval_compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `franken eval`.")],
    trained: Trained = "",
    embedder: Embedder = "hashing",
    figures: Annotated[bool, typer.Option(help="Draw figures/*.png.")] = True,
    out: Out = Path("runs"),
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Evaluations that exist, side by side: every measure, paired differences; no model is
    asked.
    """
    return _compare(runs, out, embedder, device, trained, seed, figures, json)


def m_scores(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders of `franken eval`, with the arms image, text, black, …"),
    ],
    parent: Annotated[str, typer.Option(help="The label over which the others gain: sft.")],
    donor: Annotated[str, typer.Option(help="The label of what gave the layers: rl.")],
    random: Annotated[
        str, typer.Option(help="Labels of hybrids with random layers, with commas: the band.")
    ] = "",
    out: Out = Path("runs"),
    json: Json = False,
) -> int:
    """M_vis, M_v2r and M_rea of models and hybrids, and what hybrids gain; no model is asked."""
    from franken.study.scores import run_scores

    folder = run_scores(runs, parent=parent, donor=donor, random=split_list(random), out=out)
    return finish_run(folder, json, rows="model", columns="task", metrics=None)


def _compare(
    folders: Sequence[Path],
    out: Path,
    embedder: str,
    device: str,
    trained: str,
    seed: int,
    figures: bool,
    json: bool,
) -> int:
    from franken.evaluate.compare import compare_runs
    from franken.report.figures.comparison import draw_eval

    compared = compare_runs(
        folders, out=out, embedder=embedder, device=device, trained=split_list(trained), seed=seed
    )
    if figures:
        draw_eval(compared)
    return finish_comparison(compared, list(folders), json)


def _list(folders: Sequence[Path], json: bool) -> int:
    """Say where the runs are; 3 when answers failed."""
    from franken.runs import load_run

    failed = sum(load_run(folder).manifest.n_failed for folder in folders)
    if json:
        print_object({"runs": [str(folder) for folder in folders], "failed": failed}, json)
    else:
        print("\n".join([f"{failed} answers failed", *map(str, folders)]))
    return 3 if failed else 0
