"""`franken regrade`: judge the stored answers of an evaluation again, without a model.

The source run is never touched: the result is a run of its own, whose identity holds what was
graded (the hash of its samples) and by what (the hash of the graders' source, or the judge). It
says how many verdicts changed, and in which direction. What a verdict needs stands in the row; rows
of older runs, and of image pairs, are rebuilt from what the run recorded (seed, folder). A row
whose question cannot be found again is an error, and so is one on which the judge failed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from franken.errors import FrankenError, UsageError
from franken.evaluate.arms import DESCRIBE
from franken.evaluate.metrics import RIGHT, summarise
from franken.evaluate.rows import description_columns
from franken.tasks import Grade, Item, grade
from franken.tasks.grading import extract, is_well_formed
from franken.tasks.vision_functionality import is_public

if TYPE_CHECKING:
    from franken.runs import LoadedRun
    from franken.tasks.judge import Judge

Progress = Callable[[int, int, str], None]
Row = dict[str, Any]
GRADERS = ("graders", "puzzles", "grading.py", "grid_puzzles.py", "vision_functionality.py")


class Change(NamedTuple):
    """An answer whose score the graders of today change: who gave it to what, the scores and their
    reasons before and now. A score is None where an error stands instead.
    """

    model: str
    method: str
    task: str
    sample: str
    draw: int
    gold: str
    before: float | None
    now: float | None
    reason_before: str
    reason_now: str


def preview(folder: str | Path, judge: Judge | None = None) -> dict[str, Any]:
    """What regrading would do: how many answers, which verdicts the rules change, and what a judge
    would be sent. Writes nothing.
    """
    from franken.tasks.judge import cached

    run = _source(folder)
    rows = _rows(run)
    items = _items(run, rows)
    done = [_by_rules(row, items) for row in rows]
    found: dict[str, Any] = {
        "run": str(run.folder),
        "answers": sum(map(_gradable, rows)),
        "changes": changes(rows, done),
        "changed": [change._asdict() for change in changed(rows, done)],
    }
    if judge is not None:
        prompts = list(dict.fromkeys(p for row in done if (p := _prompt(row, items)) is not None))
        known = cached(judge, prompts)
        found["judge"] = {
            "model": judge.model,
            "url": judge.endpoint.url,
            "prompts": len(prompts),
            "cached": known,
        }
    return found


def regrade(
    folder: str | Path,
    *,
    judge: Judge | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Judge a finished `eval` (or regraded) run again; returns the folder of the new run.

    With a judge its verdict is the score, and that of the rules stands beside it as `rule_score`.
    `out` is the folder of run folders (default: that of the source). Errors of a judge are tried
    again by regrading the new run.

    Raises UsageError for a run of another verb, FrankenError for an unfinished one or when a judge
    answers nothing.
    """
    from franken.runs import open_run

    run = _source(folder)
    source = hashlib.sha256((run.folder / "samples.parquet").read_bytes()).hexdigest()
    identity: Row = {"source": source, "graders": graders_digest()}
    if judge is not None:
        identity["judge"] = {"url": judge.endpoint.url, "model": judge.model}
    label = run.label
    config = {
        **run.manifest.config.stored(),
        "source": str(run.folder),
        "judge": judge.model if judge else None,
    }
    models = {
        k: str((run.folder / v).resolve()) if v.startswith("..") else v
        for k, v in run.manifest.models.items()
    }
    target = open_run(
        "regrade", label, identity, out or run.folder.parent.parent, config=config, models=models
    )
    if target.is_complete():
        return target.folder
    rows = _rows(run)
    items = _items(run, rows)
    done = [_by_rules(row, items) for row in rows]
    if judge is not None:
        done = _by_judge(done, items, judge, progress)
    if not target.rows():
        target.append(done)
    stored = target.rows()
    import pandas as pd

    table = pd.DataFrame(stored)
    extra = {"source": str(run.folder), "changes": changes(rows, stored)}
    k = tuple(run.manifest.config.acc_at)
    return target.finish(summarise(table, k=k), n_requested=run.manifest.n_requested, extra=extra)


def changes(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, int]]:
    """How many verdicts changed, per task and for `all`: wrong to right, right to wrong, to and
    from an error.
    """
    found: dict[str, Counter[str]] = {"all": Counter()}
    for old, new in zip(before, after, strict=True):
        states = _state(old), _state(new)
        if states == ("none", "none"):
            continue
        name = "unchanged" if states[0] == states[1] else f"{states[0]}_to_{states[1]}"
        for key in ("all", str(old["task"])):
            found.setdefault(key, Counter())[name] += 1
    kinds = ("unchanged", "wrong_to_right", "right_to_wrong")
    return {
        task: {**{k: counts[k] for k in kinds}, **dict(counts)} for task, counts in found.items()
    }


