"""The engine for endpoints, against a server of our own that keeps what it was asked."""

import base64
import io
import re

import numpy as np
import pytest
from endpoint_stub import serving
from PIL import Image

from franken.endpoints import Cache, Endpoint, check_endpoint
from franken.errors import FrankenError, UsageError
from franken.generate import Prompt, Sampling
from franken.generate.openai import KEY, OpenAI

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8))


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    with serving() as server:
        yield server


def engine(stub, workers=8, retries=2, cache=None):
    endpoint = Endpoint(stub.endpoint, KEY, retries, patience=0.01)
    return OpenAI("m", endpoint, Cache(cache), workers)


def test_what_is_asked(stub):
    prompt = Prompt("How many?", (PICTURE,), "key")
    reply = engine(stub).generate([prompt], Sampling(1, 0.7, 9, stop=("</answer>",)))[0][0]
    asked = stub.asked[0]
    image, text = asked["messages"][0]["content"]
    head, data = image["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    assert np.array_equal(
        np.array(Image.open(io.BytesIO(base64.b64decode(data)))), np.array(PICTURE)
    )
    assert text == {"type": "text", "text": "How many?"}
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("m", 0.7, 9)
    assert asked["stop"] == ["</answer>"]
    assert stub.headers[0]["path"] == "/v1/chat/completions"
    assert "Authorization" not in stub.headers[0]
    assert reply.text == f"How many? {asked['seed']}"
    assert (reply.logprobs, reply.finish, reply.ids) == ([-0.5], "stop", [])


def test_samples_have_the_seeds_of_separate_runs(stub):
    asked = [Prompt(f"q{i}", (), f"k{i}") for i in range(11)]
    together = engine(stub).generate(asked, Sampling(3, 1.0, 9, seed=4))
    assert len({r.text for row in together for r in row}) == 33
    for i in range(3):
        alone = engine(stub).generate(asked[::-1], Sampling(1, 1.0, 9, seed=4, first=i))[::-1]
        assert [row[0].text for row in alone] == [row[i].text for row in together]
    other = engine(stub).generate(asked, Sampling(3, 1.0, 9, seed=5))
    assert not {r.text for row in other for r in row} & {r.text for row in together for r in row}


def test_nothing_is_asked_twice(stub, tmp_path):
    asked = [Prompt(f"q{i}", (PICTURE,), f"k{i}") for i in range(5)]
    first = engine(stub, cache=tmp_path).generate(asked, Sampling(2))
    assert len(stub.asked) == 10
    heard = []
    again = engine(stub, cache=tmp_path).generate(asked, Sampling(3), on_batch=heard.append)
    assert [row[:2] for row in again] == first
    assert (len(stub.asked), sum(heard)) == (15, 5)
    changed = [Prompt("q0", (PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT),), "k0")]
    engine(stub, cache=tmp_path).generate(changed, Sampling(2))
    assert len(stub.asked) == 17
    engine(stub).generate(asked, Sampling(4, 0.0))
    assert len(stub.asked) == 22  # greedy samples are one request


def test_busy_endpoints_are_asked_again(stub, tmp_path):
    stub.faults = [(429, {}, {"Retry-After": "0"}), (503, b"busy", {})]
    assert (
        engine(stub, cache=tmp_path).generate([Prompt("q")], Sampling(1, 0.0))[0][0].text
        == "q greedy"
    )
    assert len(stub.asked) == 3


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (
            (500, {"error": {"message": "out of\nmemory"}}, {}),
            r"HTTP 500: out of memory \(3 attempts\)",
        ),
        ((400, {"error": {"message": "too long", "param": "messages"}}, {}), "HTTP 400: too long"),
        ((400, {"error": {"message": "no", "param": "temperature"}}, {}), "HTTP 400: no"),
        ((403, {"error": "flagged"}, {}), "HTTP 403: flagged"),
        ((200, b"<html>", {}), "the answer is not JSON"),
        ((200, {"choices": []}, {}), "the answer is no chat completion: choices: .*"),
        ((200, {"choices": [{"message": {"refusal": "I can't"}}]}, {}), "refused: I can't"),
        (
            (200, {"choices": [{"message": {}, "finish_reason": "content_filter"}]}, {}),
            "refused: content filter",
        ),
    ],
)
def test_a_request_that_fails_is_a_row_with_its_error(stub, tmp_path, fault, error):
    stub.faults = [fault] * (3 if fault[0] == 500 else 1)
    asked = [Prompt("bad"), Prompt("good")]
    bad, good = (
        row[0] for row in engine(stub, workers=1, cache=tmp_path).generate(asked, Sampling(1, 0.0))
    )
    assert bad.finish == "error"
    assert bad.text == ""
    assert re.fullmatch(error, bad.error)
    assert (good.error, good.text) == (None, "good greedy")
    if "refused" not in error:
        assert (
            engine(stub, cache=tmp_path).generate(asked, Sampling(1, 0.0))[0][0].text
            == "bad greedy"
        )


