"""What hybrids gain over the model that receives, as rows of layers.parquet, and the band that
random layer sets span.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from franken import stats
from franken.evaluate.metrics import estimate_row
from franken.runs.rows import LayerRow

if TYPE_CHECKING:
    import pandas as pd


def gain_rows(
    compared: pd.DataFrame, name: str, label: str, method: str, layer: int | None = None
) -> list[LayerRow]:
    """Rows `<name> <metric>` of a paired comparison; `p_adjusted` is not yet adjusted."""
    return [
        estimate_row(
            label,
            method,
            row["task"],
            f"{name} {row['metric']}",
            stats.Estimate(row["diff"], row["ci_low"], row["ci_high"]),
            row["n"],
            part="text",
            layer=layer,
            p=row["p"],
        )
        for row in compared.to_dict("records")
    ]


def adjust(rows: Sequence[LayerRow], method: str) -> list[LayerRow]:
    """Holm over the rows of `method` of one metric and task; any other row is a test by itself."""
    families: dict[tuple[str | None, ...], list[int]] = {}
    for i, row in enumerate(rows):
        if row["method"] == method:
            families.setdefault((row["metric"], row["task"]), []).append(i)
    adjusted = list(rows)
    for members in families.values():
        values = stats.holm([rows[i]["p_adjusted"] for i in members])
        for i, p in zip(members, values, strict=True):
            adjusted[i] = {**rows[i], "p_adjusted": p}
    return adjusted


def control_band(rows: Sequence[LayerRow]) -> dict[str, dict[str, dict[str, float]]]:
    """Lowest, mean and highest gain over the random sets, by metric and task; empty without any."""
    gains: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["method"] == "random" and row["value"] is not None:
            gains.setdefault((row["metric"], row["task"] or ""), []).append(row["value"])
    band: dict[str, dict[str, dict[str, float]]] = {}
    for (metric, task), values in gains.items():
        band.setdefault(metric, {})[task] = {
            "low": min(values),
            "mean": sum(values) / len(values),
            "high": max(values),
            "n": len(values),
        }
    return band
