"""Where the images of a question stand between its words.

A question whose images come first says nothing of them. Otherwise it has the mark `<image>` once
for every image, in the order of the images. Data sets write their marks with numbers or without
(`<image>`, `<image 2>`, `<image_2>`); `placed` turns either into the first form.
"""

import re
from collections.abc import Sequence
from itertools import zip_longest

from franken.errors import FrankenError

MARK = "<image>"
ANY_MARK = re.compile(r"<image[ _]?(\d{0,4})>")
LEADING = re.compile(rf"(?:\s*{MARK})+\s*")


def placed(
    texts: Sequence[str], images: int, *, parts_of_one: bool = False
) -> tuple[list[str], list[int]]:
    """The texts of one question (the question itself, then its options) with one mark an image, and
    the images in the order of their marks.

    A number that comes again is `[image 2]`, counted as the images appear. `parts_of_one` is for
    sets whose only picture holds everything that is marked: the marks then name its parts. Raises
    FrankenError where marks and images do not match.
    """
    found = [match[1] for text in texts for match in ANY_MARK.finditer(text)]
    if parts_of_one and images == 1 and len(set(found)) > 1:
        return [ANY_MARK.sub(lambda m: f"[image {m[1]}]", text) for text in texts], [0]
    numbers = [int(number) - 1 for number in found if number]
    if not numbers:
        if found and len(found) != images:
            raise FrankenError(f"{len(found)} <image> marks for {_counted(images)}")
        return [_plain(text) for text in texts], list(range(images))
    order = list(dict.fromkeys(numbers))
    if len(numbers) != len(found):
        raise FrankenError("some <image> marks have numbers and others none")
    if sorted(order) != list(range(images)):
        named = ", ".join(f"<image {number + 1}>" for number in sorted(order))
        raise FrankenError(f"{named} are marked, and there are {_counted(images)}")
    seen: set[int] = set()

    def first_or_name(match: re.Match[str]) -> str:
        number = int(match[1]) - 1
        if number in seen:
            return f"[image {order.index(number) + 1}]"
        seen.add(number)
        return MARK

    return [ANY_MARK.sub(first_or_name, text) for text in texts], order


def _plain(text: str) -> str:
    return ANY_MARK.sub(MARK, text)


def _counted(images: int) -> str:
    return "1 image" if images == 1 else f"{images} images"


def without_leading(text: str, images: int) -> str:
    """The text without its marks where all of them lead: that is where images stand anyway."""
    match = LEADING.match(text)
    leads = match is not None and match[0].count(MARK) == text.count(MARK) == images
    return text[match.end() :] if match and leads else text


def pieces(text: str, images: int) -> list[str | None]:
    """A question as the parts of a message, None for an image. Without images a mark is a word.

    Raises FrankenError where marks and images do not match.
    """
    words = text.split(MARK)
    if not images or len(words) == 1:
        return [*[None] * images, text]
    if len(words) != images + 1:
        raise FrankenError(
            f"{len(words) - 1} <image> marks for {_counted(images)}",
            why="a question marks every image or none",
            fix="mend its marks",
        )
    between: list[str | None] = [None] * images
    mixed = [part for pair in zip_longest(words, between) for part in pair][: 2 * images + 1]
    return [part for part in mixed if part != ""]


def blind(text: str) -> str:
    """The question for someone who is shown no image: marks are words."""
    count = iter(range(1, text.count(MARK) + 1))
    return re.sub(re.escape(MARK), lambda _: f"[image {next(count)}]", text)
