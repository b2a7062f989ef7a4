"""Sampling with transformers: every prompt is prefilled once, however many samples it gets.

Each sample draws from its own stream, seeded by (seed, prompt key, sample index), so what it says
does not depend on what else is in the batch. Image, video and turn markers are never sampled. A
checkpoint's own generation settings (repetition penalty, top-p, …) are ignored: greedy means
greedy.

Prompts of like length share a batch where that saves padding. Left out: beam search, nucleus
sampling.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from franken.errors import UsageError
from franken.generate.engine import (
    Prompt,
    Response,
    Sampling,
    raw_ids,
    read_sample,
    sample_names,
    stream,
    template_text,
)
from franken.generate.reading import Refused, read_with
from franken.generate.streams import Stream, Tokens, advance, prefill
from franken.models.batch import ModelBatch
from franken.models.loading import Loaded
from franken.models.templates import adds_special_tokens

WORTH_SORTING = 0.9  # prompts are sorted where that needs less than this share of the positions
PIXELS_PER_TOKEN = 28 * 28  # Qwen2.5-VL's; only used to guess which prompts are alike in length


@dataclass(frozen=True)
class Native:
    """The engine that runs a loaded model. `batch_size` counts rows (prompts × n)."""

    loaded: Loaded
    batch_size: int = 64

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[Response]]:
        """`[len(prompts)][n]` responses."""
        return generate(
            self.loaded, prompts, sampling, batch_size=self.batch_size, on_batch=on_batch
        )


def generate(
    loaded: Loaded,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
) -> list[list[Response]]:
    """`[len(prompts)][n]` responses. `batch_size` counts rows (prompts × n); `on_batch` hears how
    many prompts are done. A prompt that the processor refuses has its reason in place of answers.
    """
    sampling.check()
    per_batch = max(1, batch_size // sampling.n)
    order = (
        batch_order([_size(loaded, p) for p in prompts], per_batch)
        if len(prompts) > per_batch
        else range(len(prompts))
    )
    drawn: dict[int, list[Response]] = {}
    for start in range(0, len(order), per_batch):
        places = order[start : start + per_batch]
        chunk = [prompts[i] for i in places]
        drawn |= zip(places, _answers(loaded, chunk, sampling), strict=True)
        if on_batch:
            on_batch(len(chunk))
    return [drawn[i] for i in range(len(prompts))]


def _answers(loaded: Loaded, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Response]]:
    """Responses to the prompts of one batch."""
    try:
        batch = encode_prompts(loaded, prompts)
    except Refused:
        reasons = [refusal(loaded, prompt) for prompt in prompts]
        taken = [p for p, why in zip(prompts, reasons, strict=True) if why is None]
        if len(taken) == len(prompts):  # what is refused is not one of them, but all together
            raise
        answers = iter(_answers(loaded, taken, sampling) if taken else ())
        return [next(answers) if why is None else [_failed(why)] * sampling.n for why in reasons]
    return sample(loaded, batch, [p.key for p in prompts], sampling)


def _failed(why: str) -> Response:
    return Response("", [], [], False, error=why)


def batch_order(sizes: Sequence[int], per_batch: int) -> Sequence[int]:
    """The order in which to batch rows of these lengths: longest first, so that what does not fit
    fails at once.

    Where that hardly saves padding, the given order: rounding depends on padding, and results had
    better not change for nothing.
    """

    def positions(order: Sequence[int]) -> int:
        batches = [order[i : i + per_batch] for i in range(0, len(order), per_batch)]
        return sum(len(b) * max(sizes[i] for i in b) for b in batches)

    given = range(len(sizes))
    by_length = sorted(given, key=lambda i: -sizes[i])
    return by_length if positions(by_length) < WORTH_SORTING * positions(given) else given


def _size(loaded: Loaded, prompt: Prompt) -> int:
    """About how many tokens a prompt has."""
    words = (
        len(prompt.ids)
        if prompt.ids is not None
        else len(loaded.tokenizer(prompt.text)["input_ids"])
    )
    return words + sum(i.width * i.height for i in prompt.images) // PIXELS_PER_TOKEN


def encode_prompts(loaded: Loaded, prompts: Sequence[Prompt]) -> ModelBatch:
    """Apply the chat template, expand image tokens and pad on the left. On the model's device.

    Raises UsageError for images where the model is text-only, and `Refused` where the processor
    does not take them.
    """
    if any(p.images for p in prompts) and loaded.processor is None:
        raise UsageError(
            f"{loaded.name} cannot see",
            why="it is a text-only model",
            fix="use --arms text or blind",
        )
    loaded.tokenizer.padding_side = "left"
    read = _expand if any(p.ids is not None for p in prompts) else _tokenise
    encoded = read(loaded, prompts)
    return ModelBatch.of(loaded.model, encoded, [len(p.images) for p in prompts])


def refusal(loaded: Loaded, prompt: Prompt) -> str | None:
    """Why the model's processor does not take a prompt; None where it does."""
    try:
        encode_prompts(loaded, [prompt])
    except Refused as e:
        return f"the processor refuses it: {e.why}"
    return None


