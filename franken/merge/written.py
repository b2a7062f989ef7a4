"""A recipe from a YAML file."""

import re
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from franken.configs import complaints
from franken.errors import UsageError, did_you_mean
from franken.merge.options import words
from franken.merge.recipe import COPY, LINEAR, Recipe, Rule, Scalar, checked
from franken.yaml_files import read_yaml

Words = str | int | list[str]
Weight = Scalar | list[Scalar]


class _RuleText(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inputs: Words = Field(default_factory=list, alias="from")
    layers: Words = ""
    take: Words = Field(default_factory=list)
    components: Words = Field(default_factory=list)
    method: str = ""
    alpha: float | list[float] | None = None
    parameters: dict[str, Weight | dict[str, Weight]] = Field(default_factory=dict)
    relative_to: str | None = None


class _RecipeText(BaseModel):
    model_config = ConfigDict(extra="forbid")
    base: str
    donors: dict[str, str] = Field(default_factory=dict)
    rules: list[_RuleText] = Field(min_length=1, max_length=1000)
    seed: int = Field(0, ge=-(2**63), lt=2**63)
    allow: Words = Field(default_factory=list)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 would read the range 16:28 as 988, sixteen minutes and 28 seconds."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:int" or not first.isdigit()
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"\d+$"), list("0123456789"))


def read_recipe(path: Path) -> Recipe:
    """A recipe from YAML. Raises UsageError for what cannot be read, an unknown key among it."""
    try:
        text = _RecipeText.model_validate(read_yaml(path, _Loader))
    except ValidationError as e:
        raise UsageError(
            f"{path} is not a recipe",
            why=complaints(e),
            fix=_nearest_key(e) or "see franken merge --help and the README",
        ) from e
    rules = tuple(_rule(rule) for rule in text.rules)
    return checked(Recipe(text.base, text.donors, rules, text.seed, frozenset(words(text.allow))))


def _rule(text: _RuleText) -> Rule:
    alpha = text.alpha
    if alpha is not None:
        alpha = tuple(alpha) if isinstance(alpha, list) else (alpha,)
    return Rule(
        words(text.inputs),
        ",".join(words(text.layers)),
        words(text.take),
        words(text.components),
        text.method or (COPY if alpha is None else LINEAR),
        alpha,
        text.parameters,
        text.relative_to,
    )


def _nearest_key(error: ValidationError) -> str:
    models = (_RecipeText, _RuleText)
    keys = [f.alias or name for model in models for name, f in model.model_fields.items()]
    odd = [str(e["loc"][-1]) for e in error.errors() if e["type"] == "extra_forbidden"]
    return did_you_mean(odd[0], keys) if odd else ""
