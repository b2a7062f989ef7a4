"""The tables of `franken show`: a run's own numbers, and the papers' layouts where a run holds
their data.

A table is made of the rows of layers.parquet where they are there, else of the stored answers;
no model is run again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from franken.errors import UsageError, unknown
from franken.evaluate.compare import MINUS
from franken.lock import writer
from franken.report.tables import layouts
from franken.report.tables.forks import forks, has_forks
from franken.report.tables.measurements import Measurements
from franken.runs import LoadedRun, RunSet

WIDE = 8  # more metrics than this run down, not across


@dataclass(frozen=True)
class Kind:
    """A table by its name. `able` says whether the folder has its data, without making it."""

    name: str
    what: str
    able: Callable[[RunSet], bool]
    make: Callable[[RunSet], list[Measurements]]


def summary(runset: RunSet) -> list[Measurements]:
    """All metrics over all tasks, a table a verb; training runs by their held-out scores, a freeze
    study by its arms.
    """
    return [
        *_of_verbs(runset, whole=True),
        *layouts.training(runset),
        *layouts.freeze_study(runset),
    ]


def tasks(runset: RunSet) -> list[Measurements]:
    """All metrics of every single task, a table a verb."""
    return _of_verbs(runset, whole=False)


KINDS = (
    Kind(
        "summary",
        "all metrics over all tasks (the default)",
        lambda runset: bool(runset.runs or runset.training or runset.freezing),
        summary,
    ),
    Kind("tasks", "all metrics of each task", lambda runset: bool(runset.runs), tasks),
    Kind(
        "hybrids",
        "hybrids beside their parents, as Frankenstein's table 2",
        layouts.has_hybrids,
        layouts.hybrids,
    ),
    Kind(
        "m-scores",
        "M_vis, M_v2r, M_rea by model, as Frankenstein's table 3",
        layouts.has_m_scores,
        layouts.m_scores,
    ),
    Kind(
        "freezing",
        "layer sets frozen or merged, as Frankenstein's table 3",
        layouts.has_freezing,
        layouts.freezing,
    ),
    Kind(
        "acc@k",
        "acc@1/acc@k by model and task, as MUPO's table 1",
        layouts.has_draws,
        layouts.acc_at_k,
    ),
    Kind(
        "diversity",
        "diversity beside acc@k by model, MUPO's figures 2 and 3",
        layouts.has_diversity,
        layouts.diversity,
    ),
    Kind(
        "modality",
        "image or text by task, as table 3 of arXiv 2601.00215",
        layouts.has_modality,
        layouts.modality,
    ),
    Kind(
        "perception",
        "perception or reasoning: the decomposition",
        layouts.has_perception,
        layouts.perception,
    ),
    Kind(
        "designs",
        "rewards and what they reached, as table 2 of arXiv 2601.00215",
        layouts.has_designs,
        layouts.designs,
    ),
    Kind("forks", "where two models part, and what those places carry", has_forks, forks),
)


def tables(runset: RunSet, name: str = "summary") -> list[Measurements]:
    """The tables of a name. Raises UsageError for a name that is none, or that this folder has no
    data for.
    """
    kind = next((k for k in KINDS if k.name == name), None)
    if kind and kind.able(runset) and (made := kind.make(runset)):
        return made
    can = [k.name for k in KINDS if k is not kind and k.able(runset)]
    shown = ", ".join(can) or "nothing"
    if kind is None:
        raise unknown("table", name, [k.name for k in KINDS], why=f"this folder can show {shown}")
    raise UsageError(
        f"this folder holds no data for {name!r} ({kind.what})", "", f"it can show {shown}"
    )


def accounts(runset: RunSet) -> list[str]:
    """One line a run that lacks samples, and one for runs that are not finished: how many, and
    why.
    """
    lines = []
    for run in runset.runs:
        manifest, samples = run.manifest, run.samples
        left = int(samples["ineligible"].notna().sum()) if "ineligible" in samples else 0
        if not (manifest.n_failed or left):
            continue
        errors = samples["error"].value_counts().head(3).to_dict() if "error" in samples else {}
        why = "; ".join(f"{text} ({n})" for text, n in errors.items())
        line = f"{run.folder.name}: {manifest.n_failed} of {manifest.n_requested} failed"
        lines.append(line + (f", {left} ineligible" if left else "") + (f": {why}" if why else ""))
    if runset.unfinished:
        names = [
            f"{folder.name} ({by} is writing it)" if (by := writer(folder)) else folder.name
            for folder in runset.unfinished
        ]
        lines.append(f"not finished and left out: {', '.join(names)}")
    return lines


def _of_verbs(runset: RunSet, *, whole: bool) -> list[Measurements]:
    made = []
    for verb in dict.fromkeys(run.verb for run in runset.runs):
        runs = [r for r in runset.of(verb) if len(r.layers)]
        if not runs:
            continue
        rows = pd.concat([r.layers.assign(run=r.folder.name) for r in runs], ignore_index=True)
        pooled = rows["task"].isna() | (rows["task"] == "all")
        rows = rows[~pooled] if not whole else rows[pooled] if pooled.any() else rows
        counts = [
            (m.n_requested, m.n_ok, m.n_failed) for m in (r.manifest for r in runset.of(verb))
        ]
        note = "{} requested, {} ok, {} failed.".format(*map(sum, zip(*counts, strict=True)))
        labels = list(dict.fromkeys(r.label for r in runs))
        title = f"{verb}: {', '.join(labels) if len(labels) < 5 else f'{len(labels)} of them'}"
        for name, part in _split(verb, rows, runs):
            full = ", ".join((title, name)) if name else title
            made.append(_plain(f"{verb} {name}".strip(), full, part, note))
    return made


def _split(verb: str, rows: pd.DataFrame, runs: list[LoadedRun]) -> list[tuple[str, pd.DataFrame]]:
    """Rows that make one readable table each: by method where methods have metrics of their own,
    differences by themselves.
    """
    if verb in ("probe", "probe-compare"):
        return [(str(method), part) for method, part in rows.groupby("method", sort=False)]
    if verb != "compare":
        return [("", rows)] if len(rows) else []
    models = {name for run in runs for name in run.manifest.config.models}
    measured = rows["model"].isin(models)
    differences = rows["model"].str.contains(MINUS, regex=False)
    parts = [
        ("", rows[measured]),
        ("differences", rows[differences]),
        ("beside", rows[~measured & ~differences]),
    ]
    return [(name, part) for name, part in parts if len(part)]


def _plain(name: str, title: str, rows: pd.DataFrame, note: str) -> Measurements:
    """Rows of layers.parquet as they are; keys that say nothing are left out."""
    totals = rows["component"] == "all"
    groups = ~rows["component"].str.contains("head ")  # of a patch's token groups, not each head
    rows = rows[totals] if totals.any() else rows[groups] if groups.any() else rows
    keys = ("run", "model", "method", "part", "layer", "component", "task")
    down = tuple(k for k in keys if rows[k].nunique(dropna=False) > 1)
    others = tuple(k for k in down if k != "run") or ("model",)
    if not rows.duplicated([*others, "metric"]).any():
        down = others
    across = ("metric",)
    if rows["metric"].nunique() > WIDE and rows["model"].nunique() > 1:
        down, across = (*(k for k in down if k not in ("run", "model")), "metric"), ("model",)
    elif rows["metric"].nunique() > WIDE:
        rows, down, across = rows.assign(measured="value"), (*down, "metric"), ("measured",)
    return Measurements(name, title, rows, down or ("model",), across, note=note)
