"""The public vision_functionality layout: image pairs for visual-token swaps (Frankenstein paper,
appendix D).

A folder holds one sub-folder per function (counting, grounding, ocr, recognition), each with
`data.jsonl` and the images it names. Every row becomes a Pair: one whose two answers agree is
ineligible (a swap cannot change the answer), one whose files cannot be read carries the error.
Nothing is dropped.

Counting prompts of the published files begin with a literal `<image>`; it marks the place of the
image and is removed.
"""

import json
from pathlib import Path

from franken.errors import FrankenError, UsageError
from franken.tasks.graders.boxes import compare_boxes, iou
from franken.tasks.grading import NUMBER, extract, is_well_formed, normalise
from franken.tasks.images import open_image
from franken.tasks.puzzle import Grade, Item, Pair
from franken.tasks.tables import Row

FUNCTIONS = ("counting", "grounding", "ocr", "recognition")
ANSWER_TYPES = {"counting": "integer", "grounding": "box", "ocr": "word", "recognition": "yes_no"}
ANSWER_KEYS = {
    "counting": ("target_answer", "source_answer"),
    "grounding": ("target_bbox_xyxy", "source_bbox_xyxy"),
    "ocr": ("target_text", "source_text"),
    "recognition": ("target", "source"),
}


def is_public(task: str) -> bool:
    """Whether a task name belongs to this data set."""
    return task in FUNCTIONS


def load_folder(folder: str | Path) -> list[Pair]:
    """All pairs of a folder, function by function, in file order.

    Raises UsageError when the folder holds no `*/data.jsonl`, FrankenError on a line that is not
    JSON.
    """
    root = Path(folder)
    files = (
        [root / "data.jsonl"]
        if (root / "data.jsonl").exists()
        else sorted(root.glob("*/data.jsonl"))
    )
    if not files:
        raise UsageError(
            f"no image pairs in {root}",
            why="there is neither a data.jsonl nor a sub-folder with one",
            fix="give the folder that holds counting/, grounding/, ocr/ or recognition/",
        )
    return [pair for file in files for pair in _read(file)]


def grade_public(reply: str, item: Item) -> Grade:
    """Numbers for counting, IoU of boxes for grounding, the exact word for OCR, yes or no for
    recognition.
    """
    formed = is_well_formed(reply)
    said = extract(reply)
    if said is None:
        return Grade(0.0, "no answer", None, formed)
    if item.task == "grounding":
        return _grade_box(said, item, formed)
    if item.task == "counting":
        numbers = NUMBER.findall(said)
        said = numbers[-1] if numbers else said
    elif item.task == "recognition":
        said = normalise(said).replace(",", " ").split(" ", 1)[0].strip(".!")
    right = normalise(said) == normalise(item.answer)
    verdict = "is right" if right else f"is wrong, right is {item.answer!r}"
    return Grade(float(right), f"{said!r} {verdict}", said, formed)


def _grade_box(said: str, item: Item, formed: bool) -> Grade:
    threshold = float((item.state or {}).get("iou_threshold", 0.5))
    verdict = compare_boxes(said, item.answer, threshold)
    return Grade(verdict.score, verdict.reason, said, formed)


def _read(file: Path) -> list[Pair]:
    pairs = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as e:
            raise FrankenError(
                f"{file.name}, line {number} is not JSON", why=str(e), fix="repair the line"
            ) from e
        pairs.append(_pair(row, file.parent, number))
    return pairs


def _pair(row: Row, folder: Path, number: int) -> Pair:
    pair_id = str(row.get("id", f"{folder.name}-line-{number}"))
    task = str(row.get("task", folder.name))
    meta = row.get("meta", {})
    keys = ANSWER_KEYS.get(task)
    answers = [_answer(meta, key) for key in keys] if keys else []
    problem = None
    if not keys:
        problem = f"unknown function {task!r}"
    elif None in answers:
        problem = f"the row has no {' or '.join(keys)}"
    sides = []
    for side, answer in zip(("target", "source"), answers or [None, None], strict=True):
        image, trouble = open_image(row.get(f"{side}_image"), folder)
        problem = problem or trouble
        question = str(row.get("prompt", "")).replace("<image>", "").strip()
        sides.append(
            Item(
                f"{pair_id}-{side}",
                task,
                question,
                answer or "",
                image,
                state=meta,
                error=trouble or problem,
                answer_type=ANSWER_TYPES.get(task, ""),
            )
        )
    return Pair(
        pair_id,
        task,
        fact=str(meta.get("object_name") or meta.get("category_name") or task),
        target=sides[0],
        source=sides[1],
        ineligible=None
        if problem
        else _ineligible(task, [answer or "" for answer in answers], meta),
        error=problem,
    )


def _answer(meta: Row, key: str) -> str | None:
    value = meta.get(key, meta.get(f"{key}_answer"))
    if value is None:
        return None
    return ",".join(str(v) for v in value) if isinstance(value, list) else str(value)


def _ineligible(task: str, answers: list[str], meta: Row) -> str | None:
    target, source = answers
    if task == "grounding":
        boxes = [tuple(float(x) for x in NUMBER.findall(a)) for a in answers]
        overlap = iou(*boxes)  # pyright: ignore[reportArgumentType]
        threshold = float(meta.get("iou_threshold", 0.5))
        return f"the boxes overlap with IoU {overlap:.2f}" if overlap > threshold else None
    return f"both answers are {target!r}" if normalise(target) == normalise(source) else None
