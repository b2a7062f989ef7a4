"""`franken merge` and `franken merge-sweep`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from franken.cli.options import (
    Allow,
    Data,
    Device,
    Devices,
    DryRun,
    Dtype,
    Json,
    Out,
    Seed,
    Tasks,
    numbers,
    split_list,
    whole_numbers,
)
from franken.console import (
    finish_run,
    print_methods,
    print_object,
    print_plan,
    print_splices,
    progress_bar,
    step_lines,
)
from franken.devices import lanes_of, parse_devices
from franken.errors import UsageError, check_known
from franken.outputs import output_folder

if TYPE_CHECKING:
    from franken.study.surgery import Surgery


def merge(
    checkpoints: Annotated[
        list[str] | None, typer.Argument(help="BASE DONOR …, each a folder or NAME=folder.")
    ] = None,
    layers: Annotated[
        str, typer.Option(help="What the donor gives: 16-28 (half-open), early, vision:0-8.")
    ] = "",
    graft: Annotated[
        list[str] | None, typer.Option(help="DONOR:16-28 or DONOR:vision, again for each donor.")
    ] = None,
    splice: Annotated[str, typer.Option(help="Thirds of the decoder by name, as SFT:RL:RL.")] = "",
    take: Annotated[
        str, typer.Option(help="vision, projector, embed, norm, head; they stay otherwise.")
    ] = "",
    components: Annotated[
        str, typer.Option(help="attn, mlp, norm: only these of the layers.")
    ] = "",
    alpha: Annotated[
        str, typer.Option(help="The donor's share, 0.5; or over the layers, 0,1.")
    ] = "",
    method: Annotated[str, typer.Option(help="A method of mergekit's; see --list-methods.")] = "",
    param: Annotated[
        list[str] | None, typer.Option(help="Of the method: density=0.5, t=0,1, weight.RL=0.3.")
    ] = None,
    relative_to: Annotated[
        str, typer.Option(help="What task vectors start from; the base by default.")
    ] = "",
    noise: Annotated[
        float | None, typer.Option(help="Ablate: replace this share of the weights by noise.")
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            help="Only this part of the donor's update: rank:8, top:1%, sign, norms, "
            "rotation, scale, and the "
            "nulls random-rank:8, random:1%; of every tensor, or of --layers, --components."
        ),
    ] = "",
    drop: Annotated[str, typer.Option(help="All of the update but this part.")] = "",
    recipe: Annotated[Path | None, typer.Option(help="All of this from a YAML file.")] = None,
    allow: Allow = "",
    list_methods: Annotated[
        bool, typer.Option("--list-methods", help="Every method, its paper, its parameters.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Where the hybrid goes.")] = None,
    verify: Annotated[str, typer.Option(help="values, or load: also load the result.")] = "values",
    seed: Seed = 0,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Does the change transfer? Make a hybrid of checkpoints, exactly, and prove it."""
    from franken.merge.options import recipe_from_options
    from franken.merge.plan import open_all, plan_merge
    from franken.merge.written import read_recipe

    if list_methods:
        return print_methods(json)
    options: dict[str, Any] = {
        "layers": layers,
        "graft": graft or [],
        "splice": splice,
        "take": take,
        "components": components,
        "alpha": alpha,
        "method": method,
        "param": param or [],
        "relative_to": relative_to,
        "noise": noise,
        "keep": keep,
        "drop": drop,
        "seed": seed,
        "allow": allow,
    }
    check_known("--verify", [verify], ("values", "load"))
    if recipe and (checkpoints or any(options.values())):
        raise UsageError(
            "--recipe says it all",
            why="other options contradict it",
            fix="write them into the recipe",
        )
    made = read_recipe(recipe) if recipe else recipe_from_options(checkpoints or [], **options)
    plan = plan_merge(made, open_all(made))
    print_plan(plan, json, whole=dry_run)
    if dry_run:
        return 0
    if out is None:
        raise UsageError(
            "no --out given", why="the hybrid needs a folder", fix="add --out DIR, or --dry-run"
        )
    from franken.lock import locked
    from franken.merge.run import run_merge

    out = output_folder(out)
    with locked(out), progress_bar(not json, unit="bytes", total=2 * plan.base.nbytes) as tick:
        folder = run_merge(
            plan,
            out,
            verify_load=verify == "load",
            progress=lambda n: tick(n, None, "write and verify"),
        )
    if json:
        return print_object(
            {"folder": str(folder), "verified": True, "tensors": len(plan.rows)}, json
        )
    print(f"{folder}: {len(plan.rows)} tensors, every one verified")
    return 0


