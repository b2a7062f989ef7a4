"""Recipes: a model and a list of stages, as YAML. Unknown keys are errors."""

import difflib
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from franken import tasks
from franken.errors import UsageError, did_you_mean
from franken.evaluate.embed import HASHING
from franken.tasks.sources import canonical
from trainer.estimators import Advantage, Anneal
from trainer.losses import Correction, KlKind, LossKind
from trainer.rewards import PAYS_FOR, check_names
from trainer.sft import LESSON_KINDS
from trainer.strict import Strict
from trainer.templates import DEFAULT, TEMPLATES, agreed, template


class Stage(Strict):
    """What all stages share. A stage ends after `steps`, or after `cpu_seconds` of training on this
    process.
    """

    name: str = ""
    steps: int | None = Field(default=None, gt=0)
    cpu_seconds: float | None = Field(default=None, gt=0)
    lr: float = Field(gt=0)
    warmup: int = Field(default=0, ge=0)
    hold: float = Field(default=1.0, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    freeze: tuple[str, ...] = ()
    train: tuple[str, ...] = Field(
        default=(), description="only this trains; the complement of freeze"
    )
    seed: int | None = None
    eval_every: int | None = Field(default=None, gt=0)
    save_every: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_end(self) -> "Stage":
        if (self.steps is None) == (self.cpu_seconds is None):
            raise ValueError("a stage needs either steps or cpu_seconds")
        if self.freeze and self.train:
            raise ValueError("freeze and train are complements: a stage has one of them")
        return self


class AlignStage(Stage):
    """Align a vision tower with the word embeddings (trainer/align.py)."""

    kind: Literal["align"]
    batch: int = Field(default=64, gt=0)


class SftStage(Stage):
    """Supervised fine-tuning on a mixture of puzzles and lessons."""

    kind: Literal["sft"]
    batch: int = Field(default=16, gt=0)
    tasks: dict[str, float]
    template: str = Field(
        default=DEFAULT, description=f"the shape of a worked solution: {', '.join(TEMPLATES)}"
    )
    instruct: bool = Field(
        default=False, description="put the template's request before every question"
    )
    packed: bool = Field(
        default=False, description="several examples a row, kept apart by the mask, none padded"
    )
    token_budget: int = Field(
        default=0, ge=0, description="tokens a packed row at most; 0 is all of the batch in one"
    )

    @model_validator(mode="after")
    def _known(self) -> "SftStage":
        if self.token_budget and not self.packed:
            raise ValueError("token_budget of an SFT stage needs packed: true")
        _check_tasks(self.tasks, LESSON_KINDS)
        template(self.template)
        return self


class GrpoStage(Stage):
    """RL on a mixture of puzzles: `prompts` × `group` samples a step, `inner_steps` updates of each
    batch.

    The defaults are GRPO's advantage with the token-mean loss, clipped at ±0.2, on-policy, without
    a reference.
    """

    kind: Literal["grpo"]
    tasks: dict[str, float] = Field(default={}, description="puzzles and how often each is drawn")
    data: str = Field(
        default="",
        description="instead of puzzles: a benchmark, a hub id, a file or folder, as franken eval --data",
    )
    held_out: int = Field(
        default=0, ge=0, description="rows of `data` never trained on, asked at eval_every"
    )
    prompts: int = Field(default=16, gt=0, description="groups a step")
    sample_batch: int = Field(
        default=0, ge=0, description="prompts that a process samples at once, 0 is all"
    )
    filter: Literal["none", "accuracy"] = Field(
        default="none",
        description="accuracy: groups that are all right or all wrong are dropped and drawn anew",
    )
    refill: int = Field(
        default=4, ge=0, description="how often a step draws anew for what `filter` dropped"
    )
    group: int = Field(default=8, gt=1, description="responses a prompt (G; MUPO's N)")
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=64, gt=0)
    rewards: dict[str, float] = Field(
        default={"accuracy": 1.0, "format": 0.1}, description="weight of each reward"
    )
    reward_options: dict[str, dict[str, Any]] = Field(
        default={}, description="options of rewards, by name"
    )
    reward_timeout: float = Field(
        default=60.0, gt=0, description="seconds that one reward may take over one group"
    )
    template: str = Field(
        default="", description="the shape of a reply; by default the one its rewards pay for"
    )
    instruct: bool = Field(
        default=False, description="put the template's request before every question"
    )
    advantage: Advantage = Field(default=Advantage(), description="how rewards become advantages")
    embedder: str = Field(
        default=HASHING,
        description="hashing, a model folder or cached hub id, or http://host:port/v1#MODEL",
    )
    loss: LossKind = Field(
        default="dapo",
        description="grpo (row mean), dr_grpo (constant), dapo (token mean), gspo (row ratio), cispo",
    )
    clip_low: float = Field(default=0.2, gt=0, description="the ratio is kept above 1 − clip_low")
    clip_high: float = Field(
        default=0.2, gt=0, description="and below 1 + clip_high; 0.28 is DAPO's clip-higher"
    )
    dual_clip: float | None = Field(
        default=None, gt=1, description="a negative advantage costs at most this × itself"
    )
    beta: float = Field(
        default=0.0, ge=0, description="weight of the KL to the start; 0 loads no reference"
    )
    kl: KlKind = Field(default="k3", description="estimate of the KL: k1, k2 or k3")
    kl_in: Literal["loss", "reward"] = Field(default="loss", description="where the KL is charged")
    entropy_bonus: float = Field(default=0.0, ge=0, description="weight of the mean token entropy")
    importance: Correction = Field(
        default="none",
        description="correct for a sampler that differs from the trainer: token or sequence, cut or masked",
    )
    importance_cap: float = Field(default=2.0, gt=0, description="where `importance` cuts or masks")
    mask_truncated: bool = Field(
        default=False, description="responses that were cut off do not enter the loss"
    )
    overlong_buffer: int = Field(
        default=0,
        ge=0,
        description="a reward that falls to −1 over the last so many tokens of max_new_tokens",
    )
    inner_steps: int = Field(default=1, gt=0, description="updates of each batch of samples")
    micro_rows: int = Field(
        default=64, gt=0, description="responses a forward pass, where nothing is packed"
    )
    packed: bool = Field(
        default=False, description="run image and prompt once a group, its responses after them"
    )
    token_budget: int = Field(
        default=0,
        ge=0,
        description="tokens a forward pass at most; 0 is micro_rows responses, or packed, one group",
    )

    @model_validator(mode="after")
    def _known(self) -> "GrpoStage":
        if bool(self.tasks) == bool(self.data):
            raise ValueError("an RL stage needs either tasks or data")
        if self.held_out and not (self.data and self.eval_every):
            raise ValueError(
                "held_out needs data, and eval_every to ask it; puzzles have a test split of their own"
            )
        if self.data:
            canonical(self.data)
        else:
            _check_tasks(self.tasks, ())
        check_names([*self.rewards, *self.reward_options])
        template(self.shape)
        if self.overlong_buffer >= self.max_new_tokens:
            raise ValueError("overlong_buffer must be shorter than max_new_tokens")
        if self.advantage.name == "passk" and self.advantage.k > self.group:
            raise ValueError(
                f"pass@{self.advantage.k} needs a group of at least {self.advantage.k}"
            )
        return self

    @property
    def shape(self) -> str:
        """The template's name: the recipe's, else the one that its rewards pay for."""
        return self.template or agreed([PAYS_FOR.get(name, "") for name in self.rewards])


