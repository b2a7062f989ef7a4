"""The parts that published systems are made of, each against an oracle of its own: views of a
stage, mixtures of strategies, a band of difficulty, advantages standardised over tokens, rewards,
and a λ of MUPO that counts in units of the reward's spread.
"""

from collections import Counter

import pytest
import torch
from test_estimators import estimated, groups

from franken import tasks
from franken.errors import FrankenError, UsageError
from franken.evaluate.arms import prompt_for
from franken.generate.engine import Response
from franken.tasks import Grade
from trainer import rollout
from trainer.algorithms.grpo import grpo
from trainer.algorithms.mupo import cluster_spread, mupo
from trainer.evaluate import asked_with
from trainer.recipe import load_recipe, parse_recipe
from trainer.rewards.registry import REWARDS, Context
from trainer.sft import conversation
from trainer.stages import GrpoStage, SftStage
from trainer.templates import template


@pytest.mark.parametrize("view", ["image", "text", "both", "blind"])
def test_a_view_asks_as_the_arm_of_an_evaluation(view):
    for item in tasks.get("count").items(4, 3, "test"):
        ours, theirs = asked_with("", item, view), prompt_for(item, view)
        assert ours.text == theirs.text
        assert [i.tobytes() for i in ours.images] == [i.tobytes() for i in theirs.images]
        assert asked_with("Do. ", item, view).text == "Do. " + ours.text


def test_a_supervised_example_is_shown_in_the_view():
    seen = {
        view: conversation({"count": 1.0}, seed=1, index=2, view=view)
        for view in ("image", "text", "both", "blind")
    }
    assert {view: bool(c.images) for view, c in seen.items()} == {
        "image": True, "text": False, "both": True, "blind": False,
    }  # fmt: skip
    assert len({c.turns[0][1] for c in seen.values()}) == 1
    assert seen["text"].turns[0][0].endswith(seen["image"].turns[0][0])
    assert len(seen["text"].turns[0][0]) > len(seen["blind"].turns[0][0])


def strategies_shown(shares, count=300):
    puzzle = tasks.get("count")
    drawn = (
        conversation(
            {"count": 1.0}, seed=0, index=i, strategies={"count": shares} if shares else {}
        )
        for i in range(count)
    )
    return Counter(puzzle.strategy(c.turns[0][1]) for c in drawn)


def test_strategies_are_drawn_by_their_weights():
    assert set(strategies_shown({"rows": 1, "scan": 0})) == {"rows"}
    found = strategies_shown({"rows": 3, "scan": 1})
    assert found["rows"] + found["scan"] == 300
    assert abs(found["rows"] - 225) < 4 * (300 * 0.75 * 0.25) ** 0.5
    assert len(strategies_shown(None)) == 3
    with pytest.raises(UsageError, match="strategy of count"):
        strategies_shown({"row": 1})


@pytest.mark.parametrize(
    "changes",
    [{"strategies": {"sum": {"fwd": 1}}}, {"strategies": {"count": {"rows": 0}}}, {"view": "all"}],
)
def test_a_mixture_that_makes_no_sense_is_refused(changes):
    with pytest.raises(ValueError, match="strategies|Input should be"):
        SftStage(kind="sft", steps=1, lr=1e-3, tasks={"count": 1}, **changes)


def grpo_stage(**changes):
    return GrpoStage(kind="grpo", steps=1, lr=1e-4, tasks={"count": 1.0}, **changes)


def test_a_band_keeps_the_groups_inside_it():
    def group(right, place):
        grades = [Grade(float(i < right), "", "", True) for i in range(8)]
        return rollout._Group(place, None, [], grades)

    tried = [group(right, right) for right in range(9)]
    for band in ((0.0, 1.0), (0.25, 0.75), (0.0, 0.5)):
        drawn = rollout._Draw(tried=9)
        drawn.sort(tried, band, filtered=True)
        assert [g.place for g in drawn.kept] == [n for n in range(9) if band[0] < n / 8 < band[1]]
        counts = rollout._counts(drawn, len(drawn.kept), band[1])
        assert counts["all_right"] == sum(n / 8 >= band[1] for n in range(9))
        assert counts["all_wrong"] == sum(n / 8 <= band[0] for n in range(9))
    with pytest.raises(ValueError, match="band is two shares"):
        grpo_stage(filter="accuracy", band=(0.7, 0.2))
    with pytest.raises(ValueError, match="needs filter"):
        grpo_stage(band=(0.2, 0.7))


def test_advantages_standardised_over_tokens_are_those_of_every_token_written_out():
    rewards, g = groups(prompts=3, group=5)
    centred = grpo(g.total(rewards), scale="none")
    tokens = [
        float(value)
        for row, lengths in zip(centred, g.lengths, strict=True)
        for value, length in zip(row, lengths, strict=True)
        for _ in range(int(length))
    ]
    mean = sum(tokens) / len(tokens)
    std = (sum((t - mean) ** 2 for t in tokens) / len(tokens)) ** 0.5
    found = estimated({"name": "reinforce_baseline", "over": "token"}, rewards, g).advantages
    wanted = torch.where((centred != 0).any(1, keepdim=True), (centred - mean) / (std + 1e-6), 0.0)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert not torch.allclose(found, estimated("reinforce_baseline", rewards, g).advantages)


