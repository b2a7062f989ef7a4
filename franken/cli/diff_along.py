"""`franken diff BASE --along RUN`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from franken.console import finish_along, print_object, progress_bar
from franken.errors import UsageError
from franken.outputs import output_folder


class Selection(TypedDict):
    """What is compared: ranges of layers, parts and components; all of them where empty."""

    layers: str
    parts: Sequence[str]
    components: Sequence[str]


def diff_along(
    checkpoints: Sequence[str],
    along: Sequence[Path],
    *,
    selection: Selection,
    refused: Sequence[str],
    with_spectra: bool,
    figures: bool,
    device: str,
    jobs: int | None,
    download: bool,
    out: Path,
    dry_run: bool,
    json: bool,
) -> int:
    """Follow one or more training runs from their start. Returns the exit code."""
    from franken.diff.along_plan import plan_along
    from franken.diff.along_run import run_along
    from franken.runs import open_runs

    if len(checkpoints) != 1:
        raise UsageError(
            f"{len(checkpoints)} checkpoints beside --along",
            why="the runs hold the later ones",
            fix="give the one that they started from",
        )
    if refused:
        raise UsageError(
            f"{', '.join(refused)} does not go with --along",
            why="it is about one or two updates",
            fix="franken diff BASE CHECKPOINT for one of the checkpoints",
        )
    plan = plan_along(checkpoints[0], along, download=download, **selection)
    if with_spectra and device != "cpu":
        from franken.models.loading import pick_device

        device = str(pick_device(device))
    if dry_run:
        from franken.diff.estimate import estimate_along

        seconds = estimate_along(plan, with_spectra=with_spectra, jobs=jobs)
        cost = {
            "runs": {run.name: list(run.updates) for run in plan.runs},
            "tensors": len(plan.tensors.tensors),
            "bytes": plan.tensors.total_bytes,
            "about seconds": round(seconds, 1),
            "not comparable": plan.tensors.problems,
        }
        return print_object(cost, json)
    out = output_folder(out)
    with progress_bar(not json, unit="bytes", total=plan.tensors.total_bytes) as tick:
        folder = run_along(
            plan,
            out=out,
            with_spectra=with_spectra,
            device=device,
            jobs=jobs,
            progress=lambda n: tick(n, None, "along"),
        )
    runs = open_runs(out, *(run.folder for run in plan.runs))
    if figures:
        from franken.report.figures.along import draw_along

        draw_along(folder, runs)
    return finish_along(folder, json, runs)
