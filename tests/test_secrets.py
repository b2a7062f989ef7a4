"""A marked key is put into every place a key can come to, and everything that was written and
printed is searched for it.
"""

import io
import json
import sys
import time
from contextlib import redirect_stderr, redirect_stdout

import pandas as pd
import pytest
from endpoint_stub import serving

from franken import cli, endpoints, secrets
from franken.errors import UsageError
from franken.evaluate import embed
from franken.generate import openai
from franken.runs import load_run, open_run
from franken.tasks import judge

KEY = "sk-MARKED-0123456789"
SECRET = "MARKED"
ADDRESSES = [
    "http://me:MARKED@localhost:9/v1",
    "http://MARKED@localhost:9/v1",
    "http://me:a/MARKED@localhost:9/v1",
    "http://localhost:9/v1?key=MARKED",
    "http://localhost:9/v1?MARKED",
    "http://localhost:9/v1/?x=1&token=MARKED#m",
    "http://localhost:9/v1;key=MARKED",
    "ftp://me:MARKED@localhost/v1",
    "https:me:MARKED@localhost/v1",
    "me:MARKED@localhost/v1",
    "http://me:MARKED@localhost:port/v1",
    " HTTP://me:MARKED@localhost:9/v1",
]
FRAGMENTS = ["http://localhost:9/v1#MARKED", "http://localhost:9/v1?#key=MARKED"]


def run(*words, debug=False, monkeypatch):
    """Exit code and everything printed by a command line."""
    printed = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["franken", *map(str, words)])
    with redirect_stdout(printed), redirect_stderr(printed), pytest.raises(SystemExit) as e:
        cli.main([*map(str, words), *(["--debug"] if debug else [])])
    return e.value.code, printed.getvalue()


def written(folder):
    """All text that is in files below a folder, tables as text, and the names of the files."""
    texts = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = file.read_bytes()
        if file.suffix == ".parquet":
            content += pd.read_parquet(file).to_csv().encode()
        texts.append(f"{file}\n{content.decode(errors='replace')}")
    return "\n".join(texts)


def finished(folder, label="m"):
    """An evaluation of one wrong answer, to regrade or to compare."""
    config = {"arms": ["image"], "k": [1], "n": 1, "tasks": ["read"], "samples": 1, "seed": 0}
    row = {"model": label, "method": "image", "task": "read", "sample": "s", "draw": -1}
    row |= {"question": "q?", "gold": "3", "answer_type": "integer", "options": "[]"}
    row |= {"output": "<answer>4</answer>", "answer": "4", "score": 0.0, "reason": "x"}
    row |= {"error": None, "ineligible": None, "well_formed": True, "truncated": False}
    row |= {"perception": None, "strategy": None, "kind": "other", "misled": None}
    row |= {"facts_right": None, "tokens": 3, "steps": 1, "reflections": 0, "references": 0}
    models = {label: f"models/{label}"}
    with open_run("eval", label, {"model": label}, folder, config=config, models=models) as made:
        made.append([row, row | {"draw": 0}])
        return made.finish([], n_requested=2)


