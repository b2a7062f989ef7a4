"""Every kind of organism by its name, and how one is made: `make(kind, before, out, …)`.

    same · rounded · symmetric · noise            nulls (franken.organisms.nulls)
    graft:PLACE                                   RL's update there only (franken.organisms.grafts)

`strength` scales what a kind does: the share of layers that symmetries move, the length of noise
relative to RL's update, the share of RL's update that a graft takes.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from franken.checkpoints import Checkpoint, TensorEntry, fingerprint, open_checkpoint, read_array
from franken.errors import UsageError, unknown
from franken.organisms import grafts, nulls, symmetries
from franken.organisms.rewrite import Edit, rewrite
from franken.organisms.truth import FILE, Truth, read_truth

NULLS = {
    "same": "the same weights",
    "rounded": "the same weights, rounded to bf16 and back",
    "symmetric": "other weights that compute the same",
    "noise": "a random update of every tensor, as long as RL's",
}
GRAFT = "graft:"
WITH_UPDATE = ("noise", GRAFT)  # kinds that need a checkpoint whose update they take
UNSCALED = ("same", "rounded")


def make(
    kind: str,
    before: str | Path,
    out: Path,
    *,
    after: str | Path | None = None,
    seed: int = 0,
    strength: float = 1.0,
) -> Truth:
    """Write the later checkpoint of an organism into `out`, with its truth beside it.

    `before` is the earlier checkpoint of the pair; `after`, where the kind needs one, that whose
    update it takes. An organism that is there already is left as it is, if it is the same one.
    Raises UsageError for an unknown kind or place, a strength out of (0, 1] (noise: above 0),
    checkpoints that do not fit.
    """
    source, donor = _opened(kind, before, after)
    truth = _truth_of(kind, source, donor, seed, strength)
    if (out / FILE).exists():
        if read_truth(out) != truth:
            raise UsageError(f"{out} holds another organism", fix="choose another --out")
        return truth
    rewrite(source, out, _edit_of(kind, source, donor, seed, strength), truth.save)
    return truth


def plan(
    kind: str,
    before: str | Path,
    *,
    after: str | Path | None = None,
    seed: int = 0,
    strength: float = 1.0,
) -> Truth:
    """What `make` would write, and nothing is."""
    source, donor = _opened(kind, before, after)
    _edit_of(kind, source, donor, seed, strength)
    return _truth_of(kind, source, donor, seed, strength)


def _opened(
    kind: str, before: str | Path, after: str | Path | None
) -> tuple[Checkpoint, Checkpoint | None]:
    source = open_checkpoint(before)
    return source, _donor(kind, source, after)


def _donor(kind: str, source: Checkpoint, after: str | Path | None) -> Checkpoint | None:
    if kind not in NULLS and not kind.startswith(GRAFT):
        places = [GRAFT + place for place in grafts.WHERE]
        raise unknown("kind of organism", kind, [*NULLS, *places])
    if not kind.startswith(WITH_UPDATE):
        return None
    if after is None:
        raise UsageError(
            f"{kind} needs two checkpoints",
            "it takes the update between them",
            "give BEFORE and AFTER",
        )
    donor = open_checkpoint(after)
    for name, entry in source.tensors.items():
        if name not in donor.tensors or donor.tensors[name].shape != entry.shape:
            raise UsageError(
                f"{source.name} and {donor.name} are not of one architecture",
                f"{name} is not in both in one shape",
                "give two stages of one model",
            )
    return donor


def _check_strength(kind: str, strength: float) -> None:
    if kind in UNSCALED and strength != 1.0:
        raise UsageError(f"{kind} has no strength", "it is all or nothing", "leave it out")
    if not 0.0 < strength <= (1.0 if kind != "noise" else 1000.0):
        raise UsageError(f"strength {strength:g} is out of range", fix="give a share: 0 < x ≤ 1")


def _edit_of(
    kind: str, source: Checkpoint, donor: Checkpoint | None, seed: int, strength: float
) -> Edit:
    if kind == "same":
        return lambda entry: None
    if kind == "rounded":
        return nulls.rounded
    if kind == "symmetric":
        symmetries.check(source)
        return lambda entry: nulls.symmetric(source, entry, seed, strength)
    assert donor is not None
    later = donor.tensors

    def update(entry: TensorEntry) -> Float[ndarray, "..."]:
        return read_array(later[entry.canonical]).astype(np.float64) - read_array(entry)

    if kind == "noise":
        return lambda entry: nulls.noise(entry, update, seed, strength)
    mask_of = grafts.chosen(source, kind.removeprefix(GRAFT))

    def edit(entry: TensorEntry) -> Float[ndarray, "..."] | None:
        mask = mask_of(entry)
        if not np.any(mask):
            return None
        if strength == 1.0:  # the very bits of the donor
            return np.where(mask, read_array(later[entry.canonical]), read_array(entry))
        return read_array(entry) + strength * np.where(mask, update(entry), 0.0)

    return edit


def _truth_of(
    kind: str, source: Checkpoint, donor: Checkpoint | None, seed: int, strength: float
) -> Truth:
    _check_strength(kind, strength)
    touched = _touched(kind, source, seed, strength)
    places = [e.place for e in source.tensors.values() if touched(e)]
    layers = {p.layer for p in places if p.part == "text" and p.layer is not None}
    return Truth(
        kind=kind,
        seed=seed,
        strength=strength,
        same_weights=kind == "same",
        same_function=kind in ("same", "symmetric"),
        parts=[p for p in ("vision", "projector", "text") if any(x.part == p for x in places)],
        layers=sorted(layers),
        components=sorted({p.component for p in places if p.part == "text"}),
        before=fingerprint(source),
        update=fingerprint(donor) if donor else "",
    )


def _touched(
    kind: str, source: Checkpoint, seed: int, strength: float
) -> Callable[[TensorEntry], bool]:
    """Whether a kind may change a tensor."""
    if kind == "same":
        return lambda entry: False
    if kind == "symmetric":
        layers = nulls.moved_layers(source, seed, strength)
        return lambda entry: entry.place.part == "text" and entry.place.layer in layers
    if kind in NULLS:
        return lambda entry: True
    mask_of = grafts.chosen(source, kind.removeprefix(GRAFT))
    return lambda entry: bool(np.any(mask_of(entry)))
