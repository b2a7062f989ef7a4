"""Questions of public data for RL: every row once an epoch, in an order that is a function of
(seed, epoch).

A row that cannot be asked stops the run and is named: nothing is left out in silence. A step's
questions have one image each, or none has any, since prompt and image are matched by their number.

Rows that are held out are drawn once, by a seed of their own: runs of any seed, and all stages of a
recipe, hold out the same ones and never train on them, nor on a row that asks the same words about
the same pixels. Left out: images that were scaled or compressed anew, and questions in other words;
those count as different.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from franken.errors import FrankenError, UsageError
from franken.tasks import Item
from franken.tasks.puzzle import child_rng
from franken.tasks.sources import Stream, canonical, open_stream, parse

HELD_OUT_SEED = 77
AT_ONCE = 256  # rows whose images are in memory while twins are looked for


def public_items(
    data: str,
    count: int,
    *,
    seed: int,
    step: int,
    first: int = 0,
    width: int | None = None,
    held_out: int = 0,
) -> list[Item]:
    """Questions `first` … `first + count - 1` of the `width` (by default `count`) that belong to a
    step.

    The `held_out` rows of the source and their twins are left out. Raises FrankenError, naming the
    row, for one that cannot be trained on.
    """
    stream = _stream(data)
    learnt, _ = split_rows(data, held_out)
    rows = [
        learnt[i]
        for i in rows_of(len(learnt), width or count, seed=seed, step=step)[first : first + count]
    ]
    items = _asked(data, stream, rows)
    for row, item in zip(rows, items, strict=True):
        if item.more_images or (item.image is None) != (items[0].image is None):
            raise FrankenError(
                f"row {row} of {data} has {len(item.more_images) + bool(item.image)} images",
                why="in RL every question of a step has one image, or none has any",
                fix="train on questions with one image and on those without in stages of their own",
            )
    return items


def held_out_items(data: str, held_out: int) -> list[Item]:
    """The questions that are never trained on. Raises FrankenError, naming the row, for one that
    cannot be asked.
    """
    return _asked(data, _stream(data), split_rows(data, held_out)[1])


def check_held_out(data: str, held_out: int, prompts: int) -> None:
    """Raise UsageError where too few rows are left: a step would ask one of them twice."""
    if not held_out:
        return
    count = _stream(data).size
    left = len(split_rows(data, held_out)[0])
    if left < prompts:
        twins = max(0, count - held_out) - left
        raise UsageError(
            f"{data} has too few rows to hold {held_out} out",
            why=f"it has {count}{f' ({twins} ask what a held-out one asks)' * (twins > 0)}, "
            f"and a step trains on {prompts} others",
            fix="lower held_out or prompts",
        )


@lru_cache(maxsize=4)
def split_rows(data: str, held_out: int) -> tuple[Sequence[int], Sequence[int]]:
    """The row numbers to train on, and those held out; of a larger `held_out` the smaller one is a
    part.

    Rows that ask what a held-out row asks are in neither. The order of the draw depends on the
    number of rows alone.
    """
    stream = _stream(data)
    order = list(range(stream.size))
    child_rng("held-out", HELD_OUT_SEED).shuffle(order)
    held = order[:held_out]
    twins = _twins(stream, held) if 0 < held_out < stream.size else set()
    return sorted({*order[held_out:]} - twins), sorted(held)


def _twins(stream: Stream, held: Sequence[int]) -> set[int]:
    """Rows that ask what one of `held` asks. Only rows whose words are those of a held one have
    their images read.
    """
    words = [" ".join(text.split()) for text in stream.texts()]
    alike: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(words):
        alike[text].append(row)
    held_words = {words[row] for row in held}
    suspects = sorted(row for text in held_words for row in alike[text] if len(alike[text]) > 1)
    looks: dict[int, bytes] = {}
    for first in range(0, len(suspects), AT_ONCE):
        rows = suspects[first : first + AT_ONCE]
        looks |= {row: _look_of(item) for row, item in zip(rows, stream.pick(rows), strict=True)}
    seen = {(words[row], looks[row]) for row in held if row in looks}
    return {row for row in suspects if (words[row], looks[row]) in seen}


def _look_of(item: Item) -> bytes:
    """A hash of a question's pixels, however their files are written."""
    digest = hashlib.sha256()
    for image in filter(None, (item.image, *item.more_images)):
        digest.update(f"{image.mode} {image.size}".encode() + image.tobytes())
    return digest.digest()


def _asked(data: str, stream: Stream, rows: Sequence[int]) -> list[Item]:
    items = stream.pick(rows)
    for row, item in zip(rows, items, strict=True):
        if item.error or not item.question:
            raise FrankenError(
                f"row {row} of {data} cannot be asked",
                why=item.error or "it has no question",
                fix="remove or mend the row",
            )
    return items


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
