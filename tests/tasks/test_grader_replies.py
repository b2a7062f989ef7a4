"""Replies of every type, each with the score that a careful person would give.

`data/grader_replies.txt` has a line `sign | type | gold | reply` for each: `+` must score 1, `-` 0;
the type `.` is to be inferred; `⏎` is a new line. A line `== options: …` begins a part of options.
"""

from pathlib import Path

import pytest

from franken.tasks.grading import judge_reply

TABLE = Path(__file__).parent / "data" / "grader_replies.txt"
OPTIONS = "== options: "


def cases():
    options = ()
    for line in TABLE.read_text("utf-8").splitlines():
        if line.startswith("=="):
            options = tuple(line.removeprefix(OPTIONS).split(", ")) if OPTIONS in line else ()
            continue
        sign, kind, gold, reply = (part.strip(" ") for part in line.split(" | ", 3))
        reply = reply.replace("⏎", "\n")
        yield pytest.param(float(sign == "+"), kind.strip("."), gold, reply, options, id=line)


@pytest.mark.parametrize(("score", "kind", "gold", "reply", "options"), cases())
def test_reply(score, kind, gold, reply, options):
    judgement = judge_reply(reply, gold, kind, options)
    assert judgement.score == score, judgement
    assert judgement.reason
