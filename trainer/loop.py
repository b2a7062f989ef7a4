"""The training loop: stages in order, metrics as JSON lines, exact resume, a verified export.

    out/recipe.json      what is run; another recipe in the same folder is refused
        metrics.jsonl    one line an update
        state/, shards/  the last checkpoints (trainer/state.py, trainer/sharded_state.py)
        checkpoints/     the weights of updates that the recipe keeps (trainer/kept_files.py)
        freeze.json      what was frozen, and the proof that it did not move
        final/           the trained checkpoint, as from_pretrained reads it
        train.json       written last: the run is complete

Ctrl-C ends the current update, saves, and stops; the same command goes on from there and ends in
the same weights. (With a `cpu_seconds` budget the number of updates depends on the machine, so only
`steps` resumes bit for bit.)
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch

from franken import plugins
from franken.lock import locked
from franken.models.loading import Loaded
from franken.runs import atomic_write_text, provenance
from franken.runs.training import (
    METRICS,
    PROOFS,
    SCHEMA,
    SUMMARY,
    FreezeProof,
    Progress,
    Update,
    read_proofs,
    write_proofs,
)
from trainer import sharded_state, state
from trainer.checkpoint_files import Position, Score, failed_writes_told, flush, read_position
from trainer.collectives import all_reduce_max, check_replicas, on_main_process
from trainer.distributed import process_group, rank, world_size
from trainer.evaluate import quick_look
from trainer.export import export, restore_exported
from trainer.freeze import apply_freeze, fingerprints, frozen_names, verify_frozen
from trainer.interrupts import deferred_interrupts
from trainer.kept_files import check_room, drop_after, keep_weights
from trainer.optimizer import adamw, learning_rate, optimizer_step
from trainer.origins import starting_model
from trainer.public import check_held_out
from trainer.recipe import AnyStage, Recipe, with_trained
from trainer.rewards import RewardError
from trainer.rounding import warn_of_lost_updates
from trainer.run_folder import claim, cpu_seconds, trim_metrics
from trainer.sharding import checkpoint_activations, is_sharded, shard, whole
from trainer.stages import AskingStage
from trainer.starts import begin_stage, start_file
from trainer.steps import stage_step

SAVE_EVERY = 50
Report = Callable[[Progress], None]
Observe = Callable[[Position, Loaded], None]


@dataclass(frozen=True)
class _Run:
    """A run in progress: its recipe and folder, the model, how far it is, and who receives what."""

    recipe: Recipe
    out: Path
    loaded: Loaded
    position: Position
    report: Report | None
    observe: Observe | None
    interrupted: Callable[[], bool]

    def show(self) -> None:
        """Let the observer of rank 0 see the model, gathered."""
        observe = self.observe
        if observe:
            with whole(self.loaded.model):
                on_main_process(lambda: observe(self.position, self.loaded))

    def keep(self) -> None:
        """Write the weights for good where the recipe keeps them."""
        stages, position = self.recipe.stages, self.position
        last = position.stage == len(stages) - 1 and _finished(stages[-1], position)
        keep_weights(self.out, self.loaded, self.recipe, position.updates, last=last)

    def save(self, optimizer: torch.optim.Optimizer | None, score: Score | None = None) -> None:
        """Write a checkpoint of where the run is."""
        model, position, keep = self.loaded.model, self.position, self.recipe.keep
        if is_sharded(model):
            sharded_state.save(self.out, model, optimizer, position, last=keep.last)
        else:
            on_main_process(
                lambda: state.save_state(
                    self.out,
                    model,
                    optimizer,
                    position,
                    score=score,
                    last=keep.last,
                    best=keep.best,
                )
            )


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

    `freeze` is added to every stage; `train` replaces what the stages freeze and train: only what
    it names trains.

    `report` receives the metrics of every update. `observe` sees the model before a stage's first
    update (again where a run resumes) and after every one; it must leave the model as it is, and
    its time is not counted. Under torchrun every process calls this; rank 0 writes and reports.
    """
    given = {"recipe": recipe.model_dump(mode="json"), "freeze": list(freeze), "train": list(train)}
    identity = json.dumps({**given, **plugins.identity()}, indent=2, sort_keys=True)
    recipe = with_trained(recipe, freeze, train)
    complete = (out / SUMMARY).exists()
    for stage in () if complete else recipe.stages:
        if isinstance(stage, AskingStage) and stage.held_out:
            check_held_out(stage.data, stage.held_out, stage.count)
    if rank() == 0 and not complete:
        warn_of_lost_updates(recipe)
    with (
        process_group(always=recipe.sharding == "fsdp"),
        failed_writes_told(out),
        ExitStack() as lock,
    ):
        on_main_process(lambda: lock.enter_context(locked(out)))  # one writer, which is rank 0
        on_main_process(lambda: claim(out, identity))
        return _train(recipe, out, report, observe)


