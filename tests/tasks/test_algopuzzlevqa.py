"""The public benchmark, row by row, from the initial state and the question alone."""

import json

import pytest
from public_data import needs, public

from franken.errors import FrankenError, UsageError
from franken.tasks import algopuzzlevqa as apv

PUBLIC = public("algopuzzlevqa")
TYPES = sorted(apv.READERS)
WHOLE = ("clock", "maze", "move_box", "n_queens", "number_slide")

# What the issue of the benchmark lists, and every other field that repeats what solves the row.
SOLVING = {
    "add_hour",
    "add_minute",
    "subtract_hour",
    "subtract_minute",
    "optimal_path",
    "optimal_path_length",
    "left_turns",
    "right_turns",
    "total_turns",
    "box_location",
    "missing_queen_positions",
    "total_moves",
    "path_track",
    "possible_states",
    "unique_positions",
    "board",
    "cuts",
    "joins",
    "each_cut_time",
    "each_join_time",
    "total_time",
    "num_steps",
    "swaps",
    "in_position",
    "out_of_position",
    "shuffled_order",
    "possible_colours_of_unknown",
    "unique_maps",
    "state_after_moves",
    "final_state",
    "effective_rotation",
    "direction",
    "rotated_colors",
    "rotated_boundaries",
    "rotated_prizes",
    "squares_of_color1",
    "squares_of_color2",
    "query_year",
    "query_month",
    "query_day",
    "query_face",
    "query_colour",
    "polygon_adjacency_list",
    "end",
    "moves",
}


def bare(puzzle_type: str, solution: dict) -> dict:
    """`solution` without what solves the row, made here by hand and not by the loader."""
    kept = {name: value for name, value in solution.items() if name not in SOLVING}
    if puzzle_type == "rubiks_cube":
        kept.pop("end_position")
    for name in ("timestep", "steps"):
        if name in kept:
            first = kept[name][:1] if name == "steps" else dict([next(iter(kept[name].items()))])
            kept[name] = first
    return kept


@needs("algopuzzlevqa")
@pytest.mark.parametrize("puzzle_type", TYPES)
def test_every_public_row_agrees(puzzle_type):
    found = apv.verify(apv.load(PUBLIC / f"{puzzle_type}.json"))
    assert found["rows"] == (100 if puzzle_type in WHOLE else 8)
    assert found["agree"] == found["rows"], found["disagree"]


@needs("algopuzzlevqa")
@pytest.mark.parametrize("puzzle_type", TYPES)
def test_verdicts_need_nothing_that_solves_the_row(puzzle_type, tmp_path):
    """Without those fields, and with a wrong answer published, the verdict is the same."""
    whole = (PUBLIC / f"{puzzle_type}.json").read_text().splitlines()
    rows = [json.loads(line) for line in whole]
    for row in rows:
        row["solution"] = bare(puzzle_type, row["solution"])
    path = tmp_path / f"{puzzle_type}.json"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert apv.verify(apv.load(path)) == apv.verify(apv.load(PUBLIC / path.name))
    for row in rows:
        row["answer"] = "none of them"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    wrong = apv.verify(apv.load(path))
    assert wrong["agree"] == 0
    published = {row.id: row.answer for row in apv.load(PUBLIC / path.name)}
    assert all(apv.same(published[d["id"]], d["ours"]) and d["why"] for d in wrong["disagree"])


@needs("algopuzzlevqa")
def test_rows_load_in_their_own_format():
    row = apv.load(PUBLIC / "n_queens.json")[0]
    assert row.id == "n_queens_0000"
    assert row.options == ("3", "5", "15", "10")
    assert row.image is not None
    assert row.image.is_file()
    assert set(row.solution) == {"rows", "columns", "given_queen_positions"}


def test_rows_that_cannot_be_judged_are_counted_and_say_why(tmp_path):
    good = {"current_hour": 2, "current_minute": 43}
    question = "Ann's event is going to start in 1 hour 40 minutes."
    rows = [
        json.dumps(
            {
                "image": "a/c_1.jpg",
                "question": question,
                "options": [],
                "answer": "4:23",
                "solution": good,
            }
        ),
        "{no json",
        json.dumps({"question": question, "answer": "4:23", "solution": {"current_hour": 2}}),
        json.dumps({"question": "What is it?", "answer": "4:23", "solution": good}),
        json.dumps({"question": question, "answer": "4:24", "solution": good}),
        json.dumps([1, 2]),
    ]
    path = tmp_path / "clock.json"
    path.write_text("\n".join(rows))
    found = apv.verify(apv.load(path))
    assert found["rows"] == 6
    assert found["agree"] == 1
    assert [(d["id"], d["ours"]) for d in found["disagree"]] == [
        ("clock_0001", None),
        ("clock_0002", None),
        ("clock_0003", None),
        ("clock_0004", "4:23"),
        ("clock_0005", None),
    ]
    assert all(d["why"] for d in found["disagree"])


def test_a_folder_without_the_benchmark_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no puzzle of the benchmark"):
        apv.files(tmp_path)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "clock.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FrankenError, match="cannot read"):
        apv.load(tmp_path / "clock.json")


def test_answers_are_compared_as_what_they_mean():
    assert apv.same("0:15", "12:15")
    assert apv.same(" Yes", "yes")
    assert not apv.same("0:15", "0:16")
    assert not apv.same("1", "11")
