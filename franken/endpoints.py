"""Endpoints that speak OpenAI's HTTP API: one client for hosted models, the judge and embeddings.

A request that fails for now (a busy server, a broken connection) is sent again after a doubling
wait, or after the one that the server asks for. What fails for good is one of three errors, so that
a caller can tell a sample's own failure from one that every other request would meet. Replies are
parsed into typed objects, are bounded in size, and never followed to another address.

A key (`franken.secrets`) goes over https or to this machine only, and is written nowhere: not into
files, errors or addresses, and not where a reply repeats it. Nothing is sent unless somebody names
an endpoint. Fields: https://platform.openai.com/docs/api-reference/chat/create. Left out:
streaming, batch jobs.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Required, TypedDict, TypeVar, cast
from urllib.parse import SplitResult, urlsplit, urlunsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from franken.bounds import limit, said
from franken.errors import FrankenError, UsageError
from franken.runs import atomic_write_text
from franken.secrets import MARK, SHORTEST, find_key

HOPELESS = {
    401: "it does not accept the key",
    402: "it wants to be paid",
    404: "there is no such address or model",
}
BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 529}
LOCAL = ("localhost", "127.0.0.1", "::1")
LONGEST_WAIT = 60.0  # seconds that a server may ask for
# What some endpoints refuse to hear of, and what is sent instead. A temperature is never dropped:
# it changes the answer.
SUBSTITUTES = {"max_tokens": "max_completion_tokens", "logprobs": None, "seed": None}


class Body(TypedDict, total=False):
    """The fields of a request to /chat/completions or /embeddings that are sent."""

    model: Required[str]
    messages: list[dict[str, object]]
    max_tokens: int
    max_completion_tokens: int
    temperature: float
    seed: int
    stop: list[str]
    logprobs: bool
    input: list[str]


class EndpointError(FrankenError):
    """An endpoint did not give what was asked for."""


class Unusable(EndpointError):
    """No request can succeed: nobody is there, or it does not know us or the model."""


class RequestFailed(EndpointError):
    """This request failed, after all attempts. `param` is the field that the endpoint named."""

    def __init__(self, what: str, param: str | None = None) -> None:
        super().__init__(what)
        self.param = param


class Received(BaseModel):
    """A part of a reply. Errors do not repeat it: cut short, a key in it would not be known."""

    model_config = ConfigDict(hide_input_in_errors=True)


class Message(Received):
    """What a model said. Servers that take reasoning apart name it in one of two ways."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class TokenLogprob(Received):
    """The log-probability of one token, in nats."""

    logprob: float


class Logprobs(Received):
    """Those of all tokens of an answer."""

    content: list[TokenLogprob] | None = None


class Choice(Received):
    """One completion."""

    message: Message
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Completion(Received):
    """The reply of /chat/completions."""

    choices: Annotated[list[Choice], Field(min_length=1)]
    model: str | None = None


class Embedding(Received):
    """The vector of text number `index`."""

    index: int
    embedding: list[float]


class Embeddings(Received):
    """The reply of /embeddings."""

    data: list[Embedding]


Reply = TypeVar("Reply", bound=BaseModel)


