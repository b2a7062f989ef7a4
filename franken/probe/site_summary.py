"""From rows of attention, patching and lens to means per layer with intervals, over pairs
(percentile bootstrap).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from franken.runs import layer_row
from franken.stats import bootstrap_mean, holm, sign_flip_test

Row = Mapping[str, Any]
GROUPS = ("system", "image", "question", "answer", "last")  # token groups of patching


def summarise_attention(head: Row, layer: int, cell: Sequence[Row]) -> list[dict[str, Any]]:
    """One layer: `attention_mass`, `attention_per_pair` (mass / visual tokens), and every head's
    mass as a component.
    """
    masses = [r["mass"] for r in cell]
    rows = [mean_row(head, layer, "attention_mass", masses)]
    rows.append(
        mean_row(head, layer, "attention_per_pair", [r["mass"] / r["n_vision"] for r in cell])
    )
    heads = np.array([list(r["head_mass"]) for r in cell]).T
    return rows + [
        mean_row(head, layer, "attention_mass", values, f"head {i}")
        for i, values in enumerate(heads)
    ]


def summarise_patch(head: Row, by_layer: Mapping[int, Sequence[Row]]) -> list[dict[str, Any]]:
    """All layers of one task: `restored` (`lost` for noising) by token group, and by head as
    `image, head 3`.

    p: are the pairs' effects symmetric about 0? (sign flips), Holm over the layers (and heads) of a
    group. Effects of less than 1e-4 are rounding (of a run resumed in rows) and count as none
    there.
    """
    metric = "lost" if head["method"].endswith("-noising") else "restored"
    field = "heads" if "-heads" in head["method"] else "effect"
    rows = []
    for group in (*GROUPS, "all"):
        found, p_values = [], []
        for layer, cell in sorted(by_layer.items()):
            kept = [r[f"{field}_{group}"] for r in cell if r[f"{field}_{group}"] is not None]
            for component, values in _columns(group, kept):
                found.append(mean_row(head, layer, metric, values, component))
                p_values.append(sign_flip_test(np.round(values, 4)) if len(values) else math.nan)
        rows += [row | {"p_adjusted": p} for row, p in zip(found, holm(p_values), strict=True)]
    return rows


def _columns(group: str, effects: Sequence[Any]) -> list[tuple[str, Any]]:
    """(component, a value a pair): the group itself, or each of its heads."""
    if effects and np.ndim(effects[0]):
        return [
            (f"{group}, head {i}", values)
            for i, values in enumerate(np.array([list(e) for e in effects]).T)
        ]
    return [(group, effects)]


def summarise_lens(head: Row, layer: int, cell: Sequence[Row]) -> list[dict[str, Any]]:
    """One layer: `answer_probability`, `entropy` (nats) and `answer_rank` (geometric mean), also at
    the image's tokens.

    Component `all` is where the answer begins. At the component `image` probability and entropy are
    means over the image's tokens and the rank is the best one's. Bootstrap over samples; the rank's
    interval is that of its logarithm.
    """
    rows = []
    for component, prefix in (("all", ""), ("image", "image_")):
        kept = [r for r in cell if r[f"{prefix}p_gold"] is not None]
        for metric, name in (("answer_probability", "p_gold"), ("entropy", "entropy")):
            rows.append(mean_row(head, layer, metric, [r[prefix + name] for r in kept], component))
        rank = mean_row(
            head, layer, "answer_rank", np.log([r[f"{prefix}rank_gold"] for r in kept]), component
        )
        known = {
            name: math.exp(rank[name])
            for name in ("value", "ci_low", "ci_high")
            if rank[name] is not None
        }
        rows.append(rank | known)
    return rows


def mean_row(
    head: Row, layer: int, metric: str, values: Any, component: str = "all"
) -> dict[str, Any]:
    """The mean of one value a pair, with its interval; null values and n = 0 without data."""
    value, low, high = bootstrap_mean(values)
    known = {"value": value, "ci_low": low, "ci_high": high} if len(values) else {}
    return layer_row(
        **head, layer=int(layer), metric=metric, component=component, n=len(values), **known
    )
