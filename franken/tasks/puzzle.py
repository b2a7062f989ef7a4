"""What a visual task is: a state with exact ground truth, and everything that follows from it.

A puzzle draws a state, renders it, describes it in words, asks about it, answers, and judges
replies. The description is lossless (`parse(describe(state)) == state`), so the same question can
be put with the image, with the text, or with neither, and what a model says about an image can be
scored fact by fact.

Train and test never share a state: `split_of` hashes the canonical description, and sampling
rejects the other side.
"""

import hashlib
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from PIL import Image

Split = Literal["train", "test"]
State = TypeVar("State", bound=Hashable)
Query = TypeVar("Query", bound=Hashable)
Facts = dict[str, str]  # what there is to see: slot → value
Solutions = dict[str, str]  # strategy → the chain of thought that ends in the answer
StrategySteps = dict[str, tuple[str, ...]]  # strategy → the steps of its chain of thought
Span = tuple[int, int]  # of characters, half-open
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Item:
    """One question about one image, with its answer and worked solutions (strategy → chain of
    thought).

    `answer_type` is one of `grading.ANSWER_TYPES`; empty means: to be inferred. `tolerance` is
    relative, for numbers. `accepted` are answers as right as `answer`. A question about several
    images has the others in `more_images`; where they do not all come first, it has one `<image>`
    for each (`tasks.marks`). `reread` makes one that is held without its pictures anew.
    """

    id: str
    task: str
    question: str
    answer: str
    image: Image.Image | None = field(repr=False, default=None)
    description: str = ""
    state: Any = None
    query: Any = None
    solutions: Solutions = field(default_factory=dict)
    error: str | None = None
    options: tuple[str, ...] = ()  # of multiple choice, in the order of their letters
    answer_type: str = ""
    tolerance: float = 0.0
    more_images: tuple[Image.Image, ...] = field(repr=False, default=())
    accepted: tuple[str, ...] = ()
    reread: "Callable[[], Item] | None" = field(repr=False, compare=False, default=None)

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """All images in their order, read again where the item is held without them."""
        whole = self if self.reread is None else self.reread()
        return () if whole.image is None else (whole.image, *whole.more_images)


@dataclass(frozen=True)
class Pair:
    """Two images under the same question, for swaps: `target` is asked about, `source` lends its
    visual tokens.

    `fact` names what differs. A pair that cannot show an effect is `ineligible` with a reason; one
    whose files are broken carries an `error`. Neither is dropped.
    """

    id: str
    task: str
    fact: str
    target: Item
    source: Item
    ineligible: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Grade:
    """The verdict on a reply: `score` in [0, 1], why, the answer as read, and whether the reply
    kept the format.
    """

    score: float
    reason: str
    answer: str | None
    well_formed: bool


