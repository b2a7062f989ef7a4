"""Losses against TRL 1.16 on random tensors, against loops, and invariance to how a step is cut."""

import math
import os
from types import SimpleNamespace

import pytest
import torch
from processes import start

from franken.errors import UsageError
from trainer.algorithms.corrections import overlong_penalty, sampler_correction, token_kl
from trainer.algorithms.losses import LOSSES, global_totals, policy_loss, row_weights

MAX_TOKENS = 20
AGGREGATION = {name: LOSSES.get(name).aggregation for name in LOSSES.names()}


def by_token(new, advantages, mask, *, kind="dapo", old_logprobs=None, correction=None, **options):
    """The registered loss, with those of the options that it reads."""
    method = LOSSES.get(kind)
    read = {key: value for key, value in options.items() if key in method.shared}
    return policy_loss(
        method, new, advantages, mask, read, old_logprobs=old_logprobs, correction=correction
    )


def token_loss(*args, **options):
    return by_token(*args, **options).loss


def tensors(rows=6, tokens=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    new, old, reference, sampled = (-3 * torch.rand(4, rows, tokens, generator=generator)).unbind()
    lengths = torch.randint(1, tokens + 1, (rows,), generator=generator)
    mask = torch.arange(tokens) < lengths[:, None]
    advantages = torch.randn(rows, generator=generator)
    return new, old, reference, sampled, advantages, mask


def ours(new, advantages, mask, *, kind, beta=0.0, kl="k3", reference=None, **options):
    loss = token_loss(new, advantages, mask, kind=kind, **options)
    if beta:
        loss = loss + beta * token_kl(new, reference, kl) * mask
    weights = row_weights(mask.sum(1), AGGREGATION[kind], max_tokens=MAX_TOKENS)
    return (loss.sum(1) * weights).sum()


@pytest.fixture(scope="module")
def trl_loss():
    """TRL's own `_compute_loss`, with the model's part replaced by given log-probabilities."""
    from trl.trainer import grpo_trainer as trainer

    def compute(
        new,
        advantages,
        mask,
        *,
        kind,
        old=None,
        reference=None,
        sampled=None,
        beta=0.0,
        low=0.2,
        high=0.2,
        delta=None,
        correction=None,
        cap=2.0,
    ):
        accelerator = SimpleNamespace(
            num_processes=1,
            gather=lambda x: x,
            reduce=lambda x, reduction: x,
            gather_for_metrics=lambda x: x,
        )
        from collections import defaultdict

        mine = SimpleNamespace(
            aux_loss_enabled=False,
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=None,
            importance_sampling_level="sequence" if kind == "gspo" else "token",
            beta=beta,
            loss_type="grpo" if kind == "gspo" else kind,
            epsilon_low=low,
            epsilon_high=1 + high if kind == "cispo" else high,
            max_completion_length=MAX_TOKENS,
            use_vllm=correction is not None,
            vllm_importance_sampling_correction=correction is not None,
            _entropy_bonus_enabled=False,
            current_gradient_accumulation_steps=1,
            model=SimpleNamespace(training=True),
            accelerator=accelerator,
            _metrics={"train": defaultdict(list)},
            args=SimpleNamespace(delta=delta, use_bias_correction_kl=False, steps_per_generation=1),
            _get_per_token_logps_and_entropies=lambda *a, **k: (new, torch.zeros_like(new), None),
        )
        inputs = {
            "prompt_ids": torch.zeros(len(new), 1, dtype=torch.long),
            "prompt_mask": torch.ones(len(new), 1, dtype=torch.long),
            "completion_ids": torch.zeros(new.shape, dtype=torch.long),
            "completion_mask": mask.long(),
            "advantages": advantages,
            "old_per_token_logps": old,
            "ref_per_token_logps": reference,
            "num_items_in_batch": mask.sum(),
            "importance_sampling_ratio": correction,
        }
        return trainer.GRPOTrainer._compute_loss(mine, None, inputs)

    return compute


OPTIONS = [
    {},
    {"clip_low": 0.2, "clip_high": 0.28},
    {"beta": 0.04},
    {"dual_clip": 1.5},
    {"correction": "token_truncate"},
    {"correction": "sequence_mask"},
    {"on_policy": True},
    {"per_token": True},
]


@pytest.mark.parametrize("kind", ["grpo", "dapo", "dr_grpo", "gspo", "cispo"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
def test_losses_and_gradients_equal_trls(trl_loss, kind, options):
    for seed in range(3):
        new, old, reference, sampled, advantages, mask = tensors(seed=seed)
        if "per_token" in options:
            advantages = torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed))
        low, high = options.get("clip_low", 0.2), options.get("clip_high", 0.2)
        correction = None
        if "correction" in options:
            correction = sampler_correction(old, sampled, mask, options["correction"], cap=2.0)
        old_or_none = None if "on_policy" in options else old
        a, b = new.clone().requires_grad_(), new.clone().requires_grad_()
        beta = options.get("beta", 0.0)
        found = ours(
            a,
            advantages,
            mask,
            kind=kind,
            beta=beta,
            reference=reference,
            old_logprobs=old_or_none,
            clip_low=low,
            clip_high=high,
            dual_clip=options.get("dual_clip"),
            correction=correction,
        )
        expected = trl_loss(
            b,
            advantages,
            mask,
            kind=kind,
            beta=beta,
            reference=reference,
            old=old_or_none,
            low=low,
            high=high,
            delta=options.get("dual_clip"),
            correction=correction,
        )
        found.backward()
        expected.backward()
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        assert torch.allclose(a.grad, b.grad, atol=1e-7)
        assert a.grad.abs().sum() > 0


def test_token_loss_equals_a_loop():
    new, old, _, _, advantages, mask = tensors()
    found = token_loss(
        new, advantages, mask, old_logprobs=old, clip_low=0.2, clip_high=0.28, dual_clip=3.0
    )
    for i in range(new.shape[0]):
        for t in range(new.shape[1]):
            ratio, a = math.exp(float(new[i, t] - old[i, t])), float(advantages[i])
            surrogate = min(ratio * a, min(max(ratio, 0.8), 1.28) * a)
            surrogate = max(surrogate, 3.0 * a) if a < 0 else surrogate
            expected = -surrogate if mask[i, t] else 0.0
            assert found[i, t].item() == pytest.approx(expected, rel=1e-5)


def test_a_weight_on_the_surrogate_folds_into_the_advantage():
    new, old, _, _, advantages, mask = tensors()
    for kind in AGGREGATION:
        once = token_loss(new, advantages, mask, kind=kind, old_logprobs=old, dual_clip=2.0)
        twice = token_loss(new, 2.5 * advantages, mask, kind=kind, old_logprobs=old, dual_clip=2.0)
        assert torch.allclose(twice, 2.5 * once)


def test_kl_estimates():
    x = torch.tensor([[0.5, -1.0, 0.0]])
    new = torch.full((1, 3), -2.0)
    assert token_kl(new, new + x, "k1")[0].tolist() == [-0.5, 1.0, 0.0]
    assert token_kl(new, new + x, "k2")[0].tolist() == pytest.approx([0.125, 0.5, 0.0])
    assert token_kl(new, new + x, "k3")[0].tolist() == pytest.approx(
        [math.exp(0.5) - 1.5, math.exp(-1), 0.0]
    )


def test_the_mean_of_k1_and_k3_is_the_kl_divergence():
    generator = torch.Generator().manual_seed(0)
    p, q = torch.log_softmax(torch.randn(2, 5, generator=generator), -1)
    exact = float((p.exp() * (p - q)).sum())
    for kind in ("k1", "k3"):
        assert float((p.exp() * token_kl(p[None], q[None], kind)[0]).sum()) == pytest.approx(
            exact, rel=1e-5
        )


def test_the_correction_is_truncated_or_masked():
    trained, sampled = torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[0.0, 0.5, 9.0]])
    mask = torch.tensor([[True, True, False]])
    half = math.exp(0.5)
    assert sampler_correction(trained, sampled, mask, "none") is None
    for kind, cap, expected in (
        ("token_truncate", 2.0, [1.0, half, 1.0]),
        ("token_truncate", 1.2, [1.0, 1.2, 1.0]),
        ("token_mask", 1.2, [1.0, 0.0, 1.0]),
        ("sequence_truncate", 1.2, [1.2]),
        ("sequence_truncate", 2.0, [half]),
        ("sequence_mask", 1.2, [0.0]),
    ):
        assert sampler_correction(trained, sampled, mask, kind, cap=cap)[
            0
        ].tolist() == pytest.approx(expected)


