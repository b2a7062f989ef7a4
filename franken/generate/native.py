"""Sampling with transformers: every prompt is prefilled once, however many samples it gets.

Each sample draws from its own stream, seeded by (seed, prompt key, sample index), so what it says does not depend on what
else is in the batch. Image, video and turn markers are never sampled. A checkpoint's own generation settings (repetition
penalty, top-p, …) are ignored: greedy means greedy.

Left out here: other engines, stop strings, beam search.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from franken.errors import UsageError
from franken.models.loading import Loaded
from franken.models.positions import position_ids

SHRINK_SHARE = 0.2  # finished rows are dropped from the cache once they are this share of the batch


@dataclass(frozen=True)
class Prompt:
    """A user turn. `key` seeds its samples; prompts with equal keys get equal draws."""

    text: str
    images: tuple[Image.Image, ...] = ()
    key: str = ""


@dataclass(frozen=True)
class Sampling:
    """How to draw: `n` samples a prompt; temperature 0 is greedy."""

    n: int = 1
    temperature: float = 1.0
    max_new_tokens: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Response:
    """One sample: its text without end token, its ids with it, log-probabilities of its tokens, whether it was cut off."""

    text: str
    ids: list[int] = field(repr=False)
    logprobs: list[float] = field(repr=False)
    truncated: bool


def generate(
    loaded: Loaded,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
) -> list[list[Response]]:
    """`[len(prompts)][n]` responses. `batch_size` counts rows (prompts × n); `on_batch` hears how many prompts are done."""
    if sampling.n < 1 or sampling.max_new_tokens < 1 or sampling.temperature < 0:
        raise UsageError(
            "nothing to sample", why="n and max_new_tokens are at least 1, the temperature is not negative"
        )
    per_batch = max(1, batch_size // sampling.n)
    drawn: list[list[Response]] = []
    for start in range(0, len(prompts), per_batch):
        chunk = prompts[start : start + per_batch]
        batch = encode_prompts(loaded, chunk)
        drawn += sample(loaded, batch, [p.key for p in chunk], sampling)
        if on_batch:
            on_batch(len(chunk))
    return drawn


def encode_prompts(loaded: Loaded, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    """Apply the chat template, expand image tokens, pad on the left, and add position ids. On the model's device."""
    template = loaded.processor or loaded.tokenizer
    texts = [template.apply_chat_template(_messages(p), tokenize=False, add_generation_prompt=True) for p in prompts]
    images = [list(p.images) for p in prompts]
    if any(images) and loaded.processor is None:
        raise UsageError(f"{loaded.name} cannot see", why="it is a text-only model", fix="use --arms text or blind")
    loaded.tokenizer.padding_side = "left"
    if any(images):
        flat = [image for row in images for image in row]
        encoded = loaded.processor(text=texts, images=flat, padding=True, return_tensors="pt")
    else:
        encoded = loaded.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    kept = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "image_sizes")
    batch = {name: encoded[name].to(loaded.device) for name in kept if name in encoded}
    if "pixel_values" in batch:
        batch["pixel_values"] = batch["pixel_values"].to(loaded.model.dtype)
    batch["position_ids"] = position_ids(
        loaded.model, batch["input_ids"], batch["attention_mask"], batch.get("image_grid_thw")
    )
    return batch


@torch.no_grad()
def sample(loaded: Loaded, batch: dict[str, Tensor], keys: Sequence[str], sampling: Sampling) -> list[list[Response]]:
    """Prefill an encoded batch once and draw `n` samples of every row."""
    from transformers import DynamicCache

    model, n = loaded.model, sampling.n
    cache = DynamicCache(config=model.config.get_text_config())
    output = model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits = output.logits[:, -1]
    mask, last = batch["attention_mask"], batch["position_ids"][..., -1:]
    if n > 1:
        cache.batch_repeat_interleave(n)
        logits, mask = logits.repeat_interleave(n, 0), mask.repeat_interleave(n, 0)
        last = last.repeat_interleave(n, -2)
    uniforms = None
    if sampling.temperature > 0:
        uniforms = draws([f"{key}/{i}" for key in keys for i in range(n)], sampling.max_new_tokens, sampling.seed)
    ids, logprobs = decode(loaded, cache, logits, mask, last, uniforms, sampling)
    drawn = responses(loaded, ids, logprobs)
    return [drawn[i : i + n] for i in range(0, len(drawn), n)]


