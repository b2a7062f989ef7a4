"""Reading answers out of replies."""

import pytest

from franken.tasks.grading import extract, grade_exact, is_well_formed, reasoning


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<think> a </think><answer> 7 </answer>", "7"),
        ("<answer>first</answer> <answer>second</answer>", "first"),
        ("so \\boxed{1} or rather \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("<answer> 3 </answer> \\boxed{4}", "3"),
        ("thinking\n\nthe last line", "the last line"),
        ("\\boxed{never closed", "\\boxed{never closed"),
        ("   \n ", None),
        ("", None),
    ],
)
def test_extract(reply, answer):
    assert extract(reply) == answer


@pytest.mark.parametrize(
    ("reply", "gold", "score"),
    [
        ("<answer> Red. </answer>", "red", 1.0),
        ("<answer> 0.25 </answer>", "25", 0.0),
        ("<answer> 7.0 </answer>", "7", 1.0),
        ("<answer> 17 </answer>", "7", 0.0),
        ("<answer> not red </answer>", "red", 0.0),
        ("<answer></answer>", "red", 0.0),
        ("", "red", 0.0),
    ],
)
def test_grade_exact(reply, gold, score):
    assert grade_exact(reply, gold).score == score


@pytest.mark.parametrize(
    ("reply", "formed"),
    [
        ("<think> a </think><answer> b </answer>", True),
        (" <think>a</think>\n<answer>b</answer> ", True),
        ("<answer>b</answer>", False),
        ("<think>a</think><answer>b</answer> more", False),
        ("<think>a<think>b</think><answer>c</answer>", False),
        ("<think>a</think><answer>b", False),
    ],
)
def test_well_formed(reply, formed):
    assert is_well_formed(reply) is formed


def test_reasoning_is_the_text_between_the_tags():
    assert reasoning("<think> rows r1c1 </think><answer>1</answer>") == "rows r1c1"
    assert reasoning("no tags") == ""
