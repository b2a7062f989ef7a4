"""Recipes: a model and a list of stages. Unknown keys are errors. How their files are written:
trainer/recipe_files.py.
"""

import difflib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from franken.errors import UsageError
from franken.tasks.sources import canonical
from trainer.creature.align import AlignStage
from trainer.creature.lessons import LESSONS
from trainer.recipe_files import Raw, read_recipe
from trainer.registry import Strict
from trainer.stages import GrpoStage, SftStage

AnyStage = Annotated[AlignStage | SftStage | GrpoStage, Field(discriminator="kind")]


class Keep(Strict):
    """Which checkpoints stay: the last ones, and the best by held-out accuracy of `eval_every`, or
    by the held-out loss of an SFT stage on data; and the weights of every so many updates, in
    `checkpoints/`, for good (trainer/kept.py). `keep: all` is `keep: {every: 1}`.
    """

    last: int = Field(default=2, gt=0)
    best: int = Field(default=0, ge=0)
    by: Literal["acc@1", "acc@4", "loss"] = "acc@4"
    every: Annotated[int, Field(ge=0)] | Literal["powers"] = Field(
        default=0, description="keep the weights of so many updates, or of the powers of two"
    )
    at_most: int = Field(
        default=0,
        ge=0,
        description="so many of them, and the last: their distance doubles; 0 is any number",
    )

    @model_validator(mode="after")
    def _of_something(self) -> "Keep":
        if self.at_most and not (isinstance(self.every, int) and self.every):
            raise ValueError("at_most needs every, a number of updates")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, int | str]:
        """Without what is not used: runs that were begun before these keys were there go on."""
        unused = {name for name in ("every", "at_most") if not getattr(self, name)}
        return {name: value for name, value in write(self).items() if name not in unused}


def _read_keep(raw: object) -> object:
    return {"every": 1} if raw == "all" else raw


class Lora(Strict):
    """Low-rank adapters that train instead of the weights, merged at export (trainer/lora.py)."""

    rank: int = Field(default=16, gt=0)
    alpha: float = Field(default=32.0, gt=0)
    targets: tuple[str, ...] = Field(default=("text.attn", "text.mlp"), min_length=1)