def decode(
    loaded: Loaded,
    cache: Any,
    logits: Float[Tensor, "rows vocabulary"],
    mask: Int[Tensor, "rows tokens"],
    last: Int[Tensor, "..."],
    uniforms: Float[Tensor, "rows steps"] | None,
    sampling: Sampling,
) -> tuple[Int[Tensor, "rows steps"], Float[Tensor, "rows steps"]]:
    """Continue rows whose prompt is in `cache`. `last` are the position ids of the last prompt token, `[..., rows, 1]`.

    Returns ids, -1 after the end, and log-probabilities under the sampled distribution (banned tokens excluded).
    """
    model, eos = loaded.model, _eos_ids(loaded)
    rows, steps = logits.shape[0], sampling.max_new_tokens
    banned = torch.tensor(loaded.family.banned_token_ids(model.config, loaded.tokenizer), device=logits.device)
    ids = torch.full((rows, steps), -1, device=logits.device)
    logprobs = torch.zeros((rows, steps), device=logits.device)
    live = torch.arange(rows, device=logits.device)
    done = torch.zeros(rows, dtype=torch.bool, device=logits.device)
    for t in range(steps):
        u = None if uniforms is None else uniforms[live, t]
        token, logprob = pick(logits, banned, sampling.temperature, u)
        ids[live[~done], t] = token[~done]
        logprobs[live[~done], t] = logprob[~done]
        done = done | torch.isin(token, eos)
        if bool(done.all()) or t + 1 == steps:
            break
        if done.float().mean() > SHRINK_SHARE:
            keep = (~done).nonzero()[:, 0]
            cache.batch_select_indices(keep)
            live, token, mask, done = live[keep], token[keep], mask[keep], done[keep]
            last = last[..., keep, :]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        last = last + 1
        output = model(
            input_ids=token[:, None],
            attention_mask=mask,
            position_ids=last,
            past_key_values=cache,
            use_cache=True,
        )
        logits = output.logits[:, -1]
    return ids, logprobs


def pick(
    logits: Float[Tensor, "rows vocabulary"],
    banned: Int[Tensor, "banned"],
    temperature: float,
    uniform: Float[Tensor, "rows"] | None,
) -> tuple[Int[Tensor, "rows"], Float[Tensor, "rows"]]:
    """The next token of every row: the largest logit, or the inverse of the cumulative distribution at `uniform`."""
    scores = logits.float()
    scores[:, banned] = -torch.inf
    if temperature == 0 or uniform is None:
        logp = torch.log_softmax(scores, -1)
        token = logp.argmax(-1)
    else:
        logp = torch.log_softmax(scores / temperature, -1)
        cumulative = logp.double().exp().cumsum(-1)
        target = uniform.double()[:, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    return token, logp.gather(-1, token[:, None])[:, 0]


def draws(keys: Sequence[str], steps: int, seed: int) -> Float[Tensor, "keys steps"]:
    """Uniform numbers in [0, 1): one stream a key, the same whatever else is drawn."""
    rows = []
    for key in keys:
        digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
        rows.append(np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "little"))).random(steps))
    return torch.from_numpy(np.stack(rows))


def _messages(prompt: Prompt) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = [{"type": "image"} for _ in prompt.images]
    return [{"role": "user", "content": [*content, {"type": "text", "text": prompt.text}]}]


def _eos_ids(loaded: Loaded) -> Tensor:
    configured = loaded.model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    ids = {i for i in [*ids, loaded.tokenizer.eos_token_id] if i is not None}
    return torch.tensor(sorted(ids), device=loaded.device)


def responses(loaded: Loaded, ids: Int[Tensor, "rows steps"], logprobs: Float[Tensor, "rows steps"]) -> list[Response]:
    """Decoded rows of `decode`'s output."""
    eos = set(_eos_ids(loaded).tolist())
    kept = [[t for t in row if t >= 0] for row in ids.tolist()]
    spoken = [row[:-1] if row and row[-1] in eos else row for row in kept]
    texts = loaded.tokenizer.batch_decode(spoken, skip_special_tokens=True)
    return [
        Response(text.strip(), row, scores[: len(row)], not (row and row[-1] in eos))
        for text, row, scores in zip(texts, kept, logprobs.tolist(), strict=True)
    ]
