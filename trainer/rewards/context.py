"""What a reward sees beside the replies and their rows, and what a reward is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from franken.generate.native import Response
from franken.tasks import Grade, Item
from trainer.templates import Template


@dataclass(frozen=True)
class Context:
    """`template` is the shape asked for; `grades[i]` the verdict on reply i; `options` the
    recipe's, by name.
    """

    template: Template
    grades: Sequence[Grade]
    options: dict[str, Any]


Reward = Callable[[Sequence[Response], Sequence[Item], Context], Sequence[float]]
"""(replies, their rows, context) → a number a reply. Pure: the same input gives the same numbers.
"""
