"""Run folders: resumable, complete only with a manifest, nothing dropped."""

import json
import sys
from pathlib import Path

import pytest

import franken
from franken.errors import FrankenError, UsageError
from franken.runs import layer_row, load_run, load_runs, open_run, portable


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
    folder = again.finish(
        [layer_row(model="m", metric="x", layer=None, value=None, n=0)], n_requested=2
    )
    done = load_run(folder)
    assert (done.manifest.n_ok, done.manifest.n_failed, done.manifest.n_requested) == (
        1,
        1,
        2,
    )
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
    with pytest.raises(TypeError, match="colour"):
        layer_row(model="m", metric="x", colour="red")


def fill(out, verb, model, value, error=None):
    run = open_run(verb, model, {"model": model}, out, config={})
    run.append([{"model": model, "sample": "a", "score": value, "error": error}])
    return run.finish(
        [layer_row(model=model, metric="x", layer=1, value=value, n=1)], n_requested=1
    )


def test_all_runs_are_one_table_with_filters(tmp_path):
    fill(tmp_path, "eval", "sft", 0.5)
    fill(tmp_path, "eval", "rl", None, "out of memory")
    fill(tmp_path, "probe", "sft", 0.25)
    table = load_runs(tmp_path)
    assert list(table.columns[:4]) == ["run", "verb", "label", "model"]
    assert (len(table), str(table["layer"].dtype)) == (3, "Int64")
    assert table.set_index(["verb", "model"])["value"].isna().to_dict() == {
        ("eval", "rl"): True,
        ("eval", "sft"): False,
        ("probe", "sft"): False,
    }
    assert load_runs(tmp_path, verb="eval", model="sft")["value"].tolist() == [0.5]
    assert len(load_runs(tmp_path, verb=["eval", "probe"], model=["sft"])) == 2


def test_failed_samples_are_rows_with_their_error(tmp_path):
    fill(tmp_path, "eval", "sft", 0.5)
    fill(tmp_path, "eval", "rl", None, "out of memory")
    rows = load_runs(tmp_path, samples=True).set_index("model")
    assert rows.loc["rl", "error"] == "out of memory"
    assert rows["score"].isna().to_dict() == {"rl": True, "sft": False}


def test_what_no_run_has_is_refused_with_a_guess(tmp_path):
    fill(tmp_path, "eval", "sft", 0.5)
    with pytest.raises(UsageError, match="no run has the verb 'evl'") as caught:
        load_runs(tmp_path, verb="evl")
    assert caught.value.fix == "did you mean 'eval'?"
    with pytest.raises(UsageError, match="model 'rl'"):
        load_runs(tmp_path, model="rl")
    with pytest.raises(UsageError, match="no folder"):
        load_runs(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert len(load_runs(tmp_path / "empty")) == 0


def test_a_manifest_holds_no_path_of_the_machine(tmp_path):
    folder = tmp_path / "study" / "runs" / "eval" / "rl-12345678"
    shipped = str(Path(franken.__file__).parent / "models/weights/creature/sft")
    hub = "/cache/hub/models--Qwen--Qwen2.5-VL-7B-Instruct/snapshots/abc"
    models = {
        "a": str(tmp_path / "study/train/rl/final"),
        "b": shipped,
        "c": hub,
        "d": "/srv/mine/model",
        "e": "creature:sft",
    }
    assert portable(models, folder) == {
        "a": "../../../train/rl/final",
        "b": "creature:sft",
        "c": "Qwen/Qwen2.5-VL-7B-Instruct",
        "d": "model",
        "e": "creature:sft",
    }
    assert portable([{"x": 1.5, "y": None}], folder) == [{"x": 1.5, "y": None}]
    run = open_run(
        "eval",
        "m",
        {"x": 1},
        tmp_path / "runs",
        config={"donor": "/srv/mine/model", "data": "/srv/pairs"},
        models=models,
    )
    text = (
        run.finish([], n_requested=0, extra={"source": str(tmp_path / "runs/eval/other")})
        / "run.json"
    ).read_text()
    assert str(tmp_path) not in text.replace(json.dumps(sys.argv[1:], indent=2)[1:-1].strip(), "")
    assert json.loads(text)["source"] == "../other"
    assert json.loads(text)["config"] == {
        "donor": "model",
        "data": "/srv/pairs",
    }  # data is read again by regrade
