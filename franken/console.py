"""What the command line shows: tables, progress, one JSON object, errors. Results on stdout,
everything else on stderr.
"""

from __future__ import annotations

import io
import json as json_module
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from franken.report.tables.table import Table, to_rich

if TYPE_CHECKING:
    import pandas as pd

    from franken.merge.plan import Plan
    from franken.runs import LoadedRun, RunSet
    from franken.runs.training import Progress
    from franken.tasks.algopuzzlevqa import Verified

Tick = Callable[[int, int | None, str], None]
WARNINGS = 5  # of a run that are printed; all are in its run.json


def any_character() -> None:
    """Let no character end a run: what the terminal's encoding lacks is written as `\\u2192`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def finish_run(
    folder: Path,
    json: bool,
    *,
    rows: str,
    columns: str,
    metrics: Sequence[str] | None,
    component: str = "all",
) -> int:
    """Print a finished run, one table a method and metric (a metric alone where methods stand side
    by side, as components may below each other); return 0, or 3 when some samples failed.
    """
    from franken.report.tables.measurements import Measurements, brief
    from franken.runs import load_run

    run = load_run(folder)
    if json:
        content = {
            "folder": str(folder),
            "manifest": run.manifest.stored(),
            "layers": _records(run.layers),
        }
        print_object(content, json)
        return _code(run.manifest.n_failed)
    cells = run.layers[run.layers[rows].notna()]
    cells = cells if rows == "component" else cells[cells["component"] == component]
    cells = cells if metrics is None else cells[cells["metric"].isin(metrics)]
    by = [name for name in ("method", "metric") if name not in (rows, columns)]
    for group, part in cells.groupby(by, sort=False):
        print(f"\n{' '.join(map(str, group))} [95 % interval]")
        print_grid(Measurements("", "", part, (rows,), (columns,), write=brief).table())
    return _close(run)


def print_components(folder: Path) -> None:
    """The rows of a probe's methods that are by component (patching's token groups), one table a
    method and task: layers down, components across; heads are in the figure.
    """
    from franken.probe.methods import of_rows
    from franken.report.tables.measurements import Measurements, share
    from franken.runs import load_run

    table = load_run(folder).layers
    table = table.loc[table["layer"].notna() & ~table["component"].str.contains(", head")]
    for names, cells in table.groupby(["method", "metric", "task"], sort=False):
        method, metric, task = map(str, names)
        heading = of_rows(method).components
        if not heading or cells["value"].isna().all():
            continue
        print(f"\n{method} {task}: {heading} {metric} [95 % interval]")
        cells = cells.sort_values("layer", kind="stable")
        print_grid(Measurements("", "", cells, ("layer",), ("component",), write=share).table())


def finish_comparison(folder: Path, runs: Sequence[Path], json: bool) -> int:
    """Print evaluations side by side: a row a measure, a column a model and a paired difference,
    over all tasks.

    Returns 0, or 3 when answers failed. Curves, correlations and single tasks are in the figures
    and in --json.
    """
    from franken.report.tables.measurements import Measurements, brief
    from franken.runs import load_run

    run = load_run(folder)
    manifest = run.manifest
    failed, requested = manifest.answers_failed, manifest.answers_requested
    if json:
        content = {
            "folder": str(folder),
            "runs": [str(r) for r in runs],
            "manifest": manifest.stored(),
        }
        print_object({**content, "layers": _records(run.layers)}, json)
        return _code(failed)
    models = manifest.config.models
    rows = run.layers[run.layers["task"] == "all"]
    heads = [*models, *(f"{two} - {one}" for one, two in combinations(models, 2))]
    ks = {f"{kind}@{k}" for kind in ("acc", "maj") for k in (1, *manifest.config.acc_at)}
    shown = rows["model"].isin(heads) & (
        ~rows["metric"].str.contains("@") | rows["metric"].isin(ks)
    )
    for arm, part in rows[shown].groupby("method", sort=False):
        print(f"\n{arm}, mean of the tasks [95 % interval]")
        table = Measurements("", "", part, ("metric",), ("model",), columns=heads, write=brief)
        print_grid(table.table())
    beside = rows["metric"].str.contains("^solved|diversity ~", regex=True) & rows["value"].notna()
    for row in rows[beside].itertuples():
        interval = f"[{row.ci_low:.2f} {row.ci_high:.2f}]"
        print(f"{row.model}: {row.metric} {row.value:.3g} {interval}")
    print(f"{requested} answers requested, {requested - failed} ok, {failed} failed")
    for path in [*sorted((folder / "figures").glob("*.png")), *runs, folder]:
        print(path)
    return _code(failed)


def finish_diff(folder: Path, json: bool) -> int:
    """Print what changed by part and by layer, and what that means; 3 when tensors could not be
    compared.
    """
    from franken.diff.summary import (
        layer_table,
        mixture_table,
        part_table,
        principal_table,
        sentences,
    )
    from franken.runs import load_run

    if json:
        return finish_run(folder, json, rows="layer", columns="part", metrics=None)
    run = load_run(folder)
    print_table(*layer_table(run))
    if run.manifest.mixtures:
        print_table(*mixture_table(run))
    print_table(*part_table(run))
    header, body = principal_table(run)
    if body:
        print_table(header, body)
    for sentence in sentences(run):
        print(sentence)
    return _close(run)


def finish_forks(folder: Path, json: bool) -> int:
    """Print where two models part, and what those places carry; 3 when some replies failed."""
    from franken.report.tables.forks import tables_of
    from franken.runs import load_run

    if json:
        return finish_run(folder, json, rows="metric", columns="model", metrics=None)
    run = load_run(folder)
    for table in tables_of(run.layers, run.label):
        print_titled(table.table())
    return _close(run)


def finish_along(folder: Path, json: bool, runs: RunSet) -> int:
    """Print a trajectory: every run, every layer of the first, and what is known of the
    checkpoints' behaviour from other `runs`; 3 when tensors could not be compared.
    """
    from franken.diff.along_summary import behaviour_table, layer_table, run_table, sentences
    from franken.report.behaviour import behaviour
    from franken.runs import load_run

    run = load_run(folder)
    known = behaviour(run, runs)
    if json:
        content = {
            "folder": str(folder),
            "manifest": run.manifest.stored(),
            "layers": _records(run.layers),
            "behaviour": _records(known),
        }
        print_object(content, json)
        return _code(run.manifest.n_failed)
    print_table(*run_table(run))
    for record in run.manifest.trajectories[:1]:
        print(f"\n{record.run}, by layer")
        print_table(*layer_table(run, record.run))
    if len(known):
        print_table(*behaviour_table(known))
    for sentence in sentences(run):
        print(sentence)
    return _close(run)


def finish_study(page: Path, json: bool) -> int:
    """Say where the page is and what it found; 3 when a step failed or samples did."""
    from franken.report.headlines import all_headlines
    from franken.runs import open_study

    runs = open_study(page.parent)
    study = runs.study
    failed = [step for step in study.steps if step.error]
    lost = {run.folder.name: n for run in runs.runs if (n := run.manifest.n_failed)}
    answers = all_headlines(runs)
    if json:
        record = study.model_dump(mode="json", include={"steps", "notes", "left_out"})
        content = {"page": str(page), "headlines": [asdict(a) for a in answers], **record}
        print_object({**content, "failed samples": lost}, json)
        return _code(failed or lost)
    for answer in answers:
        tested = f" ({answer.test})" if answer.test else ""
        print(f"\n{answer.question}\n  {answer.answer}")
        print(f"  {answer.claim}: {answer.verdict}{tested}")
    lines = [f"note: {note}" for note in study.notes]
    lines += [f"left out: {part.what}: {part.why}" for part in study.left_out]
    lines += [f"failed: {step.what}: {step.error}" for step in failed]
    lines += [f"failed: {n} samples of {run}" for run, n in lost.items()]
    for line in lines:
        print(line, file=sys.stderr)
    print(f"\nthe page: {page}")
    return _code(failed or lost)


def _close(run: LoadedRun) -> int:
    manifest = run.manifest
    print(f"{manifest.n_requested} requested, {manifest.n_ok} ok, {manifest.n_failed} failed")
    for path in [*sorted((run.folder / "figures").glob("*.png")), run.folder]:
        print(path)
    warnings = manifest.warnings
    lines = list(warnings[:WARNINGS])
    if len(warnings) > WARNINGS:
        lines.append(f"and {len(warnings) - WARNINGS} more, in {run.folder / 'run.json'}")
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)
    return _code(manifest.n_failed)


def _code(failures: object) -> int:
    """The exit code of a run that finished: 3 where something in it failed."""
    return 3 if failures else 0


def _records(table: pd.DataFrame) -> list[object]:
    return json_module.loads(table.to_json(orient="records") or "[]")


def print_object(content: Mapping[str, object], json: bool) -> int:
    """One JSON object, or a line a key."""
    if json:
        print(json_module.dumps(content, indent=2, default=str))
    else:
        for key, value in content.items():
            print(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return 0


def print_table(heads: Iterable[object], rows: Iterable[Sequence[object]]) -> None:
    """Cells of any kind under their heads."""
    print_grid(Table([str(head) for head in heads], list(rows)))


def print_grid(table: Table) -> None:
    """The grid of a table, without its title and note; 160 characters wide off a terminal."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=160)).print(to_rich(table))


