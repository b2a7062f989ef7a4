"""`franken probe`."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from franken.cli.options import (
    Columns,
    Device,
    Download,
    DryRun,
    Dtype,
    Json,
    Layers,
    Model,
    Out,
    Questions,
    Seed,
    Tasks,
    split_list,
)
from franken.console import finish_run, print_components, print_object, progress_bar
from franken.layers import name_layers


def probe(
    model: Model,
    method: Annotated[
        str,
        typer.Option(
            help="swap (suffix and single), swap-suffix, swap-single, swap-prefix, swap-window:3; "
            "zero, mean, noise, each also as zero-attention or zero-mlp; attention, lens, "
            "patch (both ways at each --site), or one of patch-residual, -attn, -mlp, -heads, each "
            "also with -noising; block:FROM>TO, as block:image>question, also as block-single, "
            "-suffix, -prefix, -window:5:FROM>TO; with --against: across (both ways at each "
            "--site), stitch (below and above; also as stitch:affine). With commas."
        ),
    ] = "swap,zero",
    against: Annotated[
        str | None,
        typer.Option(help="A second checkpoint of the same architecture, to compare with."),
    ] = None,
    tasks: Tasks = "",
    samples: Annotated[int, typer.Option(help="Image pairs per task.")] = 50,
    part: Annotated[
        str, typer.Option(help="Whose layers: text (default), vision or projector.")
    ] = "",
    layers: Layers = "all",
    data: Questions = None,
    columns: Columns = "",
    download: Download = False,
    pair: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two images, target and source: probe this one pair, and draw it."),
    ] = None,
    ask: Annotated[str, typer.Option(help="The question to ask about --pair.")] = "",
    out: Out = Path("runs"),
    seed: Seed = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    batch_size: Annotated[int, typer.Option(help="Rows (pairs × layers) that run together.")] = 128,
    engine: Annotated[
        str, typer.Option(help="torch, or nnsight: the same rows, many times slower.")
    ] = "torch",
    device: Device = "auto",
    dtype: Dtype = "auto",
    site: Annotated[
        str,
        typer.Option(
            help="What `patch` and `across` patch, both ways: residual, attn, mlp, heads; with "
            "commas."
        ),
    ] = "residual",
    figures: Annotated[bool, typer.Option(help="Draw figures/*.png.")] = True,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Where does the model see, where does it reason? Causal probing, layer by layer."""
    from franken.checkpoints import open_checkpoint
    from franken.probe.cost import cost
    from franken.probe.plan import depth_of, one_pair, plan_probe
    from franken.tasks.look import short_reason
    from franken.tasks.sources import canonical, fetch

    if data is not None:
        data = canonical(data, columns)
        if download and not dry_run:
            fetch(data)
    if download and not dry_run:
        for checkpoint in (model, against):
            if checkpoint is not None:
                open_checkpoint(checkpoint, download=True)
    plan = plan_probe(
        model,
        methods=split_list(method),
        sites=split_list(site),
        task_names=split_list(tasks),
        samples=samples,
        data=data,
        layers=layers,
        seed=seed,
        max_new_tokens=max_new_tokens,
        dtype=dtype,
        batch_size=batch_size,
        engine=engine,
        pairs=one_pair(*pair, ask) if pair else None,
        against=against,
        part=part,
    )
    if not json:
        depth = depth_of(plan.checkpoint, plan.part)
        probed = f"{plan.part} {name_layers(plan.layers)} ({len(plan.layers)} of {depth})"
        beside = f" against {plan.against.name}" if plan.against else ""
        print(f"{plan.checkpoint.name}{beside}: {probed}")
    if dry_run:
        failing = Counter(short_reason(p.target.error) for p in plan.pairs if p.target.error)
        told = {"rows that fail": failing} if failing else {}
        return print_object({**cost(plan), **told}, json)
    from franken.probe.run import run_probe

    with progress_bar(not json) as tick:
        folder = run_probe(plan, out=out, device=device, dtype=dtype, progress=tick)
    if pair:
        _draw(folder, pair, ask)
    elif figures:
        from franken.report.figures.probe import draw_probe

        draw_probe(folder)
    shown = ["change_rate"] if pair else _shown(folder)
    if not json:
        print_components(folder)
    return finish_run(folder, json, rows="layer", columns="task", metrics=shown)


def _shown(folder: Path) -> list[str]:
    """The metrics of a run that its methods want to see printed."""
    from franken.probe.methods import of_rows
    from franken.runs import load_run

    layers = load_run(folder).layers
    metrics: list[str] = []
    for name, rows in layers.groupby("method", sort=False):
        chosen = of_rows(str(name)).shown
        metrics += dict.fromkeys(rows["metric"]) if chosen is None else chosen
    return metrics


def _draw(folder: Path, pair: tuple[Path, Path], question: str) -> None:
    from franken.report.figures.pair import draw_pair
    from franken.runs import load_run

    draw_pair(load_run(folder).samples, pair, question, folder / "figures" / "pair.png")
