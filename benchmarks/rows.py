"""Does a large table stream? Rows of questions with images are written, then asked for as training
asks for them: a step of shuffled rows at a time, each in a process of its own that says its peak.

    python benchmarks/rows.py [--rows 2000 20000] [--work DIR] [--report benchmarks/results/rows.md]

Memory should hardly grow with the number of rows. Images are noise as JPEG of about 100 kB, so that
20,000 of them are 2 GB; base64 in JSONL, bytes in Parquet (row groups of 1,000).
"""

import argparse
import base64
import io
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIDE, STEP, STEPS = 256, 64, 8
DISTINCT = 32  # different pictures; every row has its own copy of the bytes
KINDS = ("jsonl", "parquet")


def pictures() -> list[bytes]:
    """JPEGs of noise, about 100 kB each."""
    made = []
    for seed in range(DISTINCT):
        noise = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "JPEG", quality=93)
        made.append(buffer.getvalue())
    return made


def write(path: Path, rows: int) -> None:
    """A table of so many questions with an image each."""
    jpegs = pictures()
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            for i in range(rows):
                image = base64.b64encode(jpegs[i % DISTINCT]).decode()
                row = {"question": f"Question {i}?", "answer": str(i), "image": image}
                file.write(json.dumps(row) + "\n")
        return
    kinds = [("question", pa.string()), ("answer", pa.string()), ("image", pa.binary())]
    schema = pa.schema(kinds)
    as_they_are = {"use_dictionary": False, "compression": "none"}  # no copy of a picture is saved
    with pq.ParquetWriter(path, schema, **as_they_are) as writer:
        for first in range(0, rows, 1000):
            numbers = range(first, min(first + 1000, rows))
            columns = {
                "question": [f"Question {i}?" for i in numbers],
                "answer": [str(i) for i in numbers],
                "image": [jpegs[i % DISTINCT] for i in numbers],
            }
            writer.write_table(pa.table(columns, schema))


def read(path: Path) -> None:
    """Some steps of shuffled rows, and every row once; prints seconds and the peak in MiB."""
    from trainer.public import public_items, split_rows

    imported = peak()
    began = time.perf_counter()
    split_rows(str(path), 64)
    for step in range(STEPS):
        items = public_items(str(path), STEP, seed=0, step=step, held_out=64)
        assert all(item.image and item.answer == item.question[9:-1] for item in items)
    seconds = time.perf_counter() - began
    print(json.dumps({"imported": imported, "peak": peak(), "seconds": seconds}))


def peak() -> float:
    """The largest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(kind: str, rows: int, work: Path) -> list[str]:
    """A row of the table."""
    path = work / f"{rows}.{kind}"
    if not path.exists():
        write(path, rows)
    command = [sys.executable, __file__, "--read", str(path)]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    size = path.stat().st_size / 2**20
    path.unlink()
    numbers = (size, said["imported"], said["peak"], said["peak"] - said["imported"])
    return [kind, f"{rows:,}", *(f"{x:.0f}" for x in numbers), f"{said['seconds']:.1f}"]


def table(rows: list[int], work: Path) -> Iterator[str]:
    """The report, a line at a time."""
    yield "# A large table streams"
    yield ""
    yield f"`python benchmarks/rows.py --rows {' '.join(map(str, rows))}`"
    yield f"Python {platform.python_version()}, pyarrow {pa.__version__}; {date.today()}."
    yield ""
    yield f"{STEPS} steps of {STEP} shuffled questions with an image each, 64 rows held out."
    yield ""
    yield "| table | rows | file, MiB | imports, MiB | peak, MiB | above the imports, MiB | s |"
    yield "|---|---|---|---|---|---|---|"
    for kind in KINDS:
        for count in rows:
            yield f"| {' | '.join(measured(kind, count, work))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[2000, 20000])
    parser.add_argument("--work", type=Path, help="where the tables are written for a while")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read(args.read)
        return
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        lines = []
        for line in table(args.rows, Path(work)):
            print(line, flush=True)
            lines.append(line)
    if args.report:
        args.report.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
