"""Questions of public data for RL: every row once an epoch, in an order that is a function of (seed, epoch).

A row that cannot be asked stops the run and is named: nothing is left out in silence. A step's questions have one image each,
or none has any, since prompt and image are matched by their number.
"""

from collections.abc import Sequence
from functools import lru_cache

from franken.errors import FrankenError
from franken.tasks import Item
from franken.tasks.puzzle import child_rng
from franken.tasks.sources import Stream, canonical, open_stream, parse


def public_items(
    data: str, count: int, *, seed: int, step: int, first: int = 0, width: int | None = None
) -> list[Item]:
    """Questions `first` … `first + count - 1` of the `width` (by default `count`) that belong to a step.

    Raises FrankenError, naming the row, for one that cannot be trained on.
    """
    stream = _stream(data)
    rows = rows_of(stream.count, width or count, seed=seed, step=step)[first : first + count]
    items = stream.pick(rows)
    for row, item in zip(rows, items, strict=True):
        if item.error or not item.question:
            raise FrankenError(
                f"row {row} of {data} cannot be asked",
                why=item.error or "it has no question",
                fix="remove or mend the row",
            )
        if item.more_images or (item.image is None) != (items[0].image is None):
            raise FrankenError(
                f"row {row} of {data} has {len(item.more_images) + (item.image is not None)} images",
                why="in RL every question of a step has one image, or none has any",
                fix="train on questions with one image and on those without in stages of their own",
            )
    return items


def is_here(data: str) -> bool:
    """Whether a source can be read without the network. A local one is; one of the hub where it is in the cache."""
    if parse(canonical(data)).path is not None:
        return True
    try:
        _stream(data)
    except FrankenError:
        return False
    return True


def rows_of(total: int, count: int, *, seed: int, step: int) -> list[int]:
    """The row numbers of one step: positions step·count … of an endless stream of shuffled epochs."""
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
