"""Malformed inputs of every kind against the command line: what is answered with a traceback, a
wrong success, a hang, a leak or too much memory.

    make attacks                                  all rows, SEED 0; writes benchmarks/results
    PYTHONPATH=tests python -m attacks --seed 3 --only checkpoints,rows --match 'shape.*diff'

Exit code 1 when anything was bad. What is found is mended, and becomes a case of a test.
"""

import argparse
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from attacks import checkpoints, disks, endpoints, places, recipes, rows, runs, twice
from attacks.harness import Case, Tally, attack

ROWS: dict[str, Callable[[int], Iterator[Case]]] = {
    "checkpoints": checkpoints.cases,
    "rows": rows.cases,
    "endpoints": endpoints.cases,
    "recipes": recipes.cases,
    "runs": runs.cases,
    "places": places.cases,
    "disks": disks.cases,
    "twice": twice.cases,
}
BEFORE = {  # tries of the table that this one makes anew
    "checkpoints": 709,
    "rows": 263,
    "endpoints": 98,
    "recipes": 173,
    "runs": 0,
    "places": 198,
    "disks": 20,
    "twice": 14,
}


def main() -> int:
    """Run the rows that were asked for and write the table."""
    parser = argparse.ArgumentParser(prog="attacks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(ROWS))
    parser.add_argument("--match", default="")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    warm()
    tallies = {}
    with tempfile.TemporaryDirectory(prefix="attacks-") as place:
        for row in asked.only.split(","):
            tallies[row] = Tally()
            for case in ROWS[row](asked.seed):
                if not re.search(asked.match, case.name):
                    continue
                done, wrong = attack(case, Path(place) / "case")
                tallies[row].add(case, done, wrong)
                if wrong:
                    print(f"{row}: {case.name}: {wrong}", flush=True)
    text = table(tallies)
    print(text.partition("\n\n")[0])
    if asked.out:
        asked.out.write_text(f"# Malformed inputs against the command line\n\n{head()}\n{text}")
    return int(any(tally.bad for tally in tallies.values()))


def warm() -> None:
    """Import and compile what the cases need, once: they are forked from here."""
    import torch

    from franken.cli import run_command

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        for words in (
            "diff creature:base creature:sft --no-figures",
            "eval creature:sft --tasks read --samples 1 --n 1 --k 1 --max-new-tokens 2",
            "probe creature:sft --method zero --tasks read --samples 1 --layers 0-1 --no-figures",
        ):
            run_command([*words.split(), "--json", "--out", place], True)


def head() -> str:
    """What was run, and when."""
    command = shlex.join(["python", "-m", "attacks", *sys.argv[1:]])
    return f"`{command}`, {datetime.now(UTC):%Y-%m-%d}\n"


def table(tallies: dict[str, Tally]) -> str:
    """The tallies as a table, and the bad cases one by one."""
    lines = ["| Attack | tries | before | bad | of these | longest (CPU s) | memory (MiB) |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row, tally in tallies.items():
        kinds = ", ".join(f"{len(cases)} {kind}" for kind, cases in tally.bad.items()) or "–"
        bad = sum(map(len, tally.bad.values()))
        memory = tally.memory >> 20
        longest = f"{tally.longest:.1f} ({tally.slowest})"
        cells = (row, tally.tries, BEFORE[row], bad, kinds, longest, memory)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    found = [
        f"- {case}" for tally in tallies.values() for bad in tally.bad.values() for case in bad
    ]
    return "\n".join([*lines, "", *found, ""])


if __name__ == "__main__":
    sys.exit(main())
