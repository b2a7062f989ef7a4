"""A contact sheet: many items of a task on one picture, each with its question and answer, to be
looked at.
"""

from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from franken.tasks.puzzle import Item, Pair

INK, PAPER, RIGHT = (24, 24, 28), (255, 255, 255), (20, 110, 60)
GAP = 12  # pixels
TEXT = 13  # pixels of a line's letters
LINE = 17  # pixels from one line to the next


def contact_sheet(items: Sequence[Item], *, columns: int = 4, side: int = 252) -> Image.Image:
    """The items row by row, every image scaled to fit `side` pixels, captions below in full.

    An item without an image shows its error there. Raises ValueError without items or columns.
    """
    if not items or columns < 1:
        raise ValueError("a contact sheet needs items and columns")
    captions = [_caption(item, side) for item in items]
    rows = [
        range(start, min(start + columns, len(items))) for start in range(0, len(items), columns)
    ]
    heights = [side + LINE * max(len(captions[i]) for i in row) + 2 * GAP for row in rows]
    sheet = Image.new(
        "RGB", (GAP + min(columns, len(items)) * (side + GAP), GAP + sum(heights)), PAPER
    )
    pen = ImageDraw.Draw(sheet)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            left = GAP + column * (side + GAP)
            _place(sheet, pen, items[i], left, top, side)
            for n, (line, colour) in enumerate(captions[i]):
                pen.text((left, top + side + GAP // 2 + n * LINE), line, colour, _font())
        top += height
    return sheet


def pair_sheet(pairs: Sequence[Pair], *, side: int = 252) -> Image.Image:
    """Target and source side by side, a pair a row."""
    return contact_sheet(
        [item for pair in pairs for item in (pair.target, pair.source)], columns=2, side=side
    )


def _place(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, item: Item, left: int, top: int, side: int
) -> None:
    if item.image is None:
        pen.rectangle((left, top, left + side - 1, top + side - 1), None, INK)
        for n, line in enumerate(_wrap(item.error or "no image", side - 2 * GAP)):
            pen.text((left + GAP, top + GAP + n * LINE), line, INK, _font())
        return
    scale = side / max(item.image.size)
    kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    width, height = (max(1, round(length * scale)) for length in item.image.size)
    sheet.paste(item.image.convert("RGB").resize((width, height), kind), (left, top))


def _caption(item: Item, side: int) -> list[tuple[str, tuple[int, int, int]]]:
    asked = [(line, INK) for part in item.question.splitlines() for line in _wrap(part, side)]
    return [*asked, *[(line, RIGHT) for line in _wrap(f"Answer: {item.answer}", side)]]


def _wrap(text: str, width: int) -> list[str]:
    """Lines no wider than `width` pixels; a longer word is broken."""
    lines, line = [], ""
    for word in text.split():
        while _font().getlength(word) > width:
            fits = next(
                n
                for n in range(len(word) - 1, 0, -1)
                if n == 1 or _font().getlength(word[:n]) <= width
            )
            lines, line, word = [*lines, *([line] if line else []), word[:fits]], "", word[fits:]
        longer = f"{line} {word}".strip()
        if _font().getlength(longer) <= width:
            line = longer
        else:
            lines, line = [*lines, line], word
    return [*lines, line] if line else lines


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT)
