"""Which runs are here, of which checkpoints, how they are related, and what is unfinished.

    runs = open_runs("runs")                   everything at or below some folders
    runs.of("eval", "regrade")                 the finished runs of some verbs
    runs.layers("probe"), runs.samples("eval") their tidy tables, one below the other
    runs.models("eval")                        whose answers are here
    runs.training, runs.freezing               training runs, summaries of freeze studies
    runs.unfinished                            what to run again
    runs.lineage()                             which checkpoint is base, sft and rl
    runs.frozen()                              which text layers a checkpoint had frozen

`open_study(folder)` is the same over the runs that a study's record names: in its order, with the
models called by the study's labels; `missing` are those that are gone. Rows are read when they are
first asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from franken.errors import UsageError, did_you_mean
from franken.runs.folder import IDENTITY
from franken.runs.lineage import STAGES, Frozen, Lineage, Said, frozen_by_content, infer_stages
from franken.runs.loaded import LoadedRun, load_run
from franken.runs.manifest import Manifest
from franken.runs.record import FILE, StepRecord, Study, read_study
from franken.runs.rows import LAYER_COLUMNS
from franken.runs.training import RECIPE, SUMMARY, TrainingRun

if TYPE_CHECKING:
    import pandas as pd

    Answers = dict[str, pd.DataFrame]
    """All answers of each model, as rows of samples.parquet."""

ANSWERS = ("eval", "regrade")
"""The verbs whose samples are answers."""
FREEZE_SUMMARY = "summary.csv"
FREEZE_COLUMNS = ("kind", "arm", "layers", "metric", "value", "minus_none", "minus_start")
"""The columns that tell the summary of a freeze study from any other CSV file."""


@dataclass
class RunSet:
    """Finished runs, and what lies beside them. See the module's docstring for its use.

    `folder` is the one that was opened, `record` that of a study in it, `missing` the runs that the
    record names and that are gone (relative to the folder).
    """

    folder: Path
    runs: list[LoadedRun] = field(default_factory=list)
    training: list[TrainingRun] = field(default_factory=list)
    freezing: "list[pd.DataFrame]" = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    record: Study | None = None
    missing: list[str] = field(default_factory=list)

    @property
    def study(self) -> Study:
        """The record of the study. Raises UsageError where there is none."""
        if self.record is None:
            raise UsageError(f"{self.folder} holds no study", f"there is no {FILE}")
        return self.record

    def of(self, *verbs: str) -> list[LoadedRun]:
        """The runs of some verbs."""
        return [run for run in self.runs if run.verb in verbs]

    def layers(self, *verbs: str) -> "pd.DataFrame":
        """The rows of layers.parquet of all runs of some verbs; without any, the empty table."""
        return _joined([run.layers for run in self.of(*verbs)], LAYER_COLUMNS)

    def samples(self, verb: str, model: str | None = None) -> "pd.DataFrame":
        """The rows of samples.parquet of all runs of a verb, or of one model's."""
        table = _joined([run.samples for run in self.of(verb)])
        return table[table["model"] == model] if model is not None and len(table) else table

    def models(self, verb: str) -> list[str]:
        """Labels with rows of a verb, in the order of the runs."""
        table = self.samples(verb)
        return list(dict.fromkeys(table["model"])) if len(table) else []

    def manifest(self, verb: str, model: str) -> Manifest | None:
        """The manifest of the first run of a verb that holds this model's rows."""
        return next((run.manifest for run in self.of(verb) if model in _models_of(run)), None)

    def arms(self) -> dict[str, set[str]]:
        """Model → the arms in which it was evaluated."""
        arms: dict[str, set[str]] = {}
        for run in self.of(*ANSWERS):
            for model, arm in _answered(run):
                arms.setdefault(model, set()).add(arm)
        return arms

    def answers(self) -> "Answers":
        """Model → all its answers, in the order of the study where there is one.

        Two runs that evaluated the same model in the same arm are told apart by their folders'
        names.
        """
        import pandas as pd

        runs = self.of(*ANSWERS)
        sources: dict[tuple[str, str], set[str]] = {}
        for run in runs:
            for key in _answered(run):
                sources.setdefault(key, set()).add(run.folder.name)
        twice = {model for (model, _), folders in sources.items() if len(folders) > 1}
        parts: dict[str, list[pd.DataFrame]] = {}
        for run in runs:
            for model, rows in run.samples.groupby("model", sort=False):
                name = f"{model} ({run.folder.name})" if model in twice else str(model)
                parts.setdefault(name, []).append(rows)
        tables = {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}
        return {name: tables[name] for name in _in_order(tables, self.record)}

    def lineage(self, said: Said = Said()) -> Lineage:
        """Which checkpoint is base, sft and rl, by content hash, but for what is `said`.

        Raises UsageError where it cannot be told.
        """
        return infer_stages(self.runs, said)

    def frozen(self) -> Frozen:
        """Which text layers the checkpoints of the training runs had frozen, by content hash."""
        return frozen_by_content(self.training)


