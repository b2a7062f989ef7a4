"""The update of the policy by the samples of a step: loss, gradients, and `inner_steps` optimizer
steps.

A response whose advantage is zero moves nothing unless a KL or an entropy bonus does; it is then
left out of the update, not out of the denominator.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from franken.models.loading import Loaded
from trainer.algorithms.corrections import sampler_correction, token_kl
from trainer.algorithms.groups import Groups, Metrics
from trainer.algorithms.losses import LOSSES, global_totals, policy_loss, row_weights
from trainer.collectives import all_reduce_max, all_reduce_sum
from trainer.micro_batches import (
    Index,
    MicroBatch,
    Scores,
    all_responses,
    forward,
    idle_micro_batches,
    micro_batches,
    rows_of,
    sampler_logprobs,
)
from trainer.optimizer import backpropagate
from trainer.rollout import Batch
from trainer.stages import GrpoStage

SUMS = ("loss", "entropy", "kl", "clipped")  # metrics that are summed over micro-batches and ranks


@dataclass(frozen=True)
class Weighted:
    """The samples of this rank with what each counts.

    `advantages` are `[prompts, group]`, or one a token; `lengths` are the tokens that count;
    `weights` multiply a response's tokens; `tokens` is their number in the step, on all ranks.
    """

    batch: Batch
    advantages: Tensor
    lengths: Int[Tensor, "prompts group"]
    weights: Float[Tensor, "prompts group"]
    tokens: int
    counts: bool  # False on a rank that holds a group only to run in step

    @classmethod
    def of(
        cls, stage: GrpoStage, batch: Batch, groups: Groups, advantages: Tensor, places: list[int]
    ) -> "Weighted":
        """`places` are this rank's groups among `advantages`, which are of all ranks."""
        lengths = groups.lengths * ~groups.truncated if stage.mask_truncated else groups.lengths
        rows, tokens = global_totals(lengths[: len(places)].flatten())
        weights = row_weights(
            lengths.flatten(),
            LOSSES.get(stage.loss.name).aggregation,
            max_tokens=stage.max_new_tokens,
            rows=rows,
            tokens=tokens,
        ).view(lengths.shape)
        if places:
            own = advantages[places]
        else:
            own = advantages.new_zeros((1, stage.group, int(lengths.max()))[: advantages.ndim])
        return cls(batch, own, lengths, weights, tokens, bool(places))

    def moving(self, *, every: bool) -> list[Index]:
        """The responses that move the policy: those with an advantage, or `every` one with tokens
        that count.
        """
        moves = self.advantages != 0
        moves = moves.any(-1) if moves.ndim == 3 else moves
        return [
            (i, j)
            for i, j in all_responses(self.batch)
            if self.counts and (every or moves[i, j]) and self.lengths[i, j]
        ]


def update_policy(
    loaded: Loaded,
    stage: GrpoStage,
    optimizer_step: Callable[[], float],
    reference: Loaded | None,
    samples: Weighted,
) -> Metrics:
    """`inner_steps` passes over the samples. The `reference` is that of a KL in the loss.

    Returns loss, entropy, KL, share of clipped tokens and the gradient norm. Raises FrankenError
    where the loss is not finite.
    """
    moving = samples.moving(every=reference is not None or stage.entropy_bonus > 0)
    parts = micro_batches(moving, samples.batch, stage)
    idle = idle_micro_batches(loaded, samples.batch, len(parts))
    busy = all_reduce_max(len(moving)) > 0
    before: dict[int, Tensor] = {}  # log-probabilities before the first update, by micro-batch
    totals: Metrics = dict.fromkeys(SUMS, 0.0)
    grad_norm = 0.0
    for inner in range(stage.inner_steps if busy else 0):
        for number, part in enumerate([*parts, *idle]):
            scores = forward(
                loaded, stage, samples.batch, part, entropy_grad=stage.entropy_bonus > 0
            )
            scores = scores._replace(mask=scores.mask & (number < len(parts)))
            if inner == 0:
                before[number] = scores.logprobs.detach()
            for name, value in _backward(
                stage, reference, samples, part, scores, before[number]
            ).items():
                totals[name] += value / stage.inner_steps
        grad_norm = optimizer_step()
    trained = float(sum(samples.lengths[i, j] for i, j in moving))
    *values, seen = all_reduce_sum([*(totals[name] for name in SUMS), trained])
    sums = dict(zip(SUMS, values, strict=True))
    shares = {name: sums[name] / max(seen, 1.0) for name in SUMS[1:]}
    return {**sums, "grad_norm": grad_norm, **shares}


def _backward(
    stage: GrpoStage,
    reference: Loaded | None,
    samples: Weighted,
    part: MicroBatch,
    scores: Scores,
    before: Float[Tensor, "rows tokens"],
) -> Metrics:
    """Add the gradient of one micro-batch. `before` are its log-probabilities at the first inner
    step. Returns its sums.
    """
    logprobs, entropy, mask = scores
    sampled = sampler_logprobs(samples.batch, part, mask).to(logprobs)
    old = None
    if stage.inner_steps > 1:  # with one inner step the policy is the sampler and the ratio is one
        old = sampled if stage.importance == "none" else before
    by_token, clipped = policy_loss(
        LOSSES.get(stage.loss.name),
        logprobs,
        rows_of(samples.advantages, part, mask),
        mask,
        stage.loss_parameters,
        old_logprobs=old,
        correction=sampler_correction(
            before, sampled, mask, stage.importance, cap=stage.importance_cap
        ),
    )
    kl = torch.zeros(())
    if reference is not None:
        with torch.no_grad():
            theirs = forward(reference, stage, samples.batch, part).logprobs
        kl_by_token = token_kl(logprobs, theirs, stage.kl) * mask
        by_token, kl = by_token + stage.beta * kl_by_token, kl_by_token.sum()
    loss = (by_token.sum(1) * rows_of(samples.weights, part, mask)).sum()
    if stage.entropy_bonus:
        loss = loss - stage.entropy_bonus * (entropy * mask).sum() / samples.tokens
    backpropagate(loss)
    return {
        "loss": loss.item(),
        "entropy": (entropy.detach() * mask).sum().item(),
        "kl": kl.item(),
        "clipped": float(clipped.sum()),
    }
