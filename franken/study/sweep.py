"""`franken merge-sweep`: which layers carry the change? Every window of the donor's decoder layers,
put into the base.

A window of `window` layers slides over the decoder by `stride`. Each hybrid answers the same
questions as the base and the donor; its gain over the base and its lag behind the donor are paired
by prompt. Beside them go random sets of as many layers, spread over the whole decoder: if any
`window` layers do as much, no window is special. All of it happens in memory: the base is loaded
once, the donor's tensors are read once (the donor itself is the base with everything of it put in),
nothing is written but answers.

With the scores `m`, the gains are those in M_vis, M_v2r and M_rea as well
(franken/evaluate/mscores.py; Frankenstein, arXiv
2602.12395, §4). Splices, hybrids that are written out, possibly with layers of other training runs,
go beside the windows.

Left out: windows of the vision tower.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from franken.errors import UsageError
from franken.study.hybrids import Hybrid, Splice

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
    splices: tuple[Splice, ...] = ()
    scores: str = ACC

    @property
    def evaluations(self) -> int:
        """How many models answer: the hybrids, the base, and the donor."""
        return len(self.hybrids) + len(self.splices) + 2

    @property
    def arms(self) -> tuple[str, ...]:
        """What is shown: the image, and for the M scores what else they need."""
        from franken.evaluate.mscores import ARMS

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
    splices: Sequence[Splice] = (),
    scores: str = ACC,
) -> Sweep:
    """The windows and the random sets, from the headers alone.

    Raises UsageError for numbers that cannot be and for checkpoints that differ in a way that is
    not in `allow`.
    """
    from franken.checkpoints import open_checkpoint
    from franken.merge.claims import pieces_of
    from franken.merge.plan import plan_layers

    one, two = open_checkpoint(base), open_checkpoint(donor)
    depth = one.depths["text"]
    for name, number in (("--window", window), ("--stride", stride)):
        if number < 1:
            raise UsageError(
                f"{name} {number} is not positive", fix=f"give {name} a number from 1 up"
            )
    if window >= depth:
        raise UsageError(
            f"--window {window} is too wide",
            why=f"the decoder has {depth} layers",
            fix=f"use 1 to {depth - 1}",
        )
    if controls < 0:
        raise UsageError(f"--controls {controls} is negative", fix="use 0 or more")
    if scores not in SCORES:
        raise UsageError(f"unknown scores {scores!r}", fix=f"use {' or '.join(SCORES)}")
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
    sweep: Sweep, *, out: Path, seed: int = 0, progress: Progress | None = None, **options: Any
) -> Path:
    """Evaluate all of it and write the gains: the sweep's run folder. `options` go to
    `franken.evaluate.run.run_eval`.

    Evaluations that are complete are not repeated. layers.parquet holds, for windows (`layer` is
    the first one), random sets and the donor, `gain <metric>` per task: the paired difference from
    the base with its interval; and for all but the donor `lag <metric>`, the paired difference from
    the donor. p is Holm-adjusted over the windows. The control band, over the random sets, is in
    run.json.
    """
    from franken.checkpoints import fingerprint, open_checkpoint
    from franken.evaluate.run import Graft, plan_eval, run_eval
    from franken.runs import load_run, open_run
    from franken.tasks.sources import contents

    models = [open_checkpoint(sweep.base), open_checkpoint(sweep.donor)]
    options = {"arms": sweep.arms, **options}
    chosen = {
        k: v
        for k, v in options.items()
        if k in ("tasks", "samples", "n", "k", "arms", "max_new_tokens", "data")
    }
    plan = plan_eval(seed=seed, **chosen)
    identity = {
        "eval": vars(plan),
        "contents": contents(plan.data) if plan.data else None,
        "models": [fingerprint(m) for m in models],
        "hybrids": [h.to_dict() for h in sweep.hybrids],
        "dtype": options.get("dtype", "auto"),
    }
    if sweep.splices:
        parts = [
            [fingerprint(open_checkpoint(donor)) for donor, _ in s.parts] for s in sweep.splices
        ]
        identity |= {"splices": [s.to_dict() for s in sweep.splices], "splice donors": parts}
    label = f"{models[0].name}-{models[1].name}"
    config = {
        "window": sweep.window,
        "stride": sweep.stride,
        "depth": sweep.depth,
        **identity["eval"],
    }
    run = open_run(
        "merge-sweep",
        label,
        identity,
        out,
        config=config,
        models={"base": sweep.base, "donor": sweep.donor},
    )
    if run.is_complete():
        return run.folder
    grafts: list[Graft | None] = [None, Graft("donor", sweep.donor, "text:all", sweep.take)]
    grafts += [Graft(h.label, sweep.donor, h.ranges) for h in sweep.hybrids]
    grafts += [Graft(s.label, *s.parts[0], more=s.parts[1:]) for s in sweep.splices]
    folders = run_eval(
        [sweep.base],
        labels=["base"],
        grafts=grafts,
        out=out,
        seed=seed,
        progress=_counted(progress, len(grafts)),
        **options,
    )
    base, donor, *hybrids = (load_run(folder) for folder in folders)
    known = {row["model"] for row in run.rows()}
    everyone: list[tuple[str, Hybrid | Splice | None, Any]] = [
        ("base", None, base),
        ("donor", None, donor),
    ]
    everyone += [
        (h.label, h, found)
        for h, found in zip((*sweep.hybrids, *sweep.splices), hybrids, strict=True)
    ]
    run.append([_row(name, h, found) for name, h, found in everyone if name not in known])
    gains = [
        row
        for name, h, found in everyone[1:]
        for row in _differences("gain", name, h, base.samples, found.samples, sweep.scores)
    ]
    gains += [
        row
        for name, h, found in everyone[2:]
        for row in _differences("lag", name, h, donor.samples, found.samples, sweep.scores)
    ]
    gains = _adjusted(gains)
    extra = {
        "band": control_band(gains),
        "layers": {h.label: list(h.layers) for h in sweep.hybrids},
    }
    return run.finish(gains, n_requested=len(everyone), extra=extra)


def control_band(gains: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Lowest, mean and highest gain over the random sets, by metric and task; empty without any."""
    band: dict[str, dict[str, list[float]]] = {}
    for row in gains:
        if row["method"] == "random" and row["value"] is not None:
            band.setdefault(row["metric"], {}).setdefault(row["task"], []).append(row["value"])
    return {
        metric: {
            task: {
                "low": min(found),
                "mean": sum(found) / len(found),
                "high": max(found),
                "n": len(found),
            }
            for task, found in tasks.items()
        }
        for metric, tasks in band.items()
    }


