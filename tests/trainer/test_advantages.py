"""Advantages against their definitions, written as loops over one response at a time."""

import itertools
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from franken.errors import UsageError
from trainer.algorithms.diversity import (
    cosine_distances,
    dra,
    grpo_diversity,
    pairwise_diversity,
)
from trainer.algorithms.gdpo import gdpo
from trainer.algorithms.grpo import dr_grpo, grpo, reinforce_baseline, rloo, standardise
from trainer.algorithms.mupo import cluster_diversity, mupo
from trainer.algorithms.passk import passk


def batch(prompts=3, group=15, dimensions=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    correct = torch.rand(prompts, group, generator=generator) < 0.5
    rewards = correct.double() + 0.1 * (torch.rand(prompts, group, generator=generator) < 0.8)
    embeddings = torch.randn(prompts, group, dimensions, generator=generator, dtype=torch.float64)
    return rewards, correct, embeddings


def normalised(values, eps=1e-6, floor=1e-6):
    std = statistics.stdev(values)
    mean = statistics.fmean(values)
    return [0.0 if std <= 1e-6 else (v - mean) / (max(std, floor) + eps) for v in values]


def test_grpo_equals_the_definition_at_every_scale():
    rewards = batch()[0]
    whole = statistics.stdev(rewards.flatten().tolist())
    for row, own, wide, bare in zip(
        rewards.tolist(),
        grpo(rewards),
        grpo(rewards, scale="batch"),
        grpo(rewards, scale="none"),
        strict=True,
    ):
        mean = statistics.fmean(row)
        assert own.tolist() == pytest.approx(normalised(row))
        assert wide.tolist() == pytest.approx([(r - mean) / (whole + 1e-6) for r in row])
        assert bare.tolist() == pytest.approx([r - mean for r in row])
    assert torch.equal(dr_grpo(rewards), grpo(rewards, scale="none"))
    small = torch.tensor([[0.0, 0.01, 0.0, 0.02]])
    assert grpo(small, std_floor=0.5)[0].tolist() == pytest.approx(
        normalised(small[0].tolist(), floor=0.5), rel=1e-4
    )
    with pytest.raises(UsageError):
        grpo(rewards, scale="prompt")


def test_rloo_compares_with_the_others():
    rewards = batch(group=5)[0]
    for b, i in itertools.product(range(3), range(5)):
        others = [r for j, r in enumerate(rewards[b].tolist()) if j != i]
        assert rloo(rewards)[b, i].item() == pytest.approx(
            rewards[b, i].item() - statistics.fmean(others)
        )


def test_reinforce_baseline_and_gdpo():
    rewards = batch()[0]
    centred = [r - statistics.fmean(row) for row in rewards.tolist() for r in row]
    assert reinforce_baseline(rewards).flatten().tolist() == pytest.approx(normalised(centred))
    parts = torch.stack([rewards, 40 * batch(seed=1)[0] ** 2], -1)
    expected = [
        a + 0.5 * b
        for rows in parts.tolist()
        for a, b in zip(*(normalised(c) for c in zip(*rows, strict=True)), strict=True)
    ]
    found = gdpo(parts, torch.tensor([1.0, 0.5]))
    assert found.flatten().tolist() == pytest.approx(normalised(expected), rel=1e-5)
    assert torch.equal(gdpo(parts), gdpo(parts, torch.ones(2)))


def test_a_batch_is_standardised_but_for_groups_that_prefer_nothing():
    values = torch.tensor([[0.0, 0.0, 0.0], [4.0, 0.0, -1.0]])
    expected = normalised(values.flatten().tolist())
    assert standardise(values)[0].tolist() == [0.0, 0.0, 0.0]
    assert standardise(values)[1].tolist() == pytest.approx(expected[3:])
    assert standardise(torch.tensor([[3.0]])).tolist() == [[0.0]]
    assert standardise(torch.tensor([[3.0, 1.0]])).tolist() == [
        pytest.approx([0.5**0.5, -(0.5**0.5)])
    ]


@pytest.mark.parametrize(("n", "k"), [(6, 2), (8, 4), (5, 5), (4, 1)])
def test_passk_equals_the_average_over_all_sets(n, k):
    """A response's advantage is the mean over the k-sets that hold it of the normalised success of
    the set.
    """
    for c in range(n + 1):
        correct = torch.tensor([[True] * c + [False] * (n - c)])
        sets = list(itertools.combinations(range(n), k))
        success = {s: float(any(i < c for i in s)) for s in sets}
        rho = statistics.fmean(success.values())
        sigma = math.sqrt(rho * (1 - rho))
        for i in range(n):
            mine = [success[s] for s in sets if i in s]
            expected = 0.0 if sigma == 0 else (statistics.fmean(mine) - rho) / sigma
            assert passk(correct, k=k)[0, i].item() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(UsageError):
        passk(correct, k=n + 1)


def test_dra_divides_by_similarity():
    rewards, _, embeddings = batch(group=5)
    embeddings = embeddings.abs()
    for b in range(3):
        units = [e / e.norm() for e in embeddings[b]]
        adjusted = [
            rewards[b, i].item()
            / (1 + sum((units[i] @ units[j]).item() for j in range(5) if j != i))
            for i in range(5)
        ]
        assert dra(rewards, embeddings)[b].tolist() == pytest.approx(normalised(adjusted))
    with pytest.raises(UsageError):
        dra(torch.ones(1, 3), torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]]))


