"""The vision tower in training: kept features where it is frozen, and, where it is sharded, a run
of it on every process in every pass.

A sharded tower gathers its blocks from all processes. A process whose rows have no image would
leave the others waiting for ever; it shows the tower a blank picture instead, whose features count
for nothing: their sum times zero enters the loss, so that gradients are gathered in step as well.
The blank picture goes first, as images do in a forward pass.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from franken.generate.engine import Prompt
from franken.generate.native import encode_prompts
from franken.models.batch import Images, ModelBatch
from franken.models.features import TowerOutput, by_row, takes_features, tower_sum
from franken.models.loading import Loaded
from trainer.policy import row_slices
from trainer.sharding import inside, is_sharded

BLANK = Image.new("RGB", (56, 56), "white")
T = TypeVar("T")


def with_features(loaded: Loaded, batch: ModelBatch, at_once: int = 0) -> ModelBatch:
    """Replace pixels by the image features of the frozen vision tower, once; unchanged where the
    family cannot.

    The tower sees the images of `at_once` rows at a time, all by default.
    """
    if batch.images.pixel_values is None or not keeps_features(loaded):
        return batch
    parts = [batch.images.slice(places) for places in row_slices(batch.rows, at_once)]
    with torch.no_grad():
        made = [_see(loaded, part) for part in parts if part.pixel_values is not None]
    features = by_row(made, batch.is_image.sum(1).tolist())
    return replace(batch, images=batch.images.with_features(features))


def _see(loaded: Loaded, images: Images) -> TowerOutput:
    """What the tower and the projector make of images."""
    inner: Any = loaded.model.model
    known = inspect.signature(type(inner).get_image_features).parameters
    given = {name: value for name, value in images.tensors().items() if name in known}
    return inner.get_image_features(**given, return_dict=True)


def keeps_features(loaded: Loaded) -> bool:
    """Whether `with_features` computes features once: the tower is frozen, and the model's forward
    pass takes them.
    """
    return takes_features(loaded.model) and not _vision_trains(loaded)


def in_step(loaded: Loaded, inputs: ModelBatch, call: Callable[[], T]) -> tuple[T, Tensor | float]:
    """Run a call that forwards `inputs`, and the tower as often as every other process does.

    Returns the call's result and a zero, to be added to what is differentiated.
    """
    if not is_sharded(loaded.model):
        return call(), 0.0
    alone = inputs.images.pixel_values is None and loaded.family.vision_blocks(loaded.model)

    def both() -> tuple[T, Tensor | float]:
        zero = 0.0 * blank_features(loaded) if alone else 0.0
        return call(), zero

    return inside(loaded.model, both)


def blank_features(loaded: Loaded) -> Tensor:
    """The sum, a scalar, of all that the tower makes of a blank picture."""
    return tower_sum(_see(loaded, encode_prompts(loaded, [Prompt("", (BLANK,))]).images))


def _vision_trains(loaded: Loaded) -> bool:
    return any(p.requires_grad for p in loaded.family.seeing(loaded.model))
