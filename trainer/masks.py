"""Which tokens of a packed row see each other: one rule, as a dense boolean mask for SDPA and as
FlexAttention's BlockMask.

    owner   0 0 0 0 0 │ 1 1 1 │ 2 2      the shared prompt (0), then the responses or examples
    place   0 1 2 3 4 │ 5 6 7 │ 5 6      where each token stands in its own sequence
    image  -1 0 0 -1 1 │ -1 …            which image it is a part of, -1 for text

A token sees what comes before it in its own sequence: the prompt and its owner's. Where the model's
layers have a window, it is counted in places; where images attend both ways, their tokens see each
other (Gemma 3 in all layers, Gemma 4 in those with a window).

Left out: linear attention, whose state goes from token to token and is parted by no mask. Such
models are refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from franken.errors import UsageError
from franken.models.families import FULL, SLIDING, Family

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedConfig

MaskRule = Callable[[Tensor | int, Tensor | int, Tensor, Tensor], Tensor]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Segments:
    """Whose each of a row's S tokens is, its place in its own sequence, and its image."""

    owner: Int[Tensor, " S"]
    place: Int[Tensor, " S"]
    image: Int[Tensor, " S"]

    def __len__(self) -> int:
        return len(self.owner)


def segments(
    owner: Int[Tensor, " S"], place: Int[Tensor, " S"], is_image: Bool[Tensor, " S"]
) -> Segments:
    """Images are runs of image tokens of one owner."""
    before = torch.zeros_like(is_image)
    before[1:] = is_image[:-1] & (owner[1:] == owner[:-1])
    runs = (is_image & ~before).long().cumsum(0) - 1
    return Segments(owner, place, torch.where(is_image, runs, -1))


def sees(of: Segments, *, window: int = 0, both_ways: bool = False) -> MaskRule:
    """The rule, as FlexAttention calls it: (batch, head, query, key) → whether the query sees the
    key. A `window` of 0 is none.
    """

    def rule(batch: Tensor | int, head: Tensor | int, query: Tensor, key: Tensor) -> Tensor:
        seen = (key <= query) & ((of.owner[key] == 0) | (of.owner[key] == of.owner[query]))
        if both_ways:
            seen = seen | ((of.image[query] >= 0) & (of.image[query] == of.image[key]))
        if window:
            seen = seen & (of.place[query] - of.place[key] < window)
        return seen

    return rule


def dense_mask(
    of: Segments, *, window: int = 0, both_ways: bool = False
) -> Bool[Tensor, "1 1 S S"]:
    """The rule for every pair, as SDPA takes it."""
    at = torch.arange(len(of), device=of.owner.device)
    return sees(of, window=window, both_ways=both_ways)(0, 0, at[:, None], at[None, :])[None, None]


def block_mask(of: Segments, *, window: int = 0, both_ways: bool = False) -> "BlockMask":
    """The rule as FlexAttention's BlockMask: blocks that nobody sees are never computed."""
    from torch.nn.attention.flex_attention import create_block_mask

    rule, size = sees(of, window=window, both_ways=both_ways), len(of)
    return create_block_mask(rule, 1, 1, size, size, device=of.owner.device)


def masks(
    family: Family, config: "PreTrainedConfig", of: Segments, make: Callable[..., Made]
) -> Made | Mapping[str, Made]:
    """What the model takes as its attention mask: one, or one for every kind of layer. `make` is
    `dense_mask` or `block_mask`.
    """
    text: Any = config.get_text_config()
    kinds, window = _kinds(text), getattr(text, "sliding_window", None) or 0
    both = family.both_ways(config)
    by_kind = {
        kind: make(of, window=window if kind == SLIDING else 0, both_ways=kind in both)
        for kind in kinds
    }
    return by_kind if len(by_kind) > 1 else next(iter(by_kind.values()))


def check_packable(config: "PreTrainedConfig") -> None:
    """Raise UsageError for a model with layers that no mask keeps apart."""
    text: Any = config.get_text_config()
    if others := sorted(set(_kinds(text)) - {FULL, SLIDING}):
        raise UsageError(
            f"{config.model_type} cannot be packed",
            why=f"it has {others[0].replace('_', ' ')}, whose state goes from token to token: no "
            "mask keeps the parts of a row apart",
            fix="set packed: false in the recipe",
        )


def _kinds(text: Any) -> list[str]:
    """The kinds of a decoder's layers. Without a list of them, a window is every layer's."""
    stated = getattr(text, "layer_types", None)
    if stated:
        return sorted(set(stated))
    return [SLIDING if getattr(text, "sliding_window", None) else FULL]