class Recipe(Strict):
    """A training run: where it starts, and its stages in order."""

    name: str
    model: str
    seed: int = Field(default=0, ge=-(2**63), lt=2**63)
    device: str = "auto"
    dtype: Literal["fp32", "bf16"] = "fp32"
    sharding: Literal["none", "fsdp"] = Field(
        default="none",
        description="fsdp: weights, gradients and optimizer spread over the processes of torchrun",
    )
    precision: Literal["fp32", "bf16-mixed"] = Field(
        default="fp32",
        description="bf16-mixed: layers compute in bfloat16, fp32 weights are updated; needs fsdp",
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="keep only what enters a layer, and run it again in the backward pass",
    )
    keep: Annotated[Keep, BeforeValidator(_read_keep)] = Keep()
    lora: Lora | None = None
    export: Literal["last", "best"] = Field(
        default="last", description="which checkpoint becomes final/"
    )
    stages: tuple[AnyStage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _holds_out_alike(self) -> "Recipe":
        held: dict[str, int | float | str] = {}
        for stage in self.stages:
            if isinstance(stage, GrpoStage | SftStage) and stage.data:
                data = canonical(stage.data)
                if held.setdefault(data, stage.held_out) != stage.held_out:
                    raise ValueError(
                        f"stages on {stage.data} must hold out as many: "
                        "one would train on another's"
                    )
        return self

    @model_validator(mode="after")
    def _knows_how_many_stay(self) -> "Recipe":
        timed = any(stage.steps is None for stage in self.stages)
        if timed and isinstance(self.keep.every, int) and self.keep.every and not self.keep.at_most:
            raise ValueError("keep.every of stages counted in cpu_seconds needs keep.at_most")
        return self

    @model_validator(mode="after")
    def _has_a_best(self) -> "Recipe":
        if self.export == "best":
            last = self.stages[-1]
            if not self.keep.best:
                raise ValueError("export: best needs keep: {best: 1}")
            questions = set(getattr(last, "tasks", ())) - set(LESSONS)
            told = isinstance(last, SftStage) and bool(last.held_out)
            if told != (self.keep.by == "loss"):
                raise ValueError(
                    "keep.by: loss is for a last stage of SFT on data that holds some out, "
                    "and the only one there"
                )
            if not last.eval_every or not (questions or getattr(last, "held_out", 0)):
                raise ValueError(
                    "export: best needs eval_every and puzzles, or held_out data, in the last stage"
                )
        return self

    @model_validator(mode="after")
    def _starts(self) -> "Recipe":
        later = self.stages[1:]
        anew = [s for s in later if s.start == "recipe" or getattr(s, "reference", "") == "start"]
        if anew and (self.sharding == "fsdp" or self.lora or self.model == "creature:new"):
            raise ValueError(
                "start: recipe and reference: start of a later stage need a checkpoint as model, "
                "sharding: none and no lora"
            )
        return self

    @model_validator(mode="after")
    def _one_precision(self) -> "Recipe":
        if self.precision == "bf16-mixed" and (self.sharding == "none" or self.dtype == "bf16"):
            raise ValueError(
                "bf16-mixed needs sharding: fsdp (one process will do) and dtype: fp32 "
                "(its master weights)"
            )
        if self.sharding == "fsdp" and self.model == "creature:new":
            raise ValueError("creature:new is made on one process: sharding must be none")
        if self.sharding == "fsdp" and self.keep.best:
            raise ValueError("sharded checkpoints are kept by age: sharding: fsdp has no keep.best")
        return self


def load_recipe(path_or_name: str | Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe from a file, or one of the package's by name. `overrides` are `key=value`,
    `stages.0.steps=5`. Raises UsageError.
    """
    return parse_recipe(read_recipe(path_or_name, overrides))


def parse_recipe(raw: Raw) -> Recipe:
    """Validate a recipe. Raises UsageError that names the key and the nearest known one."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as e:
        errors = e.errors()
        inner = any(error["loc"][:1] == ("stages",) and len(error["loc"]) > 1 for error in errors)
        # a stage with an error is left out, which pydantic then counts as a stage too few
        shown = [
            x
            for x in errors
            if not (inner and x["loc"] == ("stages",) and x["type"] == "too_short")
        ]
        problems = [_explain(x["loc"], x["type"], x["msg"]) for x in shown]
        raise UsageError(
            "the recipe does not fit",
            why="; ".join(problems),
            fix="franken train --show creature-rl is one that does",
        ) from e


def with_trained(recipe: Recipe, freeze: tuple[str, ...], train: tuple[str, ...]) -> Recipe:
    """The recipe with `freeze` added to every stage, or with `train` instead of what its stages
    freeze and train.
    """
    if freeze and train:
        raise UsageError(
            "--freeze and --train are complements", why="both were given", fix="give one of them"
        )

    def changed(stage: AnyStage) -> dict[str, tuple[str, ...]]:
        return {"freeze": (), "train": train} if train else {"freeze": (*stage.freeze, *freeze)}

    stages = tuple(stage.model_copy(update=changed(stage)) for stage in recipe.stages)
    return recipe.model_copy(update={"stages": stages})


def _explain(location: tuple[int | str, ...], kind: str, message: str) -> str:
    where = ".".join(str(x) for x in location if x not in ("align", "sft", "grpo"))
    if kind != "extra_forbidden":
        return f"{where}: {message}"
    models: list[type[BaseModel]] = [Recipe, Keep, Lora, AlignStage, SftStage, GrpoStage]
    fields = {name for model in models for name in model.model_fields}
    close = difflib.get_close_matches(str(location[-1]), sorted(fields), n=1)
    return f"unknown key {where}" + (f", did you mean {close[0]}?" if close else "")
