"""The public layout: every row becomes a pair, with its reason where it cannot be used."""

import json
from pathlib import Path

import pytest
from PIL import Image
from public_data import needs, public

from franken.errors import FrankenError, UsageError
from franken.tasks import grade, load_folder
from franken.tasks.puzzle import Item
from franken.tasks.vision_functionality import iou

PUBLIC = public("vision_functionality")


def write(folder: Path, task: str, rows: list[dict]) -> None:
    (folder / task / "images").mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (28, 28), "red").save(folder / task / "images" / name)
    (folder / task / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but cut off")
    (folder / task / "data.jsonl").write_text("\n".join(json.dumps(r) for r in rows))


def row(i: int, task: str, meta: dict, target: str = "a.png", source: str = "b.png") -> dict:
    return {
        "id": f"{task}_{i}",
        "task": task,
        "prompt": "<image>How many?",
        "meta": meta,
        "target_image": f"images/{target}",
        "source_image": f"images/{source}",
    }


def test_every_row_is_accounted_for(tmp_path):
    three, five = (
        {"target_answer": "3", "source_answer": "5"},
        {"target_answer": "5", "source_answer": "5"},
    )
    rows = [
        row(0, "counting", three),
        row(1, "counting", five),
        row(2, "counting", three, target="broken.png"),
        row(3, "counting", three, source="missing.png"),
        row(4, "counting", three, target="../../secret.png"),
        row(5, "counting", {}),
    ]
    write(tmp_path, "counting", rows)
    pairs = load_folder(tmp_path)
    assert [p.id for p in pairs] == [f"counting_{i}" for i in range(6)]
    assert pairs[0].error is pairs[0].ineligible is None
    assert pairs[0].target.question == "How many?"
    assert pairs[1].ineligible == "both answers are '5'"
    assert "cannot be read" in pairs[2].error
    assert "cannot be read" in pairs[3].error
    assert "outside" in pairs[4].error
    assert "target_answer" in pairs[5].error


def test_overlapping_boxes_are_ineligible(tmp_path):
    meta = {
        "target_bbox_xyxy": [0, 0, 10, 10],
        "source_bbox_xyxy": [0, 0, 10, 9],
        "iou_threshold": 0.5,
    }
    write(tmp_path, "grounding", [row(0, "grounding", meta)])
    assert "overlap" in load_folder(tmp_path)[0].ineligible


def test_recognition_reads_target_and_source(tmp_path):
    write(
        tmp_path,
        "recognition",
        [row(0, "recognition", {"target": "Yes", "source": "No", "category_name": "dog"})],
    )
    pair = load_folder(tmp_path)[0]
    assert (pair.target.answer, pair.source.answer, pair.fact, pair.error) == (
        "Yes",
        "No",
        "dog",
        None,
    )


def test_errors_name_the_place(tmp_path):
    with pytest.raises(UsageError):
        load_folder(tmp_path)
    (tmp_path / "data.jsonl").write_text('{"id": 1}\nnot json')
    with pytest.raises(FrankenError, match="line 2"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("task", "gold", "reply", "score"),
    [
        ("counting", "7", "There are 7 items.", 1.0),
        ("counting", "7", "There are 17 items.", 0.0),
        ("ocr", "Loss", "loss", 1.0),
        ("ocr", "loss", "loss function", 0.0),
        ("recognition", "Yes", "Yes, there is.", 1.0),
        ("recognition", "No", "Yes", 0.0),
        ("grounding", "0,0,10,10", "0, 0, 10, 9", 1.0),
        ("grounding", "0,0,10,10", "5,5,20,20", 0.0),
        ("grounding", "0,0,10,10", "somewhere left", 0.0),
    ],
)
def test_grading_by_function(task, gold, reply, score):
    assert grade(reply, Item("x", task, "?", gold)).score == score


def test_iou_closed_forms():
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0.0
    assert iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0.0


@needs("vision_functionality")
def test_the_published_rows():
    pairs = load_folder(PUBLIC)
    usable = {
        t: sum(p.task == t and not p.error and not p.ineligible for p in pairs)
        for t in ("counting", "grounding", "ocr")
    }
    assert len([p for p in pairs if p.task == "counting"]) == 100
    assert usable == {"counting": 100, "grounding": 99, "ocr": 92}