def test_a_response_is_at_no_distance_from_itself():
    """Exactly, though a unit vector times itself is 1 only to the last bits."""
    distances = cosine_distances(batch(group=9)[2].float())
    assert torch.equal(distances.diagonal(dim1=1, dim2=2), torch.zeros(3, 9))


def test_grpo_diversity_pays_right_answers_only():
    rewards, correct, embeddings = batch(group=6)
    for b in range(3):
        units = [e / e.norm() for e in embeddings[b]]
        distance = [
            statistics.fmean(1 - (units[i] @ units[j]).item() for j in range(6) if j != i)
            for i in range(6)
        ]
        assert pairwise_diversity(embeddings)[b].tolist() == pytest.approx(distance)
        total = [
            r + 0.3 * d * c
            for r, d, c in zip(
                rewards[b].tolist(), distance, correct[b].double().tolist(), strict=True
            )
        ]
        found = grpo_diversity(
            rewards, correct=correct, embeddings=embeddings, diversity_weight=0.3
        )
        assert found[b].tolist() == pytest.approx(normalised(total))


def mupo_by_hand(rewards, correct, embeddings, labels, *, clusters, beta, weight, weighting):
    """Equations of §4.2, one response at a time."""
    n = len(rewards)
    units = [e / e.norm() for e in embeddings]
    total = []
    for i in range(n):
        others = [j for j in range(n) if labels[j] != labels[i]]
        div = statistics.fmean(1 - (units[i] @ units[j]).item() for j in others) if others else 0.0
        total.append(rewards[i] + weight * div * correct[i])
    advantages = [0.0] * n
    for k in range(clusters):
        members = [i for i in range(n) if labels[i] == k]
        w = (n / (clusters * len(members))) ** beta
        factor = w * n / (clusters * len(members)) if weighting == "paper" else w
        for i, a in zip(members, normalised([total[i] for i in members]), strict=True):
            advantages[i] = factor * a
    return advantages


@pytest.mark.parametrize("weighting", ["paper", "code"])
@pytest.mark.parametrize("beta", [0.0, 1.0, 0.5])
def test_mupo_equals_the_equations(weighting, beta):
    rewards, correct, embeddings = batch()
    found = mupo(
        rewards,
        correct=correct,
        embeddings=embeddings,
        clusters=3,
        min_size=3,
        beta=beta,
        diversity_weight=0.25,
        weighting=weighting,
        seed=0,
    )
    for b in range(3):
        labels = found.labels[b].tolist()
        expected = mupo_by_hand(
            rewards[b].tolist(),
            correct[b].tolist(),
            embeddings[b],
            labels,
            clusters=3,
            beta=beta,
            weight=0.25,
            weighting=weighting,
        )
        assert found.advantages[b].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_responses_are_compared_with_all_of_the_other_clusters():
    """Also where there is one such response."""
    embeddings = batch(prompts=1, group=3)[2]
    units = [e / e.norm() for e in embeddings[0]]
    apart = [[1 - (a @ b).item() for b in units] for a in units]
    found = cluster_diversity(embeddings, torch.tensor([[0, 1, 0]]))[0]
    expected = [apart[0][1], (apart[1][0] + apart[1][2]) / 2, apart[2][1]]
    assert found.tolist() == pytest.approx(expected)
    assert cluster_diversity(embeddings, torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]


def test_the_mean_over_responses_is_the_papers_objective_over_k():
    rewards, correct, embeddings = batch()
    found = mupo(rewards, correct=correct, embeddings=embeddings, beta=1.0)
    surrogate = torch.randn(3, 15, dtype=torch.float64)  # stands for a response's ratio
    inside = mupo(rewards, correct=correct, embeddings=embeddings, weighting="none").advantages
    for b in range(3):
        objective = 0.0
        for k in range(3):
            members = found.labels[b] == k
            size = int(members.sum())
            objective += (15 / (3 * size)) / size * float((surrogate[b] * inside[b])[members].sum())
        assert (surrogate[b] * found.advantages[b]).mean().item() == pytest.approx(objective / 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 16), st.integers(1, 5), st.integers(2, 4), st.integers(0, 10**6))
