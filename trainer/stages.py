"""The stages of a recipe: what a supervised or an RL stage may set."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, SerializeAsAny, model_validator

from franken import tasks
from franken.evaluate.embed import HASHING
from franken.selection import check_pattern
from franken.tasks.sources import canonical
from trainer.algorithms import ADVANTAGES, LOSSES
from trainer.algorithms.corrections import Correction, KlKind
from trainer.creature.lessons import LESSONS
from trainer.registry import Settings, Strict
from trainer.rewards import REWARDS
from trainer.templates import DEFAULT, TEMPLATES, agreed, template


def _read_advantage(raw: object) -> Settings:
    return ADVANTAGES.read(raw, default="grpo")


def _plain(settings: Settings) -> str | dict[str, Any]:
    """The name alone where a method has no parameters of its own."""
    return settings.model_dump() if settings.parameters() else settings.name


AdvantageSettings = Annotated[SerializeAsAny[Settings], BeforeValidator(_read_advantage)]
LossSettings = Annotated[Settings, BeforeValidator(LOSSES.read), PlainSerializer(_plain)]


OnBadRow = Literal["stop", "skip"]
ON_BAD_ROW: OnBadRow = Field(
    default="stop",
    description="a row of `data` that cannot be asked ends the run, or is counted and replaced",
)
MAX_PIXELS: int = Field(
    default=0, ge=0, description="larger images of `data` are scaled down to so many; 0 is none"
)
MAX_PROMPT_TOKENS: int = Field(
    default=0,
    ge=0,
    description="a longer prompt of `data`, images included, is a bad row; 0 is any",
)
View = Literal["image", "text", "both", "blind"]
VIEW: View = Field(
    default="image",
    description="what a question shows: its image, its description, both, or neither",
)
Share = Annotated[float, Field(ge=0, lt=1)]


class Stage(Strict):
    """What all stages share. A stage ends after `steps`, or after `cpu_seconds` of training on this
    process.
    """

    name: str = ""
    steps: int | None = Field(default=None, gt=0)
    cpu_seconds: float | None = Field(default=None, gt=0)
    lr: float = Field(gt=0, le=1000)
    warmup: int = Field(default=0, ge=0)
    hold: float = Field(default=1.0, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    freeze: tuple[str, ...] = ()
    train: tuple[str, ...] = Field(
        default=(), description="only this trains; the complement of freeze"
    )
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    eval_every: int | None = Field(default=None, gt=0)
    start: Literal["previous", "recipe"] = Field(
        default="previous",
        description="begin with the weights of the stage before, or anew with the recipe's model",
    )
    save_every: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_end(self) -> "Stage":
        if (self.steps is None) == (self.cpu_seconds is None):
            raise ValueError("a stage needs either steps or cpu_seconds")
        if self.freeze and self.train:
            raise ValueError("freeze and train are complements: a stage has one of them")
        for spec in (*self.freeze, *self.train):
            check_pattern(spec)
        return self


Mixture = Mapping[str, float]
"""How often each puzzle or kind of lesson is drawn, by its name; any positive weights."""
Strategies = Mapping[str, Mapping[str, float]]
"""By puzzle, how often each of its strategies is shown."""


class SftStage(Stage):
    """Supervised fine-tuning on a mixture of puzzles and lessons."""

    kind: Literal["sft"]
    batch: int = Field(default=16, gt=0)
    tasks: dict[str, float] = Field(default={}, description="puzzles, lessons and how often")
    view: View = VIEW
    strategies: dict[str, dict[str, float]] = Field(
        default={},
        description="of a puzzle, how often each strategy is shown; by default all alike",
    )
    data: str = Field(
        default="",
        description="instead of puzzles: rows whose conversation, or answer, is what is learnt",
    )
    on_bad_row: OnBadRow = ON_BAD_ROW
    held_out: int | float | str = Field(
        default=0,
        description="rows of `data` never trained on, their loss told at eval_every: how many, a "
        "share below 1, or a file of them",
    )
    max_pixels: int = MAX_PIXELS
    max_prompt_tokens: int = MAX_PROMPT_TOKENS
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

    @property
    def count(self) -> int:
        """Rows a step."""
        return self.batch

    @model_validator(mode="after")
    def _known(self) -> "SftStage":
        if self.token_budget and not self.packed:
            raise ValueError("token_budget of an SFT stage needs packed: true")
        if bool(self.tasks) == bool(self.data):
            raise ValueError("an SFT stage needs either tasks or data")
        if self.held_out and not (self.data and self.eval_every):
            raise ValueError("held_out needs data, and eval_every to tell its loss")
        if isinstance(self.held_out, str) and self.held_out:
            canonical(self.held_out)
        elif isinstance(self.held_out, int | float) and not (
            0 <= self.held_out < 1 or self.held_out == int(self.held_out) > 0
        ):
            raise ValueError("held_out is a number of rows, a share below 1, or a file")
        if self.data and (self.view != "image" or self.strategies):
            raise ValueError("view and strategies are of puzzles; data is shown as it stands")
        for name, shares in self.strategies.items():
            if name not in self.tasks or not shares or min(shares.values()) < 0:
                raise ValueError(f"strategies of {name}: a puzzle of tasks, with weights from 0")
            if sum(shares.values()) <= 0:
                raise ValueError(f"strategies of {name} need a positive weight")
        if self.data:
            canonical(self.data)
        else:
            _check_tasks(self.tasks, tuple(LESSONS))
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
        description="instead of puzzles: a benchmark, hub id, file or folder, as in eval --data",
    )
    held_out: int = Field(
        default=0, ge=0, description="rows of `data` never trained on, asked at eval_every"
    )
    on_bad_row: OnBadRow = ON_BAD_ROW
    max_pixels: int = MAX_PIXELS
    max_prompt_tokens: int = MAX_PROMPT_TOKENS
    view: View = VIEW
    prompts: int = Field(default=16, gt=0, description="groups a step")
    sample_batch: int = Field(
        default=0, ge=0, description="prompts that a process samples at once, 0 is all"
    )
    filter: Literal["none", "accuracy"] = Field(
        default="none",
        description="accuracy: groups that are all right or all wrong are dropped and drawn anew",
    )
    band: tuple[float, float] = Field(
        default=(0.0, 1.0),
        description="of `filter`: groups at or below, and at or above these shares of right "
        "answers are dropped",
    )
    refill: int = Field(
        default=4, ge=0, description="how often a step draws anew for what `filter` dropped"
    )
    group: int = Field(default=8, gt=1, description="responses a prompt (G; MUPO's N)")
    temperature: float = Field(default=1.0, gt=0, le=1000)
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
    advantage: AdvantageSettings = Field(
        default=ADVANTAGES.read("grpo"), description="how rewards become advantages"
    )
    embedder: str = Field(
        default=HASHING,
        description="hashing, a model folder or cached hub id, or http://host:port/v1#MODEL",
    )
    loss: LossSettings = Field(
        default=LOSSES.read("dapo"),
        description="by name, with parameters of its own: grpo, dr_grpo, dapo, gspo, cispo",
    )
    clip_low: float = Field(default=0.2, gt=0, description="the ratio is kept above 1 − clip_low")
    clip_high: float = Field(
        default=0.2, gt=0, description="and below 1 + clip_high; 0.28 is DAPO's clip-higher"
    )
    dual_clip: float | None = Field(
        default=None, gt=1, description="a negative advantage costs at most this × itself"
    )
    beta: float = Field(
        default=0.0, ge=0, description="weight of the KL to `reference`; 0 loads none"
    )
    reference: Literal["recipe", "start"] = Field(
        default="recipe",
        description="what the KL refers to: the recipe's model, or the stage's first weights",
    )
    kl: KlKind = Field(default="k3", description="estimate of the KL: k1, k2 or k3")
    kl_in: Literal["loss", "reward"] = Field(default="loss", description="where the KL is charged")
    entropy_bonus: float = Field(default=0.0, ge=0, description="weight of the mean token entropy")
    importance: Correction = Field(
        default="none",
        description="correct for a sampler that differs: token or sequence, truncated or masked",
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
        description="tokens a forward pass at most; 0 is micro_rows responses, packed one group",
    )

    @model_validator(mode="after")
    def _known(self) -> "GrpoStage":
        if bool(self.tasks) == bool(self.data):
            raise ValueError("an RL stage needs either tasks or data")
        if self.held_out and not (self.data and self.eval_every):
            raise ValueError(
                "held_out needs data, and eval_every to ask it; puzzles have a test split of "
                "their own"
            )
        if self.data:
            canonical(self.data)
        else:
            _check_tasks(self.tasks)
        for name in (*self.rewards, *self.reward_options):
            REWARDS.get(name)
            REWARDS.read({"name": name, **self.reward_options.get(name, {})})
        template(self.shape)
        low, high = self.band
        if not 0 <= low < high <= 1:
            raise ValueError("band is two shares from 0 to 1, the lower one first")
        if self.band != (0.0, 1.0) and self.filter == "none":
            raise ValueError("band needs filter: accuracy")
        if self.overlong_buffer >= self.max_new_tokens:
            raise ValueError("overlong_buffer must be shorter than max_new_tokens")
        bounded = ADVANTAGES.get(self.advantage.name).at_most_group
        if bounded and (least := self.advantage.parameters()[bounded]) > self.group:
            raise ValueError(f"{self.advantage.name} needs a group of at least {least}")
        self._check_clipping()
        return self

    def _check_clipping(self) -> None:
        reads = LOSSES.get(self.loss.name).shared
        for key in ("clip_low", "clip_high", "dual_clip"):
            if key not in reads and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"the loss {self.loss.name} does not read {key}")

    @property
    def count(self) -> int:
        """Rows a step."""
        return self.prompts

    @property
    def loss_parameters(self) -> dict[str, Any]:
        """Keyword arguments of the loss: the stage's clipping, and the loss's own parameters."""
        shared = {key: getattr(self, key) for key in LOSSES.get(self.loss.name).shared}
        return {**shared, **self.loss.parameters()}

    @property
    def shape(self) -> str:
        """The template's name: the recipe's, else the one that its rewards pay for."""
        return self.template or agreed([REWARDS.get(name).template for name in self.rewards])


AskingStage = SftStage | GrpoStage  # stages with questions


def _check_tasks(mixture: Mixture, lessons: Sequence[str] = ()) -> None:
    if not mixture or min(mixture.values()) < 0 or sum(mixture.values()) <= 0:
        raise ValueError("tasks needs positive weights")
    for name in mixture:
        if name not in lessons:
            tasks.get(name)
