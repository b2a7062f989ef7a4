"""The record of a study: what is written comes back, and records of older versions still open."""

import json

import pytest

from franken.errors import FrankenError
from franken.runs import Study, read_study

OLD = {
    "title": "t",
    "models": {"base": "b", "rl": "r"},
    "depth": 8,
    "tasks": ["read"],
    "samples": 2,
    "seed": 0,
    "data": None,
    "hybrids": {},
    "frozen": {},
    "steps": [],
    "command": "",
    "schema": 1,
}


def test_a_record_comes_back_as_it_was_written(tmp_path):
    study = Study(
        **OLD | {"notes": ["small"], "left_out": [{"id": "x"}], "budget": {"text": "30m"}}
    )
    study.save(tmp_path)
    assert read_study(tmp_path) == study


def test_an_older_record_has_neither_notes_nor_a_budget(tmp_path):
    (tmp_path / "study.json").write_text(json.dumps(OLD))
    study = read_study(tmp_path)
    assert (study.notes, study.left_out, study.budget, study.sizes) == ([], [], None, {})


@pytest.mark.parametrize(
    "text", [json.dumps(OLD | {"schema": 99}), json.dumps(OLD | {"x": 1}), "{", "[]"]
)
def test_what_is_no_record_of_this_version_is_refused(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(FrankenError):
        read_study(tmp_path)
