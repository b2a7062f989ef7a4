"""The arithmetic of a merge: mergekit's methods through its public tensor API, noise, and what each
may be given.

Methods that draw random numbers draw them from a seed of the recipe's seed and the tensor's
name: a tensor has the same value whatever is merged beside it, and verification can compute it
again. mergekit is imported when one of its methods is looked up, and not before.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from franken.errors import UsageError, did_you_mean, unknown
from franken.merge.extrapolate import EXTRAPOLATE, check_extrapolate
from franken.merge.parts import DROP, KEEP, parse_part
from franken.merge.recipe import CAST, COPY, NOISE, Given, Rule, Scalar

if TYPE_CHECKING:
    from mergekit.merge_methods import MergeMethodSpec
    from mergekit.merge_methods.base import ParameterSpec

OWN = {
    COPY: ("Exact copy", "bit for bit, in its own type; what a rule without a method does", ""),
    NOISE: ("Noise ablation", "(1 - ratio) W + ratio N(0, std W); arXiv 2602.12395", "ratio"),
    KEEP: ("Part of an update", "W + T(D); arXiv 2510.00553, 2505.11711", "part"),
    DROP: ("All but a part of an update", "W + D - T(D)", "part"),
    EXTRAPOLATE: ("The way of a run", "W + c u1; arXiv 2605.21468", "update"),
}
FLOATING = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Method:
    """What can be said of a method. `base`: required, optional, or not used; `parameters`: `name`
    or `name=default`.
    """

    name: str
    title: str
    paper: str
    base: str
    inputs: str
    parameters: tuple[str, ...]


def all_methods() -> list[Method]:
    """franken's own methods, then all that the installed mergekit registers."""
    from mergekit.merge_methods import registered_methods

    own = [
        Method(n, title, text, _base_of(n), "2+" if n == EXTRAPOLATE else "1", (p,) if p else ())
        for n, (title, text, p) in OWN.items()
    ]
    theirs = [_described(m.spec) for m in registered_methods()]
    return own + sorted(theirs, key=lambda m: m.name)


def takes_base_along(method: str) -> bool:
    """Whether the base is an input like the others: the method needs no point of origin and takes
    more than one.
    """
    if method in OWN:
        return False
    contract = _spec(method).contract
    return contract.base.value != "required" and contract.max_inputs != 1


def origin_of(method: str, relative_to: str | None, base: str) -> str | None:
    """The checkpoint that a method measures differences from: the base, unless told otherwise; None
    without one.

    Raises UsageError when the method has no use for it.
    """
    if method in OWN or method == CAST:
        policy = _base_of(method)
    else:
        policy = _spec(method).contract.base.value
    own = method in OWN or method == CAST
    if relative_to and (own or policy in ("ignored", "forbidden")):
        raise UsageError(
            f"{method} is not relative to anything", why="it has no base", fix="drop relative_to"
        )
    return relative_to or (base if policy == "required" else None)


def _base_of(method: str) -> str:
    """Whether one of franken's own methods measures an update from the base."""
    return "required" if method in (KEEP, DROP, EXTRAPOLATE) else "not used"


def check_method(rule: Rule, inputs: Sequence[str], origin: str | None) -> None:
    """Raise UsageError unless the rule's method takes these inputs and the rule's parameters (lists
    are gradients, mappings are by input).
    """
    method = rule.method
    if method in OWN or method == CAST:
        _check_own(rule, inputs)
        return
    spec = _spec(method)
    every = [*([origin] if origin else []), *inputs]
    try:
        spec.contract.validate_ids(every, origin)
    except ValueError as e:
        raise UsageError(
            f"{method} does not take {', '.join(every)}",
            why=str(e),
            fix="franken merge --list-methods says what each takes",
        ) from e
    _no_others(method, rule.parameters, [p.name for p in spec.parameters])
    for parameter in spec.parameters:
        if parameter.name in rule.parameters:
            wanted = inputs if parameter.scope.value == "non_base" else every
            _check_parameter(parameter, rule.parameters[parameter.name], wanted, method)
        elif parameter.required:
            raise UsageError(
                f"{method} needs {parameter.name}",
                why="it has no default",
                fix=f"add --param {parameter.name}=0.5",
            )


