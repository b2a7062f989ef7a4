"""Every kind of freeze, and of `train`: after real RL updates what is frozen has not moved and has
no optimiser state.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from franken.cli import run_command
from franken.errors import UsageError
from franken.models.loading import load
from franken.models.tiny import tiny
from franken.names import Place
from trainer import loop
from trainer.freeze import Tensors, freeze_table, frozen_names, parameter_places
from trainer.recipe import parse_recipe, with_trained


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    """The creature with an output head of its own."""
    folder = tmp_path_factory.mktemp("untied")
    loaded = load("creature:sft", device="cpu")
    loaded.model.config.tie_word_embeddings = (
        loaded.model.config.text_config.tie_word_embeddings
    ) = False
    head = loaded.model.get_input_embeddings().weight.detach().clone()
    loaded.model.lm_head.weight = torch.nn.Parameter(head)
    loaded.model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    return folder


def recipe(model, **what):
    stage = {
        "kind": "grpo",
        "steps": 2,
        "prompts": 2,
        "group": 6,
        "max_new_tokens": 24,
        "lr": 1e-3,
        "save_every": 1,
    }
    stage |= {"tasks": {"count": 1.0}, "temperature": 1.2, **what}
    return parse_recipe({"name": "t", "model": str(model), "device": "cpu", "stages": [stage]})


def in_text(layer):
    return lambda spot: spot.part == "text" and spot.layer == layer


KINDS = {
    "vision": lambda spot: spot.part == "vision",
    "projector": lambda spot: spot.part == "projector",
    "embed": lambda spot: spot.part == "text" and spot.component == "embed",
    "norm": lambda spot: spot.part == "text" and spot.layer is None and spot.component == "norm",
    "head": lambda spot: spot.component == "head",
    "text:2-3": in_text(2),
    "vision:0": lambda spot: spot.part == "vision" and spot.layer == 0,
    "text.attn": lambda spot: spot.part == "text" and spot.component == "attn",
    "text:1-2.mlp": lambda spot: in_text(1)(spot) and spot.component == "mlp",
    "re:^text.layers.3.": in_text(3),
}


@pytest.mark.parametrize("verb", ["freeze", "train"])
@pytest.mark.parametrize("spec", KINDS)
def test_what_is_frozen_does_not_move_and_costs_no_memory(untied, tmp_path, verb, spec):
    final = loop.run_train(recipe(untied, **{verb: [spec]}), tmp_path)
    model = load(str(untied), device="cpu").model
    named = {name for name, spot in parameter_places(model).items() if KINDS[spec](spot)}
    frozen = named if verb == "freeze" else {n for n, _ in model.named_parameters()} - named
    before, after = (
        dict(model.named_parameters()),
        dict(load(str(final), device="cpu").model.named_parameters()),
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert named
    assert not moved & frozen
    assert moved  # the update was a real one
    proof = json.loads((tmp_path / "freeze.json").read_text())["0"]["verified"]
    assert set(proof["sha256"]) == frozen
    trained = sum(p.numel() for n, p in before.items() if n not in frozen)
    assert moments(tmp_path) == 2 * 4 * trained


def moments(out: Path) -> int:
    """Bytes of both moments of Adam after the first update."""
    folder = out / "state" / "step-00000001"
    saved = torch.load(folder / "optimizer.pt", weights_only=True)["optimizer"]["state"]
    assert load_file(folder / "model.safetensors")
    return sum(s[k].nbytes for s in saved.values() for k in ("exp_avg", "exp_avg_sq"))


def test_train_is_the_complement_of_freeze():
    model = tiny("qwen2_5_vl")
    everything = {name for name, _ in model.named_parameters()}
    for spec in ("vision", "text:0-2", "text.attn", "head", "early"):
        assert frozen_names(model, (), [spec]) == everything - frozen_names(model, [spec])
    only = everything - frozen_names(model, ["text:0-1"], ["text:0-2", "vision"])
    assert {
        (s.part, s.layer)
        for n, s in parameter_places(model).items()
        if n in only and s.part == "text"
    } == {("text", 1)}


@pytest.mark.parametrize("verb", ["freeze", "train"])
def test_a_tied_head_is_refused_with_the_reason(verb):
    model = tiny("qwen2_5_vl", tied=True)
    for spec in ("head", "re:lm_head"):
        with pytest.raises(UsageError) as caught:
            frozen_names(model, **{"freeze": (), verb: [spec]})
        assert f"one tensor: {verb} embed" in caught.value.why
        assert f"--{verb}" in caught.value.what


def test_the_table_adds_up_by_place_from_the_image_to_the_head():
    places = [("text", 0, "mlp"), ("text", None, "embed"), ("text", None, "head")]
    places += [("vision", 1, "attn"), ("text", 0, "attn"), ("text", 0, "mlp")]
    rows = freeze_table(
        Tensors(Place(*place), place[0] == "vision", 10**i) for i, place in enumerate(places)
    )
    assert [(r.part, r.layer, r.component, r.tensors, r.parameters) for r in rows] == [
        ("vision", 1, "attn", 1, 1000),
        ("text", None, "embed", 1, 10),
        ("text", None, "head", 1, 100),
        ("text", 0, "attn", 1, 10000),
        ("text", 0, "mlp", 2, 100001),
    ]
    assert [r.frozen for r in rows] == [True, False, False, False, False]


def test_one_of_freeze_and_train():
    with pytest.raises(UsageError) as caught:
        recipe("creature:sft", freeze=["vision"], train=["text:0"])
    assert "complements" in caught.value.why
    with pytest.raises(UsageError, match="complements"):
        with_trained(recipe("creature:sft"), ("vision",), ("text:0",))
    found = with_trained(recipe("creature:sft", freeze=["vision"]), (), ("vision",)).stages[0]
    assert (found.freeze, found.train) == ((), ("vision",))
    with pytest.raises(UsageError, match="everything is frozen"):
        frozen_names(tiny("qwen2_5_vl"), ["text:0"], ["text:0"])


def test_the_command_line_says_what_trains(capsys):
    command = ["train", "creature-rl", "--dry-run", "--json"]
    assert run_command([*command, "--train", "text:0-2"], debug=False) == 0
    stage = json.loads(capsys.readouterr().out)["stages"][0]
    assert (stage["train"], stage["freeze"]) == (["text:0-2"], [])
    assert {(r["part"], r["layer"]) for r in stage["table"] if not r["frozen"]} == {
        ("text", 0),
        ("text", 1),
    }
    assert run_command([*command, "--train", "vision", "--freeze", "text:0"], debug=False) == 2
    assert run_command([*command, "--train", "head"], debug=False) == 2


def test_a_mistyped_part_is_named_with_its_neighbour(capsys):
    assert (
        run_command(["train", "creature-grpo", "--freeze", "vison", "--dry-run"], debug=False) == 2
    )
    said = capsys.readouterr().err
    assert "unknown part 'vison'" in said
    assert "did you mean 'vision'?" in said


def test_a_mistake_in_a_stage_is_said_once(capsys):
    assert (
        run_command(["train", "creature-grpo", "--set", "stages.0.lr=-1", "--dry-run"], debug=False)
        == 2
    )
    said = capsys.readouterr().err
    assert "stages.0.lr" in said
    assert "Tuple" not in said
    assert (
        run_command(["train", "creature-grpo", "--set", "stages=[]", "--dry-run"], debug=False) == 2
    )
    assert "at least 1 item" in capsys.readouterr().err


def test_a_file_where_the_run_should_be_is_refused_and_stays(tmp_path, capsys):
    file = tmp_path / "run"
    file.write_text("mine")
    assert run_command(["train", "creature-grpo", "--out", str(file)], debug=False) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert file.read_text() == "mine"
