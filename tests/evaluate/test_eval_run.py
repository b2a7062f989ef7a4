"""Evaluations of a random creature: every row accounted for, resumed runs equal to uninterrupted
ones.
"""

import json
from pathlib import Path

import pandas as pd
import pytest

from franken.errors import UsageError
from franken.evaluate.run import Graft, plan_eval, run_eval
from franken.evaluate.source import label_of
from franken.models import creature
from franken.runs import load_run

OPTIONS = {
    "tasks": ["recognise", "count"],
    "samples": 3,
    "n": 2,
    "k": (1, 2),
    "max_new_tokens": 6,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("creatures")
    for seed, name in enumerate(("one", "two")):
        creature.save(creature.build_model(seed), root / name)
    return {name: str(root / name) for name in ("one", "two")}


def rows_of(folder: Path) -> pd.DataFrame:
    keys = ["method", "task", "sample", "draw"]
    return load_run(folder).samples.sort_values(keys).reset_index(drop=True)


def test_every_arm_task_prompt_and_draw_has_its_row(models, tmp_path):
    (folder,) = run_eval([models["one"]], arms="image,text,blind", out=tmp_path, **OPTIONS)
    run = load_run(folder)
    assert folder.parent == tmp_path / "eval"
    assert run.manifest.n_requested == len(run.samples) == 3 * 2 * 3 * 3
    assert not run.samples.duplicated(["method", "sample", "draw"]).any()
    assert run.samples["output"].notna().all()
    pooled = run.layers[(run.layers["task"] == "all") & (run.layers["metric"] == "acc@2")]
    assert pooled["n"].tolist() == [6, 6, 6]
    assert (pooled["ci_low"] <= pooled["value"]).all()


def test_an_interrupted_run_resumes_to_the_same_rows(models, tmp_path, monkeypatch):
    from franken.evaluate import run as module
    from franken.generate import native

    monkeypatch.setattr(module, "CHUNK", 2)
    (whole,) = run_eval([models["one"]], out=tmp_path / "whole", **OPTIONS)
    calls = []
    generate = native.generate

    def stop_at_the_fourth(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return generate(*args, **kwargs)

    monkeypatch.setattr(native, "generate", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run_eval([models["one"]], out=tmp_path / "cut", **OPTIONS)
    assert not list(tmp_path.glob("cut/eval/*/run.json"))
    assert len(list(tmp_path.glob("cut/eval/*/parts/*.parquet"))) == 1
    monkeypatch.setattr(native, "generate", generate)
    (resumed,) = run_eval([models["one"]], out=tmp_path / "cut", **OPTIONS)
    assert resumed.name == whole.name
    pd.testing.assert_frame_equal(rows_of(whole), rows_of(resumed))
    pd.testing.assert_frame_equal(load_run(whole).layers, load_run(resumed).layers)


def test_a_complete_run_is_returned_without_loading_the_model(models, tmp_path, monkeypatch):
    from franken.models import loading

    first = run_eval([models["one"]], out=tmp_path, **OPTIONS)
    monkeypatch.setattr(loading, "load", lambda *a, **k: pytest.fail("loaded again"))
    assert run_eval([models["one"]], out=tmp_path, **OPTIONS) == first


def test_grafting_all_layers_of_a_twin_with_the_same_rest_gives_the_twin(models, tmp_path):
    """All decoder layers from `two`, and the rest of `one` equal to `two`'s: the hybrid must answer
    like `two`.
    """
    from safetensors.torch import load_file, save_file

    mixed = tmp_path / "mixed"
    creature.save(creature.build_model(0), mixed)
    file = next(mixed.glob("*.safetensors"))
    ours, theirs = load_file(file), load_file(next(Path(models["two"]).glob("*.safetensors")))
    rest = {k: v for k, v in theirs.items() if ".layers." not in k}
    save_file(ours | rest, file, metadata={"format": "pt"})
    grafts = [
        Graft("whole", models["two"], "text:all"),
        Graft("none-of-it", str(mixed), "text:all"),
    ]
    whole, same = run_eval([str(mixed)], grafts=grafts, out=tmp_path, **OPTIONS)
    (donor,) = run_eval([models["two"]], out=tmp_path, **OPTIONS)
    (base,) = run_eval([str(mixed)], out=tmp_path, **OPTIONS)
    assert rows_of(whole)["output"].tolist() == rows_of(donor)["output"].tolist()
    assert rows_of(same)["output"].tolist() == rows_of(base)["output"].tolist()
    assert rows_of(whole)["output"].tolist() != rows_of(base)["output"].tolist()
    assert json.loads((whole / "run.json").read_text())["config"]["graft"]["layers"] == "text:all"


def test_broken_images_fail_in_the_image_arm_only(models, tmp_path):
    from PIL import Image

    folder = tmp_path / "data" / "ocr"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (84, 84), "white").save(folder / f"{name}.png")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:40])
    rows = [
        {
            "id": f"ocr_{t}",
            "task": "ocr",
            "target_image": f"{t}.png",
            "source_image": "a.png",
            "prompt": "Read the text.",
            "meta": {"target_text": "red", "source_text": "blue"},
        }
        for t in ("a", "b")
    ]
    (folder / "data.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    options = {**OPTIONS, "tasks": None}
    (done,) = run_eval(
        [models["one"]], data=tmp_path / "data", arms="image,blind", out=tmp_path, **options
    )
    run = load_run(done)
    failed = run.samples[run.samples["error"].notna()]
    assert set(zip(failed["method"], failed["sample"], strict=True)) == {("image", "ocr_b-target")}
    assert run.manifest.n_failed == 3
    assert run.manifest.n_requested == len(run.samples) == 2 * 2 * 3
    counted = run.layers[(run.layers["metric"] == "acc@1") & (run.layers["task"] == "ocr")]
    assert counted.set_index("method")["n"].to_dict() == {"image": 1, "blind": 2}


def test_wrong_requests_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match="unknown task"):
        plan_eval(tasks=["cuont"])
    with pytest.raises(UsageError, match="cannot be estimated"):
        plan_eval(n=2, k=(1, 4))
    with pytest.raises(UsageError, match="not positive"):
        plan_eval(samples=0)
    assert not list(tmp_path.iterdir())


def test_labels():
    assert label_of("creature:sft") == "creature-sft"
    assert label_of("some/where/rl") == "rl"


def test_a_donor_that_differs_is_a_warning_of_the_run(models, tmp_path):
    import shutil

    odd = tmp_path / "odd"
    shutil.copytree(models["two"], odd)
    config = json.loads((odd / "config.json").read_text())
    config["text_config"]["rms_norm_eps"] = 1e-3
    (odd / "config.json").write_text(json.dumps(config))
    (folder,) = run_eval(
        [models["one"]], grafts=[Graft("late", str(odd), "late")], out=tmp_path, **OPTIONS
    )
    (warning,) = load_run(folder).manifest.warnings
    assert "config: rms_norm_eps" in warning
