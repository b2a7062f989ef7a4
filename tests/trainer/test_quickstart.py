"""The quickstart's plan: what trains, after what, and with which options; the runs themselves are
the trainer's.
"""

import json

import pytest

from franken.errors import UsageError
from franken.study.verbs import Process
from trainer.quickstart import FULL, plan_quickstart, run_quickstart


def test_the_shipped_checkpoints_come_first_and_five_trainings_follow(tmp_path):
    paths, steps = plan_quickstart(tmp_path)
    assert list(paths) == [
        "base",
        "sft",
        "rl",
        "control",
        "frozen-late",
        "frozen-middle",
        "frozen-early",
    ]
    assert {s.id: s.needs for s in steps} == {
        "train-rl": (),
        "train-frozen-late": (),
        "train-frozen-middle": (),
        "train-frozen-early": (),
        "train-control": ("train-rl",),
    }
    assert {step.model for step in steps} == set(paths) - {"base", "sft"}
    late = next(s for s in steps if s.id == "train-frozen-late")
    assert isinstance(late.does, Process)
    assert late.does.words()[2:8] == [
        "franken.cli",
        "freeze-train",
        "creature-rl",
        "--freeze",
        "text:late",
        "--out",
    ]


def test_the_control_gets_the_cpu_time_that_rl_took(tmp_path):
    _, steps = plan_quickstart(tmp_path)
    folder = tmp_path / "train" / "rl"
    folder.mkdir(parents=True)
    (folder / "train.json").write_text(
        json.dumps({"recipe": "creature-rl", "updates": 1, "cpu_seconds": 61.27})
    )
    control = next(s for s in steps if s.id == "train-control")
    assert isinstance(control.does, Process)
    assert "stages.0.cpu_seconds=61.3" in control.does.words()
    assert control.does.is_done is not None
    assert not control.does.is_done()


def test_from_base_trains_sft_first_and_everything_starts_from_it(tmp_path):
    paths, steps = plan_quickstart(tmp_path, start="base", size=FULL)
    assert (steps[0].model, steps[0].id) == ("sft", "train-sft")
    assert paths["sft"] == str(tmp_path / "train" / "sft" / "final")
    rl = next(s for s in steps if s.id == "train-rl")
    assert rl.needs == ("train-sft",)
    assert isinstance(rl.does, Process)
    assert f"model={paths['sft']}" in rl.does.words()
    assert f"stages.0.steps={FULL.steps}" in rl.does.words()


def test_another_folder_or_another_kind_is_refused(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        run_quickstart(tmp_path)
    (tmp_path / "quickstart.json").write_text(json.dumps({"start": "base", "full": False}))
    with pytest.raises(UsageError, match="another quickstart"):
        run_quickstart(tmp_path)
