"""A table as text: heads above rows of cells, for a terminal, for LaTeX and for the page.

A cell is plain text wherever it came from: a square bracket in a reply is no markup on a terminal,
and LaTeX's special characters are escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table as RichTable

NOTHING = "–"  # a measurement that is missing; never 0
_ESCAPES = str.maketrans(
    {
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
)


class Cell(NamedTuple):
    """A cell of the page: its text, smaller lines below it, and the run folders it comes from."""

    text: str
    below: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    mark: str = ""  # a class of page.css
    dot: str = ""  # the colour of a dot before the text

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """Rows of cells below heads; the first `texts` columns hold words, the others numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[object]]  # cells; anything else is shown as `str` writes it
    title: str = ""
    note: str = ""  # what a reader must know
    name: str = ""
    texts: int = 1
    percent: bool = False  # the numbers are shares, written × 100
    intervals: bool = False  # brackets in the cells are 95 % intervals


def to_rich(table: Table) -> RichTable:
    """The table for a terminal."""
    from rich.table import Column
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(*(Column(Text(str(head))) for head in table.heads))
    for row in table.rows:
        drawn.add_row(*(Text(str(cell)) for cell in row))
    return drawn


def to_latex(table: Table) -> str:
    r"""A `table` environment; `\usepackage{booktabs}` is all it needs."""
    import pandas as pd

    heads = [escape(head) for head in table.heads]
    cells = pd.DataFrame([[_braced(str(cell)) for cell in row] for row in table.rows])
    units = " In percent." if table.percent else ""
    units += " Brackets are 95 % intervals." if table.intervals else ""
    label = "".join(c if c.isalnum() else "-" for c in table.name)
    return (
        cells.set_axis(heads, axis="columns")
        .style.hide(axis="index")
        .to_latex(
            column_format="l" * table.texts + "r" * (len(heads) - table.texts),
            caption=escape(f"{table.title}.{units} {table.note}".strip()),
            label=f"tab:{label}",
            position_float="centering",
            hrules=True,
        )
        .rstrip("\n")
    )


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return text.translate(_ESCAPES)


def _braced(cell: str) -> str:
    """A cell that begins like an option is kept apart from the end of the line before it."""
    text = escape(cell)
    return "{" + text + "}" if text.startswith(("[", "*")) else text
