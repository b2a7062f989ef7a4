"""Endpoints that answer wrongly, keys that are none, addresses with secrets: asked for answers,
verdicts and vectors. The marked key may be in nothing that is printed or written.
"""

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from endpoint_stub import Handler, serving
from test_secrets import finished

from attacks.harness import SECRET, Case, Done, Words

KEY = f"sk-{SECRET}-0123456789"
ASK = "eval openai:m --endpoint {0} --tasks read --samples 2 --n 1 --k 1 --no-compare --bound answer_seconds=3"
JUDGE = (
    "regrade {1} --judge {0} --judge-model m --judge-cache cache --out out --bound answer_seconds=3"
)
EMBED = "eval-compare {1} --embedder {0}#m --no-figures --out out"
Reply = tuple[int, object, dict[str, str]]


def cases(seed: int) -> Iterator[Case]:
    """Replies, keys, addresses."""
    for name, reply in REPLIES.items():
        yield _answered(f"answer: {name}", ASK, reply)
        if name not in SLOW:
            yield _answered(f"verdict: {name}", JUDGE, reply)
    for name, reply in VECTORS.items():
        yield _answered(f"vectors: {name}", EMBED, reply)
    rng = Random(f"{seed}/endpoints")
    for number in range(15):
        yield _answered(f"random answer {number}", ASK, _random_reply(rng))
    for name, key in KEYS.items():
        yield _keyed(name, key)
    for address in ADDRESSES:
        yield _addressed(address)


def _answered(name: str, line: str, reply: Reply | Callable[[Handler], None]) -> Case:
    port = _free_port()

    def before() -> None:
        """A server in the attacked process: it goes with it."""
        from franken import endpoints

        endpoints.sleep = lambda _: None
        server = serving(port).__enter__()
        if callable(reply):
            server.misbehave = reply
        else:
            server.faults = [reply] * 99

    def prepare(folder: Path) -> Words:
        _set_keys(KEY)
        run = finished(folder / "runs") if "{1}" in line else ""
        return line.format(f"http://127.0.0.1:{port}/v1", run).split()

    return Case("endpoints", name, prepare, "any", _accounted, before)


def _keyed(name: str, key: str) -> Case:
    def prepare(folder: Path) -> Words:
        _set_keys(key)
        return JUDGE.format("http://127.0.0.1:9/v1", finished(folder / "runs")).split()

    return Case("endpoints", f"key: {name}", prepare, "refused")


def _addressed(address: str) -> Case:
    def prepare(folder: Path) -> Words:
        _set_keys(KEY)
        return ["eval", "openai:m", "--endpoint", address]

    return Case("endpoints", f"address: {address}", prepare, "refused")


def _accounted(folder: Path, done: Done) -> str:
    """A run that is finished has all of its rows."""
    import pandas as pd

    for table in folder.glob("runs/eval/openai*/samples.parquet"):
        samples = pd.read_parquet(table)
        if len(samples) != 4 or (samples["output"].isna() & samples["error"].isna()).any():
            return "wrong success: rows without answer and reason"
    return ""


def _set_keys(key: str) -> None:
    from franken.secrets import VARIABLES

    for variable in VARIABLES:
        os.environ[variable] = key


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _says(**choice: object) -> Reply:
    return 200, {"choices": [choice]}, {}


def _json(content: object) -> Reply:
    return 200, content, {}


