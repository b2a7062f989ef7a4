"""`franken autopsy`, `quickstart` and `report`: whole studies and their page."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from franken.cli.options import (
    Data,
    Device,
    Devices,
    DryRun,
    Dtype,
    Json,
    Seed,
    Tasks,
    split_list,
    whole_numbers,
)
from franken.console import finish_study, print_object, print_table, step_lines
from franken.devices import lanes_of, parse_devices
from franken.errors import UsageError
from franken.outputs import output_folder
from franken.secrets import redact


def autopsy(
    checkpoints: Annotated[list[str], typer.Argument(help="BASE RL, or BASE SFT RL.")],
    out: Annotated[Path, typer.Option(help="The study's own folder.")],
    tasks: Tasks = "",
    samples: Annotated[int, typer.Option(help="Held-out puzzles per task.")] = 100,
    probe_samples: Annotated[int, typer.Option(help="Image pairs per task.")] = 40,
    n: Annotated[int, typer.Option(help="Samples per prompt.")] = 4,
    k: Annotated[str, typer.Option(help="The k of acc@k, with commas.")] = "1,4",
    extra: Annotated[
        list[str] | None,
        typer.Option(help="LABEL=CHECKPOINT to evaluate as well: control=…, frozen-late=…."),
    ] = None,
    controls: Annotated[
        int, typer.Option(min=0, help="Random layer sets of each size beside the hybrids.")
    ] = 2,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers that are decoded together.")] = 64,
    without: Annotated[
        str,
        typer.Option(
            help="Leave out, with commas: scores, stitch, attention, forks, diversity, arms, "
            "spectra, probe, diff, hybrids."
        ),
    ] = "",
    patch: Annotated[
        bool, typer.Option("--patch", help="Activation patching as well; dear.")
    ] = False,
    data: Data = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    devices: Devices = "",
    jobs: Annotated[int | None, typer.Option(help="Processes side by side.")] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="30m, 2h: at most the sizes asked for, as much smaller as it takes; said on the "
            "page."
        ),
    ] = "",
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Everything at once: probe, diff, hybrids and evaluations, on one page. The same command
    resumes.
    """
    from franken.study.autopsy import Settings, default_jobs, fit_budget, plan_autopsy, run_autopsy

    if len(checkpoints) not in (2, 3):
        raise UsageError(
            f"{len(checkpoints)} checkpoints given", why="autopsy takes BASE RL or BASE SFT RL"
        )
    base, sft, rl = (
        checkpoints[0],
        checkpoints[1] if len(checkpoints) == 3 else None,
        checkpoints[-1],
    )
    lanes = parse_devices(devices)
    settings = Settings(
        tasks=tuple(split_list(tasks)),
        samples=samples,
        n=n,
        k=tuple(whole_numbers(k)),
        probe_samples=probe_samples,
        seed=seed,
        data=str(data) if data else None,
        device=device,
        dtype=dtype,
        controls=controls,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        without=tuple(split_list(without)),
        patch=patch,
    )
    for pair in extra or []:
        if "=" not in pair:
            raise UsageError(
                f"cannot read --extra {pair}",
                why="it has no =",
                fix="write --extra frozen-late=FOLDER",
            )
    labels = [pair.split("=", 1)[0] for pair in extra or []]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UsageError(
            f"--extra {twice[0]} is given twice", fix="give each checkpoint a label of its own"
        )
    more = dict(pair.split("=", 1) for pair in extra or [])
    out = output_folder(out)
    if dry_run:
        notes: tuple[str, ...] = (f"lanes: {', '.join(lanes)}",) if lanes else ()
        if lanes:
            settings = replace(settings, device=lanes_of(lanes, jobs, device))
            device, jobs = settings.device, len(lanes)
        if budget:
            fitted = fit_budget(
                base, sft, rl, out=out, settings=settings, budget=budget, jobs=jobs, extra=more
            )
            settings, notes = fitted.settings, (*notes, *fitted.notes)
        study, steps = plan_autopsy(base, sft, rl, out=out, settings=settings, extra=more)
        return _say_cost(steps, out, device, jobs or default_jobs(study), json, notes)
    report = None if json else step_lines()
    page = run_autopsy(
        base,
        sft,
        rl,
        out=out,
        settings=settings,
        extra_models=more,
        jobs=jobs,
        devices=lanes,
        report=report,
        budget=budget,
        command=shlex.join(["franken", *map(redact, sys.argv[1:])]),
    )
    return finish_study(page, json)


