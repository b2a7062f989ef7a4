"""`franken tasks …`: the puzzles, and the public benchmark they come from."""

from pathlib import Path
from typing import Annotated

import typer

from franken.console import print_object, print_verdicts

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Puzzles with ground truth: check, list, look.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@app.command()
def verify(
    folder: Annotated[
        Path, typer.Argument(help="A folder of AlgoPuzzleVQA's <type>.json files; images are not needed.")
    ],
    json: Json = False,
) -> int:
    """Solve the benchmark's rows from state and question, and compare with its answers. Disagreement is data: exit 0.

    Exit code 3 when some row could not be judged; `ours` is null there, and `why` says what is wrong with it.
    """
    from franken.tasks.algopuzzlevqa import files, load
    from franken.tasks.algopuzzlevqa import verify as verify_rows

    found = {name: verify_rows(load(path)) for name, path in files(folder).items()}
    if json:
        print_object({"tasks": found}, json)
    else:
        print_verdicts(found)
    return 3 if any(row["ours"] is None for task in found.values() for row in task["disagree"]) else 0
