"""The public puzzles as a source of questions: every row accounted for, arm by arm."""

import json
from collections import Counter
from pathlib import Path

import pytest
from public_data import needs, public

from franken.errors import UsageError
from franken.evaluate.run import run_eval
from franken.models import creature
from franken.runs import load_run
from franken.tasks import grade
from franken.tasks.algopuzzlevqa_items import is_folder, load_items
from franken.tasks.sources import canonical, load_tasks, open_stream

PUBLIC = public("algopuzzlevqa")
CLOCK = {
    "image": "images/clock/clock_0000.jpg",
    "answer": "4:23",
    "options": ["1:14", "4:23"],
    "question": "Daniel's event is going to start in 1 hour 40 minutes. The current time is shown on the "
    "clock. What will be the time when the event starts?",
    "solution": {"current_hour": 2, "current_minute": 43, "add_hour": 1, "add_minute": 40},
}


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    (tmp_path / "images" / "clock").mkdir(parents=True)
    Image.new("RGB", (84, 84), "white").save(tmp_path / "images/clock/clock_0000.jpg")
    rows = [
        CLOCK,
        {**CLOCK, "image": "images/clock/gone.jpg"},
        {**CLOCK, "image": "../../outside.jpg"},
    ]
    (tmp_path / "clock.json").write_text("\n".join([*map(json.dumps, rows), "not json"]))
    return tmp_path


def test_rows_without_an_image_keep_question_and_description(folder):
    whole, gone, outside, broken = load_items(folder)
    assert is_folder(folder)
    assert not is_folder(folder / "images")
    assert (whole.error, whole.image is None) == (None, False)
    assert "2" in whole.description
    assert "43" in whole.description
    assert "4:23" not in whole.description
    assert gone.error == "gone.jpg cannot be read: it is missing"
    assert "outside the data folder" in str(outside.error)
    assert gone.description == outside.description == whole.description
    assert broken.question == ""
    assert "no row" in str(broken.error)


def test_an_evaluation_accounts_for_every_row_in_every_arm(folder, tmp_path):
    creature.save(creature.build_model(0), tmp_path / "model")
    (done,) = run_eval(
        [str(tmp_path / "model")],
        data=folder,
        arms="image,text,blind,black",
        n=1,
        k=(1,),
        max_new_tokens=3,
        out=tmp_path / "out",
    )
    rows = load_run(done).samples
    assert len(rows) == 4 * 4 * 2
    failed = Counter(rows[rows["error"].notna()]["method"])
    assert failed == {"image": 3 * 2, "text": 2, "blind": 2, "black": 3 * 2}
    assert rows[rows["error"].isna()]["output"].notna().all()


def test_changed_data_are_another_run(folder, tmp_path):
    creature.save(creature.build_model(0), tmp_path / "model")

    def run() -> Path:
        model, out = str(tmp_path / "model"), tmp_path.with_name(f"{tmp_path.name}-out")
        (done,) = run_eval(
            [model], data=folder, samples=1, arms="text", n=1, k=(1,), max_new_tokens=2, out=out
        )
        return done

    first = run()
    assert run() == first
    (folder / "clock.json").write_text(json.dumps({**CLOCK, "answer": "1:14"}))
    assert run() != first


def test_with_choice_the_published_options_are_shown_and_the_answer_is_a_letter(folder):
    (folder / "maze.json").write_text(json.dumps({**CLOCK, "options": ["1:14", "2:15"]}))
    shown = load_tasks(["clock"], 9, 0, canonical(f"{folder}+choice"))
    whole, gone, _, broken = shown
    assert [i.task for i in shown] == ["clock+choice"] * 4
    assert whole.question == f"{CLOCK['question']}\n(A) 1:14\n(B) 4:23"
    assert (whole.answer, whole.options, whole.error) == ("B", ("1:14", "4:23"), None)
    assert grade("<answer> B </answer>", whole).score == 1.0
    assert grade("<answer> 4:23 </answer>", whole).score == 1.0
    assert grade("<answer> A </answer>", whole).score == 0.0
    assert (gone.answer, gone.error) == ("B", "gone.jpg cannot be read: it is missing")
    assert "no row" in str(broken.error)
    (without,) = load_tasks(["maze+choice"], 9, 0, canonical(f"{folder}+choice"))
    assert without.error == "0 of the 2 options are the answer '4:23'"
    assert load_tasks(["clock"], 9, 0, canonical(folder))[0].answer == "4:23"


def test_choice_is_for_the_public_puzzles_alone(folder, tmp_path):
    with pytest.raises(UsageError, match="no data"):
        canonical(f"{tmp_path / 'nowhere'}+choice")
    (tmp_path / "x+choice").mkdir()
    assert canonical(tmp_path / "x+choice") == str((tmp_path / "x+choice").resolve())


@needs("algopuzzlevqa")
def test_every_published_row_is_an_item_with_a_description_that_does_not_hold_its_solution():
    items = load_items(PUBLIC)
    lines = sum(len(p.read_text().splitlines()) for p in PUBLIC.glob("*.json"))
    assert len(items) == lines
    assert all(i.question and i.answer and i.description and i.state is not None for i in items)
    assert len({i.id for i in items}) == lines
    missing = [i for i in items if i.image is None]
    assert all("missing" in str(i.error) for i in missing)
    assert 0 < len(missing) < lines


@needs("algopuzzlevqa")
def test_every_published_row_has_its_answer_among_its_options():
    items = load_items(PUBLIC, choice=True)
    assert not [i.id for i in items if i.error and "options" in i.error]
    assert all(
        i.task.endswith("+choice") and len(i.answer) == 1 and len(i.options) > 1 for i in items
    )


def test_training_draws_the_options_where_the_source_asks_for_them(folder):
    """A stream to train on asks what an evaluation of the same source asks."""
    for spec in (str(folder), f"{folder}+choice"):
        stream = open_stream(spec)
        shown = load_tasks([], 9, 0, canonical(spec))
        drawn = stream.pick(range(stream.size))
        assert [(i.task, i.question, i.answer) for i in drawn] == [
            (i.task, i.question, i.answer) for i in shown
        ]
        assert stream.texts() == [i.question for i in drawn]
