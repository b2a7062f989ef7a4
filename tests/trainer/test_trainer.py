"""The trainer: advantages and losses against definitions, freezing proved, resume exact, groups
invariant to batching.
"""

import json
import signal

import pytest
import torch

from franken.checkpoints import open_checkpoint
from franken.errors import FrankenError, UsageError, VerificationError
from franken.generate import Prompt, Sampling, encode_prompts, generate
from franken.models.tiny import tiny
from trainer import checkpoint_files, loop, sft, state
from trainer.data import Conversation, encode
from trainer.freeze import apply_freeze, fingerprints, frozen_names, verify_frozen
from trainer.grpo import grpo_step
from trainer.optimizer import learning_rate
from trainer.policy import response_logprobs, take_rows
from trainer.recipe import load_recipe, parse_recipe
from trainer.recipe_files import recipe_names
from trainer.rollout import next_items
from trainer.stages import GrpoStage, Stage
from trainer.towers import with_features


def test_schedule():
    stage = Stage(lr=2.0, steps=100, warmup=10, hold=0.5, end=0.1)
    rates = [learning_rate(stage, step, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[50] == 2.0
    assert rates[75] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert rates[100] == pytest.approx(0.2)


def test_recipes_are_checked():
    assert {"creature-base", "creature-sft", "creature-rl", "creature-sft-more"} <= set(
        recipe_names()
    )
    for name in recipe_names():
        load_recipe(name)
    assert load_recipe("creature-rl", ("stages.0.steps=7", "seed=3")).stages[0].steps == 7
    raw = load_recipe("creature-rl").model_dump(mode="json")
    for change, word in (
        ({"lrr": 1}, "did you mean lr"),
        ({"tasks": {"recogn": 1}}, "recogn"),
        ({"cpu_seconds": 5.0}, "either steps"),
        ({"lr": -1}, "lr"),
    ):
        stage = {**raw["stages"][0], **change}
        with pytest.raises(UsageError) as caught:
            parse_recipe({**raw, "stages": [stage]})
        assert word in f"{caught.value.what} {caught.value.why}"
    with pytest.raises(UsageError):
        load_recipe("creature-lr")
    with pytest.raises(UsageError, match="points nowhere"):
        load_recipe("creature-rl", ("stages.4.steps=7",))


def test_conversations_supervise_answers_only(fresh_creature):
    item = next_items({"count": 1.0}, 1, seed=0, step=0)[0]
    batch = encode(
        fresh_creature,
        [
            Conversation(item.image, [("Describe r1c1", "red square"), ("Add 1 2", "3")]),
            Conversation(item.image, [("At r1c1", "x")]),
        ],
    )
    tokenizer = fresh_creature.tokenizer
    spoken = tokenizer.decode(batch.labels[0][batch.labels[0] >= 0])
    assert spoken == "red square<|im_end|> 3<|im_end|>"
    whole = tokenizer.decode(batch.inputs.input_ids[0])
    assert whole.endswith(
        "Describe r1c1<|im_end|><|im_start|> assistant red square<|im_end|>"
        "<|im_start|> user Add 1 2<|im_end|><|im_start|> assistant 3<|im_end|>"
    )
    asked = encode_prompts(fresh_creature, [Prompt("Describe r1c1", (item.image,))])
    length = asked.tokens
    assert torch.equal(batch.inputs.input_ids[0, :length], asked.input_ids[0])
    assert torch.equal(batch.inputs.position_ids[:, 0, :length], asked.position_ids[:, 0])


def test_sft_loss_equals_the_models_own(fresh_creature):
    batch = sft.next_batch(fresh_creature, {"count": 1.0, "read": 1.0}, 4, seed=0, step=0)
    ours, metrics = sft.loss(fresh_creature, batch)
    theirs = fresh_creature.model(**batch.inputs, labels=batch.labels).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    again = sft.next_batch(fresh_creature, {"count": 1.0, "read": 1.0}, 4, seed=0, step=0)
    assert torch.equal(batch.labels, again.labels)


@pytest.mark.parametrize("frozen_vision", [True, False])
def test_response_logprobs_equal_the_samplers(sft_creature, frozen_vision):
    sft_creature.model.requires_grad_(not frozen_vision)
    items = next_items({"count": 1.0, "sum": 1.0}, 4, seed=1, step=0)
    prompts = [Prompt(i.question, (i.image,), i.id) for i in items]
    groups = generate(sft_creature, prompts, Sampling(3, 0.8, 40))
    batch = with_features(sft_creature, encode_prompts(sft_creature, prompts))
    assert ("pixel_values" in batch) != frozen_vision
    index = [(i, j) for i in (3, 0, 2) for j in (1, 2)]
    responses = [groups[i][j] for i, j in index]
    rows = take_rows(sft_creature, batch, [i for i, _ in index], [r.ids for r in responses])
    with torch.no_grad():
        found, entropy = response_logprobs(sft_creature, rows, 0.8)
    for row, response in zip(found, responses, strict=True):
        assert row[: len(response.ids)].tolist() == pytest.approx(response.logprobs, abs=2e-4)
        assert (row[len(response.ids) :] == 0).all()
    assert (entropy >= 0).all()
    sft_creature.model.requires_grad_(True)


def test_the_gradient_does_not_depend_on_micro_batches(sft_creature):
    apply_freeze(sft_creature.model, ["vision", "projector"])
    gradients = []
    for rows in (64, 5):
        stage = GrpoStage(
            kind="grpo",
            steps=1,
            lr=1e-4,
            tasks={"count": 1.0, "sum": 1.0},
            prompts=4,
            group=4,
            max_new_tokens=40,
            micro_rows=rows,
        )
        sft_creature.model.zero_grad()
        metrics = grpo_step(sft_creature, stage, lambda: 0.0, None, seed=5, step=0)
        gradients.append(
            torch.cat(
                [p.grad.flatten() for p in sft_creature.model.parameters() if p.grad is not None]
            )
        )
    sft_creature.model.zero_grad()
    sft_creature.model.requires_grad_(True)
    assert metrics["zero_variance_groups"] < 1.0
    assert gradients[0].norm() > 0
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


@pytest.mark.parametrize(
    ("specs", "part", "layers"),
    [
        (["text:0-1"], "text", {0}),
        (["late"], "text", {2}),
        (["vision"], "vision", {0, 1, None}),
        (["re:layers\\.1\\."], "text", {1}),
        (["embed", "norm"], "text", {None}),
    ],
)
def test_freezing_selects_what_it_says(specs, part, layers):
    model = tiny("qwen2_5_vl")
    table = apply_freeze(model, specs)
    assert {(r.part, r.layer) for r in table if r.frozen} == {(part, layer) for layer in layers}
    assert sum(r.parameters for r in table) == sum(p.numel() for p in model.parameters())


def test_a_freeze_that_matches_nothing_is_an_error():
    for specs in (["text:2-9"], ["re:nothing"], ["visoin"]):
        with pytest.raises(UsageError):
            frozen_names(tiny("qwen2_5_vl"), specs)
    with pytest.raises(UsageError) as caught:
        frozen_names(tiny("qwen2_5_vl", tied=True), ["head"])
    assert "tied" in caught.value.why
    with pytest.raises(UsageError, match="everything"):
        frozen_names(tiny("qwen2"), ["all", "embed", "norm", "head"])


def test_a_moved_frozen_tensor_is_found():
    model = tiny("qwen2")
    apply_freeze(model, ["early"])
    before = fingerprints(model)
    assert verify_frozen(model, before).bit_identical
    with torch.no_grad():
        next(model.get_decoder().layers[0].parameters()).view(-1)[0] += 1e-7
    with pytest.raises(VerificationError):
        verify_frozen(model, before)


def recipe(**stage):
    sft_stage = {
        "kind": "sft",
        "steps": 3,
        "batch": 2,
        "lr": 1e-3,
        "tasks": {"read": 1.0},
        "save_every": 1,
        "freeze": ["vision", "projector"],
        **stage,
    }
    grpo_stage = {
        "kind": "grpo",
        "steps": 2,
        "prompts": 2,
        "group": 4,
        "max_new_tokens": 16,
        "lr": 1e-4,
        "tasks": {"sum": 1.0},
        "save_every": 1,
        "freeze": ["vision", "projector"],
    }
    return parse_recipe(
        {
            "name": "test",
            "model": "creature:sft",
            "device": "cpu",
            "stages": [sft_stage, grpo_stage],
        }
    )


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("after", "number"), [(1, signal.SIGINT), (3, signal.SIGTERM), (4, signal.SIGINT)]
)
def test_resumed_equals_uninterrupted(tmp_path, after, number):
    whole = loop.run_train(recipe(), tmp_path / "whole", freeze=("text:0-3",))
    seen = []

    def interrupt(line):
        seen.append(line)
        if len(seen) == after:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        loop.run_train(recipe(), tmp_path / "cut", freeze=("text:0-3",), report=interrupt)
    assert not (tmp_path / "cut" / "train.json").exists()
    resumed = loop.run_train(recipe(), tmp_path / "cut", freeze=("text:0-3",))
    a, b = weights(whole), weights(resumed)
    assert set(a) == set(b)
    assert all(torch.equal(a[n], b[n]) for n in a)
    updates = [
        json.loads(line)["update"]
        for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    ]
    assert updates == [1, 2, 3, 4, 5]
    proofs = json.loads((tmp_path / "cut" / "freeze.json").read_text())
    assert all(
        p["verified"]["bit_identical"] and p["verified"]["tensors"] > 40 for p in proofs.values()
    )
    start = open_checkpoint("creature:sft")
    for name, entry in open_checkpoint(resumed).tensors.items():
        from franken.checkpoints import read_bytes

        same = read_bytes(entry) == read_bytes(start.tensors[name])
        frozen = entry.place.part != "text" or entry.place.layer in (0, 1, 2)
        assert same == frozen, name


def test_a_second_recipe_is_refused(tmp_path):
    loop.run_train(recipe(steps=1), tmp_path / "run")
    assert loop.run_train(recipe(steps=1), tmp_path / "run") == tmp_path / "run" / "final"
    with pytest.raises(UsageError, match="another training run"):
        loop.run_train(recipe(steps=2), tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="something else"):
        loop.run_train(recipe(), tmp_path / "other")


def test_state_restores_weights_and_a_cut_off_one_is_not_taken(tmp_path):
    model, other = tiny("qwen2_5_vl", 0), tiny("qwen2_5_vl", 1)
    optimizer = torch.optim.AdamW(model.parameters())
    folder = state.save_state(tmp_path, model, optimizer, state.Position(0, 3, 3, 1.5))
    state.load_weights(folder, other)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    assert checkpoint_files.read_position(folder).step == 3
    (tmp_path / "state" / ".step-00000009.1").mkdir()
    (tmp_path / "state" / "step-00000008").mkdir()
    assert state.last_whole(tmp_path) == folder
    with pytest.raises((FrankenError, RuntimeError)):
        state.load_weights(folder, tiny("qwen2_5_vl", layers=2))


def test_a_cpu_budget_ends_the_stage(tmp_path):
    timed = recipe(steps=None, cpu_seconds=0.2)
    loop.run_train(timed, tmp_path / "run")
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    last = [line for line in lines if line["stage"] == 0][-1]
    assert last["cpu_seconds"] >= 0.2


@pytest.mark.gpu
def test_ten_steps_on_cuda(tmp_path):
    stage = {
        "kind": "grpo",
        "steps": 10,
        "prompts": 8,
        "group": 8,
        "max_new_tokens": 40,
        "lr": 3e-4,
        "tasks": {"sum": 1.0, "count": 1.0},
    }
    on_gpu = parse_recipe(
        {"name": "gpu", "model": "creature:sft", "device": "cuda", "stages": [stage]}
    )
    open_checkpoint(loop.run_train(on_gpu, tmp_path / "run"))
