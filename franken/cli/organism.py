"""`franken organism`."""

from pathlib import Path
from typing import Annotated

import typer

from franken.cli.options import DryRun, Json
from franken.console import print_object


def organism(
    kind: Annotated[
        str,
        typer.Argument(
            help="same, rounded, symmetric, noise; or graft:PLACE, with PLACE one of layer:N, "
            "layers:A-B, early, middle, late, attn, mlp, norms, embed, head, vision, projector, "
            "heads:LAYER.HEAD."
        ),
    ],
    before: Annotated[str, typer.Argument(help="The earlier checkpoint of the pair.")],
    after: Annotated[
        str, typer.Argument(help="The checkpoint whose update is taken (noise, graft).")
    ] = "",
    out: Annotated[Path, typer.Option(help="Where the later checkpoint of the pair goes.")] = Path(
        "organism"
    ),
    seed: Annotated[int, typer.Option(help="Seed of what is drawn.")] = 0,
    strength: Annotated[
        float, typer.Option(help="How much of it: of the update, of the layers.")
    ] = 1.0,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Make a pair of checkpoints whose difference is known, to try a method on."""
    from franken.organisms.kinds import make, plan

    chosen = {"after": after or None, "seed": seed, "strength": strength}
    truth = plan(kind, before, **chosen) if dry_run else make(kind, before, out, **chosen)
    return print_object({**truth.model_dump(), **({} if dry_run else {"folder": str(out)})}, json)
