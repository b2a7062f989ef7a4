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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from franken.errors import FrankenError, UsageError
from franken.layers import parse_ranges
from franken.report.lineage import STAGES, Run, freezes, infer_stages
from franken.report.record import FILE, Study, read_study
from franken.runs import IDENTITY, SCHEMA

READ = ("eval", "probe", "diff", "merge-sweep", "compare", "scores")


def find_runs(paths: Sequence[Path]) -> tuple[list[Run], list[Path], list[str]]:
    """The finished runs at or below `paths`, training runs among them apart, and what was passed
    over, as sentences.

    Raises FrankenError for a path that holds no run, a run that is not finished or damaged, or one
    of another schema.
    """
    files: dict[Path, None] = {}
    trained: dict[Path, None] = {}
    notes: list[str] = []
    for path in paths:
        if (path / "run.json").exists():
            files[path.resolve()] = None
            continue
        if (path / IDENTITY).exists():
            raise FrankenError(
                f"{path} is not finished", "it has no run.json", "run its command again; it resumes"
            )
        below = [f.parent.resolve() for f in sorted(path.rglob("run.json"))]
        made = [f.parent.resolve() for f in sorted(path.rglob("train.json"))]
        if not below and not made:
            what = (
                "there is nothing"
                if not path.exists()
                else "neither it nor a folder below it has a run.json"
            )
            raise FrankenError(
                f"{path} holds no run", what, "give run folders, or the folder they are in"
            )
        unfinished = sum(not (f.parent / "run.json").exists() for f in path.rglob(IDENTITY))
        notes += (
            [f"{unfinished} runs below {path.name} are not finished and are not here."]
            if unfinished
            else []
        )
        files |= dict.fromkeys(below)
        trained |= dict.fromkeys(made)
    found = [_read(folder) for folder in files]
    unread = sorted({r.verb for r in found} - set(READ))
    notes += [f"The page says nothing of runs of {', '.join(unread)}."] if unread else []
    return [r for r in found if r.verb in READ], list(trained), notes


def _read(folder: Path) -> Run:
    try:
        manifest = json.loads((folder / "run.json").read_text())
    except ValueError as e:
        raise FrankenError(f"{folder}/run.json is damaged", str(e), "run its command again") from e
    if manifest.get("schema") != SCHEMA:
        why = f"its schema is {manifest.get('schema')}, this franken reads {SCHEMA}"
        raise FrankenError(
            f"{folder} was written by another version",
            why,
            "run its command again with this version",
        )
    for name in ("samples.parquet", "layers.parquet"):
        if not (folder / name).exists():
            raise FrankenError(
                f"{folder} is damaged", f"it has no {name}", "delete it and run its command again"
            )
    needed = {"diff": "checkpoints", "merge-sweep": "models"}.get(manifest.get("verb", ""))
    if not {"verb", "label"} <= set(manifest) or (
        needed and needed not in manifest.get("identity", {})
    ):
        why = "its run.json does not say of which models it is"
        raise FrankenError(f"{folder} is damaged", why, "delete it and run its command again")
    return Run(folder, manifest)


def assemble(
    paths: Sequence[Path], *, out: Path | None = None, given: Mapping[str, str] | None = None
) -> Path:
    """Write the record of a study over the runs at `paths`, into `out` or a new `report-<hash8>`.
    Returns that folder.

    `given`: stage (base, sft, rl) → a checkpoint, a label or the beginning of a content hash.
    Raises UsageError when it cannot
    be told which model is which, or when `out` holds something else.
    """
    runs, trained, notes = find_runs(paths)
    stages, said = infer_stages(runs, given or {})
    frozen, more = freezes(trained)
    digest = hashlib.sha256(
        json.dumps([sorted(r.folder.name for r in runs), stages], sort_keys=True).encode()
    )
    out = out or Path(f"report-{digest.hexdigest()[:8]}")
    if out.exists() and any(out.iterdir()) and not (out / FILE).exists():
        raise UsageError(
            f"{out} holds something else",
            f"it has no {FILE}",
            "choose another --out, or move it away",
        )
    if (out / FILE).exists() and not read_study(out).made_of_runs:
        raise UsageError(
            f"{out} holds an autopsy", "its record would be overwritten", "choose another --out"
        )
    study = _study(runs, stages, frozen, [*said, *notes, *more])
    out.mkdir(parents=True, exist_ok=True)
    for run, step in zip(study.runs, study.record.steps, strict=True):
        step["folders"] = [Path(os.path.relpath(run.folder, out.resolve())).as_posix()]
    study.record.command = shlex.join(["franken", "report", *map(str, paths), "--out", str(out)])
    study.record.save(out)
    return out


class _Made:
    """A record and, step by step, the runs that it refers to."""

    def __init__(self, record: Study, runs: list[Run]) -> None:
        self.record, self.runs = record, runs


