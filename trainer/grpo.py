"""One RL step: sample groups (trainer/rollout.py), reward, estimate advantages, update.

A response whose advantage is zero moves nothing unless a KL or an entropy bonus does; it is then
left out of the update, not out of the denominator. Over several processes, each has its groups, and
all know the sums of the step before any backward.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from franken import tasks
from franken.errors import FrankenError
from franken.evaluate.embed import Embed, embedder, segment
from franken.models.loading import Loaded
from franken.tasks import Grade, Item
from trainer.algorithms.corrections import overlong_penalty, sampler_correction, token_kl
from trainer.algorithms.groups import Groups, estimate
from trainer.algorithms.losses import LOSSES, global_totals, policy_loss, row_weights
from trainer.collectives import all_gather, all_reduce_max, all_reduce_sum, on_every_process
from trainer.diagnostics import reward_metrics
from trainer.distributed import rank
from trainer.packing import as_rows, by_budget, pack, packed_logprobs, token_mask
from trainer.policy import response_logprobs, take_rows
from trainer.rewards import RewardSettings, score
from trainer.rollout import Batch, draw
from trainer.sharding import check_in_step, inside, is_sharded, whole
from trainer.stages import GrpoStage
from trainer.templates import Template, template, thought, well_formed

Index = tuple[int, int]  # (prompt, response) of a step


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
) -> dict[str, float]:
    """Sample, reward, and call `optimizer_step()` once per inner step (`trainer.steps.StageStep`).

    Of the metrics, `entropy` is that of the tokens that trained; `sampled_entropy`, the mean −log p
    of all that were sampled, estimates it where nothing trains too. Raises FrankenError where the
    loss is not finite.
    """
    rollout = draw(loaded, stage, seed=seed, step=step)
    items, batch, grades = rollout.items, rollout.batch, rollout.grades
    if not any(rollout.places):
        return {"loss": 0.0, "grad_norm": 0.0, **rollout.counts}
    names, weights, rewards = on_every_process(
        lambda: _rewards(stage, reference, batch, items, grades)
    )
    texts = [[r.text for r in group] for group in batch.groups]
    shape = template(stage.shape)
    own = Groups(
        texts=texts,
        correct=torch.tensor(
            [
                [g.score == 1.0 and well_formed(t, shape) for g, t in zip(*both, strict=True)]
                for both in zip(grades, texts, strict=True)
            ]
        ),
        lengths=batch.lengths(),
        truncated=torch.tensor([[r.truncated for r in group] for group in batch.groups]),
        reward_names=names,
        reward_weights=weights,
        embed=lambda: _embeddings(embed or embedder(stage.embedder, device=loaded.device), texts),
        seed=seed,
        step=step,
        progress=progress,
    )
    right = torch.tensor([[g.score == 1.0 for g in group] for group in grades])
    mine = rollout.places[rank()]
    strategies = [
        len({_strategy(i, t, shape) for t in row})
        for i, row in zip(items[: len(mine)], texts, strict=False)
        if tasks.is_puzzle(i.task)
    ]
    groups, rewards, right = _of_all_ranks(own, rewards, right, rollout.places)
    estimated = estimate(stage.advantage, rewards, groups)
    paid = groups.total(rewards)
    surprise, found, asked = all_reduce_sum(
        [
            -sum(sum(r.logprobs) for row in batch.groups[: len(mine)] for r in row),
            sum(strategies),
            len(strategies),
        ]
    )
    return {
        **_update(loaded, stage, optimizer_step, reference, batch, own, estimated.advantages, mine),
        **{f"reward_{name}": rewards[..., f].mean().item() for f, name in enumerate(names)},
        "sampled_entropy": surprise / groups.lengths.sum().item(),
        "reward": paid.mean().item(),
        "zero_variance_groups": (estimated.advantages == 0).flatten(1).all(1).float().mean().item(),
        "length": groups.lengths.sum().item() / groups.lengths.numel(),
        "truncated": groups.truncated.sum().item() / groups.truncated.numel(),
        **({"strategies": found / asked} if asked else {}),
        "correct": right.float().mean().item(),
        **reward_metrics(names, rewards, paid, right, groups.texts, shape),
        **estimated.metrics,
        **rollout.counts,
    }


def _of_all_ranks(
    groups: Groups, rewards: Tensor, right: Tensor, places: list[list[int]]
) -> tuple[Groups, Tensor, Tensor]:
    """What an estimator looks at, of the whole step and in its order: a batch's spread, or a random
    partition, is the same on any ranks. Only texts and numbers travel; embeddings are made where
    the texts are, and only if the estimator asks.
    """
    count = len(places[rank()])
    columns = (groups.correct, groups.lengths, groups.truncated, rewards, right)
    parts = all_gather((groups.texts[:count], *(column[:count] for column in columns)))
    rows, *found = zip(*parts, strict=True)
    at = torch.tensor([place for part in places for place in part]).argsort()
    correct, lengths, truncated, everything, hits = (torch.cat(column)[at] for column in found)
    texts = [row for part in rows for row in part]
    joined = replace(
        groups,
        texts=[texts[i] for i in at],
        correct=correct,
        lengths=lengths,
        truncated=truncated,
        embed=lambda: torch.cat(all_gather(groups.embed()[:count]))[at],
    )
    return joined, everything, hits


def _rewards(
    stage: GrpoStage,
    reference: Loaded | None,
    batch: Batch,
    items: list[Item],
    grades: list[list[Grade]],
) -> tuple[tuple[str, ...], tuple[float, ...], Float[Tensor, "prompts group rewards"]]:
    """Names, weights and columns: the recipe's rewards, then the soft length penalty and the KL
    where asked for.
    """
    names, weights = list(stage.rewards), list(stage.rewards.values())
    settings = RewardSettings(stage.shape, stage.reward_options, stage.reward_timeout)
    columns = [score(batch.groups, items, grades, names, settings)]
    if stage.overlong_buffer:
        names.append("overlong")
        weights.append(1.0)
        columns.append(
            overlong_penalty(batch.lengths(), stage.max_new_tokens, stage.overlong_buffer)[
                ..., None
            ]
        )
    if reference is not None and stage.kl_in == "reward":
        names.append("kl")
        weights.append(-stage.beta)
        columns.append(_response_kl(reference, stage, batch)[..., None])
    return tuple(names), tuple(weights), torch.cat(columns, -1)


def _strategy(item: Item, reply: str, shape: Template) -> str:
    """The strategy in a reply's reasoning, wherever its template puts that."""
    return tasks.get(item.task).strategy(f"<think> {thought(reply, shape)} </think>")


