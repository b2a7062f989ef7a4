"""`franken train RECIPE --plan`: the memory of every stage beside what this machine has, and what
to change where it is short.

Lengths of prompts and answers are measured on a few drawn examples with the model's own processor
where it is on disk; where it is not, a token is taken to be three characters of text, or the pixels
that the model merges into one. Every suggestion is a plan of the changed recipe, not a rule of
thumb.
"""

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from franken.errors import UsageError
from franken.layers import COMPONENTS, PARTS
from franken.models.loading import pick_device
from franken.selection import select
from trainer import sft
from trainer.data import Conversation
from trainer.evaluate import request_of
from trainer.memory import Lengths, StagePlan, adapters_of, plan_stage
from trainer.public import check_held_out, is_here, public_items
from trainer.recipe import Lora, Recipe, parse_recipe
from trainer.rollout import next_items
from trainer.rounding import lost_updates
from trainer.shapes import Shapes, numel, shapes_of
from trainer.stages import GrpoStage, SftStage
from trainer.templates import template

EXAMPLES = 16
CHARACTERS = 3  # a token, where the tokenizer is not here; English is nearer to four
TEMPLATE_TOKENS = 32  # of a chat template, where it is not here
UNKNOWN_PROMPT = 1024  # tokens of a prompt with its image, where the data is not here
TIED = "the output head is tied to the embeddings: freeze embed"
SPARE = (
    0.9  # of a device's memory can be used; the rest is fragments, the runtime and the processor
)


def memory_plan(
    recipe: Recipe,
    *,
    freeze: Sequence[str] = (),
    out: Path | None = None,
    memory: float | None = None,
    processes: int = 1,
) -> dict[str, Any]:
    """What every stage needs, in bytes, and whether this machine has it. `memory` in GiB stands for
    another device.

    Returns `{"model", "parameters", "device", "available", "disk_free", "stages", "problems",
    "changes", "fits"}`. Loads no weights. Raises UsageError for a model whose shapes are not known
    here.
    """
    shapes = shapes_of(recipe.model)
    lengths = [lengths_of(stage, shapes) for stage in recipe.stages]
    plans = [
        plan_stage(recipe, i, shapes, lengths[i], freeze, processes)
        for i in range(len(recipe.stages))
    ]
    device, available = _available(recipe.device, memory)
    free = _disk_free(out or Path("."))
    problems, changes = [], []
    for index, plan in enumerate(plans):
        if plan.peak > SPARE * available:
            problems.append(f"stage {index} needs {gib(plan.peak)}; {device} has {gib(available)}")
            changes += _changes(
                recipe, index, shapes, lengths[index], freeze, processes, SPARE * available
            )
    disk = max(plan.disk for plan in plans)
    if disk > free and (memory is None or out is not None):  # another device, another disk
        problems.append(f"its checkpoints need {gib(disk)} of disk; {gib(free)} are free")
        changes.append(
            "choose an --out on a larger disk, or freeze more: the optimiser's state is saved for what trains"
        )
    rate = None if memory else _speed(device, recipe.dtype)
    stages = [
        {**asdict(plan), "seconds_at_least": plan.flops / rate if rate and plan.flops else None}
        for plan in plans
    ]
    return {
        "recipe": recipe.name,
        "model": recipe.model,
        "parameters": shapes.parameters,
        "device": device,
        "available": available,
        "disk_free": free,
        "processes": processes,
        "stages": stages,
        "problems": problems,
        "changes": list(dict.fromkeys(changes)),
        "fits": not problems,
    }