AnyStage = Annotated[AlignStage | SftStage | GrpoStage, Field(discriminator="kind")]


class Keep(Strict):
    """Which checkpoints stay: the last ones, and the best by held-out accuracy of `eval_every`."""

    last: int = Field(default=2, gt=0)
    best: int = Field(default=0, ge=0)
    by: Literal["acc@1", "acc@4"] = "acc@4"


class Lora(Strict):
    """Low-rank adapters that train instead of the weights, merged at export (trainer/lora.py)."""

    rank: int = Field(default=16, gt=0)
    alpha: float = Field(default=32.0, gt=0)
    targets: tuple[str, ...] = Field(default=("text.attn", "text.mlp"), min_length=1)


class Recipe(Strict):
    """A training run: where it starts, and its stages in order."""

    name: str
    model: str
    seed: int = 0
    device: str = "auto"
    dtype: Literal["fp32", "bf16"] = "fp32"
    sharding: Literal["none", "fsdp"] = Field(
        default="none",
        description="fsdp: weights, gradients and optimiser spread over the processes of torchrun",
    )
    precision: Literal["fp32", "bf16-mixed"] = Field(
        default="fp32",
        description="bf16-mixed: layers compute in bfloat16, fp32 weights are updated; needs fsdp",
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="keep only what enters a layer, and run it again in the backward pass",
    )
    keep: Keep = Keep()
    lora: Lora | None = None
    export: Literal["last", "best"] = Field(
        default="last", description="which checkpoint becomes final/"
    )
    stages: tuple[AnyStage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _holds_out_alike(self) -> "Recipe":
        held: dict[str, int] = {}
        for stage in self.stages:
            if isinstance(stage, GrpoStage) and stage.data:
                data = canonical(stage.data)
                if held.setdefault(data, stage.held_out) != stage.held_out:
                    raise ValueError(
                        f"stages on {stage.data} must hold out as many: one would train on another's"
                    )
        return self

    @model_validator(mode="after")
    def _has_a_best(self) -> "Recipe":
        if self.export == "best":
            last = self.stages[-1]
            if not self.keep.best:
                raise ValueError("export: best needs keep: {best: 1}")
            asked = getattr(last, "held_out", 0) or set(getattr(last, "tasks", ())) - set(
                LESSON_KINDS
            )
            if not last.eval_every or not asked:
                raise ValueError(
                    "export: best needs eval_every and puzzles, or held_out data, in the last stage"
                )
        return self

    @model_validator(mode="after")
    def _one_precision(self) -> "Recipe":
        if self.precision == "bf16-mixed" and (self.sharding == "none" or self.dtype == "bf16"):
            raise ValueError(
                "bf16-mixed needs sharding: fsdp (one process will do) and dtype: fp32 (its master weights)"
            )
        if self.sharding == "fsdp" and self.model == "creature:new":
            raise ValueError("creature:new is made on one process: sharding must be none")
        if self.sharding == "fsdp" and self.keep.best:
            raise ValueError("sharded checkpoints are kept by age: sharding: fsdp has no keep.best")
        return self


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(
        p.name.removesuffix(".yaml") for p in _folder().iterdir() if p.name.endswith(".yaml")
    )


def describe(name: str) -> str:
    """What a built-in recipe says about itself: the comment at its top, up to the first full stop."""
    lines = (_folder() / f"{name}.yaml").read_text().splitlines()
    comment = " ".join(
        line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines)
    )
    return comment.split(". ")[0].rstrip(".")


