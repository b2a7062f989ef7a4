"""`franken show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from franken.cli.options import Json
from franken.console import print_object, print_titled
from franken.errors import UsageError
from franken.report.tables.table import to_latex

if TYPE_CHECKING:
    from franken.runs import RunSet


def show(
    run: Annotated[
        Path, typer.Argument(help="A run folder of any command, or a folder that holds some.")
    ],
    table: Annotated[
        str,
        typer.Option(
            help="summary, tasks, hybrids, m-scores, freezing, acc@k, diversity, modality, "
            "perception, designs or forks; `list` says which this folder can show."
        ),
    ] = "summary",
    csv: Annotated[bool, typer.Option("--csv", help="Every number as a line of CSV.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="A LaTeX table for booktabs.")] = False,
    json: Json = False,
) -> int:
    """Print what runs measured: rates with n and 95 % intervals, adjusted p, and the papers'
    tables.
    """
    from franken.report.tables.kinds import KINDS, accounts, tables
    from franken.report.tables.measurements import to_csv

    if csv + latex + json > 1:
        raise UsageError("one format at a time", "--csv, --latex and --json exclude each other")
    opened = _open(run)
    if table == "list":
        able = {k.name: k.what for k in KINDS if k.able(opened)}
        return print_object({"tables": able} if json else able, json)
    shown = tables(opened, table)
    notes = accounts(opened)
    if json:
        content = [
            {"table": t.name, "title": t.title, "note": t.note, "rows": t.records()} for t in shown
        ]
        return print_object({"folder": str(run), "tables": content, "failed": notes}, json)
    if csv:
        typer.echo(to_csv(shown), nl=False)
    elif latex:
        typer.echo("\n\n".join(to_latex(t.table()) for t in shown))
    else:
        for measurements in shown:
            print_titled(measurements.narrow().table())
    for note in notes:
        typer.echo(note, err=True)
    return 0


def _open(folder: Path) -> "RunSet":
    """What the folder holds. Raises UsageError where there is nothing to show."""
    from franken.lock import writer
    from franken.runs import open_runs

    runs = open_runs(folder)
    if not (runs.runs or runs.training or runs.freezing):
        count = len(runs.unfinished)
        why = f"{count} run(s) in it are not finished" if count else "it holds no run"
        if writers := sorted({by for run in runs.unfinished if (by := writer(run))}):
            why += f"; {', '.join(writers)} is writing"
        raise UsageError(f"nothing to show in {folder}", why, "run its command again; it resumes")
    return runs
