"""Calendar: one month's page of a year. Which weekday is a date of that year, the one before or the one after?"""

from dataclasses import dataclass
from typing import Literal

from franken.tasks.puzzles.solved import Solved, Unsolvable

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    """A month's page: `month` 1-12, the weekday of its first day (0 is Monday), and whether its year is a leap year."""

    month: int
    first: int
    leap: bool


@dataclass(frozen=True)
class Date:
    """A date of the page's year (`year` 0), the year before (-1) or after (1); `leap` tells of the date's year."""

    year: Literal[-1, 0, 1]
    month: int
    day: int
    leap: bool


def solve(state: Page, query: Date) -> Solved:
    """The weekday's name. Raises Unsolvable when the date does not exist."""
    if not 1 <= query.day <= month_length(query.month, query.leap):
        raise Unsolvable(f"there is no {MONTHS[query.month - 1]} {query.day}", why="the month is shorter")
    days = day_of_year(query.month, query.day, query.leap) - day_of_year(state.month, 1, state.leap)
    if query.year == 1:
        days += 365 + state.leap
    elif query.year == -1:
        days -= 365 + query.leap
    first = f"{MONTHS[state.month - 1]} 1 is a {DAYS[state.first]}"
    return Solved(DAYS[(state.first + days) % 7], f"{first}, and the date is {days:+d} days from it")


def day_of_year(month: int, day: int, leap: bool) -> int:
    """January 1 is 0."""
    return sum(month_length(m, leap) for m in range(1, month)) + day - 1


def month_length(month: int, leap: bool) -> int:
    """Days of a month, 1-12."""
    return 28 + leap if month == 2 else 30 if month in (4, 6, 9, 11) else 31
