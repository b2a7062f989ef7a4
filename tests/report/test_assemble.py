"""A study made of runs that exist: who is who by content, nothing counted twice, and clear words
for what cannot be.
"""

import json
import shutil

import pytest

from franken.errors import FrankenError, UsageError
from franken.report.assemble import _frozen_labels, _Models, assemble
from franken.runs import Study, layer_row, open_run, open_study, read_study
from franken.runs.lineage import Frozen, Said

HASHES = {"base": "b" * 16, "sft": "5" * 16, "rl": "a" * 16, "other": "0" * 16}


def evaluation(folder, label, content, *, arms=("image",), n=2, **graft):
    identity = {"label": label, "model": content, "arms": arms, "n": n}
    config = {
        "tasks": ["read"],
        "samples": n,
        "seed": 3,
        "data": None,
        "arms": list(arms),
        "graft": None,
    }
    if graft:
        identity["donor"] = graft.pop("donor")
        config["graft"] = {"label": label, "donor": "x", "take": [], "more": [], **graft}
    models = {} if config["graft"] else {label: str(folder / label)}
    run = open_run("eval", label, identity, folder, config=config, models=models)
    run.append(
        [
            {
                "model": label,
                "method": arm,
                "task": "read",
                "sample": f"q{i}",
                "draw": -1,
                "gold": "1",
                "output": "1",
                "strategy": None,
                "ineligible": None,
                "score": 1.0,
                "error": None,
            }
            for arm in arms
            for i in range(n)
        ]
    )
    rows = [
        layer_row(model=label, method=arm, part="text", layer=7, metric="x", value=1.0, n=n)
        for arm in arms
    ]
    return run.finish(rows, n_requested=n)


def diff(folder, *stages):
    made = {stage: HASHES[of] for stage, _, of in (s.partition("=") for s in stages)}
    run = open_run(
        "diff",
        "final",
        {"checkpoints": made},
        folder,
        config={},
        models={s: f"m-{s}" for s in made},
    )
    run.append([{"tensor": "t", "error": None}])
    row = layer_row(
        model="final",
        method="base→rl",
        part="text",
        layer=7,
        metric="relative_energy",
        value=0.1,
        n=1,
    )
    return run.finish([row], n_requested=1)


@pytest.fixture
def runs(tmp_path):
    """Runs of three calls, under names that say nothing, and hybrids of two kinds."""
    folder = tmp_path / "runs"
    diff(folder, "base=base", "sft=sft", "rl=rl")
    for label, stage in (("one", "base"), ("two", "sft"), ("three", "rl"), ("fourth", "other")):
        evaluation(folder, label, HASHES[stage])
    evaluation(folder, "mix", HASHES["sft"], donor=HASHES["rl"], layers="text:5-8")
    evaluation(folder, "random-3a", HASHES["sft"], donor=HASHES["rl"], layers="text:0-2,text:4-5")
    evaluation(folder, "strange", HASHES["base"], donor=HASHES["rl"], layers="text:0-2")
    return folder


def test_models_are_told_apart_by_content_and_links_are_relative(runs, tmp_path):
    out = assemble([runs], out=tmp_path / "page")
    study = read_study(out)
    assert study.models == {
        stage: str(runs / name)
        for stage, name in {"base": "one", "sft": "two", "rl": "three", "fourth": "fourth"}.items()
    }
    assert (study.depth, study.tasks, study.seed) == (8, ["read"], 3)
    assert {h: (v.layers, v.control) for h, v in study.hybrids.items()} == {
        "mix": ([5, 6, 7], False),
        "random-3a": ([0, 1, 4], True),
    }
    assert any("strange" in note and "RL started from" in note for note in study.notes)
    assert all(f.startswith("../runs/") for f in study.folders())
    found = open_study(out)
    assert not found.missing
    assert set(found.samples("eval")["model"]) == {
        "base",
        "sft",
        "rl",
        "fourth",
        "mix",
        "random-3a",
    }
    shutil.move(str(runs.parent), tmp_path.parent / f"{tmp_path.name}-moved")
    moved = tmp_path.parent / f"{tmp_path.name}-moved" / "page"
    assert not open_study(moved).missing


def test_two_runs_of_the_same_are_counted_once_and_the_larger_wins(runs, tmp_path):
    evaluation(runs, "larger", HASHES["rl"], n=5)
    evaluation(runs, "three", HASHES["rl"], arms=("text",))
    study = read_study(assemble([runs], out=tmp_path / "page"))
    rows = open_study(tmp_path / "page").samples("eval", "rl")
    assert not rows.duplicated(["task", "sample", "draw", "method"]).any()
    assert rows["method"].value_counts().to_dict() == {"image": 5, "text": 2}
    assert any("larger run" in note for note in study.notes)


