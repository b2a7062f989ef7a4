"""Each public benchmark from a small file of our own in its own column layout; and any table with a
column map.
"""

import io
import json

import pandas as pd
import pytest
from PIL import Image
from public_data import needs, public

from franken import tasks
from franken.errors import FrankenError, UsageError
from franken.tasks.benchmarks import options_in
from franken.tasks.layouts import BENCHMARKS, recognise
from franken.tasks.sources import canonical, load_tasks


def png(shade=200):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


BLOB = {"bytes": png(), "path": None}

# name: rows in the published columns, and what the first must become: (answer, type, options)
LAYOUTS = {
    "mathvista": (
        [
            {
                "pid": "1",
                "question": "How far?",
                "image": "images/1.png",
                "decoded_image": BLOB,
                "choices": None,
                "unit": None,
                "precision": 1.0,
                "answer": "1.2",
                "question_type": "free_form",
                "answer_type": "float",
                "metadata": {"grade": "x"},
            },
            {
                "pid": "2",
                "question": "Which?",
                "image": "images/2.png",
                "decoded_image": BLOB,
                "choices": ["145°", "35°"],
                "answer": "145°",
                "question_type": "multi_choice",
                "answer_type": "text",
                "metadata": {"grade": "x"},
            },
        ],
        [("1.2", "number", ()), ("A", "option", ("145°", "35°"))],
    ),
    "mathverse": (
        [
            {
                "sample_index": "1",
                "problem_index": "1",
                "problem_version": "Text Dominant",
                "image": BLOB,
                "answer": "C",
                "question": "How long is BC?\nChoices:\nA:2\nB:2√{3}\nC:√{3}\nD:2√{2}",
                "question_type": "multi-choice",
            },
            {
                "sample_index": "5",
                "problem_index": "1",
                "problem_version": "Vision Only",
                "image": BLOB,
                "answer": "C",
                "question": "",
                "question_type": "multi-choice",
            },
            {
                "sample_index": "9",
                "problem_index": "2",
                "problem_version": "Text Lite",
                "image": BLOB,
                "answer": "14.5",
                "question": "Find x.",
                "question_type": "free-form",
            },
        ],
        [
            ("C", "option", ("2", "2√{3}", "√{3}", "2√{2}")),
            ("C", "option", ()),
            ("14.5", "number", ()),
        ],
    ),
    "mathvision": (
        [
            {
                "id": "4",
                "question": "Which is it?\n<image1>",
                "options": ["A", "B", "C", "D", "E"],
                "image": "images/4.jpg",
                "decoded_image": BLOB,
                "answer": "B",
                "solution": None,
                "level": 2,
                "subject": "combinatorics",
            },
            {
                "id": "9",
                "question": "How many cuts? <image1>",
                "options": [],
                "image": "images/9.jpg",
                "decoded_image": BLOB,
                "answer": "8",
                "solution": None,
                "level": 2,
                "subject": "combinatorics",
            },
        ],
        [("B", "option", ("A", "B", "C", "D", "E")), ("8", "integer", ())],
    ),
    "logicvista": (
        [
            {
                "id": "v1",
                "question": "Which comes next? Select from A, B, C, D, E.",
                "answer": "A, C",
                "reasoning": "r",
                "skill": ["inductive"],
                "image": BLOB,
            },
            {
                "id": "v2",
                "question": "Which?\nA. three\nB. four",
                "answer": "B",
                "reasoning": "r",
                "skill": ["x"],
                "image": BLOB,
            },
        ],
        [("A, C", "option", ()), ("B", "option", ("three", "four"))],
    ),
    "wemath": (
        [
            {
                "ID": "15",
                "split": "testmini",
                "knowledge concept": "Area",
                "question": "How large?",
                "answer": "B",
                "option": "A. 3; B. 4; C. 5; D. No correct answer",
                "image_path": BLOB,
                "key": "2steps_1",
            },
            {
                "ID": "15",
                "split": "testmini",
                "knowledge concept": "Area",
                "question": "And then?",
                "answer": "D",
                "option": "A. 3; B. 4; C. 5; D. No correct answer",
                "image_path": BLOB,
                "key": "2steps_multi",
            },
        ],
        [
            ("B", "option", ("3", "4", "5", "No correct answer")),
            ("D", "option", ("3", "4", "5", "No correct answer")),
        ],
    ),
    "geometry3k": (
        [
            {"images": [BLOB], "problem": "<image>Find x.", "answer": "2 \\sqrt { 221 }"},
            {"images": [BLOB], "problem": "<image>y?", "answer": "3"},
        ],
        [("2 \\sqrt { 221 }", "expression", ()), ("3", "integer", ())],
    ),
    "mmstar": (
        [
            {
                "index": 0,
                "question": "Which view?\nOptions: A: Front, top, B: Back, C: Left",
                "image": BLOB,
                "answer": "A",
                "category": "coarse",
                "l2_category": "style",
                "meta_info": {"source": "x"},
            }
        ],
        [("A", "option", ("Front, top", "Back", "Left"))],
    ),
    "hallusionbench": (
        [
            {
                "category": "VD",
                "subcategory": "illusion",
                "visual_input": "1",
                "set_id": "0",
                "figure_id": "1",
                "sample_note": "n",
                "question_id": "0",
                "question": "Is it?",
                "gt_answer_details": "d",
                "gt_answer": "1",
                "filename": "./a.png",
                "image": BLOB,
            },
            {
                "category": "VD",
                "subcategory": "illusion",
                "visual_input": "1",
                "set_id": "0",
                "figure_id": "2",
                "sample_note": "n",
                "question_id": "0",
                "question": "Is it?",
                "gt_answer_details": "d",
                "gt_answer": "0",
                "filename": "./b.png",
                "image": BLOB,
            },
        ],
        [("yes", "yes_no", ()), ("no", "yes_no", ())],
    ),
    "mmmu-pro": (
        [
            {
                "id": "test_Art_1",
                "question": "What is in <image 1> but not in <image 2>?",
                "options": "['a tree', \"the dog's tail\", '<image 2>']",
                "explanation": "?",
                "image_1": BLOB,
                "image_2": BLOB,
                "image_3": None,
                "img_type": "x",
                "answer": "B",
                "subject": "Art",
            }
        ],
        [("B", "option", ("a tree", "the dog's tail", "<image 2>"))],
    ),
    "mmmu-pro-vision": (
        [
            {
                "id": "test_Art_1",
                "image": BLOB,
                "options": "['a', 'b']",
                "answer": "B",
                "subject": "Art",
            }
        ],
        [("B", "option", ("a", "b"))],
    ),
    "mmmu": (  # the card of MMMU/MMMU
        [
            {
                "id": "validation_Math_1",
                "question": "Find the <image 1>.",
                "options": "[]",
                "explanation": "",
                "image_1": BLOB,
                "image_2": None,
                "img_type": "['Diagrams']",
                "answer": "['24/7', '3.429']",
                "topic_difficulty": "Hard",
                "question_type": "open",
                "subfield": "Calculus",
            },
            {
                "id": "validation_Math_2",
                "question": "<image 1> Which?",
                "options": "['$6$', '$8$']",
                "explanation": "",
                "image_1": BLOB,
                "image_2": None,
                "img_type": "['Diagrams']",
                "answer": "B",
                "topic_difficulty": "Easy",
                "question_type": "multiple-choice",
                "subfield": "Calculus",
            },
        ],
        [("24/7", "number", ()), ("B", "option", ("$6$", "$8$"))],
    ),
    "mmbench": (  # the card of lmms-lab/MMBench_EN
        [
            {
                "index": 3,
                "question": "Which?",
                "hint": "See the map.",
                "answer": "B",
                "A": "cat",
                "B": "dog",
                "C": "nan?",
                "D": None,
                "category": "c",
                "image": BLOB,
                "source": "s",
                "L2-category": "x",
                "comment": "",
                "split": "dev",
            }
        ],
        [("B", "option", ("cat", "dog", "nan?"))],
    ),
    "ai2d": (  # the card of lmms-lab/ai2d: the answer counts from 0
        [{"question": "How many?", "options": ["1", "2", "3", "4"], "answer": "1", "image": BLOB}],
        [("B", "option", ("1", "2", "3", "4"))],
    ),
    "scienceqa": (  # the card of derek-thomas/ScienceQA
        [
            {
                "image": BLOB,
                "question": "Which is farthest north?",
                "choices": ["West Virginia", "Louisiana"],
                "answer": 0,
                "hint": "",
                "task": "closed choice",
                "grade": "grade2",
                "subject": "social science",
                "lecture": "Maps have four cardinal directions.",
                "solution": "…",
            }
        ],
        [("A", "option", ("West Virginia", "Louisiana"))],
    ),
    "chartqa": (  # the card of HuggingFaceM4/ChartQA
        [{"image": BLOB, "query": "How many bars?", "label": ["14"], "human_or_machine": 0}],
        [("14", "integer", ())],
    ),
    "math-500": (
        [
            {
                "problem": "Convert.",
                "solution": "…",
                "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
                "subject": "p",
                "level": 2,
                "unique_id": "test/1.json",
            }
        ],
        [("\\left( 3, \\frac{\\pi}{2} \\right)", "expression", ())],
    ),
    "gsm8k": (
        [{"question": "How many?", "answer": "She has 9 * 2 = <<9*2=18>>18.\n#### 1,800"}],
        [("1,800", "number", ())],
    ),
    "virl39k": (
        [
            {
                "question": "<image>Which?\nA. 3\nB. 4",
                "answer": "\\boxed{B}",
                "PassRate_32BTrained": 0.5,
                "PassRate_7BBase": 0.2,
                "category": "c",
                "source": "s",
                "qid": "q1",
                "image": ["images/0.png"],
            },
            {
                "question": "<image>How much?",
                "answer": "\\boxed{\\frac{1}{2}}",
                "PassRate_32BTrained": 0.5,
                "PassRate_7BBase": 0.2,
                "category": "c",
                "source": "s",
                "qid": "q2",
                "image": ["images/0.png"],
            },
        ],
        [("B", "option", ("3", "4")), ("\\frac{1}{2}", "number", ())],
    ),
    "clevr": (
        [
            {
                "image": BLOB,
                "problem": "How many items are there?",
                "solution": "<answer> 3 </answer>",
            }
        ],
        [("3", "integer", ())],
    ),
}
TEXT_ONLY = {"math-500", "gsm8k"}


