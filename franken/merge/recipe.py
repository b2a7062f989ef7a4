"""What a merge shall be, as data: which tensors come from which checkpoints, by which method.

A recipe is a base, named donors, and rules. What no rule names stays with the base. It is written
on the command line (`recipe_from_options`) or as YAML (`read_recipe`); both make the same frozen
dataclasses:

    base: my-sft
    donors: {rl: my-rl, math: Qwen2.5-Math-7B}
    rules:
      - {from: rl, layers: 16-28, components: [attn]}             # copied bit for bit
      - {from: rl, layers: 0-8, alpha: [0, 0.5]}                  # a blend whose share grows with
                                                            depth
      - {from: [rl, math], layers: 8-16, method: ties, parameters: {weight: 1, density: {rl: 0.5,
      math: [0.2, 0.8]}}}
      - {from: rl, take: [embed, head]}
    seed: 0
    allow: [dtype]

`from` lists a method's inputs in their order; `base` may be one. `relative_to` names the checkpoint
that task vectors are
measured from; methods that need one take the base unless it says otherwise. A list is a gradient
over the rule's layers, as in mergekit: its first value belongs to the first layer, its last to the
last, linear in between.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from franken.errors import UsageError, did_you_mean
from franken.layers import COMPONENTS, THIRDS
from franken.merge.methods import CAST, COPY, LINEAR, NOISE, takes_base_along

BASE = "base"
PIECES = ("vision", "projector", "embed", "norm", "head")
Words = str | int | list[str]
IN_LAYERS = tuple(c for c in COMPONENTS if c in ("attn", "mlp", "norm"))
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
    parameters: Mapping[str, Any] = field(default_factory=dict)
    relative_to: str | None = None

    def to_dict(self) -> dict[str, Any]:
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
        return {key: value for key, value in said.items() if value}


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

    def to_dict(self) -> dict[str, Any]:
        """As YAML would say it."""
        return {
            "base": self.base,
            "donors": dict(self.donors),
            "rules": [r.to_dict() for r in self.rules],
            "seed": self.seed,
            "allow": sorted(self.allow),
        }


def recipe_from_options(
    checkpoints: Sequence[str],
    *,
    layers: str = "",
    graft: Sequence[str] = (),
    splice: str = "",
    take: str = "",
    components: str = "",
    alpha: str = "",
    method: str = "",
    param: Sequence[str] = (),
    relative_to: str = "",
    noise: float | None = None,
    seed: int = 0,
    allow: str = "",
) -> Recipe:
    """The recipe that the options of `franken merge BASE [DONOR …]` say.

    A checkpoint may be given a name, `RL=folder`; otherwise it is called like its folder. Raises
    UsageError for options that contradict each other or say nothing.
    """
    if not checkpoints:
        raise UsageError(
            "no checkpoint given",
            why="a merge needs a base",
            fix="franken merge BASE DONOR --layers 16-28",
        )
    names = _named(checkpoints)
    aliases = {**{name: name for name in names}, BASE: BASE, names[0]: BASE}
    if len(names) == 2:
        aliases.setdefault("donor", names[1])
    donors = dict(zip(names[1:], [_unnamed(c) for c in checkpoints[1:]], strict=True))
    shared: dict[str, Any] = {
        "components": _words(components),
        "parameters": _parameters(param, aliases),
    }
    shared["alpha"] = _numbers(alpha) if alpha else None
    shared["relative_to"] = _alias(relative_to, aliases) if relative_to else None
    rules: list[Rule] = []
    if method and (graft or splice):
        raise UsageError(
            "--method goes with --layers or --take",
            why="a graft or a splice has one donor",
            fix="write a recipe",
        )
    if noise is not None:
        if method or alpha or donors:
            raise UsageError(
                "--noise stands alone",
                why="it ablates layers of the base",
                fix="write a recipe for more",
            )
        rules.append(
            Rule(
                (BASE,),
                layers,
                _words(take),
                shared["components"],
                NOISE,
                parameters={"ratio": noise},
            )
        )
    elif layers or take:
        inputs = _inputs(method, list(donors), shared["relative_to"])
        if not method and len(donors) != 1:
            raise UsageError(
                f"{len(donors)} donors for {layers or take}",
                why="without --method, one donor gives what is named",
                fix="use --graft DONOR:16-28 for each"
                if donors
                else "name the checkpoint that gives",
            )
        rules.append(Rule(inputs, layers, _words(take), method=_method(method, alpha), **shared))
    for text in graft:
        rules.append(_graft(text, aliases, _method("", alpha), shared))
    rules += _splice(splice, aliases, _method("", alpha), shared) if splice else []
    if not rules:
        raise UsageError(
            "nothing to merge",
            why="no --layers, --take, --graft, --splice or --recipe",
            fix="add --layers 16-28",
        )
    return checked(
        Recipe(_unnamed(checkpoints[0]), donors, tuple(rules), seed, frozenset(_words(allow)))
    )


def read_recipe(path: Path) -> Recipe:
    """A recipe from YAML. Raises UsageError for what cannot be read, an unknown key among it."""
    import yaml
    from pydantic import BaseModel, ConfigDict, Field, ValidationError

    class RuleText(BaseModel):
        model_config = ConfigDict(extra="forbid")
        inputs: Words = Field(default_factory=list, alias="from")
        layers: Words = ""
        take: Words = Field(default_factory=list)
        components: Words = Field(default_factory=list)
        method: str = ""
        alpha: float | list[float] | None = None
        parameters: dict[str, Any] = Field(default_factory=dict)
        relative_to: str | None = None

    class RecipeText(BaseModel):
        model_config = ConfigDict(extra="forbid")
        base: str
        donors: dict[str, str] = Field(default_factory=dict)
        rules: list[RuleText] = Field(min_length=1)
        seed: int = 0
        allow: Words = Field(default_factory=list)

    class Loader(yaml.SafeLoader):
        """YAML 1.1 would read the range 16:28 as 988, sixteen minutes and 28 seconds."""

    Loader.yaml_implicit_resolvers = {
        first: [
            (tag, pattern)
            for tag, pattern in rules
            if tag != "tag:yaml.org,2002:int" or not first.isdigit()
        ]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"\d+$"), list("0123456789"))
    try:
        text = RecipeText.model_validate(yaml.load(path.read_text(), Loader))  # noqa: S506 - a safe loader
    except OSError as e:
        raise UsageError(f"cannot read {path}", why=str(e.strerror), fix="give a YAML file") from e
    except yaml.YAMLError as e:
        raise UsageError(
            f"{path} is not YAML", why=" ".join(str(e).split()), fix="see the README"
        ) from e
    except ValidationError as e:
        raise UsageError(
            f"{path} is not a recipe", why=_complaints(e), fix=_nearest_key(e, RecipeText, RuleText)
        ) from e
    rules = tuple(
        Rule(
            _words(r.inputs),
            ",".join(_words(r.layers)),
            _words(r.take),
            _words(r.components),
            _method(r.method, r.alpha is not None),
            None
            if r.alpha is None
            else tuple(r.alpha)
            if isinstance(r.alpha, list)
            else (r.alpha,),
            r.parameters,
            r.relative_to,
        )
        for r in text.rules
    )
    return checked(Recipe(text.base, text.donors, rules, text.seed, frozenset(_words(text.allow))))


def checked(recipe: Recipe) -> Recipe:
    """The recipe itself, if its words are known ones. Raises UsageError."""
    if BASE in recipe.donors:
        raise UsageError(
            "a donor is called base", why="that is the name of the base", fix="call it otherwise"
        )
    used = {name for rule in recipe.rules for name in (*rule.inputs, rule.relative_to)}
    for name in recipe.donors:
        if name not in used:
            raise UsageError(
                f"{name} gives nothing",
                why="no rule names it",
                fix=f"leave it out, or --graft {name}:16-28",
            )
    for word in sorted(recipe.allow):
        _known(word, DIFFERENCES, "difference to allow")
    for rule in recipe.rules:
        for word in rule.take:
            _known(word, PIECES, "piece to take")
        for word in rule.components:
            _known(word, IN_LAYERS, "component of a layer")
        for name in (*rule.inputs, *([rule.relative_to] if rule.relative_to else ())):
            _known(name, (BASE, *recipe.donors), "checkpoint of this recipe")
        if not (rule.layers or rule.take):
            raise UsageError(
                "a rule names no tensors",
                why="it has neither layers nor take",
                fix="add layers: all",
            )
        if rule.alpha is not None and rule.method not in (COPY, LINEAR):
            raise UsageError(
                f"alpha does not belong to {rule.method}",
                why="it is the donor's share in a linear blend",
                fix="set the method's own parameter, for example --param t=0.3 or --param weight=0.5",
            )
        if rule.alpha is not None and (rule.parameters or rule.relative_to):
            raise UsageError(
                "alpha and parameters exclude each other",
                why="alpha sets the weights",
                fix="drop one",
            )
        for share in rule.alpha or ():
            if not 0.0 <= share <= 1.0:
                raise UsageError(
                    f"alpha {share:g} is out of range",
                    why="it is the donor's share",
                    fix="use 0 to 1",
                )
    return recipe


def _inputs(method: str, donors: list[str], relative_to: str | None) -> tuple[str, ...]:
    """The inputs that the command line means: the donors, and the base beside them unless it is
    what they differ from.
    """
    if not method or method in (COPY, CAST):
        return tuple(donors)
    return (BASE, *donors) if takes_base_along(method) and not relative_to else tuple(donors)


def _method(method: str, blended: object) -> str:
    return method or (LINEAR if blended else COPY)


def _graft(text: str, aliases: Mapping[str, str], method: str, shared: dict[str, Any]) -> Rule:
    """`DONOR:16-28`, `DONOR:text:16-28,vision:0-4`, `DONOR:vision,head`; the donor's name may hold
    colons itself.
    """
    word = rf"(?:(?:vision|projector|text):)?(?:\d+(?:[-:]\d+)?|{'|'.join((*THIRDS, 'all'))})|{'|'.join(PIECES)}"
    found = re.fullmatch(rf"(.+?):((?:{word})(?:,(?:{word}))*)", text)
    if not found:
        raise UsageError(
            f"cannot read --graft {text}",
            why="it is not DONOR:LAYERS",
            fix="write for example --graft rl:text:16-28",
        )
    where = found[2].split(",")
    layers = ",".join(w for w in where if w not in PIECES)
    take = tuple(w for w in where if w in PIECES)
    return Rule((_alias(found[1], aliases),), layers, take, method=method, **shared)


def _splice(
    text: str, aliases: Mapping[str, str], method: str, shared: dict[str, Any]
) -> list[Rule]:
    names = [_alias(name, aliases) for name in text.split(":")]
    if len(names) != len(THIRDS):
        raise UsageError(
            f"cannot read --splice {text}",
            why="it names three thirds",
            fix="write for example SFT:RL:RL",
        )
    given: dict[str, list[str]] = {}
    for name, third in zip(names, THIRDS, strict=True):
        if name != BASE:
            given.setdefault(name, []).append(third)
    if not given:
        raise UsageError(f"--splice {text} is the base itself", why="no third comes from a donor")
    return [
        Rule((name,), ",".join(found), method=method, **shared) for name, found in given.items()
    ]


def _named(checkpoints: Sequence[str]) -> list[str]:
    names: list[str] = []
    for text in checkpoints:
        name = (
            _name_of(text)
            or re.sub(r"[^\w.-]", "-", text if ":" in text else Path(text).name)
            or "donor"
        )
        if name == BASE and names:
            name = "base-2"
        while name in names:
            stem, _, number = name.rpartition("-")
            name = f"{stem}-{int(number) + 1}" if stem and number.isdigit() else f"{name}-2"
        names.append(name)
    return names


def _name_of(text: str) -> str:
    found = re.match(r"([A-Za-z][\w-]*)=.", text)
    return found[1] if found and not Path(text).exists() else ""


def _unnamed(text: str) -> str:
    return text[len(_name_of(text)) + 1 :] if _name_of(text) else text


def _alias(name: str, aliases: Mapping[str, str]) -> str:
    flat = re.sub(r"[^\w.-]", "-", name)
    if name not in aliases and flat in aliases:
        return aliases[flat]
    if name not in aliases and Path(name).name in aliases:
        return aliases[Path(name).name]
    _known(name, aliases, "checkpoint of this merge")
    return aliases[name]


def _parameters(texts: Sequence[str], aliases: Mapping[str, str]) -> dict[str, Any]:
    """`density=0.5`, `t=0,1` (a gradient), `weight.rl=0.3` (of one input), `normalize=false`."""
    made: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UsageError(
                f"cannot read --param {text}",
                why="it is not KEY=VALUE",
                fix="write --param density=0.5",
            )
        parsed = {"true": True, "false": False}.get(value.lower())
        number: Any = parsed if parsed is not None else _numbers(value)
        number = number[0] if isinstance(number, tuple) and len(number) == 1 else number
        name, dot, of = key.partition(".")
        if dot:
            made.setdefault(name, {})[_alias(of, aliases)] = number
        else:
            made[name] = number
    return {key: list(value) if isinstance(value, tuple) else value for key, value in made.items()}


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(piece) for piece in text.split(","))
    except ValueError as e:
        raise UsageError(
            f"{text!r} is not a number", why="nor a list of them", fix="write 0.5, or 0,1"
        ) from e


def _words(text: str | int | Sequence[str]) -> tuple[str, ...]:
    pieces = str(text).split(",") if isinstance(text, str | int) else text
    return tuple(piece.strip() for piece in pieces if piece.strip())


def _known(word: str, known: Mapping[str, Any] | Sequence[str], what: str) -> None:
    if word not in known:
        raise UsageError(
            f"unknown {what}: {word!r}",
            why=f"known are {', '.join(known)}",
            fix=did_you_mean(word, known),
        )


def _complaints(error: Any) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])


def _nearest_key(error: Any, *models: Any) -> str:
    keys = [f.alias or name for model in models for name, f in model.model_fields.items()]
    odd = [str(e["loc"][-1]) for e in error.errors() if e["type"] == "extra_forbidden"]
    return did_you_mean(odd[0], keys) if odd else ""
