"""`franken tasks verify`: the shape of its JSON, and its exit codes."""

import json

from franken.cli import run_command

QUESTION = "Ann's event is going to start in 1 hour 40 minutes."


def row(answer: str, **solution: int) -> str:
    shown = {
        "image": f"images/clock/clock_{answer.replace(':', '')}.jpg",
        "question": QUESTION,
        "options": [],
    }
    return json.dumps({**shown, "answer": answer, "solution": solution})


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = run_command(["tasks", *(str(a) for a in arguments)], False)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_disagreement_is_data(capsys, tmp_path):
    now = {"current_hour": 2, "current_minute": 43}
    (tmp_path / "clock.json").write_text(row("4:23", **now) + "\n" + row("4:22", **now) + "\n")
    (tmp_path / "other.json").write_text("{}")
    code, out, _ = run(capsys, "verify", tmp_path, "--json")
    assert code == 0
    found = {
        "id": "clock_422",
        "published": "4:22",
        "ours": "4:23",
        "why": "2:43 +100 minutes is 4:23",
    }
    assert json.loads(out) == {"tasks": {"clock": {"rows": 2, "agree": 1, "disagree": [found]}}}
    code, out, _ = run(capsys, "verify", tmp_path)
    assert code == 0
    assert "clock_422: published '4:22', ours '4:23'" in out


def test_a_row_that_cannot_be_judged_exits_3(capsys, tmp_path):
    (tmp_path / "clock.json").write_text(row("4:23", current_hour=2) + "\n")
    code, out, _ = run(capsys, "verify", tmp_path, "--json")
    assert code == 3
    (found,) = json.loads(out)["tasks"]["clock"]["disagree"]
    assert found["ours"] is None
    assert "current_minute" in found["why"]
    assert "cannot be judged" in run(capsys, "verify", tmp_path)[1]


def test_a_folder_without_puzzles_is_a_usage_error(capsys, tmp_path):
    code, _, err = run(capsys, "verify", tmp_path / "nowhere", "--json")
    assert code == 2
    assert "no puzzle of the benchmark" in err