@dataclass(frozen=True)
class Endpoint:
    """An address (the part before /chat/completions) and how it is asked.

    `key_variable` names the environment variable of its key. A request is sent up to `1 + retries`
    times; the first wait is `patience` seconds, and doubles. `timeout` is in seconds, for one
    answer from request to last byte. Raises
    UsageError for an address that cannot be one.
    """

    url: str
    key_variable: str
    retries: int = 5
    patience: float = 1.0
    timeout: float = field(default_factory=lambda: limit("answer_seconds"))
    refused: set[str] = field(default_factory=set, compare=False, repr=False)  # of SUBSTITUTES

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_endpoint(self.url))

    @contextmanager
    def client(self) -> Iterator["Client"]:
        """A connection pool for several threads. No proxy stands before this machine itself."""
        headers = {"Content-Type": "application/json", **self.headers()}
        local = httpx.URL(self.url).host in LOCAL
        with httpx.Client(timeout=self.timeout, headers=headers, trust_env=not local) as http:
            yield Client(self, http)

    def headers(self) -> dict[str, str]:
        """The key, where nobody on the way can read it. Raises UsageError for one that no header
        may have.
        """
        key = find_key(self.key_variable)
        return {"Authorization": f"Bearer {key}"} if key and self._private() else {}

    def redact(self, text: str) -> str:
        """The text on one line, without the key should it repeat that."""
        key = find_key(self.key_variable)
        return " ".join((text.replace(key, MARK) if key else text).split())

    def parsed(self, content: bytes, reply: type[Reply]) -> Reply:
        """A reply, typed. Where it repeats the key there are stars. Raises RequestFailed."""
        answer, key = _parsed(content, reply), json.dumps(find_key(self.key_variable))[1:-1]
        if len(key) >= SHORTEST and key in (text := answer.model_dump_json()):
            return _parsed(text.replace(key, MARK).encode(), reply)
        return answer

    def _private(self) -> bool:
        url = httpx.URL(self.url)
        return url.scheme == "https" or url.host in LOCAL

    def fix(self) -> str:
        """What to look at when it refuses."""
        if not find_key(self.key_variable):
            return f"set {self.key_variable}, or check the address and the model's name"
        if not self._private():
            return f"{self.key_variable} is sent over https only: use an https address"
        return f"check {self.key_variable}, the address and the model's name"


@dataclass(frozen=True)
class Client:
    """An open connection to an endpoint. Its methods may be called from several threads.

    They raise RequestFailed where this request cannot be answered, Unusable where none can.
    """

    endpoint: Endpoint
    http: httpx.Client

    def complete(self, body: Body) -> Completion:
        """A chat completion. A field that this endpoint refuses, and that can be done without, is
        left out or renamed from then on.
        """
        refused = self.endpoint.refused
        while True:
            names = {name: SUBSTITUTES[name] if name in refused else name for name in body}
            sent = cast(Body, {new: body[name] for name, new in names.items() if new is not None})
            try:
                return self.post("chat/completions", sent, Completion)
            except RequestFailed as e:
                if e.param not in SUBSTITUTES or e.param not in sent:
                    raise
                refused.add(e.param)

    def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        """A vector for every text, all of one length."""
        data = self.post("embeddings", {"model": model, "input": list(texts)}, Embeddings).data
        vectors = {row.index: row.embedding for row in data}
        if sorted(vectors) != list(range(len(texts))):
            raise RequestFailed(f"{len(data)} vectors came back for {len(texts)} texts")
        if len({len(vector) for vector in vectors.values()}) > 1:
            raise RequestFailed("the vectors differ in length")
        return [vectors[i] for i in range(len(texts))]

    def post(self, path: str, body: Body, reply: type[Reply]) -> Reply:
        """Send a body, again where trying again can help, and parse what comes back."""
        endpoint, reason, connected = self.endpoint, "", True
        for attempt in range(endpoint.retries + 1):
            wait = endpoint.patience * 2**attempt * (1 + random.random() / 4)
            try:
                status, headers, content = self._exchange(path, body)
            except httpx.TimeoutException:
                bound = f"answer_seconds={endpoint.timeout:g}"
                reason, connected = f"no answer within {endpoint.timeout:g} s ({bound})", True
            except httpx.DecodingError as e:
                raise RequestFailed(f"the answer cannot be decoded: {e}") from e
            except httpx.RequestError as e:
                reason, connected = endpoint.redact(str(e)) or type(e).__name__, False
            else:
                if status == 200:
                    return endpoint.parsed(content, reply)
                message, param = _complaint(content)
                reason, connected = f"HTTP {status}: {endpoint.redact(message)[:300]}", True
                if status in HOPELESS:
                    what = f"{endpoint.url} refuses: {reason}"
                    raise Unusable(what, HOPELESS[status], endpoint.fix())
                if status not in BUSY:
                    raise RequestFailed(reason, param if status in (400, 422) else None)
                wait = _seconds(headers.get("retry-after"), wait)
            if attempt < endpoint.retries:
                sleep(wait)
        if not connected:
            fix = "check the address; the answers had so far are kept"
            raise Unusable(f"{endpoint.url} cannot be reached", reason, fix)
        raise RequestFailed(f"{reason} ({endpoint.retries + 1} attempts)")

    def _exchange(self, path: str, body: Body) -> tuple[int, httpx.Headers, bytes]:
        content, most = bytearray(), limit("reply_mib")
        sent, end = json.dumps(body).encode(), monotonic() + self.endpoint.timeout
        with self.http.stream("POST", f"{self.endpoint.url}/{path}", content=sent) as reply:
            for part in reply.iter_bytes():
                content += part
                if len(content) > most * 2**20:
                    raise RequestFailed(f"the answer is larger than {said('reply_mib')}")
                if monotonic() > end:  # byte after byte, each of them in time
                    raise httpx.ReadTimeout("the answer does not end")
            return reply.status_code, reply.headers, bytes(content)


