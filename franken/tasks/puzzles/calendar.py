"""Calendar: one month's page of a year. Which weekday is a date of that year, the one before or the
one after?
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from typing import Literal

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import paper, write
from franken.tasks.puzzles.solved import Solved, Unsolvable

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
SMALLEST = 84
STRATEGIES = ("days", "months")
STARTS = {1: 0, 2: 6, 3: 5}  # level → weekday of the first column
YEARS = {-1: "previous", 0: "same", 1: "next"}


@dataclass(frozen=True)
class Page:
    """A month's page: `month` 1-12, the weekday of its first day (0 is Monday), and whether its
    year is a leap year.

    `starts` is the weekday of the first column. Whether the year is a leap year shows in February
    alone.
    """

    month: int
    first: int
    leap: bool
    starts: int = 0


@dataclass(frozen=True)
class Date:
    """A date of the page's year (`year` 0), the year before (-1) or after (1); `leap` tells of the
    date's year.
    """

    year: Literal[-1, 0, 1]
    month: int
    day: int
    leap: bool


def solve(state: Page, query: Date) -> Solved:
    """The weekday's name. Raises Unsolvable when the date does not exist."""
    if not 1 <= query.day <= month_length(query.month, query.leap):
        raise Unsolvable(
            f"there is no {MONTHS[query.month - 1]} {query.day}", why="the month is shorter"
        )
    days = day_of_year(query.month, query.day, query.leap) - day_of_year(state.month, 1, state.leap)
    if query.year == 1:
        days += 365 + state.leap
    elif query.year == -1:
        days -= 365 + query.leap
    first = f"{MONTHS[state.month - 1]} 1 is a {DAYS[state.first]}"
    return Solved(
        DAYS[(state.first + days) % 7], f"{first}, and the date is {days:+d} days from it"
    )


def day_of_year(month: int, day: int, leap: bool) -> int:
    """January 1 is 0."""
    return sum(month_length(m, leap) for m in range(1, month)) + day - 1


def month_length(month: int, leap: bool) -> int:
    """Days of a month, 1-12."""
    return 28 + leap if month == 2 else 30 if month in (4, 6, 9, 11) else 31


def sample(rng: random.Random, level: int) -> Page:
    """A page that starts its weeks on Monday, on Sunday (of a common year) or on Saturday, by
    level. See `ask`.
    """
    return Page(
        rng.randint(1, 12), rng.randrange(7), level != 2 and rng.random() < 0.5, STARTS[level]
    )


def ask(state: Page, rng: random.Random) -> Date:
    """A date of another month. How far follows from the page: weeks from Monday are asked about
    their own year, weeks from Sunday about the year before or after, weeks from Saturday across a
    leap year."""
    year = 0 if state.starts == STARTS[1] else rng.choice((-1, 1))
    leap = state.leap if year == 0 else not state.leap and state.starts == STARTS[3]
    month = rng.choice([m for m in range(1, 13) if year or m != state.month])
    return Date(year, month, rng.randint(1, month_length(month, leap)), leap)


def questions(state: Page, query: Date) -> tuple[str, ...]:
    """In words, two wordings; both say which years are leap years."""
    kinds = {False: "a non-leap year", True: "a leap year"}
    day = f"{MONTHS[query.month - 1]} {query.day}"
    if query.year == 0:
        return (
            f"The picture shows the calendar of a month of {kinds[state.leap]}. Which day of the "
            f"week is {day} of the same year?",
            f"This calendar page is from {kinds[state.leap]}. On what weekday does {day} of that "
            "year fall?",
        )
    other = YEARS[query.year]
    return (
        f"The picture shows the calendar of a month of {kinds[state.leap]}. The {other} year is "
        f"{kinds[query.leap]}. Which day of the week is {day} of the {other} year?",
        f"This calendar page is from {kinds[state.leap]}, and the {other} year is "
        f"{kinds[query.leap]}. On what weekday does {day} of the {other} year fall?",
    )


def distractors(state: Page, query: Date) -> list[str]:
    """The other weekdays."""
    return list(DAYS)


def steps(state: Page, query: Date) -> StrategySteps:
    """All days between counted, and whole weeks left out; or from the first of one month to that of
    the next.
    """
    answer = solve(state, query).answer
    first = f"{MONTHS[state.month - 1]} 1 is a {DAYS[state.first]}"
    lengths, back = _between(state, query)
    if back:
        terms = [
            *lengths[:-1],
            lengths[-1] - query.day + 1,
        ]  # the rest of the date's own month, the date with it
    else:
        terms = [*lengths, query.day - 1]
    total, side = sum(terms), "before" if back else "after"
    return {
        "days": (
            first,
            f"the date is {' + '.join(map(str, terms))} = {total} days {side}",
            f"{total} = 7 * {total // 7} + {total % 7}",
            f"{total % 7} days {side} {DAYS[state.first]} is {answer}",
            f"answer {answer}",
        ),
        "months": (first, *_firsts(state, query, lengths, back), f"answer {answer}"),
    }


def _between(state: Page, query: Date) -> tuple[list[int], bool]:
    """The lengths of the months that lie between the two firsts, in the order of walking there; and
    whether back.
    """
    here, there = state.month, query.month + 12 * query.year
    back = there < here

    def length(month: int) -> int:
        return month_length((month - 1) % 12 + 1, state.leap if 1 <= month <= 12 else query.leap)

    return (
        [length(m) for m in range(here - 1, there - 1, -1)]
        if back
        else [length(m) for m in range(here, there)]
    ), back