def _train(recipe: Recipe, out: Path, report: Report | None, observe: Observe | None) -> Path:
    final = out / "final"
    if on_main_process((out / SUMMARY).exists):
        return final
    started = time.time()
    loaded = starting_model(recipe)
    for stage in recipe.stages:  # a word of the last stage is told before the first one trains
        frozen_names(loaded.model, stage.freeze, stage.train)
    if recipe.activation_checkpointing:
        checkpoint_activations(loaded)
    if recipe.sharding == "fsdp":
        shard(loaded, recipe.precision)
    position, resumed = _restore(out, loaded)
    on_main_process(lambda: trim_metrics(out, position))
    on_main_process(lambda: drop_after(out, position.updates))
    on_main_process(lambda: check_room(out, recipe, _kept_bytes(loaded, recipe)))
    proofs = on_main_process(lambda: read_proofs(out / PROOFS))
    with deferred_interrupts() as interrupted, _flushed_denormals():
        run = _Run(recipe, out, loaded, position, report, observe, interrupted)
        for index in range(position.stage, len(recipe.stages)):
            stage = recipe.stages[index]
            begin_stage(recipe, index, loaded, out, step=position.step)
            table = apply_freeze(loaded.model, stage.freeze, stage.train)
            fresh = FreezeProof(table=table, before=fingerprints(loaded.model))
            proof = proofs.setdefault(str(index), fresh)
            on_main_process(lambda: write_proofs(out / PROOFS, proofs))
            _train_stage(run, index, resumed)
            proof.verified = verify_frozen(loaded.model, proof.before)
            on_main_process(lambda: write_proofs(out / PROOFS, proofs))
            resumed = None
            check_replicas(loaded.model)
    exported = restore_exported(recipe, loaded, out, position)
    verify_frozen(loaded.model, proofs[str(len(recipe.stages) - 1)].before)
    export(loaded, recipe, final)
    summary = {
        "recipe": recipe.name,
        "updates": position.updates,
        "exported_update": exported,
        "seconds": round(time.time() - started, 1),
        "processes": world_size(),
    }
    on_main_process(
        lambda: atomic_write_text(
            out / SUMMARY,
            json.dumps(
                {
                    "schema": SCHEMA,
                    **summary,
                    "cpu_seconds": cpu_seconds(out),
                    **provenance(),
                },
                indent=2,
            ),
        )
    )
    return final


