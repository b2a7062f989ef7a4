"""The hybrids of the paper, by thirds, and random layer sets of equal size beside them.

`SFT:RL:RL` reads early:middle:late: the middle and late thirds come from RL, the rest of the model,
embeddings, vision tower and head included, is the parent's. The reference code starts from
whichever model is named first, so that its six hybrids also exchange the vision tower and the
embeddings (Frankenstein, arXiv 2602.12395, appendix E); here only decoder layers move. A random set
answers whether it is these layers that matter or just how many.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from franken.layers import format_layers, option_of, thirds
from franken.runs.record import HybridRecord

# which thirds come from RL, in the order of the paper: IN:RL:RL, RL:IN:IN, IN:IN:RL, RL:RL:IN,
# IN:RL:IN, RL:IN:RL
FROM_RL = (
    ("middle", "late"),
    ("early",),
    ("late",),
    ("early", "middle"),
    ("middle",),
    ("early", "late"),
)


@dataclass(frozen=True)
class Hybrid:
    """A layer set to take from the donor. `layers` are 0-based text layers; `control` marks a
    random set.
    """

    label: str
    layers: tuple[int, ...]
    control: bool = False

    @property
    def ranges(self) -> str:
        """The set as the command line writes it: `text:0-2,text:5-8`."""
        return option_of(self.layers)

    def record(self) -> HybridRecord:
        """As stored in study.json."""
        return HybridRecord(layers=list(self.layers), ranges=self.ranges, control=self.control)


def thirds_hybrids(depth: int, parent: str, donor: str = "RL") -> list[Hybrid]:
    """The six hybrids of the paper for a decoder of `depth` layers; sets that are empty or
    everything are left out.
    """
    bounds = thirds(depth)
    made: dict[tuple[int, ...], Hybrid] = {}
    for taken in FROM_RL:
        layers = tuple(i for name in bounds if name in taken for i in range(*bounds[name]))
        label = ":".join(donor if name in taken else parent for name in bounds)
        if layers and len(layers) < depth and layers not in made:
            made[layers] = Hybrid(label, layers)
    return list(made.values())


def random_hybrids(depth: int, sizes: list[int], each: int, *, seed: int = 0) -> list[Hybrid]:
    """`each` different random layer sets of every size, none of them a union of thirds; as many as
    there are.
    """
    taken = {h.layers for h in thirds_hybrids(depth, "a", "b")}
    rng = random.Random(f"random layers {seed}")
    made: list[Hybrid] = []
    for size in sizes:
        for letter in "abcdefgh"[:each]:
            for _ in range(200):
                layers = tuple(sorted(rng.sample(range(depth), size)))
                if layers not in taken:
                    taken.add(layers)
                    made.append(Hybrid(f"random-{size}{letter}", layers, control=True))
                    break
    return made


def frozen_hybrids(
    depth: int, frozen: Iterable[Sequence[int]], taken: Iterable[Hybrid]
) -> list[Hybrid]:
    """Hybrids beside RL with layers frozen: the same layers from the donor, and all the others,
    where `taken` lacks them.

    The first asks whether RL's change there is enough alone, the second puts these layers back and
    leaves the rest to RL.
    """
    known = {h.layers for h in taken}
    made: list[Hybrid] = []
    for layers in frozen:
        for chosen in (
            tuple(sorted(layers)),
            tuple(i for i in range(depth) if i not in set(layers)),
        ):
            if chosen and len(chosen) < depth and chosen not in known:
                known.add(chosen)
                made.append(Hybrid(f"RL {format_layers(chosen)}", chosen))
    return made


def plan_hybrids(
    depth: int,
    parent: str,
    *,
    controls: int = 2,
    seed: int = 0,
    frozen: Iterable[Sequence[int]] = (),
) -> list[Hybrid]:
    """The six hybrids and those beside the `frozen` layer sets, then `controls` random sets of
    equal sizes.

    The sizes are those of the middle third, of the middle and late ones, and of the hybrids beside
    frozen layers.
    """
    made = thirds_hybrids(depth, parent)
    beside = frozen_hybrids(depth, frozen, made)
    bounds = thirds(depth)
    one = len(range(*bounds["middle"]))
    two = depth - len(range(*bounds["early"]))
    sizes = [
        s for s in dict.fromkeys((two, one, *(len(h.layers) for h in beside))) if 0 < s < depth
    ]
    taken = {h.layers for h in beside}
    randoms = [
        h for h in random_hybrids(depth, sizes, controls, seed=seed) if h.layers not in taken
    ]
    return [*made, *beside, *randoms]
