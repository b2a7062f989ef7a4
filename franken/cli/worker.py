"""A worker of a study: it runs one command line of franken after the other, in one process.

`python -m franken.cli.worker`, started by franken/study/lanes.py. A list of words as JSON comes in
on each line of standard input; out goes a line with the run folders that the verb named, or its
error. It lives for many steps because importing torch and transformers costs more than most of them
on a small model. Errors that a user can be told about are answered; anything else ends the process,
and the traceback is in the log.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence

from franken.cli import run_command
from franken.errors import FrankenError

FAILED_SAMPLES = 3  # the exit code of a run that is finished, some samples of which failed


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between the answers
    try:
        for line in sys.stdin:
            try:
                answer = {"folders": do(json.loads(line))}
            except FrankenError as e:
                answer = {"error": ". ".join(x for x in (e.what, e.why) if x)}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    except KeyboardInterrupt:
        sys.exit(130)


def do(argv: Sequence[str]) -> list[str]:
    """Run a command line and return the run folders that its `--json` names.

    Raises FrankenError for what the verb refuses, KeyboardInterrupt where it was interrupted.
    """
    before, sys.argv = sys.argv, ["franken", *argv]  # as run.json records it
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            code = run_command([*argv, "--json"], debug=True)
    finally:
        sys.argv = before
    if code == 130:
        raise KeyboardInterrupt
    if code not in (0, FAILED_SAMPLES):
        raise FrankenError(f"franken {argv[0]} ended with exit code {code}")
    content = json.loads(printed.getvalue())
    return [content["folder"]] if "folder" in content else content["runs"]


if __name__ == "__main__":
    main()
