"""What the checkpoints of a trajectory do: accuracy, diversity, forks, on the axis of updates.

Read from runs that exist: `franken eval` of the very checkpoints (known by the hash of their
contents, wherever they lie), `franken forks` of the start against them, and the held-out questions
that training itself asked. Nothing is computed here; what was not evaluated has no row.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from franken.runs import LoadedRun, RunSet, TrainingRun

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("run", "update", "source", "metric", "value", "ci_low", "ci_high", "n")
HELD_OUT = "held out"
ALL = "all"


def is_shown(metric: str) -> bool:
    """Whether a measure of an evaluation belongs here: acc@k, diversity, strategies, forks."""
    return metric.startswith("acc@") or metric in ("diversity", "strategies", "fork_share")


def behaviour(run: LoadedRun, runs: RunSet) -> "pd.DataFrame":
    """A row a run of the trajectory, update, source and metric. `source` is `held out`, or the verb
    and the arm.
    """
    import pandas as pd

    rows = [*_evaluated(run, runs), *_held_out(run, runs)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.drop_duplicates(["run", "update", "source", "metric"], keep="first")


def _evaluated(run: LoadedRun, runs: RunSet) -> Iterator[dict[str, Any]]:
    contents = run.manifest.identity.checkpoints
    at: dict[str, list[tuple[str, int]]] = {}
    for record in run.manifest.trajectories:
        at.setdefault(contents["start"], []).append((record.run, 0))
        for update in record.updates:
            at.setdefault(contents[f"{record.run}@{update}"], []).append((record.run, update))
    for other in runs.of("eval", "forks"):
        if other.graft is not None:
            continue
        content = (other.contents or [""])[-1]
        if other.verb == "forks":
            pair = other.manifest.identity.models
            content = pair[-1] if pair[:1] == [contents["start"]] else ""
        for name, update in at.get(content, []):
            rows = other.layers[other.layers["task"] == ALL]
            for row in rows.itertuples():
                if is_shown(str(row.metric)) and str(row.model) in (other.label, str(row.model)):
                    yield {
                        "run": name,
                        "update": update,
                        "source": f"{other.verb}, {row.method}",
                        "metric": row.metric,
                        "value": row.value,
                        "ci_low": row.ci_low,
                        "ci_high": row.ci_high,
                        "n": row.n,
                    }


def _held_out(run: LoadedRun, runs: RunSet) -> Iterator[dict[str, Any]]:
    """What training asked on its way, if its folder is still there, or among the runs."""
    for record in run.manifest.trajectories:
        folder = Path(run.folder / run.manifest.models.get(record.run, ""))
        named = (t for t in runs.training if t.folder.name == folder.name)
        training = TrainingRun(folder)
        training = training if training.exists() else next(named, training)
        for update in training.updates if training.exists() else []:
            for metric, value in (update.held_out or {}).items():
                if metric in ("acc@1", "acc@4") and value is not None:
                    yield {
                        "run": record.run,
                        "update": update.update,
                        "source": HELD_OUT,
                        "metric": metric,
                        "value": value,
                        "ci_low": None,
                        "ci_high": None,
                        "n": None,
                    }
