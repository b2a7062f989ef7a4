"""Bounds by name: read from the line, named in the row's error, part of what a run is known by."""

import json

import pytest

from franken import bounds
from franken.bounds import BOUNDS, bounded, limit, said
from franken.cli import run_command
from franken.errors import UsageError
from franken.runs import load_run
from franken.tasks.graders import mathematics


def test_a_bound_holds_inside_its_block_and_blocks_nest(monkeypatch):
    monkeypatch.delenv(bounds.VARIABLE, raising=False)
    assert limit("reply_mib") == BOUNDS["reply_mib"].default
    assert bounds.identity() == {}
    with bounded(["reply_mib=2"]), bounded(["prompt_tokens=9"]):
        assert (limit("reply_mib"), limit("prompt_tokens")) == (2, 9)
        assert said("prompt_tokens") == "prompt_tokens=9"
        assert bounds.identity() == {"bounds": {"prompt_tokens": 9, "reply_mib": 2}}
    assert bounds.identity() == {}


@pytest.mark.parametrize(
    "text",
    ["reply_mib", "reply_mib=", "reply_mib=x", "reply_mib=0", "reply_mib=-1"]
    + ["reply_mib=nan", "reply_mib=inf", "reply_mib=1e999", "replies=3", "=", "reply_mib=1=2"],
)
def test_what_is_no_bound_is_refused(text, capsys):
    with pytest.raises(UsageError), bounded([text]):
        pass
    assert run_command(["doctor", "--bound", text], False) == 2
    assert "error: " in capsys.readouterr().err


def test_a_bound_without_a_value(capsys):
    assert run_command(["doctor", "--bound"], False) == 2
    assert "NAME=NUMBER" in capsys.readouterr().err


def test_a_prompt_that_is_too_long_is_its_rows_error(tmp_path, capsys):
    rows = [{"question": q, "answer": "1"} for q in ("short?", "long " * 300)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["eval", "creature:sft", "--data", str(tmp_path / "t.jsonl"), "--arms", "blind"]
    line += [
        "--n",
        "1",
        "--k",
        "1",
        "--max-new-tokens",
        "2",
        "--no-compare",
        "--out",
        str(tmp_path),
    ]
    assert run_command([*line, "--bound", "prompt_tokens=200", "--json"], False) == 3
    (folder,) = json.loads(capsys.readouterr().out)["runs"]
    run = load_run(folder)
    assert run.manifest.model_dump()["identity"]["bounds"] == {"prompt_tokens": 200}
    errors = run.samples.groupby("sample")["error"].agg(lambda found: set(found.dropna()))
    assert errors["t-0"] == set()
    assert any("more than prompt_tokens=200" in error for error in errors["t-1"])


def test_the_graders_bound_is_named(monkeypatch):
    monkeypatch.setattr(mathematics._Helper, "ask", lambda *_: None)
    with bounded(["grader_seconds=0.2"]):
        same, why = mathematics.is_same("x^2+1", "x+1")
    assert not same
    assert "grader_seconds=0.2" in why
