"""What every engine is asked and what it answers; the engines themselves are in files of their own.

A prompt is one user turn, as text or as un-expanded ids (one placeholder an image, as chat
templates write it), with its images. A completion knows its text, its ids, why it ended and how
likely each of its tokens was; one that could not be had says why, and is never left out. Sample `i`
of a prompt has a seed of its own, made of the run's seed, the prompt's key and `i`, so that it does
not matter what it is drawn with: `n` samples equal `n` runs of one sample each.

Light: imports neither torch nor any engine.
"""

import hashlib
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from PIL import Image

from franken.endpoints import check_endpoint
from franken.errors import UsageError, check_known
from franken.models.templates import adds_special_tokens, write_chat
from franken.tasks.marks import pieces

ENGINES = ("native", "vllm", "openai")


@dataclass(frozen=True)
class Prompt:
    """A user turn. `key` seeds its samples; prompts with equal keys get equal draws. The images
    stand where the text has `<image>` for each of them, else before it.

    `ids`, where given, are used instead of the text, as they are: the whole prompt with its
    template, one placeholder an image.
    """

    text: str
    images: tuple[Image.Image, ...] = ()
    key: str = ""
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Sampling:
    """How to draw: `n` samples a prompt; temperature 0 is greedy.

    A sample ends at the model's own end token, at one of `stop_ids`, at one of the strings of
    `stop` (looked for in the text without special tokens), or after `max_new_tokens`. `first` is
    the number of the first sample: samples `first` to `first + n - 1` are drawn, each under the
    seed it has in any other run.
    """

    n: int = 1
    temperature: float = 1.0
    max_new_tokens: int = 64
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    first: int = 0

    def check(self) -> None:
        """Raises UsageError for a request that asks for nothing or cannot be."""
        if self.n < 1 or self.max_new_tokens < 1 or self.temperature < 0 or self.first < 0:
            raise UsageError(
                "nothing to sample",
                why="n and max_new_tokens are at least 1, the temperature is not negative",
            )
        if "" in self.stop:
            raise UsageError(
                "an empty stop string", why="every text contains it", fix="leave it out"
            )


@dataclass(frozen=True)
class Response:
    """One sample: its text up to the end or stop, its ids with the end, log-probabilities of its
    tokens, whether it was cut off.

    `prompt_ids` is the prompt as the model saw it, image placeholders expanded. Engines that never
    see ids leave both lists empty. With an `error` there is no answer, and the text is empty.
    """

    text: str
    ids: list[int] = field(repr=False)
    logprobs: list[float] = field(repr=False)
    truncated: bool
    prompt_ids: list[int] = field(repr=False, default_factory=list)
    error: str | None = None

    @property
    def finish(self) -> Literal["stop", "length", "error"]:
        """Why it ended."""
        return "error" if self.error else "length" if self.truncated else "stop"


class Engine(Protocol):
    """Answers prompts. Keeps a model, or the address of one."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[Response]]:
        """`[len(prompts)][n]` responses; `on_batch` hears how many more prompts are done."""
        ...


def hosted_name(model: str, engine: str) -> str | None:
    """What an endpoint calls a model written `openai:NAME`, or any model under the engine `openai`;
    None for a checkpoint.
    """
    if model.startswith("openai:") or engine == "openai":
        return model.removeprefix("openai:")
    return None


def check_engine(models: Sequence[str], engine: str, endpoint: str | None) -> str | None:
    """The endpoint, checked. Raises UsageError for an unknown engine, and for hosted models without
    endpoint or the reverse.
    """
    check_known("engine", [engine], ENGINES)
    hosted = [m for m in models if hosted_name(m, engine) is not None]
    if "" in [hosted_name(m, engine) for m in hosted]:
        raise UsageError(
            "a hosted model without a name",
            "openai: is followed by what the endpoint calls it",
            "openai:NAME",
        )
    if hosted and not endpoint:
        raise UsageError(
            f"no endpoint for {hosted[0]}",
            "nothing is called unasked",
            "add --endpoint https://…/v1",
        )
    if endpoint and not hosted:
        raise UsageError(
            "an endpoint, but no hosted model",
            "checkpoints are run here",
            "write the model as openai:NAME",
        )
    return check_endpoint(endpoint) if endpoint else None


def sample_names(key: str, sampling: Sampling) -> list[str]:
    """What tells the samples of a prompt apart, and seeds them: `key/number`."""
    return [f"{key}/{i}" for i in range(sampling.first, sampling.first + sampling.n)]


def stream(name: str, seed: int) -> int:
    """128 bits that depend on a sample's name and the run's seed alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")


def short_seed(name: str, seed: int) -> int:
    """`stream` in 31 bits, for engines that take a seed as one number."""
    return stream(name, seed) % 2**31


def template_text(template: Any, prompt: Prompt) -> str:
    """A prompt as its chat template writes it, one placeholder an image. `template` is a processor
    or a tokenizer. Raises FrankenError for a template that fails.
    """
    parts = pieces(prompt.text, len(prompt.images))
    content = [{"type": "image"} if p is None else {"type": "text", "text": p} for p in parts]
    messages = [{"role": "user", "content": content}]
    return write_chat(template, messages, for_answer=True)


def raw_ids(processor: Any, tokenizer: Any, prompt: Prompt) -> list[int]:
    """The un-expanded ids of a prompt: one placeholder an image. `processor` is None for text-only
    models.
    """
    if prompt.ids is not None:
        return list(prompt.ids)
    template = processor or tokenizer
    text = template_text(template, prompt)
    return tokenizer(text, add_special_tokens=adds_special_tokens(template, text))["input_ids"]


def read_sample(
    tokenizer: Any,
    ids: list[int],
    logprobs: list[float],
    ends: Container[int],
    stop: Sequence[str],
    prompt_ids: list[int],
) -> Response:
    """A response from sampled ids: without the end token, special tokens and what follows a stop
    string.
    """
    ended = bool(ids) and ids[-1] in ends
    text = tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
    before = cut(text, stop)
    return Response(before.strip(), ids, logprobs, not (ended or before != text), prompt_ids)


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings in it."""
    return text[: min((at for s in stop if (at := text.find(s)) >= 0), default=len(text))]
