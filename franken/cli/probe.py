"""`franken probe`."""

from pathlib import Path
from typing import Annotated

import typer

from franken.cli.options import Data, Device, DryRun, Dtype, Json, Layers, Model, Out, Seed, Tasks, split_list
from franken.console import finish_run, print_object, print_patching, progress_bar


def probe(
    model: Model,
    method: Annotated[
        str,
        typer.Option(
            help="swap (suffix and single), swap-suffix, swap-single, swap-prefix, swap-window:3, zero, attention, lens, "
            "patch (residual stream, both ways), or one of patch-residual, -attn, -mlp, -heads, each also with -noising."
        ),
    ] = "swap,zero",
    tasks: Tasks = "",
    samples: Annotated[int, typer.Option(help="Image pairs per task.")] = 50,
    layers: Layers = "all",
    data: Data = None,
    out: Out = Path("runs"),
    seed: Seed = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    device: Device = "auto",
    dtype: Dtype = "auto",
    site: Annotated[
        str, typer.Option(help="What `patch` patches, both ways: residual, attn, mlp, heads; with commas.")
    ] = "residual",
    figures: Annotated[bool, typer.Option(help="Draw figures/*.png.")] = True,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Where does the model see, where does it reason? Causal probing, layer by layer."""
    from franken.probe.measures import at_sites
    from franken.probe.run import plan_probe, run_probe

    plan = plan_probe(
        model, methods=at_sites(split_list(method), split_list(site)), task_names=split_list(tasks),
        samples=samples, data=data, layers=layers, seed=seed,
        max_new_tokens=max_new_tokens, dtype=dtype,
    )  # fmt: skip
    if not json:
        print(
            f"{plan.checkpoint.name}: text layers {_spans(plan.layers)} ({len(plan.layers)} of {plan.checkpoint.depths['text']})"
        )
    if dry_run:
        cost = {
            "methods": list(plan.methods),
            "pairs": len(plan.pairs),
            "layers": len(plan.layers),
            "answers": plan.n_requested,
        }
        return print_object(cost, json)
    with progress_bar(not json) as tick:
        folder = run_probe(plan, out=out, device=device, dtype=dtype, progress=tick)
    if figures:
        from franken.report.probe_figures import draw_probe

        draw_probe(folder)
    if not json:
        print_patching(folder)
    metrics = ("change_rate", "accuracy_drop", "answer_is_first", "attention_mass")
    return finish_run(folder, json, rows="layer", columns="task", metrics=metrics)


def _spans(layers: tuple[int, ...]) -> str:
    from franken.merge.plan import spans

    return spans(layers)
