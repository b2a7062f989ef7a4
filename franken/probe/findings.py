"""What the rows of layers.parquet say in words: peaks, and means over tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from franken import stats

if TYPE_CHECKING:
    import pandas as pd

WHOLE = "all"  # the component, or the task, of a total


def select(rows: pd.DataFrame, **where: str) -> pd.DataFrame:
    """The rows with these values in these columns."""
    keep = np.ones(len(rows), bool)
    for column, value in where.items():
        keep &= (rows[column] == value).to_numpy(bool)
    return rows.loc[keep]


def of_decoder(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of decoder layers, not those of the tower or the projector."""
    return rows.loc[rows["part"] == "text"] if "part" in rows else rows


def curve(rows: pd.DataFrame, **where: str) -> pd.DataFrame:
    """The rows with these values that are a layer's total, not those of its heads or tokens."""
    chosen = select(rows, component=WHOLE, **where)
    return chosen.loc[chosen["layer"].notna()]


def task_names(rows: pd.DataFrame) -> list[str]:
    """The tasks of some rows in their order, without `all`."""
    return [t for t in dict.fromkeys(rows["task"]) if t is not None and t != WHOLE]


def pool_tasks(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean over tasks per layer, with the interval of a mean of independent estimates (from the
    tasks' intervals). Columns: layer, value, ci_low, ci_high, n.
    """
    import pandas as pd

    pooled = []
    known = rows.loc[(rows["task"] != WHOLE) & rows["value"].notna()]
    for layer, part in known.groupby("layer"):
        intervals = part[["value", "ci_low", "ci_high"]].to_numpy(float)
        mean = stats.pool([stats.Estimate(*interval) for interval in intervals])
        pooled.append((layer, *mean, int(part["n"].sum())))
    return pd.DataFrame(pooled, columns=["layer", "value", "ci_low", "ci_high", "n"])


def peak(rows: pd.DataFrame) -> list[int]:
    """The layers whose 95 % interval overlaps that of the layer with the highest value: the best
    layer alone is mostly noise. Empty without rows.
    """
    if not len(rows):
        return []
    best = rows.iloc[int(rows["value"].to_numpy(float).argmax())]
    lowest = best["value"] if np.isnan(best["ci_low"]) else best["ci_low"]
    near = rows["ci_high"].fillna(rows["value"]) >= lowest
    return sorted(int(i) for i in rows.loc[near, "layer"])
