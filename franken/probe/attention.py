"""How much do the tokens that the model writes look at the image? Attention mass from reasoning to
vision, layer by layer.

A(R→V) of the Frankenstein paper (figure 3), for R the query rows and V the image's columns, in both
readings of it: `mass` is the share of a row's attention that falls on the image, 1/|R| Σ_i Σ_j
A_ij, and `per pair` is mass / |V|, the paper's formula as printed (its plotted values are too large
for it). Only the needed rows are computed, by an attention function that runs SDPA as ever and,
from the same rotated queries and keys, the softmax of these rows; the T×T matrix never exists.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from franken.errors import FrankenError
from franken.generate.native import Prompt, encode_prompts
from franken.models.batch import ModelBatch
from franken.models.families import family_of
from franken.models.loading import Loaded
from franken.models.tokens import TokenMap, token_map

NAME = "franken_attention_rows"
CHUNK = 256  # query rows whose scores `[heads, rows, tokens]` exist at a time


@torch.no_grad()
def attention_mass(
    model: PreTrainedModel, batch: ModelBatch, rows: Sequence[int], columns: Bool[Tensor, "tokens"]
) -> Float[Tensor, "layers heads"]:
    """The share of attention that the query tokens `rows` give to the tokens `columns`, a mean over
    the rows, in fp64; not a number in layers that have no such weights (linear attention).

    One forward pass of a one-row batch. Equal to the mean over rows of the sum over columns of
    eager attention's weights.
    """
    mass: dict[int, Tensor] = {}

    def keep(layer: int, weights: Float[Tensor, "heads rows tokens"]) -> None:
        seen = weights[..., columns.to(weights.device)].double().sum((-1, -2)).cpu()
        mass[layer] = mass.get(layer, 0) + seen / len(rows)

    family = family_of(model.config.model_type)
    kept = family.keep_last(model.config, batch.input_ids.device)
    with _watch_rows(model.get_decoder(), rows, keep):
        model(**batch, use_cache=False, logits_to_keep=kept)
    none = torch.full_like(next(iter(mass.values())), torch.nan)
    return torch.stack([mass.get(n, none) for n in range(len(family.decoder_layers(model)))])


def reasoning_batch(
    loaded: Loaded, prompt: Prompt, reply: Sequence[int]
) -> tuple[ModelBatch, TokenMap]:
    """The prompt with the model's reply behind it, as one row, and its token map. The reply's end
    token is left out.
    """
    batch = encode_prompts(loaded, [prompt])
    ends = loaded.model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), loaded.tokenizer.eos_token_id}
    words = list(reply[:-1] if reply and reply[-1] in ends else reply)
    start = batch.tokens
    batch = batch.append(words)
    return batch, token_map(batch.input_ids, loaded.model.config, answer_start=start)[0]


@dataclass(frozen=True)
class Look:
    """How much one layer looks at the image: the mean mass over heads, every head's, and how many
    tokens of the reply look at how many visual tokens.
    """

    mass: float
    head_mass: list[float]
    n_reasoning: int
    n_vision: int


def look_at_image(loaded: Loaded, prompt: Prompt, reply: Sequence[int]) -> list[Look | None]:
    """What every layer gives to the image while the model writes `reply`; None for layers of linear
    attention, which have no weights.

    Raises FrankenError when there is no image or the reply is empty.
    """
    batch, spans = reasoning_batch(loaded, prompt, reply)
    tokens = batch.tokens
    columns = batch.is_image[0].cpu()
    rows = range(*spans.answer.indices(tokens))
    if not len(rows) or not columns.any():
        raise FrankenError(
            "no attention to measure",
            why="the reply is empty" if columns.any() else "there is no image in the prompt",
        )
    mass = attention_mass(loaded.model, batch, rows, columns).tolist()
    counts = len(rows), int(columns.sum())
    return [
        None if math.isnan(heads[0]) else Look(sum(heads) / len(heads), heads, *counts)
        for heads in mass
    ]


@contextmanager
def _watch_rows(
    decoder: nn.Module, rows: Sequence[int], keep: Callable[[int, Tensor], None]
) -> Iterator[None]:
    """Run the decoder with SDPA while `keep(layer, weights)` sees the rows' weights, some rows at a
    time; then restore.
    """

    def forward(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        for start in range(0, len(rows), CHUNK):
            keep(
                module.layer_idx,
                _weights(module, query, key, mask, list(rows[start : start + CHUNK]), **kwargs),
            )
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    configs: dict[int, Any] = {
        id(m.config): m.config for m in decoder.modules() if getattr(m, "config", None) is not None
    }
    before = {key: config._attn_implementation for key, config in configs.items()}
    ALL_ATTENTION_FUNCTIONS[NAME] = forward
    AttentionMaskInterface.register(
        NAME, sdpa_mask
    )  # a name that is not registered for all would get no mask at all
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        del ALL_ATTENTION_FUNCTIONS[NAME]


def _weights(
    module: Any,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    rows: list[int],
    *,
    scaling: float,
    **kwargs: Any,
) -> Float[Tensor, "heads rows tokens"]:
    """softmax(q·k) of some rows of a one-row batch, in fp32; without a mask, SDPA's causal one.

    Raises FrankenError for a capped softmax (Gemma 2), which SDPA does not have either.
    """
    if kwargs.get("softcap") is not None:
        raise FrankenError(
            "attention rows cannot be computed", why="this model caps its attention scores"
        )
    at = torch.tensor(rows, device=query.device)
    groups = query.shape[1] // key.shape[1]
    scores = (
        query[0, :, at].float()
        @ key[0].repeat_interleave(groups, 0).float().transpose(-1, -2)
        * scaling
    )
    if mask is None:
        hidden = (
            torch.arange(key.shape[2], device=query.device)
            > at[:, None] + key.shape[2] - query.shape[2]
        )
        scores = scores.masked_fill(hidden, -torch.inf)
    elif mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask[0, :, at, : key.shape[2]], -torch.inf)
    else:
        scores = scores + mask[0, :, at, : key.shape[2]]
    return scores.softmax(-1)
