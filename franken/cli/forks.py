"""`franken forks`."""

from collections import Counter
from pathlib import Path
from typing import Annotated

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
)
from franken.console import finish_forks, print_object, progress_bar

RULES = "all"


def forks(
    a: Annotated[str, typer.Argument(help="The earlier checkpoint: SFT.", metavar="SFT")],
    b: Annotated[str, typer.Argument(help="The later one, of the same model: RL.", metavar="RL")],
    tasks: Tasks = "",
    samples: Annotated[int, typer.Option(help="Held-out puzzles per task.")] = 50,
    draws: Annotated[int, typer.Option(help="Replies of each model to a prompt.")] = 4,
    temperature: Annotated[
        float, typer.Option(help="Of the replies; 0 is greedy, with --draws 1.")
    ] = 1.0,
    threshold: Annotated[
        float, typer.Option(help="A token is a fork from this JS divergence on, in nats.")
    ] = 0.1,
    budget: Annotated[
        str,
        typer.Option(
            help="At most so many tokens of the other model in a reply: 1, or 5% of its length; "
            "all forks by default."
        ),
    ] = "",
    rules: Annotated[
        str,
        typer.Option(
            help="Cross-sampling, with commas: forks, and its controls random, entropy, elsewhere; "
            "all, or none."
        ),
    ] = RULES,
    stored: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", help="Score the replies of this run of `franken eval`; again for the other's."
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A model's name in tables; again for each, in order.")
    ] = None,
    data: Questions = None,
    columns: Columns = "",
    download: Download = False,
    out: Out = Path("runs"),
    seed: Seed = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply.")] = 64,
    batch_size: Annotated[int, typer.Option(min=1, help="Replies that are run together.")] = 64,
    device: Device = "auto",
    dtype: Dtype = "auto",
    figures: Annotated[bool, typer.Option(help="Draw figures/*.png.")] = True,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Where in the reasoning do two models part, does it look at the image there, and do those
    places carry the gain? The same command resumes.
    """
    from franken.checkpoints import open_checkpoint
    from franken.forks.controls import RULES as ALL_RULES
    from franken.forks.plan import cost, plan_forks
    from franken.tasks.look import short_reason
    from franken.tasks.sources import canonical, fetch

    if data is not None:
        data = canonical(data, columns)
        if download and not dry_run:
            fetch(data)
    for model in (a, b):
        open_checkpoint(model, download=download and not dry_run)
    named = {"all": list(ALL_RULES), "none": []}
    plan = plan_forks(
        a,
        b,
        labels=label,
        tasks=split_list(tasks),
        samples=samples,
        draws=draws,
        temperature=temperature,
        threshold=threshold,
        budget=budget,
        rules=named.get(rules, split_list(rules)),
        stored=stored or [],
        seed=seed,
        max_new_tokens=max_new_tokens,
        data=data,
    )
    if dry_run:
        errors = [item.error for item in plan.questions.items if item.error]
        failing = {"rows that fail": Counter(map(short_reason, errors))} if errors else {}
        return print_object({**cost(plan, batch_size), **failing}, json)
    from franken.forks.run import run_forks

    with progress_bar(not json) as tick:
        folder = run_forks(
            plan, out=out, device=device, dtype=dtype, batch_size=batch_size, progress=tick
        )
    if figures:
        from franken.report.figures.forks import draw_forks

        draw_forks(folder)
    return finish_forks(folder, json)
