"""The command line: parse, call, print, exit code. Heavy imports happen inside the commands, so
that help is instant.

Results go to stdout, progress to stderr and only to a terminal. `--json` prints one object and
nothing else. Exit codes: 0 ok · 1 failure · 2 usage · 3 finished, some samples failed · 4
verification failed · 130 interrupted, resumable.
"""

import os
import sys
import traceback
from collections.abc import Callable

import typer
from typer.exceptions import TyperException

from franken import plugins
from franken.bounds import bounded
from franken.cli import (
    diff,
    doctor,
    evaluate,
    forks,
    grade,
    merge,
    organism,
    probe,
    probe_compare,
    regrade,
    show,
    study,
    tasks,
    train,
    train_figures,
)
from franken.cli.failures import as_franken_error, tell
from franken.cli.pages import PAGES, examples, front
from franken.console import any_character
from franken.distribution import clashes
from franken.errors import FrankenError, UsageError
from franken.secrets import redact

app = typer.Typer(
    name="franken",
    help="What does RL really change in a vision-language model? Probe it, diff it, merge it, "
    "freeze it, train it.",
    epilog=front(),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
VERBS: dict[str, Callable[..., int] | typer.Typer] = {
    "probe": probe.probe,
    "probe-compare": probe_compare.probe_compare,
    "forks": forks.forks,
    "diff": diff.diff,
    "merge": merge.merge,
    "merge-sweep": merge.merge_sweep,
    "train": train.train,
    "freeze-train": train.freeze_train,
    "train-figures": train_figures.train_figures,
    "eval": evaluate.evaluate,
    "eval-compare": evaluate.eval_compare,
    "m-scores": evaluate.m_scores,
    "grade": grade.grade,
    "regrade": regrade.regrade,
    "tasks": tasks.app,
    "autopsy": study.autopsy,
    "quickstart": study.quickstart,
    "report": study.report,
    "show": show.show,
    "organism": organism.organism,
    "doctor": doctor.doctor,
}
for name, verb in VERBS.items():
    panel, line, _ = PAGES[name]
    if isinstance(verb, typer.Typer):
        app.add_typer(
            verb, name=name, rich_help_panel=panel, short_help=line, epilog=examples(name)
        )
    else:
        app.command(name, rich_help_panel=panel, short_help=line, epilog=examples(name))(verb)


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    any_character()
    for clash in clashes():
        print(f"warning: {clash}", file=sys.stderr)
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        code = run_command(arguments, debug)
    except Exception as e:  # noqa: BLE001 - with --debug: its traceback, without keys
        print(redact("".join(traceback.format_exception(e))), file=sys.stderr, end="")
        code = e.exit_code if isinstance(e, FrankenError) else 1
    sys.exit(code)


def run_command(arguments: list[str], debug: bool) -> int:
    """The exit code of one command line. With `debug` exceptions keep their tracebacks.

    With `--json` among the arguments an error is one object with what, why, fix and code.
    """
    json = "--json" in arguments
    try:
        return _dispatch(arguments)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:  # the reader of a pipe went away: nobody is left to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as e:  # noqa: BLE001 - the last door: no user gets a traceback unasked
        usage = isinstance(e, TyperException)  # what the parser says of a command line
        if debug and not usage:
            raise
        if usage and not json:
            e.show()  # pyright: ignore[reportAttributeAccessIssue]
            return 2
        error = as_franken_error(e)
        tell(error, json)
        return error.exit_code


def _dispatch(arguments: list[str]) -> int:
    plugins.use_named()
    files, arguments = taken_out(arguments, "--plugin", "FILE.py")
    pairs, arguments = taken_out(arguments, "--bound", "NAME=NUMBER")
    for file in files:
        plugins.use(file)
    with bounded(pairs):
        result = typer.main.get_command(app).main(
            args=arguments, prog_name="franken", standalone_mode=False
        )
    return _interrupted() if result == 130 else result if isinstance(result, int) else 0


def taken_out(arguments: list[str], option: str, value: str) -> tuple[list[str], list[str]]:
    """The values of an option that goes with any verb, and the rest of the line. Raises UsageError
    where one has no value.
    """
    values, rest, words = [], [], iter(arguments)
    for word in words:
        if word == option:
            values.append(next(words, ""))
        elif word.startswith(f"{option}="):
            values.append(word.partition("=")[2])
        else:
            rest.append(word)
    if "" in values:
        raise UsageError(
            f"{option} without a value",
            why=f"it is followed by {value}",
            fix=f"write {option} {value}",
        )
    return values, rest


def _interrupted() -> int:
    if (
        "MASTER_ADDR" not in os.environ or os.environ.get("RANK", "0") == "0"
    ):  # of torchrun's processes one says it
        print("interrupted; the same command goes on from here", file=sys.stderr)
    return 130
