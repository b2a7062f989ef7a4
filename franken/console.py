"""What the command line shows: tables, progress, one JSON object, errors. Results on stdout,
everything else on stderr.
"""

import json as json_module
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from franken.errors import FrankenError

if TYPE_CHECKING:
    from franken.runs import Manifest


def finish_run(
    folder: Path,
    json: bool,
    *,
    rows: str,
    columns: str,
    metrics: Sequence[str] | None,
    component: str = "all",
) -> int:
    """Print a finished run, one table a method and metric; return 0, or 3 when some samples failed."""
    from franken.runs import load_run

    run = load_run(folder)
    manifest = run.manifest
    if json:
        records = json_module.loads(run.layers.to_json(orient="records") or "[]")
        print_object(
            {"folder": str(folder), "manifest": manifest.stored(), "layers": records}, json
        )
        return 3 if manifest.n_failed else 0
    table: Any = run.layers[(run.layers["component"] == component) & run.layers[rows].notna()]
    shown = tuple(dict.fromkeys(table["metric"])) if metrics is None else metrics
    by = ["method"] if rows == "metric" else ["method", "metric"]
    for group, cells in table[table["metric"].isin(shown)].groupby(by, sort=False):
        heads = list(dict.fromkeys(cells[columns]))
        body = [
            [key, *(_number(found[found[columns] == head]) for head in heads)]
            for key, found in cells.groupby(rows, sort=False)
        ]
        print(f"\n{' '.join(map(str, group))} [95 % interval]")
        print_table([rows, *heads], body)
    return _close(folder, manifest)


def print_components(folder: Path) -> None:
    """The rows of a probe's methods that are by component (patching's token groups), one table a
    method and task: layers down, components across; heads are in the figure.
    """
    from franken.probe.methods import of_rows
    from franken.runs import load_run

    table = load_run(folder).layers
    table = table.loc[table["layer"].notna() & ~table["component"].str.contains(", head")]
    for names, cells in table.groupby(["method", "metric", "task"], sort=False):
        method, metric, task = map(str, names)
        heading = of_rows(method).components
        if not heading:
            continue
        groups = list(dict.fromkeys(cells["component"]))
        body = [
            [layer, *(_share(rows[rows["component"] == group]) for group in groups)]
            for layer, rows in cells.groupby("layer", sort=True)
        ]
        print(f"\n{method} {task}: {heading} {metric} [95 % interval]")
        print_table(["layer", *groups], body)


def _share(cell: Any) -> str:
    """`0.55 [0.47 0.62]`, `-` without data; never a negative zero."""
    if not len(cell) or cell["value"].isna().all():
        return "-"
    value, low, high = (
        round(float(cell[name].iloc[0]), 2) + 0.0 for name in ("value", "ci_low", "ci_high")
    )
    return f"{value:.2f} [{low:.2f} {high:.2f}]"


def _close(folder: Path, manifest: "Manifest") -> int:
    print(f"{manifest.n_requested} requested, {manifest.n_ok} ok, {manifest.n_failed} failed")
    for figure in sorted((folder / "figures").glob("*.png")):
        print(figure)
    print(folder)
    warnings = manifest.warnings
    for warning in warnings[:5]:
        print(f"warning: {warning}", file=sys.stderr)
    if len(warnings) > 5:
        print(f"warning: and {len(warnings) - 5} more, in {folder / 'run.json'}", file=sys.stderr)
    return 3 if manifest.n_failed else 0


