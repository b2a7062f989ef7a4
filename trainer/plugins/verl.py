"""Franken's advantages and losses inside verl (tested with 0.9.1), for runs that need Ray or
asynchronous rollouts.

    VERL_USE_EXTERNAL_MODULES=trainer.plugins.verl python -m verl.trainer.main_ppo
        algorithm.adv_estimator=franken +algorithm.franken.name=rloo     # needs rewards alone
        algorithm.adv_estimator=gdpo +algorithm.franken.name=mupo trainer.use_v1=false   # and texts
        actor_rollout_ref.actor.policy_loss.loss_mode=franken_gspo

`algorithm.franken` takes the keys of a recipe's `advantage`, and `embedder`, `tokenizer`,
`correct`. verl passes the replies and the reward function's extra results to the estimator called
`gdpo` alone, and only in its first trainer; so that name is ours where `algorithm.franken` is set,
and verl's own otherwise. An estimator is not told the step: λ must be constant.

Advantages and losses per token are the functions that `franken train` uses; summing them over
tokens, micro-batches and processes stays verl's (`loss_agg_mode`). Freezing is not here: verl
builds its models itself.
"""

import sys
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from franken.errors import FrankenError, UsageError
from franken.evaluate.embed import HASHING, embedder, segment
from trainer.algorithms import ADVANTAGES, LOSSES, Groups
from trainer.algorithms.diversity import Anneal
from trainer.algorithms.groups import Metrics, estimate
from trainer.algorithms.losses import policy_loss

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOSS_NAMES = {"franken_clip": "dapo", "franken_gspo": "gspo", "franken_cispo": "cispo"}
Pair = tuple[Tensor, Tensor]
Estimator = Callable[..., Pair]
PolicyLoss = Callable[..., tuple[Tensor, Metrics]]


class Config(Protocol):
    """verl's settings: OmegaConf nodes."""

    def get(self, key: str, default: object = None) -> Any: ...


class Core(Protocol):
    """verl.trainer.ppo.core_algos, as far as it is used here."""

    ADV_ESTIMATOR_REGISTRY: dict[str, Estimator]
    agg_loss: Callable[..., Tensor]

    def register_adv_est(self, name: str) -> Callable[[Estimator], Estimator]: ...

    def register_policy_loss(self, name: str) -> Callable[[PolicyLoss], PolicyLoss]: ...


def register(core: Core | None = None) -> None:
    """Enter `franken` and the losses into verl's registries (`verl.trainer.ppo.core_algos`), and
    wrap its gdpo.
    """
    if core is None:
        from verl.trainer.ppo import core_algos as core  # pyright: ignore[reportMissingImports]
    assert core is not None
    theirs = core.ADV_ESTIMATOR_REGISTRY["gdpo"]
    if hasattr(theirs, "before"):  # registered already
        return

    def gdpo(*args: Any, config: Config | None = None, **kwargs: Any) -> Pair:
        ours = config is not None and config.get("franken", None)
        return (advantage if ours else theirs)(*args, config=config, **kwargs)

    gdpo.before = theirs  # pyright: ignore[reportFunctionMemberAccess] - marks it as wrapped
    core.register_adv_est("franken")(advantage)
    core.ADV_ESTIMATOR_REGISTRY["gdpo"] = gdpo
    for name, kind in LOSS_NAMES.items():
        core.register_policy_loss(name)(verl_loss(kind, core.agg_loss))