def merge_sweep(
    base: Annotated[str, typer.Argument(help="The checkpoint that receives.")],
    donor: Annotated[str, typer.Argument(help="The checkpoint that gives layers.")],
    window: Annotated[int, typer.Option(help="Layers of a window.")] = 4,
    stride: Annotated[int, typer.Option(help="Layers from one window to the next.")] = 1,
    controls: Annotated[
        int | None,
        typer.Option(help="Random sets of as many layers (8); with --along, random parts (1)."),
    ] = None,
    along: Annotated[
        str,
        typer.Option(
            help="Instead of windows, parts of the update: rank, top, sign, norms, and random for "
            "random parts beside them; each kept alone, and left out alone."
        ),
    ] = "",
    ranks: Annotated[str, typer.Option(help="Of --along rank.")] = "1,4,16",
    shares: Annotated[str, typer.Option(help="Of --along top, in percent.")] = ".1,1,10",
    layers: Annotated[str, typer.Option(help="With --along: of these layers only.")] = "",
    components: Annotated[str, typer.Option(help="With --along: attn, mlp, norm only.")] = "",
    hybrid: Annotated[
        list[str] | None,
        typer.Option(help="Beside the windows: LABEL=DONOR:4-8+OTHER:8-12, again for each."),
    ] = None,
    scores: Annotated[
        str, typer.Option(help="acc, or m: the gain in M_vis, M_v2r and M_rea too.")
    ] = "acc",
    allow: Allow = "",
    tasks: Tasks = "",
    samples: Annotated[int, typer.Option(help="Held-out puzzles per task.")] = 100,
    n: Annotated[int, typer.Option(help="Samples per prompt.")] = 4,
    data: Data = None,
    out: Out = Path("runs"),
    seed: Seed = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    device: Device = "auto",
    devices: Devices = "",
    dtype: Dtype = "auto",
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Which layers carry the change? Every window of the donor's layers, in memory, beside random
    sets of as many.
    """
    from franken.evaluate.graft import parse_graft
    from franken.evaluate.run import plan_eval
    from franken.study.surgery import plan_surgery
    from franken.study.sweep import plan_sweep, run_sweep, verdict

    out = output_folder(out)
    asked: dict[str, Any] = {
        "tasks": split_list(tasks) or None,
        "samples": samples,
        "n": n,
        "k": (1,),
        "max_new_tokens": max_new_tokens,
        "data": data,
    }
    if along:
        if devices or hybrid or scores != "acc":
            raise UsageError(
                "--along does not go with --devices, --hybrid and --scores",
                why="it tries parts of the update, one after the other, by acc@1",
                fix="leave them out",
            )
        surgery = plan_surgery(
            base,
            donor,
            along=split_list(along),
            ranks=whole_numbers(ranks),
            shares=numbers(shares),
            controls=1 if controls is None else controls,
            layers=layers,
            components=split_list(components),
            allow=split_list(allow),
        )
        return _surgery(surgery, asked, out, seed, device, dtype, dry_run, json)
    sweep = plan_sweep(
        base,
        donor,
        window=window,
        stride=stride,
        controls=8 if controls is None else controls,
        seed=seed,
        allow=split_list(allow),
        splices=[parse_graft(text) for text in hybrid or []],
        scores=scores,
    )
    names = plan_eval(seed=seed, **asked).tasks
    lanes = parse_devices(devices)
    if lanes:
        lanes_of(lanes, None, device)
    if dry_run:
        prompts = sweep.evaluations * len(names) * samples * len(sweep.arms)
        hybrids: dict[str, Any] = {h.label: h.ranges for h in sweep.hybrids}
        hybrids |= {s.label: s.parts for s in sweep.splices}
        told = {"hybrids": hybrids, "models": sweep.evaluations, "answers": prompts * (n + 1)}
        return print_object({**told, **({"lanes": list(lanes)} if lanes else {})}, json)
    report = None if json or not lanes else step_lines()
    with progress_bar(not json and not lanes) as tick:
        folder = run_sweep(
            sweep,
            out=out,
            seed=seed,
            device=device,
            dtype=dtype,
            devices=lanes,
            progress=tick,
            report=report,
            **asked,
        )
    from franken.report.figures.sweep import draw_scores, draw_sweep

    draw_sweep(folder)
    shown = ["gain acc@1", "lag acc@1"]
    if scores == "m":
        draw_scores(folder)
        shown += ["gain M_vis", "gain M_v2r", "gain M_rea"]
    code = finish_run(folder, json, rows="layer", columns="task", metrics=tuple(shown))
    if not json:
        print_splices(folder, shown)
        print(verdict(folder))
    return code


def _surgery(
    surgery: "Surgery",
    asked: dict[str, Any],
    out: Path,
    seed: int,
    device: str,
    dtype: str,
    dry_run: bool,
    json: bool,
) -> int:
    """`merge-sweep --along`."""
    from franken.evaluate.run import plan_eval
    from franken.runs import load_run
    from franken.study.surgery import run_surgery
    from franken.study.surgery_rows import verdict

    if dry_run:
        names = plan_eval(seed=seed, **asked).tasks
        answers = surgery.evaluations * len(names) * asked["samples"] * (asked["n"] + 1)
        hybrids = [cut.label for cut in surgery.cuts]
        told = {"hybrids": hybrids, "models": surgery.evaluations, "answers": answers}
        return print_object(told, json)
    with progress_bar(not json) as tick:
        folder = run_surgery(
            surgery, out=out, seed=seed, device=device, dtype=dtype, progress=tick, **asked
        )
    from franken.report.figures.surgery import draw_surgery

    draw_surgery(folder)
    shown = ("recovered", "redundancy")
    code = finish_run(folder, json, rows="component", columns="method", metrics=shown)
    if not json:
        print(verdict(load_run(folder).layers))
    return code
