"""Disks that fill up at some byte, and the same command once there is room."""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from test_secrets import finished

from attacks.harness import Case, Done, Words, run
from franken.runs import load_run

VERBS = {
    "diff": "diff creature:base creature:sft --layers 0-1",
    "merge": "merge creature:base creature:sft --layers 2-4",
    "probe": "probe creature:base --method zero --samples 2 --tasks read --layers 0-1",
    "eval": "eval creature:base --tasks read --samples 2 --n 1 --k 1 --max-new-tokens 4",
    "train": "train creature-grpo --set stages.0.steps=1 --set stages.0.prompts=2",
    "regrade": "regrade RUN",
    "eval-compare": "eval-compare RUN",
    "report": "report RUN",
}
LIMITS = (0, 100, 3_000, 30_000)  # bytes that a file may have


def cases(seed: int) -> Iterator[Case]:
    """Every verb at every limit, and a second time without one."""
    for verb in VERBS:
        for limit in LIMITS:
            yield Case(
                "disks",
                f"{verb}, {limit} bytes",
                _prepared(verb),
                "any",
                _goes_on(verb),
                lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
            )


def _words(verb: str, folder: Path) -> Words:
    source = next(iter((folder.parent / "source" / "eval").glob("*")), "")
    words = VERBS[verb].replace("RUN", str(source)).split()
    return [*words, "--out", str(folder / "out")]


def _prepared(verb: str) -> Callable[[Path], Words]:
    def prepare(folder: Path) -> Words:
        if "RUN" in VERBS[verb]:
            finished(folder.parent / "source")
        return _words(verb, folder)

    return prepare


def _goes_on(verb: str) -> Callable[[Path, Done], str]:
    """Nothing looked finished unless it is, the same command ends well, and nothing is stray."""

    def check(folder: Path, done: Done) -> str:
        for manifest in folder.rglob("run.json"):
            run_of = load_run(manifest.parent)  # raises where it is not whole
            if len(run_of.samples) != run_of.manifest.n_ok + run_of.manifest.n_failed:
                return "wrong success: a finished run lacks rows"
        again = run(_words(verb, folder), folder)
        if again.status not in (0, 3):
            return f"traceback: again: {again.said[-300:]}"
        hidden = [p for p in folder.rglob("*") if p.name.startswith(".") and p.is_file()]
        return f"stray: {hidden}" if hidden else ""

    return check
