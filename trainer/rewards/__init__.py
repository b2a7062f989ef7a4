"""What RL is paid for: pure functions (replies, rows, context) → a number a reply, one file each,
named in the recipe.

A recipe gives each a weight (`rewards: {accuracy: 1.0, format: 0.1}`), options where it has some,
and adds them up; every one is logged alone. `package.module:function` names one of your own. The
six designs of arXiv 2601.00215 and `fidelity` come with the template that they pay for.
"""

import importlib
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from franken import plugins
from franken.errors import FrankenError, UsageError, did_you_mean
from franken.generate.native import Response
from franken.tasks import Grade, Item
from trainer.rewards.accuracy import accuracy
from trainer.rewards.confidence import confidence
from trainer.rewards.context import Context, Reward
from trainer.rewards.continuous import continuous
from trainer.rewards.correct import correct
from trainer.rewards.fidelity import fidelity
from trainer.rewards.format import format
from trainer.rewards.mixture import mixture
from trainer.rewards.no_accuracy import no_accuracy
from trainer.rewards.only_accuracy import only_accuracy
from trainer.rewards.repetition import repetition
from trainer.rewards.router import router
from trainer.rewards.vanilla import vanilla
from trainer.rewards.visual_fusion import visual_fusion
from trainer.templates import template

REWARDS: dict[str, Reward] = {
    "accuracy": accuracy,
    "correct": correct,
    "format": format,
    "vanilla": vanilla,
    "only_accuracy": only_accuracy,
    "mixture": mixture,
    "continuous": continuous,
    "visual_fusion": visual_fusion,
    "no_accuracy": no_accuracy,
    "fidelity": fidelity,
    "router": router,
    "repetition": repetition,
    "confidence": confidence,
}
PAYS_FOR = {  # the template that a reward belongs to; the others pay in any
    "vanilla": "think-answer",
    "only_accuracy": "answer",
    "mixture": "describe-think-rethink-answer",
    "continuous": "describe-think-rethink-answer",
    "no_accuracy": "describe-think-rethink-answer",
    "visual_fusion": "visual-think-answer",
    "fidelity": "describe-think-answer",
}
SHOWN = 120  # characters of a reply in an error


class RewardError(FrankenError):
    """A reward failed on a sample. The run has stopped before the step's update and can go on from
    there.
    """


@dataclass(frozen=True)
class Settings:
    """How a stage's rewards are computed. `timeout` in seconds, for one reward over one group."""

    template: str
    options: Mapping[str, Mapping[str, Any]]
    timeout: float = 60.0


def check_names(names: Sequence[str]) -> None:
    """Raises UsageError for a reward that does not exist, or cannot be imported."""
    for name in names:
        resolve(name)


def resolve(name: str) -> Reward:
    """A reward by name, built in or of a plugin, or one of the user's as `package.module:function`.
    Raises UsageError.
    """
    own = plugins.find("reward", name, REWARDS)
    if own is not None:
        return own
    if name in REWARDS:
        return REWARDS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UsageError(
            f"unknown reward {name!r}",
            why=f"the rewards are {', '.join([*REWARDS, *plugins.names('reward')])}, or your own as package.module:function",
            fix=did_you_mean(name, REWARDS) or "pick one",
        )
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as e:
        raise UsageError(
            f"cannot import the reward {name}", why=str(e), fix="check the name and PYTHONPATH"
        ) from e


def score(
    groups: Sequence[Sequence[Response]],
    items: Sequence[Item],
    grades: Sequence[Sequence[Grade]],
    names: Sequence[str],
    settings: Settings,
) -> Float[Tensor, "prompts group rewards"]:
    """One column a reward, before any weight.

    Raises RewardError that names the reward and the sample where a reward raises, is late, or
    returns no finite numbers.
    """
    columns = []
    for name in names:
        table = [
            _of_group(name, resolve(name), replies, item, verdicts, settings)
            for replies, item, verdicts in zip(groups, items, grades, strict=True)
        ]
        columns.append(torch.tensor(table, dtype=torch.float32))
    return torch.stack(columns, -1)


def _of_group(
    name: str,
    reward: Reward,
    replies: Sequence[Response],
    item: Item,
    grades: Sequence[Grade],
    settings: Settings,
) -> list[float]:
    options = dict(settings.options.get(name, {}))

    def call(chosen: Sequence[int]) -> list[float]:
        context = Context(template(settings.template), [grades[i] for i in chosen], options)
        return [
            float(x) for x in reward([replies[i] for i in chosen], [item] * len(chosen), context)
        ]

    values = _attempt(lambda: call(range(len(replies))), settings.timeout)
    if isinstance(values, Exception):
        raise RewardError(
            f"the reward {name} failed on {item.id}",
            why=f"{type(values).__name__}: {values}; {_culprit(call, replies, values, settings.timeout)}",
            fix="mend the reward and run the same command: it goes on from the last update",
        ) from values
    if len(values) != len(replies) or not all(math.isfinite(value) for value in values):
        raise RewardError(
            f"the reward {name} returned no number for each of {len(replies)} replies to {item.id}",
            why=f"it returned {values}",
        )
    return values


def _culprit(
    call: Callable[[Sequence[int]], list[float]],
    replies: Sequence[Response],
    error: Exception,
    timeout: float,
) -> str:
    """Which reply a reward fails on by itself; a reward that only fails on the group, or hangs, is
    not asked again.
    """
    for i, reply in enumerate(replies if not isinstance(error, TimeoutError) else ()):
        if isinstance(_attempt(lambda i=i: call([i]), timeout), Exception):
            return f"reply {i}: {reply.text[:SHOWN]!r}"
    return f"on all {len(replies)} replies together"


def _attempt(call: Callable[[], list[float]], seconds: float) -> list[float] | Exception:
    """What the call returns or raises; TimeoutError after `seconds` (the thread stays behind:
    Python cannot stop one).
    """
    outcome: list[list[float] | Exception] = [RuntimeError("it ended the thread that it ran in")]

    def work() -> None:
        try:
            outcome[0] = call()
        except Exception as e:  # noqa: BLE001 - a reward may be anyone's code: whatever it raises is reported, with the sample
            outcome[0] = e

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return TimeoutError(f"no answer within {seconds:g} s") if thread.is_alive() else outcome[0]
