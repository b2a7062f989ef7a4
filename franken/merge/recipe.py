"""What a merge shall be, as data: which tensors come from which checkpoints, by which method.

A recipe is a base, named donors, and rules. What no rule names stays with the base. It is written
on the command line (`franken.merge.options`) or as YAML (`franken.merge.written`); both make the
same frozen dataclasses:

    base: my-sft
    donors: {rl: my-rl, math: Qwen2.5-Math-7B}
    rules:
      - {from: rl, layers: 16-28, components: [attn]}             # copied bit for bit
      - {from: rl, layers: 0-8, alpha: [0, 0.5]}          # a blend whose share grows with depth
      - from: [rl, math]
        layers: 8-16
        method: ties
        parameters: {weight: 1, density: {rl: 0.5, math: [0.2, 0.8]}}
      - {from: rl, take: [embed, head]}
    seed: 0
    allow: [dtype]

`from` lists a method's inputs in their order; `base` may be one. `relative_to` names the checkpoint
that task vectors are measured from; methods that need one take the base unless it says otherwise. A
list is a gradient over the rule's layers, as in mergekit: its first value belongs to the first
layer, its last to the last, linear in between.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from franken.errors import UsageError, check_known

BASE = "base"
PIECES = ("vision", "projector", "embed", "norm", "head")
EVERYTHING = "all"  # in place of pieces: every tensor, those in layers too
IN_LAYERS = ("attn", "mlp", "norm")
COPY, CAST, ADAPTER, LINEAR, NOISE = "copy", "cast", "adapter", "linear", "noise"
DIFFERENCES = {
    "architecture": "another model type",
    "depth": "another number of layers",
    "vocab": "another vocabulary size",
    "tokenizer": "the same token has another id, or there are others",
    "processor": "images are prepared differently",
    "rope": "other rotary position embeddings",
    "config": "heads, norms or activations work differently",
    "tied": "embeddings and head are one tensor in just one of the two",
    "dtype": "weights are stored in another type, and will be rounded to the base's",
}


Scalar = float | int | bool | str
Value = Scalar | list[Scalar]  # a list is a gradient over the layers of a rule
Given = Value | Mapping[str, Value]  # a mapping has a value for each input
Parameters = Mapping[str, Given]  # of a merge method, by their names


class RuleRecord(TypedDict, total=False):
    """A rule as YAML says it; what is empty is left out."""

    layers: str
    take: list[str]
    components: list[str]
    method: str
    alpha: list[float]
    parameters: Parameters
    relative_to: str | None


class RecipeRecord(TypedDict):
    """A recipe as YAML says it."""

    base: str
    donors: Mapping[str, str]
    rules: list[RuleRecord]
    seed: int
    allow: list[str]


@dataclass(frozen=True)
class Rule:
    """Some tensors and what they are made of; see the module's docstring. `layers` is as
    `franken.layers` reads it.
    """

    inputs: tuple[str, ...] = ()
    layers: str = ""
    take: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    method: str = COPY
    alpha: tuple[float, ...] | None = None
    parameters: Parameters = field(default_factory=dict)
    relative_to: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All checkpoints that the rule reads."""
        return (*self.inputs, *([self.relative_to] if self.relative_to else ()))

    def to_dict(self) -> RuleRecord:
        """As YAML would say it."""
        said = {
            "from": list(self.inputs),
            "layers": self.layers,
            "take": list(self.take),
            "components": list(self.components),
            "method": self.method,
            "alpha": list(self.alpha or ()),
            "parameters": dict(self.parameters),
            "relative_to": self.relative_to,
        }
        return RuleRecord({key: value for key, value in said.items() if value})  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Recipe:
    """A merge, before any checkpoint was opened. `donors` maps names to folders; `allow` holds
    kinds of `DIFFERENCES`.
    """

    base: str
    donors: Mapping[str, str]
    rules: tuple[Rule, ...]
    seed: int = 0
    allow: frozenset[str] = frozenset()

    def to_dict(self) -> RecipeRecord:
        """As YAML would say it."""
        return {
            "base": self.base,
            "donors": dict(self.donors),
            "rules": [r.to_dict() for r in self.rules],
            "seed": self.seed,
            "allow": sorted(self.allow),
        }


def checked(recipe: Recipe) -> Recipe:
    """The recipe itself, if its words are known ones. Raises UsageError."""
    if BASE in recipe.donors:
        raise UsageError(
            "a donor is called base", why="that is the name of the base", fix="call it otherwise"
        )
    used = {name for rule in recipe.rules for name in rule.names}
    for name in recipe.donors:
        if name not in used:
            raise UsageError(
                f"{name} gives nothing",
                why="no rule names it",
                fix=f"leave it out, or --graft {name}:16-28",
            )
    check_known("difference to allow", sorted(recipe.allow), DIFFERENCES)
    for rule in recipe.rules:
        _check_words(rule, recipe)
        _check_alpha(rule)
        for name, given in rule.parameters.items():
            _check_finite(name, given)
    return recipe


def _check_words(rule: Rule, recipe: Recipe) -> None:
    check_known("piece to take", rule.take, (*PIECES, EVERYTHING))
    check_known("component of a layer", rule.components, IN_LAYERS)
    check_known("checkpoint of this recipe", rule.names, (BASE, *recipe.donors))
    if not (rule.layers or rule.take):
        raise UsageError(
            "a rule names no tensors", why="it has neither layers nor take", fix="add layers: all"
        )


def _check_alpha(rule: Rule) -> None:
    if rule.alpha is None:
        return
    if rule.method not in (COPY, LINEAR):
        raise UsageError(
            f"alpha does not belong to {rule.method}",
            why="it is the donor's share in a linear blend",
            fix="set the method's own parameter, such as --param t=0.3 or --param weight=0.5",
        )
    if rule.parameters or rule.relative_to:
        raise UsageError(
            "alpha and parameters exclude each other",
            why="alpha sets the weights",
            fix="drop one",
        )
    for share in rule.alpha:
        if not 0.0 <= share <= 1.0:
            raise UsageError(
                f"alpha {share:g} is out of range", why="it is the donor's share", fix="use 0 to 1"
            )


def _check_finite(name: str, given: Given) -> None:
    for value in given.values() if isinstance(given, Mapping) else [given]:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, float) and not math.isfinite(one):
                raise UsageError(
                    f"{name} is {one}", why="it is not a finite number", fix="use another value"
                )
