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
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict, cast

import pandas as pd

from franken.errors import FrankenError, UsageError
from franken.evaluate.arms import DESCRIBE
from franken.evaluate.metrics import RIGHT, summarise
from franken.evaluate.rows import description_columns, verdict
from franken.runs import LoadedRun, load_run, open_run
from franken.runs.rows import LayerRow
from franken.tasks import Item, grade
from franken.tasks.grading import extract, is_well_formed
from franken.tasks.judge import Judge, ask, cached, prompt_of
from franken.tasks.sources import load_tasks
from franken.tasks.vision_functionality import is_public

Progress = Callable[[int, int, str], None]
GRADERS = ("graders", "puzzles", "grading.py", "grid_puzzles.py", "vision_functionality.py")
STORED = (  # columns that every run of answers has
    *("model", "method", "task", "sample", "draw", "gold", "output", "score", "strategy"),
    *("truncated", "error", "ineligible"),
)


class VerdictColumns(TypedDict, total=False):
    """The columns of a row of samples that grading writes."""

    answer: str | None
    score: float | None
    reason: str | None
    well_formed: bool | None
    facts_right: float | None
    rule_score: float | None  # the rules' verdict, beside a judge's
    rule_reason: str | None
    error: str | None


class StoredAnswer(VerdictColumns):
    """The columns that grading reads or writes; a row has others too. Rows of older runs have none
    of the optional ones.
    """

    model: str
    method: str
    task: str
    sample: str
    draw: int
    output: str | None
    gold: str
    question: NotRequired[str]
    answer_type: NotRequired[str]
    options: NotRequired[str | None]  # a list in JSON
    tolerance: NotRequired[float]
    accepted: NotRequired[str | None]  # a list in JSON


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


class JudgePreview(TypedDict):
    """What a judge would be sent: how many prompts, and how many of them are answered already."""

    model: str
    url: str
    prompts: int
    cached: int


class Preview(TypedDict):
    """What regrading a run would do."""

    run: str
    answers: int
    changes: dict[str, dict[str, int]]
    changed: list[Change]
    judge: NotRequired[JudgePreview]


def preview(folder: str | Path, judge: Judge | None = None) -> Preview:
    """What regrading would do: how many answers, which verdicts the rules change, and what a judge
    would be sent. Writes nothing.
    """
    run = _source(folder)
    rows = _rows(run)
    items = _items(run, rows)
    done = list(map(_by_rules, rows, items))
    plan: Preview = {
        "run": str(run.folder),
        "answers": sum(map(_gradable, rows)),
        "changes": changes(rows, done),
        "changed": changed(rows, done),
    }
    if judge is not None:
        prompts = {prompt for prompt in map(_prompt, done, items) if prompt is not None}
        plan["judge"] = {
            "model": judge.model,
            "url": judge.endpoint.url,
            "prompts": len(prompts),
            "cached": cached(judge, sorted(prompts)),
        }
    return plan


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
    run = _source(folder)
    source = hashlib.sha256((run.folder / "samples.parquet").read_bytes()).hexdigest()
    asked = {"url": judge.endpoint.url, "model": judge.model} if judge else None
    identity = {"source": source, "graders": graders_digest()} | ({"judge": asked} if asked else {})
    config = {
        **run.manifest.config.stored(),
        "source": str(run.folder),
        "judge": judge.model if judge else None,
    }
    models = {
        k: str((run.folder / v).resolve()) if v.startswith("..") else v
        for k, v in run.manifest.models.items()
    }
    runs = out or run.folder.parent.parent
    with open_run("regrade", run.label, identity, runs, config=config, models=models) as target:
        if target.is_complete():
            return target.folder
        rows = _rows(run)
        items = _items(run, rows)
        done = list(map(_by_rules, rows, items))
        if judge is not None:
            done = _by_judge(done, items, judge, progress)
        if not target.rows():
            target.append(done)
        stored = cast(list[StoredAnswer], target.rows())
        extra = {"source": str(run.folder), "changes": changes(rows, stored)}
        k = tuple(run.manifest.config.acc_at)
        layers = cast(list[LayerRow], summarise(pd.DataFrame(stored), k=k))
        return target.finish(layers, n_requested=run.manifest.n_requested, extra=extra)


def changes(
    before: Sequence[StoredAnswer], after: Sequence[StoredAnswer]
) -> dict[str, dict[str, int]]:
    """How many verdicts changed, per task and for `all`: wrong to right, right to wrong, to and
    from an error.
    """
    counts: dict[str, Counter[str]] = {"all": Counter()}
    for old, new in zip(before, after, strict=True):
        states = _state(old), _state(new)
        if states == ("none", "none"):
            continue
        name = "unchanged" if states[0] == states[1] else f"{states[0]}_to_{states[1]}"
        for key in ("all", str(old["task"])):
            counts.setdefault(key, Counter())[name] += 1
    kinds = dict.fromkeys(("unchanged", "wrong_to_right", "right_to_wrong"), 0)
    return {task: kinds | counted for task, counted in counts.items()}


