"""The loop of `franken diff A --along RUN…`: every tensor of all checkpoints as a stream, one row a
tensor with the products of its steps, and the paths of layers, parts and the whole from their sums.

All runs share one pass over the start, and their steps one matrix of products, so that runs (seeds,
algorithms) are compared with each other too. A thread holds a stretch of every checkpoint, whose
length shrinks with their number, and with spectra one float32 update and one Gram matrix.
"""

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from franken.checkpoints import fingerprint
from franken.diff import spectra
from franken.diff.along_plan import AlongPlan
from franken.diff.run import FLUSH_SECONDS, cores, in_order
from franken.diff.steps import step_products
from franken.diff.trajectory import Way, cosine_of_ends, measures, ways_of
from franken.diff.values import Values, opened
from franken.errors import UsageError
from franken.names import Place
from franken.runs import LayerRow, layer_row, open_run

if TYPE_CHECKING:
    import pandas as pd

VERB, METHOD = "trajectory", "along"
LEFT_OPEN = 64  # files that are none of a checkpoint's
Row = dict[str, Any]
Updates = Sequence[Sequence[float]]


class Sums(NamedTuple):
    """What adds up over tensors: elements, ‖W₀‖², the products of all steps, and of the matrices'
    updates Σσ₁² and Σ‖Δ‖² by checkpoint.
    """

    elements: int
    start: float
    products: np.ndarray
    first: np.ndarray
    matrices: np.ndarray


