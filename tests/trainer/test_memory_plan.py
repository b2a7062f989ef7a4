"""The memory plan: closed forms, the measured peak of real updates, and refusals that say what to
change.
"""

import itertools
import json

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from franken.cli import run_command
from franken.errors import UsageError
from franken.models.loading import load
from trainer import sft, sft_packing
from trainer.checkpoint_files import Position, Score, finished
from trainer.freeze import apply_freeze
from trainer.grpo import grpo_step
from trainer.lora import add_lora
from trainer.memory import Lengths, plan_stage
from trainer.optimizer import adamw
from trainer.plan import lengths_of, memory_plan, refuse_what_cannot_fit
from trainer.recipe import Lora, Recipe, parse_recipe
from trainer.shapes import numel, shapes_of
from trainer.stages import GrpoStage, SftStage
from trainer.state import save_state

SEVEN = "Qwen/Qwen2.5-VL-7B-Instruct"
N7 = 8_292_166_656


@pytest.fixture
def fresh_sft_creature():
    return load("creature:sft", device="cpu", dtype="fp32")


def grpo(**changes):
    defaults = {
        "kind": "grpo",
        "steps": 1,
        "lr": 1e-4,
        "tasks": {"count": 1.0},
        "prompts": 8,
        "group": 8,
    }
    return GrpoStage(**{**defaults, "max_new_tokens": 8, "entropy_bonus": 1e-4, **changes})


def recipe_of(stage, model="creature:sft", dtype="fp32"):
    return Recipe(name="x", model=model, dtype=dtype, stages=(stage,))


def measured_peak(loaded, stage):
    """Bytes at the fullest moment of a second update: parameters and moments, and every allocation
    and release.
    """
    apply_freeze(loaded.model, stage.freeze)
    parameters = [p for p in loaded.model.parameters() if p.requires_grad]
    optimizer = adamw(stage, parameters)

    def update():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return 0.0

    def step():
        if isinstance(stage, GrpoStage):
            grpo_step(loaded, stage, update, None, seed=0, step=0)
        else:
            batch = sft.next_batch(loaded, stage.tasks, stage.batch, seed=0, step=0)
            if stage.packed:
                sft_packing.backward(
                    loaded, sft_packing.pack_examples(loaded, batch, stage.token_budget)
                )
            else:
                sft.loss(loaded, batch)[0].backward()
            update()

    step()
    held = [*loaded.model.parameters(), *(x for s in optimizer.state.values() for x in s.values())]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    results = profiler.profiler.kineto_results.events()
    events = sorted((e.start_ns(), e.nbytes()) for e in results if e.name() == "[memory]")
    return sum(x.nbytes for x in held) + max(itertools.accumulate(n for _, n in events))


@pytest.mark.parametrize(
    "stage",
    [
        grpo(),
        grpo(packed=True),
        grpo(micro_rows=8),
        grpo(freeze=("vision", "projector", "embed", "text:0-5")),
        SftStage(kind="sft", steps=1, lr=1e-4, tasks={"count": 1.0}, batch=32),
        SftStage(
            kind="sft",
            steps=1,
            lr=1e-4,
            tasks={"count": 1.0},
            batch=32,
            packed=True,
            token_budget=700,
        ),
    ],
    ids=["padded", "packed", "small", "frozen", "sft", "sft packed"],
)
def test_the_plan_is_within_a_third_of_what_a_real_update_needs(fresh_sft_creature, stage):
    shapes = shapes_of("creature:sft")
    planned = plan_stage(recipe_of(stage), 0, shapes, lengths_of(stage, shapes)).peak
    measured = measured_peak(fresh_sft_creature, stage)
    assert measured / 1.34 < planned < measured * 1.34


