"""What trains and what does not: by part, layer range, component or pattern; and the proof
afterwards.

A spec is `vision`, `projector`, `embed`, `head`, `norm`, `text:0-3`, `vision:all`, `text.attn`,
`early`, or `re:PATTERN` (`franken.selection`). What is frozen from the bottom up (vision,
projector, embed, text:0-9) runs without a graph: nothing below the lowest tensor that trains is
kept for the backward pass. Frozen layers above a trainable one keep theirs.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch

from franken.errors import UsageError, VerificationError
from franken.layers import COMPONENTS, PARTS
from franken.names import Place, canonical, place
from franken.selection import select
from trainer.collectives import tensor_digest
from trainer.sharding import full


def frozen_names(model: Any, freeze: Sequence[str], train: Sequence[str] = ()) -> set[str]:
    """In-memory names of the parameters that do not train: what `freeze` names, and all but what
    `train` names if given.

    With LoRA (trainer/lora.py) only adapters train, those of weights that would. Where the output
    head is tied to the embeddings they are one tensor, called `embed`; `head` is refused. Raises
    UsageError for a spec that matches nothing, or where nothing is left to train.
    """
    model_type = model.config.model_type
    names = {name: canonical(_host(name), model_type) for name, _ in model.named_parameters()}
    places = {key: place(_host(name), model_type) for name, key in names.items()}
    frozen = _select(model, freeze, places, "freeze")
    if train:
        frozen |= set(places) - _select(model, train, places, "train")
    adapted = any(_is_adapter(name) for name in names)
    found = {
        name for name, key in names.items() if key in frozen or (adapted and not _is_adapter(name))
    }
    if len(found) == len(names):
        raise UsageError(
            "everything is frozen", why="no parameter is left to train", fix="freeze less"
        )
    return found


def apply_freeze(
    model: Any, freeze: Sequence[str], train: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Set `requires_grad` and return the table: part, layer, component, tensors, parameters,
    frozen.
    """
    frozen = frozen_names(model, freeze, train)
    places = parameter_places(model)
    groups: dict[tuple[str, int | None, str, bool], list[int]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
        spot = places[name]
        key = (spot.part, spot.layer, spot.component, name in frozen)
        counted = groups.setdefault(key, [0, 0])
        counted[0] += 1
        counted[1] += parameter.numel()
    order = sorted(
        groups,
        key=lambda k: (PARTS.index(k[0]), -1 if k[1] is None else k[1], COMPONENTS.index(k[2])),
    )
    columns = ("part", "layer", "component", "frozen")
    return [
        dict(zip(columns, k, strict=True)) | {"tensors": groups[k][0], "parameters": groups[k][1]}
        for k in order
    ]


def parameter_places(model: Any) -> dict[str, Place]:
    """In-memory parameter name → place. Tied parameters appear once, as embedding."""
    return {
        name: place(_host(name), model.config.model_type) for name, _ in model.named_parameters()
    }


def fingerprints(model: Any) -> dict[str, str]:
    """SHA-256 of the bytes of every parameter that does not train."""
    return {name: _hash(p) for name, p in model.named_parameters() if not p.requires_grad}


def verify_frozen(model: Any, before: dict[str, str]) -> dict[str, Any]:
    """Prove that every frozen tensor is bit-identical. Raises VerificationError naming those that
    moved.
    """
    parameters = dict(model.named_parameters())
    moved = sorted(name for name, digest in before.items() if _hash(parameters[name]) != digest)
    if moved:
        raise VerificationError(
            f"{len(moved)} frozen tensors have changed",
            why=f"for example {moved[0]}",
            fix="report this as a bug",
        )
    return {"tensors": len(before), "bit_identical": True, "sha256": before}


def _select(model: Any, specs: Sequence[str], places: dict[str, Place], verb: str) -> set[str]:
    tied = getattr(model.config, "tie_word_embeddings", False) and any(
        "head" in spec for spec in specs
    )
    why = (
        f"the output head is tied to the embeddings, they are one tensor: {verb} embed"
        if tied
        else ""
    )
    return select(specs, places, option=f"--{verb}", why=why)


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def _host(name: str) -> str:
    """The weight that an adapter hangs on: `x.lora_A.default.weight`, `x.base_layer.weight` →
    `x.weight`.
    """
    return re.sub(r"\.base_layer\.|\.lora_[AB]\.\w+\.", ".", name)


def _hash(parameter: torch.Tensor) -> str:
    return tensor_digest(full(parameter))