def _dribble(handler: Handler) -> None:
    """A byte a second, for ever."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.5)


def _silence(handler: Handler) -> None:
    time.sleep(600)


def _cut_off(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')


def _no_http(handler: Handler) -> None:
    handler.wfile.write(f"SSH-2.0-{KEY}\r\n".encode())


def _endless_headers(handler: Handler) -> None:
    handler.send_response(200)
    for number in range(10**5):
        handler.send_header(f"X-{number}", "x" * 100)
    handler.end_headers()


def _hang_up(handler: Handler) -> None:
    handler.connection.close()


DEEP = b"[" * 10**6
SLOW = ("a dribble", "silence")
REPLIES: dict[str, Reply | Callable[[Handler], None]] = {
    "no JSON": (200, b"<html>", {}),
    "nothing": (200, b"", {}),
    "null": _json(None),
    "a list": _json([1]),
    "a number": _json(7),
    "deep": (200, DEEP, {}),
    "a number without end": (200, b'{"choices": ' + b"9" * 10**6 + b"}", {}),
    "no choices": _json({"choices": []}),
    "choices as a text": _json({"choices": "x"}),
    "choices of numbers": _json({"choices": [1]}),
    "no message": _says(),
    "a message as a text": _says(message="x"),
    "content as a number": _says(message={"content": 7}),
    "content as parts": _says(message={"content": [{"type": "text", "text": "x"}]}),
    "content of 80 MB": (200, b'{"choices":[{"message":{"content":"' + b"x" * (80 << 20), {}),
    "a surrogate": (200, b'{"choices": [{"message": {"content": "\\ud800"}}]}', {}),
    "a NUL": _says(message={"content": "<answer>\0</answer>"}),
    "colours": _says(message={"content": "\x1b[31m[bold][/nope]<answer>=1+1</answer>"}),
    "markup": _says(message={"content": "<script>alert(1)</script>[/x]"}),
    "a formula": _says(message={"content": "<answer>=HYPERLINK(1)</answer>"}),
    "boxes without end": _says(message={"content": "\\boxed{" * 20_000}),
    "options without end": _says(message={"content": "(A) (B) (C) " * 20_000}),
    "a power tower": _says(message={"content": "<answer>" + "9^" * 200 + "9</answer>"}),
    "the key": _says(message={"content": f"<answer>{KEY}</answer> VERDICT: wrong"}),
    "the key in pieces": (
        200,
        json.dumps({"choices": [{"message": {"content": KEY}}]}).replace("-", "\\u002d").encode(),
        {},
    ),
    "log-probabilities of none": _says(message={"content": "x"}, logprobs=[1]),
    "log-probabilities as texts": _says(
        message={"content": "x"}, logprobs={"content": [{"logprob": "low"}]}
    ),
    "not a number": (
        200,
        b'{"choices":[{"message":{"content":"x"},"logprobs":{"content":[{"logprob":NaN}]}}]}',
        {},
    ),
    "a finish as a list": _says(message={"content": "x"}, finish_reason=["stop"]),
    "an error in 200": _json({"error": {"message": f"{KEY}!"}}),
    "a refusal": _says(message={"refusal": [1]}),
    "400 with the key": (400, {"error": {"message": KEY, "param": [KEY]}}, {}),
    "400 of an odd kind": (400, {"error": [[KEY]]}, {}),
    "401": (401, {"error": KEY}, {}),
    "404": (404, b"\xff\xfe", {}),
    "418": (418, b"", {}),
    "429 for ever": (429, b"", {"Retry-After": "999999999999"}),
    "429 with an odd wait": (429, b"", {"Retry-After": "-1e9"}),
    "500 with markup": (500, b"[/red]" + KEY.encode(), {}),
    "a redirect": (302, b"", {"Location": f"http://{KEY}@127.0.0.1:1/"}),
    "gzip that is none": (200, b"no", {"Content-Encoding": "gzip"}),
    "a bomb": (200, gzip.compress(b" " * (200 << 20)), {"Content-Encoding": "gzip"}),
    "an odd charset": (200, b"\xff", {"Content-Type": "application/json; charset=klingon"}),
    "a header of the key": (200, b"{}", {"X-Key": KEY}),
    "cut off": _cut_off,
    "no HTTP": _no_http,
    "headers without end": _endless_headers,
    "hung up": _hang_up,
    "a dribble": _dribble,
    "silence": _silence,
}
VECTORS: dict[str, Reply] = {
    "none": _json({"data": []}),
    "one": _json({"data": [{"index": 0, "embedding": [1.0]}]}),
    "of nothing": _json({"data": [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}]}),
    "of texts": _json({"data": [{"index": 0, "embedding": ["a"]}]}),
    "not numbers": (200, b'{"data": [{"index": 0, "embedding": [NaN, Infinity]}]}', {}),
    "huge numbers": _json({"data": [{"index": 0, "embedding": [1e308, 1e308]}]}),
    "an index outside": _json({"data": [{"index": 10**9, "embedding": [1.0]}]}),
    "data as a text": _json({"data": "x"}),
    "the key": _json({"data": [{"index": 0, "embedding": [KEY]}]}),
}
KEYS = {
    "two lines": f"{KEY}\nX-Other: 1",
    "a bell": f"{KEY}\a",
    "a space": f"sk {SECRET}",
    "an accent": f"{KEY}é",
    "a NUL's picture": f"{KEY}\x01",
    "delete": f"{KEY}\x7f",
    "no breaking space": f"{KEY}\xa0x",
    "half a surrogate": f"{KEY}\udc80",
    "a tab": f"sk\t{SECRET}",
}
ADDRESSES = (
    f"http://me:{SECRET}@127.0.0.1:9/v1",
    f"http://{SECRET}@127.0.0.1:9/v1",
    f"https://127.0.0.1:9/v1?key={SECRET}",
    f"https://127.0.0.1:9/v1#{SECRET}",
    f"https://127.0.0.1:9/v1;{SECRET}",
    f"https:me:{SECRET}@127.0.0.1",
    f"ftp://{SECRET}@127.0.0.1/",
    f"//me:{SECRET}@127.0.0.1/v1",
    f"http://me:a/{SECRET}@127.0.0.1/v1",
    "http://",
    "http://:80",
    "http://a:99999/v1",
    "http://a:x/v1",
    "http://[::1",
    "http://a b/v1",
    "http://a\nb/v1",
    "http://a\0/v1",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "",
    " ",
    "localhost:8000",
    "http://\u0430pple.invalid:1/v1",
    "http://" + "a" * 5000 + "/v1",
)


def _random_reply(rng: Random) -> Reply:
    """A reply of the right names with drawn values."""

    def value(depth: int) -> object:
        leaves = [None, True, 0, -1.5, "x", KEY, 10**30, ""]
        if depth > 3 or rng.random() < 0.3:
            return rng.choice(leaves)
        names = ["choices", "message", "content", "logprobs", "error", "finish_reason", "refusal"]
        if rng.random() < 0.4:
            return [value(depth + 1) for _ in range(rng.randrange(3))]
        return {name: value(depth + 1) for name in rng.sample(names, rng.randrange(1, 5))}

    return rng.choice([200, 200, 200, 400, 500]), value(0), {}
