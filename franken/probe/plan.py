"""What a probe will do: methods, layers and pairs, resolved before a model is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from franken import tasks
from franken.checkpoints import Checkpoint, fingerprint, open_checkpoint
from franken.errors import FrankenError, UsageError, check_known, check_positive
from franken.layers import PARTS, parse_ranges
from franken.probe import methods as registry
from franken.probe.method import Method
from franken.tasks import Item, Pair
from franken.tasks.images import read_image
from franken.tasks.questions import questions_of
from franken.tasks.sources import canonical, contents, is_pairs, parse

ENGINES = ("torch", "nnsight")
CALIBRATION = 16
INSTRUCTION = "Please solve the problem and put the final answer in one \\boxed{}.\n\n"
NO_SOURCE = "the question has no second image"


@dataclass(frozen=True)
class ProbePlan:
    """Everything that is resolved before a model is loaded. `layers` are 0-based, of the part
    `part`; `against` is the second checkpoint of methods that compare two.
    """

    checkpoint: Checkpoint
    methods: tuple[Method, ...]
    pairs: tuple[Pair, ...]
    layers: tuple[int, ...]
    identity: Mapping[str, object]
    max_new_tokens: int
    batch_size: int = 128
    engine: str = "torch"
    calibration: tuple[Item, ...] = ()
    part: str = "text"
    seed: int = 0
    dtype: str = "auto"
    against: Checkpoint | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Its methods, as they are spelled."""
        return tuple(method.name for method in self.methods)

    @property
    def n_requested(self) -> int:
        """Rows that the run will hold."""
        return len(self.methods) * len(self.pairs) * len(self.layers)


def plan_probe(
    model: str,
    *,
    methods: Sequence[str] = ("swap", "zero"),
    sites: Sequence[str] = ("residual",),
    task_names: Sequence[str] = (),
    samples: int = 50,
    data: Path | str | None = None,
    layers: str = "all",
    seed: int = 0,
    max_new_tokens: int = 64,
    dtype: str = "auto",
    batch_size: int = 128,
    engine: str = "torch",
    pairs: Sequence[Pair] | None = None,
    against: str | None = None,
    part: str = "",
) -> ProbePlan:
    """Resolve methods, layers and pairs. Raises UsageError for anything unknown.

    `sites` is what `patch` and `across` stand for; `against` a second checkpoint of the same
    architecture, for methods that compare two; `part` vision, projector or text. `data` is a folder
    of image pairs, or any source of questions (`franken.tasks.sources`), which can be ablated and
    read but not swapped; `pairs` are used as they are.
    """
    data = None if data is None else canonical(data)
    checkpoint = open_checkpoint(model)
    chosen = registry.parse(methods, sites)
    _check_run(batch_size, engine, samples)
    for method in chosen:
        if reason := method.unfit(checkpoint):
            raise UsageError(f"{method.name} is not defined for {checkpoint.name}", why=reason)
    second = _second(against, checkpoint, chosen)
    part, numbers = _layers(layers, part, checkpoint, chosen)
    _check_tested(checkpoint, part, chosen)
    if part == "text":
        _check_defined(checkpoint, chosen)
    if engine != "torch" and part != "text":
        raise UsageError(
            f"--engine {engine} cannot probe {part} layers",
            why="it changes decoder layers alone",
            fix="use --engine torch, which is the default",
        )
    probed = list(pairs) if pairs is not None else _pairs(task_names, samples, data, seed)
    calibration: list[Item] = []
    if needing := [method.name for method in chosen if method.calibrated]:
        calibration = [] if pairs is not None else _calibration(probed, task_names, data, seed)
        if not calibration:
            raise UsageError(
                f"{needing[0]} has nothing to calibrate on",
                why="it needs samples that are not probed",
                fix="use zero",
            )
    names = tuple(method.name for method in chosen)
    identity = {
        "checkpoint": fingerprint(checkpoint),
        "methods": names,
        "layers": numbers,
        "pairs": [pair.id for pair in probed],
        "seed": seed,
        "data": data,
        "contents": contents(data) if data else None,
        "samples": samples,
        "max_new_tokens": max_new_tokens,
        "dtype": dtype,
        "engine": engine,
        "calibration": [item.id for item in calibration],
    }
    if part != "text":
        identity["part"] = part
    if second is not None:
        identity["against"] = fingerprint(second)
    return ProbePlan(
        checkpoint,
        chosen,
        tuple(probed),
        numbers,
        identity,
        max_new_tokens,
        batch_size,
        engine,
        tuple(calibration),
        part,
        seed,
        dtype,
        second,
    )


