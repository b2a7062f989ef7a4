"""Run folders: resumable, complete only with a manifest, nothing dropped."""

import json

import pytest

from franken.errors import FrankenError, UsageError
from franken.runs import layer_row, load_run, load_runs, open_run


def start(out, **identity):
    return open_run("probe", "a model", identity or {"x": 1}, out, config={}, models={})


def test_rows_land_in_parts_and_come_back(tmp_path):
    run = start(tmp_path)
    run.append([{"sample": "a", "layer": 0, "score": 1.0, "error": None}])
    run.append([{"sample": "b", "layer": None, "score": None, "error": "broken"}])
    again = start(tmp_path)
    assert not again.is_complete()
    assert [r["sample"] for r in again.rows()] == ["a", "b"]
    assert again.rows()[1]["score"] is None
    folder = again.finish([layer_row(model="m", metric="x", layer=None, value=None, n=0)], n_requested=2)
    done = load_run(folder)
    assert (done.manifest["n_ok"], done.manifest["n_failed"], done.manifest["n_requested"]) == (1, 1, 2)
    assert done.layers["value"].isna().all()
    assert start(tmp_path).is_complete()
    assert not (folder / "parts").exists()
    assert load_runs(tmp_path)["run"].tolist() == [folder.name]


def test_another_identity_is_another_folder(tmp_path):
    assert start(tmp_path, x=1).folder != start(tmp_path, x=2).folder


def test_an_unfinished_run_is_not_loaded(tmp_path):
    run = start(tmp_path)
    run.append([{"sample": "a", "error": None}])
    with pytest.raises(FrankenError, match="not a finished run"):
        load_run(run.folder)


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    folder = start(tmp_path).folder
    (folder / "identity.json").unlink()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="something else"):
        start(tmp_path)


def test_the_manifest_says_what_computed_it(tmp_path):
    folder = start(tmp_path).finish([], n_requested=0, warnings=["w"])
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["packages"]["torch"]
    assert manifest["warnings"] == ["w"]
    assert "git" in manifest


def test_layer_rows_take_known_columns_only():
    with pytest.raises(ValueError, match="colour"):
        layer_row(colour="red")