def changed(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[Change]:
    """The answers whose score differs, with both reasons, in the order of the rows."""
    return [
        Change(
            str(old.get("model") or ""),
            str(old.get("method") or ""),
            str(old["task"]),
            str(old.get("sample") or ""),
            int(old.get("draw") or 0),
            str(old.get("gold") or ""),
            None if old.get("error") is not None else old.get("score"),
            None if new.get("error") is not None else new.get("score"),
            str(old.get("error") or old.get("reason") or ""),
            str(new.get("error") or new.get("reason") or ""),
        )
        for old, new in zip(before, after, strict=True)
        if _state(old) != _state(new) or old.get("score") != new.get("score")
    ]


def changed_by(regraded: str | Path, source: str | Path) -> list[Change]:
    """What a regraded run changed in the run that it was made from."""
    return changed(_rows(_source(source)), _rows(_source(regraded)))


def graders_digest() -> str:
    """The hash of the source of everything that gives verdicts, so that other graders make another
    run.
    """
    room = Path(__file__).parents[1] / "tasks"
    files = [
        f
        for name in GRADERS
        for f in ([room / name] if name.endswith(".py") else sorted((room / name).rglob("*.py")))
    ]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(room).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _state(row: Mapping[str, Any]) -> str:
    if row.get("error") is not None:
        return "error"
    return "none" if row.get("score") is None else "right" if row["score"] > RIGHT else "wrong"


def _source(folder: str | Path) -> LoadedRun:
    from franken.runs import load_run

    run = load_run(folder)
    if run.verb not in ("eval", "regrade"):
        raise UsageError(
            f"{folder} holds no answers to grade",
            f"it is a run of `{run.verb}`",
            "give a run of `franken eval`",
        )
    return run


def _rows(run: LoadedRun) -> list[Row]:
    table = run.samples.astype(object)
    return table.where(table.notna(), None).to_dict("records")  # pyright: ignore[reportReturnType]


def _gradable(row: Mapping[str, Any]) -> bool:
    """An answer was given, and it was graded or should have been; descriptions and the like carry
    no verdict.
    """
    return row.get("output") is not None and (
        row.get("score") is not None or row.get("error") is not None
    )


def _items(run: LoadedRun, rows: Sequence[Row]) -> dict[str, Item]:
    """The items of a run by their id: rebuilt where a rule needs more than the row carries, else
    from the row.
    """
    from franken.tasks.sources import load_tasks

    config = run.manifest.config
    rebuilt = any(
        is_public(r["task"]) or "answer_type" not in r or r["method"] == DESCRIBE
        for r in rows
        if _gradable(r)
    )
    items = (
        load_tasks(config.tasks or (), config.samples or 0, config.seed, config.data)
        if rebuilt
        else []
    )
    known = {item.id: item for item in items}
    for row in rows:
        if row["sample"] not in known and row.get("answer_type"):
            options = tuple(json.loads(row["options"])) if row.get("options") else ()
            known[row["sample"]] = Item(
                row["sample"],
                row["task"],
                row.get("question") or "",
                row["gold"],
                options=options,
                answer_type=row["answer_type"],
                tolerance=float(row.get("tolerance") or 0),
            )
    return known


def _item(row: Row, items: Mapping[str, Item]) -> Item | None:
    item = items.get(row["sample"])
    return item if item is None or item.answer == row["gold"] else replace(item, answer=row["gold"])


def _by_rules(row: Row, items: Mapping[str, Item]) -> Row:
    if not _gradable(row):
        return dict(row)
    item = _item(row, items)
    if item is None or (row["method"] == DESCRIBE and item.state is None):
        return {**row, "score": None, "error": "its question cannot be found again"}
    if row["method"] == DESCRIBE:
        return {**row, **description_columns(row["output"], item), "error": None}
    try:
        verdict = grade(row["output"], item)
    except ValueError as e:  # the right answer is not of the row's type
        return {**row, "score": None, "error": str(e)}
    return {**row, **_columns(verdict), "error": None}


def _columns(verdict: Grade) -> Row:
    return {
        "answer": verdict.answer,
        "score": float(verdict.score),
        "reason": verdict.reason,
        "well_formed": bool(verdict.well_formed),
    }


def _prompt(row: Row, items: Mapping[str, Item]) -> str | None:
    """What the judge is asked about a row; None when there is nothing to ask."""
    from franken.tasks.judge import prompt_of

    item, answer = (
        _item(row, items),
        extract(row["output"]) if row.get("output") is not None else None,
    )
    if item is None or row.get("score") is None or not answer:
        return None
    return prompt_of(item.question, item.answer, answer, item.options)


def _by_judge(
    rows: Sequence[Row], items: Mapping[str, Item], judge: Judge, progress: Progress | None
) -> list[Row]:
    """Rows with the judge's verdict as their score. A reply without any answer is wrong by rule,
    and not sent.
    """
    from franken.tasks.judge import ask

    prompts = [_prompt(row, items) for row in rows]
    wanted = [p for p in prompts if p is not None]
    total = len(set(wanted))
    opinions = dict(
        zip(
            wanted,
            ask(judge, wanted, lambda n: progress(n, total, judge.model) if progress else None),
            strict=True,
        )
    )
    judged = []
    for row, prompt in zip(rows, prompts, strict=True):
        beside = {"rule_score": row.get("score"), "rule_reason": row.get("reason")}
        if prompt is None:
            judged.append({**row, **beside})
            continue
        opinion = opinions[prompt]
        verdict = {"score": opinion.score, "reason": opinion.reason or None, "error": opinion.error}
        judged.append({**row, **beside, **verdict, "well_formed": is_well_formed(row["output"])})
    if wanted and all(o.error for o in opinions.values()):
        first = next(iter(opinions.values())).error
        raise FrankenError(
            f"{judge.endpoint.url} judged nothing",
            str(first),
            "check --judge, --judge-model and the endpoint's key",
        )
    return judged
