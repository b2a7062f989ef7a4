"""The controls of cross-sampling: as many places of the other model's token, but not where the two
part.

    random     anywhere in the writer's own reply
    entropy    where the writer is least sure of what to say
    elsewhere  where another reply of the same task has its forks

What the forks recover more than these is due to the places themselves. Replies whose forks always
stand at the same place are no better than `elsewhere`, and that is then what it says: where the
models part can be known from the position alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from franken.tasks.puzzle import child_rng

FORKS, RANDOM, ENTROPY, ELSEWHERE = RULES = ("forks", "random", "entropy", "elsewhere")
CONTROLS = RULES[1:]
Draw = tuple[str, str, int]  # task, sample, number of the draw


@dataclass(frozen=True)
class Forked:
    """What a control of one draw goes by: how long the writer's own reply was, how unsure it was at
    each token (nats), and at which places of the forked reply the other's token was taken.
    """

    length: int
    entropy: Sequence[float]
    places: Sequence[int]


def random_places(seed: int, draw: Draw, own: Forked) -> list[int]:
    """As many places as there were forks, anywhere in the writer's own reply; all of a shorter
    one.
    """
    count = min(len(own.places), own.length)
    return sorted(child_rng("forks random", seed, *draw).sample(range(own.length), count))


def least_entropy(own: Forked) -> float:
    """An entropy that as many tokens of the writer's own reply exceed: halfway to the next smaller
    one, since it is measured again while decoding and rounded otherwise. Infinite without forks,
    minus infinite where all tokens exceed it.
    """
    ranked = sorted(own.entropy, reverse=True)
    count = min(len(own.places), len(ranked))
    if count == len(ranked):
        return float("-inf") if count else float("inf")
    return (ranked[count - 1] + ranked[count]) / 2 if count else float("inf")


def places_of_another(seed: int, draw: Draw, all_of: Mapping[Draw, Forked]) -> list[int]:
    """As many of the forks of a reply to another prompt of the same task: of those that have the
    most like number, one at random. Without any other prompt there are none.
    """
    task, sample, _ = draw
    wanted = len(all_of[draw].places)
    others = [d for d in all_of if d[0] == task and d[1] != sample]
    if not others or not wanted:
        return []
    rng = child_rng("forks elsewhere", seed, *draw)
    least = min(_lack(all_of[d], wanted) for d in others)
    chosen = rng.choice([d for d in others if _lack(all_of[d], wanted) == least])
    places = list(all_of[chosen].places)
    return sorted(rng.sample(places, min(wanted, len(places))))


def _lack(other: Forked, wanted: int) -> int:
    """How many places another reply has too few; any that has enough can lend them."""
    return max(0, wanted - len(other.places))
