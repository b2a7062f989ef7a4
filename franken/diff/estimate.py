"""How long a diff will take: a stretch of these very files is measured, and the spectra are scaled
from a small matrix.
"""

import time
from contextlib import ExitStack

import numpy as np
from threadpoolctl import threadpool_limits

from franken.diff import metrics
from franken.diff.along_plan import AlongPlan
from franken.diff.plan import DiffPlan
from franken.diff.run import DiffOptions, cores
from franken.diff.steps import step_products
from franken.diff.values import opened

SAMPLE = 1 << 24  # elements
SIDE = 768


def estimate_seconds(plan: DiffPlan, options: DiffOptions, jobs: int | None = None) -> float:
    """About how long `run_diff` takes on this machine, in seconds; without the spectra's time when
    they run on a GPU.
    """
    seconds = _streaming(plan)
    if (options.spectra or options.subspaces or options.principal) and options.device == "cpu":
        seconds += _decomposing(plan, options)
    return seconds / (jobs or cores())


def estimate_along(plan: AlongPlan, *, with_spectra: bool, jobs: int | None = None) -> float:
    """About how long `run_along` takes on this machine, in seconds."""
    tensors = plan.tensors
    largest = max(tensors.tensors, key=tensors.nbytes)
    with ExitStack() as stack:
        start, *later = [stack.enter_context(opened(*e)) for e in tensors.stages(largest)]
        whole = start.size
        start.size = min(SAMPLE // (len(later) + 1), whole)
        began = time.perf_counter()
        step_products(start, [later])
        seconds = (time.perf_counter() - began) * whole / max(start.size, 1)
    seconds *= tensors.total_bytes / max(tensors.nbytes(largest), 1)
    if with_spectra:
        each = _decomposing(tensors, DiffOptions(spectra=True)) / len(tensors.deltas)
        seconds += each * sum(len(run.updates) for run in plan.runs)
    return seconds / (jobs or cores())


def _streaming(plan: DiffPlan) -> float:
    largest = max(plan.tensors, key=plan.nbytes)
    with ExitStack() as stack:
        stages = [stack.enter_context(opened(*entry)) for entry in plan.stages(largest)]
        whole, seconds = stages[0].size, 0.0
        for size in (
            1,
            min(SAMPLE, whole),
        ):  # the first compiles; the second may find the file in memory or not, as the run will
            for values in stages:
                values.size = size
            began = time.perf_counter()
            metrics.sums(stages)
            seconds = (time.perf_counter() - began) * whole / size
    return seconds * plan.total_bytes / plan.nbytes(largest)


def _decomposing(plan: DiffPlan, options: DiffOptions) -> float:
    with threadpool_limits(1, user_api="blas"):
        block = np.random.default_rng(0).normal(size=(SIDE, SIDE))
        began = time.perf_counter()
        matrix = block.T @ block
        per_product = (time.perf_counter() - began) / SIDE**3
        began = time.perf_counter()
        np.linalg.eigvalsh(matrix)
        per_eigenvalue = (time.perf_counter() - began) / SIDE**3
        began = time.perf_counter()
        np.linalg.eigh(matrix)
        per_vector = (time.perf_counter() - began) / SIDE**3
    frames = 3 * (len(plan.checkpoints) - 1) * options.principal  # the weights, two nulls
    whole = len(plan.deltas) * options.spectra + 2 * options.subspaces
    seconds = 0.0
    for name in plan.tensors:
        shape = plan.stages(name)[-1][0].shape
        if len(shape) >= 2:
            rows, columns = shape[0], int(np.prod(shape[1:]))
            side, length = min(rows, columns), max(rows, columns)
            products = (whole + frames) * length * side**2 * per_product
            seconds += products + side**3 * (whole * per_eigenvalue + frames * per_vector)
    return seconds
