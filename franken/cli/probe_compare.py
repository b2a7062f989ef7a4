"""`franken probe-compare`."""

from pathlib import Path
from typing import Annotated

import typer

from franken.cli.options import Json, Out
from franken.console import finish_run


def probe_compare(
    first: Annotated[
        Path, typer.Argument(help="The run folder of `franken probe` on one checkpoint (SFT, say).")
    ],
    second: Annotated[Path, typer.Argument(help="The same probe of another checkpoint (RL, say).")],
    figures: Annotated[bool, typer.Option(help="Draw figures/*.png.")] = True,
    out: Out = Path("runs"),
    json: Json = False,
) -> int:
    """What differs between two checkpoints under the same probe, paired by sample?"""
    from franken.probe.compare import compare_probes

    folder = compare_probes(first, second, out=out)
    if figures:
        from franken.report.figures.probe import draw_comparison

        draw_comparison(folder)
    return finish_run(folder, json, rows="layer", columns="task", metrics=None)