def advantage(
    token_level_rewards: Float[Tensor, "rows tokens"],
    response_mask: Tensor,
    config: Config | None = None,
    index: Iterable[Hashable] = (),
    batch: Mapping[str, Tensor] | None = None,
    non_tensor_batch: Mapping[str, Sequence[float]] | None = None,
    **others: object,
) -> Pair:
    """Advantages and returns `[rows, tokens]` as verl wants them: rows of one prompt share an
    `index`, in any order.

    Raises UsageError for settings that need what verl did not pass, FrankenError for groups of
    several sizes.
    """
    options = _plain((config.get("franken", None) if config is not None else None) or {})
    embedder_name = options.pop("embedder", HASHING)
    tokenizer, correct_key = options.pop("tokenizer", ""), options.pop("correct", "acc")
    try:
        settings = ADVANTAGES.read(options, default="grpo")
    except ValueError as e:
        raise UsageError("algorithm.franken does not fit", why=str(e)) from e
    method = ADVANTAGES.get(settings.name)
    if any(isinstance(x, Anneal) and x.shape != "constant" for x in settings.parameters().values()):
        raise UsageError(
            "λ cannot be annealed inside verl",
            why="an estimator is not told the step",
            fix="+algorithm.franken.diversity.shape=constant",
        )
    rows = group_rows(index)
    texts = [[""] * rows.shape[1] for _ in rows]
    if "texts" in method.reads:
        if batch is None or "responses" not in batch:
            fix = "use trainer.use_v1=false and algorithm.adv_estimator=gdpo"
            raise _not_passed("responses", fix)
        texts = _texts(batch["responses"], response_mask, rows, tokenizer)
    correct = torch.zeros(rows.shape, dtype=torch.bool)
    if "correct" in method.reads:
        if non_tensor_batch is None or correct_key not in non_tensor_batch:
            fix = "let the reward function return a dict with it, or set franken.correct"
            raise _not_passed(correct_key, fix)
        correct = torch.tensor([float(x) == 1.0 for x in non_tensor_batch[correct_key]])[rows]
    totals = (token_level_rewards * response_mask).sum(1)[rows].float().cpu()
    groups = Groups(
        texts=texts,
        correct=correct,
        lengths=response_mask.sum(1)[rows].cpu(),
        truncated=torch.zeros_like(correct),
        reward_names=("verl",),
        reward_weights=(1.0,),
        seed=zlib.crc32(totals.numpy().tobytes()),
        embed=lambda: embedder(embedder_name)([segment(t) for row in texts for t in row]).view(
            *rows.shape, -1
        ),
    )
    estimated = estimate(settings, totals[..., None], groups).advantages
    flat = torch.zeros_like(token_level_rewards, dtype=torch.float32)
    if estimated.ndim == 2:
        estimated = estimated[..., None].expand(*estimated.shape, flat.shape[1])
    by_row = estimated.flatten(0, 1).to(flat)[:, : flat.shape[1]]
    flat[rows.flatten(), : by_row.shape[1]] = by_row
    flat = flat * response_mask
    return flat, flat


def verl_loss(name: str, aggregate: Callable[..., Tensor]) -> PolicyLoss:
    """A loss of trainer/algorithms/losses.py as verl calls them; `aggregate` is its `agg_loss`."""
    method = LOSSES.get(name)

    def loss(
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        if config is None:
            raise UsageError(f"franken's {name} needs the actor's config", why="verl gave none")
        mask = response_mask.bool()
        low, high = config.clip_ratio_low, config.clip_ratio_high
        clipping = {
            "clip_low": config.clip_ratio if low is None else low,
            "clip_high": config.clip_ratio if high is None else high,
            "dual_clip": config.get("clip_ratio_c", None),
        }
        by_token, clipped = policy_loss(
            method,
            log_prob,
            advantages,
            mask,
            {key: clipping[key] for key in method.shared},
            old_logprobs=old_log_prob,
            correction=rollout_is_weights,
        )
        total = aggregate(
            loss_mat=by_token,
            loss_mask=response_mask,
            loss_agg_mode=loss_agg_mode,
            **config.global_batch_info,
        )
        return total, {"actor/pg_clipfrac": float(clipped.sum()) / max(int(mask.sum()), 1)}

    return loss


def group_rows(index: Iterable[Hashable]) -> Int[Tensor, "prompts group"]:
    """Row numbers by prompt, prompts in the order in which they appear. Raises FrankenError where
    groups differ in size.
    """
    by_prompt: dict[Hashable, list[int]] = {}
    for row, uid in enumerate(index):
        by_prompt.setdefault(uid, []).append(row)
    sizes = {len(rows) for rows in by_prompt.values()}
    if len(sizes) != 1:
        raise FrankenError(
            f"groups of {sorted(sizes)} responses",
            why="advantages are estimated in groups of one size",
            fix="set rollout.n",
        )
    return torch.tensor(list(by_prompt.values()))


def _not_passed(name: str, fix: str) -> UsageError:
    return UsageError(f"verl did not hand over {name!r}", why="this advantage reads it", fix=fix)


def _texts(ids: Tensor, mask: Tensor, rows: Tensor, tokenizer: str) -> list[list[str]]:
    if not tokenizer:
        raise UsageError(
            "no tokenizer to read replies with",
            fix="+algorithm.franken.tokenizer=FOLDER of the model",
        )
    responses = [row[own.bool()].tolist() for row, own in zip(ids, mask, strict=True)]
    texts = _tokenizer(tokenizer).batch_decode(responses, skip_special_tokens=True)
    return [[texts[i] for i in group] for group in rows.tolist()]


@cache
def _tokenizer(folder: str) -> "PreTrainedTokenizerBase":
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