@pytest.mark.parametrize("status", [401, 402, 404])
def test_an_endpoint_that_knows_us_not_ends_the_run_without_saying_the_key(
    stub, monkeypatch, status
):
    monkeypatch.setenv(KEY, "sk-secret")
    stub.faults = [(status, {"error": {"message": "not sk-secret"}}, {})] * 3
    with pytest.raises(FrankenError) as caught:
        engine(stub).generate([Prompt(f"q{i}") for i in range(3)], Sampling())
    shown = " ".join([caught.value.what, caught.value.why, caught.value.fix, repr(engine(stub))])
    assert "sk-secret" not in shown
    assert "***" in shown
    assert stub.headers[0]["Authorization"] == "Bearer sk-secret"


def test_an_endpoint_that_is_not_there_ends_the_run():
    gone = OpenAI("m", Endpoint("http://127.0.0.1:9", KEY, retries=1, patience=0.01))
    with pytest.raises(FrankenError, match="cannot be reached"):
        gone.generate([Prompt("q")], Sampling())


def test_the_key_is_not_sent_in_the_open(monkeypatch):
    monkeypatch.setenv(KEY, "sk-secret")
    assert Endpoint("http://example.org/v1", KEY).headers() == {}
    bearer = {"Authorization": "Bearer sk-secret"}
    assert Endpoint("https://example.org/v1", KEY).headers() == bearer
    assert Endpoint("http://localhost:1/v1", KEY).headers() == bearer


def test_endpoints_that_want_other_words(stub, tmp_path):
    refusal = [
        (400, {"error": {"message": "unsupported", "param": p}}, {})
        for p in ("max_tokens", "seed", "logprobs")
    ]
    stub.faults = list(refusal)
    stub.choice = {"logprobs": None}
    ours = engine(stub, workers=1, retries=0, cache=tmp_path)
    row = ours.generate([Prompt("q")], Sampling(2, 1.0, 9))[0]
    assert [r.text for r in row] == ["q greedy"] * 2
    assert len(stub.asked) == 5  # learned once, three times over
    assert stub.asked[-1].keys() == {"model", "messages", "max_completion_tokens", "temperature"}
    assert len(list(tmp_path.rglob("*.json"))) == 2


def test_finish_and_reasoning(stub):
    stub.choice = {
        "message": {"content": "4", "reasoning_content": "2+2"},
        "finish_reason": "length",
    }
    reply = engine(stub).generate([Prompt("q")], Sampling())[0][0]
    assert (reply.text, reply.truncated, reply.finish) == ("<think>2+2</think>4", True, "length")


@pytest.mark.parametrize(
    "endpoint",
    [
        "localhost:8000/v1",
        "ftp://a/v1",
        "https://me:pw@a/v1",
        "https://a/v1?key=1",
        "http://a:b/v1",
        "",
    ],
)
def test_addresses_that_are_none(endpoint):
    with pytest.raises(UsageError):
        check_endpoint(endpoint)


def test_addresses_are_normalised():
    for written in ("http://a:1/v1", "http://a:1/v1/", "http://a:1/v1/chat/completions"):
        assert check_endpoint(written) == "http://a:1/v1"


def test_ids_are_refused(stub):
    with pytest.raises(UsageError):
        engine(stub).generate([Prompt("", ids=(1, 2))], Sampling())
    with pytest.raises(UsageError):
        engine(stub).generate([Prompt("q")], Sampling(stop_ids=(3,)))