def test_every_benchmark_has_its_file():
    assert set(LAYOUTS) == set(BENCHMARKS)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("0", "1", "2"):
        (tmp_path / "images" / f"{name}.png").write_bytes(png())
    return tmp_path


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_as_parquet(name, folder):
    rows, expected = LAYOUTS[name]
    pd.DataFrame(rows).to_parquet(folder / "test-00000-of-00001.parquet")
    items = load_tasks((), 100, 0, canonical(f"{name}={folder}"))
    assert [(i.answer, i.answer_type, i.options) for i in items] == expected
    assert all(i.task == name and i.question and i.error is None for i in items), [
        i.error for i in items
    ]
    assert len({i.id for i in items}) == len(items)
    assert all((i.image is None) == (name in TEXT_ONLY) for i in items)
    for item in items:
        pictures = [p for p in (item.image, *item.more_images) if p is not None]
        assert item.question.count("<image>") in (0, len(pictures))
        assert item.question.count("<image") == item.question.count("<image>")
        assert tasks.grade(f"<answer>{item.answer}</answer>", item).score == 1
        assert tasks.grade("I do not know", item).score == 0


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_is_recognised_by_its_columns(name):
    rows, _ = LAYOUTS[name]
    found = recognise(list(rows[0]))
    if name == "mmmu-pro-vision":
        assert found is None  # its questions are in the images
        return
    assert found is not None
    if found[0] != name:
        assert found[0] == ""
        assert name in ("gsm8k", "clevr", "geometry3k", "ai2d")  # too plain to tell


