"""The freeze study: its arms, its pairing, and that freezing and merging of the same layers stand
side by side.
"""

import json

import pandas as pd
import pytest

from franken.cli import run_command
from franken.errors import UsageError
from trainer.freeze_study import NONE, depth_of, plan_arms, run_freeze_study
from trainer.recipe import load_recipe

SHORT = (
    "stages.0.steps=2",
    "stages.0.prompts=2",
    "stages.0.group=4",
    "stages.0.max_new_tokens=16",
    "stages.0.tasks={sum: 1}",
)


def test_arms_are_thirds_their_complements_ranges_and_random_sets_of_equal_size():
    arms = plan_arms(["early", "late", "complement", "random:2", "3-5"], 28)
    by_label = {arm.label: arm for arm in arms}
    assert (arms[0].label, arms[0].layers) == (NONE, ())
    assert by_label["early"].layers == tuple(range(9))
    assert by_label["late"].layers == tuple(range(18, 28))
    assert by_label["all-but-middle"].layers == (*range(9), *range(18, 28))
    assert by_label["3-5"].ranges == "text:3-5"
    drawn = [arm.layers for arm in arms if arm.control]
    assert [len(layers) for layers in set(drawn)] == [9, 9]


@pytest.mark.parametrize(
    "names", [[], ["early", "early"], ["0-28"], ["random:x"], ["earlier"], ["3-99"]]
)
def test_bad_arms_are_usage_errors(names):
    with pytest.raises(UsageError):
        plan_arms(names, 28)


def test_a_recipe_of_several_stages_is_refused(tmp_path):
    recipe = load_recipe("creature-grpo", SHORT)
    two = recipe.model_copy(update={"stages": recipe.stages * 2})
    with pytest.raises(UsageError, match="one RL stage"):
        run_freeze_study(two, plan_arms(["early"], 8), [0], tmp_path / "x")


def test_the_study_trains_merges_and_resumes(tmp_path):
    recipe = load_recipe("creature-grpo", SHORT)
    arms = plan_arms(["early", "late"], depth_of(recipe))
    out, said = tmp_path / "study", []
    found = run_freeze_study(recipe, arms, [0], out, items=2, report=said.append)
    kinds = set(zip(found["arm"], found["kind"], strict=True))
    thirds = {
        (third, kind) for third in ("early", "late") for kind in ("freeze", "revert", "graft")
    }
    assert kinds == {(NONE, ""), ("start", ""), *thirds}
    plain = found[(found["arm"] == NONE) & (found["metric"] == "acc@1")].iloc[0]
    assert plain["minus_none"] == 0
    start = found[(found["arm"] == "start") & (found["metric"] == "acc@1")].iloc[0]
    assert start["minus_none"] == pytest.approx(-plain["minus_start"])
    proof = json.loads((out / "train" / "early-0" / "freeze.json").read_text())["0"]
    assert proof["verified"]["bit_identical"]
    assert any("layers.0." in name for name in proof["verified"]["sha256"])
    cost = pd.read_csv(out / "cost.csv").set_index("arm")
    assert cost.loc["early", "trained_parameters"] < cost.loc[NONE, "trained_parameters"]
    again = run_freeze_study(recipe, arms, [0], out, items=2, report=said.append)
    pd.testing.assert_frame_equal(found, again)
    assert len(said) == len(set(said)) == 5  # three runs and two merges, none of them twice


def test_the_command_plans_a_study_and_wants_one_of_both(capsys):
    assert (
        run_command(
            ["freeze-train", "creature-rl", "--arms", "early,random:2", "--dry-run", "--json"],
            False,
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["runs"] == 12
    assert run_command(["freeze-train", "creature-rl", "--dry-run"], False) == 2
    assert run_command(["freeze-train", "creature-rl", "--arms", "early"], False) == 2
