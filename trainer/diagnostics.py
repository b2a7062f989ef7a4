"""Does RL reward what it should? Metrics beside the rewards, and a check of a finished log.

The reward paper (arXiv 2601.00215) compares designs by accuracy alone. Two things show earlier that
a design misleads: groups that differ in format only (a normalised advantage blows a difference of
0.01 up to one), and a reward that rises while correctness falls.
"""

import math
from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from franken.runs.training import Update
from trainer.algorithms.groups import Metrics
from trainer.rewards.designs import sentences
from trainer.templates import Template, section, thought

WINDOW = 10  # updates
WATCHED = ["reward", "correct"]


def reward_metrics(
    names: Sequence[str],
    rewards: Float[Tensor, "prompts group rewards"],
    total: Float[Tensor, "prompts group"],
    right: Bool[Tensor, "prompts group"],
    texts: Sequence[Sequence[str]],
    shape: Template,
) -> Metrics:
    """`format_only_groups`: share of groups whose total varies while all of it are equally right.
    `sentences`: of the reasoning, mean. `tags`: share of the template's sections that are there.
    `corr_<reward>`: Pearson correlation of each reward with correctness over the step's replies;
    left out where either is constant."""
    varies = (total != total[:, :1]).any(1)
    equally = (right == right[:, :1]).all(1)
    flat = [text for row in texts for text in row]
    metrics = {
        "format_only_groups": (varies & equally).float().mean().item(),
        "sentences": sum(len(sentences(thought(t, shape))) for t in flat) / len(flat),
        "tags": sum(section(t, tag) is not None for t in flat for tag in shape.tags)
        / max(len(flat) * len(shape.tags), 1),
    }
    hits = right.flatten().double()
    for f, name in enumerate(names):
        paid = rewards[..., f].flatten().double()
        if hits.std() > 0 and paid.std() > 0:
            metrics[f"corr_{name}"] = torch.corrcoef(torch.stack([paid, hits]))[0, 1].item()
    return metrics


def hacked(log: Sequence[Update]) -> list[tuple[int, int]]:
    """Spans of updates (first, last) where the reward went up while correctness went down.

    `log` are updates of one stage in order. Two neighbouring windows are
    compared: both changes must be larger than twice their standard error. Spans that touch are one.
    """
    table = pd.DataFrame([update.numbers() for update in log], columns=["update", *WATCHED])
    table = table.dropna()
    spans: list[tuple[int, int]] = []
    for end in range(2 * WINDOW, len(table) + 1):
        before, after = table[end - 2 * WINDOW : end - WINDOW], table[end - WINDOW : end]
        paid, right = (_rise(before[name], after[name]) for name in WATCHED)
        if paid > 2 and right < -2:
            first, last = int(before["update"].iloc[0]), int(after["update"].iloc[-1])
            if spans and first <= spans[-1][1]:
                spans[-1] = (spans[-1][0], last)
            else:
                spans.append((first, last))
    return spans


def _rise(before: pd.Series, after: pd.Series) -> float:
    """The change of the mean, in its standard errors; 0 where nothing varies."""
    one, two = before.astype(float), after.astype(float)
    error = math.sqrt((one.var() + two.var()) / len(one))
    return (two.mean() - one.mean()) / error if error > 0 else 0.0
