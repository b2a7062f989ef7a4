"""Does RL reward what it should? Metrics beside the rewards, and a check of a finished log.

The reward paper (arXiv 2601.00215) compares designs by accuracy alone. Two things show earlier that
a design misleads: groups that differ in format only (a normalised advantage blows a difference of
0.01 up to one), and a reward that rises while correctness falls.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trainer.rewards.designs import sentences
from trainer.templates import Template, section, thought

WINDOW = 10  # updates


def reward_metrics(
    names: Sequence[str],
    rewards: Float[Tensor, "prompts group rewards"],
    total: Float[Tensor, "prompts group"],
    right: Bool[Tensor, "prompts group"],
    texts: Sequence[Sequence[str]],
    shape: Template,
) -> dict[str, float]:
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
        / (len(flat) * len(shape.tags)),
    }
    hits = right.flatten().double()
    for f, name in enumerate(names):
        paid = rewards[..., f].flatten().double()
        if hits.std() > 0 and paid.std() > 0:
            metrics[f"corr_{name}"] = torch.corrcoef(torch.stack([paid, hits]))[0, 1].item()
    return metrics


def hacked(log: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Spans of updates (first, last) where the reward went up while correctness went down.

    `log` are lines of metrics.jsonl, of one stage and in order. Two neighbouring windows are
    compared: both changes must be larger than twice their standard error. Spans that touch are one.
    """
    rows = [row for row in log if "reward" in row and "correct" in row]
    spans: list[tuple[int, int]] = []
    for end in range(2 * WINDOW, len(rows) + 1):
        before, after = rows[end - 2 * WINDOW : end - WINDOW], rows[end - WINDOW : end]
        if _rise(before, after, "reward") > 2 and _rise(before, after, "correct") < -2:
            first, last = int(before[0]["update"]), int(after[-1]["update"])
            if spans and first <= spans[-1][1]:
                spans[-1] = (spans[-1][0], last)
            else:
                spans.append((first, last))
    return spans


def _rise(
    before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]], key: str
) -> float:
    """The change of the mean, in its standard errors; 0 where nothing varies."""
    one, two = (
        torch.tensor([row[key] for row in rows], dtype=torch.float64) for rows in (before, after)
    )
    error = ((one.var() + two.var()) / len(one)).sqrt()
    return float((two.mean() - one.mean()) / error) if error > 0 else 0.0
