"""A finished run: its manifest, its rows, and which checkpoints they are about."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from franken.errors import FrankenError
from franken.lock import writer
from franken.runs.columns import ANSWER, LAYERS, MEASUREMENT, SAMPLES, check_once, check_table
from franken.runs.files import check_columns, read_parquet, read_record
from franken.runs.manifest import SCHEMA, Graft, Manifest
from franken.runs.rows import LAYER_COLUMNS

if TYPE_CHECKING:
    import pandas as pd


SWEEPS = ("merge-sweep", "surgery")  # verbs of a base and a donor


class LoadedRun:
    """A finished run. `samples` and `layers` are read when they are first asked for.

    Checkpoints are known by the hash of their contents, so that runs of one model find each other
    whatever the model was called.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        samples: "pd.DataFrame | None" = None,
        layers: "pd.DataFrame | None" = None,
    ) -> None:
        self.folder, self.manifest = folder, manifest
        self._samples, self._layers = samples, layers

    @property
    def samples(self) -> "pd.DataFrame":
        """samples.parquet: a row a sample, with its `error` where it failed."""
        if self._samples is None:
            file = self.folder / "samples.parquet"
            table = read_parquet(file)
            check_table(table, SAMPLES.get(self.verb, {}), file)
            if self.verb in ("eval", "forks"):
                check_once(table, ANSWER, file)
            self._samples = table
        return self._samples

    def answers(self, *columns: str) -> "pd.DataFrame":
        """The samples, which have these columns. Raises FrankenError for a table that lacks one."""
        check_columns(self.samples, columns, self.folder / "samples.parquet")
        return self.samples

    @property
    def layers(self) -> "pd.DataFrame":
        """layers.parquet: a row a measurement (`franken.runs.rows.LayerRow`)."""
        if self._layers is None:
            file = self.folder / "layers.parquet"
            table = read_parquet(file, LAYER_COLUMNS)
            check_table(table, LAYERS, file)
            check_once(table, MEASUREMENT, file)
            self._layers = table
        return self._layers

    def with_rows(
        self, *, samples: "pd.DataFrame | None" = None, layers: "pd.DataFrame | None" = None
    ) -> "LoadedRun":
        """The same run with other rows, for example with its models called otherwise."""
        return LoadedRun(
            self.folder,
            self.manifest,
            self._samples if samples is None else samples,
            self._layers if layers is None else layers,
        )

    @property
    def verb(self) -> str:
        """eval, probe, diff, …"""
        return self.manifest.verb

    @property
    def label(self) -> str:
        """What the run calls its model."""
        return self.manifest.label

    @property
    def graft(self) -> Graft | None:
        """What the evaluated hybrid is made of; None for a checkpoint."""
        return self.manifest.config.graft

    @property
    def contents(self) -> list[str]:
        """Hashes of the models that the rows are about, a hybrid's receiver among them."""
        identity = self.manifest.identity
        if self.verb == "diff":
            return list(identity.checkpoints.values())
        if self.verb in (*SWEEPS, "forks"):
            return identity.models
        one = identity.model or identity.checkpoint
        return [one] if one else []

    @property
    def content(self) -> str:
        """The hash of the run's one model; empty for runs of several."""
        return self.contents[0] if len(self.contents) == 1 else ""

    @property
    def compared(self) -> list[str]:
        """Names of the run folders that a comparison is of."""
        folders = self.manifest.models.values() if self.verb == "compare" else ()
        return [Path(folder).name for folder in folders]

    @property
    def measured(self) -> list[str]:
        """The arms or methods: runs of one verb and model that share any count answers twice."""
        if self.verb == "forks":  # of two models each
            return [" ".join(self.contents)]
        config = self.manifest.config
        where = "" if config.part == "text" else f"{config.part}:"
        against = f" against {config.against}" if config.against else ""
        probed = [f"{where}{method}{against}" for method in config.methods]
        by_verb = {"eval": config.arms, "probe": probed}
        return by_verb.get(self.verb) or [self.verb]

    @property
    def paths(self) -> list[str]:
        """Where its checkpoints were."""
        with_paths = ("eval", "probe", "forks", *SWEEPS)
        return list(self.manifest.models.values()) if self.verb in with_paths else []

    @property
    def command(self) -> str:
        """The command line that made it; empty where a study did."""
        program, *rest = self.manifest.argv or [""]
        by_study = not program or program.endswith("worker.py")
        return "" if by_study else shlex.join(["franken", *rest])

    def name_of(self, content: str) -> str:
        """What this run calls the model of that hash; empty for a model that it does not know."""
        models, identity = self.manifest.models, self.manifest.identity
        if self.verb == "diff":
            stages = (stage for stage, c in identity.checkpoints.items() if c == content)
            return next((models.get(stage, stage) for stage in stages), "")
        if self.verb == "forks":  # labels and paths, in the order of the contents
            return dict(zip(self.contents, models.values(), strict=False)).get(content, "")
        if self.verb in SWEEPS:
            names = dict(zip(self.contents, ("base", "donor"), strict=True))
            return models.get(names.get(content, ""), "")
        if content and content == identity.donor:
            return models.get(f"donor of {self.label}", "")
        return next(iter(models.values()), "") if content == self.content else ""


def load_run(folder: str | Path) -> LoadedRun:
    """Read a finished run. Raises FrankenError if it is not finished, damaged, or of another
    schema.
    """
    folder = Path(folder)
    if not (folder / "run.json").exists():
        if by := writer(folder):
            fix = "wait until it is done"
            raise FrankenError(f"{folder} is not a finished run yet", f"{by} is writing it", fix)
        raise FrankenError(
            f"{folder} is not a finished run",
            why="it has no run.json",
            fix="run its command again; it resumes",
        )
    again = "run its command again with this version"
    manifest = read_record(folder / "run.json", Manifest, schema=SCHEMA, again=again)
    for name in ("samples.parquet", "layers.parquet"):
        if not (folder / name).exists():
            fix = "delete it and run its command again"
            raise FrankenError(f"{folder} is damaged", f"it has no {name}", fix)
    return LoadedRun(folder, manifest)