def test_the_soft_penalty_is_a_ramp():
    lengths = torch.tensor([1, 80, 90, 100, 120])
    assert overlong_penalty(lengths, 100, 20).tolist() == pytest.approx(
        [0.0, 0.0, -0.5, -1.0, -1.0]
    )


def test_unknown_names():
    new, _, _, _, advantages, mask = tensors()
    for wrong in (
        lambda: token_loss(new, advantages, mask, kind="ppo"),
        lambda: row_weights(mask.sum(1), "mean"),
        lambda: row_weights(mask.sum(1), "constant"),
        lambda: token_kl(new, new, "k4"),
        lambda: sampler_correction(new, new, mask, "tis"),
    ):
        with pytest.raises(UsageError):
            wrong()


@pytest.mark.parametrize("kind", list(AGGREGATION))
def test_the_loss_does_not_depend_on_micro_batches(kind):
    new, old, _, _, advantages, mask = tensors(rows=7)
    rows, tokens = global_totals(mask.sum(1))
    whole = ours(new, advantages, mask, kind=kind, old_logprobs=old)
    for cuts in ([7], [1] * 7, [2, 4, 1]):
        total = 0.0
        for part in torch.arange(7).split(cuts):
            weights = row_weights(
                mask[part].sum(1),
                AGGREGATION[kind],
                max_tokens=MAX_TOKENS,
                rows=rows,
                tokens=tokens,
            )
            loss = token_loss(
                new[part], advantages[part], mask[part], kind=kind, old_logprobs=old[part]
            )
            total += float((loss.sum(1) * weights).sum())
        assert total == pytest.approx(whole.item(), rel=1e-5)


