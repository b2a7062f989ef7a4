"""The rows of `franken forks`: a reply each, graded, with a number for every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from franken.evaluate.rows import AnswerRow, answer_row, missing_row
from franken.forks.kinds import kinds_of, pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from franken.forks.cross import Crossed
    from franken.forks.score import Scores
    from franken.tasks import Item

ARM = "image"
OWN, STORED = "own", "stored"  # methods: replies that were drawn here, or elsewhere


class ForkRow(AnswerRow):
    """A row of samples.parquet. `model` wrote the reply and `method` says how: `own`, `stored`, or
    the rule by which it took tokens of the other model.

    The lists are as long as the reply: its tokens (`ids`, with the end), their texts and the kind
    of sentence they stand in, and of replies that were scored the columns of
    `franken.forks.score.Scores`. Crossed replies have the `places` at which the other's token was
    taken, from 0, and the number at which it was another token, `changed`.
    """

    ids: list[int] | None
    pieces: list[str] | None
    kinds: list[str] | None
    js: list[float] | None
    kl_ab: list[float] | None
    kl_ba: list[float] | None
    entropy_a: list[float] | None
    entropy_b: list[float] | None
    logp_a: list[float] | None
    logp_b: list[float] | None
    rank_a: list[int] | None
    rank_b: list[int] | None
    top_a: list[int] | None
    top_b: list[int] | None
    top_a_in_b: list[int] | None
    top_b_in_a: list[int] | None
    vision_a: list[float] | None
    vision_b: list[float] | None
    places: list[int] | None
    changed: int | None


def lost_row(label: str, method: str, item: Item, draw: int, error: str) -> ForkRow:
    """The row of a reply that could not be had."""
    return _bare(missing_row(label, method, item, draw, error=error))


def scored_row(
    label: str,
    method: str,
    item: Item,
    draw: int,
    text: str,
    ids: Sequence[int],
    truncated: bool,
    scores: Scores,
    tokenizer: PreTrainedTokenizerBase,
) -> ForkRow:
    """A reply with what both models say of its tokens."""
    row = _graded(label, method, item, draw, text, len(ids), truncated)
    texts = pieces(tokenizer, ids)
    of_tokens = {"ids": list(ids), "pieces": texts, "kinds": kinds_of(item, texts)}
    return ForkRow(**{**row, **of_tokens, **vars(scores)})


def crossed_row(label: str, rule: str, item: Item, draw: int, crossed: Crossed) -> ForkRow:
    """A reply that took tokens of the other model."""
    said = crossed.response
    graded = _graded(label, rule, item, draw, said.text, len(said.ids), said.truncated)
    taken = {"ids": said.ids, "places": crossed.places, "changed": crossed.changed}
    return ForkRow(**{**graded, **taken})


def _graded(
    label: str, method: str, item: Item, draw: int, text: str, tokens: int, truncated: bool
) -> ForkRow:
    """As an evaluation grades a reply to the image."""
    row = answer_row(label, ARM, item, draw, text, tokens=tokens, truncated=truncated)
    row["method"] = method
    return _bare(row)


def _bare(row: AnswerRow) -> ForkRow:
    own = {name: None for name in ForkRow.__annotations__ if name not in row}
    return ForkRow(**{**row, **own})
