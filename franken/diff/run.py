"""The loop of `franken diff`: every tensor is measured as a stream by one of a few threads, and its
rows land in order.

A thread holds a chunk of each checkpoint, and with spectra one float32 update and one Gram matrix;
never a model.
"""

import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from franken.checkpoints import fingerprint
from franken.diff import metrics, principal, spectra, subspaces
from franken.diff.location import LayerSums, locate
from franken.diff.metrics import Measures, Sums
from franken.diff.mixtures import drifts
from franken.diff.plan import DiffPlan
from franken.diff.spectra import TOPK
from franken.diff.subspaces import K as SUBSPACE_K
from franken.diff.values import Values, opened
from franken.errors import UsageError, VerificationError
from franken.names import Place
from franken.runs import LayerRow, layer_row, open_run

if TYPE_CHECKING:
    import pandas as pd

FLUSH_SECONDS = 5.0  # what a kill loses at most, beside the tensors that are being measured
MEANS = (
    *spectra.MEASURES,
    *subspaces.MEASURES,
    *principal.MEASURES,
)  # a layer's are the means of its matrices'
FLOAT32_MAX = float(np.finfo(np.float32).max)
LISTS = ("singular_values", "left_angles", "right_angles")
Row = dict[str, Any]


@dataclass(frozen=True)
class DiffOptions:
    """What is measured beside the one-pass statistics. `topk` is of the log-volume, `k` of the
    subspaces and of the principal directions.
    """

    spectra: bool = False
    topk: int = TOPK
    subspaces: bool = False
    k: int = SUBSPACE_K
    device: str = "cpu"
    principal: bool = False
    seed: int = 0  # of the random update beside it


