"""Any endpoint that speaks OpenAI's chat completions, with images: hosted models, or a server of
one's own, as subjects.

One request a sample, each with the seed that the sample has in any other run; images go along as
PNG data URLs, before the text, as in a chat template. What was answered is kept on disk under the
hash of all that was asked, so that nothing is paid for twice. A request that fails for good is a
response with an error; an endpoint that is not there, or that does not know us or the model, ends
the run, since every other request would fail too. Left out: prompts given as ids.
"""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from PIL import Image

from franken.endpoints import Body, Cache, Client, Completion, Endpoint, RequestFailed
from franken.errors import UsageError
from franken.generate.engine import Prompt, Response, Sampling, cut, sample_names, short_seed
from franken.tasks.marks import pieces

KEY = "OPENAI_API_KEY"


@dataclass(frozen=True)
class OpenAI:
    """The engine for `model` at an endpoint. Answers are kept in `cache`."""

    model: str
    endpoint: Endpoint
    cache: Cache = Cache(None)
    workers: int = 8

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[Response]]:
        """`[len(prompts)][n]` responses; their ids are empty. Raises FrankenError where no request
        can succeed.
        """
        sampling.check()
        if sampling.stop_ids or any(p.ids is not None for p in prompts):
            raise UsageError(
                "an endpoint takes no token ids", why="its tokens are its own", fix="give text"
            )
        drawn: list[list[Response]] = []
        with self.endpoint.client() as client:
            pool = ThreadPoolExecutor(self.workers)
            try:  # a few prompts at a time: no more images are held as text than are under way
                for start in range(0, len(prompts), self.workers):
                    some = prompts[start : start + self.workers]
                    drawn += self._answers(client, pool, some, sampling)
                    if on_batch:
                        on_batch(len(some))
            finally:
                pool.shutdown(cancel_futures=True)
        return drawn

    def _answers(
        self,
        client: Client,
        pool: ThreadPoolExecutor,
        prompts: Sequence[Prompt],
        sampling: Sampling,
    ) -> list[list[Response]]:
        bodies = [request_bodies(self.model, p, sampling) for p in prompts]
        names = [[digest(self.endpoint.url, body) for body in row] for row in bodies]
        different = dict(zip(chain(*names), chain(*bodies), strict=True))
        answers = pool.map(lambda item: self._answer(client, *item), different.items())
        by_name = dict(zip(different, answers, strict=True))
        return [[to_response(by_name[name], sampling.stop) for name in row] for row in names]

    def _answer(self, client: Client, name: str, body: Body) -> Completion | RequestFailed:
        """The endpoint's answer to a body; from disk where it was asked before."""
        if known := self.cache.get(name, Completion):
            return known
        try:
            completion = client.complete(body)
        except RequestFailed as e:
            return e
        self.cache.put(name, completion)
        return completion


def hosted(model: str, url: str, cache: Path | None = None) -> OpenAI:
    """The engine for a model as the command line names it. Raises UsageError for an address that
    cannot be one.
    """
    return OpenAI(model, Endpoint(url, KEY), Cache(cache))


def request_bodies(model: str, prompt: Prompt, sampling: Sampling) -> list[Body]:
    """What is asked for each sample of a prompt. Greedy samples are all the same request."""
    images = ({"type": "image_url", "image_url": {"url": data_url(i)}} for i in prompt.images)
    parts = [
        next(images) if piece is None else {"type": "text", "text": piece}
        for piece in pieces(prompt.text, len(prompt.images))
    ]
    body: Body = {
        "model": model,
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "logprobs": True,
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.temperature == 0:
        return [body] * sampling.n
    return [
        {**body, "seed": short_seed(name, sampling.seed)}
        for name in sample_names(prompt.key, sampling)
    ]


def data_url(image: Image.Image) -> str:
    """An image as a PNG in a data URL; every pixel arrives as it is."""
    kept = io.BytesIO()
    image.convert("RGB").save(kept, "PNG")
    return f"data:image/png;base64,{base64.b64encode(kept.getvalue()).decode()}"


def digest(endpoint: str, body: Body) -> str:
    """The name under which an answer is kept: everything that was asked, and of whom."""
    return hashlib.sha256(json.dumps([endpoint, body], sort_keys=True).encode()).hexdigest()


def to_response(answer: Completion | RequestFailed, stop: Sequence[str]) -> Response:
    """A completion as a response; reasoning that the server has taken apart is put back in front,
    in <think> tags.
    """
    if isinstance(answer, RequestFailed):
        return Response("", [], [], False, error=answer.what)
    choice = answer.choices[0]
    message = choice.message
    if choice.finish_reason == "content_filter" or message.refusal:
        return Response("", [], [], False, error=f"refused: {message.refusal or 'content filter'}")
    thought = message.reasoning_content or message.reasoning
    text = cut((f"<think>{thought}</think>" if thought else "") + (message.content or ""), stop)
    scores = (choice.logprobs and choice.logprobs.content) or []
    return Response(
        text.strip(), [], [token.logprob for token in scores], choice.finish_reason == "length"
    )
