"""Checkpoints: a sound creature with one thing changed, against diff, merge, probe and eval.

Every change of a header, index or configuration makes a checkpoint that must be refused by all of
them; changes of what lies beside the weights are refused by the verbs that load a model, or read.
Which tensor and which numbers are changed is drawn.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from attacks.harness import Case, Expected, Words
from attacks.headers import BYTES, DRAWN, HEADERS, random_bytes
from attacks.parts import Change, Parts, copied
from attacks.settings import BESIDE, CONFIGS
from attacks.shards import SHARDED, Shards, split

VERBS = {
    "diff": "diff creature:base {0} --no-figures --out runs",
    "diff, reversed": "diff {0} creature:base --no-figures --out runs",
    "merge into": "merge {0} creature:base --layers 2-4 --out hybrid",
    "merge from": "merge creature:base {0} --layers 2-4 --out hybrid",
    "probe": "probe {0} --method zero --tasks read --samples 1 --layers 0-1 --no-figures",
    "eval": "eval {0} --tasks read --samples 1 --n 1 --k 1 --max-new-tokens 2 --no-compare",
}
LOADING = ("probe", "eval")


def cases(seed: int) -> Iterator[Case]:
    """All of them, drawn anew by `seed`."""
    for kind, change in {**HEADERS, **BYTES, **CONFIGS}.items():
        draws = 12 if kind.startswith("any") else 3 if kind in DRAWN else 1
        for verb in VERBS:
            for draw in range(draws):
                yield _case(kind, _taken_apart(change), verb, f"{seed}/{kind}/{verb}/{draw}")
    for kind, shift in SHARDED.items():
        for verb in VERBS:
            yield _case(kind, _in_shards(shift), verb, f"{seed}/{kind}/{verb}/0")
    for kind, change in BESIDE.items():
        for verb in LOADING:
            yield _case(kind, _taken_apart(change), verb, f"{seed}/{kind}/{verb}/0", "any")
    for number in range(60):
        verb = sorted(VERBS)[number % len(VERBS)]
        made = _taken_apart(random_bytes)
        yield _case("random bytes", made, verb, f"{seed}/bytes/{verb}/{number}")


Make = Callable[[Path, Random], object]


def _taken_apart(change: Change) -> Make:
    return lambda path, rng: change(Parts(path, rng))


def _in_shards(change: Callable[[Shards], object]) -> Make:
    def make(path: Path, rng: Random) -> None:
        split(path)
        change(Shards(path, rng))

    return make


def _case(kind: str, make: Make, verb: str, seed: str, expected: Expected = "refused") -> Case:
    """A checkpoint that `make` changes, for a verb; `seed` draws what it changes."""

    def prepare(folder: Path) -> Words:
        path = copied(folder / "attacked")
        make(path, Random(seed))
        return VERBS[verb].format(path).split()

    return Case("checkpoints", f"{kind} × {verb} ({seed.rpartition('/')[2]})", prepare, expected)
