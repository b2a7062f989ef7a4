"""The runs of a study as tables: everything the page draws comes from here, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from franken.report.record import Study
from franken.runs import LoadedRun, load_run


@dataclass
class Evidence:
    """The summaries and the rows of all finished runs of a study, by verb.

    Frames are pandas DataFrames; a verb that was not run has an empty one with the usual columns.
    """

    study: Study
    folder: Path
    runs: list[LoadedRun]
    missing: list[str] = field(default_factory=list)

    def layers(self, verb: str) -> Any:
        """The rows of layers.parquet of all runs of a verb."""
        import pandas as pd

        from franken.runs import LAYER_COLUMNS

        frames = [r.layers for r in self.runs if r.manifest["verb"] == verb and len(r.layers)]
        return (
            pd.concat(frames, ignore_index=True)
            if frames
            else pd.DataFrame(columns=list(LAYER_COLUMNS))
        )

    def samples(self, verb: str, model: str | None = None) -> Any:
        """The rows of samples.parquet of all runs of a verb, or of one model's."""
        import pandas as pd

        frames = [r.samples for r in self.runs if r.manifest["verb"] == verb and len(r.samples)]
        table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        if model is None or len(table) == 0:
            return table
        return table[table["model"] == model]

    def manifest(self, verb: str, model: str) -> dict[str, Any]:
        """The manifest of the first run of a verb that holds this model's rows; empty when there is
        none.
        """
        for run in self.runs:
            samples: Any = run.samples
            if (
                run.manifest["verb"] == verb
                and "model" in samples
                and (samples["model"] == model).any()
            ):
                return run.manifest
        return {}

    def models(self, verb: str) -> list[str]:
        """Labels with rows of a verb, in the order of the runs."""
        table = self.samples(verb)
        return list(dict.fromkeys(table["model"])) if len(table) else []


def gather(folder: Path, study: Study) -> Evidence:
    """Load the runs that a study names, models under the study's labels; runs that are gone are
    listed in `missing`.
    """
    runs, missing = [], []
    labels = {f: s.get("model") for s in study.steps for f in s.get("folders") or []}
    names = {f: s.get("rename") or {} for s in study.steps for f in s.get("folders") or []}
    for name in study.folders():
        if not (folder / name / "run.json").exists():
            missing.append(name)
            continue
        run = load_run(folder / name)
        label = labels[name]
        runs.append(
            _labelled(run, label) if label else _renamed(run, names[name]) if names[name] else run
        )
    return Evidence(study, folder, runs, missing)


def _labelled(run: LoadedRun, label: str) -> LoadedRun:
    """The run with its model called by the study's label: runs know checkpoints by the names of
    their folders.
    """
    samples = run.samples.assign(model=label) if "model" in run.samples else run.samples
    return replace(run, samples=samples, layers=run.layers.assign(model=label))


def _renamed(run: LoadedRun, names: Mapping[str, str]) -> LoadedRun:
    """A run of several models with each called by the study's label, in differences `B - A` too."""

    def renamed(table: Any) -> Any:
        if "model" not in table:
            return table
        known = {
            m: " - ".join(names.get(x, x) for x in str(m).split(" - "))
            for m in table["model"].dropna().unique()
        }
        return table.assign(model=table["model"].map(known))

    return replace(run, samples=renamed(run.samples), layers=renamed(run.layers))
