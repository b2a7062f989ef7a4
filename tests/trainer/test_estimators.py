"""The extension point: what a recipe may name, and that every built-in is reached with the recipe's
options.
"""

import sys
import types

import pytest
import torch

from franken.errors import FrankenError, UsageError
from trainer import advantages
from trainer.estimators import READS, Advantage, Anneal, Estimate, Groups, estimator
from trainer.schedules import cosine_anneal, exponential_anneal
from trainer.stages import load_recipe, parse_recipe


def groups(prompts=2, group=9, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    correct = torch.rand(prompts, group, generator=generator) < 0.5
    embeddings = torch.rand(prompts, group, 5, generator=generator)
    fields = {
        "texts": [["x"] * group] * prompts,
        "correct": correct,
        "lengths": torch.randint(3, 9, (prompts, group), generator=generator),
        "truncated": torch.zeros(prompts, group, dtype=torch.bool),
        "reward_names": ("accuracy", "format"),
        "reward_weights": (1.0, 0.1),
        "embed": lambda: embeddings,
        **changes,
    }
    rewards = torch.stack(
        [correct.float(), (torch.rand(prompts, group, generator=generator) < 0.8).float()], -1
    )
    return rewards, Groups(**fields)


def test_lambda_at_the_start_the_middle_and_the_end():
    assert [cosine_anneal(p, start=0.4, end=0.1) for p in (0, 0.5, 1)] == pytest.approx(
        [0.4, 0.25, 0.1]
    )
    assert Anneal().at(0, 0.0) == pytest.approx(0.4)
    assert Anneal().at(50, 0.5) == pytest.approx(0.25)
    assert Anneal().at(100, 1.0) == pytest.approx(0.1)
    assert Anneal(shape="exponential", end=0.0).at(154, 0.9) == pytest.approx(0.1, abs=1e-3)
    assert exponential_anneal(1000, start=0.4, decay=9e-3, end=0.1) == 0.1
    assert Anneal(shape="constant").at(100, 1.0) == 0.4


def test_every_built_in_gives_what_its_function_gives():
    rewards, g = groups(progress=0.5)
    total = rewards[..., 0] + 0.1 * rewards[..., 1]
    e, c = g.embed(), g.correct
    expected = {
        "grpo": advantages.grpo(total),
        "dr_grpo": advantages.dr_grpo(total),
        "rloo": advantages.rloo(total),
        "reinforce_baseline": advantages.reinforce_baseline(total),
        "gdpo": advantages.gdpo(rewards, torch.tensor([1.0, 0.1])),
        "passk": advantages.passk(c, k=4),
        "dra": advantages.dra(total, e),
        "grpo_diversity": advantages.grpo_diversity(
            total, correct=c, embeddings=e, diversity_weight=0.25
        ),
        "mupo": advantages.mupo(total, correct=c, embeddings=e, diversity_weight=0.25).advantages,
    }
    assert set(expected) == set(READS)
    for name, wanted in expected.items():
        assert torch.allclose(estimator(Advantage(name=name))(rewards, g).advantages, wanted), name
    options = {
        "clusters": 2,
        "min_size": 4,
        "beta": 0.5,
        "weighting": "code",
        "std_floor": 0.2,
        "distance_scale": 2.0,
    }
    found = estimator(Advantage(name="mupo", **options))(rewards, g)
    assert torch.allclose(
        found.advantages,
        advantages.mupo(
            total, correct=c, embeddings=e, diversity_weight=0.25, **options
        ).advantages,
    )


def test_what_mupo_logs():
    rewards, g = groups(progress=1.0)
    metrics = estimator(Advantage(name="mupo", clusters=3, min_size=3))(rewards, g).metrics
    assert metrics["clusters"] == metrics["cluster_size_min"] == metrics["cluster_size_max"] == 3
    assert metrics["lambda"] == pytest.approx(0.1)
    assert 0 < metrics["diversity_share"] < 1
    off = estimator(Advantage(name="mupo", diversity=Anneal(start=0, end=0)))(rewards, g).metrics
    assert off["diversity_share"] == 0
    right = rewards * 0 + 1
    alone = estimator(Advantage(name="mupo"))(
        right, groups(correct=torch.ones(2, 9, dtype=torch.bool))[1]
    ).metrics
    assert alone["diversity_share"] == 1
    wrong = estimator(Advantage(name="mupo"))(
        rewards * 0, groups(correct=torch.zeros(2, 9, dtype=torch.bool))[1]
    ).metrics
    assert wrong["zero_variance_clusters"] == 1
    assert wrong["diversity_share"] == wrong["diversity_reward"] == 0


def test_a_function_of_ones_own(monkeypatch):
    mine = types.ModuleType("mine")
    mine.centred = lambda rewards, g, power=1.0: power * (g.total(rewards) - 0.5)
    mine.by_token = lambda rewards, g: rewards[..., :1].expand(-1, -1, int(g.lengths.max()))
    mine.too_few = lambda rewards, g: rewards[..., :1].expand(-1, -1, 1)
    mine.logged = lambda rewards, g: Estimate(rewards[..., 0], {"seen": 1.0})
    mine.flat = lambda rewards, g: rewards.sum()
    mine.broken = lambda rewards, g: rewards[..., 0] / 0
    mine.number = 3
    monkeypatch.setitem(sys.modules, "mine", mine)
    rewards, g = groups()
    found = estimator(Advantage(name="mine:centred", options={"power": 2.0}))(rewards, g).advantages
    assert torch.allclose(found, 2 * (rewards[..., 0] + 0.1 * rewards[..., 1] - 0.5))
    assert estimator(Advantage(name="mine:by_token"))(rewards, g).advantages.shape == (
        2,
        9,
        g.lengths.max(),
    )
    assert estimator(Advantage(name="mine:logged"))(rewards, g).metrics == {"seen": 1.0}
    for name in ("flat", "broken", "too_few"):
        with pytest.raises(FrankenError):
            estimator(Advantage(name=f"mine:{name}"))(rewards, g)
    for name in ("mine:number", "mine:nothing", "nowhere_at_all:f"):
        with pytest.raises(UsageError):
            estimator(Advantage(name=name))


def test_recipes_name_advantages_and_are_checked():
    raw = load_recipe("creature-mupo").model_dump(mode="json")
    assert parse_recipe(raw).model_dump(mode="json") == raw  # what --show prints is a recipe
    stage = raw["stages"][0]
    for advantage, word in (
        ({"name": "mupo_"}, "did you mean 'mupo'"),
        ({"name": "mupo", "cluster": 2}, "did you mean clusters"),
        ({"name": "grpo", "clusters": 2}, "grpo does not read clusters"),
        ({"name": "mupo", "scale": "batch"}, "inside clusters"),
        ({"name": "passk", "k": 13}, "group of at least 13"),
        ({"name": "a:b", "beta": 2}, "does not read beta"),
    ):
        with pytest.raises(UsageError) as caught:
            parse_recipe({**raw, "stages": [{**stage, "advantage": advantage}]})
        assert word in caught.value.why, advantage
