"""Our advantages and losses in verl's registries: a stand-in with its signatures, and verl itself
where it is installed.
"""

import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from franken.errors import FrankenError, UsageError
from franken.evaluate.embed import embedder, segment
from franken.models.creature import build_processor
from trainer.algorithms import grpo as group_rewards
from trainer.algorithms.mupo import mupo
from trainer.plugins.verl import LOSS_NAMES, group_rows, register

UIDS = np.array(
    ["a", "b", "a", "b", "b", "a", "a", "b"], dtype=object
)  # two groups of four, mixed up
ROWS = [[0, 2, 5, 6], [1, 3, 4, 7]]
LENGTHS = [3, 5, 1, 2, 4, 5, 2, 3]


def standing_in():
    """verl.trainer.ppo.core_algos 0.9.1, as far as a plug-in sees it."""
    core = SimpleNamespace(ADV_ESTIMATOR_REGISTRY={}, POLICY_LOSS_REGISTRY={})
    core.ADV_ESTIMATOR_REGISTRY["gdpo"] = (
        lambda token_level_rewards, response_mask, index, config=None, **_: "verl's own"
    )

    def register_adv_est(name):
        def decorator(fn):
            assert core.ADV_ESTIMATOR_REGISTRY.setdefault(name, fn) is fn
            return fn

        return decorator

    def register_policy_loss(name):
        return lambda fn: core.POLICY_LOSS_REGISTRY.setdefault(name, fn)

    def agg_loss(loss_mat, loss_mask, loss_agg_mode, dp_size=1, batch_num_tokens=None):
        assert loss_agg_mode == "token-mean"
        return (loss_mat * loss_mask).sum() / (batch_num_tokens or loss_mask.sum()) * dp_size

    core.register_adv_est, core.register_policy_loss, core.agg_loss = (
        register_adv_est,
        register_policy_loss,
        agg_loss,
    )
    return core


@pytest.fixture(params=["stand-in", "verl"])
def core(request):
    if request.param == "verl":
        found = pytest.importorskip(
            "verl.trainer.ppo.core_algos", reason="verl is not installed", exc_type=ImportError
        )
    else:
        found = standing_in()
    register(found)
    register(found)  # a second time changes nothing
    return found


@pytest.fixture
def step():
    """Rewards at the last token, as verl has them."""
    generator = torch.Generator().manual_seed(3)
    mask = (torch.arange(5) < torch.tensor(LENGTHS)[:, None]).long()
    totals = torch.tensor([1.0, 0.0, 1.1, 1.0, 0.1, 0.0, 1.1, 0.1])
    rewards = torch.zeros(8, 5)
    rewards[torch.arange(8), torch.tensor(LENGTHS) - 1] = totals
    ids = torch.randint(10, 60, (8, 5), generator=generator)
    return SimpleNamespace(
        mask=mask, totals=totals, rewards=rewards, ids=ids, right=np.array([t >= 1 for t in totals])
    )


def ask(core, step, name, settings, **more):
    return core.ADV_ESTIMATOR_REGISTRY[name](
        token_level_rewards=step.rewards,
        response_mask=step.mask,
        index=UIDS,
        config={"franken": settings},
        **more,
    )


def as_tokens(grouped, mask):
    flat = torch.zeros(8)
    flat[torch.tensor(ROWS)] = grouped
    return flat[:, None] * mask


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "reinforce_baseline"])
def test_advantages_of_group_rewards(core, step, name):
    found, returns = ask(core, step, "franken", {"name": name})
    expected = as_tokens(getattr(group_rewards, name)(step.totals[torch.tensor(ROWS)]), step.mask)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(found, returns)
    if name == "rloo":  # by hand: the reward minus the mean of the other three
        for row in ROWS:
            for i in row:
                others = [float(step.totals[j]) for j in row if j != i]
                assert found[i, 0].item() == pytest.approx(
                    float(step.totals[i]) - sum(others) / 3, abs=1e-6
                )
    if "rloo" in core.ADV_ESTIMATOR_REGISTRY:  # verl's
        theirs = {"rloo": "rloo", "grpo": "grpo"}.get(name)
        if theirs:
            other, _ = core.ADV_ESTIMATOR_REGISTRY[theirs](
                token_level_rewards=step.rewards, response_mask=step.mask, index=UIDS
            )
            assert torch.allclose(found, other * step.mask, atol=1e-4)


