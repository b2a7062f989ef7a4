"""The freeze study: its arms, its pairing, and that freezing and merging of the same layers stand
side by side.
"""

import json

import numpy as np
import pandas as pd
import pytest

from franken.checkpoints import open_checkpoint, read_array
from franken.cli import run_command
from franken.diff.plan import plan_diff
from franken.errors import UsageError
from trainer import layer_worth
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


def test_one_layer_that_trains_alone_leaves_every_other_tensor_as_it_was(tmp_path):
    recipe = load_recipe("creature-grpo", SHORT)
    arms = plan_arms(["each"], depth_of(recipe), layers="6-8", trained=True)
    assert [(arm.label, arm.layers) for arm in arms[1:]] == [("layer-6", (6,)), ("layer-7", (7,))]
    out = tmp_path / "study"
    found = run_freeze_study(recipe, arms, [0], out, items=2, trained=True)
    assert {"train", "revert", "graft", ""} == set(found["kind"])
    proof = json.loads((out / "train" / "layer-7-0" / "freeze.json").read_text())["0"]
    assert proof["verified"]["bit_identical"]
    trained = [row for row in proof["table"] if not row["frozen"]]
    assert {(row["part"], row["layer"]) for row in trained} == {("text", 7)}
    every = open_checkpoint("creature:sft").tensors
    of_layer = [key for key in every if key.startswith("text.layers.7.")]
    assert proof["verified"]["tensors"] == len(every) - len(of_layer)
    table, pairs = pd.read_csv(out / "layers.csv"), pd.read_csv(out / "correlations.csv")
    assert set(table["measure"]) == {"alone", "graft", "revert", "energy", "relative energy"}
    assert set(table["layer"]) == {6, 7}
    energy = table[(table["measure"] == "energy") & (table["layer"] == 7)]["value"].item()
    plan = plan_diff([recipe.model, out / "train" / "none-0" / "final"])
    squares = 0.0
    for name in (key for key in plan.tensors if key.startswith("text.layers.7.")):
        before, after = (read_array(entry) for entry, _ in plan.stages(name))
        squares += float(((after - before).astype(float) ** 2).sum())
    assert energy == pytest.approx(squares**0.5, rel=1e-5)
    assert len(pairs) == 0  # two layers have no order


def test_shares_and_their_orders_are_those_of_the_answers():
    """Eight layers of which each reaches a known share; the cheap measure has the same order."""
    rng = np.random.default_rng(0)
    arms = plan_arms(["each"], 8, trained=True)[1:]
    rows, shares = [], {arm.label: n / 8 for n, arm in enumerate(arms)}
    for seed in range(2):
        start, gain = rng.uniform(0, 0.3, 40), rng.uniform(0.4, 0.6, 40)
        values = {"start": start, "none": start + gain}
        for label, share in shares.items():
            values |= {label: start + share * gain, f"graft {label}": start + share * gain / 2}
            values |= {f"revert {label}": start + (1 - share) * gain}
        rows += [
            {"arm": arm, "seed": seed, "task": "t", "item": f"{i:02d}", "acc@1": value}
            for arm, column in values.items()
            for i, value in enumerate(column)
        ]
    made = list(layer_worth._shares(arms, [0, 1], pd.DataFrame(rows)))
    table = pd.DataFrame(made, columns=["layer", "measure", "value", "low", "high", "n"])
    wide = table.pivot(index="layer", columns="measure", values="value")
    np.testing.assert_allclose(wide["alone"], list(shares.values()), atol=1e-12)
    np.testing.assert_allclose(wide["revert"], list(shares.values()), atol=1e-12)
    np.testing.assert_allclose(wide["graft"], np.array(list(shares.values())) / 2, atol=1e-12)
    pairs = layer_worth.rank_correlations(table).set_index(["one", "other"])
    assert pairs.loc[("alone", "graft"), "value"] == pytest.approx(1)
    assert pairs.loc[("alone", "graft"), "p"] == pytest.approx(2 / 40320)
    assert pairs.loc[("alone", "graft"), "p_adjusted"] == pytest.approx(4 / 40320)


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
    each = ["freeze-train", "creature-rl", "--arms", "each", "--train", "arms", "--dry-run"]
    assert run_command([*each, "--layers", "5-8", "--seeds", "2", "--json"], False) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["trained alone"] == {
        "none": "nothing",
        **{f"layer-{n}": f"text:{n}-{n + 1}" for n in (5, 6, 7)},
    }
    assert (plan["runs"], plan["hybrids"]) == (8, 12)
    other = ["freeze-train", "creature-rl", "--arms", "early", "--layers", "0-2", "--dry-run"]
    assert run_command(other, False) == 2
