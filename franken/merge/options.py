"""A recipe from the options of the command line: `franken merge BASE DONOR --layers 16-28`."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from franken.errors import UsageError, unknown
from franken.layers import THIRDS
from franken.merge.extrapolate import EXTRAPOLATE, expand
from franken.merge.methods import takes_base_along
from franken.merge.parts import DROP, KEEP, parse_part
from franken.merge.recipe import (
    BASE,
    CAST,
    COPY,
    EVERYTHING,
    LINEAR,
    NOISE,
    PIECES,
    Given,
    Parameters,
    Recipe,
    Rule,
    Value,
    checked,
)


@dataclass(frozen=True)
class _Names:
    """What the checkpoints of a command line may be called: every alias, and the recipe's name."""

    aliases: Mapping[str, str]

    def resolve(self, name: str) -> str:
        """The recipe's name of a checkpoint. Raises UsageError."""
        for spelling in (name, re.sub(r"[^\w.-]", "-", name), Path(name).name):
            if spelling in self.aliases:
                return self.aliases[spelling]
        raise unknown("checkpoint of this merge", name, self.aliases)


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
    keep: str = "",
    drop: str = "",
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
    at: dict[str, int] = {}
    if method == EXTRAPOLATE:
        checkpoints, at = expand(checkpoints)
        take = take if layers or take else EVERYTHING
    called = _named(checkpoints)
    aliases = {**{name: name for name in called}, BASE: BASE, called[0]: BASE}
    if len(called) == 2:
        aliases.setdefault("donor", called[1])
    names = _Names(aliases)
    donors = dict(zip(called[1:], [_unnamed(c) for c in checkpoints[1:]], strict=True))
    shared = Rule(  # what all rules of this command line have in common
        method=LINEAR if alpha else COPY,
        components=words(components),
        parameters=_parameters(param, names),
        alpha=_numbers(alpha) if alpha else None,
        relative_to=names.resolve(relative_to) if relative_to else None,
    )
    rules: list[Rule] = []
    if keep or drop:
        shared = _surgery(shared, keep, drop, method or alpha or noise is not None)
        method = shared.method
        take = take if layers or take or graft or splice else EVERYTHING
    if method and not (keep or drop) and (graft or splice):
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
        ablated = Rule((BASE,), layers, words(take), shared.components, NOISE)
        rules.append(replace(ablated, parameters={"ratio": noise}))
    elif layers or take:
        inputs = _inputs(method, tuple(donors), shared.relative_to)
        if not method and len(donors) != 1:
            raise UsageError(
                f"{len(donors)} donors for {layers or take}",
                why="without --method, one donor gives what is named",
                fix="use --graft DONOR:16-28 for each"
                if donors
                else "name the checkpoint that gives",
            )
        rule = replace(shared, inputs=inputs, layers=layers, take=words(take))
        if at:
            updates = {name: at[donors[name]] for name in inputs}
            rule = replace(rule, parameters={**rule.parameters, "at": updates})
        rules.append(replace(rule, method=method) if method else rule)
    rules += [_graft(text, names, shared) for text in graft]
    rules += _splice(splice, names, shared) if splice else []
    if not rules:
        raise UsageError(
            "nothing to merge",
            why="no --layers, --take, --graft, --splice or --recipe",
            fix="add --layers 16-28",
        )
    return checked(
        Recipe(_unnamed(checkpoints[0]), donors, tuple(rules), seed, frozenset(words(allow)))
    )


def _surgery(shared: Rule, keep: str, drop: str, others: object) -> Rule:
    """What `--keep PART` and `--drop PART` make of every rule of a command line."""
    if (keep and drop) or others or shared.parameters:
        raise UsageError(
            "--keep and --drop stand alone",
            why="they say which part of the donor's update there will be",
            fix="give one of them, with layers and components; write a recipe for more",
        )
    how, part = (KEEP, keep) if keep else (DROP, drop)
    return replace(shared, method=how, parameters={"part": str(parse_part(part))})


def _inputs(method: str, donors: tuple[str, ...], relative_to: str | None) -> tuple[str, ...]:
    """The inputs that the command line means: the donors, and the base beside them unless it is
    what they differ from.
    """
    if not method or method in (COPY, CAST) or relative_to or not takes_base_along(method):
        return donors
    return (BASE, *donors)


def _graft(text: str, names: _Names, shared: Rule) -> Rule:
    """`DONOR:16-28`, `DONOR:text:16-28,vision:0-4`, `DONOR:vision,head`; the donor's name may hold
    colons itself.
    """
    span, named = r"[0-9]{1,9}(?:[-:][0-9]{1,9})?", "|".join((*THIRDS, "all"))
    layers = rf"(?:(?:vision|projector|text):)?(?:{span}|{named})"
    word = rf"(?:{layers}|{'|'.join(PIECES)})"
    match = re.fullmatch(rf"(.+?):({word}(?:,{word})*)", text)
    if not match:
        raise UsageError(
            f"cannot read --graft {text}",
            why="it is not DONOR:LAYERS",
            fix="write for example --graft rl:text:16-28",
        )
    where = match[2].split(",")
    return replace(
        shared,
        inputs=(names.resolve(match[1]),),
        layers=",".join(w for w in where if w not in PIECES),
        take=tuple(w for w in where if w in PIECES),
    )


def _splice(text: str, names: _Names, shared: Rule) -> list[Rule]:
    givers = [names.resolve(name) for name in text.split(":")]
    if len(givers) != len(THIRDS):
        raise UsageError(
            f"cannot read --splice {text}",
            why="it names three thirds",
            fix="write for example SFT:RL:RL",
        )
    given: dict[str, list[str]] = {}
    for name, third in zip(givers, THIRDS, strict=True):
        if name != BASE:
            given.setdefault(name, []).append(third)
    if not given:
        raise UsageError(
            f"--splice {text} is the base itself",
            why="no third comes from a donor",
            fix="name a donor in at least one place",
        )
    return [
        replace(shared, inputs=(name,), layers=",".join(parts)) for name, parts in given.items()
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
    match = re.match(r"([A-Za-z][\w-]*)=.", text)
    return match[1] if match and not os.path.lexists(text) else ""


def _unnamed(text: str) -> str:
    return text[len(_name_of(text)) + 1 :] if _name_of(text) else text


def _parameters(texts: Sequence[str], names: _Names) -> Parameters:
    """`density=0.5`, `t=0,1` (a gradient), `weight.rl=0.3` (of one input), `normalize=false`."""
    common: dict[str, Given] = {}
    by_input: dict[str, dict[str, Value]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UsageError(
                f"cannot read --param {text}",
                why="it is not KEY=VALUE",
                fix="write --param density=0.5",
            )
        name, dot, of = key.partition(".")
        if dot:
            by_input.setdefault(name, {})[names.resolve(of)] = _value(value)
        else:
            common[name] = _value(value)
    return {**common, **by_input}


def _value(text: str) -> Value:
    truth = {"true": True, "false": False}.get(text.lower())
    if truth is not None:
        return truth
    numbers = _numbers(text)
    return numbers[0] if len(numbers) == 1 else list(numbers)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(piece) for piece in text.split(","))
    except ValueError as e:
        raise UsageError(
            f"{text!r} is not a number", why="nor a list of them", fix="write 0.5, or 0,1"
        ) from e


def words(text: str | int | Sequence[str]) -> tuple[str, ...]:
    """The pieces between commas, or of a list, without spaces around them."""
    pieces = str(text).split(",") if isinstance(text, str | int) else text
    return tuple(piece.strip() for piece in pieces if piece.strip())
