"""`franken train-figures`."""

from pathlib import Path
from typing import Annotated

import typer

from franken.cli.options import Json
from franken.console import print_object
from franken.outputs import output_file


def train_figures(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of training runs; those of one recipe are its seeds."),
    ],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("training.png"),
    window: Annotated[int, typer.Option(min=1, help="Updates of a running mean.")] = 10,
    json: Json = False,
) -> int:
    """Draw reward, accuracy, diversity and strategies over updates: a line a recipe, a band over
    its seeds.
    """
    from franken.report.figures.training import draw_training

    figure = draw_training(runs, output_file(out), window=window)
    if json:
        return print_object({"figure": str(figure)}, True)
    print(figure)
    return 0
