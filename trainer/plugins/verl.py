"""Franken's advantages and losses inside verl (tested with 0.9.1), for runs that need Ray or
asynchronous rollouts.

    VERL_USE_EXTERNAL_MODULES=trainer.plugins.verl python -m verl.trainer.main_ppo
        algorithm.adv_estimator=franken +algorithm.franken.name=rloo                     # group
                                                            rewards are enough
        algorithm.adv_estimator=gdpo +algorithm.franken.name=mupo trainer.use_v1=false   # texts are
                                                            needed
        actor_rollout_ref.actor.policy_loss.loss_mode=franken_gspo

`algorithm.franken` takes the keys of a recipe's `advantage`, and `embedder`, `tokenizer`,
`correct`. verl hands the replies and
what the reward function returned to the estimator called `gdpo` alone, and only in its first
trainer; so that name is ours where `algorithm.franken` is there, and verl's own otherwise. An
estimator is not told the step: λ must be constant.

Advantages and losses per token are the functions that `franken train` uses; adding them up over
tokens, micro-batches and processes stays verl's (`loss_agg_mode`). Freezing is not here: verl
builds its models itself.
"""

import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from franken.errors import FrankenError, UsageError
from franken.evaluate.embed import HASHING, embedder, segment
from trainer.estimators import Advantage, Groups, estimator
from trainer.losses import clipped_tokens, token_loss

LOSSES = {"franken_clip": "dapo", "franken_gspo": "gspo", "franken_cispo": "cispo"}
READS_TEXTS = ("mupo", "dra", "grpo_diversity")
READS_CORRECT = ("mupo", "grpo_diversity", "passk")
ANNEALS = ("mupo", "grpo_diversity")
Pair = tuple[Tensor, Tensor]


def register(core: Any = None) -> None:
    """Enter `franken` and the losses into verl's registries (`verl.trainer.ppo.core_algos`), and
    stand before its gdpo.
    """
    if core is None:
        from verl.trainer.ppo import core_algos as core  # pyright: ignore[reportMissingImports]
    theirs = core.ADV_ESTIMATOR_REGISTRY["gdpo"]
    if getattr(theirs, "before", None):  # registered already
        return

    def gdpo(*args: Any, config: Any = None, **kwargs: Any) -> Pair:
        ours = config is not None and config.get("franken", None)
        return (advantage if ours else theirs)(*args, config=config, **kwargs)

    gdpo.before = theirs
    core.register_adv_est("franken")(advantage)
    core.ADV_ESTIMATOR_REGISTRY["gdpo"] = gdpo
    for name, kind in LOSSES.items():
        core.register_policy_loss(name)(policy_loss(kind, core.agg_loss))


def advantage(
    token_level_rewards: Float[Tensor, "rows tokens"],
    response_mask: Tensor,
    config: Any = None,
    index: Iterable[Any] = (),
    batch: Mapping[str, Tensor] | None = None,
    non_tensor_batch: Mapping[str, Any] | None = None,
    **others: Any,
) -> Pair:
    """Advantages and returns `[rows, tokens]` as verl wants them: rows of one prompt share an
    `index`, in any order.

    Raises UsageError for settings that need what verl did not hand over, FrankenError for groups of
    several sizes.
    """
    settings = dict((config.get("franken", None) if config is not None else None) or {})
    embed, tokenizer, correct = (
        settings.pop(k, d)
        for k, d in (("embedder", HASHING), ("tokenizer", ""), ("correct", "acc"))
    )
    recipe = Advantage(**_plain(settings))
    if recipe.name in ANNEALS and recipe.diversity.shape != "constant":
        raise UsageError(
            "λ cannot be annealed inside verl",
            why="an estimator is not told the step",
            fix="+algorithm.franken.diversity.shape=constant",
        )
    rows = group_rows(index)
    lengths = response_mask.sum(1)[rows].cpu()
    texts = [[""] * rows.shape[1] for _ in rows]
    if recipe.name in READS_TEXTS:
        ids = _asked(
            batch, "responses", "use trainer.use_v1=false and algorithm.adv_estimator=gdpo"
        )
        texts = _texts(ids, response_mask, rows, tokenizer)
    right = torch.zeros(rows.shape, dtype=torch.bool)
    if recipe.name in READS_CORRECT:
        told = _asked(
            non_tensor_batch,
            correct,
            "let the reward function return a dict with it, or set franken.correct",
        )
        right = torch.tensor([float(x) == 1.0 for x in told])[rows]
    totals = (token_level_rewards * response_mask).sum(1)[rows].float().cpu()
    groups = Groups(
        texts=texts,
        correct=right,
        lengths=lengths,
        truncated=torch.zeros_like(right),
        reward_names=("verl",),
        reward_weights=(1.0,),
        seed=zlib.crc32(totals.numpy().tobytes()),
        embed=lambda: embedder(embed)([segment(t) for row in texts for t in row]).view(
            *rows.shape, -1
        ),
    )
    found = estimator(recipe)(totals[..., None], groups).advantages
    flat = torch.zeros_like(token_level_rewards, dtype=torch.float32)
    wide = found if found.ndim == 3 else found[..., None].expand(*found.shape, flat.shape[1])
    flat[rows.flatten(), : wide.shape[2]] = wide.flatten(0, 1).to(flat)[:, : flat.shape[1]]
    flat = flat * response_mask
    return flat, flat


