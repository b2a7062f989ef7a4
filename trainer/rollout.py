"""The samples of one RL step: puzzles or public questions are drawn, answered in groups, graded
and, if asked, filtered.

Prompts are a pure function of (stage seed, step); samples are seeded by prompt and sample index.
Over several processes every one answers its share, and a group stays where it was sampled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from franken import tasks
from franken.generate.native import Response, Sampling, encode_prompts
from franken.models.batch import ModelBatch
from franken.models.loading import Loaded
from franken.tasks import Grade, Item
from franken.tasks.puzzle import child_rng, draw_state, make_item
from trainer.collectives import all_gather, all_reduce_sum, on_every_process
from trainer.distributed import local_slice, rank
from trainer.evaluate import prompts_of
from trainer.policy import sample_slices, with_features
from trainer.public import public_items
from trainer.sharding import whole
from trainer.stages import GrpoStage


@dataclass(frozen=True)
class Batch:
    """The samples of one step on one rank. `encoded` are the prompts as the model reads them, image
    features included.
    """

    encoded: ModelBatch
    groups: list[list[Response]]

    def lengths(self) -> Tensor:
        """Tokens of every response, `[prompts, group]`."""
        return torch.tensor([[len(r.ids) for r in group] for group in self.groups])


@dataclass(frozen=True)
class Rollout:
    """What a rank trains on in one step, and what was sampled for it.

    `places` says of every rank which of the step's kept groups it holds; with none there, what the
    rank holds counts for
    nothing. `counts` are the metrics of the filter.
    """

    items: list[Item]
    batch: Batch
    grades: list[list[Grade]]
    places: list[list[int]]
    counts: dict[str, float]


def next_items(
    mixture: Mapping[str, float], count: int, *, seed: int, step: int, first: int = 0
) -> list[Item]:
    """Puzzles `first` … `first + count - 1` of one step's stream, from the training split."""
    items = []
    for i in range(first, first + count):
        rng = child_rng("grpo", seed, step, i)
        puzzle = tasks.get(rng.choices(list(mixture), list(mixture.values()))[0])
        state = draw_state(puzzle, rng, "train")
        item_id = f"{puzzle.name}-grpo-{seed}-{step}-{i}"
        items.append(make_item(puzzle, item_id, state, puzzle.ask(state, rng), rng.getrandbits(32)))
    return items


def draw(loaded: Loaded, stage: GrpoStage, *, seed: int, step: int) -> Rollout:
    """Sample and grade the groups of a step.

    With `filter: accuracy`, groups whose answers are all right or all wrong are dropped, whatever
    their rewards, and as many puzzles further down the step's stream are tried, at most `refill`
    times: fewer groups, or none, may be left. All of it follows from seed, step and weights, so a
    resumed run drops and draws the same. (DAPO's dynamic sampling, arXiv 2503.14476 §3.2, which
    goes on until the batch is full.)

    Every rank answers its share of the prompts and replaces what it dropped itself; together they
    try the puzzles that one process would. A rank left with nothing holds a dropped group that
    counts for nothing, to run sharded layers in step.
    """
    sampling = Sampling(stage.group, stage.temperature, stage.max_new_tokens, seed)
    filtered = stage.filter == "accuracy"
    mine = local_slice(stage.prompts)
    kept: list[tuple[int, Item, list[Response], list[Grade]]] = []
    dropped: list[tuple[int, Item, list[Response], list[Grade]]] = []
    tried, right, rate = 0, 0, 0.0
    encoded: Any = None  # of a rank that holds nothing
    with whole(loaded.model):
        for _ in range(1 + (stage.refill if filtered else 0)):
            wanted = all_gather(mine.stop - mine.start - len(kept))
            if not sum(wanted):
                break
            first = tried + sum(wanted[: rank()])
            tried += sum(wanted)
            items = on_every_process(
                lambda n=wanted[rank()], first=first: _items(
                    stage, n, seed=seed, step=step, first=first
                )
            )
            if not items:
                continue
            prompts = prompts_of(stage, items)
            encoded = with_features(loaded, encode_prompts(loaded, prompts), stage.sample_batch)
            groups = sample_slices(
                loaded, encoded, [p.key for p in prompts], sampling, stage.sample_batch
            )
            for place, (item, group) in enumerate(zip(items, groups, strict=True), first):
                grades = [tasks.grade(r.text, item) for r in group]
                solved = sum(g.score == 1.0 for g in grades) / len(grades)
                rate += solved
                right += solved == 1.0
                (dropped if filtered and solved in (0.0, 1.0) else kept).append(
                    (place, item, group, grades)
                )
        places = all_gather([place for place, *_ in kept])
        held = kept or (dropped[:1] if any(places) else [])
        if dropped and held:
            prompts = prompts_of(stage, [item for _, item, _, _ in held])
            encoded = with_features(loaded, encode_prompts(loaded, prompts), stage.sample_batch)
    rate, right, gone = all_reduce_sum([rate, right, len(dropped)])
    counts = {"correct": rate / tried, "groups": sum(map(len, places)), "tried": tried}
    counts |= {"all_right": right, "all_wrong": gone - right}
    order = sorted(place for part in places for place in part)
    return Rollout(
        items=[item for _, item, _, _ in held],
        batch=Batch(encoded, [group for _, _, group, _ in held]),
        grades=[grades for *_, grades in held],
        places=[[order.index(place) for place in part] for part in places],
        counts={name: float(count) for name, count in counts.items()} if filtered else {},
    )


def _items(stage: GrpoStage, count: int, *, seed: int, step: int, first: int) -> list[Item]:
    if stage.data:
        rounds = 1 + (stage.refill if stage.filter == "accuracy" else 0)
        width = stage.prompts * rounds  # refills are rows of their own
        return public_items(
            stage.data,
            count,
            seed=seed,
            step=step,
            first=first,
            width=width,
            held_out=stage.held_out,
        )
    return next_items(stage.tasks, count, seed=seed, step=step, first=first)
