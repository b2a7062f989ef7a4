"""Which tokens are what: spans of system, images, question and answer, from ids and config alone.

Works for any chat template that puts every image as one run of image tokens (Qwen-VL, LLaVA): needs
no processor.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor

from franken.errors import FrankenError
from franken.models.families import family_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class TokenMap:
    """Spans of one row; slices into its tokens, padding included.

    `system` is everything before the first image, `question` everything after the last one up to
    `answer`, which starts where generation does (the length of the row when it holds the prompt
    alone).
    """

    padding: slice
    system: slice
    images: tuple[slice, ...]
    question: slice
    answer: slice


def token_map(
    ids: Int[Tensor, "batch tokens"],
    config: "PreTrainedConfig",
    *,
    attention_mask: Int[Tensor, "batch tokens"] | None = None,
    answer_start: int | None = None,
) -> list[TokenMap]:
    """The spans of every row of a left-padded batch. Adjacent images that no token parts count as
    one run.
    """
    image = family_of(config.model_type).image_token_id(config)
    return [
        _row_map(
            row.tolist(),
            image,
            0 if attention_mask is None else _first_one(attention_mask[i]),
            answer_start,
        )
        for i, row in enumerate(ids)
    ]


def only_image(spans: TokenMap) -> slice:
    """The span of a prompt's one image. Raises FrankenError if there is none or more than one."""
    if len(spans.images) != 1:
        raise FrankenError(
            f"the prompt holds {len(spans.images)} images", why="this method needs exactly one"
        )
    return spans.images[0]


def _first_one(mask: Tensor) -> int:
    return int(mask.long().argmax())


def _row_map(row: list[int], image: int | None, start: int, answer_start: int | None) -> TokenMap:
    end = len(row) if answer_start is None else answer_start
    runs: list[slice] = []
    at = start
    while at < end:
        if row[at] != image:
            at += 1
            continue
        first = at
        while at < end and row[at] == image:
            at += 1
        runs.append(slice(first, at))
    system_end = runs[0].start if runs else start
    question_start = runs[-1].stop if runs else start
    return TokenMap(
        slice(0, start),
        slice(start, system_end),
        tuple(runs),
        slice(question_start, end),
        slice(end, len(row)),
    )
