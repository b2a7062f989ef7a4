"""`franken.merge`: a hybrid of checkpoints, exactly, with the proof."""

from collections.abc import Sequence
from pathlib import Path

from franken.checkpoints import Checkpoint, open_checkpoint
from franken.lock import locked
from franken.merge.options import recipe_from_options
from franken.merge.plan import open_all, plan_merge
from franken.merge.run import run_merge
from franken.outputs import output_folder


def merge(
    *checkpoints: str | Path,
    out: str | Path,
    layers: str = "",
    take: str = "",
    components: str = "",
    graft: Sequence[str] = (),
    splice: str = "",
    alpha: str = "",
    method: str = "",
    param: Sequence[str] = (),
    relative_to: str = "",
    noise: float | None = None,
    keep: str = "",
    drop: str = "",
    allow: str = "",
    seed: int = 0,
    verify_load: bool = False,
) -> Checkpoint:
    """Write a hybrid of BASE DONOR … into `out` and verify every tensor; the same call does nothing
    again.

    >>> hybrid = franken.merge("creature:base", "creature:sft", layers="4-8", out="hybrid")
    >>> hybrid.depths["text"]
    8
    >>> franken.diff("creature:base", hybrid.folder).manifest.location[0].thirds["early"]
    0.0

    The base receives, `layers` (half-open ranges, thirds by name) come from the donor, `take` whole
    pieces beside them (vision, embed, …); `graft`, `splice`, `method` and the rest are those of
    `franken merge`. Raises UsageError for a hybrid that cannot be planned, VerificationError when
    the result is not what was planned.
    """
    recipe = recipe_from_options(
        [str(checkpoint) for checkpoint in checkpoints],
        layers=layers,
        graft=list(graft),
        splice=splice,
        take=take,
        components=components,
        alpha=alpha,
        method=method,
        param=list(param),
        relative_to=relative_to,
        noise=noise,
        keep=keep,
        drop=drop,
        seed=seed,
        allow=allow,
    )
    plan, folder = plan_merge(recipe, open_all(recipe)), output_folder(Path(out))
    with locked(folder):
        return open_checkpoint(run_merge(plan, folder, verify_load=verify_load))