def _firsts(state: Page, query: Date, lengths: list[int], back: bool) -> Iterator[str]:
    month, day = state.month, state.first
    for length in lengths:
        month, day = month + (-1 if back else 1), day + (-length if back else length)
        yield (
            f"{MONTHS[(month - 1) % 12]} 1 is {length} days {'back' if back else 'on'}, a "
            f"{DAYS[day % 7]}"
        )
    if query.day > 1:
        yield (
            f"{MONTHS[query.month - 1]} {query.day} is {query.day - 1} days on, a "
            f"{DAYS[(day + query.day - 1) % 7]}"
        )


def check(state: Page, query: Date, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. Looks every date up in a real year that has such a page and
    neighbour.
    """
    try:
        page = _real(state, query.year, query.leap)
        asked = date(page.year + query.year, query.month, query.day)
    except (StopIteration, ValueError):
        return "there is no such date beside such a page"
    at, total, side = page, abs((asked - page).days), "before" if asked < page else "after"
    for step in steps[:-1]:
        right = step in (
            f"{_month(page)} 1 is a {_day(page)}",
            f"{total} = 7 * {total // 7} + {total % 7}",
            f"{total % 7} days {side} {_day(page)} is {_day(asked)}",
        )
        if match := re.fullmatch(r"the date is (\d+(?: \+ \d+)*) = (\d+) days (\w+)", step):
            right = (
                sum(map(int, match[1].split(" + "))) == int(match[2]) == total and match[3] == side
            )
        elif match := re.fullmatch(r"\w+ \d+ is (\d{1,2}) days (on|back), a \w+", step):
            days = int(match[1])
            at += timedelta(days if match[2] == "on" else -days)
            right = step == f"{_month(at)} {at.day} is {days} days {match[2]}, a {_day(at)}"
        if not right:
            return f"{step!r} is wrong or cannot be read"
    if at not in (page, asked):
        return f"the steps end at {_month(at)} {at.day}"
    return (
        None if steps and steps[-1] == f"answer {_day(asked)}" else "the answer is wrong or missing"
    )


def _day(when: date) -> str:
    return DAYS[when.weekday()]


def _month(when: date) -> str:
    return MONTHS[when.month - 1]


@cache
def _real(state: Page, year: int, leap: bool) -> date:
    """The page's first day in some year of our calendar. Raises StopIteration where no year is like
    it.
    """

    def is_leap(y: int) -> bool:
        return (date(y + 1, 1, 1) - date(y, 1, 1)).days == 366

    return next(
        first
        for first in (date(y, state.month, 1) for y in range(1901, 2301))
        if first.weekday() == state.first
        and is_leap(first.year) == state.leap
        and is_leap(first.year + year) == leap
    )


def describe(state: Page) -> str:
    """`calendar January from Friday, weeks from Monday, leap year` (or `common year`)."""
    year = "leap" if state.leap else "common"
    return (
        f"calendar {MONTHS[state.month - 1]} from {DAYS[state.first]}, weeks from "
        f"{DAYS[state.starts]}, {year} year"
    )


def parse(text: str) -> Page:
    """The inverse of `describe`. Raises ValueError."""
    days = "|".join(DAYS)
    match = re.fullmatch(
        rf"calendar ({'|'.join(MONTHS)}) from ({days}), weeks from ({days}), (leap|common) year",
        text,
    )
    if not match:
        raise ValueError(f"{text!r} is no page of a calendar")
    return Page(
        MONTHS.index(match[1]) + 1, DAYS.index(match[2]), match[4] == "leap", DAYS.index(match[3])
    )


def facts(state: Page) -> Facts:
    """The month, the weekday of its first day and of the first column; of February, the number of
    days as well.
    """
    slots = {
        "month": MONTHS[state.month - 1],
        "first day": DAYS[state.first],
        "week starts": DAYS[state.starts],
    }
    return slots | ({"days": str(month_length(2, state.leap))} if state.month == 2 else {})


def change(state: Page, rng: random.Random) -> Page:
    """Another month, or another weekday of its first day."""
    if rng.random() < 0.5:
        return replace(state, month=rng.randint(1, 12))
    return replace(state, first=rng.randrange(7))


def render(state: Page, size: int, style: int = 0) -> Image.Image:
    """The month's name over seven columns of days. The shade of the heading follows from
    `style`.
    """
    image, pen = paper(size, style)
    shade = random.Random(style)
    band = max(size * 0.13, 13)
    pen.rectangle((0, 0, size, band), tuple(shade.randrange(60, 130) for _ in range(3)))
    write(pen, (size / 2, band / 2), MONTHS[state.month - 1], band * 0.72, (255, 255, 255))
    wide, high = (size - 4) / 7, (size - band - 2) / 7
    letters = 3 if size >= 200 else 2
    for column in range(7):
        name = DAYS[(state.starts + column) % 7][:letters]
        write(
            pen,
            (2 + (column + 0.5) * wide, band + high / 2),
            name,
            wide * (0.42 if letters == 3 else 0.62),
            (150, 30, 30),
        )
    skipped = (state.first - state.starts) % 7
    for day in range(1, month_length(state.month, state.leap) + 1):
        row, column = divmod(skipped + day - 1, 7)
        write(pen, (2 + (column + 0.5) * wide, band + (row + 1.5) * high), str(day), wide * 0.62)
    return image
