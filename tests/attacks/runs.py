"""Run folders that are read back: a column less, of another type, a manifest with another value."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random

import pandas as pd

from attacks.harness import Case, Words, run

MADE = {  # what is read back, made once
    "eval": "eval creature:sft --tasks read --samples 3 --n 2 --k 1 --max-new-tokens 2"
    " --arms image,black,describe --no-compare --out .",
    "probe": "probe creature:sft --method swap,zero --tasks read --samples 2 --no-figures --out .",
    "diff": "diff creature:base creature:sft --no-figures --out .",
}
READERS = {
    "eval": ("show RUN", "regrade RUN --out out", "eval-compare RUN --no-figures --out out")
    + ("report RUN --out out", "m-scores RUN --parent creature-sft --donor creature-sft"),
    "probe": ("show RUN", "probe-compare RUN RUN --out out", "report RUN --out out"),
    "diff": ("show RUN", "report RUN --out out"),
}
VALUES = (None, "x", -1, 1e308, float("nan"), True)
FIELDS = ("verb", "label", "config", "identity", "models", "n_requested", "n_ok", "n_failed")
ODD = (None, [], {}, "x", -1, [1], {"a": [None]})


def cases(seed: int) -> Iterator[Case]:
    """Columns that are absent or hold something else, fields of the manifest."""
    rng = Random(f"{seed}/runs")
    for kind, readers in READERS.items():
        for line in readers:
            for table in ("samples", "layers"):
                for column in pd.read_parquet(_made(kind) / f"{table}.parquet").columns:
                    yield _case(kind, line, f"no {column}", _without(table, column))
                    value = rng.choice(VALUES)
                    changed = _filled(table, column, value)
                    yield _case(kind, line, f"{column} = {value}", changed)
            for field in FIELDS:
                value = rng.choice(ODD)
                yield _case(kind, line, f"{field} = {value}", _manifest(field, value))


@cache
def _made(kind: str) -> Path:
    """A sound run of a verb, in a folder of this process."""
    import tempfile

    place = Path(tempfile.mkdtemp(prefix="attacks-runs-"))
    done = run(MADE[kind].split(), place)
    (folder,) = (p for p in place.glob("*/*") if (p / "run.json").exists())
    assert done.status in (0, 3), done.said
    return folder


def _case(kind: str, line: str, name: str, change: Callable[[Path], None]) -> Case:
    def prepare(folder: Path) -> Words:
        copy = folder / kind / _made(kind).name
        shutil.copytree(_made(kind), copy)
        change(copy)
        return line.replace("RUN", str(copy)).split()

    return Case("runs", f"{kind}: {name}: {line.split()[0]}", prepare, "any")


def _without(table: str, column: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / f"{table}.parquet"
        pd.read_parquet(file).drop(columns=column).to_parquet(file)

    return change


def _filled(table: str, column: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / f"{table}.parquet"
        rows = pd.read_parquet(file)
        rows[column] = [value] * len(rows)
        rows.to_parquet(file)

    return change


def _manifest(field: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**content, field: value}))

    return change
