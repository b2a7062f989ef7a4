"""Measurements laid out as a table, or written as tidy rows in CSV and JSON.

A measurement is one row: its keys (model, arm, layer, task, metric …), `value`, `ci_low`,
`ci_high`, `n`, `p_adjusted`. A layout says which keys run down and which across; everything else
follows. What is missing is `–`, never 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from franken.report.tables.table import NOTHING, Table

if TYPE_CHECKING:
    from collections.abc import Hashable

Key = tuple[str, ...]
NUMBERS = ("value", "ci_low", "ci_high", "n", "p_adjusted")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a spreadsheet's formulas begin


class Measurement(NamedTuple):
    """The numbers of one cell; nan is missing."""

    value: float
    low: float
    high: float
    n: float
    p: float


@dataclass(frozen=True)
class Measurements:
    """`rows` are measurements; `down` and `across` name their keys.

    percent: values are shares, written × 100. pair: a cell is several measurements with a slash,
    without intervals (the layout of acc@1/acc@4); it names the key that tells them apart. note:
    what a reader must know. columns: the keys across, in this order, also those without a row.
    write: another way to write a cell, which then has no n and no p of its own.
    """

    name: str
    title: str
    rows: pd.DataFrame
    down: tuple[str, ...]
    across: tuple[str, ...]
    percent: bool = False
    pair: str = ""
    note: str = ""
    columns: Sequence[str] = ()
    write: Callable[[Measurement], str] | None = None

    def records(self) -> list[dict[str, object]]:
        """The measurements, null as None, keys in the order down, across, numbers."""
        keys = dict.fromkeys([*self.down, *self.across, *filter(None, [self.pair]), *NUMBERS])
        table = self.rows[[k for k in keys if k in self.rows]]
        return json.loads(table.to_json(orient="records", double_precision=12) or "[]")

    def narrow(self) -> Measurements:
        """Turned by a quarter where that fits a terminal better: more than nine columns, and fewer
        rows.
        """
        across, down = (len(self.rows[list(k)].drop_duplicates()) for k in (self.across, self.down))
        turn = across > 9 and down < across
        return replace(self, down=self.across, across=self.down) if turn else self

    def table(self) -> Table:
        """The cells as text. `n` is a column where the cells of every row share it, else in the
        heads where those of every column do, else in the cells.
        """
        cells: dict[tuple[Key, Key], list[Measurement]] = {}
        by_row: dict[Key, set[int]] = {}
        by_column: dict[Key, set[int]] = {(column,): set() for column in self.columns}
        for row, column, numbers in self._measurements():
            cells.setdefault((row, column), []).append(numbers)
            n = set() if isnan(numbers.n) else {int(numbers.n)}
            by_row[row] = by_row.get(row, set()) | n
            by_column[column] = by_column.get(column, set()) | n
        counted = any(by_row.values()) and not self.pair and self.write is None
        of_rows, of_columns = (
            counted and all(len(n) <= 1 for n in by.values()) for by in (by_row, by_column)
        )
        inside = counted and not of_rows and not of_columns
        heads = [" ".join(column).strip() for column in by_column]
        if of_columns and not of_rows:
            counts = (f" (n={min(n)})" if n else "" for n in by_column.values())
            heads = [head + count for head, count in zip(heads, counts, strict=True)]
        body = [
            [*row, *(self._cell(cells.get((row, c), []), with_n=inside) for c in by_column)]
            + ([str(*n)] if of_rows else [])
            for row, n in by_row.items()
        ]
        return Table(
            [*self.down, *heads, *(["n"] if of_rows else [])],
            body,
            self.title,
            self.note,
            self.name,
            len(self.down),
            self.percent,
            intervals=not self.pair and bool(self.rows["ci_low"].notna().any()),
        )

    def _measurements(self) -> Iterable[tuple[Key, Key, Measurement]]:
        keys = [self.rows[list(k)].itertuples(index=False) for k in (self.down, self.across)]
        numbers = (
            self.rows.reindex(columns=list(NUMBERS)).astype("Float64").to_numpy(float, na_value=nan)
        )
        for down, across, values in zip(*keys, numbers.tolist(), strict=True):
            yield tuple(map(_word, down)), tuple(map(_word, across)), Measurement(*values)

    def _cell(self, numbers: list[Measurement], *, with_n: bool) -> str:
        if not numbers:
            return ""
        if self.pair:
            return "/".join(_number(m.value, self.percent) for m in numbers)
        first = numbers[0]
        if self.write:
            return self.write(first)
        text = _number(first.value, self.percent)
        if isnan(first.value):
            return text
        if not isnan(first.low):
            low, high = (_number(end, self.percent, 2) for end in (first.low, first.high))
            text += f" [{low}, {high}]"
        if not isnan(first.p):
            text += " p<.001" if first.p < 0.001 else f" p={first.p:.3f}".replace("0.", ".", 1)
        return f"{text} n={int(first.n)}" if with_n and not isnan(first.n) else text


def to_csv(tables: Iterable[Measurements]) -> str:
    """All measurements of some tables, one a line; a null is empty.

    Text that a spreadsheet would read as a formula gets an apostrophe in front.
    """
    frames = [pd.DataFrame(t.records()).assign(table=t.name) for t in tables]
    rows = pd.concat(frames, ignore_index=True).astype(object)
    ends = [c for c in NUMBERS if c in rows]
    keys = ["table", *(c for c in rows if c not in ends and c != "table")]
    rows[keys] = rows[keys].map(_inert)
    return rows[[*keys, *ends]].to_csv(index=False, lineterminator="\n")


def brief(numbers: Measurement) -> str:
    """`0.93 [0.88 0.96]`, `-` where there is no value: how a verb prints what it measured."""
    if isnan(numbers.value):
        return "-"
    interval = "" if isnan(numbers.low) else f" [{numbers.low:.2f} {numbers.high:.2f}]"
    return f"{numbers.value:.3g}{interval}"


def share(numbers: Measurement) -> str:
    """`0.55 [0.47 0.62]`, `0.55` where no interval is known, `-` where there is no value; never a
    negative zero.
    """
    if isnan(numbers.value):
        return "-"
    value, low, high = (round(x, 2) + 0.0 for x in (numbers.value, numbers.low, numbers.high))
    return f"{value:.2f}" if isnan(low) else f"{value:.2f} [{low:.2f} {high:.2f}]"


def _inert(value: Hashable) -> Hashable:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _word(key: Hashable) -> str:
    """A key as text; a missing one is empty."""
    if key is None or str(key) in ("<NA>", "nan", "NaT"):
        return ""
    return str(int(key)) if isinstance(key, float) and key == int(key) else str(key)


def _number(value: float, percent: bool, digits: int = 3) -> str:
    """A number as text: in percent with one decimal, else with `digits` unless it is very large or
    small; never a negative zero.
    """
    if isnan(value):
        return NOTHING
    value = 0.0 if abs(value) < 1e-12 else value
    if percent:
        return f"{round(100 * value, 1) + 0.0:.1f}"
    if value and not 0.005 <= abs(value) < 1000:
        return f"{value:.2e}" if abs(value) < 0.0005 or abs(value) >= 1e6 else f"{value:.3g}"
    return f"{round(value, 3) + 0.0:.{digits}f}"
