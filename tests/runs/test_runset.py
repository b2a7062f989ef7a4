"""What a folder holds: finished runs, training, freeze studies, what is unfinished, and whose
checkpoints they are.
"""

import json
from pathlib import Path

import pandas as pd
import pytest

from franken.errors import FrankenError, UsageError
from franken.runs import Study, layer_row, load_run, open_run, open_runs, open_study
from franken.runs.lineage import stage_named
from franken.runs.record import HybridRecord, StepRecord
from franken.runs.runset import FREEZE_COLUMNS

STORED = Path(__file__).parents[2] / "analyses" / "runs"


def evaluation(folder, label, content, *, arm="image", score=1.0):
    identity = {"label": label, "model": content, "arms": [arm]}
    config = {"tasks": ["read"], "arms": [arm], "seed": 0}
    run = open_run("eval", label, identity, folder, config=config, models={label: f"m/{label}"})
    row = {"model": label, "method": arm, "task": "read", "sample": "a", "draw": -1}
    run.append([{**row, "score": score, "error": None}])
    return run.finish(
        [layer_row(model=label, method=arm, task="read", metric="greedy", value=score, n=1)],
        n_requested=1,
    )


def training(folder, *, frozen=(), finished=True):
    folder.mkdir(parents=True)
    recipe = {"name": "r", "seed": 3, "stages": [{"kind": "grpo", "rewards": {"accuracy": 1.0}}]}
    (folder / "recipe.json").write_text(json.dumps({"recipe": recipe, "freeze": [], "train": []}))
    table = [
        {"part": "text", "layer": i, "component": "mlp", "frozen": i in frozen, "parameters": 5}
        for i in range(4)
    ]
    (folder / "freeze.json").write_text(json.dumps({"0": {"table": table, "before": {}}}))
    lines = [{"update": 1, "stage": 0, "reward": 0.5, "held_out": {"acc@1": 0.25}}, {"update": 2}]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"update": 3, "re')
    if finished:
        (folder / "train.json").write_text(json.dumps({"recipe": "r", "updates": 2}))


def test_the_committed_runs_of_older_versions_load():
    runs = open_runs(STORED)
    assert {run.verb for run in runs.runs} == {"compare", "diff", "eval", "merge-sweep", "probe"}
    assert not runs.unfinished
    assert list(runs.lineage().stages) == ["base", "sft", "rl"]
    (sweep,) = runs.of("merge-sweep")
    (change,) = runs.of("diff")
    probed = runs.of("probe")[0].manifest
    assert sweep.manifest.band["gain acc@1"]["all"].n == 5
    assert (sweep.manifest.config.window, sweep.manifest.config.depth) == (3, 8)
    assert change.manifest.location[0].test is not None
    assert change.manifest.config.acc_at == []  # its k is of subspaces
    assert probed.fall_tests[0].tasks == ("recognise", "count")
    for run in runs.runs:  # nothing that the file holds is lost
        assert run.manifest.stored() == json.loads((run.folder / "run.json").read_text())


def test_everything_below_a_folder_is_found_and_dots_are_passed_over(tmp_path):
    evaluation(tmp_path / "a", "sft", "5" * 8)
    evaluation(tmp_path / "b" / ".hidden", "rl", "a" * 8)
    begun = open_run("probe", "rl", {"x": 1}, tmp_path, config={}).folder
    training(tmp_path / "train" / "done", frozen=(2, 3))
    training(tmp_path / "train" / "begun", finished=False)
    pd.DataFrame([dict.fromkeys(FREEZE_COLUMNS, 1.0)]).to_csv(tmp_path / "summary.csv", index=False)
    (tmp_path / "a" / "summary.csv").write_text("x,y\n1,2\n")
    runs = open_runs(tmp_path)
    assert [run.label for run in runs.runs] == ["sft"]
    assert [run.folder.name for run in runs.training] == ["done"]
    assert [path.name for path in runs.unfinished] == [begun.name, "begun"]
    assert [table["run"].tolist() for table in runs.freezing] == [[tmp_path.name]]
    assert runs.layers("eval")["value"].tolist() == [1.0]
    assert len(runs.layers("diff")) == len(runs.samples("diff")) == 0
    assert (runs.models("eval"), runs.arms()) == (["sft"], {"sft": {"image"}})
    with pytest.raises(UsageError, match="holds no study"):
        _ = runs.study
    with pytest.raises(UsageError, match="no folder"):
        open_runs(tmp_path / "gone")


def test_rows_are_read_when_they_are_asked_for(tmp_path):
    folder = evaluation(tmp_path, "rl", "a" * 8)
    run = load_run(folder)
    (folder / "samples.parquet").unlink()
    assert len(run.layers) == 1
    with pytest.raises(FileNotFoundError):
        _ = run.samples
    with pytest.raises(FrankenError, match="is damaged"):
        load_run(folder)