def _check_parameter(
    parameter: "ParameterSpec", given: Given, inputs: Sequence[str], method: str
) -> None:
    name = parameter.name
    if isinstance(given, Mapping):
        if parameter.scope.value == "shared":
            raise UsageError(
                f"{name} of {method} is one number",
                why="it does not differ between inputs",
                fix=f"give {name} once",
            )
        if set(given) != set(inputs):
            raise UsageError(
                f"{name} is given for {', '.join(given)}",
                why=f"the inputs are {', '.join(inputs)}",
                fix=f"give {name} for each of them",
            )
    for value in given.values() if isinstance(given, Mapping) else [given]:
        for one in value if isinstance(value, list) else [value]:
            _check_value(parameter, one, method)


def seed_of(seed: int, tensor: str) -> int:
    """The seed of one tensor: the recipe's, and the tensor's canonical name."""
    return int.from_bytes(hashlib.sha256(f"{seed} {tensor}".encode()).digest()[:8]) >> 1


def _described(spec: "MergeMethodSpec") -> Method:
    contract = spec.contract
    base = str(contract.base.value)
    base = "not used" if base in ("ignored", "forbidden") else base
    low, high = contract.min_inputs, contract.max_inputs
    if contract.min_non_base is not None or contract.max_non_base is not None:
        low, high = contract.min_non_base or 0, contract.max_non_base
    count = str(low) if low == high else f"{low}+" if high is None else f"{low} to {high}"
    parameters = tuple(p.name if p.required else f"{p.name}={p.default}" for p in spec.parameters)
    return Method(
        spec.name, spec.pretty_name or spec.name, spec.reference_url or "", base, count, parameters
    )


@cache
def _spec(method: str) -> "MergeMethodSpec":
    from mergekit.merge_methods import registered_methods

    known = {m.spec.name: m.spec for m in registered_methods()}
    if method not in known:
        names = (*OWN, *sorted(known))
        raise unknown("merge method", method, names, fix="franken merge --list-methods")
    return known[method]


def _check_own(rule: Rule, inputs: Sequence[str]) -> None:
    if rule.method == EXTRAPOLATE:
        check_extrapolate(rule, inputs)
        return
    if len(inputs) != 1:
        why = f"it has {len(inputs)}: {', '.join(inputs)}" if inputs else "it has none"
        raise UsageError(f"{rule.method} takes one input", why=why, fix="name one donor")
    _no_others(rule.method, rule.parameters, OWN[rule.method][2:] if rule.method in OWN else ())
    if rule.method in (KEEP, DROP):
        part = rule.parameters.get("part")
        if not isinstance(part, str):
            raise UsageError(
                f"{rule.method} needs a part", "it has none", "write part: rank:8, or --keep rank:8"
            )
        parse_part(part)
    if rule.method == NOISE:
        ratio = rule.parameters.get("ratio", [])
        ratios = ratio if isinstance(ratio, list) else [ratio]
        if not ratios or not all(isinstance(r, int | float) and 0 <= r <= 1 for r in ratios):
            raise UsageError(
                "noise needs a ratio from 0 to 1",
                why="it is the share of the noise",
                fix="use --noise 0.5",
            )


def _no_others(method: str, given: Collection[str], known: Sequence[str]) -> None:
    known = [name for name in known if name]
    for name in given:
        if name not in known:
            why = f"it has {', '.join(known)}" if known else "it has none"
            fix = did_you_mean(name, known) or f"leave {name} out"
            raise UsageError(f"{method} has no parameter {name!r}", why=why, fix=fix)


def _check_value(parameter: "ParameterSpec", value: Scalar, method: str) -> None:
    from pydantic import ValidationError

    try:
        parameter.validate(value)
    except ValidationError as e:
        raise UsageError(
            f"{value!r} is no value for {parameter.name} of {method}",
            why=e.errors()[0]["msg"],
            fix="franken merge --list-methods names the parameters",
        ) from e
