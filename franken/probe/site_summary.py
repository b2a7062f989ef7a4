"""From rows of attention, patching and lens to means per layer with intervals, over pairs (percentile bootstrap)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from franken.runs import layer_row
from franken.stats import bootstrap_mean

Row = Mapping[str, Any]


def summarise_attention(head: Row, layer: int, cell: Sequence[Row]) -> list[dict[str, Any]]:
    """One layer: `attention_mass`, `attention_per_pair` (mass / visual tokens), and every head's mass as a component."""
    masses = [r["mass"] for r in cell]
    rows = [mean_row(head, layer, "attention_mass", masses)]
    rows.append(mean_row(head, layer, "attention_per_pair", [r["mass"] / r["n_vision"] for r in cell]))
    heads = np.array([list(r["head_mass"]) for r in cell]).T
    return rows + [mean_row(head, layer, "attention_mass", values, f"head {i}") for i, values in enumerate(heads)]


def mean_row(head: Row, layer: int, metric: str, values: Any, component: str = "all") -> dict[str, Any]:
    """The mean of one value a pair, with its interval; null values and n = 0 without data."""
    value, low, high = bootstrap_mean(values)
    known = {"value": value, "ci_low": low, "ci_high": high} if len(values) else {}
    return layer_row(**head, layer=int(layer), metric=metric, component=component, n=len(values), **known)