def _train_stage(run: _Run, index: int, resumed: Path | None) -> None:
    stage, position, loaded = run.recipe.stages[index], run.position, run.loaded
    parameters = [p for p in loaded.model.parameters() if p.requires_grad]
    optimizer = adamw(stage, parameters)
    if resumed is not None and position.stage == index and position.step:
        _restore_optimizer(resumed, loaded, optimizer)
    update = stage_step(run.recipe, index, loaded, start_file(run.recipe, index, run.out))
    run.show()
    score: Score | None = None
    with (run.out / METRICS if rank() == 0 else Path(os.devnull)).open("a") as log:
        while not _finished(stage, position):
            began = time.process_time()
            progress = _progress(stage, position)
            rate = learning_rate(stage, position.step, progress)
            apply = partial(optimizer_step, optimizer, parameters, clip=stage.clip, rate=rate)
            try:
                metrics = update(apply, step=position.step, progress=progress)
            except RewardError:  # nothing has moved in this step yet
                _save(run, log, optimizer)
                raise
            position.step += 1
            position.updates += 1
            seconds = time.process_time() - began
            position.cpu_seconds += on_main_process(lambda seconds=seconds: seconds)
            line: dict[str, Any] = {
                "stage": index,
                "step": position.step,
                "update": position.updates,
                "lr": rate,
                **metrics,
                "cpu_seconds": round(position.cpu_seconds, 3),
            }
            score = None
            if _evaluates(stage, position):
                with whole(loaded.model):
                    line["held_out"] = on_main_process(lambda: quick_look(loaded, stage))
                by = run.recipe.keep.by
                if by in line["held_out"]:
                    score = Score(index, line["held_out"][by] * (-1 if by == "loss" else 1))
            run.show()
            run.keep()
            log.write(json.dumps(line) + "\n")
            log.flush()
            if run.report and rank() == 0:
                seen = Update.model_validate(line)
                run.report(Progress(stage.kind, seen, stage.steps, stage.cpu_seconds))
            if all_reduce_max(run.interrupted()):
                _save(run, log, optimizer, score)
                raise KeyboardInterrupt
            due = position.step % (stage.save_every or SAVE_EVERY) == 0
            if (due or (score and run.recipe.keep.best)) and not _finished(stage, position):
                _save(run, log, optimizer, score)
        position.stage, position.step, position.cpu_seconds = index + 1, 0, 0.0
        _save(run, log, None, score)


def _save(
    run: _Run, log: TextIO, optimizer: torch.optim.Optimizer | None, score: Score | None = None
) -> None:
    """Save once the metrics so far are on the disk: none of a saved update may be missing."""
    if rank() == 0:
        flush(log)
    run.save(optimizer, score)


def _restore(out: Path, loaded: Loaded) -> tuple[Position, Path | None]:
    """Load the last whole checkpoint, if there is one: where the run goes on, and its folder."""
    sharded = is_sharded(loaded.model)
    if sharded:
        folder = sharded_state.last_whole(out)
    else:
        folder = on_main_process(lambda: state.last_whole(out))
    if folder is None:
        return Position(), None
    (sharded_state if sharded else state).load_weights(folder, loaded.model)
    return read_position(folder), folder


def _kept_bytes(loaded: Loaded, recipe: Recipe) -> int:
    """Of a checkpoint that is kept: all weights, or those of the adapters."""
    named = loaded.model.named_parameters()
    sizes = [p.numel() * p.element_size() for n, p in named if not recipe.lora or ".lora_" in n]
    return sum(sizes)


def _restore_optimizer(folder: Path, loaded: Loaded, optimizer: torch.optim.Optimizer) -> None:
    if is_sharded(loaded.model):
        sharded_state.load_optimizer(folder, loaded.model, optimizer)
    else:
        state.load_optimizer(folder, optimizer)


def _progress(stage: AnyStage, position: Position) -> float:
    """How far the stage is, in [0, 1): of its steps, or of its time."""
    if stage.steps:
        return position.step / stage.steps
    return position.cpu_seconds / (stage.cpu_seconds or 1)


def _finished(stage: AnyStage, position: Position) -> bool:
    if stage.steps:
        return position.step >= stage.steps
    return position.cpu_seconds >= (stage.cpu_seconds or 0)


def _evaluates(stage: AnyStage, position: Position) -> bool:
    """Whether held-out questions are due: every `eval_every` steps, and after the last one."""
    if not stage.eval_every:
        return False
    return position.step % stage.eval_every == 0 or _finished(stage, position)


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
