"""`franken grade`: one reply, explained."""

import json

from franken.cli import run_command


def test_a_verdict_is_explained(capsys):
    assert (
        run_command(["grade", "--gold", "5", "--reply", "2 and 3.\nThe answer is five."], False)
        == 0
    )
    printed = capsys.readouterr().out
    assert "verdict: right (1)" in printed
    assert "type: integer (inferred)" in printed
    assert "found in: mark" in printed
    assert "extracted: five." in printed
    assert "compared by: numeral, exact" in printed


def test_a_refusal_says_why(capsys):
    assert run_command(["grade", "--gold", "5", "--reply", "at least 5"], False) == 0
    printed = capsys.readouterr().out
    assert "verdict: wrong (0)" in printed
    assert "what stands beside it changes the number" in printed


def test_json_is_one_object(capsys):
    line = [
        "grade",
        "--gold",
        "B",
        "--reply",
        "B, it has whiskers",
        "--options",
        "dog|cat",
        "--json",
    ]
    assert run_command(line, False) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["score"], content["read"], content["answer_type"]) == (1.0, "B", "option")


def test_replies_are_printed_inert(capsys):
    reply = "[bold]x[/bold] \x1b]0;title\x07 \u202e"
    assert run_command(["grade", "--gold", "red", "--reply", reply], False) == 0
    printed = capsys.readouterr().out
    assert "[bold]x[/bold]" in printed
    assert not {"\x1b", "\x07", "\u202e"} & set(printed)


def test_a_reply_may_stand_in_a_file(tmp_path, capsys):
    (tmp_path / "reply.txt").write_text("<think>3 + 4</think>\n7")
    assert run_command(["grade", "--gold", "7", "--reply", f"@{tmp_path}/reply.txt"], False) == 0
    assert "verdict: right" in capsys.readouterr().out


def test_usage(capsys):
    assert run_command(["grade", "--gold", "red", "--reply", "7", "--type", "integer"], False) == 2
    assert run_command(["grade", "--gold", "7", "--reply", "7", "--type", "integr"], False) == 2
    assert "integer" in capsys.readouterr().err
    assert run_command(["grade", "--gold", "7", "--reply", "@nowhere"], False) == 2
