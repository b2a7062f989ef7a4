"""Where results go: folders that cannot be made, of every verb that writes."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from test_secrets import finished

from attacks.harness import Case, Done, Words

VERBS = {
    "diff": "diff creature:base creature:sft --no-figures --layers 0-1 --out",
    "merge": "merge creature:base creature:sft --layers 2-4 --out",
    "merge-sweep": "merge-sweep creature:base creature:sft --window 4 --tasks read --samples 1 --out",
    "probe": "probe creature:base --method zero --samples 1 --tasks read --layers 0-1 --out",
    "eval": "eval creature:base --tasks read --samples 1 --n 1 --k 1 --out",
    "eval-compare": "eval-compare RUN --no-figures --out",
    "regrade": "regrade RUN --out",
    "train": "train creature-grpo --set stages.0.steps=1 --set stages.0.prompts=2 --out",
    "freeze-train": "freeze-train creature-grpo --freeze vision --set stages.0.steps=1 --out",
    "autopsy": "autopsy creature:base creature:sft --samples 1 --probe-samples 1 --n 1 --k 1 --out",
    "quickstart": "quickstart --out",
    "report": "report RUN --out",
    "train-figures": "train-figures RUN --out",
    "tasks render": "tasks render clock --n 1 --out",
    "tasks look": "tasks look DATA --html",
}
ONE_FILE = ("tasks render", "tasks look", "train-figures")  # a file may be written over


def cases(seed: int) -> Iterator[Case]:
    """Every verb with every place; `seed` changes nothing, as all of them are tried."""
    for verb, line in VERBS.items():
        for name, place in PLACES.items():
            if verb in ONE_FILE and name in ("a file", "a name just too long"):
                continue
            yield Case("places", f"{verb} --out {name}", _prepared(line, place), "refused", _clean)


def _prepared(line: str, place: Callable[[Path], str]) -> Callable[[Path], Words]:
    def prepare(folder: Path) -> Words:
        os.environ["HOME"] = str(folder)
        words = line.split()
        if "RUN" in words:
            words[words.index("RUN")] = str(finished(folder / "source"))
        if "DATA" in words:
            (folder / "d.jsonl").write_text('{"question": "q", "answer": "1"}\n')
            words[words.index("DATA")] = str(folder / "d.jsonl")
        out = place(folder)
        (folder.parent / "before").write_text("\n".join(sorted(os.listdir(folder))))
        return [*words, out]

    return prepare


def _clean(folder: Path, done: Done) -> str:
    """Nothing was made beside what was there."""
    before = (folder.parent / "before").read_text().split("\n")
    new = set(os.listdir(folder)) - set(before)
    return f"stray: {sorted(new)}" if new else ""


def _made(make: Callable[[Path], object], below: str = "") -> Callable[[Path], str]:
    def place(folder: Path) -> str:
        make(folder / "there")
        return str(folder / "there" / below)

    return place


PLACES: dict[str, Callable[[Path], str]] = {
    "a file": _made(lambda p: p.write_text("x")),
    "below a file": _made(lambda p: p.write_text("x"), "a"),
    "a dangling link": _made(lambda p: p.symlink_to("nowhere")),
    "below a dangling link": _made(lambda p: p.symlink_to("nowhere"), "a/b"),
    "a link to itself": _made(lambda p: p.symlink_to("there")),
    "a pipe": _made(os.mkfifo),
    "below a pipe": _made(os.mkfifo, "a"),
    "/dev/null": lambda folder: "/dev/null",
    "below /dev/null": lambda folder: "/dev/null/a",
    "/proc": lambda folder: "/proc/franken",
    "/sys": lambda folder: "/sys/franken/a",
    "a long name": lambda folder: str(folder / ("a" * 300)),
    "a name just too long": lambda folder: str(folder / ("a" * 250)),
    "a long path": lambda folder: str(folder / "/".join(["b" * 100] * 60)),
    "a NUL": lambda folder: "a\0b",
    "a user who is not": lambda folder: "~no-such-user-here/a",
}