def open_runs(*paths: str | Path) -> RunSet:
    """Everything at or below some folders, each a run folder or one that holds some.

    Where one folder holds the record of a study, models of its runs carry the study's labels.
    Folders and files that begin with a dot are passed over. Raises UsageError for a folder that is
    not there, FrankenError for a run that is damaged or of another schema.
    """
    roots = [Path(path) for path in paths]
    for root in roots:
        _check_folder(root)
    finished = dict.fromkeys(file.parent.resolve() for file in _below(roots, "run.json"))
    record = None
    if len(roots) == 1 and (roots[0] / FILE).exists():
        record = read_study(roots[0])
    labels = _steps_by_folder(roots[0], record) if record else {}
    return RunSet(
        roots[0],
        [run for folder in finished for run in _labelled_by(folder, labels.get(folder, []))],
        [TrainingRun(file.parent) for file in _below(roots, SUMMARY)],
        [table for file in _below(roots, FREEZE_SUMMARY) if (table := _freezing(file)) is not None],
        [
            *(f.parent for f in _below(roots, IDENTITY) if not (f.parent / "run.json").exists()),
            *(f.parent for f in _below(roots, RECIPE) if not (f.parent / SUMMARY).exists()),
        ],
        record,
    )


def open_study(folder: Path) -> RunSet:
    """The runs that the record of a study names, models under the study's labels.

    Raises FrankenError where there is no study.
    """
    study = read_study(folder)
    steps = _steps_by_folder(folder, study)
    here = [name for name in study.folders() if (folder / name / "run.json").exists()]
    runs = [
        run
        for name in here
        for run in _labelled_by(folder / name, steps[(folder / name).resolve()])
    ]
    missing = [name for name in study.folders() if name not in here]
    return RunSet(folder, runs, record=study, missing=missing)


def load_runs(
    root: str | Path,
    *,
    verb: str | Sequence[str] = (),
    model: str | Sequence[str] = (),
    samples: bool = False,
) -> "pd.DataFrame":
    """All finished runs below `root` as one tidy table, with the columns run, verb and label in
    front.

    A row a measurement (the columns of layers.parquet), or with `samples` a row an answer, those
    that failed included, with their `error`. What is not known is null. `verb` and `model` keep
    only those. Raises UsageError for a folder that is not there, and for a verb or model that no
    run has.

    >>> run = franken.diff("creature:base", "creature:sft", layers="text:0-2")
    >>> table = franken.load_runs("runs", verb="diff")
    >>> list(table.columns[:4]), table["layer"].dropna().unique().tolist()
    (['run', 'verb', 'label', 'model'], [0, 1])
    """
    _check_folder(Path(root))
    runs = [load_run(file.parent) for file in _below([Path(root)], "run.json")]
    verbs = [verb] if isinstance(verb, str) and verb else list(verb)
    _check_known(verbs, {run.verb for run in runs}, "verb")
    frames = []
    for run in runs:
        if not verbs or run.verb in verbs:
            frame = (run.samples if samples else run.layers).copy()
            for place, (name, value) in enumerate(
                (("run", run.folder.name), ("verb", run.verb), ("label", run.label))
            ):
                frame.insert(place, name, value)
            frames.append(frame)
    table = _joined(frames, ("run", "verb", "label", *LAYER_COLUMNS))
    models = [model] if isinstance(model, str) and model else list(model)
    if models:
        _check_known(models, set(table["model"].dropna()) if "model" in table else set(), "model")
        table = table[table["model"].isin(models)].reset_index(drop=True)
    return table


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        fix = "give a run folder, or one that holds run folders"
        raise UsageError(f"there is no folder {root}", fix=fix)


