"""What every tensor of a hybrid will be, before anything is written. No torch, unless a method of
mergekit's is named.

`plan_merge` is a pure function of a recipe and the opened checkpoints: one row for every tensor of
the base, in the base's
order. Exactly what the rules name changes. Embeddings, final norm, head, vision and projector stay
with the base unless a rule takes them. (mergekit's slices would move the final norm and the head
with the last slice, and drop the vision tower; Frankenstein, arXiv 2602.12395, appendix E, moves
decoder layers and leaves the rest with the model named first.)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from franken.adapters import open_adapter
from franken.checkpoints import (
    Checkpoint,
    LowRank,
    TensorEntry,
    is_adapter,
    open_checkpoint,
    resolve,
)
from franken.errors import UsageError
from franken.layers import describe_range, parse_ranges, spelled
from franken.merge.fit import TENSORS, Difference, differences
from franken.merge.methods import (
    ADAPTER,
    CAST,
    COPY,
    FLOATING,
    LINEAR,
    check_method,
    origin_of,
    seed_of,
)
from franken.merge.recipe import BASE, DIFFERENCES, PIECES, Recipe, Rule, checked

SHOWN = 5  # differences that an error tells


@dataclass(frozen=True)
class Source:
    """One input of a tensor: the checkpoint's name in the recipe, the tensor there, and what an
    adapter adds to it.
    """

    name: str
    entry: TensorEntry
    update: LowRank | None = None


@dataclass(frozen=True)
class Row:
    """One tensor of the result: where it lands (the base's entry) and what it is made of.

    `origin` is the index of the source that differences are measured from; `seed` is the tensor's
    own.
    """

    target: TensorEntry
    method: str
    sources: tuple[Source, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    origin: int | None = None
    seed: int = 0

    @property
    def key(self) -> str:
        """The tensor's canonical name."""
        return self.target.canonical

    @property
    def copied(self) -> TensorEntry | None:
        """The tensor whose bytes this one is, or None if it must be computed."""
        return self.sources[0].entry if self.method == COPY else None

    @property
    def changed(self) -> bool:
        """Whether it is anything else than the base's own."""
        return not (self.method == COPY and self.sources[0].name == BASE)

    def to_dict(self) -> dict[str, Any]:
        """A row of the plan."""
        spot = self.target.place
        return {
            "tensor": self.target.name,
            "part": spot.part,
            "layer": spot.layer,
            "component": spot.component,
            "method": self.method,
            "sources": [
                {
                    "checkpoint": s.name,
                    "tensor": s.entry.name,
                    "dtype": s.entry.dtype,
                    "origin": i == self.origin,
                }
                for i, s in enumerate(self.sources)
            ],
            "parameters": dict(self.parameters),
            "seed": self.seed,
            "dtype": self.target.dtype,
            "shape": list(self.target.shape),
            "bytes": self.target.nbytes,
        }


@dataclass(frozen=True)
class Plan:
    """A recipe on opened checkpoints (`base` and the donors by name), and what it makes of every
    tensor.
    """

    recipe: Recipe
    checkpoints: Mapping[str, Checkpoint]
    rows: tuple[Row, ...]
    allowed: Mapping[
        str, tuple[Difference, ...]
    ]  # by donor: differences that the recipe waved through

    @property
    def base(self) -> Checkpoint:
        """The checkpoint that receives."""
        return self.checkpoints[BASE]

    def to_dict(self) -> dict[str, Any]:
        """As `--dry-run --json` prints it."""
        return {
            "recipe": self.recipe.to_dict(),
            "allowed": {
                name: [f"{d.kind}: {d.text}" for d in found] for name, found in self.allowed.items()
            },
            "tensors": [row.to_dict() for row in self.rows],
        }


def open_all(recipe: Recipe) -> dict[str, Checkpoint]:
    """The base and the donors of a recipe, headers only. A donor may be a LoRA adapter of the base."""
    opened = {BASE: open_checkpoint(recipe.base)}
    for name, donor in recipe.donors.items():
        folder = resolve(donor)
        opened[name] = (
            open_adapter(folder, opened[BASE]) if is_adapter(folder) else open_checkpoint(folder)
        )
    return opened


def plan_layers(
    base: Checkpoint,
    donor: Checkpoint,
    layers: str,
    *,
    take: Sequence[str] = (),
    alpha: float = 1.0,
    allow: Iterable[str] = (),
) -> Plan:
    """The plan of one rule: `layers` and `take` of one donor, whole (or blended with the base's by
    `alpha`).
    """
    blended = alpha != 1.0
    method, share = (LINEAR, (alpha,)) if blended else (COPY, None)
    rule = Rule(("donor",), layers, tuple(take), method=method, alpha=share)
    recipe = checked(
        Recipe(str(base.folder), {"donor": str(donor.folder)}, (rule,), allow=frozenset(allow))
    )
    return plan_merge(recipe, {BASE: base, "donor": donor})


def pieces_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The words of `--take` that mean something in a checkpoint: with all layers, they are all of
    it.
    """
    have = {_piece(entry) for entry in checkpoint.tensors.values()}
    return tuple(word for word in PIECES if word in have)


def plan_merge(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> Plan:
    """One row for every tensor of the base. `checkpoints` holds `base` and every donor of the
    recipe, by name.

    Raises UsageError, naming the differences and how to allow them, when a donor does not fit; and
    when two rules claim one tensor, a rule claims none, or a method does not take what it is given.
    """
    base = checkpoints[BASE]
    claims: dict[str, tuple[int, Row]] = {}
    touched: dict[str, set[str]] = {}
    chosen = [_chosen(rule, base) for rule in recipe.rules]
    for rule, depths in zip(recipe.rules, chosen, strict=True):
        for name in (*rule.inputs, *([rule.relative_to] if rule.relative_to else ())):
            touched.setdefault(name, set()).update(depths)
    allowed = {
        name: _refuse(base, checkpoints[name], name, keys, recipe.allow)
        for name, keys in touched.items()
        if name != BASE
    }
    for number, (rule, depths) in enumerate(zip(recipe.rules, chosen, strict=True), start=1):
        for row in _rows(rule, depths, checkpoints, recipe.seed):
            if row.key in claims:
                raise UsageError(
                    f"two rules claim {row.key}",
                    why=f"rule {claims[row.key][0]} and rule {number} both name it",
                    fix="let the ranges not overlap",
                )
            claims[row.key] = (number, row)
    rows = tuple(
        claims[key][1] if key in claims else Row(entry, COPY, (Source(BASE, entry),))
        for key, entry in base.tensors.items()
    )
    return Plan(
        recipe, checkpoints, rows, {name: found for name, found in allowed.items() if found}
    )


def describe_rules(plan: Plan) -> list[str]:
    """What each rule does, in words: `text layers 16..27 (12 of 28), attn only, from my-rl`."""
    base, told = plan.base, []
    for rule in plan.recipe.rules:
        ranges = parse_ranges(rule.layers, base.depths) if rule.layers else ()
        what = [describe_range(r, base.depths[r.part]) for r in ranges] + list(rule.take)
        only = f", {' and '.join(rule.components)} only," if rule.components else ""
        names = " and ".join(plan.checkpoints[name].name for name in rule.inputs)
        how = (
            ""
            if rule.method == COPY
            else f"{rule.method} of "
            if rule.alpha is None
            else _share(rule.alpha) + " of "
        )
        relative = (
            f", relative to {plan.checkpoints[rule.relative_to].name}" if rule.relative_to else ""
        )
        values = ", ".join(f"{k}={v}" for k, v in rule.parameters.items())
        told.append(
            f"{' and '.join(what)}{only} from {how}{names}{relative}{f' ({values})' if values else ''}"
        )
    return told


def _share(alpha: Sequence[float]) -> str:
    return " to ".join(f"{a:g}" for a in alpha)


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The plan by part, what it is made of, and component: layers, tensors, bytes."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        spot = row.target.place
        where = "layers" if spot.layer is not None else spot.component
        groups.setdefault((spot.part, where, _made_of(row)), []).append(row)
    return [
        {
            "part": part,
            "": where,
            "made of": made,
            "layers": spelled(
                {r.target.place.layer for r in members if r.target.place.layer is not None}
            ),
            "components": ", ".join(sorted({r.target.place.component for r in members})),
            "tensors": len(members),
            "bytes": sum(r.target.nbytes for r in members),
        }
        for (part, where, made), members in groups.items()
    ]


def _made_of(row: Row) -> str:
    names = ", ".join(source.name for source in row.sources)
    return names if row.method == COPY else f"{row.method} of {names}"


def _chosen(rule: Rule, base: Checkpoint) -> dict[str, float | None]:
    """The base's tensors that a rule names, each with its depth in the rule: 0 for the first layer
    to 1 for the last.

    A tensor outside of layers has no depth. With a single layer the depth is 1, as in mergekit.
    """
    layers: dict[str, list[int]] = {}
    for r in parse_ranges(rule.layers, base.depths) if rule.layers else ():
        layers[r.part] = sorted({*layers.get(r.part, ()), *r.layers})
    depths: dict[tuple[str, int | None], float] = {
        (part, layer): i / (len(members) - 1) if len(members) > 1 else 1.0
        for part, members in layers.items()
        for i, layer in enumerate(members)
    }
    found: dict[str, float | None] = {}
    for key, entry in base.tensors.items():
        spot = entry.place
        named = spot.layer is not None and (spot.part, spot.layer) in depths
        if named and (not rule.components or spot.component in rule.components):
            found[key] = depths[(spot.part, spot.layer)]
        if _piece(entry) in rule.take:
            found[key] = None
    _check_pieces(rule, base, found)
    if not found:
        what = " and ".join(
            x for x in (rule.layers, ", ".join(rule.take), ", ".join(rule.components)) if x
        )
        raise UsageError(
            f"a rule names no tensor: {what}", why="the base has none there", fix="see --dry-run"
        )
    return found


def _piece(entry: TensorEntry) -> str:
    """The word that `--take` has for a tensor; empty for those that only a layer range can name."""
    spot = entry.place
    if spot.part in ("vision", "projector"):
        return spot.part
    return spot.component if spot.layer is None else ""


def _check_pieces(rule: Rule, base: Checkpoint, found: Mapping[str, Any]) -> None:
    have = {_piece(base.tensors[key]) for key in found}
    absent = [word for word in rule.take if word not in have]
    everything = {_piece(entry) for entry in base.tensors.values()}
    for word in absent:
        if word == "head" and "embed" in rule.take:
            continue  # tied: it comes with the embeddings
        why = (
            "its head is tied to the embeddings" if word == "head" else f"it is a {base.model_type}"
        )
        raise UsageError(
            f"the base has no {word} of its own",
            why=why,
            fix="take embed" if word == "head" else "",
        )
    configs = (base.config, base.config.get("text_config") or {})
    tied = any(config.get("tie_word_embeddings") for config in configs)
    if tied and "head" in everything and len({"embed", "head"} & set(rule.take)) == 1:
        raise UsageError(
            "embeddings and head are tied in the base", why="both are stored", fix="take embed,head"
        )


def _refuse(
    base: Checkpoint, donor: Checkpoint, name: str, keys: Iterable[str], allow: frozenset[str]
) -> tuple[Difference, ...]:
    found = differences(base, donor, list(keys))
    hard = [d for d in found if d.kind == TENSORS]
    refused = [d for d in found if d.kind not in allow and d.kind != TENSORS]
    if hard or refused:
        told = [f"{d.kind}: {d.text}" for d in (refused + hard)]
        kinds = [k for k in DIFFERENCES if any(d.kind == k for d in refused)]
        more = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        raise UsageError(
            f"{name} ({donor.name}) does not fit into the base ({base.name})",
            why="; ".join(told[:SHOWN]) + more,
            fix="merge checkpoints of one architecture"
            if hard
            else f"--allow {','.join(kinds)} merges them all the same",
        )
    return tuple(found)


def _rows(
    rule: Rule, depths: Mapping[str, float | None], checkpoints: Mapping[str, Checkpoint], seed: int
) -> Iterable[Row]:
    names = (
        (BASE, *rule.inputs) if rule.alpha is not None and BASE not in rule.inputs else rule.inputs
    )
    blend = rule.alpha is not None
    if blend and len(names) != 2:
        raise UsageError(
            f"alpha shares between the base and one donor, not {', '.join(rule.inputs) or 'none'}",
            fix="give method and weights instead",
        )
    origin = None if blend else origin_of(rule.method, rule.relative_to, BASE)
    if not blend:
        check_method(rule.method, names, origin, rule.parameters)
    for key, depth in depths.items():
        target = checkpoints[BASE].tensors[key]
        if blend:
            yield _blended(rule, names, target, depth, checkpoints, seed)
            continue
        sources = tuple(
            _source(n, checkpoints, key) for n in (*([origin] if origin else []), *names)
        )
        values = {k: _at(v, depth, key) for k, v in rule.parameters.items()}
        yield _row(target, rule.method, sources, values, 0 if origin else None, seed)


def _blended(
    rule: Rule,
    names: Sequence[str],
    target: TensorEntry,
    depth: float | None,
    checkpoints: Mapping[str, Checkpoint],
    seed: int,
) -> Row:
    """(1 − alpha) of the base and alpha of the donor: an exact copy where the share is 0 or 1."""
    key, donor = target.canonical, next(n for n in names if n != BASE)
    share = _at(list(rule.alpha or ()), depth, key)
    if share in (0.0, 1.0):
        name = donor if share else BASE
        return _row(target, COPY, (_source(name, checkpoints, key),), {}, None, seed)
    sources = tuple(_source(n, checkpoints, key) for n in (BASE, donor))
    return _row(
        target, LINEAR, sources, {"weight": [1.0 - share, share], "normalize": False}, None, seed
    )


def _source(name: str, checkpoints: Mapping[str, Checkpoint], key: str) -> Source:
    return Source(name, checkpoints[name].tensors[key], checkpoints[name].updates.get(key))


def _row(
    target: TensorEntry,
    method: str,
    sources: tuple[Source, ...],
    parameters: Mapping[str, Any],
    origin: int | None,
    seed: int,
) -> Row:
    """A copy of another type is a cast, one with an adapter on top a sum.

    What is not of a floating type (counters, position ids) stays the base's.
    """
    if method == COPY and sources[0].update is not None:
        return Row(target, ADAPTER, sources)
    if method == COPY:
        given = sources[0].entry.dtype
        if given != target.dtype and not {given, target.dtype} <= set(FLOATING):
            raise UsageError(
                f"{given} cannot become {target.dtype}",
                why=f"in {target.canonical}",
                fix="leave it out",
            )
        return Row(target, COPY if given == target.dtype else CAST, sources)
    if target.dtype not in FLOATING:
        return Row(target, COPY, (Source(BASE, target),))
    return Row(target, method, sources, parameters, origin, seed_of(seed, target.canonical))


def _at(value: Any, depth: float | None, key: str) -> Any:
    """A parameter's value for one tensor: lists are gradients over depth, mappings hold one value
    per input.
    """
    if isinstance(value, Mapping):
        return {name: _at(one, depth, key) for name, one in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) == 1:
        return value[0]
    if depth is None:
        raise UsageError(
            f"a gradient has no value for {key}",
            why="it is in no layer",
            fix="give it a rule of its own",
        )
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return value[int(depth * (len(value) - 1))]
    at = depth * (len(value) - 1)
    low = int(at)
    high = min(low + 1, len(value) - 1)
    return (1 - (at - low)) * value[low] + (at - low) * value[high]
