"""Which experts see a token, in two checkpoints of a mixture: routing agreement.

Both models read the same tokens, a prompt and the probed model's greedy reply to it, each through
its own layers. A layer's router gives every token to its k best experts; two models agree on a
token where these are the same k, in any order. Measured over all tokens, and over those of the
image, the prompt's text and the reply apart. `overlap` is the mean of |A ∩ B| / k. `load` is the
share of tokens that each expert sees; the loads of a layer sum to k.

An expert that was trained changes the routing of the layers above it, a router that was trained
that of its own layer too.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from franken.models.batch import ModelBatch
from franken.models.loading import Loaded
from franken.probe.attention import reasoning_batch
from franken.probe.session import Prompt

Chosen = Mapping[int, Int[Tensor, "tokens k"]]  # by layer; only layers that have experts


@dataclass(frozen=True)
class Agreement:
    """How alike two models route the tokens of one prompt and reply at one layer; null where there
    are no such tokens. `load_second` is the second model's.
    """

    agreement: float
    overlap: float
    agreement_image: float | None
    agreement_text: float | None
    agreement_reply: float | None
    n_tokens: int
    load: list[float]
    load_second: list[float]


@contextmanager
def _routers(model: Any, seen: dict[int, Tensor]) -> Iterator[None]:
    """While it lasts, `seen` gets what every router of a pass chooses."""

    def look(layer: int) -> Any:
        def hook(_: nn.Module, args: object, output: tuple[Tensor, Tensor, Tensor]) -> None:
            seen[layer] = output[2].detach().cpu()

        return hook

    handles = [
        block.mlp.gate.register_forward_hook(look(layer))
        for layer, block in enumerate(model.get_decoder().layers)
        if hasattr(block.mlp, "experts")
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def chosen_experts(model: Any, batch: ModelBatch) -> Chosen:
    """The experts of every token of a one-row batch, in one pass."""
    seen: dict[int, Tensor] = {}
    with _routers(model, seen):
        model(**batch, use_cache=False, logits_to_keep=1)
    return seen


def routing_agreement(
    first: Loaded, second: Loaded, prompt: Prompt, reply: list[int]
) -> dict[int, Agreement]:
    """The agreement of two models on a prompt and the first one's reply, by layer."""
    batch, spans = reasoning_batch(first, prompt, reply)
    image = batch.is_image[0].cpu()
    answer = torch.zeros_like(image)
    answer[spans.answer] = True
    own = chosen_experts(first.model, batch)
    other = chosen_experts(second.model, batch.to(second.device))
    experts = first.model.config.get_text_config().num_experts
    return {
        layer: agreement_of(own[layer], other[layer], experts, image=image, reply=answer)
        for layer in own
    }


def agreement_of(
    first: Int[Tensor, "tokens k"],
    second: Int[Tensor, "tokens k"],
    experts: int,
    *,
    image: Bool[Tensor, "tokens"],
    reply: Bool[Tensor, "tokens"],
) -> Agreement:
    """How alike two choices are; `image` and `reply` say which tokens are these."""
    same = (first.sort(-1).values == second.sort(-1).values).all(-1)
    shared = (first[:, :, None] == second[:, None, :]).any(-1)
    text = ~image & ~reply

    def share(tokens: Bool[Tensor, "tokens"]) -> float | None:
        return float(same[tokens].double().mean()) if tokens.any() else None

    return Agreement(
        agreement=float(same.double().mean()),
        overlap=float(shared.double().mean()),
        agreement_image=share(image),
        agreement_text=share(text),
        agreement_reply=share(reply),
        n_tokens=len(same),
        load=_load(first, experts),
        load_second=_load(second, experts),
    )


def _load(chosen: Int[Tensor, "tokens k"], experts: int) -> list[float]:
    return (chosen.flatten().bincount(minlength=experts).double() / len(chosen)).tolist()
