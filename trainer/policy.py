"""Responses of a policy, sampled a slice of prompts at a time, and their log-probabilities under
it.

Prompts are left-padded and shared by reference: a row is (prompt index, response ids). Where the
vision tower is frozen and the family allows it, image features are computed once per prompt and
passed to every forward.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from franken.generate.native import Response, Sampling, sample
from franken.models.loading import Loaded


@dataclass(frozen=True)
class Rows:
    """Some responses as one padded batch: `inputs` for the model, `targets` and `mask` are `[rows,
    tokens]`.
    """

    inputs: dict[str, Any]
    targets: Tensor
    mask: Bool[Tensor, "rows tokens"]


def with_features(loaded: Loaded, batch: dict[str, Any], at_once: int = 0) -> dict[str, Any]:
    """Replace pixels by the image features of the frozen vision tower, once; unchanged where the
    family cannot.

    The tower sees `at_once` images at a time, all by default.
    """
    inner = loaded.model.model
    takes = "mm_encoder_outputs" in inspect.signature(inner.forward).parameters
    if "pixel_values" not in batch or not takes or _vision_trains(loaded):
        return batch
    slices = _slices(len(batch["image_grid_thw"]), at_once)
    with torch.no_grad():
        parts = [
            inner.get_image_features(part["pixel_values"], part["image_grid_thw"], return_dict=True)
            for part in (
                [batch] if len(slices) == 1 else (image_inputs(batch, places) for places in slices)
            )
        ]
    encoded = parts[0] if len(parts) == 1 else _joined(parts)
    rest = {name: value for name, value in batch.items() if name != "pixel_values"}
    return {**rest, "mm_encoder_outputs": {"image": encoded}}


def sample_slices(
    loaded: Loaded, batch: dict[str, Any], keys: Sequence[str], sampling: Sampling, at_once: int = 0
) -> list[list[Response]]:
    """`n` samples of every row of an encoded batch, `at_once` rows (all by default) at a time: no
    more are in the cache.

    A sample's random stream follows from its prompt's key and its number, and a slice keeps the
    padding of the batch: only the rounding of products with another number of rows tells slices
    apart. In fp32 that is the last digit of log-probabilities; in 16 bits a draw that falls between
    two tokens may fall on the other one.
    """
    drawn: list[list[Response]] = []
    for places in _slices(len(keys), at_once):
        rows = batch if len(places) == len(keys) else _prompts_of(batch, places)
        drawn += sample(loaded, rows, [keys[i] for i in places], sampling)
    return drawn


def take_rows(
    loaded: Loaded, batch: dict[str, Any], prompts: Sequence[int], responses: Sequence[list[int]]
) -> Rows:
    """The batch of some (prompt, response) rows, responses padded on the right."""
    device = batch["input_ids"].device
    chosen = torch.tensor(list(prompts), device=device)
    width = max(len(r) for r in responses)
    targets = torch.tensor([r + [0] * (width - len(r)) for r in responses], device=device)
    mask = torch.tensor(
        [[True] * len(r) + [False] * (width - len(r)) for r in responses], device=device
    )
    positions = batch["position_ids"][..., chosen, :]
    steps = torch.arange(1, width + 1, device=device)
    inputs: dict[str, Any] = {
        "input_ids": torch.cat([batch["input_ids"][chosen], targets], 1),
        "attention_mask": torch.cat(
            [batch["attention_mask"][chosen], mask.to(batch["attention_mask"].dtype)], 1
        ),
        "position_ids": torch.cat([positions, positions[..., -1:] + steps], -1),
    }
    inputs |= image_inputs(batch, list(prompts))
    return Rows(inputs, targets, mask)


def response_logprobs(
    loaded: Loaded, rows: Rows, temperature: float, *, entropy_grad: bool = False
) -> tuple[Float[Tensor, "rows tokens"], Float[Tensor, "rows tokens"]]:
    """Log-probability of every response token, and the entropy there, under the sampling
    distribution.

    Banned tokens are excluded and the temperature applied, as when sampling. Padding holds zeros.
    The entropy is detached unless `entropy_grad` asks for its gradient.
    """
    model = loaded.model
    width = rows.targets.shape[1]
    hidden = model.model(**rows.inputs, use_cache=False).last_hidden_state[:, -width - 1 : -1]
    logits = model.get_output_embeddings()(hidden[rows.mask]).float() / temperature
    banned = loaded.family.banned_token_ids(model.config, loaded.tokenizer)
    logits = logits.index_fill(
        1, torch.tensor(banned, dtype=torch.long, device=logits.device), -1e9
    )
    logp = torch.log_softmax(logits, -1)
    chosen = logp.gather(1, rows.targets[rows.mask][:, None])[:, 0]
    with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
        entropy = -(logp.exp() * logp).sum(-1)
    empty = chosen.new_zeros(rows.mask.shape)
    return empty.masked_scatter(rows.mask, chosen), empty.masked_scatter(rows.mask, entropy)


def image_inputs(batch: dict[str, Any], prompts: list[int]) -> dict[str, Any]:
    """The image side of some prompts of an encoded batch: their features where they are known, else
    their pixels.
    """
    if "mm_encoder_outputs" in batch:
        encoded = batch["mm_encoder_outputs"]["image"]
        features = tuple(encoded.pooler_output[i] for i in prompts)
        changed: dict[str, Any] = {"pooler_output": features}
        if getattr(encoded, "deepstack_features", None) is not None:
            changed["deepstack_features"] = [
                tuple(level[i] for i in prompts) for level in encoded.deepstack_features
            ]
        return {"mm_encoder_outputs": {"image": type(encoded)(**changed)}}
    if "pixel_values" not in batch:
        return {}
    if "image_grid_thw" in batch:
        sizes = batch["image_grid_thw"].prod(-1).tolist()
        parts = batch["pixel_values"].split(sizes)
        pixels = torch.cat([parts[i] for i in prompts])
        return {"pixel_values": pixels, "image_grid_thw": batch["image_grid_thw"][prompts]}
    kept = {"pixel_values": batch["pixel_values"][prompts]}
    return kept | ({"image_sizes": batch["image_sizes"][prompts]} if "image_sizes" in batch else {})


def _slices(count: int, at_once: int) -> list[list[int]]:
    size = at_once or max(count, 1)
    return [list(range(first, min(first + size, count))) for first in range(0, count, size)]


def _prompts_of(batch: dict[str, Any], places: list[int]) -> dict[str, Any]:
    """Some prompts of an encoded batch, as padded as they were."""
    rows = {
        name: batch[name][places]
        for name in ("input_ids", "attention_mask", "token_type_ids")
        if name in batch
    }
    rows["position_ids"] = batch["position_ids"][..., places, :]
    return rows | image_inputs(batch, places)


def _joined(parts: list[Any]) -> Any:
    """Image features of several calls as those of one; what no forward pass reads again is let go."""
    found: dict[str, Any] = {
        "pooler_output": tuple(image for part in parts for image in part.pooler_output)
    }
    if getattr(parts[0], "deepstack_features", None) is not None:
        levels = zip(*(part.deepstack_features for part in parts), strict=True)
        found["deepstack_features"] = [
            tuple(image for part in level for image in part) for level in levels
        ]
    return type(parts[0])(**found)


def _vision_trains(loaded: Loaded) -> bool:
    blocks = loaded.family.vision_blocks(loaded.model)
    towers = [*blocks.parameters(), *loaded.family.projector(loaded.model).parameters()]
    return any(p.requires_grad for p in towers)
