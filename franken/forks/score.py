"""Replies under two models: what each would have said at every token, in one pass a model.

A prompt is read once by each model, and its replies are then read whole behind its keys and values,
with the image and with a black one of the same size in its place (the evaluation's `black`: as many
visual tokens, nothing to see). Only the hidden states of all tokens are held; logits over the
vocabulary are made and compared a few tokens at a time.

*Visual dependency* is KL(p(·|image) ‖ p(·|black image)) of one model, after VPPO (arXiv 2510.09285)
and PRPO (2606.08708); the other numbers are those of "Sparse but critical" (2603.22446). They are
of the distributions at temperature 1, whatever the replies were drawn at.

Left out: scoring by vLLM. Its prompt log-probabilities are of the top k tokens, so that they give a
bound and no divergence; replies that vLLM drew are scored here like any (`franken.forks.stored`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from franken.errors import FrankenError
from franken.forks import divergence
from franken.generate.engine import Prompt
from franken.generate.native import encode_prompts
from franken.generate.streams import Stream, prefill
from franken.models.loading import Loaded
from franken.tasks.images import black

AT_ONCE = 1 << 22  # numbers of one matrix of log-probabilities, in double precision 32 MiB

Hidden = Float[Tensor, "rows tokens hidden"]


@dataclass(frozen=True)
class Models:
    """The two that are compared, `a` the earlier."""

    a: Loaded
    b: Loaded

    def check(self) -> None:
        """Raises FrankenError where they cannot say the same tokens."""
        sizes = [m.model.get_output_embeddings().weight.shape[0] for m in (self.a, self.b)]
        if sizes[0] != sizes[1]:
            raise FrankenError(
                f"{self.a.name} and {self.b.name} cannot be compared token by token",
                why=f"their vocabularies have {sizes[0]} and {sizes[1]} tokens",
                fix="give two stages of one model",
            )

    @property
    def banned(self) -> Int[Tensor, "banned"]:
        """What neither may say."""
        both = torch.cat([self.a.banned_ids.cpu(), self.b.banned_ids.cpu()]).unique()
        return both.to(self.a.device)


@dataclass(frozen=True)
class Scores:
    """A reply token by token: a list each, as long as the reply. `a` and `b` are the two models.

    Divergences and entropies in nats. `rank_a` is the place of the token that was said among all
    tokens in a; `top_a` what a would rather say, and `top_a_in_b` its place in b. Visual
    dependencies are None where the prompt has no image.
    """

    js: list[float]
    kl_ab: list[float]
    kl_ba: list[float]
    entropy_a: list[float]
    entropy_b: list[float]
    logp_a: list[float]
    logp_b: list[float]
    rank_a: list[int]
    rank_b: list[int]
    top_a: list[int]
    top_b: list[int]
    top_a_in_b: list[int]
    top_b_in_a: list[int]
    vision_a: list[float] | None = None
    vision_b: list[float] | None = None


COLUMNS = tuple(field.name for field in fields(Scores))
Reply = tuple[int, list[int]]  # which prompt, and the tokens of the reply with the end


def score_replies(
    models: Models,
    prompts: Sequence[Prompt],
    replies: Sequence[Reply],
    *,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
) -> list[Scores]:
    """The scores of every reply, in their order. Replies of one prompt should follow each other;
    `batch_size` counts replies. Raises FrankenError for an empty one, and for models that read a
    prompt differently.
    """
    models.check()
    if any(not ids for _, ids in replies):
        raise FrankenError("an empty reply has no tokens to score")
    scored: list[Scores] = []
    for start in range(0, len(replies), batch_size):
        some = replies[start : start + batch_size]
        scored += _score(models, prompts, some)
        if on_batch:
            on_batch(len(some))
    return scored


@torch.no_grad()
def _score(models: Models, prompts: Sequence[Prompt], replies: Sequence[Reply]) -> list[Scores]:
    wanted = list(dict.fromkeys(number for number, _ in replies))
    asked = [prompts[number] for number in wanted]
    owners = [wanted.index(number) for number, _ in replies]
    width = max(len(ids) for _, ids in replies)
    targets = torch.tensor([ids + [0] * (width - len(ids)) for _, ids in replies])
    mask = torch.tensor([[i < len(ids) for i in range(width)] for _, ids in replies])
    read = [_read(m, asked, owners, targets, mask) for m in (models.a, models.b)]
    if not torch.equal(read[0].seen.cpu(), read[1].seen.cpu()):
        raise FrankenError(
            f"{models.a.name} and {models.b.name} read a prompt as different tokens",
            why="their tokenizers, processors or chat templates differ",
            fix="give both the same companions beside their weights",
        )
    hidden = [r.hidden for r in read]
    if any(prompt.images for prompt in asked):
        masked = [replace(p, images=tuple(black(i) for i in p.images)) for p in asked]
        hidden += [_read(m, masked, owners, targets, mask).hidden for m in (models.a, models.b)]
    columns = _columns(models, hidden, targets[mask].to(models.a.device))
    lengths = mask.sum(1).tolist()
    has_image = [bool(prompts[number].images) for number, _ in replies]
    return [
        Scores(**(values if sees else {n: v for n, v in values.items() if "vision" not in n}))
        for values, sees in zip(_cut(columns, lengths), has_image, strict=True)
    ]


@dataclass(frozen=True)
class _Read:
    """The hidden states that say each token of a flat list of replies, and the prompts' ids."""

    hidden: Float[Tensor, "tokens hidden"]
    seen: Int[Tensor, "prompts tokens"]