def _second(against: str | None, first: Checkpoint, methods: Sequence[Method]) -> Checkpoint | None:
    """The checkpoint that the probed one is compared with. Raises UsageError unless methods ask for
    one, and where it is not of the same architecture.
    """
    comparing = [method.name for method in methods if method.needs_second]
    if against is None:
        if comparing:
            raise UsageError(
                f"{comparing[0]} needs a second checkpoint",
                why="it compares two models",
                fix="name it with --against",
            )
        return None
    if not comparing:
        raise UsageError(
            "--against without a method that compares two models",
            why=f"{' and '.join(method.name for method in methods)} look at one",
            fix="use --method across,stitch",
        )
    second = open_checkpoint(against)
    if first.model_type != second.model_type:
        raise _unlike(first, second, f"they are {first.model_type} and {second.model_type}")
    for name in sorted(first.matrices.keys() | second.matrices.keys()):
        one, two = (
            str(tuple(c.matrices[name].shape)) if name in c.matrices else "not there"
            for c in (first, second)
        )
        if one != two:
            raise _unlike(first, second, f"{name} is {one} and {two}")
    return second


def _unlike(first: Checkpoint, second: Checkpoint, why: str) -> UsageError:
    return UsageError(
        f"{first.name} and {second.name} are not the same architecture",
        why=why,
        fix="give --against another stage of the same model",
    )


def _check_tested(checkpoint: Checkpoint, part: str, methods: Sequence[Method]) -> None:
    """Raises UsageError where layers of a family are called in a way that a method does not know
    yet: its numbers would be wrong.
    """
    kind = checkpoint.model_type
    blocked = [m.name for m in methods if kind == "gemma4" and m.short == "knockout"]
    if (part != "text" and kind in ("gemma4", "mistral3")) or blocked:
        what = blocked[0] if blocked else f"the {part} part"
        raise UsageError(
            f"{what} of {checkpoint.name} cannot be probed",
            why=f"the layers of {kind} are called in another way than this knows",
            fix="probe its text layers with zero, lens or attention",
        )


def _check_defined(checkpoint: Checkpoint, methods: Sequence[Method]) -> None:
    """Raises UsageError for a method that is not defined for layers that the model has."""
    linear = {e.place.layer for key, e in checkpoint.tensors.items() if ".linear_attn." in key}
    shared = (checkpoint.config.get("text_config") or {}).get("num_kv_shared_layers") or 0
    for method in methods:
        if reason := method.obstacle(len(linear), shared):
            defined = registry.defined(len(linear), shared)
            raise UsageError(
                f"{method.name} is not defined for {checkpoint.name}",
                why=reason,
                fix=f"use --method {','.join(defined)}",
            )


def _check_run(batch_size: int, engine: str, samples: int) -> None:
    if batch_size < 3:
        raise UsageError(
            f"--batch-size {batch_size} is too small",
            why="a swap needs the plain row, the source's and its own",
        )
    check_known("engine", [engine], ENGINES)
    check_positive("--samples", samples)


def depth_of(checkpoint: Checkpoint, part: str) -> int:
    """How many layers a part has that can be probed; a projector counts as one."""
    if part == "projector":
        return int(any(entry.place.part == part for entry in checkpoint.tensors.values()))
    return checkpoint.depths.get(part, 0)


