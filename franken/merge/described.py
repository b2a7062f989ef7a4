"""A merge in words and tables, before and after it happens."""

from collections.abc import Sequence
from typing import NamedTuple

from franken.layers import describe_range, format_layers, parse_ranges
from franken.merge.parts import DROP, KEEP
from franken.merge.plan import Plan, Row
from franken.merge.recipe import COPY, EVERYTHING


class Group(NamedTuple):
    """Tensors of one part that are made of the same: `where` is `layers`, or their component."""

    part: str
    where: str
    made_of: str
    layers: str
    components: str
    tensors: int
    bytes: int


HEAD = ("part", "", "made of", "layers", "components", "tensors", "bytes")


def describe_rules(plan: Plan) -> list[str]:
    """What each rule does, in words: `text layers 16..27 (12 of 28), attn only, from my-rl`."""
    base, told = plan.base, []
    for rule in plan.recipe.rules:
        ranges = parse_ranges(rule.layers, base.depths) if rule.layers else ()
        what = " and ".join(
            [*(describe_range(r, base.depths[r.part]) for r in ranges), *map(_pieces, rule.take)]
        )
        only = f", {' and '.join(rule.components)} only," if rule.components else ""
        givers = " and ".join(plan.checkpoints[name].name for name in rule.inputs)
        method = f"{rule.method} of " if rule.alpha is None else f"{_share(rule.alpha)} of "
        how = "" if rule.method == COPY else method
        origin = rule.relative_to
        relative = f", relative to {plan.checkpoints[origin].name}" if origin else ""
        values = ", ".join(f"{k}={v}" for k, v in rule.parameters.items())
        told.append(
            f"{what}{only} from {how}{givers}{relative}" + (f" ({values})" if values else "")
        )
    return told


def _pieces(word: str) -> str:
    return "every tensor" if word == EVERYTHING else word


def _share(alpha: Sequence[float]) -> str:
    return " to ".join(f"{a:g}" for a in alpha)


def summarise(rows: Sequence[Row]) -> list[Group]:
    """The plan by part, what it is made of, and component: layers, tensors, bytes."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        spot = row.target.place
        where = "layers" if spot.layer is not None else spot.component
        groups.setdefault((spot.part, where, _made_of(row)), []).append(row)
    return [
        Group(
            part,
            where,
            made_of,
            format_layers(
                {r.target.place.layer for r in members if r.target.place.layer is not None}
            ),
            ", ".join(sorted({r.target.place.component for r in members})),
            len(members),
            sum(r.target.nbytes for r in members),
        )
        for (part, where, made_of), members in groups.items()
    ]


def _made_of(row: Row) -> str:
    names = ", ".join(source.name for source in row.sources)
    if row.method in (KEEP, DROP):
        return f"{row.method} {row.parameters['part']} of {row.sources[-1].name}"
    return names if row.method == COPY else f"{row.method} of {names}"
