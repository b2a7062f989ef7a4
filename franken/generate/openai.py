"""Any endpoint that speaks OpenAI's chat completions, with images: hosted models, or a server of
one's own, as subjects.

One request a sample, each with the seed that the sample has in any other run; images go along as
PNG data URLs, before the text, as in a chat template. What was answered is kept on disk under the
hash of all that was asked, so that nothing is paid for twice. A request that fails for good is a
response with an error; an endpoint that is not there, or that does not know us or the model, ends
the run, since every other request would fail too. Only whoever names an endpoint makes calls.

The key is read from the environment (OPENAI_API_KEY), goes over https or to this machine only, and
is written nowhere. Fields: https://platform.openai.com/docs/api-reference/chat/create. Left out:
streaming, batch jobs, prompts given as ids.
"""

import base64
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from franken.errors import FrankenError, UsageError
from franken.generate.engine import (
    Prompt,
    Response,
    Sampling,
    check_endpoint,
    cut,
    sample_names,
    short_seed,
)
from franken.runs import atomic_write_text

KEY = "OPENAI_API_KEY"
HOPELESS = {
    401: "it does not accept the key",
    402: "it wants to be paid",
    404: "there is no such address or model",
}
BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 529}
HERE = ("localhost", "127.0.0.1", "::1")
# What some endpoints refuse to hear of, and what is asked instead. A temperature is never dropped:
# it changes the answer.
INSTEAD = {"max_tokens": "max_completion_tokens", "logprobs": None, "seed": None}


