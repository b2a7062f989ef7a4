"""The loop of `franken probe`: controls first, then methods × pairs × layers, every sample
accounted for, resumable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

import pandas as pd

from franken import tasks
from franken.errors import UsageError, VerificationError
from franken.generate.native import refusal
from franken.models.loading import DTYPES, Loaded, load
from franken.probe import controls
from franken.probe.answers import Answered, reruns
from franken.probe.method import Measurement, Method
from franken.probe.methods import by_class
from franken.probe.plan import ProbePlan
from franken.probe.session import Session, prompt_of
from franken.probe.summary import layer_rows, peaks
from franken.runs import Run, open_run
from franken.tasks import Item, Pair

FLUSH = 16  # pairs whose rows are stored together
Progress = Callable[[int, int, str], None]
Step = Callable[[int, str], None]
Key = tuple[str, str, int]  # method, sample, layer


def run_probe(
    plan: ProbePlan,
    *,
    out: Path,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Run or resume a probe; returns its folder. Raises VerificationError when a control fails."""
    name = plan.checkpoint.name
    config, models = plan.identity, {"model": name}
    if plan.against:
        models["against"] = plan.against.name
    with open_run("probe", name, plan.identity, out, config=config, models=models) as run:
        if run.is_complete():
            return run.folder

        def loading() -> Loaded:
            return load(plan.checkpoint.folder, device=device, dtype=dtype)

        loaded = loading()
        second = _second(plan, loaded, device)
        session = Session(_taken(plan, loaded), loaded, loading, second)
        held = [model for model in (loaded, second) if model is not None]
        before = [controls.weights_digest(model) for model in held]
        warnings = check_controls(session)
        done: set[Key] = {(r["method"], r["sample"], r["layer"]) for r in run.rows()}
        seen = 0

        def step(rows: int, what: str) -> None:
            nonlocal seen
            seen += rows
            if progress:
                progress(seen, plan.n_requested, what)

        for methods in by_class(plan.methods):
            _measure(run, session, methods, done, step)
        if [controls.weights_digest(model) for model in held] != before:
            raise VerificationError(
                "the weights changed during the probe", why="an edit was left in the model"
            )
        samples = pd.DataFrame(run.rows())
        summary = layer_rows(samples)
        results: dict[str, object] = {"fall_tests": []}
        for methods in by_class(plan.methods):
            results |= type(methods[0]).results(samples)
        results |= {
            "peaks": peaks(summary),
            "device": session.loaded.where,
            "reruns": reruns(samples),
        }
        return run.finish(summary, n_requested=plan.n_requested, warnings=warnings, extra=results)


def _second(plan: ProbePlan, loaded: Loaded, device: str) -> Loaded | None:
    """The model to compare with, in memory beside the first, in its type. Raises UsageError where
    the same ids are other words to it.
    """
    if plan.against is None:
        return None
    same = next(name for name, kind in DTYPES.items() if kind == loaded.model.dtype)
    second = load(plan.against.folder, device=device, dtype=same)
    ours, theirs = (model.tokenizer.get_vocab() for model in (loaded, second))
    odd = sorted(word for word in ours.keys() & theirs.keys() if ours[word] != theirs[word])
    if odd:
        raise UsageError(
            f"{loaded.name} and {second.name} do not read the same tokens",
            why=f"{odd[0]!r} is {ours[odd[0]]} to one and {theirs[odd[0]]} to the other",
            fix="give --against a checkpoint with the same tokenizer",
        )
    return second


def _taken(plan: ProbePlan, loaded: Loaded) -> ProbePlan:
    """The plan with what the model's processor refuses as an error of its pair. Puzzles' pictures
    are of a shape that any takes.
    """

    def checked(item: Item) -> Item:
        if item.error or tasks.is_puzzle(item.task):
            return item
        return replace(item, error=refusal(loaded, prompt_of(item)))

    def pair_of(pair: Pair) -> Pair:
        target = checked(pair.target)
        source = target if pair.source is pair.target else checked(pair.source)
        error = pair.error or target.error or source.error
        return replace(pair, target=target, source=source, error=error)

    return replace(plan, pairs=tuple(pair_of(pair) for pair in plan.pairs))


def check_controls(session: Session) -> list[str]:
    """Warnings of the built-in controls (`franken.probe.controls`), of the methods and of hooks.
    Raises VerificationError when one fails in fp32.
    """
    failures = [
        f"{prompt.key}: a hook that returns its input changes the logits"
        for prompt in session.control_prompts
        if not controls.identity_hook_is_exact(session.loaded, prompt)
    ]
    for methods in by_class(session.plan.methods):
        failures += type(methods[0]).check(methods, session)
    return controls.conclude(failures, session.loaded.model.dtype)


def _measure(
    run: Run, session: Session, methods: Sequence[Method], done: set[Key], step: Step
) -> None:
    """Append the rows of methods of one class that `done` lacks, a block of pairs at a time."""
    plan, kind = session.plan, type(methods[0])
    keys = [(method.name, layer) for method in methods for layer in plan.layers]
    for start in range(0, len(plan.pairs), FLUSH):
        block = plan.pairs[start : start + FLUSH]
        stored = {p.id for p in block if all((m, p.id, layer) in done for m, layer in keys)}
        order = {pair.id: place for place, pair in enumerate(block)}
        rows: list[dict[str, object]] = []
        measured = _measurements(kind, methods, session, [p for p in block if p.id not in stored])
        for _, of_pair in groupby(measured, key=lambda m: m.pair.id):
            ms = list(of_pair)
            rows += [_row(plan, m) for m in ms if (m.method, m.pair.id, m.layer) not in done]
            step(len(ms), f"{kind.short or ms[0].method} {ms[0].pair.task}")
        rows.sort(key=lambda row: order[str(row["sample"])])
        run.append(rows)
        for pair in (p for p in block if p.id in stored):
            step(len(keys), f"{kind.short or methods[0].name} {pair.task}")


def _measurements(
    kind: type[Method], methods: Sequence[Method], session: Session, pairs: Sequence[Pair]
) -> Iterator[Measurement]:
    """All rows of some pairs: why there is nothing to measure, or what was measured."""
    usable = []
    for pair in pairs:
        error = pair.error if kind.needs_source else pair.target.error
        ineligible = pair.ineligible if kind.needs_source else None
        if error or ineligible:
            for method in methods:
                for layer in session.plan.layers:
                    yield Measurement(method.name, pair, layer, {}, error, ineligible)
        else:
            usable.append(pair)
    yield from kind.run(methods, session, usable)


def _row(plan: ProbePlan, measured: Measurement) -> dict[str, object]:
    """One row of samples.parquet."""
    pair = measured.pair
    known = tasks.is_puzzle(pair.task)
    return {
        "model": plan.checkpoint.name,
        "method": measured.method,
        "part": plan.part,
        "layer": measured.layer,
        "task": pair.task,
        "sample": pair.id,
        "world": tasks.get(pair.task).world if known else None,
        "question": pair.target.question,
        "gold": pair.target.answer,
        "source_gold": pair.source.answer,
        "fact": pair.fact,
        **asdict(Answered()),
        "error": measured.error,
        "ineligible": measured.ineligible,
        **measured.columns,
    }