@torch.no_grad()
def _response_kl(
    reference: Loaded, stage: GrpoStage, batch: Batch
) -> Float[Tensor, "prompts group"]:
    """Σ over a response's tokens of the KL estimate between the sampler and the reference."""
    found = torch.zeros(batch.lengths().shape)
    with whole(reference.model):
        for part in _micro_batches(list(_every(batch)), batch, stage):
            theirs, _, mask = _forward(reference, stage, batch, part)
            sums = (token_kl(_sampled(batch, part, mask), theirs, stage.kl) * mask).sum(1)
            for (i, j), value in zip(part, sums.tolist(), strict=True):
                found[i, j] = value
    return found


def _update(
    loaded: Loaded,
    stage: GrpoStage,
    optimizer_step: Callable[[], float],
    reference: Loaded | None,
    batch: Batch,
    groups: Groups,
    advantages: Tensor,
    places: list[int],
) -> dict[str, float]:
    """`inner_steps` passes over the samples; the denominators are those of the whole step, known
    before any backward.

    `places` are this rank's groups among `advantages`, which are of all ranks.
    """
    in_loss = reference if stage.kl_in == "loss" else None
    lengths = groups.lengths * ~groups.truncated if stage.mask_truncated else groups.lengths
    rows, tokens = global_totals(lengths[: len(places)].flatten())
    weights = row_weights(
        lengths.flatten(),
        LOSSES.get(stage.loss.name).aggregation,
        max_tokens=stage.max_new_tokens,
        rows=rows,
        tokens=tokens,
    ).view(lengths.shape)
    idle_shape = (1, stage.group, int(lengths.max()))[
        : advantages.ndim
    ]  # with no group, a rank runs one for nothing
    advantages = advantages[places] if places else advantages.new_zeros(idle_shape)
    moves = (advantages != 0) if advantages.ndim == 2 else (advantages != 0).any(-1)
    if in_loss is not None or stage.entropy_bonus:
        moves = torch.ones_like(moves)
    kept = [(i, j) for i, j in _every(batch) if places and moves[i, j] and lengths[i, j]]
    parts = _micro_batches(kept, batch, stage)
    idle = _idle_parts(loaded, batch, len(parts))
    parts += idle
    busy = all_reduce_max(len(kept)) > 0
    old: dict[int, Tensor] = {}  # log-probabilities before the first update, by micro-batch
    totals = {"loss": 0.0, "entropy": 0.0, "kl": 0.0, "grad_norm": 0.0, "clipped": 0.0}
    for inner in range(stage.inner_steps if busy else 0):
        for number, part in enumerate(parts):
            logprobs, entropy, mask = _forward(
                loaded, stage, batch, part, entropy_grad=stage.entropy_bonus > 0
            )
            mask = mask & (number < len(parts) - len(idle))
            if inner == 0:
                old[number] = logprobs.detach()
            metrics = _backward(
                stage,
                in_loss,
                batch,
                part,
                logprobs,
                entropy,
                mask,
                _rows_of(advantages, part, mask),
                _rows_of(weights, part, mask),
                old[number],
                tokens,
            )
            for name, value in metrics.items():
                totals[name] += value / stage.inner_steps
        totals["grad_norm"] = optimizer_step()
    sums = ("loss", "entropy", "kl", "clipped")
    *values, seen = all_reduce_sum(
        [*(totals[name] for name in sums), float(sum(lengths[i, j] for i, j in kept))]
    )
    totals |= dict(zip(sums, values, strict=True))
    return {**totals, **{name: totals[name] / max(seen, 1.0) for name in sums[1:]}}


