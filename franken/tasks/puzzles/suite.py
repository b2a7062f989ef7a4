"""The puzzle types as tasks: each module's functions behind the one `Puzzle` interface, and
multiple choice.

A task is written `NAME[:LEVEL][@SIZE][+choice]`: `clock`, `clock:3`, `maze:2@168`, `clock+choice`.
Level 1 is the easiest of three; the size is the picture's side in pixels.

Pairs change one fact of a state and nothing else of the picture. Where no single fact can be
changed so that the answer is another one, the pair says so (`ineligible`) and is kept.
"""

import importlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol

from PIL import Image

from franken.errors import UsageError, check_known
from franken.tasks.grading import grade_item, reasoning
from franken.tasks.puzzle import (
    Facts,
    Grade,
    Item,
    Pair,
    Query,
    Solutions,
    Span,
    Split,
    State,
    StrategySteps,
    child_rng,
    draw_items,
    draw_state,
    make_item,
)
from franken.tasks.puzzles.looks import looks, misread, true_looks
from franken.tasks.puzzles.solved import Solved, Unsolvable

NAMES = (
    "board_tile",
    "calendar",
    "chain_link",
    "checker_move",
    "clock",
    "colour_hue",
    "map",
    "maze",
    "move_box",
    "n_queens",
    "number_slide",
    "rotting_kiwi",
    "rubiks_cube",
    "think_dot",
    "tower_of_hanoi",
    "water_jugs",
    "wheel_of_fortune",
    "wood_slide",
)
LEVELS = (1, 2, 3)
SIZE = 252
LARGEST = 4096
TRIES = 200
SPEC = re.compile(r"(?P<name>[a-z_]+)(?::(?P<level>\d+))?(?:@(?P<size>\d+))?(?P<choice>\+choice)?")
STEP_END = "; "
NUMBER = re.compile(r"[0-9]+")
RUNAWAY = re.compile(r"[0-9]{19}")  # Python refuses to read numbers of thousands of digits


class Module(Protocol[State, Query]):
    """What a puzzle's module provides. `level` is its difficulty, 1 to 3; `size` the picture's side
    in pixels.
    """

    STRATEGIES: tuple[str, ...]  # the keys of `steps`; a solution begins with its strategy's word
    SMALLEST: int  # the least size at which every fact of a state of level 1 can be seen

    def sample(self, rng: random.Random, level: int) -> State: ...
    def ask(self, state: State, rng: random.Random) -> Query: ...
    def solve(self, state: State, query: Query) -> Solved: ...
    def render(self, state: State, size: int, style: int = 0) -> Image.Image: ...
    def describe(self, state: State) -> str: ...
    def parse(self, text: str) -> State: ...
    def facts(self, state: State) -> Facts: ...
    def questions(self, state: State, query: Query) -> tuple[str, ...]:
        """The question in several wordings, the usual one first."""
        ...

    def steps(self, state: State, query: Query) -> StrategySteps:
        """Strategy → the steps of its solution as text; the last one says the answer. No step holds
        a semicolon.
        """
        ...

    def check(self, state: State, query: Query, steps: tuple[str, ...]) -> str | None:
        """What is wrong with the first wrong step, None when all hold. Reads the text; never asks
        how it was made.
        """
        ...

    def change(self, state: State, rng: random.Random) -> State: ...


