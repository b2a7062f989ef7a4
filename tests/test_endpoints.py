"""The one client for endpoints: keys, retries, sizes, replies of every wrong kind, the cache."""

import gzip
import json
from contextlib import suppress
from time import sleep

import pytest
from endpoint_stub import serving
from hypothesis import given, settings
from hypothesis import strategies as st

from franken import endpoints
from franken.endpoints import Cache, Completion, Endpoint, RequestFailed, Unusable, check_endpoint
from franken.errors import FrankenError, UsageError

KEY = "FRANKEN_TEST_KEY"
BODY = {"model": "m", "messages": [{"content": [{"text": "q"}]}], "max_tokens": 5}


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The seconds that would have been waited."""
    seconds = []
    monkeypatch.setattr(endpoints, "sleep", seconds.append)
    return seconds


def complete(stub, **options):
    with Endpoint(stub.endpoint, KEY, **options).client() as client:
        return client.complete(BODY)


def test_waits_double_unless_the_server_names_one(stub, waits):
    stub.faults = [(503, {}, {}), (503, {}, {}), (429, {}, {"Retry-After": "7"})]
    stub.faults += [(429, {}, {"Retry-After": "9999"}), (500, {}, {"Retry-After": "Wed, 1 Jan"})]
    assert complete(stub).choices[0].message.content == "q greedy "
    assert 1 <= waits[0] <= 1.25
    assert 2 <= waits[1] <= 2.5
    assert waits[2:4] == [7, endpoints.LONGEST_WAIT]
    assert 16 <= waits[4] <= 20


def test_a_key_is_stripped_sent_and_never_shown(stub, monkeypatch):
    monkeypatch.setenv(KEY, " sk-secret\n")
    stub.faults = [(400, {"error": {"message": "bad key:\n sk-secret"}}, {})]
    with pytest.raises(RequestFailed) as caught:
        complete(stub)
    assert caught.value.what == "HTTP 400: bad key: ***"
    assert stub.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in repr(Endpoint(stub.endpoint, KEY))
    monkeypatch.setenv(KEY, "sk-secret\nX-Other: 1")
    with pytest.raises(UsageError, match=KEY) as refused:
        complete(stub)
    assert "sk-secret" not in f"{refused.value} {refused.value.why} {refused.value.fix}"


@pytest.mark.parametrize("address", ["ftp://me:pw@a/v1", "https://me:pw@a:b/v1", "x?key=pw"])
def test_a_wrong_address_is_shown_without_its_secret(address):
    with pytest.raises(UsageError) as caught:
        check_endpoint(address)
    assert "pw" not in f"{caught.value} {caught.value.why} {caught.value.fix}"


@pytest.mark.parametrize("address", [f"http://{'a' * 500}/v1", "http://a..b/v1", "http://a:0/v1"])
def test_an_address_that_nobody_can_look_up(address):
    with pytest.raises(UsageError, match="not an address"):
        check_endpoint(address)


def test_an_answer_ends_in_time(stub, waits):
    def dribble(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            sleep(0.02)

    stub.misbehave = dribble
    with pytest.raises(RequestFailed, match=r"no answer within 0\.3 s \(answer_seconds=0\.3\)"):
        complete(stub, timeout=0.3, retries=0)


def test_nobody_is_followed_to_another_address(stub):
    with serving() as other:
        stub.faults = [(307, {}, {"Location": f"{other.endpoint}/chat/completions"})]
        with pytest.raises(RequestFailed, match="HTTP 307"):
            complete(stub)
        assert not other.asked


def test_a_reply_has_a_largest_size(stub, monkeypatch):
    monkeypatch.setenv("FRANKEN_BOUNDS", "reply_mib=1")
    bomb = gzip.compress(b" " * 10**8)
    stub.faults = [(200, b" " * (2**20 + 1), {}), (200, bomb, {"Content-Encoding": "gzip"})]
    for _ in range(2):
        with pytest.raises(RequestFailed, match="larger than reply_mib=1"):
            complete(stub)


@pytest.mark.parametrize(
    ("body", "headers", "error"),
    [
        (b"not gzip", {"Content-Encoding": "gzip"}, "cannot be decoded"),
        (b'{"choices": [{"message"', {}, "not JSON"),
        (b'{"choices": [{"message": {"content": "\\ud800"}}]}', {}, "not JSON"),
        ([], {}, "no chat completion"),
        ({"choices": None}, {}, "no chat completion"),
        ({"choices": [None]}, {}, "no chat completion"),
        ({"choices": [{"message": {"content": [{"text": "a"}]}}]}, {}, "content"),
        ({"choices": [{"message": {}, "logprobs": {"content": [{"token": "a"}]}}]}, {}, "logprob"),
        ({"choices": [{"message": {}, "logprobs": "none"}]}, {}, "logprobs"),
    ],
)
def test_a_malformed_reply_is_this_requests_error(stub, body, headers, error):
    stub.faults = [(200, body, headers)]
    with pytest.raises(RequestFailed, match=error):
        complete(stub)
    assert complete(stub).choices


@pytest.mark.parametrize("text", [b"", b"<html>no</html>", b"[1]", b'{"error": null}', b"\xff"])
def test_an_error_of_any_form_is_told(stub, text):
    stub.faults = [(403, text, {})]
    with pytest.raises(RequestFailed, match="HTTP 403: .+"):
        complete(stub)


def test_a_field_that_is_refused_for_good_is_an_error(stub):
    stub.faults = [(400, {"error": {"message": "no", "param": "max_tokens"}}, {})]
    stub.faults += [(400, {"error": {"message": "no", "param": "max_tokens"}}, {})]
    with pytest.raises(RequestFailed, match="HTTP 400: no"):
        complete(stub)
    assert [sorted(asked)[:2] for asked in stub.asked] == [
        ["max_tokens", "messages"],
        ["max_completion_tokens", "messages"],
    ]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ([{"index": 0, "embedding": [1.0]}], "1 vectors came back for 2 texts"),
        ([{"index": 0, "embedding": [1.0]}] * 2, "2 vectors came back"),
        ([{"index": i, "embedding": [1.0] * (i + 1)} for i in (0, 1)], "differ in length"),
        ([{"index": 0}], "no list of embeddings"),
        ([{"index": i, "embedding": "1.0"} for i in (0, 1)], "no list of embeddings"),
    ],
)
def test_embeddings_that_are_none(stub, data, error):
    stub.faults = [(200, {"data": data}, {})]
    endpoint = Endpoint(stub.endpoint, KEY)
    with pytest.raises(RequestFailed, match=error), endpoint.client() as client:
        client.embed("m", ["a", "b"])


def test_nobody_there_and_no_model(stub):
    stub.faults = [(404, {"error": {"message": "no model m"}}, {})]
    with pytest.raises(Unusable, match="refuses: HTTP 404: no model m"):
        complete(stub)
    nobody = Endpoint("http://127.0.0.1:9/v1", KEY, retries=1)
    with pytest.raises(Unusable, match="cannot be reached"), nobody.client() as client:
        client.complete(BODY)
    assert issubclass(Unusable, FrankenError)


def test_answers_are_kept_and_broken_ones_asked_again(stub, tmp_path):
    cache, answer = Cache(tmp_path), complete(stub)
    assert cache.get("ab12", Completion) is None
    cache.put("ab12", answer)
    assert cache.get("ab12", Completion) == answer
    (tmp_path / "ab" / "ab12.json").write_text('{"choices": [')
    assert cache.get("ab12", Completion) is None
    Cache(None).put("ab12", answer)
    assert Cache(None).get("ab12", Completion) is None


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NAMES = st.sampled_from(
    ["choices", "message", "content", "logprobs", "error", "param", "data", "x"]
)
REPLIES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.binary(max_size=60) | REPLIES.map(lambda reply: json.dumps(reply).encode()))
def test_any_reply_is_typed_or_this_request_failed(content):
    with suppress(RequestFailed):
        assert Endpoint("http://localhost/v1", KEY).parsed(content, Completion).choices
    message, param = endpoints._complaint(content)
    assert isinstance(message, str)
    assert param is None or isinstance(param, str)