@torch.no_grad()
def sample(
    loaded: Loaded, batch: ModelBatch, keys: Sequence[str], sampling: Sampling
) -> list[list[Response]]:
    """Prefill an encoded batch once and draw `n` samples of every row."""
    n, stream = sampling.n, prefill(loaded, batch, sampling.n)
    uniforms = None
    if sampling.temperature > 0:
        names = [name for key in keys for name in sample_names(key, sampling)]
        uniforms = draws(names, sampling.max_new_tokens, sampling.seed).to(stream.logits.device)
    side = (stream.cache, stream.logits, stream.mask, stream.last)
    ids, logprobs = decode(loaded, *side, uniforms, sampling)
    drawn = responses(loaded, ids, logprobs, sampling, [r for r in asked(batch) for _ in range(n)])
    return [drawn[i : i + n] for i in range(0, len(drawn), n)]


def asked(batch: ModelBatch) -> list[list[int]]:
    """The ids of every row's prompt, image placeholders expanded, without padding."""
    seen = zip(batch.input_ids.tolist(), batch["attention_mask"].tolist(), strict=True)
    return [[token for token, kept in zip(*row, strict=True) if kept] for row in seen]


def decode(
    loaded: Loaded,
    cache: Any,
    logits: Float[Tensor, "rows vocabulary"],
    mask: Int[Tensor, "rows tokens"],
    last: Int[Tensor, "..."],
    uniforms: Float[Tensor, "rows steps"] | None,
    sampling: Sampling,
) -> tuple[Int[Tensor, "rows steps"], Float[Tensor, "rows steps"]]:
    """Continue rows whose prompt is in `cache`. `last` are the position ids of the last prompt
    token, `[..., rows, 1]`.

    Returns ids, -1 after the end, and log-probabilities under the sampled distribution (banned
    tokens excluded).
    """
    stream = Stream(loaded, cache, logits, mask, last)
    banned = loaded.banned_ids.to(logits.device)

    def choose(t: int, live: Int[Tensor, "live"]) -> Tokens:
        u = None if uniforms is None else uniforms[live, t]
        return pick(stream.logits, banned, sampling.temperature, u)

    return advance([stream], choose, end_ids(loaded, sampling), sampling)


