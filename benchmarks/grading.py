"""How fast replies are graded: replies a CPU second, by the type of the answer.

    python benchmarks/grading.py [--seconds 1] [TYPE ...]

The replies are those of `tests/tasks/data/grader_replies.txt`: as they stand there, and each as a
trained model writes it, in `<answer>` behind 2 000 characters of reasoning. Mathematics is
remembered between replies; it is forgotten after every pass but in the last column. CPU time of
this process and of the helper that runs math-verify, which is started before; the best of three
rounds. Linux alone: the helper's time is read in `/proc`.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from franken.tasks.graders import mathematics
from franken.tasks.grading import ANSWER_TYPES, grade_typed

TABLE = Path(__file__).parents[1] / "tests" / "tasks" / "data" / "grader_replies.txt"
OPTIONS = "== options: "
REASONING = "I look at the rows of the grid one by one: 3 red, 4 blue. " * 35
TICKS = os.sysconf("SC_CLK_TCK")


class Case(NamedTuple):
    """A reply to be graded."""

    kind: str
    gold: str
    reply: str
    options: tuple[str, ...]


def main() -> int:
    """Print a Markdown table of the types."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", help="all by default")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of a round")
    options = parser.parse_args()
    grade_typed("\\sqrt{8}", "2\\sqrt{2}")  # starts the helper
    print("| type | replies | as they stand | behind reasoning | mathematics remembered |")
    print("|---|---|---|---|---|")
    for kind in options.types or ANSWER_TYPES:
        plain = [case for case in cases() if case.kind == kind]
        tagged = [
            case._replace(reply=f"<think>{REASONING}</think><answer>{case.reply}</answer>")
            for case in plain
            if "<" not in case.reply and "think>" not in case.reply
        ]
        columns = (
            best(plain, forget, options.seconds),
            best(tagged, forget, options.seconds),
            best(plain, lambda: None, options.seconds),
        )
        rates = " | ".join(f"{rate:,.0f}" for rate in columns)
        print(f"| {kind} | {len(plain)} | {rates} |", flush=True)
    return 0


def cases() -> Iterator[Case]:
    """The replies of the table, whose type it names."""
    options: tuple[str, ...] = ()
    for line in TABLE.read_text("utf-8").splitlines():
        if line.startswith("=="):
            options = tuple(line.removeprefix(OPTIONS).split(", ")) if OPTIONS in line else ()
            continue
        _, kind, gold, reply = (part.strip(" ") for part in line.split(" | ", 3))
        yield Case(kind, gold, reply.replace("⏎", "\n"), options)


def best(replies: list[Case], before: Callable[[], None], seconds: float) -> float:
    """Replies a CPU second, the best of three rounds; `before` runs before every pass."""
    return max(rate(replies, before, seconds) for _ in range(3))


def rate(replies: list[Case], before: Callable[[], None], seconds: float) -> float:
    """Replies graded for about `seconds` of CPU time, per second of it."""
    began, graded = cpu_time(), 0
    while (spent := cpu_time() - began) < seconds:
        before()
        for case in replies:
            grade_typed(case.reply, case.gold, case.kind, case.options)
        graded += len(replies)
    return graded / spent


def forget() -> None:
    """Let mathematics be worked out again."""
    mathematics._remembered.clear()


def cpu_time() -> float:
    """Seconds of this process and of the helper's present child."""
    helper = mathematics._helper
    return time.process_time() + (_of_process(helper.child) if helper else 0.0)


def _of_process(number: int) -> float:
    fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    sys.exit(main())
