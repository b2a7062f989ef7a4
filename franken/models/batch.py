"""What a processor returns, typed: tokens, mask, positions and images of some rows, as a model
takes them.

A row may have any number of images, or none, whatever the other rows have. Processors lay pixels
out in three ways, and to take some rows of a batch is to know which:

    flat      [entries, …]       patches (Qwen-VL and GLM-V, with `image_grid_thw`) or tiles
                                 (InternVL, Gemma 3, LLaVA); a row has as many as its image tokens
                                 stand for
    by image  [images, …]        the crops or patches of every image, with `image_sizes`
                                 (LLaVA-NeXT, LLaVA-OneVision, Mistral 3) or `image_position_ids`
                                 (Gemma 4), and zeros behind them
    stacked   [rows, most, …]    the tiles of every row, with zeros behind them (SmolVLM, Idefics3)

Left out: videos.
"""

from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from franken.errors import FrankenError
from franken.models.families import family_of
from franken.models.features import ImageFeatures, join_features
from franken.models.positions import position_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Device = torch.device | str
TYPES = ("token_type_ids", "mm_token_type_ids")
TOKENS = ("input_ids", "attention_mask", "position_ids", *TYPES)
PIXELS = ("pixel_values", "pixel_attention_mask")
BY_IMAGE = ("image_grid_thw", "image_sizes", "image_position_ids")
IMAGES = (*PIXELS, *BY_IMAGE, "batch_num_images")


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a batch, in the order of its rows.

    Row `i` has `counts[i]` images, which are `entries[i]` entries of `pixel_values`. `features` are
    what the vision tower made of them, a tensor a row; where they are known there are no pixels.
    """

    counts: tuple[int, ...]
    entries: tuple[int, ...] = field(repr=False)
    pixel_values: Tensor | None = field(default=None, repr=False)
    pixel_attention_mask: Tensor | None = field(default=None, repr=False)
    image_grid_thw: Int[Tensor, "images 3"] | None = None
    image_sizes: Int[Tensor, "images 2"] | None = None
    image_position_ids: Int[Tensor, "images patches 2"] | None = None
    batch_num_images: Int[Tensor, "rows"] | None = None
    features: ImageFeatures | None = field(default=None, repr=False)

    def tensors(self) -> dict[str, Tensor]:
        """What the processor returned about images, by the model's names for it."""
        values = {name: getattr(self, name) for name in IMAGES}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def stacked(self) -> bool:
        """Whether the pixels are `[rows, most, channels, height, width]`."""
        pixels = self.pixel_values
        return pixels is not None and pixels.ndim == 5 and self.image_sizes is None

    def slice(self, rows: Sequence[int]) -> "Images":
        """The images of some rows, in the order of these rows."""
        rows = list(rows)
        counts, entries = (tuple(of[row] for row in rows) for of in (self.counts, self.entries))
        if not any(counts):
            return Images(counts, entries)
        starts = list(accumulate(self.counts, initial=0))
        images = [image for row in rows for image in range(starts[row], starts[row + 1])]

        def take(name: str, values: Tensor) -> Tensor:
            if name in BY_IMAGE:
                return values[images]
            if name in PIXELS and self.stacked:
                return values[rows, : max(entries)]
            if name in PIXELS:
                parts = values.split(self.entries)
                return torch.cat([parts[row] for row in rows])
            return values[rows]

        taken = {name: take(name, values) for name, values in self.tensors().items()}
        features = self.features and self.features.each(lambda of: tuple(of[i] for i in rows))
        return Images(counts, entries, **taken, features=features)

    def to(self, device: Device) -> "Images":
        """The same on another device."""
        features = self.features and self.features.each(lambda of: tuple(v.to(device) for v in of))
        moved = {name: value.to(device) for name, value in self.tensors().items()}
        return replace(self, **moved, features=features)

    def with_features(self, features: ImageFeatures) -> "Images":
        """The vision tower's output, a tensor a row, in place of the pixels."""
        gone = (*PIXELS, "image_position_ids", "batch_num_images")
        return replace(self, features=features, **dict.fromkeys(gone))


