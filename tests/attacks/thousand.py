"""A thousand rows of which one in twenty is broken, through eval, probe, training and the page.

    PYTHONPATH=tests python -m attacks.thousand [--rows 250 500 1000] [--report benchmarks/results/thousand.md]

Every row must be accounted for, the memory above the imports must stay flat, and the time grow with
the rows and no faster. Pictures have 336 × 336 pixels (a third of a megabyte each once decoded). A
verb is run in a process of its own that has imported everything; seconds are of processor time.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
import yaml
from PIL import Image

from attacks.__main__ import warm
from attacks.harness import Done
from attacks.harness import run as run_within
from franken.runs import load_run

EVERY, SIDE, PICTURES = 20, 336, 8
BROKEN = (  # what a broken row has instead
    {"image": "nowhere.png"},
    {"image": "half.png"},
    {"image": "../outside.png"},
    {"question": "\0"},
    {"question": "x" * 100_001},
    {"question": [1]},
    {"answer": None},
    {"answer": {"a": 1}},
    {"image": {"bytes": 7}},
    {"question": "<|im_end|>"},
)


@dataclass(frozen=True)
class Measured:
    """A verb over so many rows: those that have an answer, those that have a reason instead."""

    verb: str
    rows: int
    sound: int
    failed: int
    seconds: float
    memory: int


def run(words: list[str], folder: Path) -> Done:
    """A command line, within an hour."""
    return run_within(words, folder, patience=3600)


def write(folder: Path, rows: int) -> Path:
    """The table; every twentieth row is broken, each in another way."""
    for i in range(PICTURES):
        Image.new("RGB", (SIDE, SIDE), (30 * i, 99, 200)).save(folder / f"{i}.png")
    (folder / "half.png").write_bytes((folder / "0.png").read_bytes()[:200])
    table = folder / f"{rows}.jsonl"
    with table.open("w") as file:
        for i in range(rows):
            row = {"id": str(i), "question": f"What is {i}?", "answer": str(i)}
            row["image"] = f"{i % PICTURES}.png"
            if i % EVERY == EVERY - 1:
                row |= BROKEN[i // EVERY % len(BROKEN)]
            file.write(json.dumps(row) + "\n")
    return table


def measured(table: Path, rows: int, place: Path) -> Iterator[Measured]:
    """Every verb over a table of so many rows."""
    broken = rows // EVERY
    data = ["--data", str(table), "--max-new-tokens", "2", "--out", str(place / "runs")]
    words = ["eval", "creature:sft", "--samples", str(rows), "--n", "1", "--k", "1", *data]
    done = run([*words, "--no-compare"], place)
    (folder,) = (place / "runs" / "eval").glob("*")
    yield _told("eval", rows, broken, load_run(folder).samples, done.seconds, done.memory)
    words = ["probe", "creature:sft", "--samples", str(rows), "--method", "zero", "--layers", "0"]
    done = run([*words, *data, "--no-figures"], place)
    (folder,) = (place / "runs" / "probe").glob("*")
    yield _told("probe", rows, broken, load_run(folder).samples, done.seconds, done.memory)
    recipe = place / "recipe.yaml"
    stage = {"kind": "sft", "data": str(table), "steps": rows // 10, "batch": 10, "lr": 1e-5}
    stage |= {"on_bad_row": "skip"}
    made = {"name": "x", "model": "creature:sft", "device": "cpu", "stages": [stage]}
    recipe.write_text(yaml.safe_dump(made))
    done = run(["train", str(recipe), "--out", str(place / "trained")], place)
    assert done.status == 0, done.said
    lines = (place / "trained" / "metrics.jsonl").read_text().splitlines()
    skipped = sum(json.loads(line).get("skipped_rows", 0) for line in lines)
    yield Measured("train", rows, rows, int(skipped), done.seconds, done.memory)
    done = run(["report", str(place / "runs"), "--out", str(place / "page")], place)
    assert done.status == 3, done.said  # it says that samples failed
    yield Measured("page", rows, rows - broken, broken, done.seconds, done.memory)


def _told(
    verb: str, rows: int, broken: int, samples: pd.DataFrame, seconds: float, memory: int
) -> Measured:
    """What became of the rows. Raises AssertionError where one has neither answer nor reason."""
    failed = samples["error"].notna() | samples["ineligible"].notna()
    assert samples["sample"].nunique() == rows, (verb, samples["sample"].nunique())
    assert samples.loc[failed, "sample"].nunique() == broken
    assert (samples["output"].notna() | failed).all()
    return Measured(verb, rows, rows - broken, broken, seconds, memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[250, 500, 1000])
    parser.add_argument("--report", type=Path)
    asked = parser.parse_args()
    warm()
    lines = ["| verb | rows | answered | failed, with a reason | CPU s | peak, MiB |"]
    lines.append("|---|---|---|---|---|---|")
    for rows in asked.rows:
        with tempfile.TemporaryDirectory() as place:
            table = write(Path(place), rows)
            (Path(place) / "work").mkdir()
            for m in measured(table, rows, Path(place) / "work"):
                cells = (m.verb, m.rows, m.sound, m.failed, f"{m.seconds:.1f}", m.memory >> 20)
                lines.append(f"| {' | '.join(map(str, cells))} |")
                print(lines[-1], flush=True)
    if asked.report:
        command = f"`python -m attacks.thousand --rows {' '.join(map(str, asked.rows))}`"
        about = f"{command}, Python {platform.python_version()}; {date.today()}."
        text = "\n".join(["# A thousand rows, one in twenty broken", "", about, "", *lines])
        asked.report.write_text(text + "\n")


if __name__ == "__main__":
    main()
