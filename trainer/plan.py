"""`franken train RECIPE --plan`: the memory of every stage beside what this machine has, and what
to change where it is short.

Lengths of prompts and answers are measured on a few drawn examples with the model's own processor
where it is on disk; where it is not, a token is taken to be three characters of text, or the pixels
that the model merges into one. Every suggestion is a plan of the changed recipe, not a rule of
thumb.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from franken.devices import free_memory
from franken.errors import UsageError
from franken.models.loading import pick_device
from franken.study.rates import product_rate
from trainer import sft
from trainer.data import Conversation
from trainer.evaluate import request_of
from trainer.kept import most_kept
from trainer.memory import Lengths, StagePlan, kept_bytes, plan_stage
from trainer.public import is_here, public_conversations, public_items
from trainer.recipe import AnyStage, Recipe, parse_recipe
from trainer.rollout import next_items
from trainer.rounding import lost_updates
from trainer.shapes import Shapes, shapes_of
from trainer.stages import GrpoStage, SftStage
from trainer.templates import template

EXAMPLES = 16
CHARACTERS = 3  # a token, where the tokenizer is not here; English is nearer to four
TEMPLATE_TOKENS = 32  # of a chat template, where it is not here
UNKNOWN_PROMPT = 1024  # tokens of a prompt with its image, where the data is not here
SPARE = 0.9  # of a device's memory can be used; the rest is fragments, runtime and processor


CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class MemoryPlan:
    """What a recipe needs and what this machine has, in bytes; why it does not fit, and what would.

    `device` and `available` are this machine's or of the device that was given. `kept` checkpoints
    of `kept_bytes` stay for good, and are part of every stage's disk.
    """

    recipe: str
    model: str
    parameters: int
    device: str
    available: int
    disk_free: int
    processes: int
    stages: list[StagePlan]
    kept: int
    kept_bytes: int
    problems: list[str]
    changes: list[str]
    fits: bool


def memory_plan(
    recipe: Recipe,
    *,
    out: Path | None = None,
    memory: float | None = None,
    processes: int = 1,
) -> MemoryPlan:
    """What every stage needs, and whether this machine has it. `memory` in GiB stands for another
    device.

    Loads no weights. Raises UsageError for a model whose shapes are not known here.
    """
    shapes = shapes_of(recipe.model)
    device, available = _available(recipe.device, memory)
    room = SPARE * available
    free = _disk_free(out or Path("."))
    rate = None if memory else product_rate(device, torch.get_num_threads(), recipe.dtype)
    problems, changes, stages = [], [], []
    for index, stage in enumerate(recipe.stages):
        lengths = lengths_of(stage, shapes)

        def planned(changed: Recipe, over: int = processes, at=index, lengths=lengths) -> StagePlan:
            return plan_stage(changed, at, shapes, lengths, over)

        if few := _too_few(stage, processes):
            problems.append(f"stage {index}: {few[0]}")
            changes.append(f"--set stages.{index}.{few[1]}={processes}")
        plan = planned(recipe)
        stages.append(
            replace(plan, seconds_at_least=plan.flops / rate if rate and plan.flops else None)
        )
        if plan.peak > room:
            problems.append(f"stage {index} needs {gib(plan.peak)}; {device} has {gib(available)}")
            changes += _better(recipe, index, shapes, plan, planned, processes, room)
    disk = max(plan.disk for plan in stages)
    if disk > free and (memory is None or out is not None):  # another device, another disk
        problems.append(f"its checkpoints need {gib(disk)} of disk; {gib(free)} are free")
        changes.append(
            "choose an --out on a larger disk, or freeze more: the optimiser's state is saved for "
            "what trains"
        )
        if recipe.keep.every:
            changes.append("keep fewer: --set 'keep={every: 10, at_most: 20}'")
    return MemoryPlan(
        recipe.name,
        recipe.model,
        shapes.parameters,
        device,
        available,
        free,
        processes,
        stages,
        most_kept(recipe),
        kept_bytes(recipe, shapes),
        problems,
        list(dict.fromkeys(changes)),
        fits=not problems,
    )


def _too_few(stage: AnyStage, processes: int) -> tuple[str, str] | None:
    """What is wrong where a process would have no prompt, and the key to raise."""
    if isinstance(stage, GrpoStage | SftStage):
        key, count = (
            ("prompts", stage.prompts) if isinstance(stage, GrpoStage) else ("batch", stage.batch)
        )
        if count < processes:
            return f"{count} prompts for {processes} processes: one would have none", key
    return None


def refuse_what_cannot_fit(plan: MemoryPlan) -> None:
    """Raises UsageError, saying what to change, where a plan does not fit."""
    if not plan.fits:
        raise UsageError(
            f"{plan.recipe} does not fit",
            why="; ".join(plan.problems),
            fix="; ".join(plan.changes),
        )


def gib(count: float) -> str:
    """Bytes, to read: `12.3 GiB`, `45 MiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"


def lengths_of(stage: AnyStage, shapes: Shapes) -> Lengths:
    """The longest prompt, image and answer of a few examples of a stage."""
    if isinstance(stage, GrpoStage):
        ask = request_of(stage)
        if stage.data and not is_here(stage.data):
            return Lengths(UNKNOWN_PROMPT, UNKNOWN_PROMPT // 2, stage.max_new_tokens, "assumed")
        if stage.data:
            items = public_items(
                stage.data,
                EXAMPLES,
                seed=0,
                step=0,
                max_pixels=stage.max_pixels,
                skipped=_told_elsewhere,
            )
        else:
            items = next_items(stage.tasks, EXAMPLES, seed=0, step=0)
        examples = [
            Conversation(i.image, [(ask + i.question, "")], more_images=i.more_images)
            for i in items
        ]
    elif isinstance(stage, SftStage) and stage.data:
        if not is_here(stage.data):
            return Lengths(UNKNOWN_PROMPT, UNKNOWN_PROMPT // 2, UNKNOWN_PROMPT, "assumed")
        examples = public_conversations(
            stage.data,
            EXAMPLES,
            seed=0,
            step=0,
            ask=request_of(stage),
            max_pixels=stage.max_pixels,
            skipped=_told_elsewhere,
        )
    elif isinstance(stage, SftStage):
        shape = template(stage.template)
        ask = request_of(stage)
        examples = [
            sft.conversation(stage.tasks, seed=0, index=i, shape=shape, ask=ask)
            for i in range(EXAMPLES)
        ]
    else:
        return Lengths(0, 9, 0, "assumed")
    count, known = _counter(shapes.folder)
    counted = [_count(example, count, shapes.pixels_a_token) for example in examples]
    prompt, image, answer = (max(column) for column in zip(*counted, strict=True))
    answer = stage.max_new_tokens if isinstance(stage, GrpoStage) else answer
    return Lengths(prompt, image, answer, known)


def _told_elsewhere(row: int, why: str) -> None:
    """A row that fails has no length; `failing_rows` counts it."""


def _count(example: Conversation, count: CountTokens, pixels: int) -> tuple[int, int, int]:
    side = math.isqrt(pixels)
    image = sum(math.ceil(i.width / side) * math.ceil(i.height / side) for i in example.images)
    (first, _), *others = example.turns
    answers = [answer for _, answer in example.turns]
    rest = sum(count(question) + TEMPLATE_TOKENS for question, _ in others) + sum(
        count(a) + 1 for a in answers
    )
    return count(first) + TEMPLATE_TOKENS // 2 + image, image, rest


def _counter(folder: Path | None) -> tuple[CountTokens, str]:
    """How to count a text's tokens: `measured` by the model's tokenizer, or `guessed`."""
    if folder is None:
        return lambda text: -(-len(text) // CHARACTERS), "guessed"
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]), "measured"


class _Change(NamedTuple):
    """A changed recipe in the words of the command line, over a number of processes."""

    words: str
    recipe: Recipe
    processes: int


def _better(
    recipe: Recipe,
    index: int,
    shapes: Shapes,
    now: StagePlan,
    planned: Callable[[Recipe, int], StagePlan],
    processes: int,
    room: float,
) -> list[str]:
    """Changes after which a stage needs less, each with what it then needs, the least first."""
    changes = list(_changes(recipe, index, shapes, now.lengths, processes))
    peaks = sorted((planned(c.recipe, c.processes).peak, c.words) for c in changes)
    return [
        f"{words} needs {gib(peak)}" + ("" if peak <= room else ", still too much")
        for peak, words in peaks
        if peak < now.peak
    ]


def _changes(
    recipe: Recipe, index: int, shapes: Shapes, lengths: Lengths, processes: int
) -> Iterator[_Change]:
    """What could be changed: keys of the stage, all of them together, and keys of the recipe."""
    stage = recipe.stages[index]
    updates = _stage_updates(stage, lengths)
    half = shapes.text.layers // 2
    lower = [*stage.freeze, "embed", f"text:0-{half}"]
    lower += ["vision", "projector"] if shapes.vision else []
    lower = list(dict.fromkeys(lower))
    freeze: dict[str, object] = {"freeze": lower}
    together = dict(freeze)
    for update in reversed(updates):
        together |= update
    for update in updates:
        words = " ".join(
            f"--set stages.{index}.{key}={str(value).lower()}" for key, value in update.items()
        )
        yield _Change(words, _changed(recipe, index, update), processes)
    yield _Change(f"freeze: {', '.join(lower)}", _changed(recipe, index, freeze), processes)
    everything = _changed(recipe, index, together)
    rounded = everything.model_copy(update={"dtype": "bf16", "precision": "fp32"})
    lost = lost_updates(rounded)  # what would not train is no way out
    words, all_of_them = ("all of these", everything) if lost else ("all of these in bf16", rounded)
    yield _Change(words, all_of_them, processes)
    keys: dict[str, object] = {"activation_checkpointing": True}
    if recipe.dtype == recipe.precision == "fp32" and not lost:
        keys["dtype"] = "bf16"
    for key, value in keys.items():
        changed = recipe.model_copy(update={key: value})
        yield _Change(f"--set {key}={str(value).lower()}", changed, processes)
    if recipe.model != "creature:new" and not recipe.keep.best:
        spread = recipe.model_copy(update={"sharding": "fsdp"})
        words = f"--set sharding=fsdp over {2 * processes} processes"
        yield _Change(words, spread, 2 * processes)


def _stage_updates(stage: AnyStage, lengths: Lengths) -> list[dict[str, object]]:
    """Keys of a stage with smaller values."""
    if isinstance(stage, GrpoStage):
        row = lengths.prompt + stage.max_new_tokens
        at_once = stage.sample_batch or stage.prompts
        return [
            {"packed": True, "token_budget": 2 * row},
            {"token_budget": row},
            *([{"group": stage.group // 2}] if stage.group > 3 else []),
            *([{"sample_batch": at_once // 4 or 1}] if at_once > 1 else []),
            {"prompts": max(1, stage.prompts // 4)},
        ]
    if isinstance(stage, SftStage):
        row = 2 * (lengths.prompt + lengths.answer)
        return [{"packed": True, "token_budget": row}, {"batch": max(1, stage.batch // 4)}]
    return []


def _changed(recipe: Recipe, index: int, update: dict[str, object]) -> Recipe:
    raw = recipe.model_dump(mode="json")
    raw["stages"][index] |= update
    return parse_recipe(raw)


def _available(wanted: str, memory: float | None) -> tuple[str, int]:
    """The device's name and how much memory it has free, in bytes."""
    if memory is not None:
        return f"a device of {memory:g} GiB", int(memory * 2**30)
    device = pick_device(wanted)
    if device.type == "cuda":
        return str(device), torch.cuda.mem_get_info(device)[0]
    # where the system does not say, nothing is refused
    return str(device), free_memory() or 2**63 - 1


def _disk_free(out: Path) -> int:
    folder = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    return shutil.disk_usage(folder).free