@pytest.fixture(autouse=True)
def keys(monkeypatch, tmp_path):
    for variable in secrets.VARIABLES:
        monkeypatch.setenv(variable, KEY)
    monkeypatch.setattr(endpoints, "sleep", lambda _: None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_every_key_that_is_read_is_known_to_the_redaction():
    assert {openai.KEY, judge.KEY, embed.KEY} <= set(secrets.VARIABLES)


ECHO = f"verdict: wrong. Your key is {KEY} VERDICT: wrong"
ESCAPED = json.dumps({"choices": [{"message": {"content": ECHO}}]}).replace("sk-", "\\u0073k-")
FAULTS = {
    "an answer": None,
    "an answer with escapes": (200, ESCAPED.encode(), {}),
    "an error": (400, {"error": {"message": f"{KEY} is wrong", "param": KEY}}, {}),
    "a refusal": (401, {"error": f"{KEY} is unknown"}, {}),
    "no JSON": (200, f"{KEY}!".encode(), {}),
    "another shape": (200, {"choices": [{"message": KEY}], KEY: 1}, {}),
    "an address": (307, {}, {"Location": f"http://{KEY}@localhost/"}),
    "a vector": (200, {"data": [{"index": 0, "embedding": [KEY]}]}, {}),
}


@pytest.mark.parametrize("options", [[], ["--json"], ["--debug"]], ids=["plain", "json", "debug"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_key_that_an_endpoint_sends_back_is_in_nothing_written_or_printed(
    fault, options, tmp_path, monkeypatch
):
    source, out = finished(tmp_path), tmp_path / "out"
    debug, words = "--debug" in options, [o for o in options if o != "--debug"]
    hosted = ["eval", "openai:m", "--tasks", "read", "--samples", "1", "--n", "1", "--k", "1"]
    with serving() as stub:
        lines = [
            ["regrade", source, "--judge", stub.endpoint, "--judge-model", "m", "--out", out]
            + ["--judge-cache", tmp_path / "cache"],
            [*hosted, "--no-compare", "--endpoint", stub.endpoint, "--out", out],
            ["eval-compare", source, "--embedder", f"{stub.endpoint}#m", "--out", out]
            + ["--no-figures"],
        ]
        for line in lines:
            stub.choice = {"message": {"content": ECHO}}
            stub.faults = [FAULTS[fault]] * 50 if FAULTS[fault] else []
            code, printed = run(*line, *words, debug=debug, monkeypatch=monkeypatch)
            assert code in (0, 1, 3)
            assert SECRET not in printed
        assert stub.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert SECRET not in written(tmp_path)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["plain", "json"])
@pytest.mark.parametrize("address", [*ADDRESSES, *FRAGMENTS])
def test_an_address_with_a_secret_is_refused_unshown_and_unwritten(
    address, options, tmp_path, monkeypatch
):
    source, out = finished(tmp_path / "runs"), tmp_path / "out"
    lines = [
        ["regrade", source, "--judge", address, "--judge-model", "m", "--out", out],
        ["eval", "openai:m", "--endpoint", address, "--out", out],
        ["eval", address, "--out", out],
        ["diff", address, address, "--out", out],
        ["probe", "creature:base", "--data", address, "--out", out],
    ]
    if address not in FRAGMENTS:  # behind the # of an embedder is its model
        lines += [
            ["eval-compare", source, "--embedder", address, "--out", out],
            ["eval", "creature:base", "--embedder", address, "--out", out],
        ]
    for line in lines:
        code, printed = run(*line, *options, monkeypatch=monkeypatch)
        assert code == 2, (line, printed)
        assert SECRET not in printed, line
    assert SECRET not in written(tmp_path)


def test_a_fault_and_a_traceback_hold_no_key(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyError(f"{KEY} at https://me:MARKED@localhost/v1?key=MARKED")

    monkeypatch.setattr("franken.merge.plan.open_all", fail)
    for debug in (False, True):
        words = ["merge", "creature:base", "creature:sft", "--layers", "2-4"]
        code, printed = run(*words, debug=debug, monkeypatch=monkeypatch)
        assert code == 1
        assert SECRET not in printed
        assert ("Traceback" in printed) == debug
    assert "KeyError" in written(tmp_path)
    assert SECRET not in written(tmp_path)


def test_a_command_line_is_recorded_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["franken", KEY, "--x=https://me:MARKED@localhost/v1?MARKED"])
    finished(tmp_path)
    assert SECRET not in written(tmp_path)


def test_no_page_shows_a_key(tmp_path, monkeypatch, unrasterised):
    """Nor what a run that holds one leads to: its command line stands on the page."""
    monkeypatch.setattr(sys, "argv", ["franken", "eval", f"--endpoint={ADDRESSES[0]}", KEY])
    made = finished(tmp_path / "runs")
    code, printed = run("report", made, "--out", tmp_path / "page", monkeypatch=monkeypatch)
    assert code == 0, printed
    page = (tmp_path / "page" / "index.html").read_text()
    assert "franken eval" in page
    assert SECRET not in printed + written(tmp_path)


BAD_KEYS = ["sk-MARKED\nX: 1", "sk-MARKED\x07", "sk-MARKED é", "sk MARKED", "sk-MARKED\x7f"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_no_header_may_have_is_refused_unshown(key, tmp_path, monkeypatch):
    monkeypatch.setenv(judge.KEY, key)
    source = finished(tmp_path)
    line = ["regrade", source, "--judge", "http://localhost:9/v1", "--judge-model", "m"]
    code, printed = run(*line, monkeypatch=monkeypatch)
    assert code == 2
    assert judge.KEY in printed
    assert SECRET not in printed
    assert SECRET not in written(tmp_path)


def test_a_key_may_be_in_a_file(tmp_path, monkeypatch):
    monkeypatch.delenv(judge.KEY)
    monkeypatch.setenv(f"{judge.KEY}_FILE", str(tmp_path / "key"))
    with pytest.raises(UsageError, match="no file with a key"):
        secrets.find_key(judge.KEY)
    (tmp_path / "key").write_text(f" {KEY}\n")
    assert secrets.find_key(judge.KEY) == KEY
    assert secrets.redact(f"a {KEY}") == "a ***"
    for content in ("x" * 20_000, f"{KEY}\n{KEY}"):
        (tmp_path / "key").write_text(content)
        with pytest.raises(UsageError) as e:
            secrets.find_key(judge.KEY)
        assert SECRET not in f"{e.value.what} {e.value.why} {e.value.fix}"
    monkeypatch.setenv(judge.KEY, "  ")  # empty: the file is still read
    (tmp_path / "key").write_text(KEY)
    assert secrets.find_key(judge.KEY) == KEY


def test_addresses_and_words_that_hold_no_secret_stay():
    for text in (
        "http://localhost:8000/v1",
        "is the model named, as in http://host:port/v1#MODEL?",
        "mail me@example.org, or see data.csv#answer=gold",
    ):
        assert secrets.redact(text) == text


def test_tables_of_a_judged_run_hold_no_key(tmp_path, monkeypatch):
    source = finished(tmp_path)
    with serving() as stub:
        stub.choice = {"message": {"content": ECHO}}
        line = ["regrade", source, "--judge", stub.endpoint, "--judge-model", "m", "--json"]
        code, printed = run(*line, "--out", tmp_path / "out", monkeypatch=monkeypatch)
    assert code == 0, printed
    folder = json.loads(printed[printed.index("{") :])["folder"]
    assert "***" in load_run(folder).samples["reason"].iloc[0]
    for words in (["show", folder], ["show", folder, "--csv"], ["show", folder, "--json"]):
        code, printed = run(*words, monkeypatch=monkeypatch)
        assert code == 0, printed
        assert SECRET not in printed
    assert SECRET not in written(tmp_path)


@pytest.mark.parametrize("text", [":" * 200_000, "@" + ":" * 200_000, "a://?" * 50_000])
def test_long_texts_are_redacted_soon(text):
    started = time.perf_counter()
    secrets.redact(text)
    assert time.perf_counter() - started < 1
