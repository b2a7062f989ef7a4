"""A row of layers.parquet: one measurement, with its interval, n and adjusted p."""

from typing import TypedDict, Unpack


class LayerRow(TypedDict, total=False):
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


def layer_row(**values: Unpack[LayerRow]) -> LayerRow:
    """A row of layers.parquet; what is not given is null. Raises ValueError for another column."""
    unknown = set(values) - set(LAYER_COLUMNS)
    if unknown:
        raise ValueError(f"not columns of layers.parquet: {sorted(unknown)}")
    row = LayerRow(**dict.fromkeys(LAYER_COLUMNS))  # pyright: ignore[reportArgumentType]
    return row | LayerRow(component="all") | values