class Puzzle(Protocol[State, Query]):
    """The interface every puzzle suite implements. `State` and `Query` are plain, hashable
    values.
    """

    @property
    def name(self) -> str:
        """The task's name, by which `tasks.get` finds it."""
        ...

    @property
    def world(self) -> str:
        """Puzzles of one world draw the same states, so that their items and pairs match image by
        image.
        """
        ...

    @property
    def strategies(self) -> tuple[str, ...]:
        """The ways to solve it that `strategy` can tell apart."""
        ...

    def sample(self, rng: random.Random) -> State:
        """Draw a state."""
        ...

    def ask(self, state: State, rng: random.Random) -> Query:
        """Draw what is asked about the state."""
        ...

    def render(self, state: State, *, style: int = 0) -> Image.Image:
        """Draw the state; `style` seeds everything that carries no fact (position jitter, shade,
        noise).
        """
        ...

    def describe(self, state: State) -> str:
        """The canonical text of the state; lossless."""
        ...

    def parse(self, text: str) -> State:
        """The inverse of `describe`. Raises ValueError on text that describes no state."""
        ...

    def facts(self, state: State) -> Facts:
        """Atomic facts: slot → value."""
        ...

    def question(self, state: State, query: Query) -> str:
        """The question in words."""
        ...

    def answer(self, state: State, query: Query) -> str:
        """The one right answer."""
        ...

    def choices(self, state: State, query: Query) -> tuple[str, ...]:
        """The options in the order of their letters; none when the answer is open."""
        ...

    def solutions(self, state: State, query: Query) -> Solutions:
        """Worked solutions: strategy → chain of thought that ends in the answer."""
        ...

    def twin(self, state: State, query: Query, rng: random.Random) -> tuple[State, str]:
        """A state that differs in exactly one fact and has another answer to `query`; and the
        fact's slot.
        """
        ...

    def grade(self, reply: str, item: Item) -> Grade:
        """Judge a reply."""
        ...

    def strategy(self, reply: str) -> str:
        """The strategy that shows in a reply's reasoning; 'none' when there is no reasoning."""
        ...

    def items(self, n: int, seed: int, split: Split = "train") -> list[Item]:
        """`n` items; the i-th depends on (seed, i, split) alone."""
        ...

    def pairs(self, n: int, seed: int, split: Split = "test") -> list[Pair]:
        """`n` minimal pairs; the i-th depends on (seed, i, split) alone."""
        ...


def split_of(description: str) -> Split:
    """Which side a state belongs to, from the hash of its canonical description."""
    digest = hashlib.sha256(description.encode()).digest()
    return "test" if digest[0] < 256 * TEST_SHARE else "train"


def child_rng(*parts: object) -> random.Random:
    """An independent generator per sample: seeded from its coordinates, never from a shared
    stream.
    """
    return random.Random(repr(parts))


def make_item(
    puzzle: Puzzle[State, Query], item_id: str, state: State, query: Query, style: int
) -> Item:
    """Everything that follows from a state and a query."""
    return Item(
        id=item_id,
        task=puzzle.name,
        question=puzzle.question(state, query),
        answer=puzzle.answer(state, query),
        image=puzzle.render(state, style=style),
        description=puzzle.describe(state),
        state=state,
        query=query,
        solutions=puzzle.solutions(state, query),
        options=puzzle.choices(state, query),
        answer_type=getattr(puzzle, "answer_type", ""),  # most leave it to be inferred
    )


def draw_state(puzzle: Puzzle[State, Query], rng: random.Random, split: Split) -> State:
    """A state of the given split, by rejection."""
    while True:
        state = puzzle.sample(rng)
        if split_of(puzzle.describe(state)) == split:
            return state


def draw_items(puzzle: Puzzle, n: int, seed: int, split: Split) -> list[Item]:
    """See `Puzzle.items`."""
    items = []
    for i in range(n):
        rng = child_rng(puzzle.world, split, seed, i)
        state = draw_state(puzzle, rng, split)
        style = rng.getrandbits(32)
        items.append(
            make_item(
                puzzle, f"{puzzle.name}-{split}-{seed}-{i}", state, puzzle.ask(state, rng), style
            )
        )
    return items


def draw_pairs(puzzle: Puzzle, n: int, seed: int, split: Split) -> list[Pair]:
    """See `Puzzle.pairs`. Target and source share the style, so that only the one fact's pixels
    differ.
    """
    pairs = []
    for i in range(n):
        rng = child_rng(puzzle.world, "pair", split, seed, i)
        state = draw_state(puzzle, rng, split)
        style = rng.getrandbits(32)
        query = puzzle.ask(state, rng)
        other, fact = puzzle.twin(state, query, rng)
        pair_id = f"{puzzle.name}-{split}-pair-{seed}-{i}"
        target = make_item(puzzle, f"{pair_id}-target", state, query, style)
        source = make_item(puzzle, f"{pair_id}-source", other, query, style)
        pairs.append(Pair(pair_id, puzzle.name, fact, target, source))
    return pairs