def test_mupo_reads_the_replies_where_verl_hands_them_over(core, step, tmp_path):
    tokenizer = build_processor().tokenizer
    tokenizer.save_pretrained(tmp_path)
    settings = {"name": "mupo", "clusters": 2, "min_size": 2, "tokenizer": str(tmp_path)}
    settings["diversity"] = {"start": 0.4, "end": 0.4, "shape": "constant"}
    handed = {"batch": {"responses": step.ids}, "non_tensor_batch": {"acc": step.right}}
    found, _ = ask(core, step, "gdpo", settings, **handed)
    texts = [
        tokenizer.decode(row[:n], skip_special_tokens=True)
        for row, n in zip(step.ids, LENGTHS, strict=True)
    ]
    vectors = embedder("hashing")([segment(t) for t in texts])
    rows = torch.tensor(ROWS)
    expected = mupo(
        step.totals[rows],
        correct=torch.tensor(step.right)[rows],
        embeddings=vectors[rows],
        clusters=2,
        min_size=2,
        diversity_weight=0.4,
        seed=zlib.crc32(step.totals[rows].numpy().tobytes()),
    )
    assert found.abs().sum() > 0
    assert torch.allclose(found, as_tokens(expected.advantages, step.mask), atol=1e-6)
    with pytest.raises(UsageError, match="responses"):
        ask(core, step, "franken", settings)  # as verl calls any other name
    with pytest.raises(UsageError, match="'acc'"):
        ask(core, step, "gdpo", settings, batch=handed["batch"], non_tensor_batch={})
    with pytest.raises(UsageError, match="tokenizer"):
        ask(core, step, "gdpo", {**settings, "tokenizer": ""}, **handed)
    with pytest.raises(UsageError, match="annealed"):
        ask(core, step, "gdpo", {"name": "mupo"}, **handed)


def test_gdpo_without_our_settings_is_verls_own(core, step):
    found = core.ADV_ESTIMATOR_REGISTRY["gdpo"](
        token_level_rewards=step.rewards, response_mask=step.mask, index=UIDS
    )
    if isinstance(found, str):
        assert found == "verl's own"
    else:
        theirs = core.ADV_ESTIMATOR_REGISTRY["gdpo"].before
        assert torch.equal(found[0], theirs(step.rewards, step.mask, UIDS)[0])


def test_groups_of_several_sizes_are_refused():
    assert group_rows(UIDS).tolist() == ROWS
    with pytest.raises(FrankenError, match=r"groups of \[1, 2\]"):
        group_rows(["a", "b", "a"])


class Actor(dict):
    """verl's actor settings: attributes, `get`, and the totals of the global batch."""

    clip_ratio, clip_ratio_low, clip_ratio_high = 0.2, 0.2, 0.28
    global_batch_info = {"dp_size": 2, "batch_num_tokens": 50}  # noqa: RUF012


@pytest.mark.parametrize("name", sorted(LOSS_NAMES))
def test_losses_token_by_token(core, step, name):
    generator = torch.Generator().manual_seed(5)
    old, new = (-3 * torch.rand(8, 5, generator=generator) for _ in range(2))
    weights = torch.randn(8, 5, generator=generator)
    corrections = torch.rand(8, 5, generator=generator)
    new.requires_grad_()
    actor = Actor(clip_ratio_c=3.0)
    given = {
        "old_log_prob": old,
        "log_prob": new,
        "advantages": weights,
        "response_mask": step.mask,
    }
    found, metrics = core.POLICY_LOSS_REGISTRY[name](
        **given, config=actor, rollout_is_weights=corrections
    )
    expected, clipped = torch.zeros(()), 0
    for i, length in enumerate(LENGTHS):
        for t in range(length):
            log_ratio = new[i, t] - old[i, t]
            if name == "franken_gspo":  # the row's ratio, with the gradient of its mean log-ratio
                log_ratio = (new[i, :length] - old[i, :length]).mean()
            ratio, a = log_ratio.exp(), weights[i, t]
            if name == "franken_cispo":
                term = -ratio.clamp(max=1.28).detach() * a * new[i, t]
                clipped += bool(ratio > 1.28)
            else:
                term = -torch.minimum(ratio * a, ratio.clamp(0.8, 1.28) * a)
                term = torch.minimum(term, -3.0 * a) if a < 0 else term
                clipped += bool((a > 0 and ratio > 1.28) or (a < 0 and ratio < 0.8))
            expected = expected + term * corrections[i, t]
    expected = expected / 50 * 2
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(x, new, retain_graph=True)[0] for x in (found, expected))
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert metrics["actor/pg_clipfrac"] == pytest.approx(clipped / sum(LENGTHS))
    if name == "franken_clip" and "vanilla" in core.POLICY_LOSS_REGISTRY:
        same, _ = core.POLICY_LOSS_REGISTRY["vanilla"](
            **given, config=actor, rollout_is_weights=corrections
        )
        assert found.item() == pytest.approx(same.item(), rel=1e-5)
