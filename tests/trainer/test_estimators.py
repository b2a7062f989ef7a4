"""The extension point: what a recipe may name, and that every built-in is reached with the recipe's
options.
"""

import sys
import types
from typing import Annotated

import pytest
import torch
from pydantic import Field

from franken import plugins
from franken.errors import FrankenError, UsageError
from trainer.algorithms import ADVANTAGES, LOSSES, Estimate, Groups
from trainer.algorithms.diversity import Anneal, dra, grpo_diversity
from trainer.algorithms.gdpo import gdpo
from trainer.algorithms.groups import estimate
from trainer.algorithms.grpo import dr_grpo, grpo, reinforce_baseline, rloo
from trainer.algorithms.losses import policy_loss
from trainer.algorithms.mupo import mupo
from trainer.algorithms.passk import passk
from trainer.recipe import load_recipe, parse_recipe


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


def estimated(advantage, rewards, g):
    return estimate(ADVANTAGES.read(advantage), rewards, g)


def test_lambda_at_the_start_the_middle_and_the_end():
    assert Anneal().at(0, 0.0) == pytest.approx(0.4)
    assert Anneal().at(50, 0.5) == pytest.approx(0.25)
    assert Anneal().at(100, 1.0) == pytest.approx(0.1)
    assert Anneal(shape="exponential", end=0.0).at(154, 0.9) == pytest.approx(0.1, abs=1e-3)
    assert Anneal(shape="exponential").at(1000, 1.0) == 0.1
    assert Anneal(shape="constant").at(100, 1.0) == 0.4


def test_every_built_in_gives_what_its_function_gives():
    rewards, g = groups(progress=0.5)
    total = rewards[..., 0] + 0.1 * rewards[..., 1]
    e, c = g.embed(), g.correct
    expected = {
        "grpo": grpo(total),
        "dr_grpo": dr_grpo(total),
        "rloo": rloo(total),
        "reinforce_baseline": reinforce_baseline(total),
        "gdpo": gdpo(rewards, torch.tensor([1.0, 0.1])),
        "passk": passk(c, k=4),
        "dra": dra(total, e),
        "grpo_diversity": grpo_diversity(total, correct=c, embeddings=e, diversity_weight=0.25),
        "mupo": mupo(total, correct=c, embeddings=e, diversity_weight=0.25).advantages,
    }
    assert set(expected) == set(ADVANTAGES.names())
    for name, wanted in expected.items():
        assert torch.allclose(estimated(dict(name=name), rewards, g).advantages, wanted), name
    options = {
        "clusters": 2,
        "min_size": 4,
        "beta": 0.5,
        "weighting": "code",
        "std_floor": 0.2,
        "distance_scale": 2.0,
    }
    found = estimated(dict(name="mupo", **options), rewards, g)
    assert torch.allclose(
        found.advantages,
        mupo(total, correct=c, embeddings=e, diversity_weight=0.25, **options).advantages,
    )


def members_of(found, rewards, g):
    """The advantages of each cluster, by the clusters that `mupo` makes of the same group."""
    total = rewards[..., 0] + 0.1 * rewards[..., 1]
    made = mupo(total, correct=g.correct, embeddings=g.embed(), diversity_weight=0.0)
    for row, labels in zip(found.advantages, made.labels, strict=True):
        for k in range(3):
            yield row[labels == k]


def test_the_share_of_diversity_is_of_the_tokens_gradient():
    rewards, g = groups(progress=0.5)
    found = estimated(dict(name="grpo_diversity"), rewards, g)
    total = g.total(rewards)
    without = grpo(total).flatten().tolist()
    extra = rest = 0.0
    for one, bare, length in zip(
        found.advantages.flatten().tolist(), without, g.lengths.flatten().tolist(), strict=True
    ):
        extra += abs(one - bare) * length
        rest += abs(bare) * length
    assert found.metrics["diversity_share"] == pytest.approx(extra / (extra + rest))
    own = grpo_diversity(total, correct=g.correct, embeddings=g.embed())
    fixed = grpo_diversity(total, correct=g.correct, embeddings=g.embed(), diversity_weight=0.4)
    assert torch.equal(own, fixed)  # the paper's first λ


