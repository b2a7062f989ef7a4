"""Tables that are text: JSON, lines of JSON, and separated values, with a header.

A row is read from its place in the file when it is asked for, so that a table of pictures is never
in memory (a JSON list is, and what is in UTF-16). A row that cannot be read is a `BadRow`.
"""

import codecs
import csv
import io
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from franken.errors import FrankenError, UsageError
from franken.tasks.values import from_json, kind_of

Row = Mapping[str, Any]
SEPARATORS = {".csv": ",", ".tsv": "\t"}
LOOKED_AT = 1000  # rows whose columns are the table's
WIDE = {
    codecs.BOM_UTF32_LE: "utf-32",  # begins as that of UTF-16 does
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
csv.field_size_limit(2**28)


class BadRow(dict[str, object]):
    """A row that cannot be read: no columns, and why."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


class TextTable(NamedTuple):
    """The rows of one file: its columns, how many there are, and those of some numbers."""

    columns: list[str]
    n: int
    read: Callable[[Iterable[int]], Iterator[Row]]


def open_text(file: Path, encoding: str = "") -> TextTable:
    """A table by the end of its name. `encoding` is UTF-8 where it is not given, and UTF-16 or 32
    where the file says so. Raises FrankenError for what is no table.
    """
    encoding = _encoding(file, encoding)
    if file.suffix in SEPARATORS:
        table = _separated(file, encoding, SEPARATORS[file.suffix])
    elif file.suffix == ".jsonl" or _is_lines(file, encoding):
        table = _lines(file, encoding)
    else:
        table = _json(file, encoding)
    looked = list(table.read(range(min(table.n, LOOKED_AT))))
    bad = next((row.why for row in looked if isinstance(row, BadRow)), None)
    if bad and all(isinstance(row, BadRow) for row in looked):
        raise FrankenError(bad, "so are all rows that were looked at", "repair the file")
    names = table.columns or list(dict.fromkeys(key for row in looked for key in row))
    return table._replace(columns=names)


def _encoding(file: Path, given: str) -> str:
    if given:
        try:
            "".encode(given)  # some codecs are not of texts
            return codecs.lookup(given).name
        except (LookupError, ValueError) as e:
            raise UsageError(f"no encoding {given!r}", str(e), "say encoding=latin-1") from e
    with file.open("rb") as opened:
        start = opened.read(4)
    return next((name for bom, name in WIDE.items() if start.startswith(bom)), "utf-8-sig")


def _opened(file: Path, encoding: str) -> io.BufferedIOBase:
    """The file's bytes, in UTF-8 where a character of it is not made of single bytes."""
    if not encoding.startswith(("utf-16", "utf-32", "utf_16", "utf_32")):
        return file.open("rb")
    try:
        return io.BytesIO(file.read_text(encoding).encode())
    except (UnicodeError, OSError) as e:
        raise FrankenError(f"{file.name} is not {encoding}: {e}", fix="say encoding=NAME") from e


def _decoded(line: bytes, encoding: str) -> str:
    narrow = (
        "utf-8-sig" if encoding.startswith(("utf-16", "utf-32", "utf_16", "utf_32")) else encoding
    )
    return line.decode(narrow)


def _is_lines(file: Path, encoding: str) -> bool:
    """Whether a `.json` file is lines of JSON under the wrong name."""
    with _opened(file, encoding) as opened:
        head = [line.strip() for line in (opened.readline(), opened.readline())]
    return head[0].endswith(b"}") and head[1].startswith(b"{")


def _lines(file: Path, encoding: str) -> TextTable:
    starts, numbers = array("Q"), array("Q")
    with _opened(file, encoding) as opened:
        place = 0
        for number, line in enumerate(opened, 1):
            if line.strip():
                starts.append(place)
                numbers.append(number)
            place += len(line)

    def read(rows: Iterable[int]) -> Iterator[Row]:
        with _opened(file, encoding) as opened:
            for row in rows:
                opened.seek(starts[row])
                yield _row(opened.readline(), encoding, f"{file.name}, line {numbers[row]}")

    return TextTable([], len(starts), read)


def _row(line: bytes, encoding: str, where: str) -> Row:
    try:
        row = from_json(_decoded(line, encoding))
    except UnicodeDecodeError as e:
        return BadRow(f"{where} is not {encoding.removesuffix('-sig')}: {e.reason}, byte {e.start}")
    except FrankenError as e:
        return BadRow(f"{where} is not JSON: {e.why}")
    return row if isinstance(row, dict) else BadRow(f"{where} is a {kind_of(row)}, not an object")


def _json(file: Path, encoding: str) -> TextTable:
    with _opened(file, encoding) as opened:
        try:
            content = from_json(_decoded(opened.read(), encoding))
        except UnicodeDecodeError as e:
            raise FrankenError(f"{file.name} is not UTF-8", str(e), "say encoding=NAME") from e
        except FrankenError as e:
            raise FrankenError(f"{file.name} is not JSON", e.why, "repair it") from e
    if isinstance(content, dict) and content and all(isinstance(v, dict) for v in content.values()):
        content = [{"id": key, **row} for key, row in content.items()]  # {id: row}
    if not isinstance(content, list):
        raise FrankenError(
            f"{file.name} is no table",
            "it is neither a list of rows nor a map from ids to rows",
            "give JSONL",
        )
    rows: list[Row] = [
        row if isinstance(row, dict) else BadRow(f"{file.name}, row {i} is a {kind_of(row)}")
        for i, row in enumerate(content)
    ]
    return TextTable([], len(rows), lambda numbers: (rows[number] for number in numbers))


def _separated(file: Path, encoding: str, mark: str) -> TextTable:
    with _opened(file, encoding) as opened:
        lines = _Counted(opened, encoding)
        try:
            reader = csv.reader(lines, delimiter=mark)
            header = next(reader, [])
        except (csv.Error, UnicodeDecodeError) as e:
            raise FrankenError(f"{file.name} has no header", str(e), "say encoding=NAME") from e
        if not header or len(set(header)) < len(header):
            raise FrankenError(f"{file.name} has no header", f"its first line is {header}"[:200])
        starts = array("Q", [lines.place])
        while True:
            try:
                record = next(reader, None)
            except (csv.Error, UnicodeDecodeError):
                record = []  # read again, and named, when it is asked for
                reader = csv.reader(lines, delimiter=mark)
            if record is None:
                break
            starts.append(lines.place)

    def read(rows: Iterable[int]) -> Iterator[Row]:
        with _opened(file, encoding) as opened:
            for row in rows:
                opened.seek(starts[row])
                yield _record(_Counted(opened, encoding), mark, header, f"{file.name}, row {row}")

    return TextTable(header, len(starts) - 1, read)


class _Counted:
    """Lines as text, and how many bytes of the file they took."""

    def __init__(self, file: io.BufferedIOBase, encoding: str) -> None:
        self.file, self.encoding, self.place = file, encoding, file.tell()

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> str:
        line = self.file.readline()
        if not line:
            raise StopIteration
        self.place += len(line)
        return _decoded(line, self.encoding)


def _record(lines: _Counted, mark: str, header: Sequence[str], where: str) -> Row:
    try:
        cells = next(csv.reader(lines, delimiter=mark), [])
    except (csv.Error, UnicodeDecodeError) as e:
        return BadRow(f"{where} cannot be read: {e}")
    if len(cells) != len(header):
        return BadRow(f"{where} has {len(cells)} cells, and the header {len(header)}")
    return {name: cell if cell.strip() else None for name, cell in zip(header, cells, strict=True)}