@dataclass(frozen=True)
class AlgorithmicPuzzle(Generic[State, Query]):
    """One of the types, at a picture size and a difficulty. Implements `Puzzle`."""

    kind: str
    module: Module[State, Query]
    size: int = SIZE
    level: int = 1
    choice: bool = False
    wording: int = 0

    @property
    def name(self) -> str:
        """As `puzzle_of` reads it; what is usual is left out."""
        level = f":{self.level}" if self.level != 1 else ""
        size = f"@{self.size}" if self.size != SIZE else ""
        return f"{self.kind}{level}{size}{'+choice' if self.choice else ''}"

    @property
    def world(self) -> str:
        """States depend on type and level alone: sizes and answer formats of one puzzle can be
        compared item by item.
        """
        return f"{self.kind}-{self.level}"

    @property
    def strategies(self) -> tuple[str, ...]:
        return self.module.STRATEGIES

    @property
    def answer_type(self) -> str:
        """As the grader is told; empty where the answer itself tells its type."""
        return "" if self.choice else getattr(self.module, "ANSWER_TYPE", "")

    def sample(self, rng: random.Random) -> State:
        """A state that some question about it can be asked of."""
        return self.module.sample(rng, self.level)

    def ask(self, state: State, rng: random.Random) -> Query:
        """A question that has one answer. Raises Unsolvable when none was found."""
        for _ in range(TRIES):
            query = self.module.ask(state, rng)
            if self._answer(state, query) is not None:
                return query
        raise Unsolvable(
            f"no question about this state of {self.name} has one answer", why=self.describe(state)
        )

    def _answer(self, state: State, query: Query) -> str | None:
        try:
            return self.module.solve(state, query).answer
        except Unsolvable:
            return None

    def render(self, state: State, *, style: int = 0) -> Image.Image:
        return self.module.render(state, self.size, style)

    def describe(self, state: State) -> str:
        return self.module.describe(state)

    def parse(self, text: str) -> State:
        if RUNAWAY.search(text):
            raise ValueError("a number of more digits than any that this puzzle has")
        return self.module.parse(text)

    def facts(self, state: State) -> Facts:
        return self.module.facts(state)

    def question(self, state: State, query: Query) -> str:
        wordings = self.module.questions(state, query)
        text = wordings[self.wording % len(wordings)]
        return with_options(text, self.choices(state, query)) if self.choice else text

    def answer(self, state: State, query: Query) -> str:
        """The answer, or its letter in multiple choice."""
        right = self.module.solve(state, query).answer
        if not self.choice:
            return right
        return next(
            letter for letter, text in lettered(self.choices(state, query)).items() if text == right
        )

    def choices(self, state: State, query: Query) -> tuple[str, ...]:
        """See `Puzzle.choices`. The order follows from state and question alone."""
        if not self.choice:
            return ()
        return self.options(
            state, query, child_rng("options", self.kind, self.describe(state), query)
        )

    def solutions(self, state: State, query: Query) -> Solutions:
        """Strategy → chain: the strategy's word, then its steps."""
        chains = self.module.steps(state, query)
        return {
            strategy: f"{strategy} {STEP_END.join(steps)}" for strategy, steps in chains.items()
        }

    def check(self, chain: str, state: State, query: Query) -> str | None:
        """What is wrong with the first wrong step of a chain, None when all hold."""
        strategy, _, steps = chain.partition(" ")
        if strategy not in self.strategies:
            return f"{strategy!r} is no strategy of {self.kind}"
        if STEP_END not in steps:
            return "the answer stands there without a step"
        if RUNAWAY.search(steps):
            return "a number of more digits than any that this puzzle has"
        return self.module.check(state, query, _steps(chain))

    def misread(self, thought: str, item: Item) -> list[str] | None:
        """What a wrong chain says wrongly of the picture; empty when its fault is an inference,
        None where that is open.
        """
        strategy = thought.strip().partition(" ")[0]
        if strategy not in item.solutions or RUNAWAY.search(thought):
            return None
        solutions = {name: _steps(chain) for name, chain in item.solutions.items()}
        true = true_looks(self.kind, self.facts(item.state), solutions.values())
        fault = self.check(thought.strip(), item.state, item.query)
        return misread(self.kind, _steps(thought.strip()), solutions[strategy], true, fault)

    def observations(self, thought: str) -> list[Span]:
        """The steps of a chain of thought that say what the picture shows (`puzzles.looks`)."""
        spans: list[Span] = []
        start = len(thought) - len(thought.lstrip())
        start += thought[start:].find(" ") + 1  # behind the strategy's word
        for step in thought[start:].split(STEP_END):
            if any(looks(self.kind, [step.strip()])):
                spans.append((start, start + len(step)))
            start += len(step) + len(STEP_END)
        return spans

    def options(
        self, state: State, query: Query, rng: random.Random, n: int = 4
    ) -> tuple[str, ...]:
        """The answer among plausible wrong ones, shuffled. Fewer than `n` where there are no more
        (yes or no).
        """
        answer = self.module.solve(state, query).answer
        special = getattr(self.module, "distractors", None)
        if special is None and NUMBER.fullmatch(answer):
            chosen = [answer, *nearby(int(answer), n - 1, rng)]
        else:
            wrong = [
                text
                for text in dict.fromkeys(special(state, query) if special else ())
                if text != answer
            ]
            chosen = [answer, *rng.sample(wrong, min(n - 1, len(wrong)))]
        rng.shuffle(chosen)
        return tuple(chosen)

    def twin(self, state: State, query: Query, rng: random.Random) -> tuple[State, str]:
        """See `Puzzle.twin`. Raises Unsolvable when no change of one fact was found to change the
        answer.
        """
        answer, facts = self.module.solve(state, query).answer, self.facts(state)
        for _ in range(TRIES):
            other = self.module.change(state, rng)
            changed = differing(facts, self.facts(other))
            if len(changed) == 1 and self._answer(other, query) not in (None, answer):
                return other, changed[0]
        raise Unsolvable(
            "no twin", why=f"no change of one fact of this state gives another answer than {answer}"
        )

    def grade(self, reply: str, item: Item) -> Grade:
        return grade_item(reply, item)

    def strategy(self, reply: str) -> str:
        first = reasoning(reply).split(" ", 1)[0]
        return first if first in self.strategies else "other" if first else "none"

    def items(self, n: int, seed: int, split: Split = "train") -> list[Item]:
        return draw_items(self, n, seed, split)

    def pairs(self, n: int, seed: int, split: Split = "test") -> list[Pair]:
        return [self._pair(i, seed, split) for i in range(n)]

    def _pair(self, i: int, seed: int, split: Split) -> Pair:
        """Both items are asked in the same words, so in multiple choice the answers of both are
        among the options.
        """
        rng = child_rng(self.world, "pair", split, seed, i)
        plain = replace(self, choice=False)
        state = draw_state(self, rng, split)
        style, query, reason = rng.getrandbits(32), self.ask(state, rng), None
        try:
            other, fact = self.twin(state, query, rng)
        except Unsolvable as e:
            other, fact, reason = state, "", e.why
        pair_id = f"{self.name}-{split}-pair-{seed}-{i}"
        items = [
            replace(make_item(plain, f"{pair_id}-{role}", s, query, style), task=self.name)
            for role, s in (("target", state), ("source", other))
        ]
        if self.choice:
            answers = list(dict.fromkeys(item.answer for item in items))
            wrong = [option for option in self.options(state, query, rng) if option not in answers]
            options = [*answers, *wrong][: max(4, len(answers))]
            rng.shuffle(options)
            items = [_as_choice(item, options) for item in items]
        return Pair(pair_id, self.name, fact, *items, ineligible=reason)