def test_what_holds_for_every_group(group, clusters, min_size, seed):
    rewards, correct, embeddings = batch(2, group, seed=seed)
    found = mupo(
        rewards,
        correct=correct,
        embeddings=embeddings,
        clusters=clusters,
        min_size=min_size,
        seed=seed,
    )
    assert (found.diversity[~correct] == 0).all()
    assert (found.diversity[correct] >= 0).all()
    for b in range(2):
        sizes = torch.bincount(found.labels[b])
        assert len(sizes) == max(1, min(clusters, group // min_size))
        assert int(sizes.min()) >= min(min_size, group)
        for k in range(len(sizes)):
            assert found.advantages[b, found.labels[b] == k].sum().abs() < 1e-9
    order = torch.randperm(group, generator=torch.Generator().manual_seed(seed))
    again = mupo(
        rewards[:, order],
        correct=correct[:, order],
        embeddings=embeddings[:, order],
        clusters=clusters,
        min_size=min_size,
        seed=seed,
    )
    assert torch.allclose(again.advantages, found.advantages[:, order])
    assert torch.equal(again.labels, found.labels[:, order])


@pytest.mark.parametrize("weighting", ["paper", "code"])
def test_one_cluster_is_grpo(weighting):
    rewards, correct, embeddings = batch()
    one = mupo(rewards, correct=correct, embeddings=embeddings, clusters=1, weighting=weighting)
    assert torch.equal(one.advantages, grpo(rewards))
    assert (one.diversity == 0).all()
    few = mupo(
        rewards[:, :5], correct=correct[:, :5], embeddings=embeddings[:, :5], clusters=3, min_size=3
    )
    assert torch.equal(few.advantages, grpo(rewards[:, :5]))


def test_equal_rewards_give_exactly_zero():
    for value in (0.1, 1.1, 1000.1):
        rewards = torch.full((2, 7), value)
        wrong, embeddings = torch.zeros(2, 7, dtype=torch.bool), torch.rand(2, 7, 4)
        for found in (
            grpo(rewards),
            grpo(rewards, scale="batch"),
            dr_grpo(rewards),
            rloo(rewards),
            reinforce_baseline(rewards),
            gdpo(rewards[..., None].expand(2, 7, 2)),
            passk(wrong, k=2),
            grpo_diversity(rewards, correct=wrong, embeddings=embeddings),
            mupo(rewards, correct=wrong, embeddings=embeddings).advantages,
        ):
            assert (found == 0).all()


def test_lambda_cancels_among_right_answers_unless_the_std_is_floored():
    correct, embeddings = torch.ones(1, 6, dtype=torch.bool), batch(1, 6)[2]
    rewards = torch.full((1, 6), 1.1, dtype=torch.float64)

    def at(weight, **options):
        options = {"clusters": 2, "min_size": 3, "eps": 0.0, **options}
        found = mupo(
            rewards, correct=correct, embeddings=embeddings, diversity_weight=weight, **options
        )
        return found.advantages

    assert torch.allclose(at(0.4), at(0.1))
    for options in ({"std_floor": 1.0}, {"scale": "none"}):
        assert torch.allclose(at(0.4, **options), 4 * at(0.1, **options))
        assert at(0.4, **options).abs().max() > 0.01


def test_named_options_of_the_release():
    rewards, correct, embeddings = batch()
    plain = mupo(rewards, correct=correct, embeddings=embeddings)
    double = mupo(
        rewards, correct=correct, embeddings=embeddings, distance_scale=2.0, mixing="code"
    )
    assert torch.allclose(double.diversity, 2 * plain.diversity)
    formatted = (rewards - correct.double()) / 0.1
    released = (1 - 0.1 - 0.4) * correct + 0.1 * formatted + 0.4 * correct * double.diversity
    assert torch.allclose(double.rewards, released)
    random = mupo(rewards, correct=correct, embeddings=embeddings, partition="random")
    for b in range(3):
        assert sorted(torch.bincount(random.labels[b])) == sorted(torch.bincount(plain.labels[b]))
    assert (random.labels != plain.labels).any()
    for wrong in ({"weighting": "codes"}, {"mixing": "x"}, {"partition": "x"}, {"scale": "batch"}):
        with pytest.raises(UsageError):
            mupo(rewards, correct=correct, embeddings=embeddings, **wrong)
    with pytest.raises(UsageError):
        mupo(rewards, correct=correct[:, :3], embeddings=embeddings)
