"""`franken eval` with engines other than the native one: hosted models beside checkpoints, and what
is refused.
"""

import json

import pytest
from endpoint_stub import serving

from franken.cli import run_command
from franken.errors import UsageError
from franken.evaluate.run import Graft, run_eval
from franken.runs import load_run

OPTIONS = {"tasks": ["count"], "samples": 3, "n": 2, "k": [1, 2], "max_new_tokens": 24}


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving() as server:
        server.choice = {"message": {"content": "<think> total 4</think><answer> 4</answer>"}}
        yield server


def test_a_hosted_model_is_a_subject_beside_a_checkpoint(stub, tmp_path):
    models = ["openai:some/model", "creature:sft"]
    hosted, local = run_eval(
        models, endpoint=stub.endpoint + "/", arms="image,blind", out=tmp_path, **OPTIONS
    )
    run, own = load_run(hosted), load_run(local)
    assert len(run.samples) == len(own.samples) == 2 * 3 * 3
    assert run.samples["output"].str.contains("answer").all()
    assert (run.manifest.n_failed, run.manifest.config.engine) == (0, "openai")
    assert run.manifest.identity.endpoint == stub.endpoint
    assert {len(b["messages"][0]["content"]) for b in stub.asked} == {1, 2}
    assert {b["model"] for b in stub.asked} == {"some/model"}
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or b"sk-secret" not in file.read_bytes()


def test_what_was_answered_is_not_asked_again(stub, tmp_path):
    options = {**OPTIONS, "endpoint": stub.endpoint, "out": tmp_path}
    (first,) = run_eval(["openai:m"], **options)
    asked = len(stub.asked)
    assert run_eval(["openai:m"], **options) == [first]
    run_eval(["openai:m"], **{**options, "n": 3})
    assert asked == 9
    assert len(stub.asked) == asked + 3


def test_what_an_endpoint_refuses_is_a_failed_row(stub, tmp_path):
    stub.faults = [(400, {"error": {"message": "no images here"}}, {})]
    (folder,) = run_eval(["openai:m"], endpoint=stub.endpoint, out=tmp_path, **OPTIONS)
    samples = load_run(folder).samples
    assert len(samples) == 9
    assert samples["error"].dropna().tolist() == ["HTTP 400: no images here"]
    assert samples[samples["error"].notna()]["output"].isna().all()
    assert load_run(folder).manifest.n_failed == 1


@pytest.mark.parametrize(
    ("models", "options"),
    [
        (["creature:sft"], {"engine": "vlm"}),
        (["openai:m"], {}),
        (["openai:"], {"endpoint": "http://localhost/v1"}),
        (["creature:sft"], {"endpoint": "http://localhost/v1"}),
        (["openai:m"], {"endpoint": "http://me:secret@localhost/v1"}),
    ],
)
def test_engines_that_cannot_be(models, options, tmp_path):
    with pytest.raises(UsageError):
        run_eval(models, out=tmp_path, **OPTIONS, **options)
    assert not list(tmp_path.iterdir())


def test_hybrids_are_native(stub, tmp_path):
    grafts = [Graft("g", "creature:sft", "0-2")]
    with pytest.raises(UsageError, match="hybrid"):
        run_eval(["openai:m"], endpoint=stub.endpoint, grafts=grafts, out=tmp_path, **OPTIONS)


def test_the_command_line_asks_an_endpoint(stub, tmp_path, capsys):
    words = [
        "eval",
        "m",
        "--engine",
        "openai",
        "--endpoint",
        stub.endpoint,
        "--tasks",
        "count",
        "--samples",
        "2",
        "--n",
        "2",
    ]
    code = run_command([*words, "--k", "1,2", "--out", str(tmp_path), "--json"], debug=True)
    printed = capsys.readouterr().out
    assert code == 0
    json.loads(printed)
    assert len(stub.asked) == 6
    assert (
        run_command(
            [*words, "--k", "1", "--out", str(tmp_path / "dry"), "--dry-run", "--json"], debug=True
        )
        == 0
    )
    assert len(stub.asked) == 6
    assert not (tmp_path / "dry").exists()
