"""Tables and images: a sound row beside an attacked one, asked of a creature.

Every case is a table whose rows must all be accounted for: the sound one answered, the attacked one
answered or failed with a reason. What is no table at all is refused.
"""

import base64
import io
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pandas as pd
from PIL import Image

from attacks.harness import Case, Done, Words

LINE = "eval creature:sft --data {0} --samples 99 --n 1 --k 1 --max-new-tokens 2 --no-compare"


def _saved(size: tuple[int, int], kind: str, mode: str = "RGB", **options: object) -> bytes:
    sink = io.BytesIO()
    Image.new(mode, size).save(sink, kind, **options)
    return sink.getvalue()


SOUND = {
    "question": "What is 1 + 1?",
    "answer": "2",
    "image": base64.b64encode(_saved((56, 56), "PNG")).decode(),
}
TEXTS = (
    "\0",
    "\ud800",
    "\u202e\u2066",
    "<image>" * 40,
    "<|im_end|>",
    "<|image_pad|>" * 9,
    "{{ 7 * 7 }}",
    "x" * 99_999,
    "x" * 100_001,
    "A. x " * 19_000,
    "(" * 50_000,
    "\\frac{" * 9000,
    "9" * 5000,
    "[" * 99_000,
    '{"a":' * 9000,
    "[bold]x[/nope]",
    "=1+1",
    "\x1b[31m\x07",
    "../../etc/passwd",
    "NaN",
    "\n" * 50_000,
    "𝒳" * 20_000,
    "a\u0301" * 30_000,
)
VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    1e308,
    10**400,
    float("nan"),
    float("inf"),
    [],
    [[]],
    [1, 2],
    {},
    {"a": 1},
    {"role": "user"},
    [{"role": "user", "content": "q"}, {"role": "assistant"}],
    [{"role": 7, "content": {"type": "text"}}],
    [{"from": "human", "value": "<image>"}],
    "",
    " ",
)
COLUMNS = ("question", "answer", "options", "id", "task", "messages", "reward_model")


def cases(seed: int) -> Iterator[Case]:
    """Cells, images, files."""
    rng = Random(f"{seed}/rows")
    for column in COLUMNS:
        for text in TEXTS if column in ("question", "answer") else rng.sample(TEXTS, 6):
            yield _row(f"{column} = {text[:20]!r}", {**SOUND, column: text})
        for value in rng.sample(VALUES, 11):
            yield _row(f"{column} = {str(value)[:30]}", {**SOUND, column: value})
    for name, make in PICTURES.items():
        yield _picture(name, make)
    for name, value in IMAGE_CELLS.items():
        yield _row(f"image = {name}", {**SOUND, "image": value})
    for name, (file, content) in FILES.items():
        yield _file(name, file, content)
    for name, make in PLACES.items():
        yield _place(name, make)
    for name, columns in MAPS.items():
        yield _columns(name, columns)


def _row(name: str, row: dict[str, object]) -> Case:
    def prepare(folder: Path) -> Words:
        lines = [json.dumps(r) for r in (SOUND, row, {**SOUND, "question": "3?"})]
        (folder / "t.jsonl").write_text("\n".join(lines) + "\n")
        return LINE.format(folder / "t.jsonl").split()

    return Case("rows", name, prepare, "told", _all_accounted(3, sound=2))


