"""What every tensor of a hybrid will be, before anything is written. No torch, unless a method of
mergekit's is named.

`plan_merge` is a pure function of a recipe and the opened checkpoints: one row for every tensor of
the base, in the base's order. Exactly what the rules name changes. Embeddings, final norm, head,
vision and projector stay with the base unless a rule takes them. (mergekit's slices would move the
final norm and the head with the last slice, and drop the vision tower; Frankenstein, arXiv
2602.12395, appendix E, moves decoder layers and leaves the rest with the model named first.)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

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
from franken.merge.claims import Depths, chosen
from franken.merge.fit import TENSORS, Difference, differences
from franken.merge.methods import FLOATING, check_method, origin_of, seed_of
from franken.merge.recipe import (
    ADAPTER,
    BASE,
    CAST,
    COPY,
    DIFFERENCES,
    LINEAR,
    Given,
    Parameters,
    Recipe,
    RecipeRecord,
    Rule,
    Scalar,
    Value,
    checked,
)
from franken.soundness import check_agreement

SHOWN = 5  # differences that an error tells


class SourceRecord(TypedDict):
    """One input of a tensor as franken_merge.json has it."""

    checkpoint: str
    tensor: str
    dtype: str
    origin: bool


class RowRecord(TypedDict):
    """A tensor as franken_merge.json has it, without its hash."""

    tensor: str
    part: str
    layer: int | None
    component: str
    method: str
    sources: list[SourceRecord]
    parameters: Parameters
    seed: int
    dtype: str
    shape: list[int]
    bytes: int


class PlanRecord(TypedDict):
    """A plan as `--dry-run --json` prints it; `allowed` are differences by donor."""

    recipe: RecipeRecord
    allowed: Mapping[str, list[str]]
    tensors: list[RowRecord]


Checkpoints = Mapping[str, Checkpoint]  # `base` and the donors, by their names


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
    parameters: Parameters = field(default_factory=dict)
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

    def to_dict(self) -> RowRecord:
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
    checkpoints: Checkpoints
    rows: tuple[Row, ...]
    allowed: Mapping[
        str, tuple[Difference, ...]
    ]  # by donor: differences that the recipe waved through

    @property
    def base(self) -> Checkpoint:
        """The checkpoint that receives."""
        return self.checkpoints[BASE]

    def to_dict(self) -> PlanRecord:
        """As `--dry-run --json` prints it."""
        return {
            "recipe": self.recipe.to_dict(),
            "allowed": {
                name: [f"{d.kind}: {d.text}" for d in waved] for name, waved in self.allowed.items()
            },
            "tensors": [row.to_dict() for row in self.rows],
        }


def open_all(recipe: Recipe) -> Checkpoints:
    """The base and the donors of a recipe, headers only. A donor may be a LoRA adapter of the
    base.
    Raises FrankenError where they contradict each other, in tensors too that no rule takes.
    """
    opened = {BASE: open_checkpoint(recipe.base)}
    for name, donor in recipe.donors.items():
        folder = resolve(donor)
        opened[name] = (
            open_adapter(folder, opened[BASE]) if is_adapter(folder) else open_checkpoint(folder)
        )
    for key in opened[BASE].tensors:
        having = {name: c.tensors[key] for name, c in opened.items() if key in c.tensors}
        check_agreement(key, {name: entry.shape for name, entry in having.items()})
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


def plan_merge(recipe: Recipe, checkpoints: Checkpoints) -> Plan:
    """One row for every tensor of the base. `checkpoints` holds `base` and every donor of the
    recipe, by name.

    Raises UsageError, naming the differences and how to allow them, when a donor does not fit; and
    when two rules claim one tensor, a rule claims none, or a method does not take what it is given.
    """
    base = checkpoints[BASE]
    claims: dict[str, tuple[int, Row]] = {}
    touched: dict[str, set[str]] = {}
    claimed = [chosen(rule, base) for rule in recipe.rules]
    for rule, depths in zip(recipe.rules, claimed, strict=True):
        for name in rule.names:
            touched.setdefault(name, set()).update(depths)
    allowed = {
        name: _refuse(base, checkpoints[name], name, keys, recipe.allow)
        for name, keys in touched.items()
        if name != BASE
    }
    for number, (rule, depths) in enumerate(zip(recipe.rules, claimed, strict=True), start=1):
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
    waved = {name: differences for name, differences in allowed.items() if differences}
    return Plan(recipe, checkpoints, rows, waved)


def _refuse(
    base: Checkpoint, donor: Checkpoint, name: str, keys: Iterable[str], allow: frozenset[str]
) -> tuple[Difference, ...]:
    against = differences(base, donor, list(keys))
    hard = [d for d in against if d.kind == TENSORS]
    refused = [d for d in against if d.kind not in allow and d.kind != TENSORS]
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
    return tuple(against)


def _rows(rule: Rule, depths: Depths, opened: Checkpoints, seed: int) -> Iterable[Row]:
    if rule.alpha is not None:
        yield from _blended(rule, rule.alpha, depths, opened, seed)
        return
    origin = origin_of(rule.method, rule.relative_to, BASE)
    check_method(rule, rule.inputs, origin)
    names = (*([origin] if origin else ()), *rule.inputs)
    for key, depth in depths.items():
        target = opened[BASE].tensors[key]
        sources = tuple(_source(name, opened, key) for name in names)
        if rule.method == COPY:
            yield _copied(target, sources[0])
            continue
        values = {k: _given_at(v, depth, key) for k, v in rule.parameters.items()}
        index = 0 if origin else None
        row = Row(target, rule.method, sources, values, index, seed_of(seed, key))
        yield row if target.dtype in FLOATING else _own(target)


def _blended(
    rule: Rule, alpha: tuple[float, ...], depths: Depths, opened: Checkpoints, seed: int
) -> Iterable[Row]:
    """(1 − alpha) of the base and alpha of the donor: an exact copy where the share is 0 or 1."""
    donors = [name for name in rule.inputs if name != BASE]
    if len(donors) != 1:
        raise UsageError(
            f"alpha shares between the base and one donor, not {', '.join(rule.inputs) or 'none'}",
            why="it is the share of one donor",
            fix="give method and weights instead",
        )
    for key, depth in depths.items():
        target, share = opened[BASE].tensors[key], float(_at(list(alpha), depth, key))
        base, donor = (_source(name, opened, key) for name in (BASE, donors[0]))
        if share in (0.0, 1.0):
            yield _copied(target, donor if share else base)
        elif target.dtype in FLOATING:
            weights: Mapping[str, Given] = {"weight": [1.0 - share, share], "normalize": False}
            yield Row(target, LINEAR, (base, donor), weights, None, seed_of(seed, key))
        else:
            yield _own(target)


def _source(name: str, opened: Checkpoints, key: str) -> Source:
    return Source(name, opened[name].tensors[key], opened[name].updates.get(key))


def _own(target: TensorEntry) -> Row:
    """The base's own: also what is not of a floating type (counters, position ids)."""
    return Row(target, COPY, (Source(BASE, target),))