def test_a_manifest_of_another_schema_or_without_counts_is_refused(tmp_path):
    folder = evaluation(tmp_path, "rl", "a" * 8)
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(manifest | {"schema": 2}))
    with pytest.raises(FrankenError, match="another version") as newer:
        open_runs(tmp_path)
    assert newer.value.why == "its schema is 2, this franken reads 1"
    del manifest["n_failed"]
    (folder / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(FrankenError, match="is damaged") as broken:
        open_runs(tmp_path)
    assert broken.value.why.startswith("n_failed")


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    run = open_run("eval", "m", {"x": 1}, tmp_path, config={"seed": "eleven"})
    with pytest.raises(ValueError, match=r"config\.seed"):
        run.finish([], n_requested=0)
    assert not run.is_complete()


def test_runs_of_a_study_carry_its_labels_in_its_order(tmp_path):
    names = {"final": "rl", "start": "sft", "mix": "SFT:RL:RL"}
    folders = {n: evaluation(tmp_path / "runs", n, n * 2).relative_to(tmp_path) for n in names}
    step = {"verb": "eval", "what": "evaluate"}
    steps = [
        StepRecord(id=label, model=label, folders=[str(folders[name])], **step)
        for name, label in names.items()
    ]
    steps.append(StepRecord(id="gone", model="base", folders=["runs/eval/gone"], **step))
    hybrids = {"SFT:RL:RL": HybridRecord(layers=[1, 2])}
    models = {"sft": "s", "rl": "r"}
    Study(
        title="t",
        models=models,
        depth=3,
        tasks=[],
        samples=1,
        seed=0,
        hybrids=hybrids,
        steps=steps,
    ).save(tmp_path)
    by_record, by_folder = open_study(tmp_path), open_runs(tmp_path)
    assert by_record.models("eval") == ["rl", "sft", "SFT:RL:RL"]
    assert by_record.missing == ["runs/eval/gone"]
    assert set(by_folder.models("eval")) == set(names.values())
    assert list(by_folder.answers()) == ["sft", "SFT:RL:RL", "rl"]
    manifest = by_record.manifest("eval", "sft")
    assert manifest is not None
    assert manifest.label == "start"
    assert by_record.manifest("probe", "sft") is None


def test_a_run_of_two_stages_that_are_one_checkpoint_is_there_for_each(tmp_path):
    folder = str(evaluation(tmp_path / "runs", "final", "x").relative_to(tmp_path))
    steps = [StepRecord(id=x, what="", model=x, folders=[folder]) for x in ("sft", "rl")]
    study = Study(title="t", models={}, depth=3, tasks=[], samples=1, seed=0, steps=steps)
    study.save(tmp_path)
    for runs in (open_study(tmp_path), open_runs(tmp_path)):
        assert runs.models("eval") == ["sft", "rl"]
        assert len(runs.samples("eval", "sft")) == len(runs.samples("eval", "rl")) > 0


def test_a_step_renames_the_models_of_a_comparison_and_their_differences(tmp_path):
    run = open_run("compare", "all", {"x": 1}, tmp_path / "runs", config={})
    run.append([{"model": "final - start", "error": None}, {"model": "other", "error": None}])
    folder = run.finish([layer_row(model="final", metric="x")], n_requested=2)
    step = StepRecord(
        id="c",
        what="compare",
        folders=[str(folder.relative_to(tmp_path))],
        rename={"final": "rl", "start": "sft"},
    )
    study = Study(title="t", models={}, depth=1, tasks=[], samples=1, seed=0, steps=[step])
    study.save(tmp_path)
    runs = open_study(tmp_path)
    assert runs.samples("compare")["model"].tolist() == ["rl - sft", "other"]
    assert runs.layers("compare")["model"].tolist() == ["rl"]


def test_a_training_run_tells_its_recipe_updates_and_frozen_layers(tmp_path):
    training(tmp_path / "rl", frozen=(2, 3))
    (run,) = open_runs(tmp_path).training
    assert (run.recipe.name, run.recipe.seed, run.rewards) == ("r", 3, {"accuracy": 1.0})
    assert [update.update for update in run.updates] == [1, 2]  # the third line was cut off
    metrics = run.metrics()
    assert metrics["reward"].tolist()[0] == 0.5
    assert metrics["held_out/acc@1"].isna().tolist() == [False, True]
    assert run.frozen_layers() == [2, 3]
    assert run.manifest.updates == 2
    assert open_runs(tmp_path).frozen() == (
        {},
        ["The training run rl has no final checkpoint any more."],
    )


def test_a_layer_that_trained_in_any_stage_is_not_frozen(tmp_path):
    training(tmp_path / "rl", frozen=(2, 3))
    proofs = json.loads((tmp_path / "rl" / "freeze.json").read_text())
    rows = [{"part": "text", "layer": i, "component": "mlp", "frozen": i == 3} for i in range(4)]
    proofs["1"] = {"table": rows, "before": {}}
    (tmp_path / "rl" / "freeze.json").write_text(json.dumps(proofs))
    (run,) = open_runs(tmp_path).training
    assert run.frozen_layers() == [3]


@pytest.mark.parametrize(
    ("label", "stage"),
    [
        ("my_rl_7b", "rl"),
        ("Creature-SFT", "sft"),
        ("base", "base"),
        ("sft-then-rl", None),
        ("x", None),
    ],
)
def test_a_label_names_a_stage_by_one_word(label, stage):
    assert stage_named(label) == stage
