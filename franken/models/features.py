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
    """What `get_image_features` returns: a tensor an image, or all tiles `[tiles, tokens, hidden]`;
    beside it Qwen3-VL's `deepstack_features`, by level.
    """

    @property
    def pooler_output(self) -> "Sequence[Tensor] | Tensor": ...


class Rows(tuple[Tensor, ...]):
    """Features of every row. Families whose tiles have equally many tokens ask for them `.to` a
    device, as one tensor `[1, tokens, hidden]`.
    """

    def to(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """All rows, one behind another."""
        return torch.cat(self)[None].to(device, dtype)


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """The vision tower's output `[visual tokens, hidden]` for every row, empty where it has no
    image, under the names by which the decoder reads it.
    """

    pooler_output: Rows
    deepstack_features: tuple[tuple[Tensor, ...], ...] | None = None

    def to_tuple(self) -> tuple[object, ...]:
        """Its fields: transformers (5.24) hands features on as it does its own outputs."""
        return (self.pooler_output, self.deepstack_features)

    def each(self, change: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]) -> "ImageFeatures":
        """With the tensors of all rows changed, at every level."""
        levels = self.deepstack_features
        deepstack = None if levels is None else tuple(change(level) for level in levels)
        return ImageFeatures(Rows(change(self.pooler_output)), deepstack)


def by_row(parts: Sequence[TowerOutput], tokens: Sequence[int]) -> ImageFeatures:
    """What calls of the vision tower returned, one after another, for rows of so many visual
    `tokens`; what no forward pass reads again is let go.
    """
    whole = torch.cat([_flat(part.pooler_output) for part in parts])
    levels = [[_flat(level) for level in _levels(part)] for part in parts]
    deepstack = tuple(torch.cat(level).split([*tokens]) for level in zip(*levels, strict=True))
    return ImageFeatures(Rows(whole.split([*tokens])), deepstack or None)


def join_features(parts: Sequence[ImageFeatures]) -> ImageFeatures:
    """The rows of several batches, one batch after another."""
    levels = [part.deepstack_features or () for part in parts]
    deepstack = tuple(tuple(chain(*level)) for level in zip(*levels, strict=True))
    return ImageFeatures(Rows(chain(*(part.pooler_output for part in parts))), deepstack or None)


def tower_sum(made: TowerOutput) -> Tensor:
    """The sum of all that a call of the vision tower returned, a scalar."""
    return torch.stack([_flat(each).sum() for each in (made.pooler_output, *_levels(made))]).sum()


def _flat(features: Sequence[Tensor] | Tensor) -> Tensor:
    """`[tokens, hidden]` of all images or tiles, in their order."""
    if isinstance(features, Tensor):
        return features.reshape(-1, features.shape[-1])
    return torch.cat([each.reshape(-1, each.shape[-1]) for each in features])


def _levels(part: TowerOutput) -> Sequence[Sequence[Tensor] | Tensor]:
    """Qwen3-VL's features of every level, a tensor an image; before 5.18 in one piece."""
    return getattr(part, "deepstack_features", None) or ()


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


def keep_single_tokens(model: "PreTrainedModel") -> None:
    """Mistral 3 (5.23) takes the features of one visual token, `[1, hidden]`, for those of no
    batch, and loses it: its projector says that they are of one.
    """
    if model.config.model_type == "mistral3":
        projector = _inner(model).multi_modal_projector
        projector.register_forward_hook(
            lambda _, given, made: made[None] if made.ndim == 2 else made
        )


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
