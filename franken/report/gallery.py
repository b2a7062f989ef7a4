"""What a reader looks at before any curve: image pairs with the answers under each swap, and
replies with reasoning.

Items are made again from the study's tasks and seed, so run folders hold no images. Which ones are
shown is fixed by a rule, the first of each task, never by how they look. Everything here is plain
text: the template escapes it.
"""

from __future__ import annotations

import base64
import io
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from franken import tasks as puzzles
from franken.layers import thirds
from franken.report.sources import runs_of
from franken.report.theme import name
from franken.runs import RunSet
from franken.runs.manifest import Config
from franken.tasks.grading import extract

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 320  # pixels; larger images are scaled down for the page
SMALL = 128  # pixels; smaller images stay PNG and are shown without smoothing
LONGEST_REPLY = 1200  # characters
LONGEST_CELL = 160  # characters of a reply behind a cell
MOST_PAIRS = 30  # on the page, whatever was asked
DID = {"source": "becomes the source's", "changed": "only changes", "same": "stays"}
UNTIL = {
    "never": "to none",
    "early": "to an early layer",
    "middle": "to a middle layer",
    "late": "to a late layer",
}


def image_uri(image: Image | None) -> dict[str, Any] | None:
    """A data URI and how to show it; None for a missing image. Large images become JPEG of at most
    LARGEST pixels.
    """
    if image is None:
        return None
    small = max(image.size) <= SMALL
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        shrunk = image.convert("RGB")
        shrunk.thumbnail((LARGEST, LARGEST))
        shrunk.save(buffer, "JPEG", quality=85)
    kind = "png" if small else "jpeg"
    return {
        "uri": f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}",
        "pixelated": small,
    }


