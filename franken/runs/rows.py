"""A row of layers.parquet: one measurement, with its interval, n and adjusted p."""

from typing import TypedDict


class RowHead(TypedDict):
    """What the rows of one method on one task have in common."""

    model: str
    method: str
    part: str
    task: str


class LayerRow(TypedDict):
    """`component` is `all` for a layer's total and `task` is `all` for a mean over tasks.

    `layer` is 0-based within `part`; null is what does not apply or was not measured. The interval
    is at 95 %, `n` counts what the value was computed from, `p_adjusted` is Holm-corrected.
    """

    model: str
    method: str | None
    part: str | None
    layer: int | None
    component: str
    task: str | None
    metric: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int | None
    p_adjusted: float | None


LAYER_COLUMNS = tuple(LayerRow.__annotations__)


def layer_row(
    *,
    model: str,
    metric: str,
    method: str | None = None,
    part: str | None = None,
    layer: int | None = None,
    component: str = "all",
    task: str | None = None,
    value: float | None = None,
    ci_low: float | None = None,
    ci_high: float | None = None,
    n: int | None = None,
    p_adjusted: float | None = None,
) -> LayerRow:
    """A row of layers.parquet; what is not given is null."""
    return LayerRow(
        model=model,
        method=method,
        part=part,
        layer=layer,
        component=component,
        task=task,
        metric=metric,
        value=value,
        ci_low=ci_low,
        ci_high=ci_high,
        n=n,
        p_adjusted=p_adjusted,
    )
