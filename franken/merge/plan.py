"""What every tensor of a hybrid will be, before anything is written. No torch.

The base receives, the donor gives. Exactly the named layers come from the donor: their attention, MLP, norms and biases.
Embeddings, final norm, head, vision and projector stay with the base. (mergekit's slices would move the final norm and the
head with the last slice, and drop the vision tower; Frankenstein paper, appendix E, moves layers only.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from franken.checkpoints import Checkpoint, TensorEntry
from franken.errors import UsageError
from franken.layers import LayerRange

CONFIG_MUST_AGREE = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size", "rope_parameters", "rope_theta", "rope_scaling", "rms_norm_eps", "hidden_act", "tie_word_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One tensor of the result: where it lands (the base's entry) and what it is made of."""

    target: TensorEntry
    donor: TensorEntry | None
    alpha: float

    @property
    def source(self) -> str:
        """`base`, `donor`, or `blend`."""
        if self.donor is None or self.alpha == 0.0:
            return "base"
        return "donor" if self.alpha == 1.0 else "blend"

    def to_dict(self) -> dict[str, Any]:
        """A row of the plan."""
        spot = self.target.place
        return {
            "tensor": self.target.name,
            "part": spot.part,
            "layer": spot.layer,
            "component": spot.component,
            "source": self.source,
            "alpha": self.alpha if self.donor else 0.0,
            "dtype": self.target.dtype,
            "shape": list(self.target.shape),
            "bytes": self.target.nbytes,
        }


def plan_merge(base: Checkpoint, donor: Checkpoint, ranges: Sequence[LayerRange], *, alpha: float = 1.0) -> list[Step]:
    """One step for every tensor of the base, in the base's order: (1 − alpha)·base + alpha·donor in `ranges`.

    Raises UsageError, naming the differences, when the two cannot be merged.
    """
    if not 0.0 <= alpha <= 1.0:
        raise UsageError(f"--alpha {alpha} is out of range", why="it is the donor's share", fix="use 0 to 1")
    differences = incompatibilities(base, donor, ranges)
    if differences:
        raise UsageError(
            f"{donor.name} does not fit into {base.name}",
            why="; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else ""),
            fix="merge checkpoints of the same architecture",
        )
    chosen = {(r.part, layer) for r in ranges for layer in r.layers}
    return [
        Step(entry, donor.tensors[key], alpha)
        if (entry.place.part, entry.place.layer) in chosen
        else Step(entry, None, 0.0)
        for key, entry in base.tensors.items()
    ]


def incompatibilities(base: Checkpoint, donor: Checkpoint, ranges: Sequence[LayerRange]) -> list[str]:
    """What keeps the donor's layers from working in the base, in words; empty when nothing does."""
    ours, theirs = _flat(base.config), _flat(donor.config)
    found = [
        f"{key} is {ours.get(key)} in the base and {theirs.get(key)} in the donor"
        for key in sorted(set(ours) | set(theirs))
        if key.rsplit(".", 1)[-1] in CONFIG_MUST_AGREE and ours.get(key) != theirs.get(key)
    ]
    chosen = {(r.part, layer) for r in ranges for layer in r.layers}
    for key, entry in base.tensors.items():
        if (entry.place.part, entry.place.layer) not in chosen:
            continue
        other = donor.tensors.get(key)
        if other is None:
            found.append(f"the donor has no {key}")
        elif other.shape != entry.shape:
            found.append(f"{key} is {list(entry.shape)} in the base and {list(other.shape)} in the donor")
        elif other.dtype != entry.dtype:
            found.append(f"{key} is {entry.dtype} in the base and {other.dtype} in the donor")
    for key, other in donor.tensors.items():
        if (other.place.part, other.place.layer) in chosen and key not in base.tensors:
            found.append(f"the base has no {key}")
    return found


def summarise(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The plan by part and source: layers, tensors, bytes."""
    groups: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        groups.setdefault((step.target.place.part, step.source), []).append(step)
    return [
        {
            "part": part,
            "source": source,
            "layers": spans(sorted({s.target.place.layer for s in members if s.target.place.layer is not None})),
            "tensors": len(members),
            "bytes": sum(s.target.nbytes for s in members),
        }
        for (part, source), members in groups.items()
    ]


def spans(layers: Sequence[int]) -> str:
    """`0..3, 7` for [0, 1, 2, 3, 7]."""
    pieces: list[list[int]] = []
    for layer in layers:
        if pieces and layer == pieces[-1][1] + 1:
            pieces[-1][1] = layer
        else:
            pieces.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in pieces)


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and key in ("text_config", "vision_config"):
            flat |= _flat(value, f"{key}.")
        else:
            flat[prefix + key] = value
    return flat