def _copied(target: TensorEntry, source: Source) -> Row:
    """A copy of another type is a cast, one with an adapter on top a sum."""
    given = source.entry.dtype
    if source.update is not None:
        return Row(target, ADAPTER, (source,))
    if given == target.dtype:
        return Row(target, COPY, (source,))
    if not {given, target.dtype} <= set(FLOATING):
        raise UsageError(
            f"{given} cannot become {target.dtype}",
            why=f"in {target.canonical}",
            fix="leave it out",
        )
    return Row(target, CAST, (source,))


def _given_at(given: Given, depth: float | None, key: str) -> Given:
    """A parameter's value for one tensor; a mapping holds one per input."""
    if isinstance(given, Mapping):
        return {name: _at(value, depth, key) for name, value in given.items()}
    return _at(given, depth, key)


def _at(value: Value, depth: float | None, key: str) -> Scalar:
    """The value at a depth from 0 to 1: lists are gradients, linear where they hold numbers."""
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
    at = depth * (len(value) - 1)
    low, high = value[int(at)], value[min(int(at) + 1, len(value) - 1)]
    numbers = (int, float)
    if isinstance(low, bool | str) or isinstance(high, bool | str):
        return low
    assert isinstance(low, numbers)
    return (1 - (at - int(at))) * low + (at - int(at)) * high
