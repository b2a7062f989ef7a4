"""What a folder holds that tables can be made of: runs of any verb, training runs, a freeze study,
or several of each.

A folder of an autopsy is read through its study.json, so that its models carry the study's labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from franken.errors import UsageError
from franken.report.record import FILE, read_study
from franken.runs import LoadedRun, load_run

Frame = Any  # a pandas DataFrame
ANSWERS = ("eval", "regrade")


@dataclass(frozen=True)
class Holdings:
    """`runs` are finished runs, `training` the folders of training runs, `freezing` the summaries
    of freeze studies.

    `unfinished` are run folders without a manifest; `study` is an autopsy's record.
    """

    folder: Path
    runs: list[LoadedRun] = field(default_factory=list)
    training: list[Path] = field(default_factory=list)
    freezing: list[Frame] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    study: dict[str, Any] | None = None

    def of(self, *verbs: str) -> list[LoadedRun]:
        """The runs of some verbs."""
        return [run for run in self.runs if run.manifest["verb"] in verbs]

    def answers(self) -> dict[str, Frame]:
        """Model → all its answers, in the order of the study where there is one.

        Two runs that asked the same model in the same arm are told apart by their folders' names.
        """
        import pandas as pd

        runs = self.of(*ANSWERS)
        asked: dict[tuple[str, str], set[str]] = {}
        for run in runs:
            for key in set(zip(run.samples["model"], run.samples["method"], strict=True)):
                asked.setdefault(key, set()).add(run.folder.name)
        twice = {model for (model, _), folders in asked.items() if len(folders) > 1}
        parts: dict[str, list[Frame]] = {}
        for run in runs:
            samples: Any = run.samples
            for model, rows in samples.groupby("model", sort=False):
                parts.setdefault(
                    f"{model} ({run.folder.name})" if model in twice else str(model), []
                ).append(rows)
        found = {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}
        order = [name for name in self._known() if name in found]
        return {name: found[name] for name in [*order, *(n for n in found if n not in order)]}

    def arms(self) -> dict[str, set[str]]:
        """Model → the arms it was asked in."""
        found: dict[str, set[str]] = {}
        for run in self.of(*ANSWERS):
            samples: Any = run.samples
            for model, arm in (
                samples[["model", "method"]].drop_duplicates().itertuples(index=False)
            ):
                found.setdefault(str(model), set()).add(str(arm))
        return found

    def _known(self) -> list[str]:
        if self.study is None:
            return []
        models = list(self.study["models"])
        stages = [m for m in ("base", "sft") if m in models]
        rest = [m for m in models if m not in ("base", "sft", "rl")]
        return [*stages, *self.study.get("hybrids", {}), *(["rl"] if "rl" in models else []), *rest]


def open_folder(folder: str | Path) -> Holdings:
    """What `folder` holds: one run, or everything below it.

    Raises UsageError where there is nothing to show, FrankenError for a damaged study.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder}", fix="give a run folder, or one that holds run folders"
        )
    study = asdict(read_study(folder)) if (folder / FILE).exists() else None
    runs = [load_run(file.parent) for file in _below(folder, "run.json")]
    found = Holdings(
        folder,
        _labelled(runs, folder, study) if study else runs,
        [file.parent for file in _below(folder, "train.json")],
        [frame for file in _below(folder, "summary.csv") if (frame := _freezing(file)) is not None],
        [f.parent for f in _below(folder, "identity.json") if not (f.parent / "run.json").exists()],
        study,
    )
    if not (found.runs or found.training or found.freezing):
        why = (
            f"{len(found.unfinished)} run(s) in it are not finished"
            if found.unfinished
            else "it holds no run"
        )
        raise UsageError(f"nothing to show in {folder}", why, "run its command again; it resumes")
    return found


def _below(folder: Path, name: str) -> Iterator[Path]:
    """All files of a name in the folder and below, in order; what begins with a dot is left out."""
    return (
        f
        for f in sorted(folder.rglob(name))
        if not any(p.startswith(".") for p in f.relative_to(folder).parts)
    )


def _labelled(runs: list[LoadedRun], folder: Path, study: dict[str, Any]) -> list[LoadedRun]:
    """The runs with their models under the study's labels: runs know checkpoints by the names of
    their folders.
    """
    labels = {
        (folder / f).resolve(): s.get("model")
        for s in study["steps"]
        for f in s.get("folders") or []
    }
    named = []
    for run in runs:
        label = labels.get(run.folder.resolve())
        samples = (
            run.samples.assign(model=label) if label and "model" in run.samples else run.samples
        )
        named.append(
            replace(run, samples=samples, layers=run.layers.assign(model=label)) if label else run
        )
    return named


def _freezing(file: Path) -> Frame | None:
    """The summary of a freeze study; None for a summary of anything else."""
    import pandas as pd

    table: Any = pd.read_csv(file, keep_default_na=False, na_values=[""])
    if not {"kind", "arm", "layers", "metric", "value", "minus_none", "minus_start"} <= set(
        table.columns
    ):
        return None
    return table.assign(
        kind=table["kind"].fillna(""), layers=table["layers"].fillna(""), run=file.parent.name
    )
