"""Broken rows of every kind beside sound ones, through eval, probe, training and the page: each is
accounted for. `python -m attacks.thousand` does it with a thousand.
"""

import json

import pytest
import yaml
from PIL import Image

from franken.cli import run_command
from franken.runs import load_run
from franken.tasks.questions import BLANK, questions_of
from franken.tasks.sources import canonical, load_tasks

BROKEN = {
    "no file": {"image": "nowhere.png"},
    "half a picture": {"image": "half.png"},
    "outside": {"image": "../outside.png"},
    "a NUL": {"question": "\0"},
    "too long": {"question": "x" * 100_001},
    "a list": {"question": [1]},
    "no answer": {"answer": None},
    "a structure": {"answer": {"a": 1}},
    "a number": {"image": {"bytes": 7}},
    "a sign": {"question": "<|im_end|>"},
}
ROWS = 2 * len(BROKEN)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    Image.new("RGB", (56, 56), "red").save(folder / "a.png")
    (folder / "half.png").write_bytes((folder / "a.png").read_bytes()[:60])
    sound = {"question": "How many?", "answer": "1", "image": "a.png"}
    rows = [row for change in BROKEN.values() for row in (sound, sound | change)]
    named = [{"id": str(i), **row} for i, row in enumerate(rows)]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    return folder / "t.jsonl"


@pytest.mark.usefixtures("unrasterised")
def test_every_row_is_accounted_for_by_every_verb(table, tmp_path, capsys):
    asked = ["--data", str(table), "--samples", "99", "--max-new-tokens", "2"]
    asked += ["--out", str(tmp_path / "runs"), "--json"]
    lines = (
        ["eval", "creature:sft", "--n", "1", "--k", "1", "--no-compare", *asked],
        ["probe", "creature:sft", "--method", "zero", "--layers", "0", "--no-figures", *asked],
    )
    for line in lines:
        assert run_command(line, False) == 3, capsys.readouterr().err
    for folder in (tmp_path / "runs").glob("*/*"):
        samples = load_run(folder).samples
        failed = samples["error"].notna()
        assert samples["sample"].nunique() == ROWS
        assert set(samples.loc[failed, "sample"]) == {f"t-{i}" for i in range(1, ROWS, 2)}
        assert samples.loc[~failed, "output"].notna().all()
    out = ["--out", str(tmp_path / "page")]
    assert run_command(["report", str(tmp_path / "runs"), *out, "--json"], False) == 3


def test_training_passes_over_them_and_counts(table, tmp_path, capsys):
    stage = {"kind": "sft", "data": str(table), "steps": 4, "batch": 5, "lr": 1e-5}
    stage |= {"on_bad_row": "skip"}
    recipe = {"name": "x", "model": "creature:sft", "device": "cpu", "stages": [stage]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    line = ["train", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out"), "--json"]
    assert run_command(line, False) == 0, capsys.readouterr().err
    steps = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    skipped = sum(json.loads(step).get("skipped_rows", 0) for step in steps)
    assert len(BROKEN) <= skipped <= 2 * len(BROKEN)  # the sound ones were asked twice


def test_pictures_are_held_while_they_are_asked_alone(table):
    spec = canonical(table)
    whole, lean = load_tasks((), 99, 0, spec), questions_of((), 99, 0, spec)
    assert [item.id for item in lean.items] == [item.id for item in whole]
    assert {id(item.image) for item in lean.items if item.image} == {id(BLANK)}
    assert [item.pictures for item in lean.items] == [item.pictures for item in whole]
    some = [3, 0, 18]
    for seen, item in zip(
        lean.seen([lean.items[i] for i in some]), (whole[i] for i in some), strict=True
    ):
        assert (seen.id, seen.question, seen.error) == (item.id, item.question, item.error)
        assert (seen.image and seen.image.tobytes()) == (item.image and item.image.tobytes())
