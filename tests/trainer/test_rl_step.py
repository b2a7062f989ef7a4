"""The whole RL step against one written out: each response alone, unpacked, REINFORCE times the
advantage asked for.
"""

import json
import signal

import pytest
import torch

from franken.errors import FrankenError
from franken.evaluate.embed import embedder, segment
from franken.generate import Prompt, Sampling, encode_prompts, generate
from franken.tasks import grade
from trainer import loop
from trainer.algorithms.grpo import grpo
from trainer.algorithms.mupo import mupo
from trainer.freeze import apply_freeze
from trainer.grpo import grpo_step
from trainer.policy import response_logprobs, take_rows
from trainer.recipe import load_recipe
from trainer.rollout import next_items
from trainer.stages import GrpoStage
from trainer.towers import with_features

BASE = {
    "kind": "grpo",
    "steps": 2,
    "lr": 1e-4,
    "tasks": {"count": 1.0, "sum": 1.0},
    "prompts": 3,
    "group": 8,
    "max_new_tokens": 40,
    "freeze": ["vision", "projector"],
}
MUPO = {"name": "mupo", "clusters": 2, "min_size": 3}


@pytest.fixture
def policy(sft_creature):
    """The creature, text alone trainable; nothing is left behind."""
    apply_freeze(sft_creature.model, ["vision", "projector"])
    sft_creature.model.zero_grad()
    yield sft_creature
    sft_creature.model.zero_grad()
    sft_creature.model.requires_grad_(True)


def step(policy, reference=None, update=lambda: 0.0, progress=0.0, **changes):
    """The gradient and the metrics of a step without an update."""
    policy.model.zero_grad()
    stage = GrpoStage(**{**BASE, **changes})
    metrics = grpo_step(policy, stage, update, reference, seed=5, step=0, progress=progress)
    grads = [p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]
    return (torch.cat(grads) if grads else torch.zeros(1)), metrics


def drawn(policy):
    """The same samples, drawn here, with their correctness, rewards and embeddings."""
    items = next_items(BASE["tasks"], 3, seed=5, step=0)
    prompts = [Prompt(i.question, (i.image,), i.id) for i in items]
    groups = generate(policy, prompts, Sampling(8, 1.0, 40, 5))
    grades = [
        [grade(r.text, item) for r in group] for item, group in zip(items, groups, strict=True)
    ]
    correct = torch.tensor([[g.score == 1 and g.well_formed for g in row] for row in grades])
    rewards = correct.float() + 0.1 * torch.tensor(
        [[float(g.well_formed) for g in row] for row in grades]
    )
    vectors = embedder()([segment(r.text) for g in groups for r in g])
    return prompts, groups, rewards, correct, vectors.view(3, 8, -1)


def reinforce(policy, prompts, groups, advantages, reduce):
    """The on-policy gradient, response by response; `reduce(logprobs of one response, its entropy)`
    is its share.
    """
    policy.model.zero_grad()
    batch = with_features(policy, encode_prompts(policy, prompts))
    for i, group in enumerate(groups):
        for j, response in enumerate(group):
            rows = take_rows(policy, batch, [i], [response.ids])
            logprobs, entropy = response_logprobs(policy, rows, 1.0, entropy_grad=True)
            (-reduce(logprobs[0] * advantages[i, j], entropy[0])).backward()
    return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])


def test_the_gradient_of_mupo_is_the_naive_one(policy):
    prompts, groups, rewards, correct, vectors = drawn(policy)
    advantages = mupo(
        rewards, correct=correct, embeddings=vectors, clusters=2, diversity_weight=0.25, seed=5
    ).advantages
    tokens = sum(len(r.ids) for g in groups for r in g)
    expected = reinforce(
        policy, prompts, groups, advantages, lambda logp, entropy: logp.sum() / tokens
    )
    found, metrics = step(policy, advantage=MUPO, progress=0.5)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(
        step(policy, advantage=MUPO, progress=0.5, packed=True)[0], expected, atol=1e-5
    )
    assert found.norm() > 0.01
    assert metrics["lambda"] == pytest.approx(0.25)
    assert metrics["clusters"] == 2
    assert 0 < metrics["diversity_share"] < 1
    assert 3 <= metrics["cluster_size_min"] <= 4 <= metrics["cluster_size_max"] <= 5
    plain, _ = step(policy, advantage={**MUPO, "clusters": 1})
    assert torch.equal(plain, step(policy)[0])


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "gspo", "cispo"])
def test_the_aggregations_are_the_naive_ones(policy, loss):
    prompts, groups, rewards, _, _ = drawn(policy)
    tokens = sum(len(r.ids) for g in groups for r in g)
    reductions = {
        "grpo": lambda logp, _: logp.mean() / 24,
        "gspo": lambda logp, _: logp.mean() / 24,
        "dr_grpo": lambda logp, _: logp.sum() / (24 * 40),
        "cispo": lambda logp, _: logp.sum() / tokens,
    }
    expected = reinforce(policy, prompts, groups, grpo(rewards), reductions[loss])
    assert torch.allclose(step(policy, loss=loss)[0], expected, atol=1e-5)
    assert torch.allclose(step(policy, loss=loss, packed=True)[0], expected, atol=1e-5)


def test_the_entropy_bonus_reaches_all_responses(policy):
    prompts, groups, rewards, _, _ = drawn(policy)
    tokens = sum(len(r.ids) for g in groups for r in g)
    expected = reinforce(
        policy,
        prompts,
        groups,
        grpo(rewards),
        lambda logp, entropy: (logp.sum() + 0.5 * entropy.sum()) / tokens,
    )
    found, _ = step(policy, entropy_bonus=0.5)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, step(policy)[0], atol=1e-4)


