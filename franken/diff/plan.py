"""What will be compared: which tensors of which checkpoints, and what cannot be compared and why.
Headers only.

Checkpoints are paired by canonical name, so that spelling, shards and dtype may differ. A head that
one side ties to its embedding and the other stores is compared with that embedding. What exists on
one side only, or has another shape or a type that cannot be computed with, is a problem that is
named, never dropped. Of a mixture of experts every expert is compared by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from franken.adapters import open_adapter
from franken.checkpoints import (
    Checkpoint,
    LowRank,
    TensorEntry,
    is_adapter,
    open_checkpoint,
    resolve,
)
from franken.diff.values import READABLE
from franken.errors import UsageError, check_known
from franken.layers import COMPONENTS, PARTS, LayerRange, parse_ranges
from franken.names import Place, Places
from franken.runs import STAGES
from franken.soundness import check_agreement

Stages = dict[str, Checkpoint]  # base, sft, rl, in the order of training
HEAD, EMBEDDING = "text.lm_head.weight", "text.embed_tokens.weight"


@dataclass(frozen=True)
class DiffPlan:
    """What is compared: tensors in all checkpoints by canonical name, and the problems of the
    others.
    """

    checkpoints: Stages
    tensors: tuple[str, ...]
    problems: dict[str, str]
    selection: dict[str, list[str]]

    @property
    def deltas(self) -> list[tuple[str, str]]:
        """(earlier, later): adjacent stages, then base → rl when there are three."""
        stages = list(self.checkpoints)
        adjacent = list(zip(stages, stages[1:], strict=False))
        return [*adjacent, (stages[0], stages[-1])] if len(stages) == 3 else adjacent

    def stages(self, tensor: str) -> list[tuple[TensorEntry, LowRank | None]]:
        """Where a tensor's values are in every checkpoint, in the order of training."""
        keys = ((c, stored_as(c, tensor)) for c in self.checkpoints.values())
        return [(c.matrices[key], c.updates.get(key)) for c, key in keys]

    def nbytes(self, tensor: str) -> int:
        """Bytes to read for a tensor."""
        return sum(entry.nbytes for entry, _ in self.stages(tensor))

    @property
    def total_bytes(self) -> int:
        """Bytes to read."""
        return sum(self.nbytes(tensor) for tensor in self.tensors)

    def place(self, tensor: str) -> Place:
        """Part, layer and component of a tensor that any of the checkpoints has."""
        return self.entry(tensor).place

    def entry(self, tensor: str) -> TensorEntry:
        """A tensor in the first checkpoint that has it."""
        return next(c.matrices[tensor] for c in self.checkpoints.values() if tensor in c.matrices)

    @property
    def places(self) -> Places:
        """Those of all tensors, comparable or not."""
        return {tensor: self.place(tensor) for tensor in (*self.tensors, *self.problems)}


def plan_diff(
    checkpoints: Sequence[str | Path],
    *,
    layers: str = "",
    parts: Sequence[str] = (),
    components: Sequence[str] = (),
    download: bool = False,
) -> DiffPlan:
    """Open the headers of BASE RL or BASE SFT RL and pair their tensors.

    A LoRA adapter stands for what it makes of the last full checkpoint before it. `layers`
    (`16-28,vision:all`), `parts` and `components` limit what is compared. Raises UsageError where
    nothing is left.
    """
    opened = _open(checkpoints, download)
    return pair(opened, layers=layers, parts=parts, components=components)


def pair(
    opened: Stages, *, layers: str = "", parts: Sequence[str] = (), components: Sequence[str] = ()
) -> DiffPlan:
    """Pair the tensors of opened checkpoints, any number of them. Raises UsageError where nothing
    is left.
    """
    chosen = {(r.part, layer) for r in _ranges(layers, opened) for layer in r.layers}
    check_known("--parts", parts, PARTS)
    check_known("--components", components, COMPONENTS)
    places = {key: entry.place for c in opened.values() for key, entry in c.matrices.items()}
    tensors, problems = [], {}
    for key, spot in places.items():
        if (
            (chosen and (spot.part, spot.layer) not in chosen)
            or (parts and spot.part not in parts)
            or (components and spot.component not in components)
        ):
            continue
        problem = _problem(key, opened)
        if problem:
            problems[key] = problem
        else:
            tensors.append(key)
    if not tensors:
        raise UsageError(
            "nothing can be compared",
            why="the checkpoints share no tensor"
            + (" in this selection" if chosen or parts or components else ""),
            fix="compare checkpoints of one architecture, or select more",
        )
    selection = {
        "layers": [layers] if layers else [],
        "parts": list(parts),
        "components": list(components),
    }
    return DiffPlan(opened, tuple(tensors), problems, selection)


def stored_as(checkpoint: Checkpoint, tensor: str) -> str:
    """The name under which a checkpoint stores a tensor: a tied head is its embedding."""
    tied = tensor == HEAD and HEAD not in checkpoint.tensors and checkpoint.settings.tied
    return EMBEDDING if tied else tensor


def _open(checkpoints: Sequence[str | Path], download: bool) -> Stages:
    if len(checkpoints) not in (2, 3):
        raise UsageError(
            f"{len(checkpoints)} checkpoints given", why="diff takes BASE RL or BASE SFT RL"
        )
    stages = ("base", "rl") if len(checkpoints) == 2 else STAGES
    opened: Stages = {}
    for stage, path in zip(stages, checkpoints, strict=True):
        folder = resolve(path, download=download)
        if not is_adapter(folder):
            opened[stage] = open_checkpoint(folder)
        elif not opened:
            raise UsageError(
                f"{folder.name} is a LoRA adapter", why="the first checkpoint must be a model"
            )
        else:
            opened[stage] = open_adapter(
                folder, next(c for c in reversed(opened.values()) if not c.updates)
            )
    return opened


def _ranges(layers: str, opened: Stages) -> tuple[LayerRange, ...]:
    return parse_ranges(layers, next(iter(opened.values())).depths) if layers else ()


def _problem(key: str, opened: Stages) -> str | None:
    entries = {stage: c.matrices.get(stored_as(c, key)) for stage, c in opened.items()}
    absent = [stage for stage, entry in entries.items() if entry is None]
    if absent:
        return f"not in {', '.join(absent)}"
    there = {stage: entry for stage, entry in entries.items() if entry is not None}
    shapes = {stage: entry.shape for stage, entry in there.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{list(shape)} in {stage}" for stage, shape in shapes.items())
        check_agreement(key, shapes)
        return f"shapes differ: {told}"
    strange = sorted({entry.dtype for entry in there.values()} - set(READABLE))
    return f"{', '.join(strange)} cannot be computed with" if strange else None