def pick(
    logits: Float[Tensor, "rows vocabulary"],
    banned: Int[Tensor, "banned"],
    temperature: float,
    uniform: Float[Tensor, "rows"] | None,
) -> tuple[Int[Tensor, "rows"], Float[Tensor, "rows"]]:
    """The next token of every row: the largest logit, or the inverse of the cumulative distribution
    at `uniform`.
    """
    scores = logits.float()
    scores[:, banned] = -torch.inf
    if temperature == 0 or uniform is None:
        logp = torch.log_softmax(scores, -1)
        token = logp.argmax(-1)
    else:
        logp = torch.log_softmax(scores / temperature, -1)
        cumulative = logp.double().exp().cumsum(-1)
        target = uniform.double()[:, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(
            max=logits.shape[-1] - 1
        )
    return token, logp.gather(-1, token[:, None])[:, 0]


def draws(keys: Sequence[str], steps: int, seed: int) -> Float[Tensor, "keys steps"]:
    """Uniform numbers in [0, 1): one stream a key, the same whatever else is drawn."""
    rows = [np.random.Generator(np.random.Philox(stream(key, seed))).random(steps) for key in keys]
    return torch.from_numpy(np.stack(rows))


def _tokenise(loaded: Loaded, prompts: Sequence[Prompt]) -> Mapping[str, Tensor]:
    template = loaded.processor or loaded.tokenizer
    texts = [template_text(template, p) for p in prompts]
    images = [list(p.images) for p in prompts]
    given: dict[str, Any] = {"text": texts, "padding": True, "return_tensors": "pt"}
    given["add_special_tokens"] = adds_special_tokens(template, texts[0])
    if any(images):
        return read_with(loaded.processor, images=images, **given)
    return read_with(loaded.tokenizer, **given)


def _expand(loaded: Loaded, prompts: Sequence[Prompt]) -> Mapping[str, Tensor]:
    """As `_tokenise`, from ids: every placeholder becomes what the processor makes of it for its
    image.
    """
    rows = [raw_ids(loaded.processor, loaded.tokenizer, p) for p in prompts]
    encoded: dict[str, Tensor] = {}
    if any(p.images for p in prompts):
        mark, between = loaded.processor.image_token, loaded.tokenizer.eos_token
        encoded = dict(
            read_with(
                loaded.processor,
                text=[between.join([mark] * len(p.images)) for p in prompts],
                images=[list(p.images) for p in prompts],
                padding=True,
                return_tensors="pt",
                add_special_tokens=False,
            )
        )
        mark_id, between_id = loaded.tokenizer.convert_tokens_to_ids([mark, between])
        for i, prompt in enumerate(prompts):
            if rows[i].count(mark_id) != len(prompt.images):
                raise UsageError(
                    f"{rows[i].count(mark_id)} image placeholders for {len(prompt.images)} images",
                    why="un-expanded ids have one placeholder an image",
                )
            expanded = encoded["input_ids"][i][encoded["attention_mask"][i].bool()].tolist()
            parts = (
                list(part) for is_part, part in groupby(expanded, between_id.__ne__) if is_part
            )
            rows[i] = [
                t for token in rows[i] for t in (next(parts) if token == mark_id else [token])
            ]
    return encoded | dict(loaded.tokenizer.pad({"input_ids": rows}, return_tensors="pt"))


def end_ids(loaded: Loaded, sampling: Sampling) -> list[int]:
    """Tokens that end an answer: the generation settings', the tokenizer's and those that were
    asked for.
    """
    configured = loaded.model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return sorted(
        {i for i in [*ids, loaded.tokenizer.eos_token_id, *sampling.stop_ids] if i is not None}
    )


def responses(
    loaded: Loaded,
    ids: Int[Tensor, "rows steps"],
    logprobs: Float[Tensor, "rows steps"],
    sampling: Sampling,
    prompt_ids: Sequence[list[int]] | None = None,
) -> list[Response]:
    """Decoded rows of `decode`'s output."""
    ends = set(end_ids(loaded, sampling))
    kept = [[t for t in row if t >= 0] for row in ids.tolist()]
    asked = prompt_ids if prompt_ids is not None else [[]] * len(kept)
    return [
        read_sample(loaded.tokenizer, row, scores[: len(row)], ends, sampling.stop, before)
        for row, scores, before in zip(kept, logprobs.tolist(), asked, strict=True)
    ]
