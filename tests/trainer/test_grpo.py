"""The RL step with every option: gradients invariant to how it is cut, KL, entropy, correction,
masking, packing.
"""

import json

import pytest
import torch

from franken.generate.native import Response
from franken.models.loading import load
from trainer import loop, origins, steps
from trainer.algorithms.corrections import overlong_penalty
from trainer.engines.native import NativeEngine
from trainer.freeze import apply_freeze
from trainer.grpo import grpo_step
from trainer.recipe import load_recipe, parse_recipe
from trainer.rollout import Batch
from trainer.stages import GrpoStage

TASKS = {"count": 1.0, "sum": 1.0}


def stage(**changes):
    base = {
        "kind": "grpo",
        "steps": 1,
        "lr": 1e-4,
        "tasks": TASKS,
        "prompts": 3,
        "group": 4,
        "max_new_tokens": 40,
    }
    return GrpoStage(**{**base, **changes})


def gradient(loaded, stage, reference=None, **options):
    """The gradient of one step before any update, and its metrics."""
    loaded.model.zero_grad()
    metrics = grpo_step(loaded, stage, lambda: 0.0, reference, seed=5, step=0, **options)
    parts = [p.grad.flatten() for p in loaded.model.parameters() if p.grad is not None]
    found = torch.cat(parts) if parts else torch.zeros(1)
    loaded.model.zero_grad()
    return found, metrics


@pytest.fixture
def policy(sft_creature):
    apply_freeze(sft_creature.model, ["vision", "projector"])
    yield sft_creature
    sft_creature.model.zero_grad()
    sft_creature.model.requires_grad_(True)


CUTS = (
    {"micro_rows": 5},
    {"packed": True},
    {"packed": True, "token_budget": 150},
    {"token_budget": 300},
)


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "gspo", "cispo"])
def test_the_gradient_does_not_depend_on_how_the_step_is_cut(policy, loss):
    whole, metrics = gradient(policy, stage(loss=loss))
    assert metrics["zero_variance_groups"] < 1
    assert whole.norm() > 0
    for cut in CUTS if loss == "dapo" else CUTS[:2]:
        assert torch.allclose(gradient(policy, stage(loss=loss, **cut))[0], whole, atol=2e-6), cut


@pytest.mark.parametrize("packed", [False, True])
def test_kl_entropy_and_per_token_advantages_do_not_depend_on_the_cut(policy, packed, monkeypatch):
    import sys
    import types

    mine = types.ModuleType("mine")
    mine.later = lambda rewards, g: (g.total(rewards) - 0.5)[..., None] * torch.linspace(0, 1, 40)
    monkeypatch.setitem(sys.modules, "mine", mine)
    reference = load("creature:base", device="cpu")
    options = {"beta": 0.1, "entropy_bonus": 0.05, "advantage": {"name": "mine:later"}}
    whole, metrics = gradient(policy, stage(**options), reference)
    cut, again = gradient(policy, stage(**options, micro_rows=3, packed=packed), reference)
    assert torch.allclose(whole, cut, rtol=1e-3, atol=1e-5)
    assert metrics["kl"] == pytest.approx(again["kl"], rel=1e-4)
    assert metrics["kl"] > 0.1


def test_kl_moves_groups_without_spread_too(policy):
    """All-equal rewards give no advantage, but the KL still pulls."""
    reference = load("creature:base", device="cpu")
    flat = stage(rewards={"format": 1e-9})
    assert gradient(policy, flat)[0].norm() == 0
    assert gradient(policy, flat.model_copy(update={"beta": 0.1}), reference)[0].norm() > 0
    assert gradient(policy, flat.model_copy(update={"entropy_bonus": 0.1}))[0].norm() > 0


def test_kl_in_the_reward(policy):
    same = load("creature:sft", device="cpu")
    _, metrics = gradient(policy, stage(beta=0.1, kl="k1", kl_in="reward"), same)
    assert metrics["reward_kl"] == pytest.approx(0.0, abs=1e-3)
    other = load("creature:base", device="cpu")
    _, metrics = gradient(policy, stage(beta=0.1, kl="k1", kl_in="reward"), other)
    assert metrics["reward_kl"] > 1
    assert metrics["kl"] == 0
    parts = metrics["reward_accuracy"] + 0.1 * metrics["reward_format"] - 0.1 * metrics["reward_kl"]
    assert metrics["reward"] == pytest.approx(parts, rel=1e-4)


