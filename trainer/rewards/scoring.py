"""The rewards of a batch: every reward of the recipe on every group, with a time limit.

A reward may be anyone's code. One that raises, hangs, or returns no finite number for each response
stops the run before the step's update, with the response that it failed on.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from franken.errors import FrankenError
from franken.generate.native import Response
from franken.tasks import Grade, Item
from trainer.rewards.registry import REWARDS, Context
from trainer.templates import template

SHOWN = 120  # characters of a response in an error


class RewardError(FrankenError):
    """A reward failed on a sample. The run has stopped before the step's update and can go on from
    there.
    """


@dataclass(frozen=True)
class RewardSettings:
    """How a stage's rewards are computed: the template, parameters by reward, and the `timeout` in
    seconds for one reward over one group.
    """

    template: str
    options: Mapping[str, Mapping[str, object]]
    timeout: float = 60.0


@dataclass(frozen=True)
class _Group:
    """The responses to one prompt, and one reward to compute for them."""

    name: str
    responses: Sequence[Response]
    item: Item
    grades: Sequence[Grade]
    settings: RewardSettings

    def compute(self, chosen: Sequence[int]) -> list[float]:
        """The reward of some of the responses."""
        options = self.settings.options.get(self.name, {})
        parameters = REWARDS.read({"name": self.name, **options}).parameters()
        context = Context(template(self.settings.template), [self.grades[i] for i in chosen])
        responses, items = [self.responses[i] for i in chosen], [self.item] * len(chosen)
        return [float(x) for x in REWARDS.get(self.name)(responses, items, context, **parameters)]


def score(
    groups: Sequence[Sequence[Response]],
    items: Sequence[Item],
    grades: Sequence[Sequence[Grade]],
    names: Sequence[str],
    settings: RewardSettings,
) -> Float[Tensor, "prompts group rewards"]:
    """One column a reward, before any weight.

    Raises RewardError that names the reward and the sample where a reward raises, is late, or
    returns no finite numbers.
    """
    columns = []
    for name in names:
        table = [
            _values(_Group(name, responses, item, verdicts, settings))
            for responses, item, verdicts in zip(groups, items, grades, strict=True)
        ]
        columns.append(torch.tensor(table, dtype=torch.float32))
    return torch.stack(columns, -1)


def _values(group: _Group) -> list[float]:
    everyone = range(len(group.responses))
    values = _attempt(lambda: group.compute(everyone), group.settings.timeout)
    if isinstance(values, Exception):
        raise RewardError(
            f"the reward {group.name} failed on {group.item.id}",
            why=f"{type(values).__name__}: {values}; {_culprit(group, values)}",
            fix="mend the reward and run the same command: it goes on from the last update",
        ) from values
    if len(values) != len(everyone) or not all(math.isfinite(value) for value in values):
        raise RewardError(
            f"the reward {group.name} returned no number for each of {len(everyone)} replies to "
            f"{group.item.id}",
            why=f"it returned {values}",
        )
    return values


def _culprit(group: _Group, error: Exception) -> str:
    """Which response a reward fails on by itself; a reward that hangs is not called again."""
    for i, response in enumerate(group.responses if not isinstance(error, TimeoutError) else ()):
        if isinstance(_attempt(lambda i=i: group.compute([i]), group.settings.timeout), Exception):
            return f"reply {i}: {response.text[:SHOWN]!r}"
    return f"on all {len(group.responses)} replies together"


def _attempt(call: Callable[[], list[float]], seconds: float) -> list[float] | Exception:
    """What the call returns or raises; TimeoutError after `seconds` (the thread stays behind:
    Python cannot stop one).
    """
    outcome: list[list[float] | Exception] = [RuntimeError("it ended the thread that it ran in")]

    def work() -> None:
        try:
            outcome[0] = call()
        except Exception as e:  # noqa: BLE001 - anyone's code: whatever it raises is reported, with the sample
            outcome[0] = e

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return TimeoutError(f"no answer within {seconds:g} s") if thread.is_alive() else outcome[0]