def _read(
    loaded: Loaded,
    prompts: Sequence[Prompt],
    owners: Sequence[int],
    targets: Int[Tensor, "rows tokens"],
    mask: Bool[Tensor, "rows tokens"],
) -> _Read:
    batch = encode_prompts(loaded, prompts)
    first: list[Tensor] = []
    handle = loaded.model.get_output_embeddings().register_forward_pre_hook(
        lambda _, given: first.append(given[0][:, -1:])
    )
    try:
        stream = prefill(loaded, batch)
    finally:
        handle.remove()
    rows = torch.tensor(list(owners), device=loaded.device)
    stream.keep(rows)
    parts = [first[0][rows.to(first[0].device)]]
    if targets.shape[1] > 1:
        parts.append(_behind(stream, targets.to(loaded.device), mask.to(loaded.device)))
    hidden = torch.cat(parts, 1)
    return _Read(hidden[mask.to(hidden.device)], batch.input_ids)


def _behind(
    stream: Stream, targets: Int[Tensor, "rows tokens"], mask: Bool[Tensor, "rows tokens"]
) -> Hidden:
    """The hidden states after each token of the replies but the last, behind their prompts."""
    steps = torch.arange(1, targets.shape[1], device=targets.device)
    seen = torch.cat([stream.mask, mask[:, :-1].to(stream.mask.dtype)], 1)
    output = stream.loaded.model.model(
        input_ids=targets[:, :-1],
        attention_mask=seen,
        position_ids=stream.last + steps,
        past_key_values=stream.cache,
        use_cache=True,
    )
    return output.last_hidden_state


def head(loaded: Loaded, hidden: Float[Tensor, "tokens hidden"]) -> Float[Tensor, "tokens V"]:
    """The logits of hidden states, soft-capped where the family does that (Gemma)."""
    logits = loaded.model.get_output_embeddings()(hidden)
    cap = getattr(loaded.model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _columns(
    models: Models, hidden: Sequence[Float[Tensor, "tokens hidden"]], targets: Int[Tensor, "tokens"]
) -> dict[str, list[Any]]:
    """Every column of `Scores` over a flat list of tokens. `hidden`: a's and b's with the image,
    then, where there are images, a's and b's without.
    """
    vocabulary = models.a.model.get_output_embeddings().weight.shape[0]
    chunk = max(1, AT_ONCE // vocabulary)
    parts = [
        _compare(models, [h[i : i + chunk] for h in hidden], targets[i : i + chunk])
        for i in range(0, len(targets), chunk)
    ]
    return {name: torch.cat([part[name] for part in parts]).tolist() for name in parts[0]}


def _compare(
    models: Models, hidden: Sequence[Tensor], said: Int[Tensor, "tokens"]
) -> dict[str, Tensor]:
    banned, device = models.banned, models.a.device
    readers = (models.a, models.b) * (len(hidden) // 2)
    a, b, *blind = (
        divergence.log_probs(head(m, h).to(device), banned)
        for m, h in zip(readers, hidden, strict=True)
    )
    top_a, top_b = a.argmax(-1), b.argmax(-1)
    values = {
        "js": divergence.js(a, b),
        "kl_ab": divergence.kl(a, b),
        "kl_ba": divergence.kl(b, a),
        "entropy_a": divergence.entropy(a),
        "entropy_b": divergence.entropy(b),
        "logp_a": a.gather(-1, said[:, None])[:, 0],
        "logp_b": b.gather(-1, said[:, None])[:, 0],
        "rank_a": divergence.rank(a, said),
        "rank_b": divergence.rank(b, said),
        "top_a": top_a,
        "top_b": top_b,
        "top_a_in_b": divergence.rank(b, top_a),
        "top_b_in_a": divergence.rank(a, top_b),
    }
    if blind:
        values |= {
            "vision_a": divergence.kl(a, blind[0]),
            "vision_b": divergence.kl(b, blind[1]),
        }
    return {name: value.cpu() for name, value in values.items()}


def _cut(columns: dict[str, list[Any]], lengths: Sequence[int]) -> Iterator[dict[str, list[Any]]]:
    """The columns of each reply."""
    start = 0
    for length in lengths:
        yield {name: values[start : start + length] for name, values in columns.items()}
        start += length
