"""What RL is paid for. Each reward is a pure function of the replies' grades → one number a reply, by name."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from franken.errors import UsageError, did_you_mean
from franken.tasks import Grade

Reward = Callable[[Grade], float]


def accuracy(grade: Grade) -> float:
    """1 for a right answer in the right format, else 0."""
    return float(grade.score == 1.0 and grade.well_formed)


def format(grade: Grade) -> float:
    """1 for a well-formed reply, else 0."""
    return float(grade.well_formed)


REWARDS: dict[str, Reward] = {"accuracy": accuracy, "format": format}


def check_names(names: Sequence[str]) -> None:
    """Raises UsageError for a reward that does not exist."""
    for name in names:
        if name not in REWARDS:
            known = ", ".join(REWARDS)
            raise UsageError(
                f"unknown reward {name!r}",
                why=f"the rewards are {known}",
                fix=did_you_mean(name, REWARDS) or "pick one",
            )


def score(grades: Sequence[Sequence[Grade]], names: Sequence[str]) -> Float[Tensor, "prompts group rewards"]:
    """One column a reward, before any weight."""
    check_names(names)
    return torch.stack([torch.tensor([[REWARDS[name](g) for g in group] for group in grades]) for name in names], -1)