def run_diff(
    plan: DiffPlan,
    *,
    out: Path,
    options: DiffOptions = DiffOptions(),  # noqa: B008 - frozen
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Measure every tensor and every layer. Rows: one a tensor and update; `progress` hears bytes.
    Returns the run folder.
    """
    if options.subspaces and len(plan.checkpoints) < 3:
        raise UsageError(
            "--subspaces compares two updates",
            why="two checkpoints have one",
            fix="give BASE SFT RL",
        )
    models = {stage: c.name for stage, c in plan.checkpoints.items()}
    measured = {k: v for k, v in asdict(options).items() if k != "device"}
    if not options.principal:  # nothing random then: a run is the one that it was before
        del measured["principal"], measured["seed"]
    identity = {
        "checkpoints": {stage: fingerprint(c) for stage, c in plan.checkpoints.items()},
        "options": measured,
        "selection": plan.selection,
    }
    label = models["rl"]
    config = {**asdict(options), **plan.selection}
    with open_run("diff", label, identity, out, config=config, models=models) as run:
        if run.is_complete():
            return run.folder
        import pandas as pd

        done = {row["tensor"] for row in run.rows()}
        waiting = [_problem_row(plan, name) for name in plan.problems if name not in done]
        todo = [name for name in plan.tensors if name not in done]
        if progress:
            progress(sum(plan.nbytes(name) for name in plan.tensors if name in done))
        saved = time.monotonic()
        try:
            for name, rows in in_order(
                todo, partial(tensor_rows, plan, options=options), jobs or cores()
            ):
                waiting += rows
                if time.monotonic() - saved > FLUSH_SECONDS:
                    run.append(waiting)
                    waiting, saved = [], time.monotonic()
                if progress:
                    progress(plan.nbytes(name))
        finally:
            run.append(waiting)
        samples = pd.DataFrame(run.rows())
        summary, located = layer_rows(samples, label), locate(_layer_sums(samples))
        warnings = [f"{name}: {why}" for name, why in plan.problems.items()]
        n = len(plan.tensors) * len(plan.deltas) + len(plan.problems)
        extra: dict[str, object] = {"location": [where.model_dump() for where in located]}
        extra["mixtures"] = [drift.model_dump() for drift in drifts(samples)]
        return run.finish(summary, n_requested=n, warnings=warnings, extra=extra)


def cores() -> int:
    """How many threads may run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tensor_rows(plan: DiffPlan, name: str, *, options: DiffOptions) -> list[Row]:
    """One row an update of a tensor, with the sums that layers add up from."""
    spot, stored = plan.place(name), plan.stages(name)
    last = stored[-1][0]
    with ExitStack() as stack:
        stages = [stack.enter_context(opened(*entry)) for entry in stored]
        rows = [
            _row(f"{earlier}→{later}", name, spot, last.dtype, total)
            for (earlier, later), total in zip(plan.deltas, metrics.sums(stages), strict=True)
        ]
        if len(last.shape) >= 2 and all(row["error"] is None for row in rows):
            if options.spectra:
                values = dict(zip(plan.checkpoints, stages, strict=True))
                pairs = [(values[earlier], values[later]) for earlier, later in plan.deltas]
                _add_spectra(rows, pairs, options)
            if options.subspaces:
                _add_subspaces(rows, stages, options.k)
            if options.principal:
                _add_principal(rows, name, stages, options)
    return rows


def _row(method: str, name: str, spot: Place, dtype: str, total: Sums) -> Row:
    finite = metrics.is_finite(total)
    known = total if finite else Sums(elements=total.elements)
    measured = metrics.measures(known) if finite else Measures()
    return {
        "method": method,
        "tensor": name,
        "part": spot.part,
        "layer": spot.layer,
        "component": spot.component,
        "expert": spot.expert,
        "dtype": dtype,
        **known._asdict(),
        **measured._asdict(),
        **dict.fromkeys((*MEANS, *LISTS)),
        "error": None if finite else "NaN or infinite weights",
    }


def _add_spectra(
    rows: Sequence[Row], updates: Sequence[tuple[Values, Values]], options: DiffOptions
) -> None:
    for row, (earlier, later) in zip(rows, updates, strict=True):
        if 0 < row["largest"] <= FLOAT32_MAX:  # beyond, float32 cannot hold Δ
            sigma = spectra.singular_values(earlier, later, options.device)
            row |= spectra.spectrum(sigma, options.topk)._asdict()
            if row["expert"] is None:  # thousands of experts have measures only
                row["singular_values"] = sigma.tolist()


def _add_subspaces(rows: Sequence[Row], stages: Sequence[Values], k: int) -> None:
    """On the row of SFT → RL, since it says how that update lies to the one before it."""
    before, after = rows[0], rows[1]
    if all(0 < row["largest"] <= FLOAT32_MAX for row in (before, after)):
        base, sft, rl = stages
        first, second = subspaces.directions(base, sft, k), subspaces.directions(sft, rl, k)
        after |= subspaces.overlaps(first, second)._asdict()


def _add_principal(
    rows: Sequence[Row], name: str, stages: Sequence[Values], options: DiffOptions
) -> None:
    """On the rows of adjacent stages; base → rl is the sum of two others where there are three."""
    adjacent = rows[: len(stages) - 1]
    norms = [row["energy"] if row["largest"] <= FLOAT32_MAX else 0.0 for row in adjacent]
    if any(norms):
        seed = zlib.crc32(f"{options.seed} {name}".encode())
        found = principal.measured(stages, norms, k=options.k, seed=seed, device=options.device)
        for row, own in zip(adjacent, found, strict=True):
            row |= own._asdict()


def in_order(
    names: Sequence[str], measure: Callable[[str], list[Row]], jobs: int
) -> Iterator[tuple[str, list[Row]]]:
    """Rows of every tensor in the given order, computed by `jobs` threads that run at most a few
    tensors ahead.
    """
    waiting: deque[tuple[str, Future[list[Row]]]] = deque()
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(jobs) as pool:
        try:
            for name in names:
                waiting.append((name, pool.submit(measure, name)))
                if len(waiting) > 4 * jobs:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def layer_rows(samples: "pd.DataFrame", model: str) -> list[LayerRow]:
    """Summaries by (update, part, layer, component) and by layer (`all`). Sums add up; ranks and
    overlaps are means.
    """
    summary = []
    for (method, part, layer, component), members in _groups(samples):
        n = int(members["elements"].sum())
        summary += [
            layer_row(
                model=model,
                method=method,
                part=part,
                layer=layer,
                component=component,
                metric=metric,
                value=value,
                n=n,
            )
            for metric, value in _measures(members).items()
        ]
    return summary


def part_measures(samples: "pd.DataFrame") -> dict[tuple[str, str], dict[str, float | None]]:
    """By (update, part): the measures of all its tensors together; ranks and overlaps are means
    over its matrices.
    """
    measured = samples[samples["error"].isna()]
    return {
        (str(method), str(part)): _measures(members)
        for (method, part), members in measured.groupby(["method", "part"], sort=False)
    }


def _layer_sums(samples: "pd.DataFrame") -> list[LayerSums]:
    return [
        LayerSums(method, part, layer, _total(members))
        for (method, part, layer, component), members in _groups(samples)
        if component == "all"
    ]


def _groups(
    samples: "pd.DataFrame",
) -> "Iterator[tuple[tuple[str, str, int | None, str], pd.DataFrame]]":
    """The measured tensors of every (update, part, layer, component), and of every layer as `all`,
    in the order in which they first come.
    """
    measured = samples[samples["error"].isna()]
    where = zip(*(measured[key] for key in ("method", "part", "layer", "component")), strict=True)
    positions: dict[tuple[str, str, int | None, str], list[int]] = {}
    for i, (method, part, layer, component) in enumerate(where):
        layer = None if layer is None or layer != layer else int(layer)
        for name in (component, "all"):
            positions.setdefault((method, part, layer, name), []).append(i)
    for key, members in positions.items():
        yield key, measured.iloc[members]


def _measures(members: "pd.DataFrame") -> dict[str, float | None]:
    values: dict[str, float | None] = metrics.measures(_total(members))._asdict()
    for name in MEANS:
        known = members[name].dropna()
        values[name] = float(np.mean(known.tolist())) if len(known) else None
    return values


def _total(members: "pd.DataFrame") -> Sums:
    total = Sums()
    for values in members[list(Sums._fields)].itertuples(index=False, name=None):
        total = metrics.add(total, Sums(*values))
    return total


def check_frozen(plan: DiffPlan, samples: "pd.DataFrame", chosen: Set[str]) -> None:
    """Raises VerificationError if one of the chosen tensors moved by one bit in the last update, or
    could not be compared. `samples` are the rows of a finished run.
    """
    last = "→".join(plan.deltas[-1] if len(plan.checkpoints) == 2 else plan.deltas[1])
    lost = sorted(chosen & set(plan.problems))
    if lost:
        raise VerificationError(
            f"{len(lost)} tensors that should be frozen cannot be compared",
            why=f"{lost[0]}: {plan.problems[lost[0]]}",
        )
    rows = samples[(samples["method"] == last) & samples["tensor"].isin(chosen)]
    moved = rows[rows["error"].notna() | (rows["unchanged"] < rows["elements"])]
    if len(moved):
        worst = moved.iloc[int((moved["elements"] - moved["unchanged"]).argmax())]
        changed = f"{worst['elements'] - worst['unchanged']:,.0f} of {worst['elements']:,.0f}"
        raise VerificationError(
            f"{len(moved)} of {len(chosen)} tensors that should be frozen have moved in {last}",
            why=f"{worst['tensor']}: "
            f"{worst['error'] if isinstance(worst['error'], str) else f'{changed} elements'}",
            fix="see samples.parquet of the run for all of them",
        )


def _problem_row(plan: DiffPlan, name: str) -> Row:
    spot = plan.place(name)
    numbers = dict.fromkeys((*Sums._fields, *metrics.MEASURES, *MEANS, *LISTS))
    return {
        "method": None,
        "tensor": name,
        "part": spot.part,
        "layer": spot.layer,
        "component": spot.component,
        "expert": spot.expert,
        "dtype": plan.entry(name).dtype,
        **numbers,
        "error": plan.problems[name],
    }
