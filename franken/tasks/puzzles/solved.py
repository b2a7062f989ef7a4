"""What a solver hands back, and the search that most of them share."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from franken.errors import FrankenError

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Solved:
    """The answer as the benchmark writes it, and why it is right: a witness that can be checked by
    hand.
    """

    answer: str
    why: str


class Unsolvable(FrankenError):
    """The question has no one answer in this state: none, or more than one."""


def shortest(
    start: S, is_goal: Callable[[S], bool], moves: Callable[[S], Iterable[tuple[str, S]]]
) -> list[tuple[str, S]] | None:
    """A shortest path by breadth-first search: (move, state after it), empty when `start` is a
    goal, None when no path.

    `moves(state)` yields every legal move by name with the state it leads to.
    """
    came: dict[S, tuple[str, S] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        if is_goal(state):
            return _walk_back(came, state)
        for name, after in moves(state):
            if after not in came:
                came[after] = (name, state)
                queue.append(after)
    return None


def _walk_back(came: dict[S, tuple[str, S] | None], state: S) -> list[tuple[str, S]]:
    path: list[tuple[str, S]] = []
    while (step := came[state]) is not None:
        path.append((step[0], state))
        state = step[1]
    return path[::-1]


def fewest_moves(
    start: S, goal: S, moves: Callable[[S], Iterable[tuple[str, S]]], show: Callable[[S], str] = str
) -> Solved:
    """The least number of moves from `start` to `goal`. Raises Unsolvable where `goal` cannot be
    reached.
    """
    path = shortest(start, lambda state: state == goal, moves)
    if path is None:
        raise Unsolvable(
            f"{show(goal)} cannot be reached from {show(start)}",
            why="every reachable state has been visited",
        )
    steps = "; ".join(name for name, _ in path) or "start and goal are the same"
    return Solved(
        str(len(path)),
        f"{len(path)} suffice ({steps}), and breadth-first search finds no shorter way",
    )


def the_one(answers: dict[str, str], what: str) -> Solved:
    """The only answer among `answers` (answer → witness). Raises Unsolvable on none or several."""
    if len(answers) != 1:
        listed = "; ".join(f"{answer}: {why}" for answer, why in sorted(answers.items())) or "none"
        raise Unsolvable(f"{what} has {len(answers)} answers", why=listed)
    return Solved(*next(iter(answers.items())))
