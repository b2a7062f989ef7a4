"""The questions of a run, held without their pictures: those of a table are read again when they
are asked, so that memory does not grow with the rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from PIL import Image

from franken.tasks.benchmarks import item_of
from franken.tasks.puzzle import Item
from franken.tasks.sources import distinct, draw, is_table, load_tasks, parse, recognised

BLANK = Image.new("RGB", (1, 1))  # stands where a picture was


@dataclass(frozen=True)
class Questions:
    """`items` in their order, whose pictures may be `BLANK`; `seen` gives some with their own."""

    items: list[Item]
    seen: Callable[[Sequence[Item]], list[Item]] = field(default=list, repr=False)


def questions_of(tasks: Sequence[str], samples: int, seed: int, data: str | None) -> Questions:
    """The same questions as `load_tasks`. Raises UsageError when there is nothing to ask."""
    if data is None or not is_table(source := parse(data)):
        return Questions(load_tasks(tasks, samples, seed, data))
    table, layout, name = recognised(source)
    numbers = draw(table, layout, name, tasks, samples, seed)
    if not numbers:
        return Questions(load_tasks(tasks, samples, seed, data))  # says why

    def read(some: Sequence[int]) -> Iterator[Item]:
        for number, row in zip(some, table.pick(some), strict=True):
            yield item_of(row, layout, name, number, table.folder)

    def again(number: int) -> Item:
        return next(read([number]))

    numbered = zip(numbers, read(numbers), strict=True)
    items = distinct([without_pictures(item, partial(again, n)) for n, item in numbered])
    place = {item.id: number for item, number in zip(items, numbers, strict=True)}

    def seen(wanted: Sequence[Item]) -> list[Item]:
        order = sorted(place[item.id] for item in wanted)
        whole = dict(zip(order, read(order), strict=True))
        return [replace(whole[place[item.id]], id=item.id) for item in wanted]

    return Questions(items, seen)


def without_pictures(item: Item, reread: Callable[[], Item]) -> Item:
    """The item as text, and how it is read again."""
    if item.image is None:
        return item
    blanks = (BLANK,) * len(item.more_images)
    return replace(item, image=BLANK, more_images=blanks, reread=reread)