def _below(roots: Iterable[Path], name: str) -> Iterator[Path]:
    """All files of a name at the folders and below, each folder's in order."""
    for root in roots:
        for file in sorted(root.rglob(name)):
            if not any(part.startswith(".") for part in file.relative_to(root).parts):
                yield file


def _steps_by_folder(folder: Path, study: Study) -> dict[Path, list[StepRecord]]:
    steps: dict[Path, list[StepRecord]] = {}
    for step in study.steps:
        for name in step.folders:
            steps.setdefault((folder / name).resolve(), []).append(step)
    return steps


def _labelled_by(folder: Path, steps: Sequence[StepRecord]) -> list[LoadedRun]:
    """A run as each of its steps calls it: one run is of two models where two stages are the same
    checkpoint.
    """
    run = load_run(folder)
    return [_labelled(run, step) for step in steps] or [run]


def _labelled(run: LoadedRun, step: StepRecord) -> LoadedRun:
    """The run with its models called by the study's labels: runs know checkpoints by the names of
    their folders. A run of several models has each renamed, in differences `B - A` too.
    """
    if not (step.model or step.rename):
        return run

    def relabelled(table: "pd.DataFrame", always: bool) -> "pd.DataFrame":
        if step.model:
            return table.assign(model=step.model) if always or "model" in table else table
        if "model" not in table:
            return table
        names = {
            old: " - ".join(step.rename.get(part, part) for part in str(old).split(" - "))
            for old in table["model"].dropna().unique()
        }
        return table.assign(model=table["model"].map(names))

    return run.with_rows(
        samples=relabelled(run.samples, always=False), layers=relabelled(run.layers, always=True)
    )


def _in_order(names: Iterable[str], study: Study | None) -> list[str]:
    """Names in the order of the study: the parents, its hybrids, rl, the other checkpoints; then
    what it does not know.
    """
    names = list(names)
    if study is None:
        return names
    *parents, last = STAGES
    others = [label for label in study.models if label not in STAGES]
    known = dict.fromkeys([*parents, *study.hybrids, last, *others])
    return [*(n for n in known if n in names), *(n for n in names if n not in known)]


def _answered(run: LoadedRun) -> list[tuple[str, str]]:
    """(model, arm) of the run's answers, each once."""
    pairs = run.answers("model", "method")[["model", "method"]].drop_duplicates()
    return [(str(model), str(arm)) for model, arm in pairs.itertuples(index=False)]


def _models_of(run: LoadedRun) -> set[str]:
    return set(run.samples["model"]) if "model" in run.samples else set()


def _joined(frames: "Sequence[pd.DataFrame]", columns: Sequence[str] = ()) -> "pd.DataFrame":
    """Tables one below the other, the empty ones left out; without any, one of these columns."""
    import pandas as pd

    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(columns))


def _freezing(file: Path) -> "pd.DataFrame | None":
    """The summary of a freeze study; None for a CSV file of anything else."""
    import pandas as pd

    table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    if not set(FREEZE_COLUMNS) <= set(table.columns):
        return None
    text = {name: table[name].fillna("") for name in ("kind", "layers")}
    return table.assign(**text, run=file.parent.name)


def _check_known(wanted: Sequence[str], known: set[str], what: str) -> None:
    for name in wanted:
        if name not in known:
            there = f"there are {', '.join(sorted(known)) or 'none'}"
            raise UsageError(f"no run has the {what} {name!r}", there, did_you_mean(name, known))
