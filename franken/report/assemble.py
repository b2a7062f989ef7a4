"""`franken report RUN...`: a study made of run folders that exist, whichever verbs and calls they
are from.

The manifests name their models by content hash, so that runs find each other whatever a checkpoint
was called. Two runs that measured the same of one model would count every answer twice: the larger
one is taken and the other named in the notes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from franken.checkpoints import open_checkpoint
from franken.errors import FrankenError, UsageError
from franken.layers import parse_ranges
from franken.outputs import output_folder, refuse_other
from franken.runs import IDENTITY, STAGES, LoadedRun, RunSet, Study, load_run, open_runs, read_study
from franken.runs.lineage import Frozen, Lineage, Said
from franken.runs.loaded import SWEEPS
from franken.runs.manifest import check_models
from franken.runs.record import FILE, HybridRecord, StepRecord

READ = ("eval", "probe", "forks", "diff", "trajectory", *SWEEPS, "compare", "scores")


def find_runs(paths: Sequence[Path]) -> tuple[RunSet, list[str]]:
    """The runs at or below `paths` that the page reads, and what was passed over, as sentences.

    Raises FrankenError for a path that holds no run, a run that is not finished or damaged, or one
    of another schema.
    """
    notes: list[str] = []
    for path in paths:
        if (path / IDENTITY).exists() and not (path / "run.json").exists():
            load_run(path)  # says why it cannot
        here = open_runs(path) if path.is_dir() else None
        if here is None or not (here.runs or here.training):
            why = "neither it nor a folder below it has a run.json" if here else "there is nothing"
            fix = "give run folders, or the folder they are in"
            raise FrankenError(f"{path} holds no run", why, fix)
        if here.unfinished:
            count = len(here.unfinished)
            notes.append(f"{count} runs below {path.name} are not finished and are not here.")
    runs = open_runs(*paths)
    for run in runs.runs:
        check_models(run.manifest, run.folder)
    unread = sorted({run.verb for run in runs.runs} - set(READ))
    if unread:
        notes.append(f"The page says nothing of runs of {', '.join(unread)}.")
    runs.runs = runs.of(*READ)
    return runs, notes


SHOWN = {  # columns of samples that a page needs
    "eval": ("model", "method", "task", "sample", "draw", "gold", "output", "score")
    + ("strategy", "error", "ineligible"),
    "probe": ("model", "method", "task", "sample", "layer", "error", "ineligible"),
    "forks": ("model", "method", "task", "sample", "error"),
}


def assemble(paths: Sequence[Path], *, out: Path | None = None, said: Said = Said()) -> Path:
    """Write the record of a study over the runs at `paths`, into `out` or a new `report-<hash8>`.
    Returns that folder.

    `said`: what the caller says of the stages. Raises UsageError when it cannot be told which model
    is which, or when `out` holds something else.
    """
    runs, notes = find_runs(paths)
    for verb, columns in SHOWN.items():
        for run in runs.of(verb):
            run.answers(*columns)  # a table that lacks one is told before a page is begun
    lineage = runs.lineage(said)
    content = [sorted(run.folder.name for run in runs.runs), lineage.stages]
    identity = json.dumps(content, sort_keys=True)
    named = f"report-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    out = output_folder(out or Path(named))
    _check_free(out)
    record = _record(runs, lineage, [*lineage.notes, *notes], out)
    record.command = shlex.join(["franken", "report", *map(str, paths), "--out", str(out)])
    out.mkdir(parents=True, exist_ok=True)
    record.save(out)
    return out


def _check_free(out: Path) -> None:
    """Refuse a folder that holds an autopsy, or anything that is no study."""
    refuse_other(out, FILE)
    if (out / FILE).exists() and not read_study(out).made_of_runs:
        raise UsageError(
            f"{out} holds an autopsy", "its record would be overwritten", "choose another --out"
        )


class _Models(NamedTuple):
    """Content hash → label on the page; RL's hash; that of what RL started from; decoder layers."""

    labels: dict[str, str]
    rl: str | None
    parent: str | None
    depth: int


def _record(runs: RunSet, lineage: Lineage, notes: list[str], out: Path) -> Study:
    models, stages = _models(runs.runs, lineage), lineage.stages
    hybrids: dict[str, HybridRecord] = {}
    measured: dict[tuple[str, str | None], set[str]] = {}
    used: list[LoadedRun] = []
    steps: list[StepRecord] = []
    for run in sorted(runs.runs, key=lambda r: (READ.index(r.verb), -r.manifest.n_requested)):
        label, obstacle = _label(run, models)
        if obstacle is None and run.graft and label and label not in {*hybrids, *stages}:
            hybrids[label] = HybridRecord(
                layers=_layers(run.graft.layers, models.depth),
                ranges=run.graft.layers,
                control=run.label.startswith("random"),
            )
        before = measured.setdefault((run.verb, label), set())
        if obstacle is None and before & set(run.measured):
            obstacle = "a larger run measured the same"
        if obstacle is not None:
            notes.append(f"{run.folder.name} is not here: {obstacle}.")
            continue
        before |= set(run.measured)
        used.append(run)
        steps.append(_step(run, label, runs.runs, models, out))
    if not used:
        raise FrankenError(
            "no run is left to report on", " ".join(notes), "give runs of one triple of checkpoints"
        )
    asking = ("eval", "probe", "forks", *SWEEPS)
    configs = [r.manifest.config for r in used if r.verb in asking]
    sources = sorted({str(config.data) for config in configs})
    if len(sources) > 1:
        notes.append(f"The runs ask about different data: {', '.join(sources)}.")
    frozen = runs.frozen()
    return Study(
        title=Path(_path(runs.runs, stages["rl"])).name,
        models={label: _path(runs.runs, content) for content, label in models.labels.items()},
        depth=models.depth,
        tasks=list(dict.fromkeys(task for config in configs for task in config.tasks or ())),
        samples=max((config.samples or 0 for config in configs), default=0),
        seed=next((config.seed for config in configs), 0),
        data=next((config.data for config in configs if config.data), None),
        hybrids=hybrids,
        frozen=_frozen_labels(models, frozen),
        steps=steps,
        notes=[*notes, *frozen.notes],
        made_of_runs=True,
    )