def _say_cost(
    steps: Sequence[Any], out: Path, device: str, jobs: int, json: bool, notes: Sequence[str]
) -> int:
    """The table of `--dry-run`."""
    from franken.study.cost import explained, lines, size, span, totals
    from franken.study.rates import find_rates, machine
    from franken.study.steps import stored_steps

    done = stored_steps(steps, out)
    rates = find_rates(out, device=device, jobs=jobs, needed=len(done) < len(steps))
    table = lines(steps, done.keys(), rates)
    whole = totals(table, jobs)
    if json:
        cost = {
            "steps": [x.to_dict() for x in table],
            "total": asdict(whole),
            "how": explained(rates),
            "machine": machine(),
        }
        return print_object({**cost, "notes": list(notes)}, json)
    head = ["step", "calls", "prompts", "new tokens", "tensors", "read", "written", "time", "how"]
    body = [
        [
            x.step.what,
            x.cost.calls,
            x.cost.prompts,
            x.cost.new_tokens,
            x.cost.tensors,
            size(x.cost.read),
            size(x.cost.written),
            span(x.seconds),
            x.how,
        ]
        for x in table
    ]
    print_table(head, body)
    print(
        f"\nto do: {whole.steps - whole.done} of {whole.steps} steps, {whole.calls:,} calls, "
        f"{whole.answers:,} answers, {size(whole.read)} to read, {size(whole.written)} written, "
        f"about {span(whole.seconds)} in {jobs} {'lane' if jobs == 1 else 'lanes'}"
    )
    print(f"times: {explained(rates)}")
    for note in notes:
        print(note)
    return 0


def quickstart(
    out: Annotated[Path, typer.Option(help="The quickstart's own folder.")] = Path("quickstart"),
    from_: Annotated[str, typer.Option("--from", help="sft, or base: make SFT live too.")] = "sft",
    full: Annotated[
        bool, typer.Option("--full", help="More steps and samples; up to an hour.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Processes side by side.")] = 2,
    json: Json = False,
) -> int:
    """The whole study on your laptop: train a tiny VLM with RL, then look at what RL changed."""
    from trainer.quickstart import run_quickstart

    if from_ not in ("sft", "base"):
        raise UsageError(f"cannot start from {from_!r}", why="it starts from sft or base")
    report = None if json else step_lines()
    page = run_quickstart(
        output_folder(out),
        start="base" if from_ == "base" else "sft",
        full=full,
        jobs=jobs,
        report=report,
    )
    return finish_study(page, json)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="The folder of an autopsy or a quickstart; or run folders of any verbs."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Where the page of run folders goes; report-<hash> by default."),
    ] = None,
    base: Annotated[
        str, typer.Option(help="Which model is the base: a checkpoint, a label, a content hash.")
    ] = "",
    sft: Annotated[str, typer.Option(help="Which is the SFT.")] = "",
    rl: Annotated[str, typer.Option(help="Which is the RL.")] = "",
    json: Json = False,
) -> int:
    """Write the page of a study again, or a page over runs that exist; no model is loaded."""
    from franken.report.page.build import build_page
    from franken.runs.lineage import Said
    from franken.runs.record import FILE

    said = Said(base, sft, rl)
    if len(runs) == 1 and (runs[0] / FILE).exists():
        if out or any(said):
            raise UsageError(
                f"{runs[0]} is a study",
                "its page is written there, and it knows its models",
                "drop the options",
            )
        return finish_study(build_page(runs[0]), json)
    from franken.report.assemble import assemble

    return finish_study(build_page(assemble(runs, out=out, said=said)), json)