def policy_loss(
    kind: str, aggregate: Callable[..., Tensor]
) -> Callable[..., tuple[Tensor, dict[str, Any]]]:
    """A loss of trainer/losses.py as verl calls them; `aggregate` is verl's `agg_loss`."""

    def loss(
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        if config is None:
            raise UsageError(f"franken's {kind} needs the actor's config", why="verl gave none")
        mask = response_mask.bool()
        low, high = (
            config.clip_ratio if x is None else x
            for x in (config.clip_ratio_low, config.clip_ratio_high)
        )
        dual = None if kind == "cispo" else config.get("clip_ratio_c", None)
        tokens = token_loss(
            log_prob,
            advantages,
            mask,
            kind=kind,
            old_logprobs=old_log_prob,
            clip_low=low,
            clip_high=high,  # pyright: ignore[reportArgumentType]
            dual_clip=dual,
            correction=rollout_is_weights,
        )
        found = aggregate(
            loss_mat=tokens,
            loss_mask=response_mask,
            loss_agg_mode=loss_agg_mode,
            **config.global_batch_info,
        )
        cut = clipped_tokens(
            log_prob.detach(), old_log_prob, advantages, mask, low, high, kind=kind
        )  # pyright: ignore[reportArgumentType]
        return found, {"actor/pg_clipfrac": cut / max(int(mask.sum()), 1)}

    return loss


def group_rows(index: Iterable[Any]) -> Int[Tensor, "prompts group"]:
    """Row numbers by prompt, prompts in the order in which they appear. Raises FrankenError where
    groups differ in size.
    """
    found: dict[Any, list[int]] = {}
    for row, uid in enumerate(index):
        found.setdefault(uid, []).append(row)
    sizes = {len(rows) for rows in found.values()}
    if len(sizes) != 1:
        raise FrankenError(
            f"groups of {sorted(sizes)} responses",
            why="advantages are estimated in groups of one size",
            fix="set rollout.n",
        )
    return torch.tensor(list(found.values()))


def _asked(given: Mapping[str, Any] | None, name: str, fix: str) -> Any:
    if given is None or name not in given:
        raise UsageError(f"verl did not hand over {name!r}", why="this advantage reads it", fix=fix)
    return given[name]


def _texts(ids: Tensor, mask: Tensor, rows: Tensor, tokenizer: str) -> list[list[str]]:
    if not tokenizer:
        raise UsageError(
            "no tokenizer to read replies with",
            fix="+algorithm.franken.tokenizer=FOLDER of the model",
        )
    written = [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]
    texts = _tokenizer(tokenizer).batch_decode(written, skip_special_tokens=True)
    return [[texts[i] for i in group] for group in rows.tolist()]


@cache
def _tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """verl's nested settings as dicts."""
    return {
        k: _plain(v) if isinstance(v, Mapping) or hasattr(v, "items") else v
        for k, v in settings.items()
    }


if "verl" in sys.modules:  # verl itself imports this module; on its own it needs no verl
    register()