def test_the_correction_is_one_for_our_own_sampler_and_undoes_another(policy, monkeypatch):
    plain, _ = gradient(policy, stage())
    for kind in ("token_truncate", "sequence_mask"):
        corrected, _ = gradient(policy, stage(importance=kind))
        assert torch.allclose(plain, corrected, rtol=2e-3, atol=1e-5)
    honest = NativeEngine.sample

    def biased(*args):
        return [
            [Response(r.text, r.ids, [x + 0.5 for x in r.logprobs], r.truncated) for r in group]
            for group in honest(*args)
        ]

    monkeypatch.setattr(NativeEngine, "sample", biased)
    halved, _ = gradient(policy, stage(importance="token_truncate"))
    assert torch.allclose(halved, plain * torch.tensor(-0.5).exp(), rtol=2e-3, atol=1e-5)
    assert gradient(policy, stage(importance="token_mask", importance_cap=0.5))[0].norm() == 0


def test_two_inner_steps_start_from_the_same_policy(policy):
    """At the first of two inner steps the ratio is one: without an update in between, both have the
    on-policy gradient.
    """
    once, _ = gradient(policy, stage())
    for importance in ("none", "token_truncate"):
        twice, metrics = gradient(policy, stage(inner_steps=2, importance=importance))
        assert torch.allclose(twice, 2 * once, rtol=5e-3, atol=1e-5)
        assert metrics["clipped"] == 0


def test_truncated_responses_are_masked(policy):
    options = {"max_new_tokens": 8}
    plain, metrics = gradient(policy, stage(**options))
    assert metrics["truncated"] > 0.9
    masked, _ = gradient(policy, stage(**options, mask_truncated=True))
    assert masked.norm() <= plain.norm()
    if metrics["truncated"] == 1:
        assert masked.norm() == 0


def test_the_soft_length_penalty_is_a_reward(policy):
    drawn = []

    class Listening(NativeEngine):
        def sample(self, *arguments):
            drawn.append(super().sample(*arguments))
            return drawn[-1]

    _, metrics = gradient(policy, stage(overlong_buffer=30), engine=Listening(policy))
    lengths = Batch(None, drawn[0]).lengths()
    expected = overlong_penalty(lengths, 40, 30).mean().item()
    assert metrics["reward_overlong"] == pytest.approx(expected)
    assert expected < 0


@pytest.mark.parametrize("packed", [False, True])
def test_the_frozen_vision_tower_runs_once_a_step(policy, packed):
    calls = []
    handle = policy.model.model.visual.register_forward_hook(lambda *a: calls.append(1))
    reference = load("creature:sft", device="cpu")
    theirs = reference.model.model.visual.register_forward_hook(lambda *a: calls.append(2))
    gradient(policy, stage(inner_steps=2, beta=0.1, packed=packed, micro_rows=4), reference)
    handle.remove()
    theirs.remove()
    assert calls == [1]


def test_vision_tokens_are_never_sampled(fresh_creature):
    """A random model would say them all the time."""
    from franken.generate.native import Prompt, Sampling, generate
    from trainer.rollout import next_items

    items = next_items(TASKS, 3, seed=0, step=0)
    banned = set(
        fresh_creature.family.banned_token_ids(
            fresh_creature.model.config, fresh_creature.tokenizer
        )
    )
    for groups in generate(
        fresh_creature, [Prompt(i.question, (i.image,)) for i in items], Sampling(8, 5.0, 40)
    ):
        assert not banned & {token for r in groups for token in r.ids}


@pytest.mark.parametrize(
    "name",
    ["creature-mupo", "creature-mupo-random", "creature-grpo-diversity", "creature-grpo-entropy"],
)
def test_recipes_run_and_log(tmp_path, name):
    short = {"steps": 2, "prompts": 2, "group": 6, "inner_steps": 1, "max_new_tokens": 24}
    recipe = load_recipe(name, tuple(f"stages.0.{k}={v}" for k, v in short.items()))
    loop.run_train(recipe, tmp_path / "run")
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    wanted = {"entropy", "reward_accuracy", "zero_variance_groups", "strategies"}
    if "entropy" not in name:
        wanted |= {"lambda", "diversity_reward", "diversity_share"}
        assert [line["lambda"] for line in lines] == pytest.approx([0.4, 0.25])
    if "mupo" in name:
        wanted |= {"clusters", "cluster_size_min", "cluster_size_max", "zero_variance_clusters"}
        assert lines[0]["clusters"] == 2  # six responses cannot fill three clusters of three
    assert wanted <= lines[-1].keys()


def test_no_reference_without_beta(tmp_path, monkeypatch):
    loads = []
    honest = steps.load
    for module in (origins, steps):
        monkeypatch.setattr(module, "load", lambda *a, **k: loads.append(a) or honest(*a, **k))
    for beta, expected in ((0.0, 1), (0.1, 2)):
        loads.clear()
        raw = {
            "prompts": 2,
            "group": 2,
            "max_new_tokens": 8,
            "steps": 1,
            "beta": beta,
            "freeze": ("vision",),
        }
        recipe = {
            "name": "t",
            "model": "creature:sft",
            "stages": [stage(**raw).model_dump(mode="json")],
        }
        loop.run_train(parse_recipe(recipe), tmp_path / str(beta))
        assert len(loads) == expected
