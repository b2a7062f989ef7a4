"""Worked solutions of moves, days and cuts: every wrong number and every step left out is caught,
counts need no search.
"""

import random
import re
from collections import Counter

import pytest

from franken.tasks.puzzles import chain_link, tower_of_hanoi
from franken.tasks.puzzles.suite import LEVELS, puzzle

NAMES = ("number_slide", "move_box", "tower_of_hanoi", "water_jugs", "calendar", "chain_link")
REPLAYED = {  # strategies whose steps are moves: without one of them the rest leads elsewhere
    "number_slide": ("boards", "walks"),
    "move_box": ("pushes",),
    "tower_of_hanoi": ("moves",),
    "water_jugs": ("pours", "backward"),
    "calendar": ("months",),
    "chain_link": ("cuts",),
}
MOVE = r"(up|down|left|right) (gives|to)|push|disk \d to|jug .* gives|.* comes from|\w+ \d+ is \d+ days|cut the"


def solved(name, level, n):
    task = puzzle(name, level=level)
    for seed in range(n):
        rng = random.Random(f"{name} {seed}")
        state = task.sample(rng)
        query = task.ask(state, rng)
        for strategy, steps in task.module.steps(state, query).items():
            yield task.module, state, query, strategy, steps


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_every_wrong_number_is_caught(name, level):
    for module, state, query, _, steps in solved(name, level, 4 if level == 1 else 2):
        assert module.check(state, query, steps) is None
        for i, step in enumerate(steps):
            for found in list(re.finditer(r"\d+", step))[:12]:
                wrong = step[: found.start()] + str(int(found[0]) + 1) + step[found.end() :]
                assert module.check(state, query, (*steps[:i], wrong, *steps[i + 1 :])), (
                    wrong,
                    steps,
                )


@pytest.mark.parametrize("name", REPLAYED)
def test_a_move_left_out_is_caught(name):
    tried = 0
    for module, state, query, strategy, steps in solved(name, 2, 10):
        if strategy in REPLAYED[name]:
            for i in range(1, len(steps)):
                if re.match(MOVE, steps[i]):
                    tried += 1
                    assert module.check(state, query, steps[:i] + steps[i + 1 :]), (steps[i], steps)
    assert tried > 10


def test_the_count_of_disk_moves_needs_no_search():
    """Once or twice, whichever is less, is the answer, and now and then it is twice."""
    best = Counter()
    for seed in range(400):
        rng = random.Random(seed)
        start, end = ([rng.randrange(3) for _ in range(5)] for _ in range(2))
        state = tower_of_hanoi.Hanoi(tower_of_hanoi._stacked(start), tower_of_hanoi._stacked(end))
        counts = [
            int(step.rpartition(" ")[2])
            for step in tower_of_hanoi._counted(start, end)
            if "=" in step
        ]
        assert tower_of_hanoi.solve(state).answer == str(min(counts, default=0))
        best[counts.index(min(counts)) if counts else 0] += 1
    assert best[1] > 10


def test_cuts_in_turn_and_tried_agree():
    for seed in range(300):
        rng = random.Random(seed)
        state = chain_link.sample(rng, rng.choice(LEVELS))
        chains = chain_link.steps(state, chain_link.Times(3, 4))
        assert sum(step.startswith("cut ") for step in chains["cuts"]) == chain_link.fewest_cuts(
            state
        )
        for steps in chains.values():
            assert chain_link.check(state, chain_link.Times(3, 4), steps) is None


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_no_answer_is_right_much_more_often_than_others(name, level):
    task = puzzle(name, level=level)
    answers = Counter()
    for seed in range(120):
        state = task.sample(random.Random(seed))
        answers[task.answer(state, task.ask(state, random.Random(seed)))] += 1
    assert max(answers.values()) <= 120 * {3: 0.45, 4: 0.37}.get(len(answers), 0.32)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("number_slide", "slide 1 2/3 4"),  # nothing open
        ("number_slide", "slide 1 ./. 4"),
        ("number_slide", "slide 1 1/2 ."),
        ("number_slide", "slide 1 2/."),
        ("number_slide", "slide 01 2/3 ."),
        ("number_slide", "slide 1 \u0662/3 ."),  # a digit, but not ours
        ("move_box", "warehouse ####/#PB#/####"),
        ("move_box", "warehouse #PB#/#FF#"),
        ("move_box", "warehouse #PB#/#F#"),
        ("tower_of_hanoi", "hanoi 12/-/- to -/-/21"),
        ("tower_of_hanoi", "hanoi 2/-/- to -/-/21"),
        ("tower_of_hanoi", "hanoi 31/-/- to -/-/31"),
        ("tower_of_hanoi", "hanoi -/-/- to -/-/-"),
        ("tower_of_hanoi", "hanoi 21// to 21//"),
        ("water_jugs", "jugs 3/2 1/1"),
        ("water_jugs", "jugs 0/0 1/1"),
        ("water_jugs", "jugs 01/2 1/1"),
        ("calendar", "calendar Januar from Friday, weeks from Monday, leap year"),
        ("chain_link", "chains 1 open, closed 0 2"),
        ("chain_link", "chains 1 open, closed"),
    ],
)
def test_what_is_no_state_is_not_read(name, text):
    with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
        puzzle(name).parse(text)
