"""The same command twice at the same time: rows are kept once, one is refused or waits."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from test_secrets import finished

from attacks.harness import Case, Done, Words, start, wait

VERBS = {
    "diff": "diff creature:base creature:sft --no-figures",
    "probe": "probe creature:base --method zero --samples 4 --tasks read --no-figures",
    "eval": "eval creature:base --tasks read --samples 8 --n 1 --k 1 --max-new-tokens 4",
    "merge": "merge creature:base creature:sft --layers 2-4",
    "train": "train creature-grpo --set stages.0.steps=2 --set stages.0.prompts=2",
    "regrade": "regrade RUN",
    "eval-compare": "eval-compare RUN --no-figures",
    "report": "report RUN",
}
KEYS = ("method", "sample", "draw", "layer", "metric", "component", "tensor")


def cases(seed: int) -> Iterator[Case]:
    """Every verb, two times each."""
    for verb in VERBS:
        for number in range(2):
            words = _words(verb)
            yield Case("twice", f"{verb} ({number})", words, "any", _checked(words))


def _words(verb: str) -> Callable[[Path], Words]:
    def prepare(folder: Path) -> Words:
        line = VERBS[verb]
        if "RUN" in line:
            line = line.replace("RUN", str(finished(folder / "source")))
        words = [*line.split(), "--out", str(folder / "out")]
        # the other one, which `_checked` waits for
        OTHERS[folder] = start(words, folder)
        return words

    return prepare


OTHERS: dict[Path, tuple[int, int]] = {}


def _checked(words: Callable[[Path], Words]) -> Callable[[Path, Done], str]:
    def check(folder: Path, done: Done) -> str:
        other = wait(OTHERS.pop(folder))
        if "Traceback" in other.said or "fault of franken" in other.said:
            return f"traceback: the other: {other.said[-200:]}"
        if {done.status, other.status} not in ({0}, {0, 2}, {0, 1}, {3}, {2, 3}):
            return f"wrong success: {done.status} and {other.status}: {other.said[-200:]}"
        for table in folder.glob("out/*/*/samples.parquet"):
            samples = pd.read_parquet(table)
            keys = [key for key in KEYS if key in samples]
            if samples.duplicated(keys).any():
                return f"wrong success: rows twice in {table.name}"
        hidden = [p.name for p in folder.rglob(".*") if p.name != ".lock"]
        return f"stray: {hidden}" if hidden else ""

    return check