def _steps(chain: str) -> tuple[str, ...]:
    return tuple(chain.partition(" ")[2].split(STEP_END))


def lettered(options: Sequence[str]) -> dict[str, str]:
    """Letter → option, from A on."""
    return dict(zip("ABCDEFGH", options, strict=False))


def with_options(question: str, options: Sequence[str]) -> str:
    """A question with its options below it, `(A) 4:23`."""
    return "\n".join(
        [question, *[f"({letter}) {option}" for letter, option in lettered(options).items()]]
    )


def _as_choice(item: Item, options: Sequence[str]) -> Item:
    letter = next(letter for letter, option in lettered(options).items() if option == item.answer)
    return replace(
        item,
        question=with_options(item.question, options),
        answer=letter,
        options=tuple(options),
        answer_type="",
    )


def differing(one: Facts, other: Facts) -> list[str]:
    """The slots in which two sets of facts differ."""
    return [slot for slot in {**one, **other} if one.get(slot) != other.get(slot)]


def nearby(number: int, n: int, rng: random.Random) -> list[str]:
    """`n` numbers close by and never negative. How many of them are smaller is drawn first: the
    answer's rank is no hint.
    """
    reach = max(n, number // 4)
    smaller = rng.sample(
        range(max(0, number - reach), number), min(rng.randint(0, n), number, reach)
    )
    larger = rng.sample(range(number + 1, number + reach + 1), n - len(smaller))
    return [str(wrong) for wrong in smaller + larger]


def puzzle(
    kind: str, *, size: int = SIZE, level: int = 1, choice: bool = False, wording: int = 0
) -> AlgorithmicPuzzle:
    """A puzzle of a type. Raises UsageError for an unknown type or level, or a size its facts
    cannot be seen at.
    """
    check_known("puzzle", [kind], NAMES)
    if level not in LEVELS:
        raise UsageError(
            f"there is no level {level}", why="difficulty is 1, 2 or 3", fix="pick one of them"
        )
    module: Any = importlib.import_module(f"franken.tasks.puzzles.{kind}")
    if not module.SMALLEST <= size <= LARGEST:
        sizes = f"{kind} is drawn at {module.SMALLEST} to {LARGEST} pixels"
        raise UsageError(
            f"a picture of {size} pixels", why=sizes, fix=f"write {kind}@{module.SMALLEST} or more"
        )
    return AlgorithmicPuzzle(kind, module, size, level, choice, wording)


def puzzle_of(task: str) -> AlgorithmicPuzzle:
    """A puzzle by its task's name, `NAME[:LEVEL][@SIZE][+choice]`. Raises UsageError."""
    match = SPEC.fullmatch(task)
    if not match:
        raise UsageError(
            f"cannot read the task {task!r}",
            fix="write NAME[:LEVEL][@SIZE][+choice], as maze:2@168",
        )
    level, size = int(match["level"] or 1), int(match["size"] or SIZE)
    return puzzle(match["name"], size=size, level=level, choice=bool(match["choice"]))
