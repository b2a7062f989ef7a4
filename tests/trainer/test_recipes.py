"""The recipes of the papers: they parse, plan and validate without their models, and say what they
are.
"""

import json
from pathlib import Path

import pytest
import torch

from franken.cli import run_command
from franken.errors import UsageError
from franken.models.loading import load
from trainer.freeze import apply_freeze
from trainer.freeze_plan import freeze_plan
from trainer.lora import add_lora
from trainer.recipe import Lora, load_recipe, parse_recipe
from trainer.recipe_files import describe, recipe_groups, recipe_names

SYSTEMS = recipe_groups()["systems"]  # test_systems.py
PAPERS = [n for n in recipe_names() if n.endswith(("-3b", "-7b")) and n not in SYSTEMS]


@pytest.fixture
def no_network(monkeypatch):
    import socket

    import transformers

    def refuse(*_, **__):
        raise AssertionError("nothing may be loaded or fetched")

    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_names_descriptions_and_contents_are_those_of_one_file_a_recipe():
    """recipes.json holds the recipes as they were before variants and `extends`, each in full."""
    written = json.loads((Path(__file__).parent / "recipes.json").read_text())
    assert set(written) <= set(recipe_names())
    for name, before in written.items():
        assert describe(name) == before["description"]
        assert load_recipe(name) == parse_recipe(before["recipe"])


def test_a_recipe_of_ones_own_extends_another(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: creature-mupo\nname: mine\nstages.0.advantage.clusters: 2\n")
    mine, theirs = load_recipe(file, ("seed=3",)), load_recipe("creature-mupo")
    assert (mine.name, mine.seed) == ("mine", 3)
    assert mine.stages[0].advantage.clusters == 2
    rest = mine.stages[0].model_copy(update={"advantage": theirs.stages[0].advantage})
    assert rest == theirs.stages[0]
    for text, word in (
        ("extends: creature-mup\n", "did you mean 'creature-mupo'"),
        ("extends: creature-mupo\nstages.1.steps: 2\n", "points nowhere"),
        ("extends: creature-mupo\nvariants: {}\n", "unknown key variants"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError) as refused:
            load_recipe(file)
        assert word in f"{refused.value.what} {refused.value.why} {refused.value.fix}"


def test_every_paper_has_both_sizes():
    assert {n.removesuffix("-3b") for n in PAPERS if n.endswith("3b")} == {
        n.removesuffix("-7b") for n in PAPERS if n.endswith("7b")
    }
    assert {"mupo-3b", "frankenstein-rl-3b", "rewards-visual-fusion-7b"} <= set(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_dry_run_validates_without_the_model(name, no_network, capsys):
    assert load_recipe(name).name == name
    assert run_command(["train", name, "--dry-run", "--json"], True) == 0
    stage = json.loads(capsys.readouterr().out)["stages"][0]
    assert sum(row["parameters"] for row in stage["table"]) > 3e9
    assert (
        run_command(["train", name, "--dry-run", "--set", "stages.0.freeze=[text:30-99]"], False)
        == 2
    )
    assert "past the end" in capsys.readouterr().err


@pytest.mark.parametrize("freeze", [(), ("vision", "embed", "text:0-3"), ("norm", "re:mlp")])
def test_the_table_from_shapes_is_the_one_of_the_model(freeze):
    loaded = load("creature:sft", device="cpu")
    recipe = load_recipe("creature-sft").model_copy(update={"model": "creature:sft"})
    stage = recipe.stages[0].model_copy(update={"freeze": ()})
    planned = freeze_plan(recipe.model_copy(update={"stages": (stage,)}), freeze)
    assert planned[0].table == apply_freeze(loaded.model, freeze)
    assert not torch.cuda.is_initialized()


@pytest.mark.parametrize(
    ("targets", "freeze"), [(("text.attn", "text.mlp"), ()), (("text:2-5.mlp",), ("text:0-3",))]
)
def test_with_lora_the_table_from_shapes_has_adapters_and_frozen_weights(targets, freeze):
    pytest.importorskip("peft")
    loaded = load("creature:sft", device="cpu")
    lora = Lora(rank=4, targets=targets)
    recipe = load_recipe("creature-sft").model_copy(update={"model": "creature:sft", "lora": lora})
    stage = recipe.stages[0].model_copy(update={"freeze": ()})
    planned = freeze_plan(recipe.model_copy(update={"stages": (stage,)}), freeze)[0].table
    add_lora(loaded.model, **lora.model_dump(), seed=0)
    made = apply_freeze(loaded.model, freeze)
    order = ("part", "layer", "component", "frozen", "tensors", "parameters")

    def rows(table):
        return sorted(tuple(str(getattr(row, column)) for column in order) for row in table)

    assert rows(planned) == rows(made)
    trains = sum(row.parameters for row in planned if not row.frozen)
    assert 0 < trains == sum(p.numel() for p in loaded.model.parameters() if p.requires_grad)
    with pytest.raises(UsageError, match="everything is frozen"):
        freeze_plan(recipe.model_copy(update={"stages": (stage,)}), ("text",))


def test_list_says_what_each_recipe_is(capsys):
    assert run_command(["train", "--list"], True) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[0] for line in lines if line.startswith("  ")]
    assert sorted(named) == recipe_names()
    assert all(len(describe(name)) > 20 for name in recipe_names())