def test_what_mupo_logs():
    rewards, g = groups(progress=1.0)
    metrics = estimated(dict(name="mupo", clusters=3, min_size=3), rewards, g).metrics
    assert metrics["clusters"] == metrics["cluster_size_min"] == metrics["cluster_size_max"] == 3
    assert metrics["lambda"] == pytest.approx(0.1)
    assert 0 < metrics["diversity_share"] < 1
    off = estimated(dict(name="mupo", diversity=Anneal(start=0, end=0)), rewards, g).metrics
    assert off["diversity_share"] == 0
    right = rewards * 0 + 1
    alone = estimated(
        dict(name="mupo"), right, groups(correct=torch.ones(2, 9, dtype=torch.bool))[1]
    ).metrics
    assert alone["diversity_share"] == 1
    some = torch.cat([right[:1], rewards[1:]])
    one = estimated(dict(name="mupo", diversity=Anneal(start=0, end=0)), some, g)
    flat = sum(not cluster.any() for cluster in members_of(one, some, g))
    assert one.metrics["zero_variance_clusters"] == flat / (3 * len(some))
    assert 0 < flat < 3 * len(some)
    wrong = estimated(
        dict(name="mupo"), rewards * 0, groups(correct=torch.zeros(2, 9, dtype=torch.bool))[1]
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
    mine.one_broken = lambda rewards, g: torch.where(g.correct, torch.nan, 0.0)
    mine.shortest = lambda rewards, g: rewards[..., :1].expand(-1, -1, int(g.lengths.min()))
    mine.nothing_at_all = lambda rewards, g: None
    mine.number = 3
    monkeypatch.setitem(sys.modules, "mine", mine)
    rewards, g = groups()
    found = estimated(dict(name="mine:centred", options={"power": 2.0}), rewards, g).advantages
    assert torch.allclose(found, 2 * (rewards[..., 0] + 0.1 * rewards[..., 1] - 0.5))
    assert estimated(dict(name="mine:by_token"), rewards, g).advantages.shape == (
        2,
        9,
        g.lengths.max(),
    )
    assert estimated(dict(name="mine:logged"), rewards, g).metrics == {"seen": 1.0}
    assert g.lengths.min() < g.lengths.max()
    assert 0 < g.correct.sum() < g.correct.numel()
    for name in ("flat", "broken", "one_broken", "too_few", "shortest"):
        with pytest.raises(FrankenError):
            estimated(dict(name=f"mine:{name}"), rewards, g)
    with pytest.raises(FrankenError, match="returned NoneType"):
        estimated(dict(name="mine:nothing_at_all"), rewards, g)
    for name in ("mine:number", "mine:nothing", "nowhere_at_all:f"):
        with pytest.raises(UsageError):
            ADVANTAGES.get(name)


def test_recipes_name_advantages_and_are_checked():
    raw = load_recipe("creature-mupo").model_dump(mode="json")
    assert parse_recipe(raw).model_dump(mode="json") == raw  # what --show prints is a recipe
    stage = raw["stages"][0]
    for advantage, word in (
        ({"name": "mupo_"}, "did you mean 'mupo'"),
        ({"name": "mupo", "cluster": 2}, "did you mean clusters"),
        ({"name": "grpo", "clusters": 2}, "grpo does not read clusters"),
        ({"name": "mupo", "scale": "batch"}, "mupo: scale: Input should be 'group' or 'none'"),
        ({"name": "mupo", "min_size": 0}, "min_size: Input should be greater than or equal to 1"),
        ({"name": "mupo", "diversity": {"strat": 1}}, "does not read diversity.strat"),
        ({"name": "passk", "k": 13}, "group of at least 13"),
        ({"name": "a:b", "beta": 2}, "cannot import the advantage a:b"),
    ):
        with pytest.raises(UsageError) as caught:
            parse_recipe({**raw, "stages": [{**stage, "advantage": advantage}]})
        assert word in caught.value.why, advantage


def test_every_method_says_what_it_is_and_what_it_reads():
    for registry in (ADVANTAGES, LOSSES):
        for name in registry.names():
            method = registry.get(name)
            assert len(method.summary) > 20, name
            assert "arXiv" in method.paper, name
            for field in method.settings.model_fields.values():
                assert field.description or field.annotation is str, (name, field)


def test_losses_are_named_and_checked(monkeypatch):
    raw = load_recipe("creature-grpo").model_dump(mode="json")
    stage = raw["stages"][0]
    assert stage["loss"] == "dapo"

    def parse(**changes):
        return parse_recipe({**raw, "stages": [{**stage, **changes}]}).stages[0]

    for changes, word in (
        ({"loss": "gpo"}, "did you mean 'gspo'"),
        ({"loss": {"name": "dapo", "tau": 1.0}}, "dapo does not read tau, it has no parameters"),
        ({"loss": "cispo", "dual_clip": 3.0}, "the loss cispo does not read dual_clip"),
    ):
        with pytest.raises(UsageError) as caught:
            parse(**changes)
        assert word in caught.value.why

    mine = types.ModuleType("mine")

    def soft(tokens, clip_high: float, tau: float = 1.0):
        return -tau * clip_high * tokens.advantages * tokens.logprobs

    mine.soft = soft
    monkeypatch.setitem(sys.modules, "mine", mine)
    own = parse(loss={"name": "mine:soft", "tau": 0.5}, clip_high=0.28)
    assert own.loss_parameters == {"clip_high": 0.28, "tau": 0.5}
    assert own.model_dump(mode="json")["loss"] == {"name": "mine:soft", "tau": 0.5}
    logprobs, advantages = -torch.rand(2, 3), torch.tensor([1.0, -2.0])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    loss, clipped = policy_loss(
        LOSSES.get("mine:soft"), logprobs, advantages, mask, own.loss_parameters
    )
    assert torch.allclose(loss, -0.14 * advantages[:, None] * logprobs * mask)
    assert not clipped.any()


def test_plugins_add_methods_of_the_same_kind():
    def soft(tokens, tau: Annotated[float, Field(gt=0)] = 1.0):
        return -tau * tokens.advantages * tokens.logprobs

    def power(rewards, g, *, exponent: int = 2):
        return g.total(rewards) ** exponent

    try:
        plugins.register("loss", "soft", LOSSES.method("soft", soft, aggregation="row"))
        plugins.register("advantage", "power", power)
        assert LOSSES.get("soft").aggregation == "row"
        assert LOSSES.read({"name": "soft", "tau": 2.0}).parameters() == {"tau": 2.0}
        with pytest.raises(ValueError, match="greater than 0"):
            LOSSES.read({"name": "soft", "tau": 0})
        with pytest.raises(ValueError, match="did you mean exponent"):
            ADVANTAGES.read({"name": "power", "exponnt": 3})
        rewards, g = groups()
        cubed = estimated({"name": "power", "exponent": 3}, rewards, g).advantages
        assert torch.allclose(cubed, g.total(rewards) ** 3)
        assert {"soft"} < set(LOSSES.names())
    finally:
        plugins.forget()
