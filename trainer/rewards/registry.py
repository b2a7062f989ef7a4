"""What a reward is: a function of the responses to one prompt, registered under a name."""

from collections.abc import Sequence
from dataclasses import dataclass

from franken.tasks import Grade
from trainer.registry import Method, Registry
from trainer.templates import Template


@dataclass(frozen=True)
class Context:
    """What a reward sees beside the responses and their items: the `template` that was requested,
    and `grades[i]`, the verdict on response i.
    """

    template: Template
    grades: Sequence[Grade]


@dataclass(frozen=True)
class Reward(Method):
    """`(responses, their items, context, parameters…) → a number a response`. Pure: the same input
    gives the same numbers. `template` is the one that it pays for; empty for those that pay in any.
    """

    template: str = ""


REWARDS = Registry("reward", Reward, passed=3)
