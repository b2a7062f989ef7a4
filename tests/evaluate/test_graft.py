"""Hybrids on the command line: read, evaluated in memory, and the same as in Python."""

import json

import pytest

from franken.cli import run_command
from franken.errors import UsageError
from franken.evaluate.graft import Graft, parse_graft
from franken.evaluate.run import run_eval
from franken.models import creature
from franken.runs import load_run

ASKED = ["--tasks", "recognise", "--samples", "2", "--n", "2", "--k", "1", "--device", "cpu"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a=runs/rl:16-28", [("runs/rl", "text:16-28")]),
        ("a=creature:sft:late", [("creature:sft", "text:late")]),
        ("SFT:RL:RL=rl:text:2-5,text:6-8", [("rl", "text:2-5,text:6-8")]),
        (
            "a=one+two/rl:0-2,5+creature:rl:vision:all",
            [("one+two/rl", "text:0-2,5"), ("creature:rl", "vision:all")],
        ),
    ],
)
def test_hybrids_as_they_are_written(text, parts):
    hybrid = parse_graft(text)
    assert hybrid.label == text.partition("=")[0]
    assert list(hybrid.parts) == parts


@pytest.mark.parametrize("text", ["nothing", "=a:1-2", "mine=1-2", "mine=a:1-2+3-4", "m=a:1-2+"])
def test_what_is_no_hybrid(text):
    with pytest.raises(UsageError, match="cannot read the hybrid"):
        parse_graft(text)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("creatures")
    for seed, name in enumerate(("one", "two")):
        creature.save(creature.build_model(seed), root / name)
    return [str(root / name) for name in ("one", "two")]


def test_a_hybrid_of_the_command_line_is_the_one_of_python(models, tmp_path, capsys):
    one, two = models
    command = ["eval", one, "--graft", f"late={two}:5-8", *ASKED, "--max-new-tokens", "4"]
    out = ["--out", str(tmp_path / "cli"), "--no-compare", "--json"]
    assert run_command([*command, *out], debug=True) == 0
    (folder,) = json.loads(capsys.readouterr().out)["runs"]
    (expected,) = run_eval(
        [one],
        grafts=[Graft("late", two, "text:5-8")],
        tasks=["recognise"],
        samples=2,
        n=2,
        k=[1],
        max_new_tokens=4,
        device="cpu",
        out=tmp_path / "python",
    )
    ours, theirs = load_run(folder), load_run(expected)
    assert ours.folder.name == theirs.folder.name
    assert ours.samples["output"].tolist() == theirs.samples["output"].tolist()
    assert not (tmp_path / "cli" / "compare").exists()
    assert run_command([*command, "--dry-run", "--json"], debug=True) == 0
    assert json.loads(capsys.readouterr().out)["answers"] == 2 * 3
    with pytest.raises(UsageError, match="--graft goes with one model"):
        run_command(["eval", one, two, *command[2:]], debug=True)


def test_evaluations_that_exist_are_compared_and_scored(models, tmp_path, capsys):
    arms = ["--arms", "image,text,black,black-text"]
    out = ["--out", str(tmp_path), "--json"]
    options = [*ASKED, *arms, "--max-new-tokens", "4", "--no-compare"]
    runs = []
    for label, graft in (("sft", []), ("rl", []), ("mixed", [f"mixed={models[1]}:0-2"])):
        named = ["--graft", *graft] if graft else ["--label", label]
        path = models[label == "rl"]
        assert run_command(["eval", path, *named, *options, *out], debug=True) == 0
        runs += json.loads(capsys.readouterr().out)["runs"]
    assert run_command(["eval-compare", *runs, "--no-figures", *out], debug=True) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["manifest"]["config"]["models"] == ["sft", "rl", "mixed"]
    command = ["m-scores", *runs, "--parent", "sft", "--donor", "rl", *out]
    assert run_command(command, debug=True) == 0
    rows = json.loads(capsys.readouterr().out)["layers"]
    gains = {(r["model"], r["method"]) for r in rows if r["metric"].startswith("gain")}
    assert gains == {("rl", "donor"), ("mixed", "hybrid")}
