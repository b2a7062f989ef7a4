"""`franken merge-sweep`: which layers carry the change? Every window of the donor's decoder layers,
put into the base.

A window of `window` layers slides over the decoder by `stride`. Each hybrid answers the same
questions as the base and the donor; its gain over the base and its lag behind the donor are paired
by prompt. Beside them go random sets of as many layers, spread over the whole decoder: if any
`window` layers do as much, no window is special. All of it happens in memory: the base is loaded
once, the donor's tensors are read once (the donor itself is the base with everything of it put in),
nothing is written but answers.

With the scores `m`, the gains are those in M_vis, M_v2r and M_rea as well
(franken/evaluate/mscores.py; Frankenstein, arXiv 2602.12395, §4). Splices, hybrids that are written
out, possibly with layers of other training runs, go beside the windows.

Left out: windows of the vision tower.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from franken.checkpoints import fingerprint, open_checkpoint
from franken.devices import lanes_of
from franken.errors import FrankenError, UsageError, check_known, check_positive
from franken.evaluate.graft import Graft
from franken.evaluate.metrics import compare_samples
from franken.evaluate.mscores import ARMS, compare_m
from franken.evaluate.run import Plan as EvalPlan
from franken.evaluate.run import plan_eval, run_eval
from franken.layers import format_layers
from franken.merge.claims import pieces_of
from franken.merge.plan import plan_layers
from franken.runs import LoadedRun, load_run, open_run
from franken.runs.rows import LayerRow
from franken.study.gains import adjust, control_band, gain_rows
from franken.study.hybrids import Hybrid
from franken.study.lanes import Report, check_present, run_steps
from franken.study.steps import Step
from franken.study.verbs import Evaluation, Hybrids
from franken.tasks.sources import contents

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int, str], None]
METRICS = ("acc@1", "greedy")
ACC, M = SCORES = ("acc", "m")


@dataclass(frozen=True)
class Sweep:
    """A sweep, resolved: two checkpoints and the layer sets that are tried."""

    base: str
    donor: str
    depth: int
    window: int
    stride: int
    hybrids: tuple[Hybrid, ...]
    take: tuple[str, ...]  # all pieces of the donor outside of its decoder layers
    splices: tuple[Graft, ...] = ()
    scores: str = ACC

    @property
    def evaluations(self) -> int:
        """How many models answer: the hybrids, the base, and the donor."""
        return len(self.hybrids) + len(self.splices) + 2

    @property
    def arms(self) -> tuple[str, ...]:
        """What is shown: the image, and for the M scores what else they need."""
        return ARMS if self.scores == M else ("image",)


def plan_sweep(
    base: str,
    donor: str,
    *,
    window: int = 4,
    stride: int = 1,
    controls: int = 8,
    seed: int = 0,
    allow: Sequence[str] = (),
    splices: Sequence[Graft] = (),
    scores: str = ACC,
) -> Sweep:
    """The windows and the random sets, from the headers alone.

    Raises UsageError for numbers that cannot be and for checkpoints that differ in a way that is
    not in `allow`.
    """
    one, two = open_checkpoint(base), open_checkpoint(donor)
    depth = one.depths["text"]
    check_positive("--window", window)
    check_positive("--stride", stride)
    if window >= depth:
        raise UsageError(
            f"--window {window} is too wide",
            why=f"the decoder has {depth} layers",
            fix=f"use 1 to {depth - 1}",
        )
    if controls < 0:
        raise UsageError(f"--controls {controls} is negative", fix="use 0 or more")
    check_known("scores", [scores], SCORES)
    taken = [h.label for h in splices]
    if len(set(taken)) < len(taken) or {"base", "donor"} & set(taken):
        raise UsageError(
            "two hybrids have one name", why=", ".join(taken), fix="name each of them differently"
        )
    for splice in splices:
        for other, ranges in splice.parts:
            plan_layers(one, open_checkpoint(other), ranges, allow=allow)
    take = pieces_of(one)
    plan_layers(one, two, "all", take=take, allow=allow)
    sets = windows(depth, window, stride)
    hybrids = [Hybrid(f"window-{s[0]}-{s[-1] + 1}", s) for s in sets]
    hybrids += [
        Hybrid(f"random-{window}-{i + 1}", s, control=True)
        for i, s in enumerate(
            random_sets(depth, window, controls, seed=seed, without=windows(depth, window, 1))
        )
    ]
    return Sweep(base, donor, depth, window, stride, tuple(hybrids), take, tuple(splices), scores)


def windows(depth: int, window: int, stride: int) -> list[tuple[int, ...]]:
    """All windows from the first layer on, the last one ending at the last layer even where the
    stride would miss it.
    """
    starts = list(range(0, depth - window + 1, stride))
    if starts[-1] != depth - window:
        starts.append(depth - window)
    return [tuple(range(start, start + window)) for start in starts]


def random_sets(
    depth: int, size: int, count: int, *, seed: int, without: Sequence[tuple[int, ...]] = ()
) -> list[tuple[int, ...]]:
    """`count` different sets of `size` layers that are none of `without`; fewer where there are not
    so many.
    """
    rng = random.Random(f"random windows {seed}")
    taken = set(without)
    made: list[tuple[int, ...]] = []
    for _ in range(1000 * count):
        drawn = tuple(sorted(rng.sample(range(depth), size)))
        if len(made) < count and drawn not in taken:
            taken.add(drawn)
            made.append(drawn)
    return made


def run_sweep(
    sweep: Sweep,
    *,
    out: Path,
    tasks: Sequence[str] | None = None,
    samples: int = 100,
    n: int = 4,
    k: Sequence[int] = (1,),
    seed: int = 0,
    max_new_tokens: int = 64,
    data: Path | str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    devices: Sequence[str] = (),
    progress: Progress | None = None,
    report: Report | None = None,
) -> Path:
    """Evaluate all of it and write the gains: the sweep's run folder. The questions are those of
    `franken.evaluate.run.run_eval`.

    Evaluations that are complete are not repeated. With `devices` they run in a process on each,
    side by side, and `report` hears of them. layers.parquet holds, for windows (`layer` is
    the first one), random sets and the donor, `gain <metric>` per task: the paired difference from
    the base with its interval; and for all but the donor `lag <metric>`, the paired difference from
    the donor. p is Holm-adjusted over the windows. The control band, over the random sets, is in
    run.json.
    """
    models = [open_checkpoint(sweep.base), open_checkpoint(sweep.donor)]
    plan = plan_eval(
        tasks=tasks,
        samples=samples,
        n=n,
        k=k,
        arms=sweep.arms,
        seed=seed,
        max_new_tokens=max_new_tokens,
        data=data,
    )
    questions = asdict(plan)
    identity = {
        "eval": questions,
        "contents": contents(plan.data) if plan.data else None,
        "models": [fingerprint(m) for m in models],
        "hybrids": [h.record().model_dump(exclude={"pattern"}) for h in sweep.hybrids],
        "dtype": dtype,
    }
    if sweep.splices:
        identity["splices"] = [{"label": s.label, "parts": s.parts} for s in sweep.splices]
        identity["splice donors"] = [
            [fingerprint(open_checkpoint(donor)) for donor, _ in s.parts] for s in sweep.splices
        ]
    config = {name: getattr(sweep, name) for name in ("window", "stride", "depth")} | questions
    label, ends = f"{models[0].name}-{models[1].name}", {"base": sweep.base, "donor": sweep.donor}
    with open_run("merge-sweep", label, identity, out, config=config, models=ends) as run:
        if run.is_complete():
            return run.folder
        whole = Graft("donor", sweep.donor, "text:all", sweep.take)
        hybrids = [Graft(h.label, sweep.donor, h.ranges) for h in sweep.hybrids]
        grafts = [None, whole, *hybrids, *sweep.splices]
        if devices:
            device = lanes_of(devices, None, device)
            check_present(devices)
            work = lane_steps(sweep, len(devices), plan, device, dtype, out)
            ended = run_steps(work, folder=run.folder, devices=devices, report=report)
            for outcome in ended:
                if outcome.error:
                    raise FrankenError(f"{outcome.step.what} failed", why=outcome.error)
        folders = run_eval(
            [sweep.base],
            labels=["base"],
            grafts=grafts,
            out=out,
            **questions,
            device=device,
            dtype=dtype,
            progress=counted(progress, len(grafts)),
        )
        tried: list[Hybrid | Graft] = [Graft("base", "", ""), whole, *sweep.hybrids, *sweep.splices]
        results = list(zip(tried, (load_run(folder) for folder in folders), strict=True))
        known = {row["model"] for row in run.rows()}
        run.append([_row(tried, result) for tried, result in results if tried.label not in known])
        (_, base), (_, donor), *_ = results
        gains = [
            row
            for name, other, some in (("gain", base, results[1:]), ("lag", donor, results[2:]))
            for tried, result in some
            for row in _differences(name, tried, other.samples, result.samples, sweep.scores)
        ]
        gains = adjust(gains, "window")
        extra = {
            "band": control_band(gains),
            "layers": {h.label: list(h.layers) for h in sweep.hybrids},
        }
        return run.finish(gains, n_requested=len(results), extra=extra)


def lane_steps(
    sweep: Sweep, lanes: int, plan: EvalPlan, device: str, dtype: str, out: Path
) -> list[Step]:
    """The evaluations of a sweep as steps that run side by side: the base, the donor, and the
    hybrids in as many parts as there are lanes, so that each loads the base once.
    """
    asked: dict[str, Any] = {
        "out": str(out),
        "tasks": plan.tasks,
        "samples": plan.samples,
        "seed": plan.seed,
        "data": plan.data,
        "max_new_tokens": plan.max_new_tokens,
        "device": device,
        "dtype": dtype,
        "model": sweep.base,
        "n": plan.n,
        "k": tuple(plan.k),
        "arms": tuple(plan.arms),
    }
    grafts = [f"{h.label}={sweep.donor}:{h.ranges}" for h in sweep.hybrids]
    grafts += [
        f"{s.label}={'+'.join(f'{donor}:{layers}' for donor, layers in s.parts)}"
        for s in sweep.splices
    ]
    donor = Hybrids(grafts=(f"donor={sweep.donor}:text:all",), take=sweep.take, **asked)
    inputs = (sweep.base, sweep.donor, *(d for s in sweep.splices for d, _ in s.parts))
    steps = [
        Step("base", "the base", Evaluation(label="base", **asked), inputs=inputs[:1]),
        Step("donor", "the donor", donor, inputs=inputs[:2]),
    ]
    for lane in range(min(lanes, len(grafts))):
        part = tuple(grafts[lane::lanes])
        does, what = Hybrids(grafts=part, **asked), f"{len(part)} hybrids, part {lane + 1}"
        steps.append(Step(f"part-{lane + 1}", what, does, inputs=inputs, weight=float(len(part))))
    return steps


def verdict(folder: Path) -> str:
    """Which windows do better than every random set of as many layers, over all tasks, in a
    sentence.
    """
    run, metric = load_run(folder), "gain acc@1"
    band = run.manifest.band.get(metric, {}).get("all")
    rows = run.layers[run.layers["metric"] == metric]
    rows = rows[(rows["task"] == "all") & (rows["method"] == "window")]
    if band is None or rows.empty:
        return "no random sets to compare the windows with"
    width = run.manifest.config.window or 0
    above = [
        format_layers(range(int(row["layer"]), int(row["layer"]) + width))
        for row in rows.to_dict("records")
        if row["value"] > band.high
    ]
    return (
        f"{len(above)} of {len(rows)} windows gain more than each of {band.n} random sets of "
        f"{width} layers (these: {100 * band.low:.1f} to {100 * band.high:.1f} "
        f"points){': ' if above else ''}{', '.join(above)}"
    )


def _differences(
    name: str, tried: Hybrid | Graft, other: pd.DataFrame, own: pd.DataFrame, scores: str
) -> list[LayerRow]:
    """Rows `<name> <metric>`: a hybrid minus `other`, paired by prompt."""
    layer = None
    if isinstance(tried, Graft):
        method = "donor" if tried.take else "splice"
    elif tried.control:
        method = "random"
    else:
        method, layer = "window", tried.layers[0]
    tables = [compare_samples(other, own, metric) for metric in METRICS]
    tables += [compare_m(other, own)] if scores == M else []
    return [row for t in tables for row in gain_rows(t, name, tried.label, method, layer)]


def _row(tried: Hybrid | Graft, result: LoadedRun) -> dict[str, object]:
    failed = result.manifest.n_failed
    layers = tried.ranges if isinstance(tried, Hybrid) else ""
    if isinstance(tried, Graft) and not tried.take and tried.donor:
        layers = "+".join(f"{donor}:{ranges}" for donor, ranges in tried.parts)
    return {
        "model": tried.label,
        "layers": layers,
        "control": isinstance(tried, Hybrid) and tried.control,
        "eval": result.folder.name,
        "error": f"{failed} answers failed" if failed else None,
    }


def counted(progress: Progress | None, models: int) -> Progress | None:
    """Progress over all models, of which run_eval counts each from nought."""
    if progress is None:
        return None
    seen: list[str] = []

    def tick(done: int, total: int, what: str) -> None:
        name = what.split(",")[0]
        if name not in seen:
            seen.append(name)
        progress((len(seen) - 1) * total + done, models * total, name)

    return tick
