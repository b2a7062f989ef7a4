"""The arms of an evaluation: the same question, with more or less beside it.

An arm is a view, what the model is shown, and at most one aid, written `view` or `view+aid`:

    image        the ordinary case
    text         the puzzle's canonical description instead: what is missing there is reasoning and
                 not perception
    both         image and description
    blind        neither: what is right there comes from the wording or from the base rates of the
                 answers
    corrupted    the description with one fact wrong, which changes the answer: does the model read
                 it?
    conflict     the image beside that wrong description: which of the two does the model believe?
    black        a black image of the same size
    black-text   a black image and the description
    restyled     the image blurred and faded: a rendering that was never trained on
    describe     the image, and the request to describe it; the reply is compared with the facts

    +plan +facts +subquestions   what a worked solution knows (franken/evaluate/hints.py)
    +think +no-think             asks for reasoning first, or for the bare answer

All arms of one question share its random numbers (the key of the prompt), so that they can be
compared in pairs. Source: Frankenstein (arXiv 2602.12395) §4 and appendix E, settings A and B;
SPARKLE (arXiv 2506.04723) for the aids.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import ImageEnhance, ImageFilter

from franken.errors import FrankenError, UsageError, check_known
from franken.evaluate.hints import AIDS, hint, instruction, puzzle_of
from franken.tasks.images import black
from franken.tasks.marks import blind
from franken.tasks.puzzle import child_rng

if TYPE_CHECKING:
    from PIL.Image import Image

    from franken.generate.native import Prompt
    from franken.tasks import Item


@dataclass(frozen=True)
class View:
    """What a view shows: the image `as it is`, `black` or `restyled`, and the description `right`
    or `wrong`.
    """

    image: str = ""
    description: str = ""


VIEWS: dict[str, View] = {
    "image": View("as it is"),
    "text": View("", "right"),
    "both": View("as it is", "right"),
    "blind": View(),
    "corrupted": View("", "wrong"),
    "conflict": View("as it is", "wrong"),
    "black": View("black"),
    "black-text": View("black", "right"),
    "restyled": View("restyled"),
    "describe": View("as it is"),
}
DESCRIBE = "describe"
ARMS: tuple[str, ...] = tuple(VIEWS)
HELP = (
    f"What is shown, with commas: {', '.join(ARMS)}; each may end in "
    f"{', '.join('+' + a for a in AIDS)}."
)
FADE, BLUR = 0.7, 0.8  # of restyled: contrast, and the blur's radius in pixels


def parse_arms(arms: str | Iterable[str]) -> tuple[str, ...]:
    """Arms from a comma list or a sequence, in the order of `ARMS` and `AIDS`, without repeats.

    Raises UsageError on an unknown view or aid, or on no arm at all.
    """
    names = [a.strip() for a in (arms.split(",") if isinstance(arms, str) else arms)]
    names = [a for a in names if a]
    for name in names:
        view, _, aid = name.partition("+")
        check_known("arm", [view], ARMS)
        check_known("aid", [aid], ("", *AIDS))
        if aid and view == DESCRIBE:
            raise UsageError(
                f"{name!r} cannot be",
                "a description is asked for without the question",
                "use describe",
            )
    if not names:
        raise UsageError(
            "no arm given", "an evaluation shows the model something", "try --arms image"
        )
    return tuple(sorted(set(names), key=_place))


def _place(arm: str) -> tuple[int, int]:
    view, _, aid = arm.partition("+")
    return ARMS.index(view), ("", *AIDS).index(aid)


def view_of(arm: str) -> View:
    """What the arm shows, its aid aside."""
    return VIEWS[arm.partition("+")[0]]


def obstacle(item: Item, arm: str) -> tuple[str | None, str | None]:
    """Why an item cannot be asked in an arm, as (error, ineligible); (None, None) when it can.

    A broken item is an error in the arms that need what is broken: an unreadable image fails where
    an image is shown. An item without a description, a twin or a worked solution was never meant
    for the arms that need it: ineligible.
    """
    if not item.question:
        return item.error or "the item has no question", None
    shown, aid = view_of(arm), arm.partition("+")[2]
    if shown.image and item.error:
        return item.error, None
    if shown.image and item.image is None:
        return None, "the question has no image"
    if shown.description and not item.description:
        return None, "no description of the image"
    if shown.description == "wrong" and misled(item) is None:
        return None, "no fact that changes the answer"
    if aid and not instruction(aid) and not hint(item, aid):
        return None, f"no worked solution to take the {aid} from"
    if arm == DESCRIBE and puzzle_of(item) is None:
        return None, "no facts to compare a description with"
    return None, None


def prompt_for(item: Item, arm: str) -> Prompt:
    """The prompt that asks `item` in `arm`; the key is the item's id, whatever the arm."""
    from franken.generate.native import Prompt

    shown, aid = view_of(arm), arm.partition("+")[2]
    pictures = (item.image, *item.more_images) if shown.image and item.image is not None else ()
    images = tuple(_picture(picture, shown.image) for picture in pictures)
    if arm == DESCRIBE:
        request = getattr(puzzle_of(item), "describe_prompt", "Describe the image.")
        return Prompt(text=request, images=images, key=item.id)
    described = item.description if shown.description == "right" else ""
    if shown.description == "wrong":
        wrong = misled(item)
        described = wrong[0] if wrong else ""
    question = item.question if images else blind(item.question)
    pieces = [described, hint(item, aid) if aid else None, question, instruction(aid)]
    return Prompt(text=" ".join(p for p in pieces if p), images=images, key=item.id)


def misled(item: Item) -> tuple[str, str] | None:
    """A description with one fact wrong, and the answer that follows from it; None where there is
    no such thing.

    The wrong fact depends on the item alone.
    """
    puzzle = puzzle_of(item)
    if puzzle is None:
        return None
    try:
        state, _ = puzzle.twin(item.state, item.query, child_rng("misled", item.id))
    except FrankenError:  # the puzzle has no twin for this state
        return None
    return puzzle.describe(state), puzzle.answer(state, item.query)


def _picture(image: Image, how: str) -> Image:
    if how == "black":
        return black(image)
    if how == "restyled":
        return ImageEnhance.Contrast(image.filter(ImageFilter.GaussianBlur(BLUR))).enhance(FADE)
    return image
