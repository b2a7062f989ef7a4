"""`franken probe`."""

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
from franken.console import finish_run, print_object, print_patching, progress_bar
from franken.layers import spelled


def probe(
    model: Model,
    method: Annotated[
        str,
        typer.Option(
            help="swap (suffix and single), swap-suffix, swap-single, swap-prefix, swap-window:3; zero, mean, noise, each also "
            "as zero-attention or zero-mlp; attention, lens, patch (both ways at each --site), or one of patch-residual, "
            "-attn, -mlp, -heads, each also with -noising. With commas."
        ),
    ] = "swap,zero",
    tasks: Tasks = "",
    samples: Annotated[int, typer.Option(help="Image pairs per task.")] = 50,
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
            help="What `patch` patches, both ways: residual, attn, mlp, heads; with commas."
        ),
    ] = "residual",
    figures: Annotated[bool, typer.Option(help="Draw figures/*.png.")] = True,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Where does the model see, where does it reason? Causal probing, layer by layer."""
    from franken.checkpoints import open_checkpoint
    from franken.probe.cost import cost
    from franken.probe.measures import at_sites
    from franken.probe.plan import one_pair, plan_probe
    from franken.probe.run import run_probe
    from franken.tasks.sources import canonical, fetch

    if data is not None:
        data = canonical(data, columns)
        if download and not dry_run:
            fetch(data)
    if download and not dry_run:
        open_checkpoint(model, download=True)
    plan = plan_probe(
        model,
        methods=at_sites(split_list(method), split_list(site)),
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
    )
    if not json:
        print(
            f"{plan.checkpoint.name}: text layers {spelled(plan.layers)} ({len(plan.layers)} of {plan.checkpoint.depths['text']})"
        )
    if dry_run:
        return print_object(cost(plan), json)
    with progress_bar(not json) as tick:
        folder = run_probe(plan, out=out, device=device, dtype=dtype, progress=tick)
    if pair:
        _draw(folder, pair, ask)
    elif figures:
        from franken.report.probe_figures import draw_probe

        draw_probe(folder)
    if not json:
        print_patching(folder)
    metrics = ("change_rate", "accuracy_drop", "answer_is_first", "attention_mass")
    metrics = ("change_rate",) if pair else (*metrics, *_own_metrics(folder))
    return finish_run(folder, json, rows="layer", columns="task", metrics=metrics)


def _own_metrics(folder: Path) -> list[str]:
    """What the probes of plugins measured."""
    from franken import plugins
    from franken.runs import load_run

    layers = load_run(folder).layers
    return list(dict.fromkeys(layers["metric"][layers["method"].isin(plugins.names("probe"))]))


def _draw(folder: Path, pair: tuple[Path, Path], question: str) -> None:
    from franken.report.figures.pair import draw_pair
    from franken.runs import load_run

    rows = load_run(folder).samples.astype(object)
    records = rows.where(rows.notna(), None).to_dict("records")
    draw_pair(records, pair, question, folder / "figures" / "pair.png")