def finish_comparison(folder: Path, runs: list[Path], json: bool) -> int:
    """Print evaluations side by side: a row a measure, a column a model and a paired difference,
    over all tasks.

    Returns 0, or 3 when answers failed. Curves, correlations and single tasks are in the figures
    and in --json.
    """
    from franken.runs import load_run

    run = load_run(folder)
    failed = run.manifest.answers_failed
    if json:
        layers = json_module.loads(run.layers.to_json(orient="records") or "[]")
        content = {
            "folder": str(folder),
            "runs": [str(r) for r in runs],
            "manifest": run.manifest.stored(),
            "layers": layers,
        }
        print_object(content, json)
        return 3 if failed else 0
    models = run.manifest.config.models
    rows: Any = run.layers[run.layers["task"] == "all"]
    heads = [*models, *(f"{two} - {one}" for one, two in combinations(models, 2))]
    wanted = {f"{kind}@{j}" for kind in ("acc", "maj") for j in (1, *run.manifest.config.acc_at)}
    for arm, found in rows[rows["model"].isin(heads)].groupby("method", sort=False):
        names = [m for m in dict.fromkeys(found["metric"]) if "@" not in m or m in wanted]
        body = [
            [m, *(_number(found[(found["metric"] == m) & (found["model"] == h)]) for h in heads)]
            for m in names
        ]
        print(f"\n{arm}, mean of the tasks [95 % interval]")
        print_table(["", *heads], body)
    for row in rows[rows["metric"].str.contains("^solved|diversity ~", regex=True)].to_dict(
        "records"
    ):
        if row["value"] == row["value"]:
            print(
                f"{row['model']}: {row['metric']} {row['value']:.3g} [{row['ci_low']:.2f} {row['ci_high']:.2f}]"
            )
    requested = run.manifest.answers_requested
    print(f"{requested} answers requested, {requested - failed} ok, {failed} failed")
    for path in [*sorted((folder / "figures").glob("*.png")), *runs, folder]:
        print(path)
    return 3 if failed else 0


def finish_diff(folder: Path, json: bool) -> int:
    """Print what changed by part and by layer, and what that means; 3 when tensors could not be
    compared.
    """
    from franken.diff.summary import layer_table, part_table, sentences
    from franken.runs import load_run

    run = load_run(folder)
    if json:
        return finish_run(folder, json, rows="layer", columns="part", metrics=None)
    print_table(*layer_table(run))
    print_table(*part_table(run))
    for sentence in sentences(run):
        print(sentence)
    return _close(folder, run.manifest)


def finish_study(page: Path, json: bool) -> int:
    """Say where the page is and what it found; 3 when a step failed or samples did."""
    from dataclasses import asdict

    from franken.report.headlines import all_headlines
    from franken.runs import open_study

    found = open_study(page.parent)
    study = found.study
    failed = [step for step in study.steps if step.error]
    lost = {run.folder.name: n for run in found.runs if (n := run.manifest.n_failed)}
    answers = all_headlines(found)
    if json:
        record = study.model_dump(mode="json", include={"steps", "notes", "left_out"})
        headlines = [asdict(answer) for answer in answers]
        print_object(
            {"page": str(page), "headlines": headlines, **record, "failed samples": lost}, json
        )
    else:
        for answer in answers:
            tested = f" ({answer.test})" if answer.test else ""
            print(
                f"\n{answer.question}\n  {answer.answer}\n  {answer.claim}: {answer.verdict}{tested}"
            )
        for note in study.notes:
            print(f"note: {note}", file=sys.stderr)
        for part in study.left_out:
            print(f"left out: {part.what}: {part.why}", file=sys.stderr)
        for step in failed:
            print(f"failed: {step.what}: {step.error}", file=sys.stderr)
        for run, n in lost.items():
            print(f"failed: {n} samples of {run}", file=sys.stderr)
        print(f"\nthe page: {page}")
    return 3 if failed or lost else 0


def _number(cell: Any) -> str:
    """`0.93 [0.88 0.96]`, `-` for null, nothing where there is no row."""
    if not len(cell):
        return ""
    row = cell.iloc[0]
    if row["value"] != row["value"]:
        return "-"
    interval = (
        f" [{row['ci_low']:.2f} {row['ci_high']:.2f}]" if row["ci_low"] == row["ci_low"] else ""
    )
    return f"{row['value']:.3g}{interval}"


def print_object(content: dict[str, Any], json: bool) -> int:
    if json:
        print(json_module.dumps(content, indent=2, default=str))
    else:
        for key, value in content.items():
            print(f"{key}: {value if not isinstance(value, list) else ', '.join(map(str, value))}")
    return 0