def test_several_images_are_named_in_the_question(folder):
    pd.DataFrame(LAYOUTS["mmmu-pro"][0]).to_parquet(folder / "0.parquet")
    (item,) = load_tasks((), 1, 0, canonical(f"mmmu-pro={folder}"))
    assert item.question.splitlines()[0] == "What is in <image> but not in <image>?"
    assert "(C) [image 2]" in item.question
    assert item.image is not None
    assert len(item.more_images) == 1


def test_bare_letters_are_not_listed_again(folder):
    pd.DataFrame(LAYOUTS["mathvision"][0]).to_parquet(folder / "0.parquet")
    first = load_tasks((), 2, 0, canonical(f"mathvision={folder}"))[0]
    assert first.question == "Which is it?\n<image>\nAnswer with the letter of the right option."


def test_any_jsonl_with_a_column_map(folder):
    rows = [
        {"prompt": "How many?", "gold": "7", "picture": "images/1.png", "kind": "count"},
        {"prompt": "Where?", "gold": "left", "picture": "images/none.png", "kind": "place"},
        {"prompt": "Out?", "gold": "left", "picture": "../secret.png", "kind": "place"},
        {"prompt": "Nothing?", "gold": None, "picture": "images/2.png", "kind": "place"},
    ]
    file = folder / "mine.jsonl"
    file.write_text("\n".join(json.dumps(r) for r in rows))
    spec = canonical(file, "question=prompt,answer=gold,images=picture,task=kind")
    items = load_tasks((), 10, 0, spec)
    assert [i.task for i in items] == [
        "data-count",
        "place",
        "place",
        "place",
    ]  # count is a built-in task
    assert [i.answer_type for i in items][:2] == ["integer", "word"]
    assert items[0].error is None
    assert items[0].image is not None
    assert "cannot be read" in (items[1].error or "")
    assert "outside" in (items[2].error or "")
    assert "no answer" in (items[3].error or "")
    assert [i.task for i in load_tasks(("place",), 2, 0, spec)] == ["place", "place"]
    written = folder / "map.yaml"
    written.write_text("question: prompt\nanswer: gold\nimages: picture\ntask: kind\n")
    assert canonical(file, str(written)) == spec


