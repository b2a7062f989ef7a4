"""The tables of the page: scores per checkpoint, paired comparisons, and what every run did and
failed at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from franken.errors import FrankenError
from franken.evaluate.metrics import compare_samples
from franken.layers import format_layers
from franken.report.ranges import effects
from franken.report.sources import folder_of, runs_of
from franken.report.tables.table import NOTHING, Cell, Table
from franken.report.theme import colour, name
from franken.report.verdicts import p_text, percent, points
from franken.runs import RunSet

if TYPE_CHECKING:
    import pandas as pd

RUN_FILES = ("run.json", "samples.parquet", "layers.parquet", "points.parquet")
LONGEST = 300  # characters of a reason
MOST = 3  # reasons of a run
FIRST = ("base", "sft", "rl", "control")  # the checkpoints at the top of the page
GROUP = "group-start"  # the first column of another kind


class Measured(NamedTuple):
    """A metric of a checkpoint in the image arm; `value` is nan where it was not measured."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Score:
    """A checkpoint's acc@1 at the top of the page."""

    name: str
    colour: str
    measured: Measured
    runs: tuple[str, ...]


def scores(runset: RunSet) -> list[Score]:
    """acc@1 of the stages and the control."""
    image = _image_rows(runset)
    return [
        Score(name(label), colour(label), cell, runs_of(runset, "eval", [label], "image"))
        for label in FIRST
        if (cell := _measured(image, label, "acc@1", "all")) is not None
    ]


def model_table(runset: RunSet) -> Table | None:
    """Checkpoints × metrics in the image arm, macro over tasks, then acc@1 per task."""
    image = _image_rows(runset)
    labels = [m for m in runset.study.models if len(image) and m in set(image["model"])]
    if not labels:
        return None
    ks = sorted({m for m in image["metric"] if str(m).startswith("acc@")}, key=lambda m: int(m[4:]))
    pooled = (*ks, "greedy", "format", "strategies")
    tasks = [t for t in dict.fromkeys(image["task"]) if t != "all"]
    columns = [*((metric, "all", "") for metric in pooled)]
    columns += [("acc@1", task, "" if place else GROUP) for place, task in enumerate(tasks)]
    rows = []
    for label in labels:
        runs = runs_of(runset, "eval", [label], "image")
        cells = [Cell(name(label), dot=colour(label))]
        for metric, task, mark in columns:
            measured = _measured(image, label, metric, task)
            cells.append(_cell(measured, runs, mark, counts=metric == "strategies"))
        rows.append(cells)
    heads = ["checkpoint", *pooled, *tasks]
    note = (
        "First the mean over tasks, then acc@1 per task, each with its 95 % interval over prompts."
    )
    return Table(heads, rows, "All numbers, image arm", note)


def _image_rows(runset: RunSet) -> pd.DataFrame:
    rows = runset.layers("eval")
    return rows.loc[rows["method"] == "image"]


def _measured(rows: pd.DataFrame, label: str, metric: str, task: str) -> Measured | None:
    """None without a row."""
    own = (rows["model"] == label) & (rows["metric"] == metric) & (rows["task"] == task)
    for row in rows.loc[own].head(1).to_dict("records"):
        return Measured(row["value"], row["ci_low"], row["ci_high"], int(row["n"]))
    return None


def _cell(measured: Measured | None, runs: tuple[str, ...], mark: str, *, counts: bool) -> Cell:
    if measured is None:
        return Cell(NOTHING, (), runs, mark)
    if measured.value != measured.value:
        return Cell(NOTHING, ("no data",), runs, mark)
    if counts:
        low, high = f"{measured.low:.2f}", f"{measured.high:.2f}"
        return Cell(f"{measured.value:.2f}", (f"{low} to {high}",), runs, mark)
    low, high = f"{100 * measured.low:.1f}", f"{100 * measured.high:.1f}"
    return Cell(percent(measured.value), (f"{low} to {high}",), runs, mark)