def test_names_decide_where_no_diff_does(tmp_path):
    for label, stage in (("creature-base", "base"), ("my_rl_7b", "rl")):
        evaluation(tmp_path / "runs", label, HASHES[stage])
    assert set(read_study(assemble([tmp_path / "runs"], out=tmp_path / "o")).models) == {
        "base",
        "rl",
    }


def test_what_is_unclear_is_asked_for_and_can_be_said(tmp_path):
    first, second = (
        evaluation(tmp_path / "runs", label, HASHES[s]) for label, s in (("x", "base"), ("y", "rl"))
    )
    with pytest.raises(UsageError, match="cannot tell which") as e:
        assemble([first, second])
    assert "x (bbbbbbbb), y (aaaaaaaa)" in e.value.why
    out = assemble([first, second], out=tmp_path / "o", said=Said(base="x", rl="aaaa"))
    assert read_study(out).models == {
        stage: str(tmp_path / "runs" / name) for stage, name in (("base", "x"), ("rl", "y"))
    }
    with pytest.raises(UsageError, match="--rl z is none"):
        assemble([first, second], said=Said(rl="z"))
    with pytest.raises(UsageError, match="two stages"):
        assemble([first, second], said=Said(base="y", rl="y"))


def test_two_claims_on_one_stage_are_refused(tmp_path):
    for label, stage in (("rl-a", "rl"), ("rl-b", "other"), ("base", "base")):
        evaluation(tmp_path / "runs", label, HASHES[stage])
    with pytest.raises(UsageError, match="two models could be rl"):
        assemble([tmp_path / "runs"])


def test_one_model_alone_has_a_page(tmp_path):
    evaluation(tmp_path / "runs", "thing", HASHES["other"])
    study = read_study(assemble([tmp_path / "runs"], out=tmp_path / "o"))
    assert study.models == {"rl": str(tmp_path / "runs" / "thing")}
    assert "called RL" in study.notes[0]


def test_unfinished_foreign_and_damaged_runs_say_so(tmp_path):
    whole = evaluation(tmp_path / "runs", "rl", HASHES["rl"])
    begun = open_run("eval", "begun", {"x": 1}, tmp_path / "runs", config={}).folder
    with pytest.raises(FrankenError, match="not a finished run"):
        assemble([begun])
    study = read_study(assemble([tmp_path / "runs"], out=tmp_path / "o"))
    assert any("1 runs below runs are not finished" in note for note in study.notes)
    with pytest.raises(FrankenError, match="holds no run"):
        assemble([tmp_path / "nowhere"])
    manifest = json.loads((whole / "run.json").read_text())
    (whole / "run.json").write_text(json.dumps(manifest | {"schema": 99}))
    with pytest.raises(FrankenError, match="another version"):
        assemble([whole])
    (whole / "run.json").write_text(json.dumps({**manifest, "verb": "diff", "identity": {}}))
    with pytest.raises(FrankenError, match="damaged") as nameless:
        assemble([whole])
    assert "of which models" in nameless.value.why
    (whole / "run.json").write_text("{")
    with pytest.raises(FrankenError, match="damaged"):
        assemble([whole])


def test_an_autopsy_or_anything_else_is_not_overwritten(runs, tmp_path):
    Study(title="t", models={}, depth=8, tasks=[], samples=1, seed=0).save(tmp_path)
    with pytest.raises(UsageError, match="holds an autopsy"):
        assemble([runs], out=tmp_path)
    with pytest.raises(UsageError, match="holds something else"):
        assemble([runs], out=runs)
    assert assemble([runs], out=tmp_path / "o") == assemble([runs], out=tmp_path / "o")


def test_without_out_the_folder_is_named_by_what_it_holds(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = assemble([runs])
    assert first == assemble([runs])
    assert first.name.startswith("report-")
    evaluation(runs, "more", HASHES["sft"], arms=("text",))
    assert assemble([runs]) != first


def test_a_label_names_frozen_layers_by_its_form_alone(runs, tmp_path):
    """`early` and `0-3` are ranges as well, but no names of frozen checkpoints."""
    for i, label in enumerate(("frozen-late", "early", "0-3", "frozen-solid")):
        evaluation(runs, label, f"{i + 1:016}")
    study = read_study(assemble([runs], out=tmp_path / "page"))
    assert {"frozen-late", "early", "0-3", "frozen-solid"} <= study.models.keys()
    assert study.frozen == {"frozen-late": [5, 6, 7]}


def test_the_proof_of_what_was_frozen_goes_before_the_label():
    models = _Models({"c1": "frozen-late", "c2": "frozen-early"}, None, None, 8)
    proofs = Frozen({"c1": [0, 3], "elsewhere": [2]}, [])
    assert _frozen_labels(models, proofs) == {"frozen-late": [0, 3], "frozen-early": [0, 1]}