def pair_gallery(
    found: RunSet, *, most: int = MOST_PAIRS, method: str = "swap-suffix"
) -> dict[str, Any]:
    """The first eligible pairs of each task: both images, the question, and each checkpoint's
    answer by swap layer.

    cards; `cap`, a sentence that says how many of how many are shown; `runs` that hold all of them;
    `filters`: by task, by what happened to the last checkpoint's answer, and by the third of the
    decoder up to which it follows the image.
    """
    rows = found.samples("probe")
    rows = rows[rows["method"] == method] if len(rows) else rows
    empty = {"cards": [], "cap": "", "runs": (), "filters": []}
    if len(rows) == 0:
        return empty
    usable = rows[rows["error"].isna() & rows["ineligible"].isna()]
    everyone = (
        usable.groupby(["task", "sample"])["model"].transform("nunique") == rows["model"].nunique()
    )
    usable = usable[everyone]  # eligible for every checkpoint, so that a card compares them
    tasks = list(dict.fromkeys(str(t) for t in usable["task"]))
    per_task = max(1, most // max(1, len(tasks)))
    cards: list[dict[str, Any]] = []
    for task in tasks[:most]:
        of_task = usable[usable["task"] == task]
        wanted = list(dict.fromkeys(of_task["sample"]))[:per_task]
        pairs = {p.id: p for p in _pairs(found, task)}
        by_sample = dict(
            list(of_task[of_task["sample"].isin(wanted)].groupby("sample", sort=False))
        )
        cards += [
            _pair_card(pairs[s], by_sample[s], found.study.stages) for s in wanted if s in pairs
        ]
    if not cards:
        return empty
    shown_tasks = list(dict.fromkeys(c["task"] for c in cards))
    last = name(cards[0]["strips"][-1]["model"])
    filters = [
        {"key": "task", "title": "Task", "choices": ["all tasks", *shown_tasks]},
        {"key": "did", "title": f"{last}'s answer", "choices": ["anything", *DID.values()]},
        {
            "key": "until",
            "title": "Follows the image",
            "choices": ["to any layer", *UNTIL.values()],
        },
    ]
    for card in cards:
        card["places"] = (
            1 + shown_tasks.index(card["task"]),
            1 + list(DID).index(card["did"]),
            1 + list(UNTIL).index(card["until"]),
        )
        card["classes"] = " ".join(
            f"{f['key']}-is-{place}" for f, place in zip(filters, card["places"], strict=True)
        )
    total = len(usable.drop_duplicates(["task", "sample"]))
    asked = len(rows.drop_duplicates(["task", "sample"]))
    cap = f"Shown: {len(cards)} of {total} eligible pairs, the first of each task (at most {per_task}); {asked} were asked."
    return {
        "cards": cards,
        "cap": cap,
        "runs": runs_of(found, "probe", None, method),
        "filters": filters,
    }


def filter_rules(pairs: dict[str, Any]) -> str:
    """CSS that hides the cards which the checked radio buttons exclude, and says so where none is
    left. No text of others.
    """
    filters, places = pairs["filters"], {card["places"] for card in pairs["cards"]}
    rules = [
        f"body:has(#{f['key']}-{i}:checked) .of-pairs:not(.{f['key']}-is-{i}) {{ display: none; }}"
        for f in filters
        for i in range(1, len(f["choices"]))
    ]
    blank = [
        "body"
        + "".join(f":has(#{f['key']}-{i}:checked)" for f, i in zip(filters, chosen, strict=True))
        + " .none-fits"
        for chosen in product(*(range(len(f["choices"])) for f in filters))
        if not any(all(c in (0, p) for c, p in zip(chosen, place, strict=True)) for place in places)
    ]
    return "\n".join([*rules, *([",\n".join(blank) + " { display: block; }"] if blank else [])])


def _pair_card(pair: puzzles.Pair, rows: Any, stages: list[str]) -> dict[str, Any]:
    strips, states = [], []
    for model in (m for m in stages if m in set(rows["model"])):
        own = rows[rows["model"] == model].sort_values("layer")
        cells, states = [], []
        for row in own.to_dict("records"):
            state = "source" if row["to_source"] else "changed" if row["changed"] else "same"
            answer, whole = _short(row["output"]), str(row["output"] or "")[:LONGEST_CELL]
            states.append(state)
            cells.append(
                {
                    "layer": int(row["layer"]),
                    "state": state,
                    "answer": answer,
                    "whole": "" if whole == answer else whole,
                }
            )
        first = own.iloc[0]
        strips.append(
            {
                "model": model,
                "name": name(model),
                "cells": cells,
                "before": _short(first["baseline"]),
                "right": bool(first["baseline_score"] and first["baseline_score"] > 0.5),
                "source": _short(first["source_output"]),
            }
        )
    layers = [c["layer"] for c in strips[0]["cells"]] if strips else []
    return {
        "id": pair.id,
        "task": pair.task,
        "question": pair.target.question,
        "fact": pair.fact,
        "target": image_uri(pair.target.image),
        "source": image_uri(pair.source.image),
        "target_answer": pair.target.answer,
        "source_answer": pair.source.answer,
        "strips": strips,
        "layers": layers,
        "did": next((s for s in DID if s in states), "same"),
        "until": _until(states),
    }


def _until(states: list[str]) -> str:
    """The third of the decoder of the last layer from which a swap still changes the answer;
    `never` where none does.
    """
    moved = [i for i, state in enumerate(states) if state != "same"]
    if not moved:
        return "never"
    return next(
        third for third, (start, stop) in thirds(len(states)).items() if start <= moved[-1] < stop
    )


def reasoning_gallery(found: RunSet, *, per_task: int = 2, draws: int = 1) -> list[dict[str, Any]]:
    """The first prompts of each task with each checkpoint's greedy reply and its first draws, in
    the image arm.
    """
    rows = found.samples("eval")
    if len(rows) == 0:
        return []
    shown_models = [m for m in (*found.study.stages, "control") if m in set(rows["model"])]
    rows = rows[
        (rows["method"] == "image") & rows["model"].isin(shown_models) & (rows["draw"] < draws)
    ]
    rows = rows[rows["error"].isna() & rows["ineligible"].isna()]
    cards: list[dict[str, Any]] = []
    for task in dict.fromkeys(rows["task"]):
        of_task = rows[rows["task"] == task]
        items = {i.id: i for i in _items(found, str(task))}
        for sample in list(dict.fromkeys(of_task["sample"]))[:per_task]:
            item = items.get(str(sample))
            own = of_task[of_task["sample"] == sample]
            replies = [
                _reply(row) for m in shown_models for row in _in_order(own[own["model"] == m])
            ]
            cards.append(
                {
                    "id": str(sample),
                    "task": str(task),
                    "question": item.question if item else "",
                    "gold": str(own.iloc[0]["gold"]),
                    "image": image_uri(item.image) if item else None,
                    "replies": replies,
                }
            )
    return cards


def _in_order(rows: Any) -> list[dict[str, Any]]:
    return rows.sort_values("draw").to_dict("records")


def _reply(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": row["model"],
        "name": name(row["model"]),
        "how": "greedy" if row["draw"] < 0 else "sampled",
        "right": bool(row["score"] and row["score"] > 0.5),
        "strategy": row["strategy"],
        "text": str(row["output"])[:LONGEST_REPLY].strip(),
    }


def _short(reply: Any, limit: int = 24) -> str:
    text = (extract(str(reply)) or "") if reply is not None else ""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _pairs(found: RunSet, task: str) -> list[puzzles.Pair]:
    config = next((run.manifest.config for run in found.of("probe")), Config())
    data = config.data
    if data:
        return (
            [p for p in puzzles.load_folder(Path(data)) if p.task == task]
            if Path(data).exists()
            else []
        )
    if not puzzles.is_puzzle(task):
        return []
    return puzzles.get(task).pairs(config.samples or 0, config.seed)


def _items(found: RunSet, task: str) -> list[puzzles.Item]:
    study = found.study
    if study.data:
        pairs = puzzles.load_folder(Path(study.data)) if Path(study.data).exists() else []
        return [p.target for p in pairs if p.task == task]
    return puzzles.get(task).items(8, study.seed, split="test") if puzzles.is_puzzle(task) else []