def run_along(
    plan: AlongPlan,
    *,
    out: Path,
    with_spectra: bool = False,
    device: str = "cpu",
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Measure every tensor, layer, part and the whole; `progress` hears bytes. Returns the run
    folder. `with_spectra` adds the rank-1 share of every update by itself.
    """
    checkpoints = plan.tensors.checkpoints
    identity = {
        "checkpoints": {stage: fingerprint(c) for stage, c in checkpoints.items()},
        "spectra": with_spectra,
        "selection": plan.tensors.selection,
    }
    models = {
        "start": str(plan.start),
        **{run.name: str(run.folder.resolve()) for run in plan.runs},
    }
    config = {"spectra": with_spectra, "device": device, **plan.tensors.selection}
    label = plan.runs[0].name if len(plan.runs) == 1 else f"{plan.runs[0].name}-and-others"
    with open_run(VERB, label, identity, out, config=config, models=models) as run:
        if run.is_complete():
            return run.folder
        import pandas as pd

        names, problems = plan.tensors.tensors, plan.tensors.problems
        done = {row["tensor"] for row in run.rows()}
        waiting = [_problem_row(plan, name) for name in problems if name not in done]
        todo = [name for name in names if name not in done]
        if progress:
            progress(sum(plan.tensors.nbytes(name) for name in names if name in done))
        measure = partial(tensor_rows, plan, with_spectra=with_spectra, device=device)
        saved = time.monotonic()
        try:
            for name, rows in in_order(todo, measure, _jobs(jobs, len(checkpoints))):
                waiting += rows
                if time.monotonic() - saved > FLUSH_SECONDS:
                    run.append(waiting)
                    waiting, saved = [], time.monotonic()
                if progress:
                    progress(plan.tensors.nbytes(name))
        finally:
            run.append(waiting)
        extra = {
            "trajectories": [{"run": r.name, "updates": list(r.updates)} for r in plan.runs],
        }
        return run.finish(
            way_rows(pd.DataFrame(run.rows()), [r.name for r in plan.runs], plan.updates),
            n_requested=len(names) + len(problems),
            warnings=[f"{name}: {why}" for name, why in problems.items()],
            extra=extra,
        )


def tensor_rows(plan: AlongPlan, name: str, *, with_spectra: bool, device: str) -> list[Row]:
    """The one row of a tensor: the upper triangle of the products of its steps, and with spectra
    σ₁² and Σσ² of every update of a matrix.
    """
    stored, spot = plan.tensors.stages(name), plan.tensors.place(name)
    with ExitStack() as stack:
        start, *later = [stack.enter_context(opened(*entry)) for entry in stored]
        products, squares = step_products(start, list(_by_run(later, plan.updates)))
        finite = bool(np.isfinite(products).all() and np.isfinite(squares))
        pairs: list[tuple[float, float]] = []
        if finite and with_spectra and len(start.shape) >= 2:
            pairs = [_first_share(start, one, device) for one in later]
    return [
        {
            **_head(name, spot, stored[0][0].dtype),
            "elements": start.size,
            "start": squares if finite else None,
            "products": products[np.triu_indices(len(later))].tolist() if finite else None,
            "first": [first for first, _ in pairs] or None,
            "squares": [squares for _, squares in pairs] or None,
            "error": None if finite else "NaN or infinite weights",
        }
    ]


def totals(samples: "pd.DataFrame") -> "Iterator[tuple[tuple[str | None, int | None, str], Sums]]":
    """(part, layer, component) and their sums: every component of every layer, of what lies beside
    the layers, every layer (`all`), every part, and the whole (part and layer None).
    """
    groups: dict[tuple[str | None, int | None, str], Sums] = {}
    rows: Any = samples[samples["error"].isna()]
    for row in rows.itertuples():
        part, component = str(row.part), str(row.component)
        layer = None if row.layer is None or row.layer != row.layer else int(row.layer)
        keys = [(part, layer, component), (part, None, "all"), (None, None, "all")]
        keys += [(part, layer, "all")] if layer is not None else []
        own = _sums(row)
        for key in keys:
            groups[key] = _added(groups[key], own) if key in groups else own
    yield from groups.items()


def way_rows(samples: "pd.DataFrame", runs: Sequence[str], updates: Updates) -> list[LayerRow]:
    """The summary: numbers of the whole path, numbers `…@UPDATE` of every checkpoint (of components
    only the distance), and between the ends of runs.
    """
    rows: list[LayerRow] = []
    for (part, layer, component), total in totals(samples):
        where: Any = {"method": METHOD, "part": part, "layer": layer, "component": component}
        where["n"] = total.elements
        ways, places = ways_of(total.products, updates)
        for name, way, place in zip(runs, ways, places, strict=True):
            spectral = total.first[place], total.matrices[place]
            rows += [
                layer_row(model=name, metric=metric, value=value, **where)
                for metric, value in _numbers(way, total.start, *spectral)
                if component == "all" or "@" not in metric or metric.startswith("distance")
            ]
        for (one, a), (other, b) in combinations(zip(runs, places, strict=True), 2):
            value = cosine_of_ends(total.products, a, b)
            model = f"{one} ~ {other}"
            rows.append(layer_row(model=model, metric="cosine_of_ends", value=value, **where))
    return rows


def _numbers(
    way: Way, start: float, first: np.ndarray, matrices: np.ndarray
) -> Iterator[tuple[str, float | None]]:
    yield from measures(way)._asdict().items()
    yield "relative_distance", float(way.distances[-1]) / start**0.5 if start else None
    moved = way.distances[-1] > 0
    coefficients = way.coefficients()
    for i, update in enumerate(way.updates):
        yield f"distance@{update:g}", float(way.distances[i])
        cosine = float(way.cosines[i, -1])
        yield f"cosine_to_last@{update:g}", cosine if np.isfinite(cosine) else None
        yield f"coefficient@{update:g}", float(coefficients[i]) if moved else None
        if matrices[i] > 0:
            yield f"rank_one_of_update@{update:g}", float(first[i] / matrices[i])


def _first_share(start: Values, later: Values, device: str) -> tuple[float, float]:
    """σ₁² and Σσ² of an update as a matrix."""
    sigma = spectra.singular_values(start, later, device).astype(np.float64)
    return (float(sigma[0] ** 2), float(sigma @ sigma)) if sigma.size else (0.0, 0.0)


def _by_run(values: Sequence[Values], updates: Updates) -> Iterator[Sequence[Values]]:
    at = 0
    for own in updates:
        yield values[at : at + len(own)]
        at += len(own)


def _sums(row: Any) -> Sums:
    triangle = np.asarray(row.products, float)
    count = int((np.sqrt(8 * triangle.size + 1) - 1) / 2)
    products = np.zeros((count, count))
    products[np.triu_indices(count)] = triangle
    products = products + np.triu(products, 1).T
    both = [
        np.zeros(count) if side is None or np.isscalar(side) else np.array(side, float)
        for side in (row.first, row.squares)
    ]
    return Sums(int(row.elements), float(row.start), products, *both)


def _added(a: Sums, b: Sums) -> Sums:
    return Sums._make(x + y for x, y in zip(a, b, strict=True))


def _head(name: str, spot: Place, dtype: str) -> Row:
    return {
        "method": METHOD,
        "tensor": name,
        "part": spot.part,
        "layer": spot.layer,
        "component": spot.component,
        "dtype": dtype,
    }


def _problem_row(plan: AlongPlan, name: str) -> Row:
    nothing = dict.fromkeys(("elements", "start", "products", "first", "squares"))
    head = _head(name, plan.tensors.place(name), plan.tensors.entry(name).dtype)
    return {**head, **nothing, "error": plan.tensors.problems[name]}


def _jobs(wanted: int | None, checkpoints: int) -> int:
    """Threads, so few that all their checkpoints may be open at once. Raises UsageError where not
    even one's may.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = (most - LEFT_OPEN) // checkpoints
    if room < 1:
        raise UsageError(
            f"{checkpoints} checkpoints are more files than may be open",
            why=f"this system allows {most}",
            fix=f"ulimit -n {checkpoints + 2 * LEFT_OPEN}",
        )
    return min(wanted or cores(), room)
