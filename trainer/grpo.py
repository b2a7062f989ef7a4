"""One GRPO step: draw puzzles, sample groups, reward, normalise, update.

Prompts are a pure function of (stage seed, step); samples are seeded by prompt and sample index. A group whose rewards are
all equal has zero advantage and is left out of the update, not out of the denominator.
"""

from collections.abc import Mapping
from typing import Any

import torch

from franken import tasks
from franken.generate.native import Prompt, Response, Sampling, encode_prompts, sample
from franken.models.loading import Loaded
from franken.tasks import Item
from franken.tasks.puzzle import child_rng, draw_state, make_item
from trainer.advantages import grpo
from trainer.losses import kl_penalty, policy_loss
from trainer.policy import response_logprobs, take_rows, with_features
from trainer.rewards import combine
from trainer.stages import GrpoStage


def next_items(mixture: Mapping[str, float], count: int, *, seed: int, step: int) -> list[Item]:
    """The puzzles of one step, from the training split."""
    items = []
    for i in range(count):
        rng = child_rng("grpo", seed, step, i)
        puzzle = tasks.get(rng.choices(list(mixture), list(mixture.values()))[0])
        state = draw_state(puzzle, rng, "train")
        item_id = f"{puzzle.name}-grpo-{seed}-{step}-{i}"
        items.append(make_item(puzzle, item_id, state, puzzle.ask(state, rng), rng.getrandbits(32)))
    return items


def grpo_step(
    loaded: Loaded, stage: GrpoStage, update: Any, reference: Loaded | None, *, seed: int, step: int
) -> dict[str, float]:
    """Sample, reward, and call `update()` (clip, optimiser step, zero) once per inner step. Returns the metrics.

    The caller has zeroed the gradients; `update` returns the gradient norm.
    """
    items = next_items(stage.tasks, stage.prompts, seed=seed, step=step)
    prompts = [Prompt(i.question, (i.image,) if i.image else (), i.id) for i in items]
    batch = with_features(loaded, encode_prompts(loaded, prompts))
    sampling = Sampling(stage.group, stage.temperature, stage.max_new_tokens, seed)
    groups = sample(loaded, batch, [p.key for p in prompts], sampling)
    grades = [[tasks.grade(r.text, item) for r in group] for item, group in zip(items, groups, strict=True)]
    rewards, metrics = combine(grades, stage.rewards)
    advantages = grpo(rewards)
    kept = [(i, j) for i, row in enumerate(advantages.tolist()) for j, a in enumerate(row) if a != 0.0]
    tokens = sum(len(r.ids) for group in groups for r in group)
    totals = {"loss": 0.0, "entropy": 0.0, "kl": 0.0, "grad_norm": 0.0, "kept_tokens": 0.0}
    for _ in range(stage.inner_steps if kept else 0):
        for part in _micro_batches(kept, groups, stage.micro_rows):
            for name, value in _backward(loaded, stage, reference, batch, groups, advantages, part, tokens).items():
                totals[name] += value / stage.inner_steps
        totals["grad_norm"] = update()
    seen = max(totals.pop("kept_tokens"), 1.0)
    responses = [r for group in groups for r in group]
    strategies = [len({tasks.get(i.task).strategy(r.text) for r in g}) for i, g in zip(items, groups, strict=True)]
    return {
        **totals,
        "entropy": totals["entropy"] / seen,
        "kl": totals["kl"] / seen,
        **metrics,
        "reward": rewards.mean().item(),
        "zero_variance_groups": (advantages == 0).all(1).float().mean().item(),
        "length": tokens / len(responses),
        "truncated": sum(r.truncated for r in responses) / len(responses),
        "strategies": sum(strategies) / len(strategies),
    }


def _micro_batches(kept: list[tuple[int, int]], groups: list[list[Response]], rows: int) -> list[list[tuple[int, int]]]:
    """Rows sorted by length, so that little is padding, cut into micro-batches."""
    by_length = sorted(kept, key=lambda ij: len(groups[ij[0]][ij[1]].ids))
    return [by_length[i : i + rows] for i in range(0, len(by_length), rows)]


def _backward(
    loaded: Loaded,
    stage: GrpoStage,
    reference: Loaded | None,
    batch: dict[str, Any],
    groups: list[list[Response]],
    advantages: torch.Tensor,
    part: list[tuple[int, int]],
    tokens: int,
) -> dict[str, float]:
    responses = [groups[i][j] for i, j in part]
    rows = take_rows(loaded, batch, [i for i, _ in part], [r.ids for r in responses])
    logprobs, entropy = response_logprobs(loaded, rows, stage.temperature)
    weights = torch.tensor([advantages[i, j] for i, j in part], device=logprobs.device)
    old = None
    if stage.inner_steps > 1:  # with one inner step the policy is the sampler and the ratio is one
        width = rows.mask.shape[1]
        padded = [r.logprobs + [0.0] * (width - len(r.logprobs)) for r in responses]
        old = torch.tensor(padded, device=logprobs.device)
    loss = policy_loss(
        logprobs, weights, rows.mask, old_logprobs=old, clip_low=stage.clip_low, clip_high=stage.clip_high
    )
    kl = torch.zeros(())
    if reference is not None:
        with torch.no_grad():
            ours, _ = response_logprobs(reference, rows, stage.temperature)
        kl = kl_penalty(logprobs, ours, rows.mask)
        loss = loss + stage.beta * kl
    loss = loss / tokens
    loss.backward()
    return {
        "loss": loss.item(),
        "entropy": entropy.sum().item(),
        "kl": kl.item(),
        "kept_tokens": float(rows.mask.sum()),
    }