def test_weights_gradients_and_moments_in_closed_form():
    stage = grpo(prompts=2, group=4, max_new_tokens=100, packed=True, beta=0.1)
    lengths = Lengths(300, 200, 100, "given")
    plan = plan_stage(recipe_of(stage, SEVEN, "bf16"), 0, shapes_of(SEVEN), lengths)
    assert plan.parameters == plan.training == N7
    assert plan.parts["weights"] == plan.parts["gradients"] == plan.parts["reference"] == 2 * N7
    assert plan.parts["optimizer"] == 4 * N7
    assert plan.disk == 3 * 6 * N7 + 2 * N7
    assert plan.parts["logits"] == 400 * 152064 * 16
    keys = 2 * 2 * 512 * 400  # k and v, two bytes, four heads of 128, prompt and reply
    assert plan.parts["cache"] == 8 * (29 * keys + 16 * 152064)
    assert plan.parts["images"] == 2 * 200 * 6 * 28 * 28 * 2
    assert plan.parts["prefill"] == 2 * 300 * 2 * (3 * 18944 + 3 * 3584 + 2 * 512 * 28)
    one = recipe_of(stage.model_copy(update={"sample_batch": 1}), SEVEN, "bf16")
    sliced = plan_stage(one, 0, shapes_of(SEVEN), lengths)
    for part in ("cache", "prefill"):
        assert 2 * sliced.parts[part] == plan.parts[part]
    assert sliced.parts["images"] == plan.parts["images"]  # the update needs them all
    layer = 2 * 8 * 3584 + 2 * (5 * 3584 + 4 * 18944)
    text = 700 * (28 * layer + 8 * 3584)
    tower = 800 * 32 * (2 * 8 * 1280 + 2 * (5 * 1280 + 4 * 3420)) + 200 * 3584 * 2
    assert plan.parts["activations"] == text + tower
    whole = recipe_of(stage, SEVEN, "bf16")
    copies = plan_stage(whole, 0, shapes_of(SEVEN), lengths, processes=2)
    assert copies.parts["optimizer"] == plan.parts["optimizer"]  # every process holds the model
    sharded = whole.model_copy(update={"sharding": "fsdp", "activation_checkpointing": True})
    halves = plan_stage(sharded, 0, shapes_of(SEVEN), lengths, processes=2)
    for part in ("weights", "gradients", "optimizer", "reference"):
        assert 2 * halves.parts[part] == plan.parts[part]
    assert halves.parts["gathered"] == 2 * N7  # while it samples
    assert halves.parts["activations"] == plan.checkpointed
    mixed = sharded.model_copy(update={"dtype": "fp32", "precision": "bf16-mixed"})
    masters = plan_stage(mixed, 0, shapes_of(SEVEN), lengths, processes=2)
    for part in ("weights", "gradients", "optimizer"):
        assert masters.parts[part] == plan.parts[part]  # twice the bytes, half of the parameters
    for part in ("gathered", "activations", "cache"):
        assert masters.parts[part] == halves.parts[part]


@pytest.mark.parametrize(
    ("keep", "states"), [({"last": 1}, 2), ({"last": 3}, 4), ({"last": 2, "best": 3}, 6)]
)
def test_the_disk_has_room_for_what_the_recipe_keeps(keep, states, tmp_path):
    """Against the states that a run really has on disk at once: those it keeps, and the one being
    written.
    """
    raw = recipe_of(grpo(prompts=2, group=2, steps=8, eval_every=1, save_every=1)).model_dump(
        mode="json"
    )
    recipe = parse_recipe(raw | {"keep": keep})
    plan = plan_stage(recipe, 0, shapes_of("creature:sft"), Lengths(30, 9, 8, "given"))
    state = 3 * 4 * plan.parameters
    assert plan.disk == states * state + 4 * plan.parameters
    model = torch.nn.Linear(2, 2)
    for update in range(
        1, 9
    ):  # the earliest are the best, so that best and last are different ones
        save_state(
            tmp_path, model, None, Position(0, update, update), score=Score(0, -update), **keep
        )
    assert len(finished(tmp_path)) + 1 == states
    unscored = plan_stage(
        recipe_of(grpo()).model_copy(update={"keep": recipe.keep}),
        0,
        shapes_of("creature:sft"),
        Lengths(30, 9, 8, "given"),
    )
    assert unscored.disk == (keep["last"] + 1) * state + 4 * plan.parameters


def test_the_plan_knows_what_the_command_line_freezes(capsys):
    def training(*arguments):
        assert run_command(["train", "creature-rl", "--plan", "--json", *arguments], True) == 0
        return json.loads(capsys.readouterr().out)["stages"][0]["training"]

    shapes = shapes_of("creature:sft")
    size = {
        layer: sum(
            numel(s)
            for s, spot in shapes.tensors.values()
            if spot.part == "text" and spot.layer == layer
        )
        for layer in range(8)
    }
    assert training("--train", "text:6-8") == size[6] + size[7]
    assert training() - training("--freeze", "text:0-3") == size[0] + size[1] + size[2]
    assert (
        run_command(
            ["train", "creature-rl", "--plan", "--train", "vision", "--freeze", "text:0"], False
        )
        == 2
    )


