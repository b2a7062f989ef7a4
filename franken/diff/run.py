"""The streaming loop of `franken diff`: slices of one tensor of each checkpoint in memory at a time, resumable after every part."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from franken.checkpoints import Checkpoint, TensorEntry, Values, fingerprint, open_checkpoint
from franken.diff.metrics import ZERO, Sums, add, measures, ranks, singular_values, sums
from franken.errors import UsageError
from franken.layers import LayerRange
from franken.runs import layer_row, open_run

ORDER = ("base", "sft", "rl")
MEASURES = ("energy", "relative_energy", "unchanged_fraction", "cosine")
RANKS = ("effective_rank", "stable_rank")
FLUSH_BYTES = 256 << 20


@dataclass(frozen=True)
class DiffPlan:
    """What is compared: tensors in all checkpoints, and what cannot be compared and why."""

    checkpoints: dict[str, Checkpoint]
    tensors: tuple[str, ...]
    problems: dict[str, str]

    @property
    def deltas(self) -> list[tuple[str, str]]:
        """(earlier, later): adjacent stages, then base → rl when there are three."""
        stages = [s for s in ORDER if s in self.checkpoints]
        adjacent = list(zip(stages, stages[1:], strict=False))
        return [*adjacent, ("base", "rl")] if len(stages) == 3 else adjacent

    @property
    def nbytes(self) -> int:
        """Bytes to read."""
        return sum(c.tensors[t].nbytes for c in self.checkpoints.values() for t in self.tensors)


def plan_diff(checkpoints: Mapping[str, str | Path], ranges: Sequence[LayerRange] = ()) -> DiffPlan:
    """Open the headers and pair the tensors. `ranges` limits the comparison to those layers."""
    opened = {stage: open_checkpoint(path) for stage, path in checkpoints.items()}
    chosen = {(r.part, layer) for r in ranges for layer in r.layers}
    names = {name: entry for c in opened.values() for name, entry in c.tensors.items()}
    tensors, problems = [], {}
    for name, entry in names.items():
        if chosen and (entry.place.part, entry.place.layer) not in chosen:
            continue
        absent = [stage for stage, c in opened.items() if name not in c.tensors]
        shapes = {stage: c.tensors[name].shape for stage, c in opened.items() if name in c.tensors}
        if absent:
            problems[name] = f"not in {', '.join(absent)}"
        elif len(set(shapes.values())) > 1:
            problems[name] = f"shapes differ: {shapes}"
        else:
            tensors.append(name)
    if not tensors:
        raise UsageError(
            "the checkpoints share no tensor", why="nothing can be compared", fix="compare one architecture"
        )
    return DiffPlan(opened, tuple(tensors), problems)


def run_diff(
    plan: DiffPlan,
    *,
    out: Path,
    spectra: bool = True,
    ranges: Sequence[LayerRange] = (),
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Measure every tensor and every layer. Rows: one a tensor and delta; `progress` hears bytes. Returns the run folder."""
    models = {stage: c.name for stage, c in plan.checkpoints.items()}
    identity = {
        "checkpoints": {stage: fingerprint(c) for stage, c in plan.checkpoints.items()},
        "spectra": spectra,
        "layers": [r.to_dict() for r in ranges],
    }
    label = models.get("rl") or next(reversed(models.values()))
    run = open_run("diff", label, identity, out, config={"spectra": spectra}, models=models)
    if run.is_complete():
        return run.folder
    done = {row["tensor"] for row in run.rows()}
    waiting: list[dict[str, Any]] = [_problem_row(plan, name) for name in plan.problems if name not in done]
    unsaved = 0
    for name in plan.tensors:
        entries = {stage: c.tensors[name] for stage, c in plan.checkpoints.items()}
        size = sum(e.nbytes for e in entries.values())
        if name not in done:
            waiting += tensor_rows(entries, plan.deltas, spectra)
            unsaved += size
        if unsaved >= FLUSH_BYTES:
            run.append(waiting)
            waiting, unsaved = [], 0
        if progress:
            progress(size)
    run.append(waiting)
    rows = run.rows()
    warnings = [f"{name}: {why}" for name, why in plan.problems.items()]
    n = len(plan.tensors) * len(plan.deltas) + len(plan.problems)
    return run.finish(layer_rows(rows, label), n_requested=n, warnings=warnings)


def tensor_rows(
    entries: Mapping[str, TensorEntry], deltas: Sequence[tuple[str, str]], spectra: bool
) -> list[dict[str, Any]]:
    """One row a delta, with the sums that layers add up from."""
    values = {stage: Values(entry) for stage, entry in entries.items()}
    rows = []
    for earlier, later in deltas:
        total = sums(values[earlier], values[later])
        spot = entries[earlier].place
        row: dict[str, Any] = {
            "method": f"{earlier}→{later}",
            "tensor": entries[earlier].canonical,
            "part": spot.part,
            "layer": spot.layer,
            "component": spot.component,
            "dtype": entries[later].dtype,
            **total._asdict(),
            **measures(total),
            **dict.fromkeys(RANKS),
            "error": None,
        }
        shape = entries[earlier].shape
        if spectra and len(shape) >= 2 and total.delta > 0:
            row |= ranks(singular_values(values[earlier], values[later], shape))
        rows.append(row)
    return rows


def layer_rows(rows: Sequence[Mapping[str, Any]], model: str) -> list[dict[str, Any]]:
    """Summaries by (delta, part, layer, component) and by layer (`all`). Energies add up as squares, ranks are means."""
    groups: dict[tuple[str, str, int | None, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["error"] is None:
            layer = None if row["layer"] is None or math.isnan(row["layer"]) else int(row["layer"])
            for component in (row["component"], "all"):
                groups.setdefault((row["method"], row["part"], layer, component), []).append(row)
    summary = []
    for (method, part, layer, component), members in groups.items():
        total = ZERO
        for row in members:
            total = add(total, Sums(*(row[f] for f in Sums._fields)))
        values: dict[str, float | None] = dict(measures(total))
        for rank in RANKS:
            known = [r[rank] for r in members if r[rank] is not None]
            values[rank] = float(np.mean(known)) if known else None
        head = {"model": model, "method": method, "part": part, "layer": layer, "component": component}
        summary += [layer_row(**head, metric=m, value=v, n=total.elements) for m, v in values.items()]
    return summary


def _problem_row(plan: DiffPlan, name: str) -> dict[str, Any]:
    entry = next(c.tensors[name] for c in plan.checkpoints.values() if name in c.tensors)
    spot = entry.place
    numbers = dict.fromkeys((*Sums._fields, *MEASURES, *RANKS))
    return {
        "method": None, "tensor": name, "part": spot.part, "layer": spot.layer, "component": spot.component, "dtype": entry.dtype,
        **numbers, "error": plan.problems[name],
    }  # fmt: skip