def _study(
    runs: Sequence[Run],
    stages: Mapping[str, str],
    frozen: Mapping[str, list[int]],
    notes: list[str],
) -> _Made:
    names = {content: stage for stage, content in stages.items()}
    labels = dict(names)  # content hash → label of the page
    for run in runs:
        if run.verb == "eval" and run.graft is None:
            label = (
                run.label
                if run.label not in (*STAGES, *labels.values())
                else f"{run.label} {run.content[:8]}"
            )
            labels.setdefault(run.content, label)
    depth = _depth(runs)
    parent = stages.get("sft") or stages.get("base")
    hybrids: dict[str, dict[str, Any]] = {}
    taken: dict[tuple[str, str], set[str]] = {}
    kept: list[Run] = []
    steps: list[dict[str, Any]] = []
    for run in sorted(runs, key=lambda r: (READ.index(r.verb), -r.manifest["n_requested"])):
        model, why = _model(run, labels, stages.get("rl"), parent)
        if why is None and run.graft and model not in hybrids and model not in stages:
            layers = [
                i for r in parse_ranges(run.graft["layers"], {"text": depth}) for i in r.layers
            ]
            hybrids[str(model)] = {
                "layers": layers,
                "ranges": run.graft["layers"],
                "control": run.label.startswith("random"),
            }
        measured = taken.setdefault((run.verb, model or ""), set())
        if why is None and measured & set(run.measured):
            why = "a larger run measured the same"
        if why is not None:
            notes.append(f"{run.folder.name} is not here: {why}.")
            continue
        measured |= set(run.measured)
        kept.append(run)
        steps.append(
            {
                "id": run.folder.name,
                "what": f"{run.verb} {run.label}",
                "verb": run.verb,
                "model": model,
                "command": run.command,
                "seconds": run.manifest.get("seconds", 0.0),
                "error": None,
                "folders": [],
                "optional": False,
                "rename": _rename(run, runs, labels),
            }
        )
    if not kept:
        raise FrankenError(
            "no run is left to report on", " ".join(notes), "give runs of one triple of checkpoints"
        )
    asked = [r.manifest["config"] for r in kept if r.verb in ("eval", "probe", "merge-sweep")]
    sources = sorted({str(c.get("data")) for c in asked})
    notes += (
        [f"The runs ask about different data: {', '.join(sources)}."] if len(sources) > 1 else []
    )
    tasks = list(dict.fromkeys(t for c in asked for t in c.get("tasks") or ()))
    arms = {label: layers for content, layers in frozen.items() if (label := labels.get(content))}
    arms |= {
        label: found
        for label in labels.values()
        if label not in arms and (found := _named_frozen(label, depth))
    }
    record = Study(
        title=Path(_path(runs, stages["rl"])).name,
        models={labels[c]: _path(runs, c) for c in [*stages.values(), *labels] if c in labels},
        depth=depth,
        tasks=tasks,
        samples=max((c.get("samples") or 0 for c in asked), default=0),
        seed=next((c["seed"] for c in asked), 0),
        data=next((c["data"] for c in asked if c.get("data")), None),
        hybrids=hybrids,
        frozen=arms,
        steps=steps,
        notes=notes,
        made_of_runs=True,
    )
    return _Made(record, kept)


def _model(
    run: Run, labels: Mapping[str, str], rl: str | None, parent: str | None
) -> tuple[str | None, str | None]:
    """The label of the run's rows on the page (None: they carry their own), and why it cannot be on
    it.
    """
    if run.verb in ("diff", "merge-sweep", "compare", "scores"):
        strange = [c for c in run.contents if c not in labels]
        return None, "it is about other models" if strange else None
    if run.graft is None:
        label = labels.get(run.content)
        return (label, None) if label else (None, "it is about another model")
    if run.graft.get("more") or run.donor != rl:
        return None, "the hybrid has layers of other models"
    if run.graft.get("take"):
        whole = run.graft["layers"] == "text:all" and run.label == "donor"
        return (
            ("rl", None)
            if whole
            else (None, "the hybrid has more than decoder layers of the donor")
        )
    return (
        (run.label, None)
        if run.content == parent
        else (None, "the hybrid is not of the model that RL started from")
    )


def _rename(run: Run, runs: Sequence[Run], labels: Mapping[str, str]) -> dict[str, str]:
    """What a comparison calls its models → their labels on the page."""
    compared = run.manifest["config"].get("runs", ()) if run.verb == "compare" else ()
    return {
        r.label: labels[r.content]
        for r in runs
        if r.folder.name in compared and r.content in labels and not r.graft
    }


def _depth(runs: Sequence[Run]) -> int:
    """How many decoder layers there are: of a checkpoint that is still there, else as many as were
    measured.
    """
    import pandas as pd

    from franken.checkpoints import open_checkpoint

    for path in {p for r in runs for p in r.paths}:
        if (Path(path) / "config.json").exists():
            return open_checkpoint(path).depths["text"]
    deepest = 0
    for run in runs:
        table: Any = pd.read_parquet(run.folder / "layers.parquet")
        found = table.loc[table["part"] == "text", "layer"].dropna()
        deepest = max(deepest, int(found.max()) + 1 if len(found) else 0)
    return deepest


def _named_frozen(label: str, depth: int) -> list[int]:
    """The layers that a label of the form `frozen-RANGE` names, as in an autopsy; none for any
    other label.
    """
    if not label.startswith("frozen-"):
        return []
    try:
        return [
            i
            for r in parse_ranges(label.removeprefix("frozen-"), {"text": depth})
            for i in r.layers
        ]
    except UsageError:
        return []


def _path(runs: Sequence[Run], content: str) -> str:
    """Where the checkpoint was, else its name."""
    named = [
        str((r.folder / name).resolve()) if name.startswith("..") else name
        for r in runs
        if (name := r.name_of(content))
    ]
    return next((name for name in named if "/" in name), named[0] if named else content)