def freeze_plan(recipe: Recipe, freeze: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What each stage would train: its kind, length, data and freeze table (as
    `trainer.freeze.apply_freeze` makes it).

    Everything is validated but the download: shapes stand for the model, which is neither loaded
    nor fetched.
    """
    shapes = shapes_of(recipe.model)
    tied = (
        ""
        if any(
            spot.component == "head" for _, spot in shapes.tensors.values() if spot.part == "text"
        )
        else TIED
    )
    stages = []
    for stage in recipe.stages:
        if isinstance(stage, GrpoStage) and stage.held_out and is_here(stage.data):
            check_held_out(stage.data, stage.held_out, stage.prompts)
        specs = (*stage.freeze, *freeze)
        table = freeze_table(
            shapes,
            specs,
            stage.train,
            tied if "head" in (*specs, *stage.train) else "",
            recipe.lora,
        )
        length = f"{stage.steps} steps" if stage.steps else f"{stage.cpu_seconds:g} CPU-seconds"
        data = getattr(stage, "data", "") or ", ".join(getattr(stage, "tasks", {}))
        stages.append(
            {
                "kind": stage.kind,
                "length": length,
                "data": data,
                "freeze": list(specs),
                "train": list(stage.train),
                "table": table,
            }
        )
    return stages


def freeze_table(
    shapes: Shapes,
    specs: Sequence[str],
    train: Sequence[str] = (),
    why: str = "",
    lora: Lora | None = None,
) -> list[dict[str, Any]]:
    """Rows of part, layer, component, frozen, tensors, parameters. With LoRA all weights are
    frozen, and adapters rows too.
    """
    places = {name: spot for name, (_, spot) in shapes.tensors.items()}
    frozen = select(specs, places, option="--freeze", why=why) if specs else set()
    if train:
        frozen |= set(places) - select(train, places, option="--train", why=why)
    adapters = adapters_of(shapes, lora) if lora else {}
    tensors = [
        (spot, bool(lora) or name in frozen, 1, numel(shape))
        for name, (shape, spot) in shapes.tensors.items()
    ]
    tensors += [(places[host], host in frozen, 2, size) for host, size in adapters.items()]
    if all(still for _, still, _, _ in tensors):
        raise UsageError(
            "everything is frozen", why="no parameter is left to train", fix="freeze less"
        )
    groups: dict[tuple[str, int | None, str, bool], list[int]] = {}
    for spot, still, count, parameters in tensors:
        counted = groups.setdefault((spot.part, spot.layer, spot.component, still), [0, 0])
        counted[0] += count
        counted[1] += parameters
    order = sorted(
        groups,
        key=lambda k: (PARTS.index(k[0]), -1 if k[1] is None else k[1], COMPONENTS.index(k[2])),
    )
    columns = ("part", "layer", "component", "frozen")
    return [
        dict(zip(columns, k, strict=True)) | {"tensors": groups[k][0], "parameters": groups[k][1]}
        for k in order
    ]


def refuse_what_cannot_fit(plan: dict[str, Any]) -> None:
    """Raises UsageError, saying what to change, where a plan does not fit."""
    if not plan["fits"]:
        raise UsageError(
            f"{plan['recipe']} does not fit",
            why="; ".join(plan["problems"]),
            fix="; ".join(plan["changes"]),
        )


def gib(count: float) -> str:
    """Bytes, to read: `12.3 GiB`, `45 MiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"


def lengths_of(stage: Any, shapes: Shapes) -> Lengths:
    """The longest prompt, image and answer of a few examples of a stage."""
    if isinstance(stage, GrpoStage):
        ask = request_of(stage)
        if stage.data and not is_here(stage.data):
            return Lengths(UNKNOWN_PROMPT, UNKNOWN_PROMPT // 2, stage.max_new_tokens, "assumed")
        draw = public_items if stage.data else next_items
        items = draw(stage.data or stage.tasks, EXAMPLES, seed=0, step=0)  # pyright: ignore[reportArgumentType]
        examples = [Conversation(item.image, [(ask + item.question, "")]) for item in items]
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


def _count(example: Conversation, count: Any, pixels: int) -> tuple[int, int, int]:
    image = 0
    if example.image is not None:
        side = math.isqrt(pixels)
        image = math.ceil(example.image.width / side) * math.ceil(example.image.height / side)
    (first, _), *others = example.turns
    answers = [answer for _, answer in example.turns]
    rest = sum(count(question) + TEMPLATE_TOKENS for question, _ in others) + sum(
        count(a) + 1 for a in answers
    )
    return count(first) + TEMPLATE_TOKENS // 2 + image, image, rest


def _counter(folder: Path | None) -> tuple[Any, str]:
    """How to count a text's tokens, and how well: `measured` by the model's tokenizer or `guessed`."""
    if folder is None:
        return lambda text: -(-len(text) // CHARACTERS), "guessed"
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]), "measured"


def _changes(
    recipe: Recipe,
    index: int,
    shapes: Shapes,
    lengths: Lengths,
    freeze: Sequence[str],
    processes: int,
    room: float,
) -> list[str]:
    """Changes of one stage that need less, each with what it then needs; those that fit by
    themselves come first.
    """
    stage = recipe.stages[index]
    tried: dict[str, dict[str, Any]] = {}
    if isinstance(stage, GrpoStage):
        row = lengths.prompt + stage.max_new_tokens
        tried[f"--set stages.{index}.packed=true --set stages.{index}.token_budget={2 * row}"] = {
            "packed": True,
            "token_budget": 2 * row,
        }
        tried[f"--set stages.{index}.token_budget={row}"] = {"token_budget": row}
        if stage.group > 3:
            tried[f"--set stages.{index}.group={stage.group // 2}"] = {"group": stage.group // 2}
        at_once = stage.sample_batch or stage.prompts
        if at_once > 1:
            tried[f"--set stages.{index}.sample_batch={at_once // 4 or 1}"] = {
                "sample_batch": at_once // 4 or 1
            }
        tried[f"--set stages.{index}.prompts={max(1, stage.prompts // 4)}"] = {
            "prompts": max(1, stage.prompts // 4)
        }
    elif stage.kind == "sft":
        row = 2 * (lengths.prompt + lengths.answer)
        tried[f"--set stages.{index}.packed=true --set stages.{index}.token_budget={row}"] = {
            "packed": True,
            "token_budget": row,
        }
        tried[f"--set stages.{index}.batch={max(1, stage.batch // 4)}"] = {
            "batch": max(1, stage.batch // 4)
        }
    half = shapes.text.layers // 2
    lower = [*stage.freeze, "embed", f"text:0-{half}"] + (
        ["vision", "projector"] if shapes.vision else []
    )
    tried[f"freeze: {', '.join(dict.fromkeys(lower))}"] = {"freeze": list(dict.fromkeys(lower))}
    variants = [(words, _changed(recipe, index, change)) for words, change in tried.items()]
    together: dict[str, Any] = {
        key: value for change in reversed(tried.values()) for key, value in change.items()
    }
    everything = _changed(recipe, index, together)
    rounded = everything.model_copy(update={"dtype": "bf16", "precision": "fp32"})
    lost = lost_updates(rounded)  # what would not train is no way out
    variants.append(("all of these", everything) if lost else ("all of these in bf16", rounded))
    lighter = {"activation_checkpointing": True}
    variants.append(("--set activation_checkpointing=true", recipe.model_copy(update=lighter)))
    if recipe.dtype == recipe.precision == "fp32" and not lost:
        variants.append(("--set dtype=bf16", recipe.model_copy(update={"dtype": "bf16"})))
    found = [
        (_peak(changed, index, shapes, lengths, freeze, processes), words)
        for words, changed in variants
    ]
    if recipe.model != "creature:new" and not recipe.keep.best:
        spread = recipe.model_copy(update={"sharding": "fsdp"})
        words = f"--set sharding=fsdp over {2 * processes} processes"
        found.append((_peak(spread, index, shapes, lengths, freeze, 2 * processes), words))
    now = _peak(recipe, index, shapes, lengths, freeze, processes)
    better = sorted((peak, words) for peak, words in found if peak < now)
    return [
        f"{words} needs {gib(peak)}" + ("" if peak <= room else ", still too much")
        for peak, words in better
    ]


def _changed(recipe: Recipe, index: int, change: dict[str, Any]) -> Recipe:
    raw = recipe.model_dump(mode="json")
    raw["stages"][index] |= change
    return parse_recipe(raw)


def _peak(
    recipe: Recipe,
    index: int,
    shapes: Shapes,
    lengths: Lengths,
    freeze: Sequence[str],
    processes: int,
) -> int:
    plan: StagePlan = plan_stage(recipe, index, shapes, lengths, freeze, processes)
    return plan.peak


def _available(wanted: str, memory: float | None) -> tuple[str, int]:
    """The device's name and how much memory it has free, in bytes."""
    if memory is not None:
        return f"a device of {memory:g} GiB", int(memory * 2**30)
    device = pick_device(wanted)
    if device.type == "cuda":
        return str(device), torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    free = next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 0
    )
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    free = min(free, int(text)) if text.isdigit() else free
    return str(device), free or 2**63 - 1  # where the system does not say, nothing is refused


def _disk_free(out: Path) -> int:
    folder = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    return shutil.disk_usage(folder).free


def _speed(device: str, dtype: str) -> float:
    """Operations a second of a matrix product on the device, measured for a moment."""
    size = 4096 if device.startswith("cuda") else 512
    a = torch.ones(
        size, size, device=device, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32
    )
    torch.mm(a, a).sum().item()
    began, count = time.perf_counter(), 8
    for _ in range(count):
        b = torch.mm(a, a)
    b.sum().item()
    return count * 2 * size**3 / (time.perf_counter() - began)
