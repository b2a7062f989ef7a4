"""`franken regrade`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from franken.cli.options import DryRun, Json
from franken.console import print_object, print_table, progress_bar


def regrade(
    run: Annotated[
        Path, typer.Argument(help="A run folder of `franken eval`; it is left as it is.")
    ],
    judge: Annotated[
        str,
        typer.Option(
            help="An OpenAI-compatible endpoint that judges instead of the rules: http://host:port/v1."
        ),
    ] = "",
    judge_model: Annotated[str, typer.Option(help="The model to ask there.")] = "",
    judge_cache: Annotated[
        Path | None,
        typer.Option(help="Where its verdicts are kept; ~/.cache/franken/judge by default."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Requests at a time.")] = 8,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder that holds the run folders; the run's own by default."),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Judge stored answers again, without a model: a new run, and how many verdicts changed in
    which direction.
    """
    import os

    from franken.errors import UsageError
    from franken.evaluate.regrade import preview
    from franken.evaluate.regrade import regrade as grade_again
    from franken.runs import load_run
    from franken.tasks.judge import judge_at

    if judge_model and not judge:
        raise UsageError(
            "a judge's model without a judge", "nothing says where it is asked", "add --judge URL"
        )
    cache = (
        judge_cache
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "franken" / "judge"
    )
    who = judge_at(judge, judge_model, cache, concurrency) if judge else None
    if dry_run:
        found: dict[str, Any] = preview(run, who)
    else:
        with progress_bar(not json) as tick:
            folder = grade_again(run, judge=who, out=out, progress=tick)
        manifest = load_run(folder).manifest
        found = manifest.model_dump(include={"source", "changes", "n_ok", "n_failed"}) | {
            "folder": str(folder)
        }
    if json:
        print_object(found, json)
    else:
        kinds = list(dict.fromkeys(kind for counts in found["changes"].values() for kind in counts))
        rows = [
            [task, *(counts.get(k, 0) for k in kinds)] for task, counts in found["changes"].items()
        ]
        print_table(["task", *(k.replace("_", " ") for k in kinds)], rows)
        print_object({k: v for k, v in found.items() if k not in ("changes", "source")}, json)
    return 3 if found.get("n_failed") else 0