@dataclass(frozen=True, eq=False)
class ModelBatch:
    """Rows of tokens with their images, on one device. `model(**batch)` runs them.

    `position_ids` are `[3, rows, tokens]` in M-RoPE families, else `[rows, tokens]`. Without an
    `attention_mask` the caller passes one of its own. `append` needs rows that end in a token:
    padding on the left.
    """

    input_ids: Int[Tensor, "rows tokens"] = field(repr=False)
    position_ids: Int[Tensor, "*axes rows tokens"] = field(repr=False)
    images: Images
    attention_mask: Int[Tensor, "rows tokens"] | None = field(default=None, repr=False)
    token_type_ids: Int[Tensor, "rows tokens"] | None = field(default=None, repr=False)
    mm_token_type_ids: Int[Tensor, "rows tokens"] | None = field(default=None, repr=False)
    image_token_id: int | None = None

    @classmethod
    def of(
        cls, model: "PreTrainedModel", encoded: Mapping[str, Any], images: Sequence[int]
    ) -> "ModelBatch":
        """What a processor returned for rows of so many `images` each, on the model's device.

        Pixels get the model's dtype. Positions, and the token types of families whose image tokens
        see each other, follow from the tokens. Raises FrankenError where the pixels are not those
        of so many images and image tokens.
        """
        family, device = family_of(model.config.model_type), model.device
        ids, mask = encoded["input_ids"].to(device), encoded["attention_mask"].to(device)
        image_token = family.image_token_id(model.config)
        is_image = torch.zeros_like(ids) if image_token is None else (ids == image_token).long()
        pictures = Images(tuple(images), (0,) * len(ids))
        if encoded.get("pixel_values") is not None:
            given = {n: encoded[n].to(device) for n in IMAGES if encoded.get(n) is not None}
            given["pixel_values"] = given["pixel_values"].to(model.dtype)
            if "batch_num_images" in given:  # of rows with images alone
                given["batch_num_images"] = ids.new_tensor(images)
            pictures = replace(pictures, **given)
            pictures = replace(pictures, entries=_entries(pictures, is_image.sum(1).tolist()))
        positions = position_ids(model, ids, mask, pictures.image_grid_thw)
        types = {family.image_types: is_image} if family.attends_both_ways else {}
        return cls(ids, positions, pictures, mask, image_token_id=image_token, **types)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.input_ids.shape[0]

    @property
    def tokens(self) -> int:
        """How long every row is, padding included."""
        return self.input_ids.shape[1]

    @property
    def is_image(self) -> Bool[Tensor, "rows tokens"]:
        """Which tokens stand for a part of an image."""
        if self.image_token_id is None:
            return torch.zeros_like(self.input_ids, dtype=torch.bool)
        return self.input_ids == self.image_token_id

    @property
    def last_position(self) -> Int[Tensor, "*axes rows 1"]:
        """The largest position of every row's last token: text behind it goes on from there."""
        last = self.position_ids[..., -1:]
        return last if last.ndim == 2 else last.amax(0, keepdim=True).expand_as(last)

    def keys(self) -> KeysView[str]:
        """The names of the model's inputs, for `**batch`."""
        return self._inputs().keys()

    def __getitem__(self, name: str) -> Any:
        return self._inputs()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._inputs()

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs())

    def _inputs(self) -> dict[str, Any]:
        values: dict[str, Any] = {**self._tokens(), **self.images.tensors()}
        if self.images.features is not None:
            values["mm_encoder_outputs"] = {"image": self.images.features}
        return values

    def append(
        self,
        tokens: Sequence[int] | Int[Tensor, "more"] | Int[Tensor, "rows more"],
        mask: Int[Tensor, "rows more"] | Bool[Tensor, "rows more"] | None = None,
    ) -> "ModelBatch":
        """Text tokens behind every row, the same behind all if they are one sequence.

        `mask` is 0 where they are padding. Positions go on from the last one.
        """
        more = torch.as_tensor(tokens, dtype=torch.long, device=self.input_ids.device)
        more = more.expand(self.rows, more.shape[-1])
        steps = torch.arange(1, more.shape[-1] + 1, device=more.device)
        behind = {
            "input_ids": more,
            "attention_mask": torch.ones_like(more) if mask is None else mask,
            "position_ids": self.last_position + steps,
            **dict.fromkeys(TYPES, torch.zeros_like(more)),
        }
        longer = {
            name: torch.cat([old, behind[name].to(old.dtype)], -1)
            for name, old in self._tokens().items()
        }
        return replace(self, **longer)

    def slice(self, rows: Sequence[int]) -> "ModelBatch":
        """Some rows with their images, in this order, as padded as they were. A row may be taken
        more than once.
        """
        chosen = torch.tensor(list(rows), dtype=torch.long, device=self.input_ids.device)
        taken = self._each(lambda values: values[..., chosen, :])
        return replace(taken, images=self.images.slice(rows))

    def repeat(self, n: int) -> "ModelBatch":
        """Every row `n` times, one after another."""
        return self.slice([row for row in range(self.rows) for _ in range(n)])

    def prefix(self, stop: int) -> "ModelBatch":
        """The first `stop` tokens of every row, which have to hold all of its images."""
        return self._each(lambda values: values[..., :stop])

    def trim(self) -> "ModelBatch":
        """Without the columns that are padding in every row."""
        if self.attention_mask is None:
            return self
        seen = self.attention_mask.bool().any(0)
        return self._each(lambda values: values[..., seen])

    def to(self, device: Device) -> "ModelBatch":
        """The same on another device."""
        return replace(self._each(lambda values: values.to(device)), images=self.images.to(device))

    def _tokens(self) -> dict[str, Tensor]:
        values = {name: getattr(self, name) for name in TOKENS}
        return {name: value for name, value in values.items() if value is not None}

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ModelBatch":
        """With every tensor `[…, rows, tokens]` changed."""
        return replace(self, **{name: change(value) for name, value in self._tokens().items()})