def reward(name, texts, rights, answer="3", shape="think-answer", logprobs=(), **options):
    item = tasks.get("count").items(1, 0, "test")[0]
    item = type(item)(item.id, item.task, item.question, answer, answer_type="integer")
    responses = [Response(text, [1], list(logprobs), False) for text in texts]
    context = Context(template(shape), [Grade(float(r), "", "", True) for r in rights])
    return REWARDS.get(name)(responses, [item] * len(texts), context, **options)


def test_rewards_of_published_systems():
    formed = "<think> a </think><answer> 3 </answer>"
    said = "<think> a </think> It is <answer> 3 </answer>"
    assert reward("exact", [" 3 ", formed, "3.", "4"], [1, 1, 1, 0]) == [1, 0, 0, 0]
    assert reward("hierarchical", [formed, "3", formed], [1, 1, 0]) == [2, 1, -1]
    assert reward("explained", [formed, said, said], [1, 1, 0]) == [0.5, 1, 0]
    near = ["<think> a </think><answer> 4 </answer>"] * 2
    assert reward("router", near, [0, 1]) == [0.5, 1.0]
    assert reward("router", near, [0, 1], numbers="exact") == [0, 1]
    certain = (-0.5, -0.5)
    found = reward("confidence", [formed] * 2, [1, 0], logprobs=certain)
    assert found == pytest.approx([2.718281828**-0.5, -(2.718281828**-0.5)])
    assert reward("confidence", [formed] * 2, [1, 0], logprobs=certain, wrong=0)[1] == 0


def clustered():
    generator = torch.Generator().manual_seed(5)
    embeddings = torch.rand(3, 9, 6, generator=generator)
    rewards = (torch.rand(3, 9, generator=generator) < 0.6).float()
    rewards[0] = 1.0
    return rewards, embeddings


def test_a_relative_lambda_is_silent_where_all_are_right_and_a_share_of_the_spread_elsewhere():
    """By hand, cluster by cluster; and at the paper's λ the same clusters get unit variance."""
    rewards, embeddings = clustered()
    given = {"correct": rewards > 0, "embeddings": embeddings, "weighting": "none"}
    plain, mended = mupo(rewards, **given), mupo(rewards, relative=True, **given)
    assert (mended.labels == plain.labels).all()
    assert (mended.advantages[0] == 0).all()
    assert plain.advantages[0].abs().max() > 1
    for b in range(3):
        for k in mended.labels[b].unique():
            mine = mended.labels[b] == k
            own = rewards[b, mine]
            total = own + 0.4 * own.std() * plain.diversity[b, mine]
            wanted = grpo(total[None])[0]
            assert torch.allclose(mended.advantages[b, mine], wanted, atol=1e-5)
            assert torch.allclose(cluster_spread(rewards, mended.labels)[b, mine], own.std())


def test_a_floor_and_mean_only_centring_keep_lambda_from_cancelling():
    """In a group that is all right: proportional to λ, where the paper's are the same at any λ."""
    rewards, embeddings = clustered()
    given = {"correct": rewards > 0, "embeddings": embeddings, "weighting": "none"}
    for options, cancels in (({}, True), ({"std_floor": 1.0}, False), ({"scale": "none"}, False)):
        small, large = (
            mupo(rewards, diversity_weight=w, **given, **options).advantages[0] for w in (0.1, 0.4)
        )
        assert torch.allclose(small * (1 if cancels else 4), large, rtol=1e-3, atol=1e-4)


def test_unknown_strategies_stop_the_stage_by_name():
    stage = {"kind": "sft", "steps": 1, "lr": 1e-3, "batch": 1, "tasks": {"count": 1}}
    recipe = parse_recipe(
        {"name": "x", "model": "creature:sft",
         "stages": [stage | {"strategies": {"count": {"raws": 1}}}]}
    )  # fmt: skip
    with pytest.raises(FrankenError, match="did you mean|strategy"):
        conversation({"count": 1.0}, seed=0, index=0, strategies=recipe.stages[0].strategies)


@pytest.mark.parametrize(
    ("arm", "option"),
    [("floor", "std_floor"), ("centred", "scale"), ("relative", "relative"),
     ("unweighted", "weighting")],
)  # fmt: skip
def test_the_arms_that_mend_mupo_differ_in_one_option(arm, option):
    mended, paper = (
        load_recipe(name).stages[0].advantage.parameters()
        for name in (f"creature-mupo-{arm}", "creature-mupo")
    )
    assert {key for key in paper if mended[key] != paper[key]} == {option}