def _step(
    run: LoadedRun,
    label: str | None,
    runs: Sequence[LoadedRun],
    models: _Models,
    out: Path,
) -> StepRecord:
    return StepRecord(
        id=run.folder.name,
        what=f"{run.verb} {run.label}",
        verb=run.verb,
        model=label,
        command=run.command,
        seconds=run.manifest.seconds,
        folders=[Path(os.path.relpath(run.folder, out.resolve())).as_posix()],
        rename=_rename(run, runs, models),
    )


def _models(runs: Sequence[LoadedRun], lineage: Lineage) -> _Models:
    stages = lineage.stages
    labels = {content: stage for stage, content in stages.items()}
    for run in runs:
        if run.verb == "eval" and run.graft is None:
            taken = run.label in (*STAGES, *labels.values())
            name = f"{run.label} {run.content[:8]}" if taken else run.label
            labels.setdefault(run.content, name)
    parent = stages.get("sft") or stages.get("base")
    return _Models(labels, stages.get("rl"), parent, _depth(runs))


def _label(run: LoadedRun, models: _Models) -> tuple[str | None, str | None]:
    """The label of the run's rows on the page (None: they carry their own), and why it cannot be on
    it.
    """
    if run.verb == "trajectory":
        known = run.manifest.identity.checkpoints["start"] in models.labels
        return None, None if known else "it starts from another model"
    if run.verb in ("diff", "forks", *SWEEPS, "compare", "scores"):
        known = all(content in models.labels for content in run.contents)
        return None, None if known else "it is about other models"
    if run.graft is None:
        label = models.labels.get(run.content)
        return (label, None) if label else (None, "it is about another model")
    if run.graft.more or run.manifest.identity.donor != models.rl:
        return None, "the hybrid has layers of other models"
    if run.graft.take:
        whole = run.graft.layers == "text:all" and run.label == "donor"
        more = "the hybrid has more than decoder layers of the donor"
        return ("rl", None) if whole else (None, more)
    if run.content != models.parent:
        return None, "the hybrid is not of the model that RL started from"
    return run.label, None


def _rename(run: LoadedRun, runs: Sequence[LoadedRun], models: _Models) -> dict[str, str]:
    """What a run of several models calls them → their labels on the page."""
    if run.verb == "forks":
        own = zip(run.manifest.models, run.contents, strict=False)
        return {name: models.labels[c] for name, c in own if c in models.labels}
    return {
        r.label: models.labels[r.content]
        for r in runs
        if r.folder.name in run.compared and r.content in models.labels and not r.graft
    }


def _depth(runs: Sequence[LoadedRun]) -> int:
    """How many decoder layers there are: of a checkpoint that is still there, else as many as were
    measured.
    """
    for path in {p for run in runs for p in run.paths}:
        if (Path(path) / "config.json").exists():
            return open_checkpoint(path).depths["text"]
    deepest = 0
    for run in runs:
        layers = run.layers.loc[run.layers["part"] == "text", "layer"].dropna()
        deepest = max(deepest, int(layers.max()) + 1 if len(layers) else 0)
    return deepest


def _layers(ranges: str, depth: int) -> list[int]:
    return [i for r in parse_ranges(ranges, {"text": depth}) for i in r.layers]


def _frozen_labels(models: _Models, frozen: Frozen) -> dict[str, list[int]]:
    """Label → the text layers that were frozen: by the proof of its training run, else by a label
    of the form `frozen-RANGE`, as in an autopsy.
    """
    labels = models.labels
    proved = {
        labels[content]: layers for content, layers in frozen.layers.items() if content in labels
    }
    named = {
        label: layers
        for label in labels.values()
        if label not in proved and (layers := _named_frozen(label, models.depth))
    }
    return proved | named


def _named_frozen(label: str, depth: int) -> list[int]:
    if not label.startswith("frozen-"):
        return []
    try:
        return _layers(label.removeprefix("frozen-"), depth)
    except UsageError:
        return []


def _path(runs: Sequence[LoadedRun], content: str) -> str:
    """Where the checkpoint was, else its name."""
    names = [
        str((run.folder / name).resolve()) if name.startswith("..") else name
        for run in runs
        if (name := run.name_of(content))
    ]
    return next((name for name in names if "/" in name), names[0] if names else content)
