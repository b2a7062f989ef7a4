"""What a vision tower makes of images, kept and handed to later forward passes in place of pixels.

transformers takes it as `mm_encoder_outputs` since 5.18. To the models of earlier versions, which
many GPU machines carry, `accept_features` teaches the same argument: the features travel as
`pixel_values` to the place where the tower would run, which hands them back.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MethodType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TowerOutput(Protocol):
    """What a Qwen-VL vision tower returns; beside it Qwen3-VL's `deepstack_features`, by level."""

    @property
    def pooler_output(self) -> Sequence[Tensor]: ...


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """The vision tower's output `[visual tokens, hidden]` of every image, under the names by which
    the decoder reads it.
    """

    pooler_output: tuple[Tensor, ...]
    deepstack_features: tuple[tuple[Tensor, ...], ...] | None = None

    def to_tuple(self) -> tuple[object, ...]:
        """Its fields: transformers (5.24) hands features on as it does its own outputs."""
        return (self.pooler_output, self.deepstack_features)

    def each(self, change: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]) -> "ImageFeatures":
        """With the tensors of all images changed, at every level."""
        levels = self.deepstack_features
        deepstack = None if levels is None else tuple(change(level) for level in levels)
        return ImageFeatures(change(self.pooler_output), deepstack)


def join_features(parts: Sequence[TowerOutput]) -> ImageFeatures:
    """What several calls of the vision tower returned, as that of one; what no forward pass reads
    again is let go.
    """
    images = tuple(chain(*(part.pooler_output for part in parts)))
    levels = [_levels(part) for part in parts]
    deepstack = tuple(tuple(chain(*level)) for level in zip(*levels, strict=True))
    return ImageFeatures(images, deepstack or None)


def _levels(part: TowerOutput) -> list[Sequence[Tensor]]:
    """Qwen3-VL's features of every level, a tensor an image; before 5.18 they came in one piece."""
    lengths = [len(image) for image in part.pooler_output]
    levels = getattr(part, "deepstack_features", None) or ()
    return [each.split(lengths) if isinstance(each, Tensor) else each for each in levels]


def takes_features(model: "PreTrainedModel") -> bool:
    """Whether a forward pass of the model takes features in place of pixels."""
    return "mm_encoder_outputs" in inspect.signature(_inner(model).forward).parameters


def accept_features(model: "PreTrainedModel") -> None:
    """Let the forward pass of a Qwen-VL model take `mm_encoder_outputs`, where it does not yet."""
    inner = _inner(model)
    known = inspect.signature(getattr(inner, "get_image_features", lambda: None)).parameters
    if "image_grid_thw" in known and not takes_features(model):
        inner.forward = MethodType(_forward, inner)
        inner.get_image_features = MethodType(_image_features, inner)


def _inner(model: "PreTrainedModel") -> Any:
    return model.model


def _forward(
    self: Any,
    *arguments: object,
    mm_encoder_outputs: Mapping[str, ImageFeatures] | None = None,
    **named: object,
) -> object:
    if mm_encoder_outputs is not None:
        named["pixel_values"] = mm_encoder_outputs["image"]
    return type(self).forward(self, *arguments, **named)


def _image_features(self: Any, pixel_values: Any, *arguments: object, **named: object) -> Any:
    if not isinstance(pixel_values, ImageFeatures):
        return type(self).get_image_features(self, pixel_values, *arguments, **named)
    return _Joined(
        pixel_values.pooler_output,
        [torch.cat(level) for level in pixel_values.deepstack_features or ()],
    )


@dataclass(frozen=True)
class _Joined:
    """Features as the decoders of earlier versions read them: every level in one piece."""

    pooler_output: tuple[Tensor, ...]
    deepstack_features: list[Tensor]