def test_a_larger_sample_contains_the_smaller_one(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "\n".join(json.dumps({"question": f"{i}?", "answer": str(i), "id": i}) for i in range(50))
    )
    few, many, other = (
        [i.id for i in load_tasks((), n, s, canonical(file))] for n, s in ((5, 0), (20, 0), (5, 1))
    )
    assert set(few) < set(many)
    assert few != other
    assert many == sorted(many, key=lambda x: int(x.rpartition("-")[2]))


def test_bytes_base64_and_json_maps(tmp_path):
    import base64

    text = "data:image/png;base64," + base64.b64encode(png()).decode()
    (tmp_path / "rows.json").write_text(
        json.dumps({"v1": {"question": "How many?", "answer": 3, "image": text}})
    )
    (item,) = load_tasks((), 5, 0, canonical(tmp_path / "rows.json"))
    assert (item.id, item.answer, item.image.size) == ("rows-v1", "3", (8, 6))
    pd.DataFrame([{"question": "q", "answer": "3", "image": png()}]).to_parquet(
        tmp_path / "a.parquet"
    )
    (item,) = load_tasks((), 5, 0, canonical(tmp_path / "a.parquet"))
    assert item.image.size == (8, 6)


ALGOPUZZLEVQA = public("algopuzzlevqa")


