"""What each stage would train, from shapes alone: the model is neither loaded nor fetched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from franken.runs.training import FrozenRow
from trainer.freeze import Tensors, freeze_table, frozen_keys
from trainer.memory import adapters_of
from trainer.public import check_held_out, is_here
from trainer.recipe import Lora, Recipe
from trainer.shapes import Shapes, numel, shapes_of
from trainer.stages import AskingStage


@dataclass(frozen=True)
class StageFreeze:
    """A stage's kind, length and data, what its `freeze` and `train` say, and the table of both."""

    kind: str
    length: str
    data: str
    freeze: list[str]
    train: list[str]
    table: list[FrozenRow]


def freeze_plan(recipe: Recipe, freeze: Sequence[str] = ()) -> list[StageFreeze]:
    """What each stage would train. Everything is validated but the download."""
    shapes = shapes_of(recipe.model)
    stages = []
    for stage in recipe.stages:
        if isinstance(stage, AskingStage) and stage.held_out and is_here(stage.data):
            check_held_out(stage.data, stage.held_out, stage.count)
        specs = [*stage.freeze, *freeze]
        length = f"{stage.steps} steps" if stage.steps else f"{stage.cpu_seconds:g} CPU-seconds"
        data = getattr(stage, "data", "") or ", ".join(getattr(stage, "tasks", {}))
        table = freeze_table(_tensors(shapes, specs, stage.train, recipe.lora))
        stages.append(StageFreeze(stage.kind, length, data, specs, list(stage.train), table))
    return stages


def _tensors(
    shapes: Shapes, specs: Sequence[str], train: Sequence[str], lora: Lora | None
) -> Iterator[Tensors]:
    """The model's tensors. With LoRA all of them are frozen, and those of the adapters follow."""
    places = shapes.places
    tied = not any(p.part == "text" and p.component == "head" for p in places.values())
    frozen = frozen_keys(places, specs, train, tied=tied)
    for name, (shape, spot) in shapes.tensors.items():
        yield Tensors(spot, bool(lora) or name in frozen, numel(shape))
    for host, size in (adapters_of(shapes, lora) if lora else {}).items():
        yield Tensors(places[host], host in frozen, size, tensors=2)
