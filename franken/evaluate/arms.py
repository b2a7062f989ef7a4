"""The arms of an evaluation: the same question with the image, with a description instead, or with neither.

`image` is the ordinary case. `text` replaces the image by the puzzle's canonical description, so that
what is missing there is reasoning and not perception. `blind` shows nothing: what a model gets right
blind it got from the wording or from the base rates of the answers. The three arms of one question
share its random numbers (the key of the prompt), so that they can be compared in pairs.

Left out for now: a corrupted description, a black image, description beside the image.
Source: Frankenstein (arXiv 2602.12395) §4 and appendix E, settings A and B.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from franken.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from franken.generate.native import Prompt
    from franken.tasks import Item

ARMS: tuple[str, ...] = ("image", "text", "blind")


def parse_arms(arms: str | Iterable[str]) -> tuple[str, ...]:
    """Arms from a comma list or a sequence, in the order of `ARMS`, without repeats.

    Raises UsageError on an unknown arm or on none at all.
    """
    names = [a.strip() for a in (arms.split(",") if isinstance(arms, str) else arms)]
    names = [a for a in names if a]
    for name in names:
        if name not in ARMS:
            raise UsageError(
                f"unknown arm {name!r}",
                did_you_mean(name, ARMS) or "an arm says what the model is shown beside the question",
                f"choose from {', '.join(ARMS)}",
            )
    if not names:
        raise UsageError("no arm given", "an evaluation shows the model something", "try --arms image")
    return tuple(a for a in ARMS if a in names)


def obstacle(item: Item, arm: str) -> tuple[str | None, str | None]:
    """Why an item cannot be asked in an arm, as (error, ineligible); (None, None) when it can.

    A broken item is an error in the arms that need what is broken: an unreadable image fails in `image`
    only. An item without a description was never meant for `text`: that is ineligible, not failed.
    """
    if not item.question:
        return item.error or "the item has no question", None
    if arm == "image" and item.error:
        return item.error, None
    if arm == "image" and item.image is None:
        return None, "the question has no image"
    if arm == "text" and not item.description:
        return None, "no description of the image"
    return None, None


def prompt_for(item: Item, arm: str) -> Prompt:
    """The prompt that asks `item` in `arm`; the key is the item's id, whatever the arm."""
    from franken.generate.native import Prompt

    if arm == "image":
        images = () if item.image is None else (item.image, *item.more_images)
        return Prompt(text=item.question, images=images, key=item.id)
    if arm == "text":
        return Prompt(text=f"{item.description} {item.question}", images=(), key=item.id)
    return Prompt(text=item.question, images=(), key=item.id)