@needs("algopuzzlevqa")
def test_published_multiple_choice_rows_are_read_and_judged():
    wrong = []
    for file in sorted(ALGOPUZZLEVQA.glob("*.json")):
        for item in load_tasks((), 30, 0, canonical(file)):
            assert item.error is None or "cannot be read" in item.error
            assert (item.answer_type, item.task) == ("option", f"data-{file.stem}")
            right = item.options["ABCD".index(item.answer)]
            for reply, score in (
                (right, 1),
                (f"({item.answer}) {right}", 1),
                (f"The answer is {item.answer}.", 1),
                ("", 0),
            ):
                if tasks.grade(f"<answer>{reply}</answer>", item).score != score:
                    wrong.append((item.id, reply))
            for k, other in enumerate(item.options):
                if other != right and tasks.grade(f"({'ABCD'[k]}) {other}", item).score:
                    wrong.append((item.id, other))
    assert not wrong


def test_what_cannot_be_says_why(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"x": 1, "y": 2}))
    with pytest.raises(UsageError, match="columns"):
        load_tasks((), 5, 0, canonical(rows))
    with pytest.raises(UsageError, match="no column 'z'"):
        load_tasks((), 5, 0, canonical(rows, "question=z,answer=y"))
    with pytest.raises(UsageError, match="unknown column key"):
        canonical(rows, "quesion=x")
    with pytest.raises(UsageError, match="unknown answer type"):
        canonical(rows, "question=x,answer=y,answer_type=numbr")
    with pytest.raises(UsageError, match="unknown benchmark"):
        canonical(f"mathvsta={tmp_path}")
    with pytest.raises(UsageError, match="no data"):
        canonical(tmp_path / "absent")
    rows.write_text("{broken")
    with pytest.raises(FrankenError, match="line 1 is not JSON"):  # and no other line is
        load_tasks((), 5, 0, canonical(rows, "question=x,answer=y"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no table"):
        load_tasks((), 5, 0, canonical(tmp_path / "empty"))


def test_splits_of_a_folder(tmp_path):
    for split in ("train", "test"):
        pd.DataFrame([{"question": split, "answer": "1"}]).to_parquet(
            tmp_path / f"{split}-00000-of-00001.parquet"
        )
    with pytest.raises(UsageError, match="several splits"):
        load_tasks((), 5, 0, canonical(tmp_path, "question=question,answer=answer"))
    assert (
        load_tasks((), 5, 0, canonical(tmp_path, "split=test,question=question,answer=answer"))[
            0
        ].question
        == "test"
    )
    pd.DataFrame([{"question": "main", "answer": "#### 1"}]).to_parquet(
        tmp_path / "test-00000-of-00001.parquet"
    )
    assert load_tasks((), 5, 0, canonical(f"gsm8k={tmp_path}"))[0].question == "main"


def test_a_hub_id_is_read_from_the_cache_and_only_there(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(hub, config=None, split=None):
        asked.append((hub, config, split, datasets.config.HF_HUB_OFFLINE))
        rows = {"question": ["How many?"], "answer": ["So 7.\n#### 7"]}
        return datasets.Dataset.from_dict(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    (item,) = load_tasks((), 5, 0, canonical("gsm8k"))
    assert (item.answer, item.task) == ("7", "gsm8k")
    assert asked == [("openai/gsm8k", "main", "test", True)]
    assert load_tasks((), 5, 0, canonical("openai/gsm8k", "split=train"))[0].task == "gsm8k"
    assert asked[-1] == ("openai/gsm8k", "main", "train", True)
    from franken.tasks.sources import fetch

    fetch("gsm8k")
    assert asked[-1][3] is False
    assert datasets.config.HF_HUB_OFFLINE is False


def test_a_hub_id_that_is_not_cached_is_an_error(monkeypatch, tmp_path):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(FrankenError, match="local cache"):
        load_tasks((), 5, 0, canonical("nobody-of-that-name/nothing"))


def test_options_listed_in_a_question():
    assert options_in("Which? (A) 3 (B) 4") == ("3", "4")
    assert options_in("Options: A: x, B: y, C: A. Smith, D: none") == ("x", "y", "A. Smith", "none")
    assert options_in("Triangle A, B and C. How long is AB?") == ()
    assert options_in("A: only one") == ()