def _layers(
    text: str, part: str, checkpoint: Checkpoint, methods: Sequence[Method]
) -> tuple[str, tuple[int, ...]]:
    """The part and the layers that are probed, checked against what every method takes. `part` is
    that of layers that name none; layers of another may not be named beside it.
    """
    if part:
        check_known("part", [part], PARTS)
    depths = {name: depth_of(checkpoint, name) for name in PARTS}
    ranges = parse_ranges(text, depths, part or "text")
    parts = sorted({r.part for r in ranges})
    if part and parts != [part]:
        raise UsageError(
            f"--part {part} with {' and '.join(parts)} layers",
            why="layers are those of the part that is probed",
            fix="leave one of the two options out",
        )
    for method in methods:
        if len(parts) > 1 or parts[0] not in method.parts:
            raise UsageError(
                f"{method.name} cannot probe {' and '.join(parts)} layers",
                why=f"it acts on one part at a time, {' or '.join(method.parts)}",
                fix=f"use {method.parts[0]}:…",
            )
    return parts[0], tuple(sorted({layer for r in ranges for layer in r.layers}))


def one_pair(target: Path, source: Path, question: str) -> list[Pair]:
    """Two image files under one question. Raises UsageError for a file that is no image, or no
    question.
    """
    if not question.strip():
        raise UsageError(
            "--pair needs a question",
            why="it says what is asked about both images",
            fix='add --ask "…"',
        )
    items = []
    for side, path in (("target", target), ("source", source)):
        try:
            image = read_image(Path(path), str(path))
        except FrankenError as e:
            raise UsageError(f"{path} is no image", why=e.what, fix="give two image files") from e
        digest = hashlib.sha256(image.tobytes()).hexdigest()[:8]
        items.append(Item(f"pair-{side}-{digest}", "pair", question, "", image))
    return [Pair(f"{items[0].id}/{items[1].id}/{question}", "pair", "pair", *items)]


def _pairs(names: Sequence[str], samples: int, data: str | None, seed: int) -> list[Pair]:
    if data is None:
        return [
            pair
            for name in names or tasks.names()
            for pair in tasks.get(name).pairs(samples, seed, "test")
        ]
    path = parse(data).path
    if path is None or not is_pairs(path):
        return [_alone(item) for item in questions_of(names, samples, seed, data).items]
    loaded = tasks.load_folder(path)
    known = list(dict.fromkeys(p.task for p in loaded))
    check_known("task", names, known, why=f"{data} has {', '.join(known)}")
    chosen = [name for name in known if not names or name in names]
    return [pair for name in chosen for pair in [p for p in loaded if p.task == name][:samples]]


def _alone(item: Item) -> Pair:
    """A question of a table as a pair that swaps count as ineligible: there is no second image to
    swap in.
    """
    if item.image is None and not item.options and item.question:
        item = replace(item, question=INSTRUCTION + item.question)
    return Pair(
        item.id,
        item.task,
        item.task,
        item,
        item,
        ineligible=None if item.error else NO_SOURCE,
        error=item.error,
    )


def _calibration(
    pairs: Sequence[Pair], names: Sequence[str], data: str | None, seed: int
) -> list[Item]:
    """Items to calibrate on: of the other split for puzzles; of other data, rows that are not
    probed where there are any.
    """
    if data is None:
        chosen = names or tasks.names()
        each = -(-CALIBRATION // len(chosen))
        return [item for name in chosen for item in tasks.get(name).items(each, seed, "train")][
            :CALIBRATION
        ]
    probed = {p.id for p in pairs}
    rows = [p for p in _pairs(names, len(pairs) + CALIBRATION, data, seed) if not p.target.error]
    others = [p for p in rows if p.id not in probed]
    return [p.target for p in (others or rows)[:CALIBRATION]]
