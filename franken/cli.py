"""The command line: parse, call, print, exit code. Heavy imports happen inside the commands, so that help is instant.

Results go to stdout, progress to stderr and only to a terminal. `--json` prints one object and nothing else. Exit codes:
0 ok · 1 failure · 2 usage · 3 finished, some samples failed · 4 verification failed · 130 interrupted, resumable.
"""

import json as json_module
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from franken.cli_tasks import app as tasks_app
from franken.console import (
    finish_diff,
    finish_run,
    finish_study,
    print_freeze_table,
    print_methods,
    print_object,
    print_plan,
    print_table,
    progress_bar,
    say_error,
    step_lines,
    training_lines,
)
from franken.errors import FrankenError, UsageError

app = typer.Typer(
    name="franken",
    help="What does RL really change in a vision-language model? Probe it, diff it, merge it, freeze it, train it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(tasks_app, name="tasks")

Out = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it would cost.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
Dtype = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Tasks = Annotated[str, typer.Option(help="Tasks, with commas; all by default.")]
Data = Annotated[Path | None, typer.Option(help="A folder in the vision_functionality layout.")]
Layers = Annotated[str, typer.Option(help="16-28 (half-open), text:16-28, early, middle, late, all; with commas.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch a hub id that is not in the local cache.")]
Allow = Annotated[str, typer.Option(help="Differences to wave through: dtype, rope, tokenizer, …; with commas.")]
Model = Annotated[str, typer.Argument(help="A checkpoint folder, a cached hub id, creature:base or creature:sft.")]


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    sys.exit(_run(arguments, debug))


def _run(arguments: list[str], debug: bool) -> int:
    try:
        result = typer.main.get_command(app).main(args=arguments, prog_name="franken", standalone_mode=False)
    except FrankenError as e:
        if debug:
            raise
        say_error(e)
        return e.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except TyperException as e:  # what the parser says of a command line
        e.show()  # pyright: ignore[reportAttributeAccessIssue]
        return 2
    return _interrupted() if result == 130 else result if isinstance(result, int) else 0


def _interrupted() -> int:
    print("interrupted; the same command goes on from here", file=sys.stderr)
    return 130


@app.command()
def probe(
    model: Model,
    method: Annotated[
        str,
        typer.Option(
            help="swap (suffix and single), swap-suffix, swap-single, swap-prefix, swap-window:3, zero, lens."
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
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Where does the model see, where does it reason? Causal probing, layer by layer."""
    from franken.probe.run import plan_probe, run_probe

    plan = plan_probe(
        model, methods=_split(method), task_names=_split(tasks), samples=samples, data=data, layers=layers, seed=seed,
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
    return finish_run(
        folder, json, rows="layer", columns="task", metrics=("change_rate", "accuracy_drop", "answer_is_first")
    )


@app.command()
def diff(
    checkpoints: Annotated[
        list[str], typer.Argument(help="BASE RL, or BASE SFT RL; a LoRA adapter may stand for its model.")
    ],
    layers: Annotated[str, typer.Option(help="Only these layers: 16-28, vision:all, late; with commas.")] = "",
    parts: Annotated[str, typer.Option(help="Only these: vision, projector, text.")] = "",
    components: Annotated[str, typer.Option(help="Only these: attn, mlp, norm, embed, head, patch.")] = "",
    spectra: Annotated[bool, typer.Option("--spectra", help="All singular values of every matrix's update.")] = False,
    topk: Annotated[int, typer.Option(min=1, help="Directions of the log-volume and of the energy's share.")] = 50,
    subspaces: Annotated[
        bool, typer.Option("--subspaces", help="Do both updates go the same way? Needs BASE SFT RL.")
    ] = False,
    k: Annotated[int, typer.Option(min=1, help="Directions of the subspaces.")] = 16,
    expect_frozen: Annotated[
        str, typer.Option(help="Exit with 4 if one bit of these moved: text:0-9, vision, embed, …; with commas.")
    ] = "",
    figures: Annotated[bool, typer.Option(help="Draw figures/*.png.")] = True,
    device: Annotated[str, typer.Option(help="Where spectra are computed: cpu, cuda, cuda:1, …")] = "cpu",
    jobs: Annotated[int | None, typer.Option(min=1, help="Threads; all cores by default.")] = None,
    download: Download = False,
    out: Out = Path("runs"),
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """What did training change? Compare two or three checkpoints tensor by tensor."""
    from franken.diff.plan import plan_diff
    from franken.diff.run import DiffOptions, check_frozen, run_diff
    from franken.selection import select

    plan = plan_diff(checkpoints, layers=layers, parts=_split(parts), components=_split(components), download=download)
    if spectra and device != "cpu":
        from franken.models.loading import pick_device

        device = str(pick_device(device))
    options = DiffOptions(spectra, topk, subspaces, k, device)
    frozen = select(_split(expect_frozen), plan.places, option="--expect-frozen")
    if dry_run:
        from franken.diff.estimate import estimate_seconds

        cost = {"tensors": len(plan.tensors), "bytes": plan.total_bytes, "deltas": ["→".join(d) for d in plan.deltas]}
        cost |= {"about seconds": round(estimate_seconds(plan, options, jobs), 1), "not comparable": plan.problems}
        return print_object(cost, json)
    with progress_bar(not json, unit="bytes", total=plan.total_bytes) as tick:
        folder = run_diff(plan, out=out, options=options, jobs=jobs, progress=lambda n: tick(n, None, "diff"))
    if figures:
        from franken.report.diff_figures import draw_diff

        draw_diff(folder)
    code = finish_diff(folder, json)
    if frozen:
        from franken.runs import load_run

        check_frozen(plan, load_run(folder).samples.to_dict("records"), frozen)
        if not json:
            print(f"{expect_frozen}: {len(frozen)} tensors are bit-identical")
    return code


@app.command()
def merge(
    checkpoints: Annotated[list[str] | None, typer.Argument(help="BASE DONOR …, each a folder or NAME=folder.")] = None,
    layers: Annotated[str, typer.Option(help="What the donor gives: 16-28 (half-open), early, vision:0-8.")] = "",
    graft: Annotated[list[str] | None, typer.Option(help="DONOR:16-28 or DONOR:vision, again for each donor.")] = None,
    splice: Annotated[str, typer.Option(help="Thirds of the decoder by name, as SFT:RL:RL.")] = "",
    take: Annotated[str, typer.Option(help="vision, projector, embed, norm, head; they stay otherwise.")] = "",
    components: Annotated[str, typer.Option(help="attn, mlp, norm: only these of the layers.")] = "",
    alpha: Annotated[str, typer.Option(help="The donor's share, 0.5; or over the layers, 0,1.")] = "",
    method: Annotated[str, typer.Option(help="A method of mergekit's; see --list-methods.")] = "",
    param: Annotated[list[str] | None, typer.Option(help="Of the method: density=0.5, t=0,1, weight.RL=0.3.")] = None,
    relative_to: Annotated[str, typer.Option(help="What task vectors start from; the base by default.")] = "",
    noise: Annotated[float | None, typer.Option(help="Ablate: replace this share of the weights by noise.")] = None,
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
    from franken.merge.plan import open_all, plan_merge
    from franken.merge.recipe import read_recipe, recipe_from_options

    if list_methods:
        return print_methods(json)
    options: dict[str, Any] = {
        "layers": layers, "graft": graft or [], "splice": splice, "take": take, "components": components, "alpha": alpha,
        "method": method, "param": param or [], "relative_to": relative_to, "noise": noise, "seed": seed, "allow": allow,
    }  # fmt: skip
    if verify not in ("values", "load"):
        raise UsageError(f"unknown --verify {verify}", fix="use values or load")
    if recipe and (checkpoints or any(options.values())):
        raise UsageError("--recipe says it all", why="other options contradict it", fix="write them into the recipe")
    made = read_recipe(recipe) if recipe else recipe_from_options(checkpoints or [], **options)
    plan = plan_merge(made, open_all(made))
    print_plan(plan, json, whole=dry_run)
    if dry_run:
        return 0
    if out is None:
        raise UsageError("no --out given", why="the hybrid needs a folder", fix="add --out DIR, or --dry-run")
    from franken.merge.run import run_merge

    with progress_bar(not json, unit="bytes", total=2 * plan.base.nbytes) as tick:
        folder = run_merge(
            plan, out, verify_load=verify == "load", progress=lambda n: tick(n, None, "write and verify")
        )
    if json:
        return print_object({"folder": str(folder), "verified": True, "tensors": len(plan.rows)}, json)
    print(f"{folder}: {len(plan.rows)} tensors, every one verified")
    return 0


@app.command()
def merge_sweep(
    base: Annotated[str, typer.Argument(help="The checkpoint that receives.")],
    donor: Annotated[str, typer.Argument(help="The checkpoint that gives layers.")],
    window: Annotated[int, typer.Option(help="Layers of a window.")] = 4,
    stride: Annotated[int, typer.Option(help="Layers from one window to the next.")] = 1,
    controls: Annotated[int, typer.Option(help="Random sets of as many layers.")] = 8,
    allow: Allow = "",
    tasks: Tasks = "",
    samples: Annotated[int, typer.Option(help="Held-out puzzles per task.")] = 100,
    n: Annotated[int, typer.Option(help="Samples per prompt.")] = 4,
    data: Data = None,
    out: Out = Path("runs"),
    seed: Seed = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    device: Device = "auto",
    dtype: Dtype = "auto",
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Which layers carry the change? Every window of the donor's layers, in memory, beside random sets of as many."""
    from franken.evaluate.run import plan_eval
    from franken.study.sweep import plan_sweep, run_sweep, verdict

    sweep = plan_sweep(base, donor, window=window, stride=stride, controls=controls, seed=seed, allow=_split(allow))
    asked: dict[str, Any] = {
        "tasks": _split(tasks) or None, "samples": samples, "n": n, "k": (1,), "max_new_tokens": max_new_tokens, "data": data,
    }  # fmt: skip
    names = plan_eval(seed=seed, **asked).tasks
    if dry_run:
        prompts = sweep.evaluations * len(names) * samples
        hybrids = {h.label: h.ranges for h in sweep.hybrids}
        return print_object({"hybrids": hybrids, "models": sweep.evaluations, "answers": prompts * (n + 1)}, json)
    with progress_bar(not json) as tick:
        folder = run_sweep(sweep, out=out, seed=seed, device=device, dtype=dtype, progress=tick, **asked)
    from franken.report.sweep_figure import draw_sweep

    draw_sweep(folder)
    code = finish_run(folder, json, rows="layer", columns="task", metrics=("gain acc@1",))
    if not json:
        print(verdict(folder))
    return code


@app.command()
def eval(  # noqa: A001 - the command is called eval
    models: Annotated[list[str], typer.Argument(help="One or several checkpoints.")],
    tasks: Tasks = "",
    samples: Annotated[int, typer.Option(help="Held-out puzzles per task.")] = 100,
    n: Annotated[int, typer.Option(help="Samples per prompt.")] = 4,
    k: Annotated[str, typer.Option(help="The k of acc@k, with commas.")] = "1,4",
    arms: Annotated[str, typer.Option(help="image, text (the description instead), blind.")] = "image",
    data: Data = None,
    out: Out = Path("runs"),
    seed: Seed = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    device: Device = "auto",
    dtype: Dtype = "auto",
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """How good is it, and is it perception or reasoning? acc@k with and without the image."""
    from franken.checkpoints import open_checkpoint
    from franken.evaluate.run import plan_eval, run_eval

    options: dict[str, Any] = {
        "tasks": _split(tasks) or None, "samples": samples, "n": n, "k": _numbers(k), "arms": arms, "seed": seed,
        "max_new_tokens": max_new_tokens, "data": data,
    }  # fmt: skip
    plan = plan_eval(**options)
    for model in models:
        open_checkpoint(model)
    if dry_run:
        prompts = len(models) * len(plan.tasks) * samples * len(plan.arms)
        return print_object({"models": models, "prompts": prompts, "answers": prompts * (n + 1)}, json)
    with progress_bar(not json) as tick:
        folders = run_eval(models, **options, out=out, device=device, dtype=dtype, progress=tick)
    codes = [finish_run(f, json, rows="metric", columns="task", metrics=None) for f in folders]
    return max(codes)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A .yaml file, or the name of a built-in recipe.")] = "",
    out: Annotated[Path | None, typer.Option(help="The training run's own folder.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, e.g. stages.0.steps=5.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name the built-in recipes.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the resolved recipe.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Train a recipe: SFT and GRPO stages. The same command resumes."""
    return _train(recipe, (), out, set_ or [], dry_run, json, list_=list_, show=show)


@app.command()
def freeze_train(
    recipe: Annotated[str, typer.Argument(help="A .yaml file, or the name of a built-in recipe.")],
    freeze: Annotated[
        str, typer.Option(help="vision, projector, embed, head, norm, text:0-3, early, re:PATTERN; with commas.")
    ],
    out: Annotated[Path | None, typer.Option(help="The training run's own folder.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, e.g. stages.0.steps=5.")] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Was it necessary? Train with layers frozen, and prove that they did not move."""
    return _train(recipe, tuple(_split(freeze)), out, set_ or [], dry_run, json)


def _train(
    name: str, freeze: tuple[str, ...], out: Path | None, overrides: list[str], dry_run: bool, json: bool,
    *, list_: bool = False, show: bool = False,
) -> int:  # fmt: skip
    from trainer.stages import load_recipe, recipe_names

    if list_:
        return print_object({"recipes": recipe_names()}, json)
    if not name:
        raise UsageError("no recipe given", why="train needs one", fix="franken train --list names the built-in ones")
    recipe = load_recipe(name, tuple(overrides))
    if show:
        return print_object(recipe.model_dump(mode="json"), True)
    from trainer.loop import plan, run_train

    if dry_run or (freeze and not json):
        stages = plan(recipe, freeze)
        if json:
            return print_object({"recipe": recipe.name, "stages": stages}, json)
        for stage in stages:
            print(f"{stage['kind']}, {stage['length']}, frozen: {', '.join(stage['freeze']) or 'nothing'}")
            print_freeze_table(stage["table"])
        if dry_run:
            return 0
    if out is None:
        raise UsageError("no --out given", why="a training run needs its own folder", fix="add --out DIR")
    final = run_train(recipe, out, freeze=freeze, report=None if json else training_lines())
    if json:
        return print_object({"final": str(final), "run": json_module.loads((out / "train.json").read_text())}, json)
    if freeze:
        proofs = json_module.loads((out / "freeze.json").read_text()).values()
        print(f"{sum(p['verified']['tensors'] for p in proofs)} frozen tensors are bit-identical to before")
    print(f"trained checkpoint: {final}")
    return 0


@app.command()
def autopsy(
    checkpoints: Annotated[list[str], typer.Argument(help="BASE RL, or BASE SFT RL.")],
    out: Annotated[Path, typer.Option(help="The study's own folder.")],
    tasks: Tasks = "",
    samples: Annotated[int, typer.Option(help="Held-out puzzles per task.")] = 100,
    probe_samples: Annotated[int, typer.Option(help="Image pairs per task.")] = 40,
    n: Annotated[int, typer.Option(help="Samples per prompt.")] = 4,
    k: Annotated[str, typer.Option(help="The k of acc@k, with commas.")] = "1,4",
    extra: Annotated[
        list[str] | None, typer.Option(help="LABEL=CHECKPOINT to evaluate as well: control=…, frozen-late=….")
    ] = None,
    data: Data = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    jobs: Annotated[int | None, typer.Option(help="Processes side by side.")] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Everything at once: probe, diff, hybrids and evaluations, on one page. The same command resumes."""
    from franken.study.autopsy import Settings, plan_autopsy, run_autopsy

    if len(checkpoints) not in (2, 3):
        raise UsageError(f"{len(checkpoints)} checkpoints given", why="autopsy takes BASE RL or BASE SFT RL")
    base, sft, rl = (checkpoints[0], checkpoints[1] if len(checkpoints) == 3 else None, checkpoints[-1])
    settings = Settings(
        tasks=tuple(_split(tasks)), samples=samples, n=n, k=tuple(_numbers(k)), probe_samples=probe_samples, seed=seed,
        data=str(data) if data else None, device=device, dtype=dtype,
    )  # fmt: skip
    for pair in extra or []:
        if "=" not in pair:
            raise UsageError(f"cannot read --extra {pair}", why="it has no =", fix="write --extra frozen-late=FOLDER")
    more = dict(pair.split("=", 1) for pair in extra or [])
    if dry_run:
        _, steps = plan_autopsy(base, sft, rl, out=out, settings=settings, extra=more)
        if json:
            return print_object({"steps": [{"id": s.id, "what": s.what, "command": s.command} for s in steps]}, json)
        print_table(["step", "command"], [[s.what, s.command] for s in steps])
        return 0
    report = None if json else step_lines()
    page = run_autopsy(
        base, sft, rl, out=out, settings=settings, extra_models=more, jobs=jobs, report=report,
        command=shlex.join(["franken", *sys.argv[1:]]),
    )  # fmt: skip
    return finish_study(page, json)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="The quickstart's own folder.")] = Path("quickstart"),
    from_: Annotated[str, typer.Option("--from", help="sft, or base: make SFT live too.")] = "sft",
    full: Annotated[bool, typer.Option("--full", help="More steps and samples; up to an hour.")] = False,
    jobs: Annotated[int, typer.Option(help="Processes side by side.")] = 2,
    json: Json = False,
) -> int:
    """The whole study on your laptop: train a tiny VLM with RL, then look at what RL changed."""
    from trainer.quickstart import run_quickstart

    if from_ not in ("sft", "base"):
        raise UsageError(f"cannot start from {from_!r}", why="it starts from sft or base")
    report = None if json else step_lines()
    page = run_quickstart(out, start="base" if from_ == "base" else "sft", full=full, jobs=jobs, report=report)
    return finish_study(page, json)


@app.command()
def report(study: Annotated[Path, typer.Argument(help="The folder of an autopsy or a quickstart.")]) -> int:
    """Write the page of a study again from its run folders."""
    from franken.report.page import build_page

    print(build_page(study))
    return 0


@app.command()
def doctor(json: Json = False) -> int:
    """Versions, devices, and a self-test of every model family."""
    from franken.doctor import examine

    findings = examine()
    if json:
        print_object(findings, json)
    else:
        print_table(["what", "version"], [[k, str(v)] for k, v in findings["versions"].items()])
        print_table(["family", "self-test"], [[f["family"], f["result"]] for f in findings["families"]])
    return 0 if all(f["ok"] for f in findings["families"]) else 1


def _split(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(piece) for piece in _split(text)]
    except ValueError as e:
        raise UsageError(f"{text!r} is not a list of whole numbers", fix="write 1,4,8") from e


def _spans(layers: tuple[int, ...]) -> str:
    from franken.merge.plan import spans

    return spans(layers)


if __name__ == "__main__":
    main()