def _picture(name: str, make: Callable[[], bytes]) -> Case:
    def prepare(folder: Path) -> Words:
        (folder / "a.png").write_bytes(make())
        rows = [SOUND, {**SOUND, "image": "a.png"}]
        (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        return LINE.format(folder / "t.jsonl").split()

    return Case("rows", f"picture: {name}", prepare, "told", _all_accounted(2, sound=1))


def _file(name: str, file: str, content: bytes) -> Case:
    def prepare(folder: Path) -> Words:
        (folder / file).write_bytes(content)
        return LINE.format(folder / file).split()

    return Case("rows", f"file: {name}", prepare, "any")


def _place(name: str, make: Callable[[Path], object]) -> Case:
    def prepare(folder: Path) -> Words:
        make(folder)
        return LINE.format(folder / "t.jsonl").split()

    return Case("rows", f"place: {name}", prepare, "refused")


def _columns(name: str, columns: str) -> Case:
    def prepare(folder: Path) -> Words:
        (folder / "t.jsonl").write_text(json.dumps(SOUND) + "\n")
        return [*LINE.format(folder / "t.jsonl").split(), "--columns", columns]

    return Case("rows", f"columns: {name}", prepare, "any")


def _all_accounted(rows: int, *, sound: int) -> Callable[[Path, Done], str]:
    """Every row has its two answers or its reason, and the sound ones are answered."""

    def check(folder: Path, done: Done) -> str:
        (table,) = folder.glob("runs/eval/*/samples.parquet")
        samples = pd.read_parquet(table)
        if len(samples) != 2 * rows:
            return f"wrong success: {len(samples)} rows for {rows} questions"
        failed = samples["error"].notna() | samples["ineligible"].notna()
        if (~failed).sum() < 2 * sound:
            return "wrong success: a sound row failed"
        told = samples["output"].notna() | failed
        return "" if told.all() else "wrong success: rows without answer and reason"

    return check


def _png(width: int, height: int, *, data: bytes | None = None, kind: int = 2) -> bytes:
    """A PNG that states this size, whatever it holds."""

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + crc

    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    body = zlib.compress(b"\0" * 100) if data is None else data
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _frames(kind: str, count: int) -> bytes:
    first, *rest = [Image.new("RGB", (32, 32), (i % 256, 0, 0)) for i in range(count)]
    sink = io.BytesIO()
    first.save(sink, kind, save_all=True, append_images=rest)
    return sink.getvalue()


def _tiff_loop() -> bytes:
    """A TIFF whose list of images leads back to its beginning."""
    content = bytearray(_saved((16, 16), "TIFF"))
    at = struct.unpack("<I", content[4:8])[0]
    entries = struct.unpack("<H", content[at : at + 2])[0]
    end = at + 2 + 12 * entries
    content[end : end + 4] = struct.pack("<I", at)
    return bytes(content)


def _bomb() -> bytes:
    """30,000 × 30,000 zeros in a megabyte."""
    return _png(30_000, 30_000, data=zlib.compress(b"\0" * 90_001 * 300, 9))


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 99
    return _saved((32, 32), "JPEG", exif=exif)


def _text_bomb() -> bytes:
    content = zlib.compress(b"x" * (200 << 20), 9)
    text = b"Comment\0\0" + content
    crc = struct.pack(">I", zlib.crc32(b"zTXt" + text))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + crc
    whole = _saved((8, 8), "PNG")
    return whole[:33] + chunk + whole[33:]


PICTURES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a text": lambda: b"hello",
    "a page": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "half a PNG": lambda: _saved((64, 64), "PNG")[:60],
    "half a JPEG": lambda: _saved((64, 64), "JPEG")[:300],
    "states 10^9 pixels": lambda: _png(32_000, 32_000),
    "states 2^62 pixels": lambda: _png(2**31 - 1, 2**31 - 1),
    "no width": lambda: _png(0, 10),
    "just below the bound": lambda: _png(9_000, 9_900),
    "a bomb": _bomb,
    "a bomb of text": _text_bomb,
    "one pixel": lambda: _saved((1, 1), "PNG"),
    "a line": lambda: _saved((2_000, 1), "PNG"),
    "a long strip": lambda: _saved((20_000, 90), "PNG"),
    "CMYK": lambda: _saved((32, 32), "JPEG", "CMYK"),
    "a palette": lambda: _saved((32, 32), "PNG", "P"),
    "one bit": lambda: _saved((32, 32), "PNG", "1"),
    "16 bits": lambda: _saved((32, 32), "PNG", "I;16"),
    "floats": lambda: _saved((32, 32), "TIFF", "F"),
    "32 bits": lambda: _saved((32, 32), "TIFF", "I"),
    "a GIF of 2000 frames": lambda: _frames("GIF", 2000),
    "a WebP of 300 frames": lambda: _frames("WEBP", 300),
    "a TIFF of 300 pages": lambda: _frames("TIFF", 300),
    "a TIFF in a circle": _tiff_loop,
    "an unknown EXIF turn": _exif,
    "EXIF of noise": lambda: _saved((32, 32), "JPEG", exif=b"Exif\0\0" + bytes(range(200))),
    "an ICC profile of noise": lambda: _saved((32, 32), "PNG", icc_profile=bytes(999)),
    "a wrong CRC": lambda: _saved((32, 32), "PNG").replace(b"IDAT", b"IDAT\x01", 1),
    "an EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nquit",
    "an icon": lambda: _saved((32, 32), "ICO"),
    "a BMP of a negative size": lambda: _saved((32, 32), "BMP").replace(
        struct.pack("<i", 32), struct.pack("<i", -(2**31)), 1
    ),
    "a PDF": lambda: _saved((32, 32), "PDF"),
    "a PPM of 10^5 by 10^5": lambda: b"P6 100000 100000 255\n" + bytes(99),
    "a QOI": lambda: b"qoif" + struct.pack(">II", 2**31, 2**31) + bytes(20),
    "a DDS": lambda: b"DDS " + struct.pack("<I", 124) + b"\xff" * 140,
    "a PSD": lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3),
    "an FLI": lambda: struct.pack("<IHHHH", 128, 0xAF11, 9, 9, 9) + bytes(200),
    "a JPEG 2000": lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99),
}
IMAGE_CELLS: dict[str, object] = {
    "nothing": None,
    "an empty text": "",
    "a number": 7,
    "a list of numbers": [1, 2],
    "a struct": {"bytes": "no", "path": 3},
    "an empty struct": {},
    "bytes as a text": {"bytes": "iVBORw0KGgo="},
    "an address": "https://example.invalid/a.png",
    "a file address": "file:///etc/passwd",
    "the folder above": "../a.png",
    "an absolute path": "/etc/passwd",
    "a device": "/dev/zero",
    "a NUL": "a\0.png",
    "a long name": "a" * 5000,
    "no file": "nowhere.png",
    "the folder": ".",
    "base64 of noise": "iVBORw0KGgo" + "A" * 1000,
    "a data address": "data:image/png;base64,!!!",
    "base64 of a picture": base64.b64encode(_saved((32, 32), "PNG")).decode(),
    "a list in a text": "[",
    "forty pictures": ["a.png"] * 40,
    "a list in lists": [[["a.png"]]],
}
FILES: dict[str, tuple[str, bytes]] = {
    "nothing": ("t.jsonl", b""),
    "lines": ("t.jsonl", b"\n\n\n"),
    "no JSON": ("t.jsonl", b"hello\nworld\n"),
    "numbers": ("t.jsonl", b"1\n2\n"),
    "lists": ("t.jsonl", b"[1]\n[2]\n"),
    "null": ("t.json", b"null"),
    "a deep list": ("t.json", b"[" * 10**5 + b"]" * 10**5),
    "a deep object": ("t.jsonl", b'{"question":' * 10**5 + b"1" + b"}" * 10**5 + b"\n"),
    "a number without end": (
        "t.jsonl",
        b'{"question": ' + b"9" * 10**6 + b', "answer": "1"}\n',
    ),
    "a line without end": ("t.jsonl", b'{"question": "' + b"x" * (64 << 20)),
    "NaN": ("t.jsonl", b'{"question": "q", "answer": NaN}\n'),
    "a key twice": ("t.jsonl", b'{"question": "q", "question": "p", "answer": "1"}\n'),
    "UTF-16": ("t.jsonl", '{"question": "q", "answer": "1"}\n'.encode("utf-16")),
    "UTF-32": ("t.jsonl", '{"question": "q", "answer": "1"}\n'.encode("utf-32")),
    "a byte-order mark": ("t.jsonl", '\ufeff{"question": "q", "answer": "1"}\n'.encode()),
    "latin-1": ("t.csv", "question,answer\nq\xe9,1\n".encode("latin-1")),
    "a CSV of one cell": ("t.csv", b"question,answer\n" + b"x" * (8 << 20)),
    "a CSV of quotes": ("t.csv", b'question,answer\n"a,1\nb,2\n' * 1000),
    "a CSV with a NUL": ("t.csv", b"question,answer\na\0b,1\n"),
    "a CSV of no rows": ("t.csv", b"question,answer\n"),
    "a CSV of ragged rows": ("t.csv", b"question,answer\na\na,b,c,d\n"),
    "a CSV of one column twice": ("t.csv", b"question,question,answer\na,b,1\n"),
    "a CSV of 10^5 columns": ("t.csv", b",".join(b"c%d" % i for i in range(10**5)) + b"\n"),
    "a TSV": ("t.tsv", b"question\tanswer\nq\t1\n"),
    "Parquet of noise": ("t.parquet", b"PAR1" + bytes(200) + b"PAR1"),
    "Parquet cut": ("t.parquet", pd.DataFrame([SOUND] * 9).to_parquet()[:-20]),
    "Parquet of bytes": (
        "t.parquet",
        pd.DataFrame({"question": [b"\xff"], "answer": [b"1"]}).to_parquet(),
    ),
    "Parquet of times": (
        "t.parquet",
        pd.DataFrame({"question": [pd.Timestamp(0)], "answer": [pd.Timedelta(1)]}).to_parquet(),
    ),
    "Parquet of no rows": (
        "t.parquet",
        pd.DataFrame({"question": [], "answer": []}).to_parquet(),
    ),
    "Parquet without columns": ("t.parquet", pd.DataFrame().to_parquet()),
    "an unknown kind": ("t.xlsx", b"PK\3\4" + bytes(100)),
    "no kind": ("t", b'{"question": "q", "answer": "1"}\n'),
    "gzip": ("t.jsonl.gz", b"\x1f\x8b" + bytes(40)),
    "a pickle": ("t.pkl", b"\x80\x04."),
    "other columns": ("t.jsonl", b'{"a": 1, "b": 2}\n'),
    "ids twice": ("t.jsonl", b'{"question": "q", "answer": "1", "id": "a"}\n' * 3),
}
PLACES: dict[str, Callable[[Path], object]] = {
    "absent": lambda f: None,
    "a pipe": lambda f: os.mkfifo(f / "t.jsonl"),
    "a device": lambda f: (f / "t.jsonl").symlink_to("/dev/zero"),
    "endless noise": lambda f: (f / "t.jsonl").symlink_to("/dev/urandom"),
    "a link to itself": lambda f: (f / "t.jsonl").symlink_to("t.jsonl"),
    "an empty folder": lambda f: (f / "t.jsonl").mkdir(),
    "a folder of pipes": lambda f: ((f / "t.jsonl").mkdir(), os.mkfifo(f / "t.jsonl" / "a.jsonl")),
}
MAPS = {
    "no pair": "question",
    "an unknown key": "colour=question",
    "an unknown column": "question=nowhere",
    "a path too deep": "question=" + ".".join("a" * 900),
    "no characters": "max_characters=-1",
    "characters as a text": "max_characters=many",
    "pixels without end": "max_image_pixels=1e99",
    "an odd encoding": "encoding=klingon",
    "a codec that is none": "encoding=zlib",
    "an odd way to read": "reads=backwards",
    "a tolerance that is none": "tolerance=nan",
    "equals": "====",
    "commas": ",,,,",
    "a file that is none": "nowhere.yaml",
}