def _idle_parts(loaded: Loaded, batch: Batch, busy: int) -> list[list[Index]]:
    """What a rank with fewer micro-batches than another runs again, for nothing, so that sharded
    layers run in step.
    """
    if not is_sharded(loaded.model):
        return []
    check_in_step(loaded.model, [batch.encoded.images.pixel_values is not None])
    return [[(0, 0)]] * (all_reduce_max(busy) - busy)


def _backward(
    stage: GrpoStage,
    reference: Loaded | None,
    batch: Batch,
    part: list[Index],
    logprobs: Tensor,
    entropy: Tensor,
    mask: Tensor,
    advantages: Tensor,
    weights: Tensor,
    before: Tensor,
    tokens: int,
) -> dict[str, float]:
    sampled = _sampled(batch, part, mask).to(logprobs)
    old = None
    if stage.inner_steps > 1:  # with one inner step the policy is the sampler and the ratio is one
        old = sampled if stage.importance == "none" else before
    by_token, clipped = policy_loss(
        LOSSES.get(stage.loss.name),
        logprobs,
        advantages,
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
            theirs, _, _ = _forward(reference, stage, batch, part)
        kl_by_token = token_kl(logprobs, theirs, stage.kl) * mask
        by_token, kl = by_token + stage.beta * kl_by_token, kl_by_token.sum()
    loss = (by_token.sum(1) * weights).sum()
    if stage.entropy_bonus:
        loss = loss - stage.entropy_bonus * (entropy * mask).sum() / tokens
    if not torch.isfinite(loss):
        raise FrankenError(
            f"the loss is {loss.item()}", why="training diverged", fix="lower the learning rate"
        )
    loss.backward()
    return {
        "loss": loss.item(),
        "entropy": (entropy.detach() * mask).sum().item(),
        "kl": kl.item(),
        "clipped": float(clipped.sum()),
    }


def _forward(
    loaded: Loaded, stage: GrpoStage, batch: Batch, part: list[Index], *, entropy_grad: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and mask `[rows, tokens]` of some responses."""
    responses = [batch.groups[i][j].ids for i, j in part]
    if stage.packed:
        row = pack(loaded, batch.encoded, part[0][0], responses)
        found = inside(
            loaded.model,
            lambda: packed_logprobs(loaded, row, stage.temperature, entropy_grad=entropy_grad),
        )
        logprobs, entropy = (as_rows(row, values, len(part)) for values in found)
        return logprobs, entropy, token_mask(row, len(part))
    rows = take_rows(loaded, batch.encoded, [i for i, _ in part], responses)
    logprobs, entropy = inside(
        loaded.model,
        lambda: response_logprobs(loaded, rows, stage.temperature, entropy_grad=entropy_grad),
    )
    return logprobs, entropy, rows.mask


def _every(batch: Batch) -> list[Index]:
    return [(i, j) for i, group in enumerate(batch.groups) for j in range(len(group))]


def _micro_batches(kept: list[Index], batch: Batch, stage: GrpoStage) -> list[list[Index]]:
    """What goes through the model together: packed rows, or padded ones sorted by length, so that
    little is padding.
    """
    size = {(i, j): len(batch.groups[i][j].ids) for i, j in kept}
    if stage.packed:
        return [
            row
            for i in range(len(batch.groups))
            for row in _packed_rows([x for x in kept if x[0] == i], batch, stage)
        ]
    by_length = sorted(kept, key=lambda ij: size[ij])
    if not stage.token_budget:
        return [
            by_length[i : i + stage.micro_rows] for i in range(0, len(by_length), stage.micro_rows)
        ]
    prompt = batch.encoded.tokens
    parts: list[list[Index]] = []
    for index in by_length:  # the longest so far is the width of the micro-batch
        if not parts or (len(parts[-1]) + 1) * (prompt + size[index]) > stage.token_budget:
            parts.append([])
        parts[-1].append(index)
    return parts


def _packed_rows(members: list[Index], batch: Batch, stage: GrpoStage) -> list[list[Index]]:
    """One group as one row, or as few as the token budget allows; the prompt is repeated in each."""
    if not members or not stage.token_budget:
        return [members] if members else []
    prompt = batch.encoded.slice([members[0][0]]).trim().tokens
    rows = by_budget(prompt, [len(batch.groups[i][j].ids) for i, j in members], stage.token_budget)
    return [[members[at] for at in row] for row in rows]


def _sampled(batch: Batch, part: list[Index], mask: Tensor) -> Tensor:
    """The sampler's log-probabilities, padded as `mask`."""
    width = mask.shape[1]
    rows = [batch.groups[i][j].logprobs for i, j in part]
    return torch.tensor([row + [0.0] * (width - len(row)) for row in rows], device=mask.device)


def _rows_of(values: Tensor, part: list[Index], mask: Tensor) -> Tensor:
    """`[prompts, group]` or `[prompts, group, tokens]` → the same for some rows, cut to the mask's
    width.
    """
    picked = torch.stack([values[i, j] for i, j in part]).to(mask.device)
    return picked if picked.ndim == 1 else picked[:, : mask.shape[1]]


def _embeddings(embed: Embed, texts: list[list[str]]) -> Float[Tensor, "prompts group dimensions"]:
    flat = embed([segment(text) for row in texts for text in row])
    return flat.view(len(texts), len(texts[0]), -1)
