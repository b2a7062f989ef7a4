"""A finished trajectory in words and tables, for the command line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from franken.runs import LoadedRun

if TYPE_CHECKING:
    import pandas as pd

Table = tuple[list[str], list[list[str]]]
SHOWN = {  # with a null or not
    "relative_distance": ("‖Δ‖ / ‖W‖", False),
    "straightness": ("straightness", True),
    "rank_one_share": ("rank-1 share", True),
    "linearity": ("R² of c on updates", True),
    "half_change": ("half of it by update", True),
}
NULLS = (
    "In brackets: a walk whose steps are as long as these and have nothing in common. A rank-1 "
    "share or an R² says more than such a walk only where it is above it."
)
Values = dict[str, float]


def values_of(
    rows: "pd.DataFrame", run: str, part: str | None = None, layer: int | None = None
) -> Values:
    """Metric → value of the whole, a part or a layer of one run; what is null is left out."""
    own = rows[(rows["model"] == run) & (rows["component"] == "all")]
    own = own[own["part"].isna() if part is None else own["part"] == part]
    own = own[own["layer"].isna() if layer is None else own["layer"] == layer]
    own = own[own["value"].notna()]
    return {str(m): float(v) for m, v in zip(own["metric"], own["value"], strict=True)}


def layers_of(rows: "pd.DataFrame") -> list[tuple[str, int]]:
    """(part, layer) of every layer that was compared, in order."""
    own = rows[rows["layer"].notna() & (rows["component"] == "all")]
    pairs = dict.fromkeys(zip(own["part"], own["layer"], strict=True))
    return sorted((str(part), int(layer)) for part, layer in pairs)


def run_table(run: LoadedRun) -> Table:
    """A row a run: the whole of it, each number beside its null."""
    body = []
    for record in run.manifest.trajectories:
        values = values_of(run.layers, record.run)
        cells = [_cell(values, metric, null) for metric, (_, null) in SHOWN.items()]
        span = f"{record.updates[0]}..{record.updates[-1]}"
        body.append([record.run, str(len(record.updates)), span, *cells])
    return ["run", "checkpoints", "updates", *(title for title, _ in SHOWN.values())], body


def layer_table(run: LoadedRun, record_of: str) -> Table:
    """A row a layer of one run, each number beside its null."""
    body = []
    for part, layer in layers_of(run.layers):
        values = values_of(run.layers, record_of, part, layer)
        cells = [_cell(values, metric, null) for metric, (_, null) in SHOWN.items()]
        if values.get("distance"):
            body.append([part, str(layer), *cells])
    return ["part", "layer", *(title for title, _ in SHOWN.values())], body


def sentences(run: LoadedRun) -> list[str]:
    """What the nulls are, how alike the runs end, and which layers changed early."""
    said = [NULLS] if len(run.layers) else []
    ends = run.layers[(run.layers["metric"] == "cosine_of_ends") & run.layers["part"].isna()]
    for pair, value in zip(ends["model"], ends["value"], strict=True):
        said.append(f"{pair}: the cosine of both whole updates is {value:.3f}")
    for record in run.manifest.trajectories:
        halves = {
            (part, layer): values["half_change"]
            for part, layer in layers_of(run.layers)
            if "half_change" in (values := values_of(run.layers, record.run, part, layer))
        }
        if len(halves) > 1:
            first, last = min(halves, key=halves.__getitem__), max(halves, key=halves.__getitem__)
            said.append(
                f"{record.run}: half of its change is there by update {halves[first]:.0f} in "
                f"{first[0]} layer {first[1]}, first of all, and by {halves[last]:.0f} in "
                f"{last[0]} layer {last[1]}, last"
            )
    return said


def behaviour_table(table: "pd.DataFrame") -> Table:
    """What is known of the checkpoints' behaviour: a row an update, a column a run and measure."""
    cells: dict[tuple[int, str], str] = {}
    for row in table.itertuples():
        column = f"{row.run} {row.source} {row.metric}"
        cells[int(str(row.update)), column] = _estimate(row.value, row.ci_low, row.ci_high)
    columns = list(dict.fromkeys(column for _, column in cells))
    body = [
        [str(update), *(cells.get((update, column), "-") for column in columns)]
        for update in sorted({update for update, _ in cells})
    ]
    return ["update", *columns], body


def _estimate(value: Any, low: Any, high: Any) -> str:
    known = low is not None and low == low
    return f"{value:.3g}" + (f" [{low:.2f} {high:.2f}]" if known else "")


def _cell(values: Values, metric: str, null: bool) -> str:
    if metric not in values:
        return "-"
    beside = f" ({values[f'{metric}_null']:.3g})" if null and f"{metric}_null" in values else ""
    return f"{values[metric]:.3g}{beside}"


def shown_runs(run: LoadedRun) -> Sequence[str]:
    """The names of the runs, in order."""
    return [record.run for record in run.manifest.trajectories]
