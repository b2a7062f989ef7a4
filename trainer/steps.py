"""What one update of a stage is, by the kind of the stage."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from franken.evaluate.embed import embedder
from franken.models.loading import Loaded, load
from trainer.algorithms.groups import Metrics
from trainer.creature.align import AlignStage, align_step
from trainer.distributed import local_device
from trainer.grpo import grpo_step
from trainer.packing import share_frozen
from trainer.recipe import Recipe
from trainer.sft import sft_step
from trainer.sharding import shard
from trainer.stages import GrpoStage
from trainer.starts import load_start


class StageStep(Protocol):
    """Accumulate the gradients of one update and call `optimizer_step`, which returns the gradient
    norm. Returns the metrics.

    What it trains on is a pure function of seed and `step` (from 0), so that a resumed run sees the
    same. `progress` in [0, 1] is how far the stage is.
    """

    def __call__(
        self, optimizer_step: Callable[[], float], *, step: int, progress: float
    ) -> Metrics: ...


def stage_step(recipe: Recipe, index: int, loaded: Loaded, start: Path | None = None) -> StageStep:
    """The update of the recipe's stage `index`; loads what it needs besides the policy. `start` are
    the weights that its KL refers to, where they are not the recipe's model.
    """
    stage = recipe.stages[index]
    seed = recipe.seed + 1000 * index if stage.seed is None else stage.seed
    if isinstance(stage, AlignStage):
        return partial(align_step, loaded, stage, seed=seed)
    if isinstance(stage, GrpoStage):
        reference = _reference(recipe, index, loaded, start) if stage.beta else None
        embed = embedder(stage.embedder, device=loaded.device)
        return partial(grpo_step, loaded, stage, reference=reference, embed=embed, seed=seed)
    return partial(sft_step, loaded, stage, seed=seed)


def _reference(recipe: Recipe, index: int, policy: Loaded, start: Path | None) -> Loaded:
    """The reference model of a KL: the weights that the run or the stage started from."""
    reference = load(recipe.model, device=local_device(recipe.device), dtype=recipe.dtype)
    if start is not None:
        load_start(start, reference)
    reference.model.requires_grad_(False)
    if recipe.sharding == "fsdp":
        shard(reference, recipe.precision)
    elif index == 0 and not recipe.lora:  # later, what is frozen may have trained before
        share_frozen(reference.model, policy.model)
    return reference
