"""What trains and what does not: by part, layer range, component or pattern; and the proof
afterwards.

A spec is `vision`, `projector`, `embed`, `head`, `norm`, `text:0-3`, `vision:all`, `text.attn`,
`early`, or `re:PATTERN` (`franken.selection`). What is frozen from the bottom up (vision,
projector, embed, text:0-9) runs without a graph: nothing below the lowest tensor that trains is
kept for the backward pass. Frozen layers above a trainable one keep theirs.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from franken.errors import UsageError, VerificationError
from franken.layers import COMPONENTS, PARTS
from franken.names import Place, Places, canonical, place
from franken.runs.training import Digests, FrozenRow, Verified
from franken.selection import select
from trainer.collectives import tensor_digest
from trainer.sharding import full

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Tensors(NamedTuple):
    """Some tensors of one place, whether they are frozen, and their `parameters` (elements)."""

    place: Place
    frozen: bool
    parameters: int
    tensors: int = 1


def frozen_keys(
    places: Places,
    freeze: Sequence[str],
    train: Sequence[str] = (),
    *,
    tied: bool = False,
) -> set[str]:
    """Which tensors do not train: what `freeze` names, and all but what `train` names if given.

    Raises UsageError for a spec that matches nothing; `tied` says that the head does not since it
    is the embeddings.
    """

    def named(verb: str, specs: Sequence[str]) -> set[str]:
        head = tied and any("head" in spec for spec in specs)
        why = "the output head is tied to the embeddings, they are one tensor:"
        return select(specs, places, option=f"--{verb}", why=f"{why} {verb} embed" if head else "")

    frozen = named("freeze", freeze)
    return frozen | (set(places) - named("train", train)) if train else frozen


def freeze_table(tensors: Iterable[Tensors]) -> list[FrozenRow]:
    """Tensors and parameters by place, in order. Raises UsageError where none trains."""
    groups: dict[tuple[str, int | None, str, bool], list[int]] = {}
    for each in tensors:
        key = (each.place.part, each.place.layer, each.place.component, each.frozen)
        counted = groups.setdefault(key, [0, 0])
        counted[0] += each.tensors
        counted[1] += each.parameters
    if all(frozen for *_, frozen in groups):
        raise everything_frozen()
    order = sorted(
        groups,
        key=lambda k: (PARTS.index(k[0]), -1 if k[1] is None else k[1], COMPONENTS.index(k[2])),
    )
    return [
        FrozenRow(
            part=part,
            layer=layer,
            component=component,
            frozen=frozen,
            tensors=groups[part, layer, component, frozen][0],
            parameters=groups[part, layer, component, frozen][1],
        )
        for part, layer, component, frozen in order
    ]


def everything_frozen(what: str = "parameter") -> UsageError:
    """The error where nothing would train."""
    return UsageError("everything is frozen", why=f"no {what} is left to train", fix="freeze less")


def frozen_names(
    model: "PreTrainedModel", freeze: Sequence[str], train: Sequence[str] = ()
) -> set[str]:
    """In-memory names of the parameters that do not train.

    With LoRA (trainer/lora.py) only adapters train, those of weights that would. Where the output
    head is tied to the embeddings they are one tensor, called `embed`; `head` is refused. Raises
    UsageError for a spec that matches nothing, or where nothing is left to train.
    """
    places = parameter_places(model)
    keys = {name: canonical(_host(name), model.config.model_type) for name in places}
    tied = getattr(model.config, "tie_word_embeddings", False)
    by_key = {keys[name]: spot for name, spot in places.items()}
    frozen = frozen_keys(by_key, freeze, train, tied=tied)
    adapted = any(_is_adapter(name) for name in places)
    names = {n for n, key in keys.items() if key in frozen or (adapted and not _is_adapter(n))}
    if len(names) == len(places):
        raise everything_frozen()
    return names


def apply_freeze(
    model: "PreTrainedModel", freeze: Sequence[str], train: Sequence[str] = ()
) -> list[FrozenRow]:
    """Set `requires_grad` and return the table of what is frozen and what trains."""
    frozen, places = frozen_names(model, freeze, train), parameter_places(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return freeze_table(
        Tensors(places[name], name in frozen, p.numel()) for name, p in model.named_parameters()
    )


def parameter_places(model: "PreTrainedModel") -> Places:
    """In-memory parameter name → place. Tied parameters appear once, as embedding."""
    return {
        name: place(_host(name), model.config.model_type) for name, _ in model.named_parameters()
    }


def fingerprints(model: "PreTrainedModel") -> Digests:
    """SHA-256 of the bytes of every parameter that does not train."""
    return {
        name: tensor_digest(full(p)) for name, p in model.named_parameters() if not p.requires_grad
    }


def verify_frozen(model: "PreTrainedModel", before: Digests) -> Verified:
    """Prove that every frozen tensor is bit-identical. Raises VerificationError naming those that
    moved.
    """
    now = dict(model.named_parameters())
    moved = sorted(
        name for name, digest in before.items() if tensor_digest(full(now[name])) != digest
    )
    if moved:
        raise VerificationError(
            f"{len(moved)} frozen tensors have changed",
            why=f"for example {moved[0]}",
            fix="report this as a bug",
        )
    return Verified(tensors=len(before), bit_identical=True, sha256=dict(before))


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def _host(name: str) -> str:
    """The weight that an adapter hangs on: `x.lora_A.default.weight`, `x.base_layer.weight` →
    `x.weight`.
    """
    return re.sub(r"\.base_layer\.|\.lora_[AB]\.\w+\.", ".", name)
