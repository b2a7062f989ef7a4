"""`franken regrade`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from franken.cli.grade import inert
from franken.cli.options import DryRun, Json
from franken.console import print_object, print_table, progress_bar
from franken.errors import UsageError

if TYPE_CHECKING:
    from franken.evaluate.regrade import Change


def regrade(
    run: Annotated[
        Path, typer.Argument(help="A run folder of `franken eval`; it is left as it is.")
    ],
    judge: Annotated[
        str,
        typer.Option(
            help="An OpenAI-compatible endpoint that judges instead of the rules: "
            "http://host:port/v1."
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
    show: Annotated[
        int, typer.Option(min=0, help="Changed answers to list, with both reasons.")
    ] = 10,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Judge stored answers again, without a model: a new run, how many verdicts changed in which
    direction, and which.
    """
    from franken.evaluate.regrade import changed_by, preview
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
    content: dict[str, object]
    if dry_run:
        plan = preview(run, who)
        counts, listed, failed = plan["changes"], plan["changed"], 0
        content = dict(plan)
    else:
        with progress_bar(not json) as tick:
            folder = grade_again(run, judge=who, out=out, progress=tick)
        manifest = load_run(folder).manifest
        content = manifest.model_dump(include={"source", "changes", "n_ok", "n_failed"})
        content["folder"] = str(folder)
        counts, listed, failed = manifest.changes, changed_by(folder, run), manifest.n_failed
    if json:
        print_object(content | {"changed": [change._asdict() for change in listed]}, json)
    else:
        kinds = list(dict.fromkeys(kind for count in counts.values() for kind in count))
        rows = [[task, *(count.get(k, 0) for k in kinds)] for task, count in counts.items()]
        print_table(["task", *(k.replace("_", " ") for k in kinds)], rows)
        _print_changed(listed, show)
        shown = {k: v for k, v in content.items() if k not in ("changes", "changed", "source")}
        print_object(shown, json)
    return 3 if failed else 0


def _print_changed(changes: "list[Change]", show: int) -> None:
    """The answers whose score changed, old → new with both reasons; `show` of them."""
    for c in changes[:show]:
        before, now = ("error" if score is None else f"{score:g}" for score in (c.before, c.now))
        where = " ".join(part for part in (c.task, c.sample, c.method, f"draw {c.draw}") if part)
        print(f"{before} → {now}  {inert(where)}, right is {inert(c.gold)!r}")
        print(f"    was: {inert(c.reason_before)}\n    now: {inert(c.reason_now)}")
    if len(changes) > show:
        print(f"… and {len(changes) - show} more (--show {len(changes)}, or --json for all)")