def changed(before: Sequence[StoredAnswer], after: Sequence[StoredAnswer]) -> list[Change]:
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


def _state(row: StoredAnswer) -> str:
    if row.get("error") is not None:
        return "error"
    score = row.get("score")
    return "none" if score is None else "right" if score > RIGHT else "wrong"


def _source(folder: str | Path) -> LoadedRun:
    run = load_run(folder)
    if run.verb not in ("eval", "regrade"):
        raise UsageError(
            f"{folder} holds no answers to grade",
            f"it is a run of `{run.verb}`",
            "give a run of `franken eval`",
        )
    return run


def _rows(run: LoadedRun) -> list[StoredAnswer]:
    table = run.answers(*STORED).astype(object)
    return cast(list[StoredAnswer], table.where(table.notna(), None).to_dict("records"))


def _gradable(row: StoredAnswer) -> bool:
    """An answer was given, and it was graded or should have been; descriptions and the like carry
    no verdict.
    """
    graded = row.get("score") is not None or row.get("error") is not None
    return row.get("output") is not None and graded


def _items(run: LoadedRun, rows: Sequence[StoredAnswer]) -> list[Item | None]:
    """The item of each row: rebuilt where a rule needs more than the row carries, else from the
    row; None where its question cannot be found again.
    """
    config = run.manifest.config
    items: list[Item] = []
    if any(
        is_public(r["task"]) or "answer_type" not in r or r["method"] == DESCRIBE
        for r in rows
        if _gradable(r)
    ):
        items = load_tasks(config.tasks or (), config.samples or 0, config.seed, config.data)
    known = {item.id: item for item in items}
    return [_item(row, known.get(row["sample"])) for row in rows]


def _item(row: StoredAnswer, rebuilt: Item | None) -> Item | None:
    if rebuilt is not None:
        return replace(rebuilt, answer=row["gold"])
    kind = row.get("answer_type")
    if not kind:
        return None
    return Item(
        row["sample"],
        row["task"],
        row.get("question") or "",
        row["gold"],
        options=tuple(json.loads(row.get("options") or "[]")),
        answer_type=kind,
        tolerance=float(row.get("tolerance") or 0),
        accepted=tuple(json.loads(row.get("accepted") or "[]")),
    )


def _by_rules(row: StoredAnswer, item: Item | None) -> StoredAnswer:
    output = row.get("output")
    if output is None or not _gradable(row):
        return row
    describes = row["method"] == DESCRIBE
    if item is None or (describes and item.state is None):
        return {**row, "score": None, "error": "its question cannot be found again"}
    if describes:
        return {**row, **description_columns(output, item), "error": None}
    try:
        return {**row, **verdict(grade(output, item)), "error": None}
    except ValueError as e:  # the right answer is not of the row's type
        return {**row, "score": None, "error": str(e)}


def _prompt(row: StoredAnswer, item: Item | None) -> str | None:
    """What the judge is asked about a row; None when there is nothing to ask."""
    output = row.get("output")
    if item is None or output is None or row.get("score") is None:
        return None
    answer = extract(output)
    return prompt_of(item.question, item.answer, answer, item.options) if answer else None


def _by_judge(
    rows: Sequence[StoredAnswer],
    items: Sequence[Item | None],
    judge: Judge,
    progress: Progress | None,
) -> list[StoredAnswer]:
    """Rows with the judge's verdict as their score. A reply without any answer is wrong by rule,
    and not sent.
    """
    prompts = list(map(_prompt, rows, items))
    wanted = [prompt for prompt in prompts if prompt is not None]
    total = len(set(wanted))

    def tick(done: int) -> None:
        if progress:
            progress(done, total, judge.model)

    opinions = dict(zip(wanted, ask(judge, wanted, tick), strict=True))
    if wanted and all(opinion.error for opinion in opinions.values()):
        raise FrankenError(
            f"{judge.endpoint.url} judged nothing",
            str(opinions[wanted[0]].error),
            "check --judge, --judge-model and the endpoint's key",
        )
    judged: list[StoredAnswer] = []
    for row, prompt in zip(rows, prompts, strict=True):
        rules = VerdictColumns(rule_score=row.get("score"), rule_reason=row.get("reason"))
        verdict = VerdictColumns()
        if prompt is not None:
            opinion, formed = opinions[prompt], is_well_formed(row.get("output") or "")
            verdict = VerdictColumns(
                score=opinion.score,
                reason=opinion.reason or None,
                error=opinion.error,
                well_formed=formed,
            )
        judged.append({**row, **rules, **verdict})
    return judged
