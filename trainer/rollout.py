"""The samples of one RL step: puzzles or public questions are drawn, answered in groups, graded
and, if the stage filters, replaced.

Prompts are a pure function of (stage seed, step); samples are seeded by prompt and sample index.
Over several processes every one answers its slice, and a group stays where it was sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from franken import tasks
from franken.generate.native import Response, Sampling, encode_prompts
from franken.models.batch import ModelBatch
from franken.models.loading import Loaded
from franken.tasks import Grade, Item
from franken.tasks.puzzle import child_rng, draw_state, make_item
from trainer.algorithms.groups import Metrics
from trainer.collectives import all_gather, all_reduce_sum, on_every_process
from trainer.distributed import local_slice, rank
from trainer.engines import RolloutEngine
from trainer.engines.native import NativeEngine
from trainer.evaluate import prompts_of
from trainer.public import public_items
from trainer.row_rules import RowRules
from trainer.stages import GrpoStage, Mixture
from trainer.towers import with_features


@dataclass(frozen=True)
class Batch:
    """The samples of one step on one rank. `encoded` are the prompts as the model reads them, image
    features included.
    """

    encoded: ModelBatch
    groups: list[list[Response]]

    def lengths(self) -> Int[Tensor, "prompts group"]:
        """Tokens of every response."""
        return torch.tensor([[len(r.ids) for r in group] for group in self.groups])


@dataclass(frozen=True)
class Rollout:
    """What a rank trains on in one step.

    `places` says of every rank which of the step's groups it holds; with none there, what the rank
    holds counts for nothing. `counts` are the metrics of the filter. `batch` is None where no rank
    holds a group.
    """

    items: list[Item]
    batch: Batch | None
    grades: list[list[Grade]]
    places: list[list[int]]
    counts: Metrics


class _Group(NamedTuple):
    """The graded responses to one prompt; `place` counts the prompts that the step has tried."""

    place: int
    item: Item
    responses: list[Response]
    grades: list[Grade]

    @property
    def solved(self) -> float:
        """The share of right answers."""
        return sum(grade.score == 1.0 for grade in self.grades) / len(self.grades)


@dataclass
class _Draw:
    """The groups of this rank so far, and what was tried for them. `sampled` are the prompts of the
    last call, encoded."""

    kept: list[_Group] = field(default_factory=list)
    dropped: list[_Group] = field(default_factory=list)
    tried: int = 0  # by all ranks
    sampled: ModelBatch | None = None

    def sort(self, groups: Sequence[_Group], band: tuple[float, float], *, filtered: bool) -> None:
        low, high = band
        for group in groups:
            drop = filtered and not low < group.solved < high
            (self.dropped if drop else self.kept).append(group)


def next_items(mixture: Mixture, count: int, *, seed: int, step: int, first: int = 0) -> list[Item]:
    """Puzzles `first` … `first + count - 1` of one step's stream, from the training split."""
    items = []
    for i in range(first, first + count):
        rng = child_rng("grpo", seed, step, i)
        puzzle = tasks.get(rng.choices(list(mixture), list(mixture.values()))[0])
        state = draw_state(puzzle, rng, "train")
        item_id = f"{puzzle.name}-grpo-{seed}-{step}-{i}"
        items.append(make_item(puzzle, item_id, state, puzzle.ask(state, rng), rng.getrandbits(32)))
    return items


def draw(
    loaded: Loaded,
    stage: GrpoStage,
    *,
    seed: int,
    step: int,
    engine: RolloutEngine | None = None,
) -> Rollout:
    """Sample and grade the groups of a step, by default with the policy itself.

    With `filter: accuracy`, groups whose answers are all right or all wrong are dropped, whatever
    their rewards, and as many puzzles further down the step's stream are tried, at most `refill`
    times: fewer groups, or none, may be left. All of it follows from seed, step and weights, so a
    resumed run drops and draws the same. (DAPO's dynamic sampling, arXiv 2503.14476 §3.2, which
    goes on until the batch is full.)

    Every rank answers its slice of the prompts and replaces what it dropped itself; together they
    try the puzzles that one process would. A rank left with nothing holds a dropped group that
    counts for nothing, to run sharded layers in step.
    """
    engine = engine or NativeEngine(loaded, stage.sample_batch)
    sampling = Sampling(stage.group, stage.temperature, stage.max_new_tokens, seed)
    filtered = stage.filter == "accuracy"
    mine = local_slice(stage.prompts)
    drawn = _Draw()
    rows = RowRules(loaded, stage)
    with engine.ready():
        for _ in range(1 + (stage.refill if filtered else 0)):
            missing = all_gather(mine.stop - mine.start - len(drawn.kept))
            if not sum(missing):
                break
            first = drawn.tried + sum(missing[: rank()])
            drawn.tried += sum(missing)
            items = on_every_process(
                lambda n=missing[rank()], first=first: _items(
                    stage, n, seed=seed, step=step, first=first, rows=rows
                )
            )
            if items:
                prompts = prompts_of(stage, items)
                drawn.sampled = _encode(loaded, stage, items)
                answers = engine.sample(prompts, drawn.sampled, sampling)
                drawn.sort(_graded(items, answers, first), stage.band, filtered=filtered)
        places = all_gather([group.place for group in drawn.kept])
        held = drawn.kept or (drawn.dropped[:1] if any(places) else [])
        if drawn.dropped and held:
            drawn.sampled = _encode(loaded, stage, [group.item for group in held])
    order = sorted(place for part in places for place in part)
    encoded = drawn.sampled
    return Rollout(
        items=[group.item for group in held],
        batch=Batch(encoded, [group.responses for group in held])
        if encoded is not None and held
        else None,
        grades=[group.grades for group in held],
        places=[[order.index(place) for place in part] for part in places],
        counts={**(_counts(drawn, len(order), stage.band[1]) if filtered else {}), **rows.counts()},
    )


def _encode(loaded: Loaded, stage: GrpoStage, items: Sequence[Item]) -> ModelBatch:
    encoded = encode_prompts(loaded, prompts_of(stage, items))
    return with_features(loaded, encoded, stage.sample_batch)


def _graded(items: Sequence[Item], answers: Sequence[list[Response]], first: int) -> list[_Group]:
    return [
        _Group(place, item, group, [tasks.grade(response.text, item) for response in group])
        for place, (item, group) in enumerate(zip(items, answers, strict=True), first)
    ]


def _counts(drawn: _Draw, groups: int, high: float) -> Metrics:
    """The filter's metrics over all ranks: the share of right answers, groups kept and tried, and
    those that were all right or all wrong (above or below the stage's band).
    """
    everyone = sorted([*drawn.kept, *drawn.dropped], key=lambda group: group.place)
    rate, right, dropped = all_reduce_sum(
        [
            sum(group.solved for group in everyone),
            sum(group.solved >= high for group in everyone),
            len(drawn.dropped),
        ]
    )
    return {
        "correct": rate / drawn.tried,
        "groups": float(groups),
        "tried": float(drawn.tried),
        "all_right": float(right),
        "all_wrong": float(dropped - right),
    }


def _items(
    stage: GrpoStage, count: int, *, seed: int, step: int, first: int, rows: RowRules
) -> list[Item]:
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
            max_pixels=stage.max_pixels,
            check=rows.obstacle,
            skipped=rows.skipped,
        )
    return next_items(stage.tasks, count, seed=seed, step=step, first=first)
