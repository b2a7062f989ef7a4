"""Position ids for any batch: three-dimensional where the family has M-RoPE, one-dimensional
elsewhere.
"""

from typing import TYPE_CHECKING, Any

from jaxtyping import Int
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def position_ids(
    model: "PreTrainedModel",
    input_ids: Int[Tensor, "batch tokens"],
    attention_mask: Int[Tensor, "batch tokens"],
    image_grid_thw: Int[Tensor, "images 3"] | None = None,
) -> Int[Tensor, "..."]:
    """`[3, batch, tokens]` for M-RoPE families, else `[batch, tokens]`. Padding has position 0."""
    inner: Any = model.model
    if not hasattr(inner, "get_rope_index"):
        return plain_positions(attention_mask)
    if image_grid_thw is None:
        return plain_positions(attention_mask).expand(3, -1, -1)
    is_image = (input_ids == model.config.image_token_id).int()
    positions, _ = inner.get_rope_index(
        input_ids, is_image, image_grid_thw, attention_mask=attention_mask
    )
    return positions


def plain_positions(attention_mask: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
    """0, 1, 2, … over the tokens that are not padding."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
