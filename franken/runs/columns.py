"""What the tables of a run hold, column by column: checked when they are read, so that no other
code meets a table of another kind.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from franken.errors import FrankenError

if TYPE_CHECKING:
    import pandas as pd

DELETE = "delete the run's folder and run its command again"
NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal", "boolean"}
KINDS = {  # pandas' names of what a column's values are, nulls aside
    "name": {"string"},  # never null
    "text": {"string"},
    "number": NUMBERS,
    "rate": NUMBERS,  # from 0 to 1
    "truth": {"boolean", "floating", "integer"},
}
_ANSWER = {  # `franken.evaluate.rows.AnswerRow`
    **dict.fromkeys(("gold", "output", "answer", "reason", "strategy", "kind"), "text"),
    **dict.fromkeys(("draw", "tokens", "steps", "reflections", "references"), "number"),
    **dict.fromkeys(("well_formed", "truncated"), "truth"),
    **dict.fromkeys(("score", "facts_right"), "rate"),
}
_PROBED = {
    **dict.fromkeys(("output", "baseline", "source_output", "question", "gold"), "text"),
    **dict.fromkeys(("layer", "kl", "logit_difference"), "number"),
    **dict.fromkeys(("changed", "task_changed", "to_source"), "truth"),
    **dict.fromkeys(("score", "baseline_score"), "rate"),
}
_SHARED = {
    **dict.fromkeys(("model", "method", "task", "sample"), "name"),
    **dict.fromkeys(("error", "ineligible"), "text"),
}
LAYERS = {
    **dict.fromkeys(("model", "component", "metric"), "name"),
    **dict.fromkeys(("method", "part", "task"), "text"),
    **dict.fromkeys(("layer", "value", "ci_low", "ci_high", "n", "p_adjusted"), "number"),
}
SAMPLES: Mapping[str, Mapping[str, str]] = {  # by verb
    "eval": {**_SHARED, **_ANSWER},
    "forks": {**_SHARED, **_ANSWER},
    "probe": {**_SHARED, **_PROBED},
    "diff": {
        **dict.fromkeys(("method", "tensor", "part", "component", "error"), "text"),
        **dict.fromkeys(("layer", "elements", "unchanged", "energy"), "number"),
    },
    "trajectory": {
        **dict.fromkeys(("method", "tensor", "part", "component", "error"), "text"),
        **dict.fromkeys(("layer", "elements", "start"), "number"),
    },
}


ANSWER = ("model", "method", "task", "sample", "draw")  # what tells answers of a run apart
MEASUREMENT = ("model", "method", "part", "layer", "component", "task", "metric")


def check_once(table: "pd.DataFrame", key: Sequence[str], path: Path) -> None:
    """Raises FrankenError where a table holds a row of one key twice; tables without all of its
    columns are not told apart by it.
    """
    if set(key) <= set(table) and table.duplicated(list(key)).any():
        why = f"two of its rows have one {', '.join(key)}"
        raise FrankenError(f"{path} is damaged", why, DELETE)


def check_table(table: "pd.DataFrame", kinds: Mapping[str, str], path: Path) -> None:
    """Raises FrankenError where a column of a file holds something else than its kind. Readers ask
    for the columns that they need (`LoadedRun.answers`): older runs have fewer.
    """
    from pandas.api.types import infer_dtype

    for name in (name for name in kinds if name in table):
        values = table[name].dropna()
        if kinds[name] == "name" and len(values) < len(table):
            raise FrankenError(f"{path} is damaged", f"its column {name} has gaps", DELETE)
        found = infer_dtype(values) if len(values) else "empty"
        if found not in {*KINDS[kinds[name]], "empty"}:
            why = f"its column {name} holds {found} values, where {kinds[name]} belongs"
            raise FrankenError(f"{path} is damaged", why, DELETE)
        if kinds[name] == "rate" and len(values) and not values.astype(float).between(0, 1).all():
            raise FrankenError(
                f"{path} is damaged", f"its column {name} is not from 0 to 1", DELETE
            )