def load_recipe(path_or_name: str | Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe from a file, or one of the package's by name. `overrides` are `key=value`,
    `stages.0.steps=5`.
    """
    path = Path(path_or_name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(
                f"no recipe at {path}",
                why="there is no such file",
                fix="franken train --list names the built-in ones",
            )
        text = path.read_text()
    elif str(path_or_name) in recipe_names():
        text = (_folder() / f"{path_or_name}.yaml").read_text()
    else:
        raise UsageError(
            f"unknown recipe {path_or_name!s}",
            why=f"the built-in recipes are {', '.join(recipe_names())}",
            fix=did_you_mean(str(path_or_name), recipe_names()) or "give a .yaml file",
        )
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise UsageError(f"{path_or_name} is not YAML", why=str(e)) from e
    if not isinstance(raw, dict):
        raise UsageError(
            f"{path_or_name} is not a recipe",
            why="a recipe is a mapping with name, model and stages",
        )
    for override in overrides:
        _set(raw, override)
    return parse_recipe(raw)


def parse_recipe(raw: dict[str, Any]) -> Recipe:
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
        problems = [_explain(error) for error in shown]
        raise UsageError(
            "the recipe does not fit",
            why="; ".join(problems),
            fix="franken train --show creature-rl is one that does",
        ) from e


def _explain(error: Any) -> str:
    where = ".".join(str(x) for x in error["loc"] if x not in ("align", "sft", "grpo"))
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg']}"
    fields = {
        f
        for model in (Recipe, Keep, Lora, AlignStage, SftStage, GrpoStage, Advantage, Anneal)
        for f in model.model_fields
    }
    close = difflib.get_close_matches(str(error["loc"][-1]), sorted(fields), n=1)
    return f"unknown key {where}" + (f", did you mean {close[0]}?" if close else "")


def _set(raw: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    if not equals:
        raise UsageError(
            f"cannot read --set {override}", why="it has no =", fix="write --set stages.0.steps=5"
        )
    at: Any = raw
    *parents, last = path.split(".")
    try:
        for key in parents:
            at = at[int(key)] if isinstance(at, list) else at[key]
        at[int(last) if isinstance(at, list) else last] = yaml.safe_load(value)
    except (KeyError, IndexError, ValueError, TypeError) as e:
        raise UsageError(f"--set {override} points nowhere", why=f"the recipe has no {path}") from e


def _check_tasks(mixture: dict[str, float], also: tuple[str, ...]) -> None:
    if not mixture or min(mixture.values()) < 0 or sum(mixture.values()) <= 0:
        raise ValueError("tasks needs positive weights")
    for name in mixture:
        if name not in also:
            tasks.get(name)


def _folder() -> Any:
    return resources.files("trainer") / "recipes"
