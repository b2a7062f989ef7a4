"""Kill a training run at random moments, resume it, and compare with one that nobody killed, bit
for bit.

    OMP_NUM_THREADS=1 python tests/trainer/kill_and_resume.py --kills 24 --report
    benchmarks/results/resume.md

Every attempt is a process forked from this one, so that torch is imported once. A third of the
kills wait until a checkpoint is being written; the others come at a random moment. When a run has
come to its end it is compared, and another one starts. Exits with 1 where anything differs. The run
is SFT and RL on puzzles, then on rows with no, one and several images (and bad ones), packed and
not.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from test_mixture import STAGES as ON_ROWS
from test_mixture import write_rows

from franken.models.loading import load
from trainer.checkpoint_files import finished
from trainer.loop import run_train
from trainer.recipe import Recipe, parse_recipe

SHARED = {"batch": 2, "save_every": 2, "freeze": ["vision", "projector"]}
SFT = {"kind": "sft", "steps": 9, "lr": 1e-3, "tasks": {"read": 1.0}, "eval_every": 4, **SHARED}
RL: dict[str, Any] = {
    "kind": "grpo",
    "steps": 12,
    "prompts": 2,
    "group": 4,
    "max_new_tokens": 24,
    "lr": 3e-4,
}
RL |= {
    "tasks": {"sum": 1.0, "count": 1.0},
    "save_every": 1,
    "eval_every": 6,
    "freeze": ["text:0-2", "vision"],
    "beta": 0.01,
}
RECIPE = {
    "name": "soak",
    "model": "creature:sft",
    "device": "cpu",
    "stages": [SFT, RL],
    "keep": {"last": 2, "best": 1},
}


def recipe_in(folder: Path) -> Recipe:
    """The recipe, its rows written into a folder."""
    data = write_rows(folder)
    on_rows = [{**stage, "data": data} for stage in ON_ROWS]
    return parse_recipe({**RECIPE, "stages": [*RECIPE["stages"], *on_rows]})


def attempt(recipe: Recipe, out: Path) -> int:
    """Fork a process that trains into `out`, and return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        sys.stderr = (out.parent / "stderr.txt").open("a")
        run_train(recipe, out)
        code = 0
    except KeyboardInterrupt:
        code = 130
    finally:
        os._exit(code)


def kill(child: int, out: Path, number: int, *, delay: float, writing: bool) -> bool:
    """Send a signal after `delay` seconds, or after that as soon as a checkpoint is being written.
    False if it ended before.
    """
    began = time.monotonic()
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() - began > delay and (
            not writing or any((out / "state").glob(".step-*"))
        ):
            os.kill(child, number)
            os.waitpid(child, 0)
            return True
        time.sleep(0.0005)
    return False


def compare(whole: Path, cut: Path) -> list[str]:
    """What differs between two finished runs. Seconds differ by nature and are left out."""
    found = [
        p.name
        for p in sorted((whole / "final").iterdir())
        if p.read_bytes() != (cut / "final" / p.name).read_bytes()
    ]
    if metrics(whole) != metrics(cut):
        found.append("metrics.jsonl")
    if (whole / "freeze.json").read_bytes() != (cut / "freeze.json").read_bytes():
        found.append("freeze.json")
    names = [{p.name for p in run.rglob("*")} for run in (whole, cut)]
    return found + sorted(names[0] ^ names[1])


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without seconds."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "cpu_seconds"} for line in lines]


def soak(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill runs in `folder` until there were `kills`; the table of kills, and what differs, by
    run.
    """
    dice = random.Random(seed)
    load(
        RECIPE["model"], device="cpu", dtype="fp32"
    )  # imports what a run imports, so that a kill hits the training
    recipe = recipe_in(folder)
    began = time.monotonic()
    if os.waitpid(attempt(recipe, folder / "whole"), 0)[1]:
        raise RuntimeError((folder / "stderr.txt").read_text())
    length = time.monotonic() - began
    rows: list[dict[str, Any]] = []
    different: dict[int, list[str]] = {}
    number = 0
    while len(rows) < kills or number not in different:
        out = folder / f"cut-{number}"
        signum = dice.choice([signal.SIGKILL, signal.SIGINT])
        writing = dice.random() < 1 / 3
        delay = dice.uniform(0, length * 0.6)
        child = attempt(recipe, out)
        if len(rows) < kills and kill(child, out, signum, delay=delay, writing=writing):
            rows.append(_row(out, number, signum, delay, writing))
            continue
        if len(rows) >= kills:
            os.waitpid(child, 0)
        different[number] = compare(folder / "whole", out)
        number += len(rows) < kills
    return {"seconds": round(length, 1), "kills": rows, "different": different}


def _row(out: Path, run: int, number: int, delay: float, writing: bool) -> dict[str, Any]:
    log = out / "metrics.jsonl"
    states = finished(out)
    return {
        "run": run,
        "signal": signal.Signals(number).name,
        "moment": "while a checkpoint is written" if writing else f"after {delay:.2f} s",
        "updates": len(log.read_text().splitlines()) if log.exists() else 0,
        "from": states[-1].name if states else "the start",
        "part": "yes" if any((out / "state").glob(".step-*")) else "",
    }


def report(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    updates = sum(stage["steps"] for stage in (*RECIPE["stages"], *ON_ROWS))
    bad = {run: names for run, names in found["different"].items() if names}
    verdict = f"different: {bad}" if bad else "all equal, bit for bit"
    lines = [
        "# Kill and resume",
        "",
        "`OMP_NUM_THREADS=1 python tests/trainer/kill_and_resume.py --report "
        "benchmarks/results/resume.md`",
        "",
        f"A run of {updates} updates (SFT, GRPO with a KL, then both on rows with no, one and several "
        "images; evaluations, and the best checkpoint kept; one thread,",
        f"{found['seconds']} s when nobody kills it) was killed {len(found['kills'])} times over "
        f"{len(found['different'])} runs",
        "and resumed each time. Final weights and",
        "all other files of `final/`, `freeze.json`, the names of all files, and `metrics.jsonl` "
        f"without its seconds: **{verdict}**.",
        "",
        "| | run | signal | moment | lines in the log | goes on from | part of a checkpoint left |",
        "|---|---|---|---|---|---|---|",
    ]
    for i, row in enumerate(found["kills"], 1):
        lines.append(f"| {i} | " + " | ".join(str(value) for value in row.values()) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), options.kills, options.seed)
    text = report(found)
    sys.stdout.write(text)
    if options.report:
        options.report.write_text(text)
    return int(any(found["different"].values()))


if __name__ == "__main__":
    sys.exit(main())
