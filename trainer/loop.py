"""The training loop: stages in order, metrics as JSON lines, exact resume, a verified export.

    out/recipe.json      what is run; another recipe in the same folder is refused
        metrics.jsonl    one line an update
        state/           the last checkpoints (trainer/state.py)
        freeze.json      what was frozen, and the proof that it did not move
        final/           the trained checkpoint, as from_pretrained reads it
        train.json       written last: the run is complete

Ctrl-C ends the current update, saves, and stops; the same command goes on from there and ends in
the same weights. (With a
`cpu_seconds` budget the number of updates depends on the machine, so only `steps` resumes bit for
bit.)
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from franken import plugins
from franken.checkpoints import open_checkpoint
from franken.errors import FrankenError, UsageError
from franken.evaluate.embed import Embed, embedder
from franken.lock import locked
from franken.models.loading import Loaded, load, pick_device, wrap
from franken.runs import atomic_write_text, provenance
from trainer import align, sft, sft_packing, sharded_state, state
from trainer.distributed import (
    add_gradients,
    check_equal,
    joined,
    largest,
    on_first,
    own_device,
    rank,
    ranks,
    share,
)
from trainer.evaluate import quick_look
from trainer.freeze import apply_freeze, fingerprints, verify_frozen
from trainer.grpo import grpo_step
from trainer.lora import add_lora, merge_lora
from trainer.packing import share_frozen
from trainer.public import check_held_out
from trainer.rewards import RewardError
from trainer.rounding import warn_of_lost_updates
from trainer.schedules import shape
from trainer.sharding import (
    check_in_step,
    checkpoint_activations,
    full,
    full_weights,
    inside,
    is_sharded,
    shard,
    whole,
)
from trainer.stages import AlignStage, GrpoStage, Recipe, SftStage
from trainer.state import Position, Score
from trainer.templates import template

SAVE_EVERY = 50
Report = Callable[[dict[str, Any]], None]
Observe = Callable[[Position, Loaded], None]


def run_train(
    recipe: Recipe,
    out: Path,
    *,
    freeze: tuple[str, ...] = (),
    train: tuple[str, ...] = (),
    report: Report | None = None,
    observe: Observe | None = None,
) -> Path:
    """Train a recipe into `out`, or go on where it stopped. Returns `out/final`.

    `freeze` is added to every stage; `train` is instead of what the stages say: only what it names
    trains.

    `report` hears the metrics of every update. `observe` sees the model before a stage's first
    update (again where a run
    resumes) and after every one; it must leave the model as it is, and its time is not counted.
    Under torchrun every process calls this; rank 0 writes and reports.
    """
    asked = {"recipe": recipe.model_dump(mode="json"), "freeze": list(freeze), "train": list(train)}
    identity = json.dumps({**asked, **plugins.identity()}, indent=2, sort_keys=True)
    recipe = with_trained(recipe, freeze, train)
    for stage in () if (out / "train.json").exists() else recipe.stages:
        if isinstance(stage, GrpoStage) and stage.held_out:
            check_held_out(stage.data, stage.held_out, stage.prompts)
    if rank() == 0 and not (out / "train.json").exists():
        warn_of_lost_updates(recipe)
    with (
        joined(always=recipe.sharding == "fsdp"),
        state.failed_writes_told(out),
        ExitStack() as held,
    ):
        on_first(lambda: held.enter_context(locked(out)))  # one writer, which is rank 0
        on_first(lambda: _claim(out, identity))
        return _run(recipe, out, report, observe)


def _run(recipe: Recipe, out: Path, report: Report | None, observe: Observe | None) -> Path:
    final = out / "final"
    if on_first((out / "train.json").exists):
        return final
    started = time.time()
    loaded = _start(recipe)
    if recipe.activation_checkpointing:
        checkpoint_activations(loaded)
    if recipe.sharding == "fsdp":
        shard(loaded, recipe.precision)
    position, resumed = _restore(out, loaded.model)
    on_first(lambda: _trim(out / "metrics.jsonl", position))
    proofs = on_first(lambda: _load_proofs(out))
    with _polite_interrupts() as interrupted, _flushed_denormals():
        for index in range(position.stage, len(recipe.stages)):
            stage = recipe.stages[index]
            table = apply_freeze(loaded.model, stage.freeze, stage.train)
            proof = proofs.setdefault(
                str(index), {"table": table, "before": fingerprints(loaded.model)}
            )
            _write_proofs(out, proofs)
            _run_stage(
                recipe, index, loaded, position, out, report, interrupted, observe, resumed=resumed
            )
            proof |= {"verified": verify_frozen(loaded.model, proof["before"])}
            _write_proofs(out, proofs)
            resumed = None
            check_equal(loaded.model)
    exported = _choose(recipe, loaded, out, position)
    verify_frozen(loaded.model, proofs[str(len(recipe.stages) - 1)]["before"])
    _export(loaded, recipe, final)
    summary = {
        "recipe": recipe.name,
        "updates": position.updates,
        **exported,
        "seconds": round(time.time() - started, 1),
    }
    summary["cpu_seconds"] = round(sum(_stage_seconds(out)), 1)
    summary["processes"] = ranks()
    on_first(
        lambda: atomic_write_text(
            out / "train.json", json.dumps({**summary, **provenance()}, indent=2)
        )
    )
    return final


def with_trained(recipe: Recipe, freeze: tuple[str, ...], train: tuple[str, ...]) -> Recipe:
    """The recipe with `freeze` added to every stage, or with `train` instead of what its stages
    freeze and train.
    """
    if freeze and train:
        raise UsageError(
            "--freeze and --train are complements", why="both were given", fix="give one of them"
        )

    def changed(stage: Any) -> dict[str, tuple[str, ...]]:
        return {"freeze": (), "train": train} if train else {"freeze": (*stage.freeze, *freeze)}

    stages = tuple(stage.model_copy(update=changed(stage)) for stage in recipe.stages)
    return recipe.model_copy(update={"stages": stages})


def _run_stage(
    recipe: Recipe,
    index: int,
    loaded: Loaded,
    position: Position,
    out: Path,
    report: Report | None,
    interrupted: Callable[[], bool],
    observe: Observe | None,
    *,
    resumed: Path | None,
) -> None:
    stage = recipe.stages[index]
    seed = recipe.seed + 1000 * index if stage.seed is None else stage.seed
    model = loaded.model
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = _optimizer(stage, parameters)
    if resumed is not None and position.stage == index and position.step:
        if is_sharded(model):
            sharded_state.load_optimizer(resumed, model, optimizer)
        else:
            state.load_optimizer(resumed, optimizer)
    reference = None
    if isinstance(stage, GrpoStage) and stage.beta:
        reference = load(recipe.model, device=own_device(recipe.device), dtype=recipe.dtype)
        reference.model.requires_grad_(False)
        if recipe.sharding == "fsdp":
            shard(reference, recipe.precision)
        elif (
            index == 0 and not recipe.lora
        ):  # later, what is frozen now may have trained since the start
            share_frozen(reference.model, model)
    embed = embedder(stage.embedder, device=loaded.device) if isinstance(stage, GrpoStage) else None
    save_every = stage.save_every or SAVE_EVERY
    _look(observe, position, loaded)
    score: Score | None = None
    with (out / "metrics.jsonl" if rank() == 0 else Path(os.devnull)).open("a") as log:

        def save(optimizer: torch.optim.Optimizer | None, score: Score | None = None) -> None:
            if rank() == 0:
                state.flush(log)
            _save(recipe, out, model, optimizer, position, score)

        while not _finished(stage, position):
            began = time.process_time()
            progress = (
                position.step / stage.steps
                if stage.steps
                else position.cpu_seconds / (stage.cpu_seconds or 1)
            )
            rate = stage.lr * shape(
                position.step, progress, warmup=stage.warmup, hold=stage.hold, end=stage.end
            )
            try:
                metrics = _update(
                    stage,
                    loaded,
                    optimizer,
                    parameters,
                    reference,
                    rate,
                    seed,
                    position.step,
                    progress,
                    embed,
                )
            except RewardError:  # nothing has moved in this step yet
                save(optimizer)
                raise
            position.step += 1
            position.updates += 1
            took = time.process_time() - began
            position.cpu_seconds += on_first(lambda took=took: took)
            line = {
                "stage": index,
                "step": position.step,
                "update": position.updates,
                "lr": rate,
                **metrics,
            }
            line["cpu_seconds"] = round(position.cpu_seconds, 3)
            score = None
            if stage.eval_every and (
                position.step % stage.eval_every == 0 or _finished(stage, position)
            ):
                with whole(model):
                    line["held_out"] = on_first(lambda: quick_look(loaded, stage))  # noqa: B023
                score = Score(index, line["held_out"][recipe.keep.by]) if line["held_out"] else None
            _look(observe, position, loaded)
            log.write(json.dumps(line) + "\n")
            log.flush()
            if report and rank() == 0:
                total = stage.steps or None
                report({**line, "kind": stage.kind, "total": total, "budget": stage.cpu_seconds})
            if largest(interrupted()):
                save(optimizer, score)
                raise KeyboardInterrupt
            due = position.step % save_every == 0 or (score and recipe.keep.best)
            if due and not _finished(stage, position):
                save(optimizer, score)
        position.stage, position.step, position.cpu_seconds = index + 1, 0, 0.0
        save(None, score)


def _update(
    stage: Any,
    loaded: Loaded,
    optimizer: torch.optim.Optimizer,
    parameters: list[Any],
    reference: Loaded | None,
    rate: float,
    seed: int,
    step: int,
    progress: float,
    embed: Embed | None,
) -> dict[str, float]:
    for group in optimizer.param_groups:
        group["lr"] = rate

    def apply() -> float:
        add_gradients(parameters)
        norm = full(torch.nn.utils.clip_grad_norm_(parameters, stage.clip)).item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    if isinstance(stage, GrpoStage):
        return grpo_step(
            loaded, stage, apply, reference, seed=seed, step=step, progress=progress, embed=embed
        )
    if isinstance(stage, SftStage):
        batch = sft.next_batch(
            loaded,
            stage.tasks,
            stage.batch,
            seed=seed,
            step=step,
            shape=template(stage.template),
            instruct=stage.instruct,
            mine=share(stage.batch),
        )
        if stage.packed:
            rows = sft_packing.pack_examples(loaded, batch, stage.token_budget)
            return {**sft_packing.backward(loaded, rows), "grad_norm": apply()}
        check_in_step(loaded.model, [batch.inputs.images.pixel_values is not None])
        loss, metrics = inside(loaded.model, lambda: sft.loss(loaded.model, batch))
    else:
        assert isinstance(stage, AlignStage)
        grids, styles = align.next_grids(stage.batch, seed=seed, step=step, mine=share(stage.batch))
        loss, metrics = inside(loaded.model, lambda: align.loss(loaded, grids, styles))
    if not torch.isfinite(loss):
        raise FrankenError(
            f"the loss is {loss.item()} at step {step}",
            why="training diverged",
            fix="lower the learning rate",
        )
    loss.backward()
    return {**metrics, "grad_norm": apply()}


def _optimizer(stage: Any, parameters: list[Any]) -> torch.optim.Optimizer:
    """AdamW over what trains; vectors (norms, biases) are not decayed."""
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": stage.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=stage.lr, betas=stage.betas)


def _save(
    recipe: Recipe,
    out: Path,
    model: Any,
    optimizer: torch.optim.Optimizer | None,
    position: Position,
    score: Score | None,
) -> None:
    kept = recipe.keep
    if is_sharded(model):
        sharded_state.save(out, model, optimizer, position, last=kept.last)
    else:
        on_first(
            lambda: state.save_state(
                out, model, optimizer, position, score=score, last=kept.last, best=kept.best
            )
        )


def _restore(out: Path, model: Any) -> tuple[Position, Path | None]:
    """Load the last whole checkpoint, if there is one: where the run goes on, and its folder."""
    if is_sharded(model):
        folder = sharded_state.last_whole(out)
        if folder is None:
            return Position(), None
        sharded_state.load_weights(folder, model)
        return sharded_state.read_position(folder), folder
    folder = on_first(lambda: state.last_whole(out))
    if folder is None:
        return Position(), None
    state.load_weights(folder, model)
    return state.read_position(folder), folder


def _look(observe: Observe | None, position: Position, loaded: Loaded) -> None:
    """Let rank 0 observe the model, gathered."""
    if observe:
        with whole(loaded.model):
            on_first(lambda: observe(position, loaded))


def _finished(stage: Any, position: Position) -> bool:
    return (
        position.step >= stage.steps if stage.steps else position.cpu_seconds >= stage.cpu_seconds
    )


def _start(recipe: Recipe) -> Loaded:
    loaded = _first_model(recipe)
    if recipe.lora:
        add_lora(loaded.model, **recipe.lora.model_dump(), seed=recipe.seed)
    return loaded


def _first_model(recipe: Recipe) -> Loaded:
    if recipe.model == "creature:new":
        from franken.models import creature

        processor = creature.build_processor()
        model: Any = creature.build_model(recipe.seed)
        return wrap(
            model.to(pick_device(own_device(recipe.device))), processor, processor.tokenizer
        )
    return load(recipe.model, device=own_device(recipe.device), dtype=recipe.dtype)


def _choose(recipe: Recipe, loaded: Loaded, out: Path, position: Position) -> dict[str, Any]:
    """Put the weights that the recipe exports into the model, and say which."""
    if recipe.export == "last":
        return {"exported_update": position.updates}
    folder = on_first(lambda: state.best_whole(out))
    state.load_weights(folder, loaded.model)
    return {"exported_update": state.read_position(folder).updates}


def _export(loaded: Loaded, recipe: Recipe, final: Path) -> None:
    """Write the checkpoint, and re-open it: every tensor must have a place. Rank 0 writes, all
    ranks call.
    """
    weights = full_weights(loaded.model, keep=rank() == 0) if is_sharded(loaded.model) else None
    on_first(lambda: _write_final(loaded, recipe, final, weights))


def _write_final(
    loaded: Loaded, recipe: Recipe, final: Path, weights: dict[str, Any] | None
) -> None:
    temporary = final.with_name(".final")
    shutil.rmtree(temporary, ignore_errors=True)
    model = loaded.model
    if recipe.lora:
        if weights is not None:  # PEFT merges whole weights only
            model = _start(recipe.model_copy(update={"device": "cpu"})).model
            model.load_state_dict(weights)
            weights = None
        merge_lora(model)
    model.requires_grad_(True)
    if recipe.name == "creature-base":
        from franken.models.creature import restart_unseen_tokens

        restart_unseen_tokens(model, recipe.seed)
    model.save_pretrained(temporary, state_dict=weights)
    backend = getattr(loaded.tokenizer, "backend_tokenizer", None)
    if (
        backend is not None
    ):  # the last padding is no part of it: a run resumed here has padded nothing
        backend.no_padding()
        backend.no_truncation()
    (loaded.processor or loaded.tokenizer).save_pretrained(temporary)
    open_checkpoint(temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)


def _claim(out: Path, identity: str) -> None:
    mark = out / "recipe.json"
    if out.exists() and not out.is_dir():
        raise UsageError(
            f"{out} is a file", why="a training run is a folder", fix="choose another --out"
        )
    if mark.exists() and mark.read_text() != identity:
        raise UsageError(
            f"{out} holds another training run",
            why="its recipe differs",
            fix="choose another --out",
        )
    if (
        not mark.exists()
        and out.exists()
        and any(not p.name.startswith(f".{mark.name}.") for p in out.iterdir())
    ):
        raise UsageError(
            f"{out} holds something else",
            why="it is not a training run",
            fix="choose another --out",
        )
    out.mkdir(parents=True, exist_ok=True)
    if not mark.exists():
        atomic_write_text(mark, identity)


def _trim(log: Path, position: Position) -> None:
    """Drop the lines of updates that happened after the checkpoint and will be done again."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in lines if json.loads(line)["update"] <= position.updates]
        atomic_write_text(log, "".join(kept))


def _stage_seconds(out: Path) -> list[float]:
    last: dict[int, float] = {}
    for line in (out / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        last[row["stage"]] = row["cpu_seconds"]
    return list(last.values())


def _load_proofs(out: Path) -> dict[str, Any]:
    file = out / "freeze.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _write_proofs(out: Path, proofs: dict[str, Any]) -> None:
    on_first(lambda: atomic_write_text(out / "freeze.json", json.dumps(proofs, indent=1)))


@contextmanager
def _flushed_denormals() -> Iterator[None]:
    """Count numbers too small for a normal float as zero: on a CPU they cost a hundred times a
    normal one.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def _polite_interrupts() -> Iterator[Callable[[], bool]]:
    """The first ctrl-C asks the loop to stop after its update, as SIGTERM does (a scheduler's); a
    second ctrl-C stops at once.
    """
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if number == signal.SIGINT and number in asked:
            raise KeyboardInterrupt
        asked.append(number)

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
