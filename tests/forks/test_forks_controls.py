"""Controls have as many places as the forks, chosen as they say, the same for the same seed."""

import pytest

from franken.forks.controls import (
    Forked,
    least_entropy,
    places_of_another,
    random_places,
)

DRAWS = {
    ("count", "a", 0): Forked(10, [0.1 * i for i in range(10)], [2, 7]),
    ("count", "a", 1): Forked(10, [0.0] * 10, [1]),
    ("count", "b", 0): Forked(6, [0.5] * 6, [3]),
    ("count", "c", 0): Forked(8, [0.5] * 8, [0, 4, 5]),
    ("sum", "d", 0): Forked(8, [0.5] * 8, [6, 7]),
    ("sum", "e", 0): Forked(3, [0.5] * 3, []),
}


def test_random_places_are_as_many_and_uniform():
    draw = ("count", "a", 0)
    found = [random_places(seed, draw, DRAWS[draw]) for seed in range(2000)]
    assert all(len(set(places)) == 2 and set(places) <= set(range(10)) for places in found)
    counts = [sum(place in places for places in found) for place in range(10)]
    assert all(count == pytest.approx(400, abs=90) for count in counts)
    assert found[0] == random_places(0, draw, DRAWS[draw])
    assert random_places(0, ("sum", "e", 0), DRAWS["sum", "e", 0]) == []
    assert random_places(0, draw, Forked(1, [0.0], [2, 7])) == [0]


def test_the_least_entropy_lets_as_many_tokens_through_however_it_is_rounded():
    assert least_entropy(DRAWS["count", "a", 0]) == pytest.approx(0.75)
    for forked in DRAWS.values():
        least = least_entropy(forked)
        through = [e for e in forked.entropy if e + 1e-6 >= least]
        assert len(through) >= len(forked.places)
        assert len([e for e in forked.entropy if e > least + 1e-6]) <= len(forked.places)
    assert least_entropy(Forked(2, [0.1, 0.2], [0, 1])) == -float("inf")
    assert least_entropy(Forked(2, [0.1, 0.2], [])) == float("inf")


def test_places_of_another_reply_are_of_the_same_task_and_another_prompt():
    draw = ("count", "a", 0)
    found = {tuple(places_of_another(seed, draw, DRAWS)) for seed in range(200)}
    assert found == {(0, 4), (0, 5), (4, 5)}  # of the only one that has two
    one = {tuple(places_of_another(seed, ("count", "a", 1), DRAWS)) for seed in range(200)}
    assert one == {(3,), (0,), (4,), (5,)}
    assert places_of_another(0, ("sum", "d", 0), DRAWS) == []  # the other has none
    assert places_of_another(0, ("sum", "e", 0), DRAWS) == []
    assert places_of_another(0, ("lone", "x", 0), {("lone", "x", 0): DRAWS[draw]}) == []
