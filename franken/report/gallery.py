"""What a reader looks at before any curve: image pairs with the answers under each swap, and replies with reasoning.

Items are made again from the study's tasks and seed, so run folders hold no images. Which ones are shown is fixed by a
rule, the first of each task, never by how they look. Everything here is plain text: the template escapes it.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from franken import tasks as puzzles
from franken.report.evidence import Evidence
from franken.report.theme import name
from franken.tasks.grading import extract

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 320  # pixels; larger images are scaled down for the page
SMALL = 128  # pixels; smaller images stay PNG and are shown without smoothing
LONGEST_REPLY = 1200  # characters


def image_uri(image: Image | None) -> dict[str, Any] | None:
    """A data URI and how to show it; None for a missing image. Large images become JPEG of at most LARGEST pixels."""
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
    return {"uri": f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", "pixelated": small}


def pair_gallery(found: Evidence, *, per_task: int = 3, method: str = "swap-suffix") -> list[dict[str, Any]]:
    """The first eligible pairs of each task: both images, the question, and each checkpoint's answer by swap layer."""
    rows = found.samples("probe")
    if len(rows) == 0:
        return []
    rows = rows[rows["method"] == method]
    shown: list[dict[str, Any]] = []
    for task in dict.fromkeys(rows["task"]):
        of_task = rows[rows["task"] == task]
        usable = of_task[of_task["error"].isna() & of_task["ineligible"].isna()]
        wanted = list(dict.fromkeys(usable["sample"]))[:per_task]
        pairs = {p.id: p for p in _pairs(found, str(task))}
        for sample in (s for s in wanted if s in pairs):
            shown.append(_pair_card(pairs[sample], usable[usable["sample"] == sample], found.study.stages))
    return shown


def _pair_card(pair: puzzles.Pair, rows: Any, stages: list[str]) -> dict[str, Any]:
    strips = []
    for model in (m for m in stages if m in set(rows["model"])):
        own = rows[rows["model"] == model].sort_values("layer")
        cells = []
        for row in own.to_dict("records"):
            state = "source" if row["to_source"] else "changed" if row["changed"] else "same"
            cells.append({
                "layer": int(row["layer"]), "state": state, "answer": _short(row["output"]),
                "whole": str(row["output"] or "")[:LONGEST_REPLY],
            })  # fmt: skip
        first = own.iloc[0]
        strips.append({
            "model": model, "name": name(model), "cells": cells, "before": _short(first["baseline"]),
            "right": bool(first["baseline_score"] and first["baseline_score"] > 0.5),
            "source": _short(first["source_output"]),
        })  # fmt: skip
    return {
        "id": pair.id, "task": pair.task, "question": pair.target.question, "fact": pair.fact,
        "target": image_uri(pair.target.image), "source": image_uri(pair.source.image),
        "target_answer": pair.target.answer, "source_answer": pair.source.answer, "strips": strips,
        "layers": [c["layer"] for c in strips[0]["cells"]] if strips else [],
    }  # fmt: skip


def reasoning_gallery(found: Evidence, *, per_task: int = 2, draws: int = 1) -> list[dict[str, Any]]:
    """The first prompts of each task with each checkpoint's greedy reply and its first draws, in the image arm."""
    rows = found.samples("eval")
    if len(rows) == 0:
        return []
    shown_models = [m for m in (*found.study.stages, "control") if m in set(rows["model"])]
    rows = rows[(rows["method"] == "image") & rows["model"].isin(shown_models) & (rows["draw"] < draws)]
    rows = rows[rows["error"].isna() & rows["ineligible"].isna()]
    cards: list[dict[str, Any]] = []
    for task in dict.fromkeys(rows["task"]):
        of_task = rows[rows["task"] == task]
        items = {i.id: i for i in _items(found, str(task))}
        for sample in list(dict.fromkeys(of_task["sample"]))[:per_task]:
            item = items.get(str(sample))
            own = of_task[of_task["sample"] == sample]
            replies = [_reply(row) for m in shown_models for row in _in_order(own[own["model"] == m])]
            cards.append({
                "id": str(sample), "task": str(task), "question": item.question if item else "",
                "gold": str(own.iloc[0]["gold"]), "image": image_uri(item.image) if item else None, "replies": replies,
            })  # fmt: skip
    return cards


def _in_order(rows: Any) -> list[dict[str, Any]]:
    return rows.sort_values("draw").to_dict("records")


def _reply(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": row["model"], "name": name(row["model"]), "how": "greedy" if row["draw"] < 0 else "sampled",
        "right": bool(row["score"] and row["score"] > 0.5), "strategy": row["strategy"],
        "text": str(row["output"])[:LONGEST_REPLY].strip(),
    }  # fmt: skip


def _short(reply: Any, limit: int = 24) -> str:
    text = (extract(str(reply)) or "") if reply is not None else ""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _pairs(found: Evidence, task: str) -> list[puzzles.Pair]:
    config = next((r.manifest["config"] for r in found.runs if r.manifest["verb"] == "probe"), {})
    data = config.get("data")
    if data:
        return [p for p in puzzles.load_folder(Path(data)) if p.task == task] if Path(data).exists() else []
    if not puzzles.is_puzzle(task):
        return []
    return puzzles.get(task).pairs(int(config.get("samples", 0)), int(config.get("seed", 0)))


def _items(found: Evidence, task: str) -> list[puzzles.Item]:
    study = found.study
    if study.data:
        pairs = puzzles.load_folder(Path(study.data)) if Path(study.data).exists() else []
        return [p.target for p in pairs if p.task == task]
    return puzzles.get(task).items(8, study.seed, split="test") if puzzles.is_puzzle(task) else []
