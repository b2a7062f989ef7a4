"""Questions of public data for RL: every row once an epoch, in an order that is a function of
(seed, epoch).

A row that cannot be asked stops the run and is named, or, with `on_bad_row: skip`, is counted and
another one asked in its place: nothing is left out in silence. A step's questions may have any
number of images each.

Rows that are held out are drawn once, by a seed of their own: runs of any seed, and all stages of a
recipe, hold out the same ones and never train on them, nor on a row that asks the same words about
the same pixels. Left out: images that were scaled or compressed anew, and questions in other words;
those count as different. What is held out is a number of rows, a share of them, or all of another
source.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from PIL.Image import Image, Resampling

from franken.errors import FrankenError, UsageError
from franken.tasks import Item
from franken.tasks.puzzle import child_rng
from franken.tasks.sources import Stream, canonical, open_stream, parse
from franken.tasks.spoken import Spoken
from trainer.data import Conversation

HELD_OUT_SEED = 77
TRIES = 20  # rows that are drawn in the place of one that cannot be asked
HeldOut = int | float | str  # rows, a share of them, or another source
T = TypeVar("T")
U = TypeVar("U")
AT_ONCE = 256  # rows whose images are in memory while twins are looked for


Check = Callable[[Item], str | None]  # what is wrong with a question beside its row's own error
Report = Callable[[int, str], None]  # hears the number of a row that is skipped, and why


def public_items(
    data: str,
    count: int,
    *,
    seed: int,
    step: int,
    first: int = 0,
    width: int | None = None,
    held_out: int = 0,
    max_pixels: int = 0,
    check: Check | None = None,
    skipped: Report | None = None,
) -> list[Item]:
    """Questions `first` … `first + count - 1` of the `width` (by default `count`) that belong to a
    step.

    The `held_out` rows of the source and their twins are left out. Raises FrankenError, naming the
    row, for one that cannot be trained on; with `skipped` such a row is replaced by others, drawn
    by its place in the stream, so that the step is the same on any number of processes.
    """
    stream = _stream(data)

    def good(item: Item) -> tuple[Item, str | None]:
        item = smaller(item, max_pixels)
        why = item.error or (None if item.question else "it has no question")
        return item, why or (check(item) if check else None)

    return drawn(data, stream.pick, good, count, seed, step, first, width, held_out, skipped)


def public_conversations(
    data: str,
    count: int,
    *,
    seed: int,
    step: int,
    first: int = 0,
    width: int | None = None,
    held_out: HeldOut = 0,
    ask: str = "",
    max_pixels: int = 0,
    check: Callable[[Conversation], str | None] | None = None,
    skipped: Report | None = None,
) -> list[Conversation]:
    """Rows of a step as `public_items` draws them, with what they reply."""

    def good(row: Spoken) -> tuple[Conversation, str | None]:
        made = _conversation(row, ask, max_pixels)
        return made, row.error or (check(made) if check else None)

    pick = _stream(data).converse
    return drawn(data, pick, good, count, seed, step, first, width, held_out, skipped)


def held_out_conversations(
    data: str, held_out: HeldOut, *, ask: str = "", max_pixels: int = 0, skip: bool = False
) -> list[Conversation]:
    """The conversations that are never trained on. Raises FrankenError, naming the row, for one
    that cannot be learnt; with `skip` it is left out.
    """
    rows, source = split_rows(data, held_out)[1], held_out if isinstance(held_out, str) else data
    spoken = _stream(source).converse(rows)
    for row, said in zip(rows, spoken, strict=True):
        if said.error and not skip:
            raise _cannot_be_asked(source, row, said.error)
    return [_conversation(said, ask, max_pixels) for said in spoken if not said.error]


def _conversation(row: Spoken, ask: str, max_pixels: int) -> Conversation:
    images = tuple(scaled(image, max_pixels) for image in row.images)
    turns = [(ask + question, reply) for question, reply in row.turns]
    first, more = images[0] if images else None, images[1:]
    return Conversation(first, turns, more_images=more, system=row.system)


def drawn(
    data: str,
    pick: Callable[[Sequence[int]], list[T]],
    good: Callable[[T], tuple[U, str | None]],
    count: int,
    seed: int,
    step: int,
    first: int = 0,
    width: int | None = None,
    held_out: HeldOut = 0,
    skipped: Report | None = None,
) -> list[U]:
    """Rows of a step, as `public_items` draws them, made by `pick` and judged by `good`, which
    returns what is trained on and what is wrong with it.
    """
    learnt, _ = split_rows(data, held_out)
    width = width or count
    rows = [learnt[i] for i in rows_of(len(learnt), width, seed=seed, step=step)]
    rows = rows[first : first + count]
    made = []
    for place, (row, picked) in enumerate(zip(rows, pick(rows), strict=True), step * width + first):
        found, why = good(picked)
        for tried in range(TRIES):
            if why is None:
                break
            if skipped is None:
                raise _cannot_be_asked(data, row, why)
            skipped(row, why)
            row = learnt[child_rng("instead", seed, place, tried).randrange(len(learnt))]
            found, why = good(pick([row])[0])
        if why is not None:
            raise _cannot_be_asked(data, row, f"{why}; nor could {TRIES} others drawn in its place")
        made.append(found)
    return made


def _cannot_be_asked(data: str, row: int, why: str) -> FrankenError:
    return FrankenError(
        f"row {row} of {data} cannot be asked",
        why,
        "remove or mend the row, or set on_bad_row: skip",
    )


def smaller(item: Item, max_pixels: int) -> Item:
    """The item with its images scaled down to at most so many pixels; 0 is as they are."""
    if not max_pixels or item.image is None:
        return item
    first, *more = (scaled(image, max_pixels) for image in (item.image, *item.more_images))
    return replace(item, image=first, more_images=tuple(more))


def scaled(image: Image, max_pixels: int) -> Image:
    """An image of at most so many pixels, of the same shape."""
    share = (max_pixels / (image.width * image.height)) ** 0.5
    if not max_pixels or share >= 1:
        return image
    size = (max(1, int(image.width * share)), max(1, int(image.height * share)))
    return image.resize(size, Resampling.LANCZOS)


def held_out_items(
    data: str, held_out: int, max_pixels: int = 0, *, skip: bool = False
) -> list[Item]:
    """The questions that are never trained on. Raises FrankenError, naming the row, for one that
    cannot be asked; with `skip` it is left out.
    """
    rows = split_rows(data, held_out)[1]
    items = _stream(data).pick(rows)
    for row, item in zip(rows, items, strict=True):
        if not skip and (item.error or not item.question):
            raise _cannot_be_asked(data, row, item.error or "it has no question")
    return [smaller(item, max_pixels) for item in items if not item.error and item.question]


def check_held_out(data: str, held_out: HeldOut, prompts: int) -> None:
    """Raise UsageError where too few rows are left: a step would ask one of them twice."""
    if not held_out:
        return
    count = _stream(data).size
    learnt, held = split_rows(data, held_out)
    left, of_it = len(learnt), 0 if isinstance(held_out, str) else len(held)
    if left < prompts:
        twins = count - of_it - left
        raise UsageError(
            f"{data} has too few rows to hold {held_out} out",
            why=f"it has {count}{f' ({twins} ask what a held-out one asks)' * (twins > 0)}, "
            f"and a step trains on {prompts} others",
            fix="lower held_out or prompts",
        )


@lru_cache(maxsize=4)
def split_rows(data: str, held_out: HeldOut) -> tuple[Sequence[int], Sequence[int]]:
    """The row numbers to train on, and those held out; of a larger `held_out` the smaller one is a
    part. Where another source is held out, the second are its rows.

    Rows that ask what a held-out row asks are in neither. The order of the draw depends on the
    number of rows alone.
    """
    stream = _stream(data)
    order = list(range(stream.size))
    if isinstance(held_out, str):
        other = _stream(held_out)
        held = range(other.size)
        return sorted({*order} - _twins(stream, other, held)), held
    if isinstance(held_out, float):
        held_out = max(1, round(held_out * stream.size)) if held_out else 0
    child_rng("held-out", HELD_OUT_SEED).shuffle(order)
    held = order[:held_out]
    twins = _twins(stream, stream, held) if 0 < held_out < stream.size else set()
    return sorted({*order[held_out:]} - twins), sorted(held)


def _twins(stream: Stream, other: Stream, held: Sequence[int]) -> set[int]:
    """Rows of `stream` that ask what one of the `held` rows of `other` asks. Only rows whose words
    are those of such a one have their images read.
    """
    words = [" ".join(text.split()) for text in stream.texts()]
    others = words if other is stream else [" ".join(text.split()) for text in other.texts()]
    alike: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(words):
        alike[text].append(row)
    least = 1 if other is stream else 0  # a held row is its own twin
    asked = {others[row] for row in held if len(alike[others[row]]) > least}
    suspects = sorted(row for text in asked for row in alike[text])
    looks = _looks(stream, suspects)
    held_looks = looks if other is stream else {}
    if other is not stream:
        held_looks = _looks(other, [row for row in held if others[row] in asked])
    seen = {(others[row], held_looks[row]) for row in held if row in held_looks}
    return {row for row in suspects if (words[row], looks[row]) in seen}


def _looks(stream: Stream, rows: Sequence[int]) -> dict[int, bytes]:
    """A hash of what each row shows."""
    looks: dict[int, bytes] = {}
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        pairs = zip(some, stream.pick(some), stream.converse(some), strict=True)
        looks |= {row: _look_of(item, said) for row, item, said in pairs}
    return looks


def _look_of(item: Item, said: Spoken) -> bytes:
    """A hash of a question's pixels, however their files are written; of a conversation that cannot
    be asked as one question, of all that is asked in it and shown.
    """
    digest = hashlib.sha256()
    images = [item.image, *item.more_images]
    if item.error and not said.error:
        images = [*said.images]
        digest.update("\0".join(" ".join(question.split()) for question, _ in said.turns).encode())
    for image in filter(None, images):
        digest.update(f"{image.mode} {image.size}".encode() + image.tobytes())
    return digest.digest()


def is_here(data: str) -> bool:
    """Whether a source can be read without the network. A local one is; one of the hub where it is
    in the cache.
    """
    if parse(canonical(data)).path is not None:
        return True
    try:
        _stream(data)
    except FrankenError:
        return False
    return True


def rows_of(total: int, count: int, *, seed: int, step: int) -> list[int]:
    """The row numbers of one step: positions step·count … of a stream of shuffled epochs."""
    if not total:
        raise FrankenError("the data has no rows", fix="check the recipe's data")
    places = range(step * count, (step + 1) * count)
    return [_order(total, seed, place // total)[place % total] for place in places]


@lru_cache(maxsize=4)
def _order(total: int, seed: int, epoch: int) -> Sequence[int]:
    order = list(range(total))
    child_rng("public", seed, epoch).shuffle(order)
    return order


@lru_cache(maxsize=4)
def _stream(data: str) -> Stream:
    return open_stream(data)
