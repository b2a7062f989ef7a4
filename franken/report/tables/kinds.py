"""The tables of `franken show`: a run's own numbers, and the papers' layouts where a run holds
their data.

    summary        every verb: all metrics over all tasks          tasks       the same for each
                   task
    hybrids        Frankenstein (arXiv 2602.12395), table 2         freezing    its table 3
    m-scores       its M_vis, M_v2r, M_rea                          acc@k       MUPO (arXiv
                   2604.00479), table 1
    diversity      its figures 2 and 3 as numbers                   modality    image or text, arXiv
                   2601.00215, table 3
    perception     perception or reasoning                          designs     its table 2, from
                   training runs

A table is made of the rows of layers.parquet where they are there, else of the stored answers;
nothing is asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from franken.errors import UsageError, did_you_mean
from franken.evaluate.compare import MINUS
from franken.report.tables import layouts as papers
from franken.report.tables.table import Table
from franken.runs import LoadedRun
from franken.runs import RunSet as Holdings

Frame = Any
WIDE = 8  # more metrics than this run down, not across
SUMMED = ("all", None)


@dataclass(frozen=True)
class Kind:
    """A table that can be asked for. `able` says whether the folder has its data, without making
    it.
    """

    name: str
    what: str
    able: Callable[[Holdings], bool]
    make: Callable[[Holdings], list[Table]]


def summary(found: Holdings) -> list[Table]:
    """All metrics over all tasks, a table a verb; training runs by their held-out scores, a freeze
    study by its arms.
    """
    return [*_of_verbs(found, whole=True), *papers.training(found), *papers.freeze_study(found)]


def tasks(found: Holdings) -> list[Table]:
    """All metrics of every single task, a table a verb."""
    return _of_verbs(found, whole=False)


def _always(found: Holdings) -> bool:
    return bool(found.runs or found.training or found.freezing)


KINDS = (
    Kind("summary", "all metrics over all tasks (the default)", _always, summary),
    Kind("tasks", "all metrics of each task", lambda f: bool(f.runs), tasks),
    Kind(
        "hybrids",
        "hybrids beside their parents, as Frankenstein's table 2",
        papers.has_hybrids,
        papers.hybrids,
    ),
    Kind(
        "m-scores",
        "M_vis, M_v2r, M_rea by model, as Frankenstein's table 3",
        papers.has_m_scores,
        papers.m_scores,
    ),
    Kind(
        "freezing",
        "layer sets frozen or merged, as Frankenstein's table 3",
        papers.has_freezing,
        papers.freezing,
    ),
    Kind(
        "acc@k",
        "acc@1/acc@k by model and task, as MUPO's table 1",
        papers.has_draws,
        papers.acc_at_k,
    ),
    Kind(
        "diversity",
        "diversity beside acc@k by model, MUPO's figures 2 and 3",
        papers.has_diversity,
        papers.diversity,
    ),
    Kind(
        "modality",
        "image or text by task, as table 3 of arXiv 2601.00215",
        papers.has_modality,
        papers.modality,
    ),
    Kind(
        "perception",
        "perception or reasoning: the decomposition",
        papers.has_perception,
        papers.perception,
    ),
    Kind(
        "designs",
        "rewards and what they reached, as table 2 of arXiv 2601.00215",
        papers.has_designs,
        papers.designs,
    ),
)


def tables(found: Holdings, name: str = "summary") -> list[Table]:
    """The tables of a name. Raises UsageError for a name that is none, or that this folder has no
    data for.
    """
    kind = next((k for k in KINDS if k.name == name), None)
    if kind and kind.able(found) and (made := kind.make(found)):
        return made
    can = [k.name for k in KINDS if k is not kind and k.able(found)]
    shown = ", ".join(can) or "nothing"
    if kind is None:
        guess = did_you_mean(name, can) or did_you_mean(name, [k.name for k in KINDS])
        raise UsageError(
            f"unknown table {name!r}",
            f"this folder can show {shown}",
            guess or "choose one of these",
        )
    raise UsageError(
        f"this folder holds no data for {name!r} ({kind.what})", "", f"it can show {shown}"
    )


def accounts(found: Holdings) -> list[str]:
    """One line a run that lacks samples, and one for runs that are not finished: how many, and why."""
    lines = []
    for run in found.runs:
        manifest = run.manifest
        samples: Any = run.samples
        left = int(samples["ineligible"].notna().sum()) if "ineligible" in samples else 0
        if not (manifest.n_failed or left):
            continue
        errors = samples["error"].value_counts().head(3).to_dict() if "error" in samples else {}
        why = "; ".join(f"{text} ({n})" for text, n in errors.items())
        line = f"{run.folder.name}: {manifest.n_failed} of {manifest.n_requested} failed"
        lines.append(line + (f", {left} ineligible" if left else "") + (f": {why}" if why else ""))
    if found.unfinished:
        lines.append(f"not finished and left out: {', '.join(f.name for f in found.unfinished)}")
    return lines


def _of_verbs(found: Holdings, *, whole: bool) -> list[Table]:
    import pandas as pd

    made = []
    for verb in dict.fromkeys(run.verb for run in found.runs):
        runs = [r for r in found.of(verb) if len(r.layers)]
        rows = pd.concat([_named(r) for r in runs], ignore_index=True) if runs else pd.DataFrame()
        if not len(rows):
            continue
        pooled: Any = rows["task"].isna() | (rows["task"] == "all")
        rows = rows[pooled] if whole and pooled.any() else rows if whole else rows[~pooled]
        note = counts(found.of(verb))
        labels = list(dict.fromkeys(r.label for r in runs))
        title = f"{verb}: {', '.join(labels) if len(labels) < 5 else f'{len(labels)} of them'}"
        for name, part in _split(verb, rows, runs):
            made.append(
                _plain(
                    " ".join((verb, name)).strip(),
                    ", ".join((title, name)) if name else title,
                    part,
                    note,
                )
            )
    return made


def _split(verb: str, rows: Frame, runs: list[LoadedRun]) -> list[tuple[str, Frame]]:
    """Rows that make one readable table each: by method where methods have metrics of their own,
    differences by themselves.
    """
    if verb in ("probe", "probe-compare"):
        return [(str(method), part) for method, part in rows.groupby("method", sort=False)]
    if verb == "compare":
        models = {name for run in runs for name in run.manifest.config.models}
        measured, differences = (
            rows["model"].isin(models),
            rows["model"].str.contains(MINUS, regex=False),
        )
        parts = [
            ("", rows[measured]),
            ("differences", rows[differences]),
            ("beside", rows[~measured & ~differences]),
        ]
        return [(name, part) for name, part in parts if len(part)]
    return [("", rows)] if len(rows) else []


def _plain(verb: str, title: str, rows: Frame, note: str) -> Table:
    """Rows of layers.parquet as they are; keys that say nothing are left out."""
    totals = rows["component"] == "all"
    groups = ~rows["component"].str.contains("head ")  # of a patch's token groups, not each head
    rows = rows[totals] if totals.any() else rows[groups] if groups.any() else rows
    says = [
        k
        for k in ("run", "model", "method", "part", "layer", "component", "task")
        if rows[k].nunique(dropna=False) > 1
    ]
    others = [k for k in says if k != "run"] or ["model"]
    says = says if rows.duplicated([*others, "metric"]).any() else others
    if rows["metric"].nunique() > WIDE and rows["model"].nunique() > 1:
        down = [k for k in says if k not in ("run", "model")]
        return Table(verb, title, rows, (*down, "metric"), ("model",), note=note)
    if rows["metric"].nunique() > WIDE:
        return Table(
            verb, title, rows.assign(measured="value"), (*says, "metric"), ("measured",), note=note
        )
    return Table(verb, title, rows, tuple(says) or ("model",), ("metric",), note=note)


def _named(run: LoadedRun) -> Frame:
    return run.layers.assign(run=run.folder.name, verb=run.verb)


def counts(runs: list[LoadedRun]) -> str:
    """`3000 requested, 2998 ok, 2 failed.` over some runs."""
    manifests = [run.manifest for run in runs]
    requested, ok = (sum(m.n_requested for m in manifests), sum(m.n_ok for m in manifests))
    return f"{requested} requested, {ok} ok, {sum(m.n_failed for m in manifests)} failed."