def print_titled(table: Table) -> None:
    """A table below its title and above its note."""
    units = " (%)" if table.percent else ""
    print(f"\n{table.title}{units}{' [95 % interval]' if table.intervals else ''}")
    print_grid(table)
    if table.note:
        print(table.note)


def print_verdicts(tasks: Mapping[str, Verified]) -> None:
    """The rows of each task that agree, and every one that does not, with the proof."""
    body = [[name, t["rows"], t["agree"], len(t["disagree"])] for name, t in tasks.items()]
    print_table(["task", "rows", "agree", "do not"], body)
    for row in (row for task in tasks.values() for row in task["disagree"]):
        ours = "cannot be judged" if row["ours"] is None else f"ours {row['ours']!r}"
        print(f"{row['id']}: published {row['published']!r}, {ours}: {row['why']}")


class Frozen(TypedDict):
    """Tensors of one kind in a training plan; `layer` is None outside of layers."""

    part: str
    layer: int | None
    frozen: bool
    tensors: int
    parameters: int


def print_freeze_table(rows: Iterable[Frozen]) -> None:
    """Tensors and parameters that train or are frozen, by part and layer."""
    counts: dict[tuple[str, int | str, str], list[int]] = {}
    for row in rows:
        layer = "-" if row["layer"] is None else row["layer"]
        count = counts.setdefault(
            (row["part"], layer, "frozen" if row["frozen"] else "trains"), [0, 0]
        )
        count[0] += row["tensors"]
        count[1] += row["parameters"]
    heads = ["part", "layer", "", "tensors", "parameters"]
    print_table(heads, [[*key, n, f"{p:,}"] for key, (n, p) in counts.items()])


