"""The loop of `franken probe`: controls first, then methods × pairs × layers, every sample
accounted for, resumable.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from franken.errors import VerificationError
from franken.probe.interventions import ablate_all, reruns, row_head, swap_all
from franken.probe.measures import measure_all, prompt_of
from franken.probe.plan import ProbePlan
from franken.runs import open_run
from franken.tasks import Pair

Progress = Callable[[int, int, str], None]


def run_probe(
    plan: ProbePlan,
    *,
    out: Path,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Run or resume a probe. Returns the run folder. Raises VerificationError when a control fails."""
    from franken.models.loading import load
    from franken.probe import controls
    from franken.probe.summary import fall_tests, layer_rows, peaks

    name = plan.checkpoint.name
    run = open_run("probe", name, plan.identity, out, config=plan.identity, models={"model": name})
    if run.is_complete():
        return run.folder
    loaded = load(plan.checkpoint.folder, device=device, dtype=dtype)
    before = controls.weights_digest(loaded)
    lens = None
    if "lens" in plan.methods:
        from franken.probe.lens import lens_for

        lens = lens_for(loaded, lambda: load(plan.checkpoint.folder, device=device, dtype=dtype))
    warnings = check_controls(loaded, plan, lens)
    done = {(r["method"], r["sample"], r["layer"]) for r in run.rows()}
    total = plan.n_requested
    seen = 0

    def step(rows: int, what: str) -> None:
        nonlocal seen
        seen += rows
        if progress:
            progress(seen, total, what)

    if plan.swaps:
        swap_all(run, loaded, plan, done, step)
    if plan.ablations:
        ablate_all(run, loaded, plan, done, step)
    measure_all(run, plan, loaded, lens, done, step, lambda pair: row_head(plan, pair))
    if controls.weights_digest(loaded) != before:
        raise VerificationError(
            "the weights changed during the probe", why="an edit was left in the model"
        )
    rows = run.rows()
    summary = layer_rows(rows)
    extra = {
        "fall_tests": fall_tests(rows),
        "peaks": peaks(summary),
        "device": str(loaded.device),
        "reruns": reruns(rows),
    }
    return run.finish(summary, n_requested=total, warnings=warnings, extra=extra)


def check_controls(loaded: Any, plan: ProbePlan, lens: Any = None) -> list[str]:
    """Warnings of the built-in controls (`franken.probe.controls`). Raises VerificationError when
    one fails in fp32.
    """
    from franken.probe import controls

    usable = [p for p in plan.pairs if not p.error and not p.ineligible and _same_size(p)][
        : controls.SAMPLES
    ]
    asked = [prompt_of(p.target) for p in plan.pairs if not p.target.error][: controls.SAMPLES]
    failures = []
    if plan.swaps:
        pairs = [(prompt_of(p.target), prompt_of(p.source)) for p in usable]
        failures += controls.check_swaps(loaded, pairs, plan.max_new_tokens)
    if plan.ablations:
        middle = plan.layers[len(plan.layers) // 2]
        failures += controls.check_ablations(loaded, asked, middle, plan.max_new_tokens)
    if plan.patches:
        pairs = [(prompt_of(p.target), prompt_of(p.source)) for p in usable]
        failures += controls.check_patching(
            loaded, pairs, sorted({m.split("-")[1] for m in plan.patches})
        )
    if "attention" in plan.methods:
        failures += controls.check_attention(loaded, asked)
    if lens is not None:
        failures += controls.check_lens(loaded, lens, asked)
    for prompt in asked:
        if not controls.identity_hook_is_exact(loaded, prompt):
            failures.append(f"{prompt.key}: a hook that returns its input changes the logits")
    return controls.conclude(failures, loaded.model.dtype)


def _same_size(pair: Pair) -> bool:
    a, b = pair.target.image, pair.source.image
    return a is not None and b is not None and a.size == b.size
