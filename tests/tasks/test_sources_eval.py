"""The loaders from the command line: `franken eval --data` on tables, offline, with the
creature.
"""

import json

import pandas as pd
import pytest
from PIL import Image

from franken.cli import run_command
from franken.evaluate.arms import obstacle, prompt_for
from franken.tasks.puzzle import Item


@pytest.fixture
def table(tmp_path):
    Image.new("RGB", (56, 56), "white").save(tmp_path / "0.png")
    rows = [{"prompt": "how many red ?", "gold": str(i % 3), "picture": "0.png"} for i in range(4)]
    rows.append({"prompt": "how many red ?", "gold": "1", "picture": "missing.png"})
    rows.append({"prompt": "how many red ?", "gold": None, "picture": "0.png"})
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    return tmp_path / "rows.jsonl"


def test_eval_on_a_table_of_ones_own(table, tmp_path, capsys):
    columns = "question=prompt,answer=gold,images=picture"
    arguments = [
        "eval",
        "creature:sft",
        "--data",
        str(table),
        "--columns",
        columns,
        "--n",
        "1",
        "--k",
        "1",
        "--arms",
        "image,blind",
    ]
    assert (
        run_command(
            [*arguments, "--out", str(tmp_path / "runs"), "--json", "--max-new-tokens", "2"], False
        )
        == 3
    )
    folder = json.loads(capsys.readouterr().out)["runs"][0]
    rows = pd.read_parquet(f"{folder}/samples.parquet")
    assert set(rows["task"]) == {"rows"}
    assert len(rows) == 6 * 2 * 2
    assert rows["question"].isin(["how many red ?", ""]).all()
    assert set(rows["answer_type"]) == {"integer", ""}
    errors = rows[rows["error"].notna()]
    assert sorted(set(errors["error"]))[1] == "the row has no answer"
    assert len(errors[errors["method"] == "blind"]) == 2  # the missing image does not matter there


def test_a_download_is_never_done_unasked(tmp_path, capsys):
    assert (
        run_command(
            [
                "eval",
                "creature:sft",
                "--data",
                "nobody-of-that-name/nothing",
                "--out",
                str(tmp_path),
            ],
            False,
        )
        == 1
    )
    assert "--download" in capsys.readouterr().err


def test_a_question_without_an_image_is_ineligible_where_one_is_shown():
    item = Item("1", "gsm8k", "How many?", "7")
    assert obstacle(item, "image") == (None, "the question has no image")
    assert obstacle(item, "blind") == (None, None)


def test_all_images_of_a_question_are_shown():
    one, two = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "white")
    item = Item("1", "mmmu-pro", "[image 1] or [image 2]?", "A", image=one, more_images=(two,))
    assert prompt_for(item, "image").images == (one, two)
