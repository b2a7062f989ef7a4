"""What every arm shows, and that no arm shows more: descriptions, twins, black images, hints."""

import numpy as np
import pytest
from PIL import Image

from franken import tasks
from franken.errors import UsageError
from franken.evaluate.arms import ARMS, misled, obstacle, parse_arms, prompt_for
from franken.evaluate.hints import AIDS, hint, needed_slots
from franken.tasks import Item
from franken.tasks.grading import grade_exact


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return [
        item
        for name in ("recognise", "read", "count", "sum", "compare")
        for item in tasks.get(name).items(12, 3, "test")
    ]


def test_arms_with_aids_are_parsed_in_order_and_checked():
    assert parse_arms("text+plan,image+think,image,text") == (
        "image",
        "image+think",
        "text",
        "text+plan",
    )
    with pytest.raises(UsageError, match="unknown aid 'plann'") as caught:
        parse_arms("image+plann")
    assert "did you mean 'plan'?" in caught.value.fix
    with pytest.raises(UsageError, match="cannot be"):
        parse_arms("describe+plan")


def test_each_view_shows_what_it_says(items):
    for item in items:
        assert item.image is not None
        shown = {arm: prompt_for(item, arm) for arm in ARMS}
        assert {arm for arm, p in shown.items() if p.images} == set(ARMS) - {
            "text",
            "blind",
            "corrupted",
        }
        assert all(p.images[0].size == item.image.size for p in shown.values() if p.images)
        assert shown["image"].images[0] is item.image
        assert not np.asarray(shown["black"].images[0]).any()
        assert {arm for arm, p in shown.items() if item.description in p.text} == {
            "text",
            "both",
            "black-text",
        }
        assert shown["blind"].text == shown["black"].text == shown["restyled"].text == item.question
        assert shown["describe"].text == "Describe rows"
        assert {p.key for p in shown.values()} == {item.id}
        assert all(obstacle(item, arm) == (None, None) for arm in ARMS)


def test_a_corrupted_description_differs_in_one_fact_and_leads_elsewhere(items):
    for item in items:
        puzzle, found = tasks.get(item.task), misled(item)
        assert found == misled(item)
        assert found is not None
        wrong, answer = found
        one, two = puzzle.facts(item.state), puzzle.facts(puzzle.parse(wrong))
        assert sum(one[slot] != two[slot] for slot in one) == 1
        assert not grade_exact(answer, item.answer).score
        assert answer == puzzle.answer(puzzle.parse(wrong), item.query)
        assert wrong in prompt_for(item, "corrupted").text
        assert prompt_for(item, "conflict").images == (item.image,)


def test_a_restyled_image_keeps_every_colour_apart():
    """Blurring and fading move no pixel of a thing's middle closer to another colour."""
    from franken.tasks.grid import RGB, Thing, render

    things = [Thing(color, "square") for color in RGB]
    grid = tuple(things[i % 4] for i in range(9))
    item = Item("i", "count", "How many?", "1", render(grid), "d")
    faded = np.asarray(prompt_for(item, "restyled").images[0], float)
    centres = {i: faded[28 * (i // 3) + 14, 28 * (i % 3) + 14] for i in range(9)}
    reference = {
        color: np.mean([c for i, c in centres.items() if grid[i].color == color], 0)
        for color in RGB
    }
    for i, pixel in centres.items():
        assert min(reference, key=lambda c: np.abs(reference[c] - pixel).sum()) == grid[i].color
    assert np.abs(faded - np.asarray(item.image, float)).mean() > 5


def test_hints_give_away_no_more_than_they_say(items):
    for item in items:
        facts = tasks.get(item.task).facts(item.state)
        values = {word for value in facts.values() for word in value.split()} - {"empty"}
        plan, asked, told = (hint(item, aid) for aid in ("plan", "subquestions", "facts"))
        assert all((plan, asked, told))
        assert not values & set(plan.split())
        assert not values & set(asked.replace("?", "").split())
        if (
            item.task != "compare"
        ):  # there the answer is the name of a cell, and both cells are named
            assert item.answer not in plan.split()
        else:
            assert len(plan.split()) == 4  # fwd, two cells, so
        assert all(
            f"{slot} {facts[slot]}" in item.description for slot in facts if f"{slot} " in told
        )


def test_hints_by_hand():
    item = next(i for i in tasks.get("sum").items(50, 0, "test"))
    first, second = (
        tasks.get("sum").question(item.state, item.query).split()[i].strip("?") for i in (2, 4)
    )
    assert hint(item, "plan") == f"fwd {first} {second} ="
    assert hint(item, "subquestions") == f"What is {first}? What is {second}?"
    assert (
        prompt_for(item, "text+plan").text
        == f"{item.description} fwd {first} {second} = {item.question}"
    )
    assert prompt_for(item, "image+think").text.startswith(f"{item.question} Think step by step")
    assert needed_slots("a b c", {"x": "1", "c": "2", "a": "3"}) == ["a", "c"]
    assert needed_slots("nothing named", {"x": "1", "y": "2"}) == ["x", "y"]


def test_public_items_are_ineligible_where_a_puzzle_is_needed():
    item = Item("i", "ocr", "Read.", "1", Image.new("RGB", (4, 4)), "words")
    for arm in ("corrupted", "conflict", "describe", *(f"image+{aid}" for aid in AIDS[:3])):
        error, ineligible = obstacle(item, arm)
        assert error is None
        assert ineligible
    assert obstacle(item, "image+think") == (None, None)
    assert obstacle(Item("i", "ocr", "Read.", "1", None, "words", error="gone"), "black") == (
        "gone",
        None,
    )