def print_plan(plan: Plan, json: bool, *, whole: bool) -> None:
    """A merge before it happens: the rules in words and the tensors in groups; as JSON all of it,
    if `whole`.
    """
    from franken.merge.described import HEAD, describe_rules, summarise

    if json:
        if whole:
            print_object(plan.to_dict(), json)
        return
    for rule in describe_rules(plan):
        print(rule)
    print(f"the rest from {plan.base.name}")
    for name, differences in plan.allowed.items():
        for difference in differences:
            print(f"allowed: {name}: {difference.kind}: {difference.text}")
    groups = summarise(plan.rows)
    print_table(HEAD, [[*group[:-1], f"{group.bytes:,}"] for group in groups])


def print_splices(folder: Path, metrics: Sequence[str]) -> None:
    """The gains of a sweep's written-out hybrids over all tasks, if there are any."""
    from franken.report.tables.measurements import Measurements, brief
    from franken.runs import load_run

    rows = load_run(folder).layers
    rows = rows[(rows["method"] == "splice") & (rows["task"] == "all")]
    rows = rows[rows["metric"].isin(metrics)]
    if len(rows):
        layout = ("model",), ("metric",)
        table = Measurements("", "", rows, *layout, columns=metrics, write=brief).table()
        print_table(["hybrid", *metrics], table.rows)


def print_methods(json: bool) -> int:
    """All merge methods, with their papers and parameters."""
    from franken.merge.methods import all_methods

    methods = all_methods()
    if json:
        return print_object({"methods": [asdict(m) for m in methods]}, json)
    print_table(
        ["method", "", "base", "inputs", "parameters", "paper"],
        [[m.name, m.title, m.base, m.inputs, ", ".join(m.parameters), m.paper] for m in methods],
    )
    return 0


@contextmanager
def progress_bar(show: bool, *, unit: str = "", total: int | None = None) -> Iterator[Tick]:
    """A progress bar on stderr, on a terminal only. Yields `tick(done, total, what)`; for bytes
    `tick(more, None, what)`.
    """
    from rich import progress
    from rich.console import Console

    of_bytes = unit == "bytes"
    counter = (progress.DownloadColumn(), progress.TransferSpeedColumn())
    console = Console(stderr=True)
    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        *(counter if of_bytes else (progress.MofNCompleteColumn(),)),
        progress.TimeRemainingColumn(),
        console=console,
        disable=not (show and console.is_terminal),
        transient=True,
    ) as bar:
        line = bar.add_task("", total=total)

        def tick(done: int, of: int | None, what: str) -> None:
            if of_bytes:
                bar.update(line, advance=done, description=what)
            else:
                bar.update(line, completed=done, total=of, description=what)

        yield tick


def training_lines() -> Callable[[Progress], None]:
    """A line on stderr every few updates: step, loss, rewards, held-out accuracy."""
    shown = ("loss", "token_accuracy", "reward_accuracy", "reward_format", "strategies", "entropy")

    def report(now: Progress) -> None:
        step, held = now.update.step, now.update.held_out
        if step % 10 and step != now.steps and held is None:
            return
        line = now.update.numbers()
        numbers = "  ".join(f"{k} {line[k]:.3f}" for k in shown if k in line)
        told = [f"{k} {held[k]:.3f}" for k in ("acc@1", "acc@4", "loss") if held and k in held]
        look = f"  held-out {' '.join(told)}" if told else ""
        of = f"/{now.steps}"
        if not now.steps:
            of = f" ({now.update.cpu_seconds:.0f} of {now.cpu_seconds:.0f} CPU-s)"
        print(f"{now.kind} {step}{of}  {numbers}{look}", file=sys.stderr, flush=True)

    return report


def step_lines() -> Callable[[str, str, str], None]:
    """One line on stderr for every step that starts, ends, or fails."""
    began = time.monotonic()

    def line(step: str, state: str, text: str) -> None:
        if state != "progress":
            seconds = time.monotonic() - began
            print(f"[{seconds:5.0f} s] {state:7} {step}  {text}", file=sys.stderr, flush=True)

    return line
