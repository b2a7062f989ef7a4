"""Logit lens: what would the model answer if it stopped at layer ℓ? (nostalgebraist 2020)

The model's own greedy reply is fed back up to its answer tag; at that position every layer's residual stream is read through
the final norm and the output embedding. `transformer-lens` does the reading, through its bridge around a copy of the model (a
bridge changes the model that it wraps); `own_lens` is the same by hooks, for families that it does not know and as its check.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from franken.generate.native import Prompt, encode_prompts
from franken.models.hooks import edit
from franken.models.loading import Loaded

ANSWER_TAG = "<answer>"


def build_bridge(copy: Loaded) -> Any:
    """TransformerLens around `copy`, which must not be used for anything else afterwards."""
    from transformer_lens.model_bridge import TransformerBridge

    folder = str(copy.folder or copy.model.config.name_or_path)
    return TransformerBridge.boot_transformers(
        folder, hf_model=copy.model, tokenizer=copy.tokenizer, device=str(copy.device)
    )


@torch.no_grad()
def bridge_lens(bridge: Any, batch: dict[str, Tensor], depth: int) -> Float[Tensor, "layers vocabulary"]:
    """Log-probabilities of the next token after the last one of a one-row batch, read at every layer."""
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(depth)]
    inputs = {k: v for k, v in batch.items() if k in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}
    _, cache = bridge.run_with_cache(batch["input_ids"], names_filter=lambda name: name in names, **inputs)
    stream = torch.stack([cache[name][0, -1] for name in names])[None]
    return torch.log_softmax(bridge.unembed(bridge.ln_final(stream))[0].float(), -1)


@torch.no_grad()
def own_lens(loaded: Loaded, batch: dict[str, Tensor], depth: int) -> Float[Tensor, "layers vocabulary"]:
    """The same by hooks and the model's own final norm and output embedding."""
    layers = loaded.family.decoder_layers(loaded.model)
    stream: dict[int, Tensor] = {}

    def record(layer: int) -> Any:
        def look(hidden: Tensor, _: Any) -> Tensor:
            stream[layer] = hidden[0, -1]
            return hidden

        return look

    with edit({layers[layer]: record(layer) for layer in range(depth)}):
        loaded.model(**{k: v for k, v in batch.items() if k != "position_ids"}, use_cache=False)
    read = loaded.model.get_decoder().norm(torch.stack([stream[layer] for layer in range(depth)]))
    return torch.log_softmax(loaded.model.get_output_embeddings()(read).float(), -1)


def answer_batch(loaded: Loaded, prompt: Prompt, reply: Sequence[int]) -> dict[str, Tensor]:
    """The prompt and the reply up to its answer tag; the prompt alone when the reply has no tag."""
    batch = encode_prompts(loaded, [prompt])
    tag = loaded.tokenizer.convert_tokens_to_ids(ANSWER_TAG)
    said = list(reply[: list(reply).index(tag) + 1]) if tag in reply else []
    ids = torch.cat([batch["input_ids"], torch.tensor([said], dtype=torch.long, device=loaded.device)], 1)
    kept = {k: v for k, v in batch.items() if k in ("pixel_values", "image_grid_thw", "image_sizes")}
    image = loaded.family.image_token_id(loaded.model.config)
    return {**kept, "input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == image).int()}


def first_token(loaded: Loaded, answer: str) -> int:
    """The id that an answer begins with."""
    return loaded.tokenizer(answer, add_special_tokens=False)["input_ids"][0]


def gold_at_layers(logp: Float[Tensor, "layers vocabulary"], gold: int) -> list[tuple[float, int]]:
    """(probability, rank from 1) of one token at every layer."""
    ranks = (logp > logp[:, gold : gold + 1]).sum(-1) + 1
    return [(float(p), int(r)) for p, r in zip(logp[:, gold].exp(), ranks, strict=True)]
