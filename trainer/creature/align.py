"""Aligning a fresh vision tower: every visual token shall be readable through the word embeddings.

Each visual token of a grid is one cell. Three cross-entropies ask for its colour word, its kind
word and its name, by the dot product with the (unit) word embeddings. This is the creature's
contrastive pre-training; without it a small model stays at naming cells for a long time before it
looks at them.
"""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from franken.models.loading import Loaded
from franken.tasks import grid as world
from franken.tasks.grid import CELLS, COLORS, DIGITS, EMPTY, SHAPES, Grid
from franken.tasks.puzzle import child_rng
from trainer.algorithms.groups import Metrics
from trainer.collectives import all_reduce_sum
from trainer.distributed import local_slice
from trainer.optimizer import backpropagate
from trainer.sharding import inside
from trainer.stages import Stage

SCALE = 16.0  # inverse temperature
DIGIT_SHARE = 0.7
EMPTY_SHARE = 0.15
COLOR_WORDS = (*COLORS, EMPTY)
KIND_WORDS = (*SHAPES, *DIGITS, EMPTY)


class AlignStage(Stage):
    """Align a vision tower with the word embeddings."""

    kind: Literal["align"]
    batch: int = Field(default=64, gt=0)


def next_grids(
    size: int, *, seed: int, step: int, mine: slice = slice(None)
) -> tuple[list[Grid], list[int]]:
    """The grids of one step and their styles; `mine` cuts them to those of this rank."""
    grids, styles = [], []
    for i in range(size):
        rng = child_rng("align", seed, step * size + i)
        kinds = DIGITS if rng.random() < DIGIT_SHARE else SHAPES
        grids.append(world.random_grid(rng, kinds, EMPTY_SHARE))
        styles.append(rng.getrandbits(32))
    return grids[mine], styles[mine]


def align_step(
    loaded: Loaded,
    stage: AlignStage,
    optimizer_step: Callable[[], float],
    *,
    seed: int,
    step: int,
    progress: float = 0.0,
) -> Metrics:
    """One update of the alignment (`trainer.steps.StageStep`)."""
    mine = local_slice(stage.batch)
    grids, styles = next_grids(stage.batch, seed=seed, step=step, mine=mine)
    part, metrics = inside(loaded.model, lambda: loss(loaded, grids, styles))
    backpropagate(part, step)
    return {**metrics, "grad_norm": optimizer_step()}


def loss(loaded: Loaded, grids: list[Grid], styles: list[int]) -> tuple[Tensor, Metrics]:
    """Sum of the three cross-entropies, and the share of right colours, kinds and names.

    Over ranks, each has its part of the sum to differentiate; the metrics are those of all.
    """
    images = [world.render(g, s) for g, s in zip(grids, styles, strict=True)]
    encoded = loaded.processor.image_processor(images=images, return_tensors="pt").to(loaded.device)
    features = torch.cat(
        loaded.model.model.get_image_features(
            encoded["pixel_values"], encoded["image_grid_thw"]
        ).pooler_output
    )
    things = [thing for grid in grids for thing in grid]
    targets = {
        "color": (COLOR_WORDS, [COLOR_WORDS.index(t.color if t else EMPTY) for t in things]),
        "kind": (KIND_WORDS, [KIND_WORDS.index(t.kind if t else EMPTY) for t in things]),
        "cell": (CELLS, list(range(len(CELLS))) * len(grids)),
    }
    loss = features.new_zeros(())
    hits = {}
    everything = all_reduce_sum([len(things)])[0]
    for name, (words, wanted) in targets.items():
        gold = torch.tensor(wanted, device=features.device)
        logits = SCALE * features @ F.normalize(_embeddings(loaded, words), dim=1).T
        loss = loss + F.cross_entropy(logits, gold, reduction="sum") / everything
        hits[f"{name}_accuracy"] = int((logits.argmax(1) == gold).sum())
    whole, *right = all_reduce_sum([loss.item(), *hits.values()])
    return loss, {
        "loss": whole,
        **{name: n / everything for name, n in zip(hits, right, strict=True)},
    }


def _embeddings(loaded: Loaded, words: tuple[str, ...]) -> Tensor:
    ids = [loaded.tokenizer(word, add_special_tokens=False)["input_ids"][-1] for word in words]
    return loaded.model.get_input_embeddings().weight[ids]
