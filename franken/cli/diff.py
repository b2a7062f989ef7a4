"""`franken diff`."""

from pathlib import Path
from typing import Annotated

import typer

from franken.cli.options import Download, DryRun, Json, Out, Seed, split_list
from franken.console import finish_diff, print_object, progress_bar
from franken.outputs import output_folder

TOPK = 50


def diff(
    checkpoints: Annotated[
        list[str],
        typer.Argument(help="BASE RL, or BASE SFT RL; a LoRA adapter may stand for its model."),
    ],
    along: Annotated[
        list[Path] | None,
        typer.Option(
            help="Instead of later checkpoints: a training run, all of whose checkpoints on the "
            "way are compared with BASE; again for other runs or seeds."
        ),
    ] = None,
    layers: Annotated[
        str, typer.Option(help="Only these layers: 16-28, vision:all, late; with commas.")
    ] = "",
    parts: Annotated[str, typer.Option(help="Only these: vision, projector, text.")] = "",
    components: Annotated[
        str, typer.Option(help="Only these: attn, mlp, norm, embed, head, patch.")
    ] = "",
    spectra: Annotated[
        bool, typer.Option("--spectra", help="All singular values of every matrix's update.")
    ] = False,
    topk: Annotated[
        int, typer.Option(min=1, help="Directions of the log-volume and of the energy's share.")
    ] = TOPK,
    subspaces: Annotated[
        bool,
        typer.Option("--subspaces", help="Do both updates go the same way? Needs BASE SFT RL."),
    ] = False,
    principal: Annotated[
        bool,
        typer.Option(
            "--principal",
            help="Did it turn or stretch the weights' own leading directions? Beside a random "
            "update, and SFT's, of the same norm.",
        ),
    ] = False,
    k: Annotated[int, typer.Option(min=1, help="Directions of the subspaces.")] = 16,
    seed: Seed = 0,
    expect_frozen: Annotated[
        str,
        typer.Option(
            help="Exit with 4 if one bit of these moved: text:0-9, vision, embed, …; with commas."
        ),
    ] = "",
    figures: Annotated[bool, typer.Option(help="Draw figures/*.png.")] = True,
    device: Annotated[
        str, typer.Option(help="Where singular values are computed: cpu, cuda, cuda:1, …")
    ] = "cpu",
    jobs: Annotated[int | None, typer.Option(min=1, help="Threads; all cores by default.")] = None,
    download: Download = False,
    out: Out = Path("runs"),
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """What did training change? Compare two or three checkpoints tensor by tensor."""
    if along:
        from franken.cli.diff_along import diff_along

        only = {"--subspaces": subspaces, "--expect-frozen": expect_frozen, "--topk": topk != TOPK}
        return diff_along(
            checkpoints,
            along,
            selection={
                "layers": layers,
                "parts": split_list(parts),
                "components": split_list(components),
            },
            refused=[name for name, given in only.items() if given],
            with_spectra=spectra,
            figures=figures,
            device=device,
            jobs=jobs,
            download=download,
            out=out,
            dry_run=dry_run,
            json=json,
        )
    from franken.diff.plan import plan_diff
    from franken.diff.run import DiffOptions, check_frozen, run_diff
    from franken.runs import load_run
    from franken.selection import select

    plan = plan_diff(
        checkpoints,
        layers=layers,
        parts=split_list(parts),
        components=split_list(components),
        download=download,
    )
    if (spectra or principal) and device != "cpu":
        from franken.models.loading import pick_device

        device = str(pick_device(device))
    options = DiffOptions(spectra, topk, subspaces, k, device, principal, seed)
    frozen = select(split_list(expect_frozen), plan.places, option="--expect-frozen")
    if dry_run:
        from franken.diff.estimate import estimate_seconds

        cost = {
            "tensors": len(plan.tensors),
            "bytes": plan.total_bytes,
            "deltas": ["→".join(d) for d in plan.deltas],
        }
        cost |= {
            "about seconds": round(estimate_seconds(plan, options, jobs), 1),
            "not comparable": plan.problems,
        }
        return print_object(cost, json)
    out = output_folder(out)
    with progress_bar(not json, unit="bytes", total=plan.total_bytes) as tick:
        folder = run_diff(
            plan, out=out, options=options, jobs=jobs, progress=lambda n: tick(n, None, "diff")
        )
    if figures:
        from franken.report.figures.diff import draw_diff

        draw_diff(folder)
    if json and frozen:  # before anything is printed: an error is an object of its own
        check_frozen(plan, load_run(folder).samples, frozen)
    code = finish_diff(folder, json)
    if frozen and not json:
        check_frozen(plan, load_run(folder).samples, frozen)
        print(f"{expect_frozen}: {len(frozen)} tensors are bit-identical")
    return code
