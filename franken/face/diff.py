"""`franken.diff`: what training changed."""

from collections.abc import Sequence
from pathlib import Path

from franken.diff.along_plan import plan_along
from franken.diff.along_run import run_along
from franken.diff.plan import plan_diff
from franken.diff.run import DiffOptions, run_diff
from franken.errors import UsageError
from franken.outputs import output_folder
from franken.runs import LoadedRun, load_run


def diff(
    *checkpoints: str | Path,
    along: Sequence[str | Path] = (),
    layers: str = "",
    parts: Sequence[str] = (),
    components: Sequence[str] = (),
    options: DiffOptions = DiffOptions(),  # noqa: B008 - frozen
    jobs: int | None = None,
    out: str | Path = "runs",
) -> LoadedRun:
    """Compare BASE RL, or BASE SFT RL, tensor by tensor; the same call resumes.

    >>> run = franken.diff("creature:base", "creature:sft", layers="text:0-4")
    >>> rows = run.layers
    >>> rows = rows[(rows["metric"] == "relative_energy") & (rows["component"] == "all")]
    >>> rows["layer"].tolist()
    [0, 1, 2, 3]

    With `along`, the folders of training runs that went on from the one checkpoint: their way over
    all the checkpoints that they left. `layers` (`16-28,vision:all`), `parts` and `components`
    limit what is compared; `options` ask
    for spectra and subspaces. `samples` of the result has a row a tensor and update, `layers` the
    summary (relative energy ‖Δ‖_F / ‖W_earlier‖_F, cosine, …), `manifest.location` where in the
    decoder each update lies. Raises UsageError for checkpoints that cannot be compared.
    """
    if along:
        if len(checkpoints) != 1:
            raise UsageError("along goes with one checkpoint", "the runs hold the later ones")
        way = plan_along(checkpoints[0], along, layers=layers, parts=parts, components=components)
        spectra = options.spectra
        return load_run(
            run_along(way, out=output_folder(Path(out)), with_spectra=spectra, jobs=jobs)
        )
    plan = plan_diff(checkpoints, layers=layers, parts=parts, components=components)
    return load_run(run_diff(plan, out=output_folder(Path(out)), options=options, jobs=jobs))