def join(batches: Sequence[ModelBatch]) -> ModelBatch:
    """The rows of several batches of the same model and equal length, one batch after another."""
    first, images = batches[0], [batch.images for batch in batches]
    tokens = {
        name: torch.cat([getattr(batch, name) for batch in batches], -2) for name in first._tokens()
    }
    return replace(first, **tokens, images=_join_images(images))


def _join_images(every: Sequence[Images]) -> Images:
    counts = tuple(chain.from_iterable(images.counts for images in every))
    entries = tuple(chain.from_iterable(images.entries for images in every))
    given: dict[str, list[Tensor]] = {}
    for images in every:
        for name, values in images.tensors().items():
            given.setdefault(name, []).append(values)
    stacked = any(images.stacked for images in every)
    tensors = {
        name: _stack(name, every) if stacked and name in PIXELS else _below(parts)
        for name, parts in given.items()
    }
    if "batch_num_images" in tensors:
        tensors["batch_num_images"] = tensors["batch_num_images"].new_tensor(counts)
    features = [images.features for images in every if images.features is not None]
    return Images(
        counts, entries, **tensors, features=join_features(features) if features else None
    )


def _below(parts: Sequence[Tensor]) -> Tensor:
    """One under another, with zeros behind those that are smaller."""
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]

    def filled(part: Tensor) -> Tensor:
        missing = [most - size for most, size in zip(shape, part.shape[1:], strict=True)]
        return F.pad(part, [n for more in reversed(missing) for n in (0, more)])

    return torch.cat([part if [*part.shape[1:]] == shape else filled(part) for part in parts])


def _stack(name: str, every: Sequence[Images]) -> Tensor:
    """Pixels `[rows, most, …]` of several batches, with zeros where a row has fewer tiles."""
    rows = sum(len(images.counts) for images in every)
    most = max(chain.from_iterable(images.entries for images in every))
    parts = [images.tensors().get(name) for images in every]
    like = next(part for part in parts if part is not None)
    stacked = like.new_zeros(rows, most, *like.shape[2:])
    first = 0
    for images, part in zip(every, parts, strict=True):
        if part is not None:
            stacked[first : first + len(part), : part.shape[1]] = part
        first += len(images.counts)
    return stacked


def _entries(images: Images, image_tokens: Sequence[int]) -> tuple[int, ...]:
    """How many entries of the pixels every row has. Raises FrankenError where they do not fit."""
    pixels = images.pixel_values
    assert pixels is not None
    pictures, given = sum(images.counts), images.tensors()
    total = sum(image_tokens)
    if images.image_grid_thw is not None:
        sizes = iter(images.image_grid_thw.prod(-1).tolist())
        entries = [sum(next(sizes, 0) for _ in range(count)) for count in images.counts]
        fits = len(images.image_grid_thw) == pictures and sum(entries) == len(pixels) and total > 0
    elif (by_image := next((v for n, v in given.items() if n in BY_IMAGE), None)) is not None:
        entries = images.counts
        fits = len(pixels) == len(by_image) == pictures and total > 0
    else:  # every tile has as many tokens; the fullest row of stacked ones has no padding
        most, tiles = (
            (max(image_tokens), pixels.shape[1]) if images.stacked else (total, len(pixels))
        )
        each = max(most // tiles, 1)
        entries = [tokens // each for tokens in image_tokens]
        fits = [each * n for n in entries] == list(image_tokens) and each * tiles == most
        fits = fits and (not images.stacked or len(pixels) == len(images.counts))
    if not fits:
        raise FrankenError(
            f"pixels {tuple(pixels.shape)} for {pictures} images and {total} image tokens",
            why="the processor's pixels are laid out in another way than franken knows",
        )
    return tuple(entries)
