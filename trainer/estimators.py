"""Which advantage a recipe uses: a built-in, or any `package.module:function` of your own.

The one extension point of the trainer. A function takes the rewards `[B, G, F]` (prompts, group,
one column a reward) and the `Groups` they belong to, and returns advantages, one a response `[B,
G]` or one a token `[B, G, T]`:

    def mine(rewards, groups, *, power=2.0):
        total = groups.total(rewards)
        return (total - total.mean(1, keepdim=True)) * groups.lengths.float() ** -power

    advantage: {name: "my_package.my_module:mine", options: {power: 1.0}}
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from franken import plugins
from franken.errors import FrankenError, UsageError, did_you_mean
from trainer import advantages
from trainer.schedules import cosine_anneal, exponential_anneal
from trainer.strict import Strict

# What each built-in reads of a recipe's `advantage`, besides its name.
READS: dict[str, set[str]] = {
    "grpo": {"scale", "std_floor"},
    "dr_grpo": set(),
    "rloo": set(),
    "reinforce_baseline": set(),
    "gdpo": {"std_floor"},
    "passk": {"k"},
    "dra": {"std_floor"},
    "grpo_diversity": {"diversity", "scale", "std_floor"},
    "mupo": {
        "clusters",
        "min_size",
        "beta",
        "weighting",
        "partition",
        "distance_scale",
        "mixing",
        "diversity",
        "scale",
        "std_floor",
    },
}


class Anneal(Strict):
    """The weight λ of the diversity reward over a stage."""

    start: float = Field(default=0.4, ge=0, description="λ at the first update (the paper's λ_max)")
    end: float = Field(
        default=0.1,
        ge=0,
        description="λ at the end of the stage (λ_min); a floor for `exponential`",
    )
    shape: Literal["cosine", "exponential", "constant"] = Field(
        default="cosine",
        description="cosine is the paper's; exponential the released code's; constant keeps `start`",
    )
    decay: float = Field(default=9e-3, ge=0, description="rate per update of `exponential`")

    def at(self, step: int, progress: float) -> float:
        """λ at an update (from 0) that is `progress` in [0, 1] through its stage."""
        if self.shape == "constant":
            return self.start
        if self.shape == "exponential":
            return exponential_anneal(step, start=self.start, decay=self.decay, end=self.end)
        return cosine_anneal(progress, start=self.start, end=self.end)


class Advantage(Strict):
    """How rewards become advantages. A key that the named estimator does not read may not be
    changed.
    """

    name: str = Field(default="grpo", description=f"{', '.join(READS)}, or package.module:function")
    scale: Literal["group", "batch", "none"] = Field(
        default="group",
        description="divide by the std of the group (of the cluster), of the batch, or not at all",
    )
    std_floor: float = Field(
        default=advantages.STD_FLOOR,
        gt=0,
        description="smaller spreads are divided by this; keeps λ from cancelling",
    )
    k: int = Field(default=4, ge=1, description="of pass@k training")
    clusters: int = Field(default=3, ge=1, description="MUPO's K")
    min_size: int = Field(
        default=3, ge=1, description="MUPO's G_min; K falls to ⌊group/min_size⌋ where it must"
    )
    beta: float = Field(
        default=1.0, description="exponent of the load-balance weight (N/(K|G_k|))^beta"
    )
    weighting: Literal["paper", "code", "none"] = Field(
        default="paper",
        description="paper: w_k/|G_k| per response; code: w_k, as released; none: equal weights",
    )
    partition: Literal["kmeans", "random"] = Field(
        default="kmeans",
        description="random: clusters of the same sizes with members drawn at random, a control",
    )
    distance_scale: float = Field(
        default=1.0, gt=0, description="factor on R_div; the released code has 2"
    )
    mixing: Literal["add", "code"] = Field(
        default="add",
        description="code: the diversity reward is taken out of accuracy's weight, as released",
    )
    diversity: Anneal = Field(default=Anneal(), description="λ, the weight of the diversity reward")
    options: dict[str, Any] = Field(
        default={}, description="keyword arguments of a package.module:function"
    )

    @model_validator(mode="after")
    def _keys_are_read(self) -> "Advantage":
        own = ":" in self.name or plugins.find("advantage", self.name, READS) is not None
        if not own and self.name not in READS:
            hint = did_you_mean(self.name, READS) or f"there are {', '.join(READS)}"
            raise ValueError(
                f"unknown advantage {self.name!r}, {hint}; your own is package.module:function"
            )
        if self.name == "mupo" and self.scale == "batch":
            raise ValueError("mupo normalises inside clusters: scale is group or none")
        fields = type(self).model_fields
        changed = {
            name for name in self.model_fields_set if getattr(self, name) != fields[name].default
        }
        unread = changed - {"name"} - ({"options"} if own else READS[self.name])
        if unread:
            raise ValueError(f"{self.name} does not read {', '.join(sorted(unread))}")
        return self


@dataclass(frozen=True)
class Groups:
    """What an advantage may look at besides the rewards; `[prompts, group]` unless said otherwise.

    `correct` are replies whose answer is right and well-formed; `lengths` counts tokens; `embed()`
    gives unit vectors
    `[prompts, group, dimensions]` of the reasoning (franken/evaluate/embed.py); `step` and
    `progress` say where the stage is.
    """

    texts: list[list[str]] = field(repr=False)
    correct: Bool[Tensor, "prompts group"]
    lengths: Int[Tensor, "prompts group"]
    truncated: Bool[Tensor, "prompts group"]
    reward_names: tuple[str, ...]
    reward_weights: tuple[float, ...]
    embed: Callable[[], Float[Tensor, "prompts group dimensions"]] = field(repr=False)
    seed: int = 0
    step: int = 0
    progress: float = 0.0

    def total(
        self, rewards: Float[Tensor, "prompts group rewards"]
    ) -> Float[Tensor, "prompts group"]:
        """The rewards added up by their weights."""
        weighted = [
            w * part for w, part in zip(self.reward_weights, rewards.unbind(-1), strict=True)
        ]
        return torch.stack(weighted).sum(0)


@dataclass(frozen=True)
class Estimate:
    """Advantages `[B, G]` or `[B, G, T]`, and what there is to log about them."""

    advantages: Tensor
    metrics: dict[str, float] = field(default_factory=dict)


def estimator(
    recipe: Advantage,
) -> Callable[[Float[Tensor, "prompts group rewards"], Groups], Estimate]:
    """The function a recipe names. Raises UsageError for one that cannot be imported."""
    own = plugins.find("advantage", recipe.name, READS)
    if own is not None or ":" in recipe.name:
        function = own or _import(recipe.name)
        return lambda rewards, groups: _checked(
            recipe.name, function(rewards, groups, **recipe.options), groups
        )
    return lambda rewards, groups: _built_in(recipe, rewards, groups)


def _built_in(recipe: Advantage, rewards: Tensor, groups: Groups) -> Estimate:
    name, total = recipe.name, groups.total(rewards)
    floor = {"std_floor": recipe.std_floor}
    if name == "grpo":
        return Estimate(advantages.grpo(total, scale=recipe.scale, **floor))
    if name == "dr_grpo":
        return Estimate(advantages.dr_grpo(total))
    if name == "rloo":
        return Estimate(advantages.rloo(total))
    if name == "reinforce_baseline":
        return Estimate(advantages.reinforce_baseline(total))
    if name == "gdpo":
        return Estimate(advantages.gdpo(rewards, torch.tensor(groups.reward_weights), **floor))
    if name == "passk":
        return Estimate(advantages.passk(groups.correct, k=recipe.k))
    if name == "dra":
        return Estimate(advantages.dra(total, groups.embed(), **floor))
    weight = recipe.diversity.at(groups.step, groups.progress)
    if name == "grpo_diversity":
        return _with_diversity(recipe, total, groups, weight)
    return _mupo(recipe, total, groups, weight)


def _with_diversity(recipe: Advantage, total: Tensor, groups: Groups, weight: float) -> Estimate:
    embeddings = groups.embed()

    def at(value: float) -> Tensor:
        return advantages.grpo_diversity(
            total,
            correct=groups.correct,
            embeddings=embeddings,
            diversity_weight=value,
            scale=recipe.scale,
            std_floor=recipe.std_floor,
        )

    found = at(weight)
    earned = advantages.pairwise_diversity(embeddings)
    metrics = _diversity_metrics(found, at(0.0), earned, groups, weight)
    return Estimate(found, metrics)


def _mupo(recipe: Advantage, total: Tensor, groups: Groups, weight: float) -> Estimate:
    embeddings = groups.embed()

    def at(value: float) -> advantages.Mupo:
        assert recipe.scale != "batch"
        return advantages.mupo(
            total,
            correct=groups.correct,
            embeddings=embeddings,
            clusters=recipe.clusters,
            min_size=recipe.min_size,
            beta=recipe.beta,
            diversity_weight=value,
            weighting=recipe.weighting,
            seed=groups.seed + groups.step,
            partition=recipe.partition,
            distance_scale=recipe.distance_scale,
            mixing=recipe.mixing,
            scale=recipe.scale,
            std_floor=recipe.std_floor,
        )

    found = at(weight)
    clusters = [
        (int(members.sum()), bool((row[members] == 0).all()))
        for row, labels in zip(found.advantages, found.labels, strict=True)
        for members in (labels == k for k in labels.unique())
    ]
    sizes = [size for size, _ in clusters]
    without = found if weight == 0 else at(0.0)
    return Estimate(
        found.advantages,
        {
            "clusters": len(clusters) / len(total),
            "cluster_size_min": float(min(sizes)),
            "cluster_size_max": float(max(sizes)),
            "zero_variance_clusters": sum(flat for _, flat in clusters) / len(clusters),
            **_diversity_metrics(
                found.advantages, without.advantages, found.diversity, groups, weight
            ),
        },
    )


def _diversity_metrics(
    found: Tensor, without: Tensor, earned: Tensor, groups: Groups, weight: float
) -> dict[str, float]:
    """λ, the mean R_div of right responses, and the share of the gradient that is due to λ.

    On-policy the gradient is Σ A·∇log π over tokens. With A₀ the advantages at λ = 0 (same
    clusters), the share is Σ|A − A₀| / (Σ|A − A₀| + Σ|A₀|) over tokens: 0 without diversity, 1
    where nothing else moves the policy.
    """
    lengths = groups.lengths.to(found)
    extra = float(((found - without).abs() * lengths).sum())
    rest = float((without.abs() * lengths).sum())
    right = groups.correct
    return {
        "lambda": weight,
        "diversity_reward": float(earned[right].mean()) if right.any() else 0.0,
        "diversity_share": extra / (extra + rest) if extra > 0 else 0.0,
    }


def _import(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as e:
        raise UsageError(
            f"no advantage {name}", why=str(e), fix="write package.module:function"
        ) from e
    if not callable(function):
        raise UsageError(f"{name} is not a function", why=f"it is a {type(function).__name__}")
    return function


def _checked(name: str, found: Any, groups: Groups) -> Estimate:
    estimate = found if isinstance(found, Estimate) else Estimate(found)
    shape = getattr(estimate.advantages, "shape", ())
    size = tuple(groups.lengths.shape)
    if tuple(shape[:2]) != size or len(shape) not in (2, 3):
        raise FrankenError(
            f"{name} returned {tuple(shape) or type(estimate.advantages).__name__}",
            why=f"advantages are {size}, or that with a third dimension of tokens",
        )
    if len(shape) == 3 and shape[2] < int(groups.lengths.max()):
        raise FrankenError(
            f"{name} returned advantages for {shape[2]} tokens",
            why=f"a response has {int(groups.lengths.max())}",
        )
    if not torch.isfinite(estimate.advantages).all():
        raise FrankenError(
            f"{name} returned an advantage that is not finite",
            why="inf or nan",
            fix="check its divisors",
        )
    return estimate
