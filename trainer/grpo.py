"""One RL step: sample groups (trainer/rollout.py), reward, estimate advantages, update the policy
(trainer/policy_update.py).

Over several processes, each has its groups, and all know the sums of the step before any backward
pass.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from franken import tasks
from franken.evaluate.embed import Embed, embedder, segment
from franken.models.loading import Loaded
from franken.tasks import Grade, Item
from trainer.algorithms.corrections import overlong_penalty, token_kl
from trainer.algorithms.groups import Groups, Metrics, RewardParts, estimate
from trainer.collectives import all_gather, all_reduce_sum, on_every_process
from trainer.diagnostics import reward_metrics
from trainer.distributed import rank
from trainer.engines import RolloutEngine
from trainer.micro_batches import all_responses, forward, micro_batches, sampler_logprobs
from trainer.policy_update import Weighted, update_policy
from trainer.rewards import RewardSettings, score
from trainer.rollout import Batch, draw
from trainer.sharding import whole
from trainer.stages import GrpoStage
from trainer.templates import Template, template, thought, well_formed


def grpo_step(
    loaded: Loaded,
    stage: GrpoStage,
    optimizer_step: Callable[[], float],
    reference: Loaded | None = None,
    *,
    seed: int,
    step: int,
    progress: float = 0.0,
    embed: Embed | None = None,
    engine: RolloutEngine | None = None,
) -> Metrics:
    """Sample, reward, and call `optimizer_step()` once per inner step (`trainer.steps.StageStep`).

    Of the metrics, `entropy` is that of the tokens that trained; `sampled_entropy`, the mean −log p
    of all that were sampled, estimates it where nothing trains too. Raises FrankenError where the
    loss is not finite.
    """
    rollout = draw(loaded, stage, seed=seed, step=step, engine=engine)
    items, batch, grades = rollout.items, rollout.batch, rollout.grades
    if batch is None or not any(rollout.places):
        return {"loss": 0.0, "grad_norm": 0.0, **rollout.counts}
    names, weights, rewards = on_every_process(
        lambda: _rewards(stage, reference, batch, items, grades)
    )
    texts = [[r.text for r in group] for group in batch.groups]
    shape = template(stage.shape)
    right = torch.tensor([[g.score == 1.0 for g in group] for group in grades])
    formed = torch.tensor([[well_formed(text, shape) for text in group] for group in texts])
    own = Groups(
        texts=texts,
        correct=right & formed,
        lengths=batch.lengths(),
        truncated=torch.tensor([[r.truncated for r in group] for group in batch.groups]),
        reward_names=names,
        reward_weights=weights,
        embed=lambda: _embeddings(embed or embedder(stage.embedder, device=loaded.device), texts),
        seed=seed,
        step=step,
        progress=progress,
    )
    places = rollout.places[rank()]
    counted = len(places)  # a rank that only runs in step counts none of its groups
    groups, rewards, right = _of_all_ranks(own, rewards, right, rollout.places)
    estimated = estimate(stage.advantage, rewards, groups)
    total = groups.total(rewards)
    in_loss = reference if stage.kl_in == "loss" else None
    samples = Weighted.of(stage, batch, own, estimated.advantages, places)
    return {
        **update_policy(loaded, stage, optimizer_step, in_loss, samples),
        **{f"reward_{name}": rewards[..., f].mean().item() for f, name in enumerate(names)},
        **_sampling_metrics(batch, items[:counted], texts, shape, int(groups.lengths.sum())),
        "reward": total.mean().item(),
        "zero_variance_groups": (estimated.advantages == 0).flatten(1).all(1).float().mean().item(),
        "length": groups.lengths.sum().item() / groups.lengths.numel(),
        "truncated": groups.truncated.sum().item() / groups.truncated.numel(),
        "correct": right.float().mean().item(),
        **reward_metrics(names, rewards, total, right, groups.texts, shape),
        **estimated.metrics,
        **rollout.counts,
    }


def _sampling_metrics(
    batch: Batch, items: list[Item], texts: list[list[str]], shape: Template, tokens: int
) -> Metrics:
    """The sampler's entropy over the step's `tokens`, and of puzzles the mean number of strategies
    a group uses.
    """
    surprise = -sum(sum(r.logprobs) for row in batch.groups[: len(items)] for r in row)
    strategies = [
        len({_strategy(item, text, shape) for text in row})
        for item, row in zip(items, texts, strict=False)
        if tasks.is_puzzle(item.task)
    ]
    surprise, used, puzzles = all_reduce_sum([surprise, sum(strategies), len(strategies)])
    metrics = {"sampled_entropy": surprise / tokens}
    return {**metrics, "strategies": used / puzzles} if puzzles else metrics


def _of_all_ranks(
    groups: Groups,
    rewards: RewardParts,
    right: Bool[Tensor, "prompts group"],
    places: list[list[int]],
) -> tuple[Groups, RewardParts, Bool[Tensor, "prompts group"]]:
    """What an advantage looks at, of the whole step and in its order: a batch's spread, or a random
    partition, is the same on any number of ranks. Only texts and numbers travel; embeddings are
    made where the texts are, and only if the advantage reads them.
    """
    count = len(places[rank()])
    columns = (groups.correct, groups.lengths, groups.truncated, rewards, right)
    parts = all_gather((groups.texts[:count], *(column[:count] for column in columns)))
    rows, *gathered = zip(*parts, strict=True)
    order = torch.tensor([place for part in places for place in part]).argsort()
    correct, lengths, truncated, every_reward, every_right = (
        torch.cat(column)[order] for column in gathered
    )
    texts = [row for part in rows for row in part]
    joined = replace(
        groups,
        texts=[texts[i] for i in order],
        correct=correct,
        lengths=lengths,
        truncated=truncated,
        embed=lambda: torch.cat(all_gather(groups.embed()[:count]))[order],
    )
    return joined, every_reward, every_right


def _rewards(
    stage: GrpoStage,
    reference: Loaded | None,
    batch: Batch,
    items: list[Item],
    grades: list[list[Grade]],
) -> tuple[tuple[str, ...], tuple[float, ...], RewardParts]:
    """Names, weights and columns: the recipe's rewards, then the soft length penalty and the KL,
    where the stage has them.
    """
    names, weights = list(stage.rewards), list(stage.rewards.values())
    settings = RewardSettings(stage.shape, stage.reward_options, stage.reward_timeout)
    columns = [score(batch.groups, items, grades, names, settings)]
    if stage.overlong_buffer:
        names.append("overlong")
        weights.append(1.0)
        penalty = overlong_penalty(batch.lengths(), stage.max_new_tokens, stage.overlong_buffer)
        columns.append(penalty[..., None])
    if reference is not None and stage.kl_in == "reward":
        names.append("kl")
        weights.append(-stage.beta)
        columns.append(_response_kl(reference, stage, batch)[..., None])
    return tuple(names), tuple(weights), torch.cat(columns, -1)


@torch.no_grad()
def _response_kl(
    reference: Loaded, stage: GrpoStage, batch: Batch
) -> Float[Tensor, "prompts group"]:
    """Σ over a response's tokens of the KL estimate between the sampler and the reference."""
    kl = torch.zeros(batch.lengths().shape)
    with whole(reference.model):
        for part in micro_batches(all_responses(batch), batch, stage):
            theirs, _, mask = forward(reference, stage, batch, part)
            by_token = token_kl(sampler_logprobs(batch, part, mask), theirs, stage.kl) * mask
            for (i, j), value in zip(part, by_token.sum(1).tolist(), strict=True):
                kl[i, j] = value
    return kl


def _strategy(item: Item, response: str, shape: Template) -> str:
    """The strategy in a response's reasoning, wherever its template puts that."""
    return tasks.get(item.task).strategy(f"<think> {thought(response, shape)} </think>")


def _embeddings(embed: Embed, texts: list[list[str]]) -> Float[Tensor, "prompts group dimensions"]:
    flat = embed([segment(text) for row in texts for text in row])
    return flat.view(len(texts), len(texts[0]), -1)
