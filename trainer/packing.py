"""One group, one row: the prompt and its image once, its G responses after it, kept apart by the
mask.

    prompt │ response 1 │ response 2 │ …      a token sees the prompt and its own response only

Every response continues the prompt's positions (M-RoPE included), so that each token's
log-probability and gradient are those of the row it would have had to itself, at the cost of P +
ΣRᵢ tokens instead of G·P + ΣRᵢ, without padding. What sees what is in trainer/masks.py. The output
head runs on chunks of tokens that are computed again in the backward pass, so that the logits of a
row are never held.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from franken.errors import UsageError
from franken.models.batch import ModelBatch
from franken.models.loading import Loaded
from trainer.masks import Segments, block_mask, check_packable, dense_mask, masks, segments
from trainer.policy import token_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 1024  # tokens whose logits are held at a time


@dataclass(frozen=True)
class Packed:
    """A group as one row of S tokens, with T response tokens in all.

    `previous` says which position predicts a response token, `targets` which token it is,
    `response` and `step` where it stands.
    """

    inputs: ModelBatch
    segments: Segments
    previous: Int[Tensor, " T"]
    targets: Int[Tensor, " T"]
    response: Int[Tensor, " T"]
    step: Int[Tensor, " T"]


def pack(loaded: Loaded, batch: ModelBatch, prompt: int, responses: Sequence[list[int]]) -> Packed:
    """Row `prompt` of an encoded, left-padded batch, and some responses to it, as one row.

    Raises UsageError for a model whose layers no mask keeps apart.
    """
    check_packable(loaded.model.config)
    device = batch.input_ids.device
    row = batch.slice([prompt]).trim()
    lengths = [len(r) for r in responses]
    targets = torch.tensor([token for r in responses for token in r], device=device)
    response = torch.repeat_interleave(
        torch.arange(len(responses), device=device), torch.tensor(lengths, device=device)
    )
    step = torch.cat([torch.arange(n, device=device) for n in lengths])
    end = row.tokens - 1
    at = end + 1 + torch.arange(len(targets), device=device)
    prompt_places = torch.arange(row.tokens, device=device)
    owner = torch.cat([torch.zeros_like(prompt_places), response + 1])
    place = torch.cat([prompt_places, end + 1 + step])
    positions = torch.cat([row.position_ids, row.last_position + 1 + step], -1)
    inputs = replace(row.append(targets), position_ids=positions, attention_mask=None)
    parts = segments(owner, place, inputs.is_image[0])
    return Packed(inputs, parts, torch.where(step == 0, end, at - 1), targets, response, step)


def packed_logprobs(
    loaded: Loaded,
    packed: Packed,
    temperature: float,
    chunk: int = CHUNK,
    *,
    entropy_grad: bool = False,
    flex: bool | None = None,
) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
    """Log-probability of every response token, and the entropy there, under the sampling
    distribution.

    The same numbers as `trainer.policy.response_logprobs`, in one row. `flex` uses FlexAttention,
    by default on a GPU. The entropy is detached unless `entropy_grad` asks for its gradient.
    """
    model = loaded.model
    hidden = packed_hidden(loaded, packed.inputs, packed.segments, flex)[packed.previous]
    banned = loaded.family.banned_token_ids(model.config, loaded.tokenizer)
    head = partial(loaded.family.logits, model)
    return chunked_logprobs(
        hidden, head, packed.targets, temperature, banned, chunk, entropy_grad=entropy_grad
    )


def packed_hidden(
    loaded: Loaded, inputs: ModelBatch, segments: Segments, flex: bool | None = None
) -> Float[Tensor, "S D"]:
    """The decoder's last hidden states of a packed row. `flex` uses FlexAttention, by default on a
    GPU.
    """
    flex = loaded.device.type == "cuda" if flex is None else flex
    make = block_mask if flex else dense_mask
    mask = masks(loaded.family, loaded.model.config, segments, make)
    with _attention(loaded.model, "flex_attention" if flex else None):
        return loaded.model.model(**inputs, attention_mask=mask, use_cache=False).last_hidden_state[
            0
        ]


@contextmanager
def _attention(model: "PreTrainedModel", kernel: str | None) -> Iterator[None]:
    """Run the decoder with another attention kernel for a while; the vision tower, and sampling,
    keep theirs.

    Set in the decoder's config, where its layers look it up: transformers refuses FlexAttention for
    Qwen2.5-VL as a whole.
    """
    config = model.get_decoder().config
    before = config._attn_implementation
    config._attn_implementation = kernel or before
    try:
        yield
    finally:
        config._attn_implementation = before


def chunked_logprobs(
    hidden: Float[Tensor, "T D"],
    head: Callable[[Tensor], Tensor],
    targets: Int[Tensor, " T"],
    temperature: float,
    banned: Sequence[int],
    chunk: int,
    *,
    entropy_grad: bool = False,
) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
    """Log-probabilities and entropies [T] from hidden states, `chunk` tokens at a time: O(chunk ·
    V) memory, not O(T · V).
    """

    def some(states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        return token_logprobs(head(states), wanted, temperature, banned, entropy_grad=entropy_grad)

    return in_chunks(some, hidden, targets, chunk)


def in_chunks(
    function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    hidden: Float[Tensor, "T D"],
    targets: Int[Tensor, " T"],
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Two numbers a token, `chunk` tokens at a time; what is between is computed again in the
    backward pass.
    """
    parts = [
        checkpoint(function, states, wanted, use_reentrant=False)
        for states, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    one, two = zip(*parts, strict=True)
    return torch.cat(one), torch.cat(two)


def as_rows(
    packed: Packed, values: Float[Tensor, " T"], count: int
) -> Float[Tensor, "count longest"]:
    """Values of response tokens as padded rows, zeros behind the end: what the losses take."""
    rows = values.new_zeros(count, int(packed.step.max()) + 1)
    return rows.index_put((packed.response, packed.step), values)


def token_mask(packed: Packed, count: int) -> Bool[Tensor, "count longest"]:
    """Which entries of `as_rows` are tokens."""
    return as_rows(
        packed, torch.ones(len(packed.targets), device=packed.targets.device), count
    ).bool()


def by_budget(prompt: int, lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of responses for as few packed rows of at most `budget` tokens as first-fit
    decreasing finds.

    `prompt` tokens are repeated in every row. A response that does not fit with its prompt has a
    row to itself.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = next((r for r, room in enumerate(free) if lengths[index] <= room), None)
        if fitting is None:
            rows.append([])
            free.append(budget - prompt)
            fitting = len(rows) - 1
        rows[fitting].append(index)
        free[fitting] -= lengths[index]
    return [sorted(row) for row in rows]


def share_frozen(reference: nn.Module, policy: nn.Module) -> int:
    """Let a reference model use the policy's storage for every parameter that the policy does not
    train. Bytes saved.

    Raises UsageError where such a parameter differs: then it is not the reference of this policy.
    """
    frozen = {name: p for name, p in policy.named_parameters() if not p.requires_grad}
    theirs = dict(reference.named_parameters())
    saved = 0
    for name, own in frozen.items():
        if name not in theirs or not torch.equal(theirs[name], own):
            raise UsageError(
                f"{name} differs in the reference",
                why="a frozen parameter has not moved from its start",
            )
        if theirs[name].data_ptr() != own.data_ptr():
            theirs[name].data = own.data
            saved += own.numel() * own.element_size()
    return saved