def print_table(head: list[Any], body: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    table = Table(*(str(h) for h in head))
    for row in body:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def print_verdicts(tasks: dict[str, Any]) -> None:
    """The rows of each task that agree, and every one that does not, with the proof."""
    body = [
        [name, found["rows"], found["agree"], len(found["disagree"])]
        for name, found in tasks.items()
    ]
    print_table(["task", "rows", "agree", "do not"], body)
    for row in (row for found in tasks.values() for row in found["disagree"]):
        ours = "cannot be judged" if row["ours"] is None else f"ours {row['ours']!r}"
        print(f"{row['id']}: published {row['published']!r}, {ours}: {row['why']}")


def print_freeze_table(rows: list[dict[str, Any]]) -> None:
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        key = (
            row["part"],
            "-" if row["layer"] is None else row["layer"],
            "frozen" if row["frozen"] else "trains",
        )
        counted = groups.setdefault(key, [0, 0])
        counted[0] += row["tensors"]
        counted[1] += row["parameters"]
    print_table(
        ["part", "layer", "", "tensors", "parameters"],
        [[*k, n, f"{p:,}"] for k, (n, p) in groups.items()],
    )


def print_plan(plan: Any, json: bool, *, whole: bool) -> None:
    """A merge before it happens: the rules in words and the tensors in groups; as JSON all of it,
    if `whole`.
    """
    from franken.merge.plan import describe_rules, summarise

    if json:
        if whole:
            print_object(plan.to_dict(), json)
        return
    for rule in describe_rules(plan):
        print(rule)
    print(f"the rest from {plan.base.name}")
    for name, found in plan.allowed.items():
        for difference in found:
            print(f"allowed: {name}: {difference.kind}: {difference.text}")
    rows = summarise(plan.rows)
    print_table(list(rows[0]), [[*list(row.values())[:-1], f"{row['bytes']:,}"] for row in rows])


def print_splices(folder: Path, metrics: list[str]) -> None:
    """The gains of a sweep's written-out hybrids over all tasks, if there are any."""
    from franken.runs import load_run

    rows: Any = load_run(folder).layers
    rows = rows[(rows["method"] == "splice") & (rows["task"] == "all")]
    names = list(dict.fromkeys(rows["model"]))
    if names:
        cells = [
            [n, *(_number(rows[(rows["model"] == n) & (rows["metric"] == m)]) for m in metrics)]
            for n in names
        ]
        print_table(["hybrid", *metrics], cells)


def print_methods(json: bool) -> int:
    """All merge methods, with their papers and parameters."""
    from dataclasses import asdict

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
def progress_bar(show: bool, *, unit: str = "", total: int | None = None) -> Iterator[Any]:
    """A progress bar on stderr, on a terminal only. Yields `tick(done, total, what)`; for bytes
    `tick(more, None, what)`.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counter = (
        (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(),)
    )
    columns = (TextColumn("{task.description}"), BarColumn(), *counter, TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, disable=not (show and console.is_terminal), transient=True
    ) as bar:
        line = bar.add_task("", total=total)

        def tick(done: int, of: int | None, what: str) -> None:
            if unit == "bytes":
                bar.update(line, advance=done, description=what)
            else:
                bar.update(line, completed=done, total=of, description=what)

        yield tick


def training_lines() -> Any:
    """A line on stderr every few updates: step, loss, rewards, held-out accuracy."""
    shown = ("loss", "token_accuracy", "reward_accuracy", "reward_format", "strategies", "entropy")

    def report(line: dict[str, Any]) -> None:
        step, total = line["step"], line["total"]
        if step % 10 and step != total and "held_out" not in line:
            return
        of = f"/{total}" if total else f" ({line['cpu_seconds']:.0f} of {line['budget']:.0f} CPU-s)"
        numbers = "  ".join(f"{k} {line[k]:.3f}" for k in shown if k in line)
        held = line.get("held_out", {})
        look = f"  held-out acc@1 {held['acc@1']:.3f} acc@4 {held['acc@4']:.3f}" if held else ""
        print(f"{line['kind']} {step}{of}  {numbers}{look}", file=sys.stderr, flush=True)

    return report


def step_lines() -> Any:
    """One line on stderr for every step that starts, ends, or fails."""
    import time

    began = time.monotonic()

    def line(step: str, state: str, text: str) -> None:
        if state != "progress":
            print(
                f"[{time.monotonic() - began:5.0f} s] {state:7} {step}  {text}",
                file=sys.stderr,
                flush=True,
            )

    return line


def say_error(error: FrankenError) -> None:
    lines = [f"error: {error.what}"]
    lines += [f"  why: {error.why}"] if error.why else []
    lines += [f"  fix: {error.fix}"] if error.fix else []
    print("\n".join(lines), file=sys.stderr)