@dataclass
class OpenAI:
    """The engine for `model` at `endpoint` (the part before /chat/completions). Answers are kept in
    the folder `cache`.

    `patience` is the wait before the first of `retries` repetitions, seconds; it doubles each time,
    unless the endpoint says
    how long to wait. Raises UsageError for an address that cannot be one.
    """

    model: str
    endpoint: str
    cache: Path | None = None
    workers: int = 8
    retries: int = 5
    patience: float = 1.0
    timeout: float = 300.0
    refused: set[str] = field(
        default_factory=set
    )  # the fields of INSTEAD that this endpoint has refused

    def __post_init__(self) -> None:
        self.endpoint = check_endpoint(self.endpoint)

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
        local = (
            httpx.URL(self.endpoint).host in HERE
        )  # no proxy of the environment's stands in between
        with httpx.Client(
            timeout=self.timeout, headers=self._headers(), trust_env=not local
        ) as client:
            pool = ThreadPoolExecutor(self.workers)
            try:
                for start in range(0, len(prompts), self.workers):
                    drawn += self._some(
                        client, pool, prompts[start : start + self.workers], sampling, on_batch
                    )
            finally:
                pool.shutdown(cancel_futures=True)
        return drawn

    def _some(
        self,
        client: httpx.Client,
        pool: ThreadPoolExecutor,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        on_batch: Callable[[int], None] | None,
    ) -> list[list[Response]]:
        """A few prompts at a time, so that no more images are held as text than are under way."""
        bodies = [request_bodies(self.model, p, sampling) for p in prompts]
        wanted = {digest(self.endpoint, b): b for row in bodies for b in row}
        found = dict(
            zip(
                wanted,
                pool.map(lambda item: self._answer(client, *item), wanted.items()),
                strict=True,
            )
        )
        if on_batch:
            on_batch(len(prompts))
        return [
            [to_response(found[digest(self.endpoint, b)], sampling.stop) for b in row]
            for row in bodies
        ]

    def _answer(self, client: httpx.Client, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """The endpoint's answer to a body, or `{"error": …}`; from disk where it was asked before."""
        kept = self.cache / name[:2] / f"{name}.json" if self.cache else None
        if kept and kept.exists():
            return json.loads(kept.read_text())
        answer = self._ask(client, body)
        if kept and "choices" in answer:
            kept.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_text(kept, json.dumps(answer, ensure_ascii=False))
        return answer

    def _ask(self, client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
        reason, connected, tried = "", True, 0
        while tried <= self.retries:
            wait, connected = self.patience * 2**tried, True
            try:
                reply = client.post(f"{self.endpoint}/chat/completions", json=self._accepted(body))
            except httpx.TimeoutException:
                reason = f"no answer within {self.timeout:g} s"
            except httpx.TransportError as e:
                reason, connected = str(e) or type(e).__name__, False
            else:
                if reply.status_code == 200:
                    return _parsed(reply)
                if self._learns(reply, body):
                    continue
                reason = self._complaint(reply)
                if reply.status_code in HOPELESS:
                    raise FrankenError(
                        f"{self.endpoint} refuses: {reason}",
                        HOPELESS[reply.status_code],
                        self._fix(),
                    )
                if reply.status_code not in BUSY:
                    return {"error": reason}
                wait = _seconds(reply.headers.get("retry-after"), wait)
            tried += 1
            if tried <= self.retries:
                time.sleep(wait)
        if not connected:
            raise FrankenError(
                f"{self.endpoint} cannot be reached",
                reason,
                "check --endpoint; the answers had so far are kept",
            )
        return {"error": f"{reason} ({tried} attempts)"}

    def _accepted(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body in the words that this endpoint accepts."""
        changed = {INSTEAD[k] if k in self.refused else k: v for k, v in body.items()}
        return {k: v for k, v in changed.items() if k is not None}

    def _learns(self, reply: httpx.Response, body: dict[str, Any]) -> bool:
        """Whether the reply refuses a field that can be done without, and had not been refused when
        this was asked.
        """
        if reply.status_code not in (400, 422):
            return False
        named = _error(reply).get("param")
        if (
            named not in INSTEAD
            or named not in body
            or f'"{named}"' not in reply.request.content.decode()
        ):
            return False
        self.refused.add(named)
        return True

    def _complaint(self, reply: httpx.Response) -> str:
        """What the endpoint says is wrong, on one line, without the key should it repeat that."""
        said = str(_error(reply).get("message") or reply.text or "no reason given")
        key = os.environ.get(KEY, "")
        said = said.replace(key, "***") if key else said
        return f"HTTP {reply.status_code}: {' '.join(said.split())[:300]}"

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(KEY, "")
        return {"Authorization": f"Bearer {key}"} if key and self._private() else {}

    def _private(self) -> bool:
        """Whether nobody on the way can read what is sent."""
        url = httpx.URL(self.endpoint)
        return url.scheme == "https" or url.host in HERE

    def _fix(self) -> str:
        if not os.environ.get(KEY):
            return f"set {KEY}, or check the model's name and --endpoint"
        if not self._private():
            return f"{KEY} is sent over https only: use an https address"
        return f"check {KEY}, the model's name and --endpoint"


def request_bodies(model: str, prompt: Prompt, sampling: Sampling) -> list[dict[str, Any]]:
    """What is asked for each sample of a prompt. Greedy samples are all the same request."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(i)}} for i in prompt.images
    ]
    parts.append({"type": "text", "text": prompt.text})
    body: dict[str, Any] = {
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
        body | {"seed": short_seed(name, sampling.seed)}
        for name in sample_names(prompt.key, sampling)
    ]


def data_url(image: Image.Image) -> str:
    """An image as a PNG in a data URL; every pixel arrives as it is."""
    kept = io.BytesIO()
    image.convert("RGB").save(kept, "PNG")
    return f"data:image/png;base64,{base64.b64encode(kept.getvalue()).decode()}"


def digest(endpoint: str, body: dict[str, Any]) -> str:
    """The name under which an answer is kept: everything that was asked, and of whom."""
    return hashlib.sha256(json.dumps([endpoint, body], sort_keys=True).encode()).hexdigest()


def to_response(answer: dict[str, Any], stop: Sequence[str]) -> Response:
    """A completion as a response; reasoning that the server has taken apart is put back in front,
    in <think> tags.
    """
    if "error" in answer:
        return Response("", [], [], False, error=answer["error"])
    choice = answer["choices"][0]
    message = choice["message"]
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        return Response(
            "", [], [], False, error=f"refused: {message.get('refusal') or 'content filter'}"
        )
    thought = message.get("reasoning_content") or message.get("reasoning")
    text = cut(
        (f"<think>{thought}</think>" if thought else "") + (message.get("content") or ""), stop
    )
    scored = (choice.get("logprobs") or {}).get("content") or []
    return Response(
        text.strip(), [], [t["logprob"] for t in scored], choice.get("finish_reason") == "length"
    )


def _parsed(reply: httpx.Response) -> dict[str, Any]:
    """The body of a reply that went well, or an error where it is no completion."""
    try:
        answer = reply.json()
    except ValueError:
        return {"error": "the answer is not JSON"}
    choices = answer.get("choices") if isinstance(answer, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict) or not isinstance(first.get("message"), dict):
        return {"error": "the answer has no choice in it"}
    return {"choices": [first], "model": answer.get("model")}


def _error(reply: httpx.Response) -> dict[str, Any]:
    """The `error` object of a reply, empty where there is none."""
    try:
        found = reply.json()
    except ValueError:
        return {}
    found = found.get("error", found) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {"message": found}


def _seconds(header: str | None, otherwise: float) -> float:
    """A Retry-After header that counts seconds, at most a minute of them; dates and anything else
    are `otherwise`.
    """
    return min(float(header), 60.0) if header and header.isdecimal() else otherwise
