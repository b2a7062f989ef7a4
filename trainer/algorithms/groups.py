"""What an advantage is given and what it returns: groups of responses in, estimates out.

An advantage is a function of the rewards `[prompts, group, rewards]` and the `Groups` they belong
to. It returns one number a response, `[prompts, group]`, or one a token with a third dimension, or
an `Estimate` with metrics beside them. Built-in ones register in `ADVANTAGES`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from franken.errors import FrankenError
from trainer.registry import Method, Registry, Settings

EPS = 1e-6
STD_FLOOR = 1e-6

Rewards = Float[Tensor, "prompts group"]
RewardParts = Float[Tensor, "prompts group rewards"]
Embeddings = Float[Tensor, "prompts group dimensions"]
Correct = Bool[Tensor, "prompts group"]
Scale = Literal["group", "batch", "none"]
Metrics = dict[str, float]  # what an update is logged with, by the metric's name
# What several methods declare alike.
StdFloor = Annotated[
    float,
    Field(gt=0, description="smaller spreads are divided by this; keeps λ from cancelling"),
]
AnyScale = Annotated[
    Scale, Field(description="divide by the std of the group, of the batch, or not at all")
]


@dataclass(frozen=True)
class Groups:
    """What an advantage may look at besides the rewards; `[prompts, group]` unless said otherwise.

    `correct` are responses whose answer is right and well-formed; `lengths` counts tokens;
    `embed()` gives unit vectors `[prompts, group, dimensions]` of the reasoning
    (franken/evaluate/embed.py); `step` and `progress` say where the stage is.
    """

    texts: list[list[str]] = field(repr=False)
    correct: Correct
    lengths: Int[Tensor, "prompts group"]
    truncated: Bool[Tensor, "prompts group"]
    reward_names: tuple[str, ...]
    reward_weights: tuple[float, ...]
    embed: Callable[[], Embeddings] = field(repr=False)
    seed: int = 0
    step: int = 0
    progress: float = 0.0

    def total(self, rewards: RewardParts) -> Rewards:
        """The weighted sum of the rewards."""
        weighted = [
            w * part for w, part in zip(self.reward_weights, rewards.unbind(-1), strict=True)
        ]
        return torch.stack(weighted).sum(0)


@dataclass(frozen=True)
class Estimate:
    """Advantages `[prompts, group]` or `[prompts, group, tokens]`, and metrics to log."""

    advantages: Tensor
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Advantage(Method):
    """`reads` says which of `texts` and `correct` it looks at; `at_most_group` names a parameter
    that the size of a group bounds.
    """

    reads: tuple[Literal["texts", "correct"], ...] = ()
    at_most_group: str = ""


ADVANTAGES = Registry("advantage", Advantage, passed=2)


def estimate(settings: Settings, rewards: RewardParts, groups: Groups) -> Estimate:
    """Advantages by the method that a recipe names.

    Raises FrankenError for a result of the wrong shape, or one that is not finite.
    """
    result: Any = ADVANTAGES.get(settings.name)(rewards, groups, **settings.parameters())
    result = result if isinstance(result, Estimate) else Estimate(result)
    advantages, name = result.advantages, settings.name
    shape = tuple(getattr(advantages, "shape", ()))
    if shape[:2] != tuple(groups.lengths.shape) or len(shape) not in (2, 3):
        raise FrankenError(
            f"{name} returned {shape or type(advantages).__name__}",
            why=f"advantages are {tuple(groups.lengths.shape)}, or with tokens as third dimension",
        )
    longest = int(groups.lengths.max())
    if len(shape) == 3 and shape[2] < longest:
        raise FrankenError(
            f"{name} returned advantages for {shape[2]} tokens", why=f"a response has {longest}"
        )
    if not torch.isfinite(advantages).all():
        raise FrankenError(
            f"{name} returned an advantage that is not finite",
            why="inf or nan",
            fix="check its divisors",
        )
    return result


def floating(values: Tensor) -> Tensor:
    """Integers and booleans as float32; floats as they are."""
    return values if values.is_floating_point() else values.float()