def test_kl_in_the_reward_is_the_sum_over_tokens(policy, fresh_creature):
    prompts, groups, rewards, _, _ = drawn(policy)
    batch = with_features(policy, encode_prompts(policy, prompts))
    divergence = torch.zeros(3, 8)
    for i, group in enumerate(groups):
        rows = take_rows(policy, batch, [i] * 8, [r.ids for r in group])
        with torch.no_grad():
            other = response_logprobs(fresh_creature, rows, 1.0)[0]
        divergence[i] = torch.tensor([sum(r.logprobs) for r in group]) - other.sum(1)
    found, metrics = step(policy, reference=fresh_creature, beta=0.01, kl_in="reward", kl="k1")
    assert metrics["reward_kl"] == pytest.approx(divergence.mean().item(), rel=1e-3)
    tokens = sum(len(r.ids) for g in groups for r in g)
    advantages = grpo(rewards - 0.01 * divergence)
    expected = reinforce(
        policy, prompts, groups, advantages, lambda logp, entropy: logp.sum() / tokens
    )
    assert torch.allclose(found, expected, atol=1e-4)


def test_functions_of_the_users_train(policy):
    here = f"{__name__}:minus_length"
    prompts, groups, _, _, _ = drawn(policy)
    tokens = sum(len(r.ids) for g in groups for r in g)
    lengths = torch.tensor([[float(len(r.ids)) for r in g] for g in groups])
    expected = reinforce(
        policy, prompts, groups, -lengths / 10, lambda logp, entropy: logp.sum() / tokens
    )
    for per_token in (False, True):
        found, _ = step(policy, advantage={"name": here, "options": {"per_token": per_token}})
        assert torch.allclose(found, expected, atol=1e-5)


def minus_length(rewards, groups, per_token):
    advantages = -groups.lengths.float() / 10
    return (
        advantages[..., None].repeat(1, 1, int(groups.lengths.max())) if per_token else advantages
    )


def test_advantages_for_fewer_tokens_than_were_said_are_refused(policy):
    with pytest.raises(FrankenError, match="3 tokens"):
        step(policy, advantage={"name": f"{__name__}:three_tokens"})


def three_tokens(rewards, groups):
    return rewards[..., :1].repeat(1, 1, 3)


def test_a_loss_that_is_not_finite_ends_the_step(policy):
    head = policy.model.get_output_embeddings().weight
    kept = head.detach().clone()
    updates = []

    def explode():
        with torch.no_grad():
            head.fill_(float("nan"))
        updates.append(1)
        return 0.0

    try:
        with pytest.raises(FrankenError, match="nan"):
            step(policy, update=explode, inner_steps=2)
    finally:
        with torch.no_grad():
            head.copy_(kept)
    assert len(updates) == 1


def test_sampled_entropy_is_of_everything_that_was_sampled(policy):
    _, groups, *_ = drawn(policy)
    tokens = sum(len(r.ids) for g in groups for r in g)
    surprise = -sum(sum(r.logprobs) for g in groups for r in g) / tokens
    assert step(policy)[1]["sampled_entropy"] == pytest.approx(surprise, rel=1e-4)
    _, metrics = step(policy, rewards={"format": 1e-9})
    assert metrics["zero_variance_groups"] == 1
    assert metrics["sampled_entropy"] == pytest.approx(surprise, rel=1e-4)


@pytest.mark.parametrize(
    ("base", "arm", "changed"),
    [
        ("creature-grpo", "creature-mupo", {"advantage.name"}),
        ("creature-mupo", "creature-mupo-random", {"advantage.partition"}),
        ("creature-mupo", "creature-mupo-clusters", {"advantage.diversity"}),
        ("creature-grpo", "creature-grpo-diversity", {"advantage.name"}),
        ("creature-grpo", "creature-grpo-clip-higher", {"clip_high"}),
        ("creature-grpo", "creature-grpo-entropy", {"entropy_bonus"}),
    ],
)
def test_the_arms_differ_in_one_thing_alone(base, arm, changed):
    """From GRPO, or the controls from MUPO, whose other parameters GRPO does not declare."""
    one, other = (flat(load_recipe(name).model_dump()["stages"][0]) for name in (base, arm))
    assert {key for key in one if one[key] != other[key]} == changed


def flat(stage):
    return {k: v for k, v in stage.items() if k != "advantage"} | {
        f"advantage.{k}": v for k, v in stage["advantage"].items()
    }


def test_an_interrupted_mupo_goes_on_as_if_it_had_not_been(tmp_path):
    """The annealed weight, the clusters' seeds and the samples depend on the step alone."""
    short = ("steps=4", "prompts=2", "group=6", "max_new_tokens=24", "save_every=1")
    recipe = load_recipe("creature-mupo", tuple(f"stages.0.{s}" for s in short))
    loop.run_train(recipe, tmp_path / "whole")

    def interrupt(now):
        if now.update.step == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        loop.run_train(recipe, tmp_path / "cut", report=interrupt)
    loop.run_train(recipe, tmp_path / "cut")
    whole, cut = (metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut"))
    assert whole == cut
    assert len({line["lambda"] for line in whole}) == len(whole) == 4


def metrics(file):
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "cpu_seconds"} for line in lines]
