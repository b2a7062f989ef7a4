"""Which tensors of the base a rule names, and how deep in its range each one lies."""

from collections.abc import Collection, Mapping

from franken.checkpoints import Checkpoint, TensorEntry
from franken.errors import UsageError
from franken.layers import parse_ranges
from franken.merge.recipe import EVERYTHING, PIECES, Rule

Depths = Mapping[str, float | None]  # by canonical name


def pieces_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The words of `--take` that mean something in a checkpoint: with all layers, they are all of
    it.
    """
    have = {_piece(entry) for entry in checkpoint.tensors.values()}
    return tuple(word for word in PIECES if word in have)


def chosen(rule: Rule, base: Checkpoint) -> Depths:
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
    claimed: dict[str, float | None] = {}
    for key, entry in base.tensors.items():
        spot = entry.place
        named = spot.layer is not None and (spot.part, spot.layer) in depths
        if named and (not rule.components or spot.component in rule.components):
            claimed[key] = depths[(spot.part, spot.layer)]
        if _piece(entry) in rule.take or (EVERYTHING in rule.take and key not in claimed):
            claimed[key] = None
    if EVERYTHING not in rule.take:
        _check_pieces(rule, base, claimed)
    if not claimed:
        what = " and ".join(
            x for x in (rule.layers, ", ".join(rule.take), ", ".join(rule.components)) if x
        )
        raise UsageError(
            f"a rule names no tensor: {what}", why="the base has none there", fix="see --dry-run"
        )
    return claimed


def _piece(entry: TensorEntry) -> str:
    """The word that `--take` has for a tensor; empty for those that only a layer range can name."""
    spot = entry.place
    if spot.part in ("vision", "projector"):
        return spot.part
    return spot.component if spot.layer is None else ""


def _check_pieces(rule: Rule, base: Checkpoint, claimed: Collection[str]) -> None:
    have = {_piece(base.tensors[key]) for key in claimed}
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
            fix="take embed" if word == "head" else f"leave {word} out",
        )
    sections = (base.settings, base.settings.text)
    tied = any(section.tie_word_embeddings for section in sections)
    if tied and "head" in everything and len({"embed", "head"} & set(rule.take)) == 1:
        raise UsageError(
            "embeddings and head are tied in the base", why="both are stored", fix="take embed,head"
        )