def comparison_tables(runset: RunSet) -> list[Table]:
    """Paired differences in acc@1 per task and pooled: RL against its parent and against the
    control, and the parent against the base.
    """
    parent = runset.study.parent
    tables = []
    for a, b in ((parent, "rl"), ("control", "rl"), ("base", parent)):
        left, right = runset.samples("eval", a), runset.samples("eval", b)
        if a == b or len(left) == 0 or len(right) == 0:
            continue
        try:
            compared = compare_samples(left, right, "acc@1")
        except FrankenError:  # the two share no prompt: nothing to compare
            continue
        own_a, own_b, both = (
            runs_of(runset, "eval", labels, "image") for labels in ([a], [b], [a, b])
        )
        rows = []
        for row in compared.to_dict("records"):
            total = "total" if row["task"] == "all" else ""
            span = f"{points(row['ci_low'])} to {points(row['ci_high'])}"
            rows.append(
                [
                    Cell("mean over tasks" if total else row["task"], mark=total),
                    Cell(percent(row["mean_a"]), (), own_a, total),
                    Cell(percent(row["mean_b"]), (), own_b, total),
                    Cell(points(row["diff"]), (), both, total),
                    Cell(span, (), both, total),
                    Cell(p_text(row["p_adjusted"]), (), both, total),
                    Cell(str(int(row["n"])), mark=total),
                ]
            )
        heads = ["task", name(a), name(b), "difference, points", "95 %", "p (Holm)", "n"]
        tables.append(Table(heads, rows, f"{name(b)} against {name(a)}"))
    return tables


def same_layers_table(runset: RunSet) -> Table | None:
    """Layer sets × (put in, put back, frozen): paired differences of acc@1, see `ranges.effects`;
    None without any.
    """
    shown = {(e.kind, e.layers): e for e in effects(runset)}
    if not shown:
        return None
    parent = name(runset.study.parent)
    columns = {
        "graft": f"put into {parent}, against {parent}",
        "revert": f"put back to {parent}, against RL",
        "freeze": "frozen in training, against RL",
    }
    rows = []
    for layers in sorted({layers for _, layers in shown}):
        cells = [Cell(format_layers(layers))]
        for kind in columns:
            e = shown.get((kind, layers))
            if e is None:
                cells.append(Cell(NOTHING, ("not run",)))
                continue
            span = f"{points(e.low)} to {points(e.high)}, n = {e.n}"
            runs = runs_of(runset, "eval", [e.against, e.label], "image")
            cells.append(Cell(points(e.diff), (span, p_text(e.p)), runs))
        rows.append(cells)
    note = (
        "acc@1, paired by prompt, in points with 95 % intervals; p by sign flips, Holm within a "
        "column."
    )
    return Table(["text layers", *columns.values()], rows, "The same layers, in numbers", note)


@dataclass(frozen=True)
class Account:
    """What became of one run: its files, what was requested, what came back, what failed or was
    left out and why, and the command.
    """

    folder: str
    files: Sequence[str]
    verb: str
    label: str
    requested: int
    ok: int
    failed: int
    ineligible: int
    why: Sequence[str]
    why_left: Sequence[str]
    seconds: float
    command: str
    warnings: Sequence[str]

    @property
    def href(self) -> str:
        """The folder as a link."""
        return quote(self.folder)


def accounting(runset: RunSet) -> list[Account]:
    """The account of every run."""
    commands = {folder: step.command for step in runset.study.steps for folder in step.folders}
    accounts = []
    for run in runset.runs:
        folder, samples, manifest = folder_of(runset, run), run.samples, run.manifest
        left = int(samples["ineligible"].notna().sum()) if "ineligible" in samples else 0
        files = [f for f in RUN_FILES if (run.folder / f).exists()]
        files += sorted(f"figures/{f.name}" for f in (run.folder / "figures").glob("*.png"))
        accounts.append(
            Account(
                folder,
                files,
                run.verb,
                run.label,
                manifest.n_requested,
                manifest.n_ok - left,
                manifest.n_failed,
                left,
                reasons(samples, "error"),
                reasons(samples, "ineligible"),
                manifest.seconds,
                commands.get(folder, ""),
                manifest.warnings,
            )
        )
    return accounts


def reasons(samples: pd.DataFrame, column: str) -> list[str]:
    """The most frequent reasons with how often each was given, and how many more there are."""
    if column not in samples:
        return []
    counts = samples[column].dropna().value_counts()
    listed = [f"{str(why)[:LONGEST]} ({count})" for why, count in counts.head(MOST).items()]
    rest = len(counts) - len(listed)
    return listed + ([f"and {rest} other reasons, see samples.parquet"] if rest else [])


class Totals(NamedTuple):
    """Rows over all runs."""

    requested: int
    ok: int
    failed: int
    ineligible: int


def totals(accounts: Sequence[Account]) -> Totals:
    """The accounts together."""
    return Totals(*(sum(getattr(a, field) for a in accounts) for field in Totals._fields))