def verdict(folder: Path, metric: str = "gain acc@1") -> str:
    """Which windows do better than every random set of as many layers, over all tasks, in a
    sentence.
    """
    from franken.runs import load_run

    run = load_run(folder)
    band = run.manifest.band.get(metric, {}).get("all")
    rows: Any = run.layers[run.layers["metric"] == metric]
    rows = rows[(rows["task"] == "all") & (rows["method"] == "window")]
    if band is None or rows.empty:
        return "no random sets to compare the windows with"
    width = run.manifest.config.window or 0
    above = [
        f"{row['layer']}-{row['layer'] + width}"
        for row in rows.to_dict("records")
        if row["value"] > band.high
    ]
    return (
        f"{len(above)} of {len(rows)} windows gain more than each of {band.n} random sets of {width} layers"
        f" (these: {100 * band.low:.1f} to {100 * band.high:.1f} points){': ' if above else ''}{', '.join(above)}"
    )


def _differences(
    name: str, label: str, hybrid: Hybrid | Splice | None, other: Any, hybrids: Any, scores: str
) -> list[dict[str, Any]]:
    """Rows `<name> <metric>`: the hybrid minus `other`, paired by prompt."""
    from franken.evaluate.metrics import compare_samples
    from franken.evaluate.mscores import compare_m
    from franken.runs import layer_row

    method, layer = "donor", None
    if isinstance(hybrid, Splice):
        method = "splice"
    elif hybrid is not None:
        method, layer = ("random", None) if hybrid.control else ("window", hybrid.layers[0])
    found = [compare_samples(other, hybrids, metric) for metric in METRICS]
    found += [compare_m(other, hybrids)] if scores == M else []
    return [
        layer_row(
            model=label,
            method=method,
            part="text",
            layer=layer,
            task=row["task"],
            metric=f"{name} {row['metric']}",
            value=row["diff"],
            ci_low=row["ci_low"],
            ci_high=row["ci_high"],
            n=row["n"],
            p_adjusted=row["p"],
        )
        for table in found
        for row in table.to_dict("records")
    ]


def _adjusted(gains: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Holm over the windows of one metric and task; the donor and each random set are tests by
    themselves.
    """
    from franken.stats import holm

    families: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in gains:
        if row["method"] == "window":
            families.setdefault((row["metric"], row["task"]), []).append(row)
    for rows in families.values():
        for row, p in zip(rows, holm([r["p_adjusted"] for r in rows]), strict=True):
            row["p_adjusted"] = p
    return gains


def _row(label: str, hybrid: Hybrid | Splice | None, found: Any) -> dict[str, Any]:
    failed = found.manifest.n_failed
    layers = (
        "+".join(f"{d}:{r}" for d, r in hybrid.parts)
        if isinstance(hybrid, Splice)
        else hybrid.ranges
        if hybrid
        else ""
    )
    return {
        "model": label,
        "layers": layers,
        "control": isinstance(hybrid, Hybrid) and hybrid.control,
        "eval": found.folder.name,
        "error": f"{failed} answers failed" if failed else None,
    }


def _counted(progress: Progress | None, models: int) -> Progress | None:
    """Progress over all models: run_eval counts each from nought."""
    if progress is None:
        return None
    seen: list[str] = []

    def tick(done: int, total: int, what: str) -> None:
        name = what.split(",")[0]
        if name not in seen:
            seen.append(name)
        progress((len(seen) - 1) * total + done, models * total, name)

    return tick