def check_endpoint(endpoint: str) -> str:
    """The address without a last slash or /chat/completions. Raises UsageError."""
    try:
        url = urlsplit(endpoint.strip())
        host = httpx.URL(endpoint.strip()).host if url.port != 0 else None
        (host or "").encode("idna")  # as the system will look it up
    except (ValueError, httpx.InvalidURL):  # a port that is no number, a label too long
        url, host = SplitResult("", "", "", "", ""), None
    if url.scheme not in ("http", "https") or not host:
        shown = re.sub(r"(?<=//).*@|^.*@|[?#].*", MARK, endpoint)
        fix = "write it like https://api.openai.com/v1 or http://localhost:8000/v1"
        why = "an endpoint starts with http:// or https://"
        raise UsageError(f"{shown!r} is not an address", why, fix)
    if "@" in url.netloc or "?" in endpoint or "#" in endpoint or ";" in endpoint:
        why = "run folders record the address, and what stands before @ or behind ? or # is secret"
        raise UsageError("an endpoint with a secret in its address", why, "set its key's variable")
    whole = urlunsplit((url.scheme, url.netloc, url.path, "", ""))
    return whole.rstrip("/").removesuffix("/chat/completions").rstrip("/")


@dataclass(frozen=True)
class Cache:
    """Answers on disk, one JSON file each, by the hash of what was asked. None keeps nothing."""

    folder: Path | None

    def path(self, digest: str) -> Path | None:
        """Where the answer is, or would be."""
        return self.folder / digest[:2] / f"{digest}.json" if self.folder else None

    def get(self, digest: str, answer: type[Reply]) -> Reply | None:
        """What was answered; None where it was not, or cannot be read any more."""
        path = self.path(digest)
        if path is None or not path.exists():
            return None
        try:
            return answer.model_validate_json(path.read_bytes())
        except ValidationError:
            return None

    def put(self, digest: str, answer: BaseModel) -> None:
        """Keep an answer."""
        if path := self.path(digest):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_text(path, answer.model_dump_json(exclude_unset=True))


def _parsed(content: bytes, reply: type[Reply]) -> Reply:
    try:
        return reply.model_validate_json(content)
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise RequestFailed("the answer is not JSON") from e
        place = ".".join(map(str, first["loc"]))
        kind = "chat completion" if reply is Completion else "list of embeddings"
        raise RequestFailed(f"the answer is no {kind}: {place}: {first['msg']}") from e


def _complaint(content: bytes) -> tuple[str, str | None]:
    """(what the endpoint says is wrong, the field that it names)."""
    text = content.decode(errors="replace")
    try:
        error = json.loads(text)
    except ValueError:
        error = None
    if isinstance(error, dict):
        error = error.get("error", error)
    if not isinstance(error, dict):
        error = {"message": error}
    param = error.get("param")
    message = str(error.get("message") or text or "no reason given")
    return message, param if isinstance(param, str) else None


def _seconds(header: str | None, otherwise: float) -> float:
    """A Retry-After header that counts seconds; dates and anything else are `otherwise`."""
    return min(float(header), LONGEST_WAIT) if header and header.isdecimal() else otherwise
