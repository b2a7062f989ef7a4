"""The puzzle types as tasks: each module's functions behind the one `Puzzle` interface, and multiple choice.

Pairs change one fact of a state and nothing else of the picture. Where no single fact can be changed so that the answer
is another one, the pair says so (`ineligible`) and is kept.
"""

import importlib
import random
import re
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from franken.errors import UsageError, did_you_mean
from franken.tasks.grading import grade_exact, reasoning
from franken.tasks.puzzle import Grade, Item, Pair, Split, child_rng, draw_items, draw_state, make_item
from franken.tasks.puzzles.solved import Solved, Unsolvable

NAMES = ("clock", "rotting_kiwi")
LEVELS = (1, 2, 3)
TRIES = 200


class Module(Protocol):
    """What a puzzle's module provides. `level` is its difficulty, 1 to 3; `size` the picture's side in pixels."""

    def sample(self, rng: random.Random, level: int) -> Any: ...
    def ask(self, state: Any, rng: random.Random) -> Any: ...
    def solve(self, state: Any, query: Any) -> Solved: ...
    def render(self, state: Any, size: int, style: int = 0) -> Image.Image: ...
    def describe(self, state: Any) -> str: ...
    def parse(self, text: str) -> Any: ...
    def facts(self, state: Any) -> dict[str, str]: ...
    def question(self, state: Any, query: Any) -> str: ...
    def change(self, state: Any, rng: random.Random) -> Any: ...


@dataclass(frozen=True)
class AlgorithmicPuzzle:
    """One of the types, at a picture size and a difficulty. Implements `Puzzle`."""

    name: str
    module: Module
    size: int = 252
    level: int = 1
    strategies: tuple[str, ...] = ("proof",)

    @property
    def world(self) -> str:
        return f"{self.name}-{self.level}"

    def sample(self, rng: random.Random) -> Any:
        """A state that some question about it can be asked of."""
        return self.module.sample(rng, self.level)

    def ask(self, state: Any, rng: random.Random) -> Any:
        """A question that has one answer. Raises Unsolvable when none was found."""
        for _ in range(TRIES):
            query = self.module.ask(state, rng)
            if self._answer(state, query) is not None:
                return query
        raise Unsolvable(f"no question about this state of {self.name} has one answer", why=self.describe(state))

    def _answer(self, state: Any, query: Any) -> str | None:
        try:
            return self.module.solve(state, query).answer
        except Unsolvable:
            return None

    def render(self, state: Any, *, style: int = 0) -> Image.Image:
        return self.module.render(state, self.size, style)

    def describe(self, state: Any) -> str:
        return self.module.describe(state)

    def parse(self, text: str) -> Any:
        return self.module.parse(text)

    def facts(self, state: Any) -> dict[str, str]:
        return self.module.facts(state)

    def question(self, state: Any, query: Any) -> str:
        return self.module.question(state, query)

    def answer(self, state: Any, query: Any) -> str:
        return self.module.solve(state, query).answer

    def solutions(self, state: Any, query: Any) -> dict[str, str]:
        solved = self.module.solve(state, query)
        return {"proof": f"<think>{solved.why}</think><answer>{solved.answer}</answer>"}

    def options(self, state: Any, query: Any, rng: random.Random, n: int = 4) -> tuple[str, ...]:
        """The answer among plausible wrong ones, shuffled. Fewer than `n` where there are no more (yes or no)."""
        answer = self.answer(state, query)
        special = getattr(self.module, "distractors", None)
        wrong = list(dict.fromkeys(special(state, query) if special else nearby(answer, rng)))
        wrong = [text for text in wrong if text != answer]
        chosen = [answer, *rng.sample(wrong, min(n - 1, len(wrong)))]
        rng.shuffle(chosen)
        return tuple(chosen)

    def twin(self, state: Any, query: Any, rng: random.Random) -> tuple[Any, str]:
        """See `Puzzle.twin`. Raises Unsolvable when no change of one fact was found to change the answer."""
        answer, facts = self.answer(state, query), self.facts(state)
        for _ in range(TRIES):
            other = self.module.change(state, rng)
            changed = differing(facts, self.facts(other))
            if len(changed) == 1 and self._answer(other, query) not in (None, answer):
                return other, changed[0]
        raise Unsolvable("no twin", why=f"no change of one fact of this state gives another answer than {answer}")

    def grade(self, reply: str, item: Item) -> Grade:
        return grade_exact(reply, item.answer)

    def strategy(self, reply: str) -> str:
        return "proof" if reasoning(reply) else "none"

    def items(self, n: int, seed: int, split: Split = "train") -> list[Item]:
        return draw_items(self, n, seed, split)

    def pairs(self, n: int, seed: int, split: Split = "test") -> list[Pair]:
        pairs = []
        for i in range(n):
            rng = child_rng(self.world, "pair", split, seed, i)
            state = draw_state(self, rng, split)
            style, query, reason = rng.getrandbits(32), self.ask(state, rng), None
            try:
                other, fact = self.twin(state, query, rng)
            except Unsolvable as e:
                other, fact, reason = state, "", e.why
            pair_id = f"{self.name}-{split}-pair-{seed}-{i}"
            target = make_item(self, f"{pair_id}-target", state, query, style)
            source = make_item(self, f"{pair_id}-source", other, query, style)
            pairs.append(Pair(pair_id, self.name, fact, target, source, ineligible=reason))
        return pairs


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The slots in which two sets of facts differ."""
    return [slot for slot in {**one, **other} if one.get(slot) != other.get(slot)]


def nearby(answer: str, rng: random.Random) -> list[str]:
    """Wrong answers of the same kind: numbers close by, never negative."""
    if not re.fullmatch(r"\d+", answer):
        return []
    number = int(answer)
    reach = max(3, number // 4)
    return [str(n) for n in range(max(0, number - reach), number + reach + 1) if n != number]


def puzzle(name: str, *, size: int = 252, level: int = 1) -> AlgorithmicPuzzle:
    """A puzzle type by name. Raises UsageError for an unknown name, level or size."""
    if name not in NAMES:
        known = f"the puzzles are {', '.join(NAMES)}"
        raise UsageError(f"unknown puzzle {name!r}", why=known, fix=did_you_mean(name, NAMES) or "pick one of them")
    if level not in LEVELS:
        raise UsageError(f"there is no level {level}", why="difficulty is 1, 2 or 3", fix="pick one of them")
    if not 32 <= size <= 4096:
        raise UsageError(f"a picture of {size} pixels", why="sizes are 32 to 4096", fix="pick one of them")
    module: Any = importlib.import_module(f"franken.tasks.puzzles.{name}")
    return AlgorithmicPuzzle(name, module, size, level)
