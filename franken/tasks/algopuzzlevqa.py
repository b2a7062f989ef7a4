"""AlgoPuzzleVQA in its own format (Ghosal et al., 2024, arXiv:2403.03864): load it, and check its
answers.

A folder holds one `<type>.json` a puzzle type, one JSON object a line: image, question, options,
answer, solution. The `solution` holds the initial state and what solves it; `initial` keeps the
first and drops the second before anything else sees the row, so that `verify` derives every answer
from the initial state and the question alone.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from franken.errors import FrankenError, UsageError
from franken.tasks.algopuzzlevqa_rows import READERS
from franken.tasks.puzzles.solved import Solved, Unsolvable

# The fields of `solution` that describe the initial state (and the goal, where the picture shows
# one). Of `steps` and
# `timestep` only the first entry is kept. Everything else solves the row, or repeats it.
INITIAL = {
    "board_tile": ("rows", "columns", "removed_positions"),
    "calendar": ("image_year", "image_month"),
    "chain_link": ("steps",),
    "checker_move": ("start_position", "end_position"),
    "clock": ("current_hour", "current_minute"),
    "colour_hue": ("ideal_grid", "shuffled_grid"),
    "map": ("polygon_vertices", "known_colours"),
    "maze": ("maze",),
    "move_box": ("ids", "timestep", "target"),
    "n_queens": ("rows", "columns", "given_queen_positions"),
    "number_slide": ("starting_grid",),
    "rotting_kiwi": ("ids", "timestep"),
    "rubiks_cube": ("start_position",),
    "think_dot": ("start_state",),
    "tower_of_hanoi": ("start_position", "end_position"),
    "water_jugs": ("start",),
    "wheel_of_fortune": ("angles", "arrow_at", "original_boundaries", "original_prizes"),
    "wood_slide": ("start_position", "end_position"),
}


@dataclass(frozen=True)
class Row:
    """One row of the benchmark. `solution` holds the initial state alone; a broken row carries an
    `error`.
    """

    id: str
    type: str
    image: Path | None
    question: str
    options: tuple[str, ...]
    answer: str
    solution: dict[str, Any]
    error: str | None = None


def initial(puzzle_type: str, solution: dict[str, Any]) -> dict[str, Any]:
    """The part of a published `solution` that describes the initial state; the rest is dropped
    unread.
    """
    kept = {name: solution[name] for name in INITIAL[puzzle_type] if name in solution}
    if isinstance(kept.get("timestep"), dict):
        first = min(kept["timestep"], key=lambda name: int(name.rpartition("_")[2]), default="")
        kept["timestep"] = {first: kept["timestep"][first]} if first else {}
    if isinstance(kept.get("steps"), list):
        kept["steps"] = kept["steps"][:1]
    return kept


def files(folder: Path) -> dict[str, Path]:
    """The types found in a folder and their files, by name. Raises UsageError when there is
    none.
    """
    tables = {path.stem: path for path in sorted(folder.glob("*.json")) if path.stem in INITIAL}
    if not tables:
        raise UsageError(
            f"no puzzle of the benchmark in {folder}",
            why="it holds no <type>.json" if folder.is_dir() else "it is not a folder",
            fix=f"the types are {', '.join(sorted(INITIAL))}",
        )
    return tables


def load(path: Path) -> list[Row]:
    """The rows of one `<type>.json`, none left out: a row that cannot be read carries its error."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise FrankenError(f"cannot read {path}", why=str(e)) from e
    return [_row(path, number, line) for number, line in enumerate(lines) if line.strip()]


def _row(path: Path, number: int, line: str) -> Row:
    puzzle_type, name = path.stem, f"{path.stem}_{number:04d}"
    try:
        raw = json.loads(line)
        image = raw.get("image")
        return Row(
            id=Path(image).stem if image else name,
            type=puzzle_type,
            image=path.parent / image if image else None,
            question=str(raw["question"]),
            options=tuple(str(option) for option in raw.get("options", ())),
            answer=str(raw["answer"]),
            solution=initial(puzzle_type, raw["solution"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        return Row(
            name,
            puzzle_type,
            None,
            "",
            (),
            "",
            {},
            error=f"line {number + 1} is no row: {_reason(e)}",
        )


def solve(row: Row) -> Solved:
    """Our answer to a row, from its initial state and its question. Raises FrankenError when it
    cannot be judged.
    """
    if row.error:
        raise FrankenError("the row cannot be read", why=row.error)
    solver: Callable[..., Solved]
    solver, read = READERS[row.type]
    try:
        return solver(*read(row.question, row.solution))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration) as e:
        raise FrankenError("the state does not have the published shape", why=_reason(e)) from e


class Disagreement(TypedDict):
    """A published answer that the solver does not share; `ours` is None where it cannot judge."""

    id: str
    published: str
    ours: str | None
    why: str


class Verified(TypedDict):
    """How many of a task's published answers the solver agrees with."""

    rows: int
    agree: int
    disagree: list[Disagreement]


def verify(rows: list[Row]) -> Verified:
    """Solve the rows and compare with what is published."""
    agree, disagree = 0, list[Disagreement]()
    for row in rows:
        ours: str | None = None
        try:
            solved = solve(row)
            ours, why = solved.answer, solved.why
        except Unsolvable as e:  # a verdict: whatever is published, it is not the one answer
            ours, why = e.what, e.why
        except FrankenError as e:
            why = f"{e.what}: {e.why}" if e.why else e.what
        if ours is not None and same(row.answer, ours):
            agree += 1
        else:
            disagree.append({"id": row.id, "published": row.answer, "ours": ours, "why": why})
    return {"rows": len(rows), "agree": agree, "disagree": disagree}


def same(published: str, ours: str) -> bool:
    """Whether two answers are the same one: case and outer space carry no meaning, and 0:15 is
    12:15 on a clock.
    """
    return _plain(published) == _plain(ours)


def _plain(answer: str) -> str:
    text = answer.strip().casefold()
    time = re.fullmatch(r"(\d{1,2}):(\d\d)", text)
    return f"{int(time[1]) % 12}:{time[2]}" if time else text


def _reason(error: Exception) -> str:
    return (
        f"there is no {error}"
        if isinstance(error, KeyError)
        else str(error) or type(error).__name__
    )