@pytest.mark.parametrize(
    ("targets", "freeze"),
    [(("text.attn", "text.mlp"), ()), (("text:4-8.attn",), ()), (("text.mlp",), ("text:0-5",))],
)
def test_with_lora_only_adapters_have_gradients_and_moments(fresh_sft_creature, targets, freeze):
    """Counted against adapters that PEFT made, and the peak of a real update."""
    pytest.importorskip("peft")
    lora, shapes = Lora(rank=4, alpha=8, targets=targets), shapes_of("creature:sft")
    stage = grpo(freeze=freeze, packed=True)
    plan = plan_stage(
        recipe_of(stage).model_copy(update={"lora": lora}), 0, shapes, lengths_of(stage, shapes)
    )
    add_lora(fresh_sft_creature.model, **lora.model_dump(), seed=0)
    measured = measured_peak(fresh_sft_creature, stage)
    parameters = dict(fresh_sft_creature.model.named_parameters())
    assert plan.training == sum(p.numel() for p in parameters.values() if p.requires_grad)
    assert plan.parts["weights"] == 4 * sum(p.numel() for p in parameters.values())
    assert plan.parts["optimizer"] == 8 * plan.training
    assert measured / 1.34 < plan.peak < measured * 1.34


def test_freezing_from_below_saves_gradients_moments_and_activations():
    lengths = Lengths(300, 200, 100, "given")
    plans = [
        plan_stage(recipe_of(grpo(freeze=freeze), SEVEN, "bf16"), 0, shapes_of(SEVEN), lengths)
        for freeze in ((), ("vision", "projector", "embed", "text:0-14"), ("text:14-28",))
    ]
    free, lower, upper = plans
    assert lower.parts["activations"] < 0.51 * free.parts["activations"]
    assert (
        upper.parts["activations"] == free.parts["activations"]
    )  # the gradient still passes through
    assert lower.parts["optimizer"] == 4 * lower.training < 0.55 * free.parts["optimizer"]
    assert lower.flops < free.flops
    assert lower.checkpointed < free.checkpointed < free.parts["activations"]
    again = recipe_of(grpo(), SEVEN, "bf16").model_copy(update={"activation_checkpointing": True})
    assert (
        free.flops < plan_stage(again, 0, shapes_of(SEVEN), lengths).flops < 1.34 * free.flops
    )  # layers run twice
    with pytest.raises(UsageError, match="past the end"):
        plan_stage(recipe_of(grpo(freeze=("text:40-50",)), SEVEN), 0, shapes_of(SEVEN), lengths)


def test_what_cannot_fit_is_refused_with_changes_that_were_planned():
    recipe = recipe_of(grpo(prompts=64, micro_rows=64, max_new_tokens=512), SEVEN)
    plan = memory_plan(recipe, memory=80)
    assert not plan.fits
    with pytest.raises(UsageError) as caught:
        refuse_what_cannot_fit(plan)
    for word in ("packed=true", "token_budget", "freeze:", "dtype=bf16", "all of these"):
        assert word in caught.value.fix
    sampler = recipe_of(
        grpo(prompts=256, packed=True, max_new_tokens=4096), "Qwen/Qwen2.5-VL-3B-Instruct", "bf16"
    )
    changes = memory_plan(sampler, memory=80).changes
    assert "group=4" in "".join(changes)  # here the cache of sampling is what is large
    assert [c for c in changes if "sample_batch=64 needs" in c]
    taught = SftStage(kind="sft", steps=1, lr=1e-4, tasks={"count": 1.0}, batch=256)
    shapes, lengths = shapes_of(SEVEN), Lengths(100, 60, 300, "given")
    packed = taught.model_copy(update={"packed": True, "token_budget": 1200})
    padded, rows = (
        plan_stage(recipe_of(s, SEVEN), 0, shapes, lengths).parts for s in (taught, packed)
    )
    assert (
        padded["activations"] * 3 == rows["activations"] * 256
    )  # three examples of 400 tokens a row
    assert rows["logits"] < padded["logits"]
    assert "packed=true" in "".join(memory_plan(recipe_of(taught, SEVEN), memory=80).changes)
    roomy = memory_plan(recipe_of(grpo()), memory=80)
    assert not [p for p in roomy.problems if "needs" in p and "disk" not in p]


def test_plan_on_the_command_line_loads_no_model(capsys, monkeypatch, tmp_path):
    import transformers

    def refuse(*_, **__):
        raise AssertionError("a plan must not load a model")

    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", refuse)
    assert run_command(["train", "creature-mupo", "--plan", "--json"], True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"]
    assert found["stages"][0]["lengths"]["known"] == "measured"
    changes = ["--set", f"model={SEVEN}", "--plan", "--device-memory", "8"]
    assert run_command(["train", "creature-rl", *changes], False) == 2
    shown = capsys.readouterr()
    assert "optimizer" in shown.out
    assert "fix:" in shown.err
    assert not torch.cuda.is_initialized()


def test_data_that_is_not_here_is_assumed_and_said(capsys, monkeypatch):
    monkeypatch.setattr("trainer.plan.is_here", lambda data: False)
    assert (
        run_command(["train", "mupo-3b", "--plan", "--device-memory", "2000", "--json"], True) == 0
    )
    assert json.loads(capsys.readouterr().out)["stages"][0]["lengths"]["known"] == "assumed"
