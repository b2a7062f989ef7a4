"""`franken grade`."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from franken.cli.options import Json
from franken.console import print_object
from franken.errors import UsageError, check_known
from franken.tasks.grading import ANSWER_TYPES, judge_reply

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
SHOWN = 300  # characters of a text on a terminal


def grade(
    gold: Annotated[str, typer.Option(help="The right answer.")],
    reply: Annotated[str, typer.Option(help="What the model replied; `@FILE` reads it.")],
    answer_type: Annotated[
        str, typer.Option("--type", help="integer, number, …; inferred from the right answer.")
    ] = "",
    options: Annotated[
        str, typer.Option(help="The options of a choice, in order: 'dog|cat|bird'.")
    ] = "",
    tolerance: Annotated[float, typer.Option(min=0, help="Relative, for numbers.")] = 0.0,
    longest: Annotated[
        int,
        typer.Option(min=1, help="Characters behind the reasoning that are read, from the end."),
    ] = 50_000,
    json: Json = False,
) -> int:
    """Grade one reply and explain it: what was read as its answer, how it was compared, and why."""
    types = [answer_type] if answer_type else []
    check_known("answer type", types, ANSWER_TYPES, fix="leave --type out to have it inferred")
    texts = tuple(option.strip() for option in options.split("|")) if options else ()
    try:
        judgement = judge_reply(
            _read(reply), gold, answer_type, texts, tolerance=tolerance, longest=longest
        )
    except ValueError as e:  # the right answer is not of its type
        raise UsageError(f"{gold!r} cannot be graded against", str(e), "check --type") from e
    content = asdict(judgement)
    if json:
        return print_object(content, json)
    verdict = "right" if judgement.score == 1 else "wrong" if judgement.score == 0 else "partly"
    lines = {
        "verdict": f"{verdict} ({judgement.score:g})",
        "why": judgement.reason,
        "type": judgement.answer_type + ("" if answer_type else " (inferred)"),
        "found in": judgement.where or "-",
        "extracted": _text(judgement.extracted),
        "read as": _text(judgement.read),
        "right": _text(judgement.right or gold),
        "compared by": judgement.rule or "-",
        "well formed": "yes" if judgement.well_formed else "no",
    }
    return print_object({key: inert(text) for key, text in lines.items()}, json)


def _read(reply: str) -> str:
    if not reply.startswith("@"):
        return reply
    try:
        return Path(reply[1:]).read_text(encoding="utf-8", errors="replace")
    except OSError as e:
        raise UsageError(f"{reply[1:]} cannot be read", str(e), "give --reply TEXT or @FILE") from e


def _text(text: str | None) -> str:
    return "-" if text is None else text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


def inert(text: str) -> str:
    """A model's text as one line that no terminal acts on: control characters by their escapes."""
    return CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), text)
