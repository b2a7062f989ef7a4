"""Contact sheets, the catalogue and their commands."""

import json

import numpy as np
import pytest
from PIL import Image

from franken import tasks
from franken.cli import run_command
from franken.tasks.contact_sheet import GAP, contact_sheet
from franken.tasks.puzzle import Item


def test_every_picture_is_on_the_sheet_in_order():
    items = tasks.get("clock@252").items(5, 0)
    sheet = np.asarray(contact_sheet(items, columns=3))
    assert np.array_equal(sheet[GAP : GAP + 252, GAP : GAP + 252], np.asarray(items[0].image))
    second = GAP + 252 + GAP
    assert np.array_equal(sheet[GAP : GAP + 252, second : second + 252], np.asarray(items[1].image))
    assert sheet.shape[1] == GAP + 3 * (252 + GAP)


def test_an_item_without_an_image_and_a_very_long_word_have_their_place():
    broken = Item("x", "clock", "w" * 500, "1", error="no such file")
    sheet = contact_sheet([broken, *tasks.get("count").items(1, 0)])
    assert sheet.height > 252 + 10 * 17
    with pytest.raises(ValueError, match="needs items"):
        contact_sheet([])


def run(capsys, *arguments):
    code = run_command(["tasks", *map(str, arguments)], False)
    return code, capsys.readouterr()


def test_render_writes_a_png(tmp_path, capsys):
    code, _ = run(capsys, "render", "clock:3", "--n", 3, "--out", tmp_path / "deep" / "sheet.png")
    assert code == 0
    assert Image.open(tmp_path / "deep" / "sheet.png").width == GAP + 3 * (252 + GAP)
    code, printed = run(
        capsys,
        "render",
        "rotting_kiwi+choice",
        "--pairs",
        "--n",
        2,
        "--out",
        tmp_path / "p.png",
        "--json",
    )
    assert (code, json.loads(printed.out)["task"]) == (0, "rotting_kiwi+choice")


def test_list_names_every_task_and_show_counts_the_facts_of_pairs(capsys):
    code, printed = run(capsys, "list", "--json")
    assert (code, [t["task"] for t in json.loads(printed.out)["tasks"]]) == (0, tasks.every_name())
    code, printed = run(capsys, "show", "count", "--pairs", 20, "--json")
    found = json.loads(printed.out)
    assert (
        sum(found["pairs"]["facts"].values()) + found["pairs"]["ineligible"]
        == found["pairs"]["n"]
        == 20
    )
    assert set(found["pairs"]["facts"]) <= set(found["facts"])


@pytest.mark.parametrize(
    "bad", [["show", "klock"], ["show", "clock:7"], ["render", "clock", "--split", "dev"]]
)
def test_bad_names_are_usage_errors(bad, capsys):
    assert run(capsys, *bad)[0] == 2
