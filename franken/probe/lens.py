"""Logit lens: what would the model answer if it stopped at layer ℓ? (nostalgebraist 2020)

The model's own greedy reply is fed back up to where its answer begins; every layer's residual
stream there, and at the image tokens, is read through the final norm and the output embedding: how
probable and of what rank is the right answer's first token, and how sure (entropy, in nats) is the
reading. `transformer-lens` does the reading where its bridge knows the family, around a copy of the
model (a bridge changes the model that it wraps); elsewhere hooks and the model's own norm and head
do, which is also the bridge's check.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from franken.generate.native import Prompt, encode_prompts
from franken.models.batch import ModelBatch
from franken.models.families import family_of
from franken.models.hooks import Context, edit
from franken.models.loading import Loaded
from franken.probe.methods.lens import CHUNK, is_bridged

ANSWER_TAGS = ("<answer>", "\\boxed{")


@dataclass(frozen=True)
class Lens:
    """`stream(batch, positions)` is `[layers, positions, hidden]`, `unembed` maps it to logits."""

    name: str
    stream: Callable[[ModelBatch, Sequence[int]], Tensor]
    unembed: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """What the lens reads at every layer and position, each `[layers, positions]`."""

    p_gold: Float[Tensor, "layers positions"]
    rank_gold: Int[Tensor, "layers positions"]  # from 1
    entropy: Float[Tensor, "layers positions"]
    top: Int[Tensor, "layers positions"]


def bridge_lens(copy: Loaded) -> Lens:
    """TransformerLens around `copy`, which must not be used for anything else afterwards."""
    from transformer_lens.model_bridge import TransformerBridge

    folder = str(copy.folder or copy.model.config.name_or_path)
    depth = len(copy.family.decoder_layers(copy.model))
    bridge: Any = TransformerBridge.boot_transformers(
        folder, hf_model=copy.model, tokenizer=copy.tokenizer, device=str(copy.device)
    )
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(depth)]

    def stream(batch: ModelBatch, positions: Sequence[int]) -> Tensor:
        inputs = {k: batch[k] for k in batch.keys() & {"pixel_values", "image_grid_thw"}}
        if "image_grid_thw" in inputs:  # from which the model finds its positions
            inputs["mm_token_type_ids"] = batch.is_image.int()
        _, cache = bridge.run_with_cache(
            batch.input_ids, names_filter=lambda name: name in names, **inputs
        )
        return torch.stack([cache[name][0, list(positions)] for name in names])

    return Lens("transformer-lens", stream, lambda x: bridge.unembed(bridge.ln_final(x[None]))[0])


def own_lens(model: Any) -> Lens:
    """The same by hooks and the model's own final norm and output embedding, for any family."""
    decoder, family = model.get_decoder(), family_of(model.config.model_type)

    def stream(batch: ModelBatch, positions: Sequence[int]) -> Tensor:
        streams: list[Tensor] = []

        def look(hidden: Tensor, _: Context) -> Tensor:
            streams.append(hidden[0, list(positions)].to(batch.input_ids.device))
            return hidden

        keep = family.keep_last(model.config, batch.input_ids.device)
        with edit(dict.fromkeys(decoder.layers, look)):
            model(**batch, use_cache=False, logits_to_keep=keep)
        return torch.stack(streams)

    return Lens("own norm and head", stream, lambda x: family.logits(model, decoder.norm(x)))


def lens_for(loaded: Loaded, reload: Callable[[], Loaded]) -> Lens:
    """The bridge, on a second copy from `reload`, where TransformerLens knows the family and the
    model is on one device; else the model's own lens.
    """
    if is_bridged(loaded.family.model_type) and not loaded.spread:
        return bridge_lens(reload())
    return own_lens(loaded.model)


@torch.no_grad()
def read(lens: Lens, batch: ModelBatch, positions: Sequence[int], gold: int) -> Reading:
    """Read the token after each of `positions` of a one-row batch at every layer, against the token
    `gold`.
    """
    stream = lens.stream(batch, positions)
    rows = []
    for layer in stream:
        parts = [
            _read(lens.unembed(layer[i : i + CHUNK]), gold) for i in range(0, len(layer), CHUNK)
        ]
        rows.append([torch.cat(column) for column in zip(*parts, strict=True)])
    return Reading(*(torch.stack(column) for column in zip(*rows, strict=True)))


def _read(logits: Tensor, gold: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logp = torch.log_softmax(logits.float(), -1)
    entropy = torch.special.entr(logp.exp()).sum(-1)
    rank = (logp > logp[:, gold : gold + 1]).sum(-1) + 1
    return logp[:, gold].exp().cpu(), rank.cpu(), entropy.cpu(), logp.argmax(-1).cpu()


@dataclass(frozen=True)
class AnswerReading:
    """What the lens reads at one layer where the answer begins, and over the image tokens:
    `image_rank_gold` is the best of them, the other `image_` fields are means; null without an
    image.
    """

    lens: str
    top_token: str
    p_gold: float
    rank_gold: int
    entropy: float
    image_p_gold: float | None = None
    image_rank_gold: int | None = None
    image_entropy: float | None = None


def read_answer(
    loaded: Loaded, lens: Lens, prompt: Prompt, reply: Sequence[int], answer: str
) -> list[AnswerReading]:
    """What every layer would say in place of the right `answer`'s first token."""
    batch = answer_batch(loaded, prompt, reply)
    image = batch.is_image[0].nonzero()[:, 0].tolist()
    reading = read(lens, batch, [batch.tokens - 1, *image], first_token(loaded, answer))
    words = loaded.tokenizer.batch_decode(reading.top[:, :1])
    rows = []
    for layer, word in enumerate(words):
        p, rank, entropy = reading.p_gold[layer], reading.rank_gold[layer], reading.entropy[layer]
        row = AnswerReading(lens.name, word, float(p[0]), int(rank[0]), float(entropy[0]))
        if image:
            row = replace(
                row,
                image_p_gold=float(p[1:].mean()),
                image_rank_gold=int(rank[1:].min()),
                image_entropy=float(entropy[1:].mean()),
            )
        rows.append(row)
    return rows


def answer_batch(loaded: Loaded, prompt: Prompt, reply: Sequence[int]) -> ModelBatch:
    """The prompt and the reply up to where its answer begins; the prompt alone when the reply has
    no answer tag.
    """
    return encode_prompts(loaded, [prompt]).append(reply[: answer_start(loaded, reply)])


def answer_start(loaded: Loaded, reply: Sequence[int]) -> int:
    """How many tokens of the reply come before its answer: up to its first answer tag's end,
    whatever tokens that is; else 0.
    """

    def text_of(count: int) -> str:
        return loaded.tokenizer.decode(list(reply[:count]), skip_special_tokens=False)

    whole = text_of(len(reply))
    for tag in ANSWER_TAGS:
        if tag in whole:
            return bisect_left(range(len(reply) + 1), True, key=lambda count: tag in text_of(count))
    return 0


def first_token(loaded: Loaded, answer: str) -> int:
    """The id that an answer begins with."""
    return loaded.tokenizer(answer, add_special_tokens=False)["input_ids"][0]
