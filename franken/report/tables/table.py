"""A table of measurements as text cells, as LaTeX, or as tidy rows.

A measurement is one row: its keys (model, arm, layer, task, metric …), `value`, `ci_low`,
`ci_high`, `n`, `p_adjusted`. A table says which keys run down and which across; everything else
follows. What is null is `–`, never 0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

Frame = Any  # a pandas DataFrame
Key = tuple[str, ...]
NUMBERS = ("value", "ci_low", "ci_high", "n", "p_adjusted")
NOTHING = "–"
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': r"\textquotedbl{}",
    "→": r"$\to$",
    "–": "--",
    "−": r"$-$",
    "¬": r"$\neg$",
    "≥": r"$\ge$",
    "±": r"$\pm$",
    "‖": r"$\Vert$",
    "Δ": r"$\Delta$",
    "\n": " ",
}


@dataclass(frozen=True)
class Table:
    """`rows` are measurements; `down` and `across` name their keys.

    percent: values are shares, written × 100. pair: a cell is several measurements with a slash,
    without intervals (the layout of acc@1/acc@4); the key that tells them apart. note: what a
    reader must know.
    """

    name: str
    title: str
    rows: Frame
    down: tuple[str, ...]
    across: tuple[str, ...]
    percent: bool = False
    pair: str = ""
    note: str = ""

    def records(self) -> list[dict[str, Any]]:
        """The measurements, null as None, keys in the order down, across, numbers."""
        keys = dict.fromkeys(
            [*self.down, *self.across, *([self.pair] if self.pair else []), *NUMBERS]
        )
        table = self.rows[[k for k in keys if k in self.rows]]
        return json.loads(table.to_json(orient="records", double_precision=12) or "[]")


def layout(table: Table) -> tuple[list[str], list[list[str]]]:
    """Heads and cells. `n` is a column where the cells of every row share it, else in the heads or
    in the cells.
    """
    cells: dict[tuple[Key, Key], list[dict[str, Any]]] = {}
    by_row: dict[Key, set[int]] = {}
    by_column: dict[Key, set[int]] = {}
    for record in table.rows.to_dict("records"):
        row, column = (tuple(_word(record[k]) for k in keys) for keys in (table.down, table.across))
        cells.setdefault((row, column), []).append(record)
        n = set() if _null(record["n"]) else {int(record["n"])}
        by_row[row] = by_row.get(row, set()) | n
        by_column[column] = by_column.get(column, set()) | n
    known = any(by_row.values()) and not table.pair
    of_rows, of_columns = (
        known and all(len(n) <= 1 for n in by.values()) for by in (by_row, by_column)
    )
    inside = known and not of_rows and not of_columns
    body = []
    for row, counts in by_row.items():
        texts = [
            _cell(cells[row, c], table, with_n=inside) if (row, c) in cells else ""
            for c in by_column
        ]
        body.append([*row, *texts, *([_counted(counts)] if of_rows else [])])
    heads = [" ".join(column).strip() for column in by_column]
    if of_columns and not of_rows:
        heads = [
            f"{h} (n={_counted(n)})" if n else h
            for h, n in zip(heads, by_column.values(), strict=True)
        ]
    return [*table.down, *heads, *(["n"] if of_rows else [])], body


def latex(table: Table) -> str:
    """A `table` environment for booktabs: `\\usepackage{booktabs}` is all it needs. Text is
    escaped.
    """
    heads, body = layout(table)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(_caption(table))}}}",
        rf"\label{{tab:{_slug(table.name)}}}",
        rf"\begin{{tabular}}{{{'l' * len(table.down)}{'r' * (len(heads) - len(table.down))}}}",
        r"\toprule",
        " & ".join(map(escape, heads)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_braced, cells)) + r" \\" for cells in body),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def csv(tables: list[Table]) -> str:
    """All measurements of some tables, one a line; a null is empty."""
    import pandas as pd

    frames = [pd.DataFrame(t.records()).assign(table=t.name) for t in tables]
    found = pd.concat(frames, ignore_index=True).astype(object)
    ends = [c for c in NUMBERS if c in found]
    found = found[["table", *(c for c in found if c not in ends and c != "table"), *ends]]
    return found.to_csv(index=False, lineterminator="\n")


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_ESCAPES.get(c, c) for c in text)


def _braced(cell: str) -> str:
    """An escaped cell; one that begins like an option of the line before it is kept apart from it."""
    text = escape(cell)
    return "{" + text + "}" if text.startswith(("[", "*")) else text


def has_intervals(table: Table) -> bool:
    """Whether its cells show 95 % intervals."""
    return not table.pair and bool(table.rows["ci_low"].notna().any())


def narrow(table: Table) -> Table:
    """The table turned by a quarter where that makes it fit a terminal better: more than nine
    columns, and fewer rows.
    """
    columns, rows = (
        len(table.rows[list(keys)].drop_duplicates()) for keys in (table.across, table.down)
    )
    return (
        replace(table, down=table.across, across=table.down)
        if columns > 9 and rows < columns
        else table
    )


def _caption(table: Table) -> str:
    unit = " In percent." if table.percent else ""
    brackets = " Brackets are 95 % intervals." if has_intervals(table) else ""
    return f"{table.title}.{unit}{brackets} {table.note}".strip()


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _word(key: Any) -> str:
    """A key as text; a missing one is empty."""
    if _null(key):
        return ""
    return str(int(key)) if isinstance(key, float) and key == int(key) else str(key)


def _null(value: Any) -> bool:
    return value is None or str(value) in ("<NA>", "nan", "NaT")


def _counted(n: set[int]) -> str:
    return str(*n)


def _cell(cells: list[dict[str, Any]], table: Table, *, with_n: bool) -> str:
    if table.pair:
        return "/".join(_value(row["value"], table.percent, "") for row in cells)
    row = cells[0]
    text = _value(row["value"], table.percent)
    if _null(row["value"]):
        return text
    if not _null(row["ci_low"]):
        text += f" [{_value(row['ci_low'], table.percent, '.2f')}, {_value(row['ci_high'], table.percent, '.2f')}]"
    p = row.get("p_adjusted")
    if p is not None and not _null(p):
        text += " p<.001" if p < 0.001 else f" p={p:.3f}".replace("0.", ".", 1)
    return f"{text} n={int(row['n'])}" if with_n and not _null(row["n"]) else text


def _value(value: Any, percent: bool, digits: str = ".3f") -> str:
    """A number as text: in percent one decimal, else `digits` unless it is very large or small;
    never a negative zero.
    """
    if _null(value):
        return NOTHING
    value = 0.0 if abs(value) < 1e-12 else float(value)
    if percent:
        return f"{round(100 * value, 1) + 0.0:.1f}"
    if value and not 0.005 <= abs(value) < 1000:
        return f"{value:.2e}" if abs(value) < 0.0005 or abs(value) >= 1e6 else f"{value:.3g}"
    return f"{round(value, 3) + 0.0:{digits or '.3f'}}"