def test_a_masked_row_counts_as_a_row_but_has_no_tokens():
    lengths = torch.tensor([4, 0, 2])
    assert row_weights(lengths, "row").tolist() == pytest.approx([1 / 12, 1 / 3, 1 / 6])
    assert row_weights(lengths, "token").tolist() == pytest.approx([1 / 6] * 3)


def _rank(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    new, old, _, _, advantages, mask = tensors(rows=7)
    part = torch.arange(7)[:3] if rank == 0 else torch.arange(7)[3:]
    rows, tokens = global_totals(mask[part].sum(1))
    for kind in AGGREGATION:
        mine = new[part].clone().requires_grad_()
        weights = row_weights(
            mask[part].sum(1), AGGREGATION[kind], max_tokens=MAX_TOKENS, rows=rows, tokens=tokens
        )
        loss = (
            token_loss(mine, advantages[part], mask[part], kind=kind, old_logprobs=old[part]).sum(1)
            * weights
        ).sum()
        loss.backward()
        torch.save(
            {"loss": loss.detach(), "gradient": mine.grad},
            os.path.join(folder, f"{kind}-{rank}.pt"),
        )
    torch.distributed.destroy_process_group()


def test_the_loss_does_not_depend_on_ranks(tmp_path):
    ranks = [start(tmp_path / f"said-{rank}", _rank, rank, str(tmp_path)) for rank in (0, 1)]
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.stderr for rank in ranks]
    new, old, _, _, advantages, mask = tensors(rows=7)
    for kind in AGGREGATION:
        one = new.clone().requires_grad_()
        whole = ours(one, advantages, mask, kind=kind, old_logprobs=old)
        whole.backward()
        parts = [torch.load(tmp_path / f"{kind}-{rank}.pt") for rank in (0, 1)]
        assert float(sum(p["loss"] for p in parts)) == pytest.approx(whole.item(), rel=1e-5)
        assert torch.allclose(torch.cat([p["gradient"] for p in parts]), one.grad, atol=1e-7)


def test_clipped_tokens_are_those_whose_gradient_the_clip_takes():
    """Of every loss, by autograd: where the surrogate is cut, the gradient is zero (cispo: the
    weight is the bound).
    """
    made = torch.Generator().manual_seed(0)
    old = -3 * torch.rand(5, 7, generator=made)
    shift = torch.tensor([0.4, -0.4, 0.1, -0.1, 0.4])[:, None]
    new = (old + shift + 0.5 * torch.randn(5, 7, generator=made)).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 0.5, -2.0, 0.0])
    mask = torch.arange(7) < torch.tensor([7, 3, 5, 1, 4])[:, None]
    clipping = {"old_logprobs": old, "clip_high": 0.28}
    for kind in ("grpo", "gspo"):
        slope = torch.autograd.grad(
            token_loss(new, advantages, mask, kind=kind, **clipping).sum(),
            new,
        )[0]
        cut = ((slope == 0) & mask & (advantages != 0)[:, None]).sum().item()
        assert 0 < cut < mask.sum()
        assert by_token(new, advantages, mask, kind=kind, **clipping).clipped.sum() == cut
    ratio = (new - old).exp().detach()
    above = ((ratio > 1.28) & mask & (advantages != 0)[:, None]).sum().item()
    assert by_token(new, advantages, mask, kind="cispo", **clipping).clipped.sum() == above


@pytest.mark.parametrize("kind", list(AGGREGATION))
def test_losses_clip_at_a_fifth_by_default(kind):
    old = torch.zeros(2, 4)
    new = torch.tensor([0.5, 0.79, 1.19, 1.3]).log().expand(2, 4)
    given = new, torch.tensor([1.0, -1.0]), torch.ones(2, 4, dtype=torch.bool)
    default = by_token(*given, kind=kind, old_logprobs=old)
    fifth = by_token(*given, kind=kind, old_logprobs=old, clip_low=0.2, clip_high=0.2)
    assert torch.equal(default.loss, fifth.loss)
    assert torch.equal(default.clipped, fifth.clipped)


def test_weights_of_the_longest_response_that_is_allowed():
    lengths = torch.tensor([1, 0])
    assert row_weights(lengths, "constant", max_tokens=1).tolist() == [0.5, 0.5]
    assert row_weights(lengths, "constant", max_tokens=4, rows=2).tolist() == [0.125, 0.125]
    with pytest.raises(UsageError, match="longest response"):
        row_weights(lengths, "constant", max_tokens=0)
    assert row_weights(torch.tensor([0, 0]), "token").tolist() == [1.0, 1.0]


def test_the_correction_is_cut_at_two_by_default():
    trained, mask = torch.tensor([[3.0, 0.5]]), torch.tensor([[True, True]])
    cut = sampler_correction(trained, torch.zeros(1, 2), mask, "token_truncate")
    assert cut[0].tolist() == pytest.approx([2.0, math.exp(0.5)])
