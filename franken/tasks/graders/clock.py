"""Clock times in digits and in words."""

import re
from typing import NamedTuple

from franken.tasks.graders.numbers import WORD_NUMBER, word_value

DIGITAL = re.compile(
    r"(?<![\d:.])(?P<h>\d{1,2})\s*(?:[:h]|(?<=\d)\.(?=\d\d(?!\d)))\s*(?P<m>\d\d)(?::(?P<s>\d\d))?(?![\d:])"
    r"\s*(?P<half>[ap]\.?\s?m\b\.?)?",
    re.IGNORECASE,
)
HOUR = rf"(?P<hour>\d{{1,2}}|{WORD_NUMBER})"
O_CLOCK = re.compile(
    rf"(?<![\d:.]){HOUR}\s*(?:o['’]?clock\s*(?P<half>[ap]\.?m\b\.?)?|(?P<only>[ap]\.?m\b\.?))",
    re.IGNORECASE,
)
PAST = re.compile(
    rf"\b(?P<minutes>half|(?:a )?quarter|\d{{1,2}}|{WORD_NUMBER})(?:\s+minutes?)?\s+(?P<side>past|after|to|before)\s+{HOUR}",
    re.IGNORECASE,
)


class Time(NamedTuple):
    """Seconds since midnight; `fixed` when the half of the day is known (am, pm, or an hour above
    12).
    """

    seconds: int
    fixed: bool
    shown: str  # hours and minutes as written, without am and pm

    def __str__(self) -> str:
        hours, rest = divmod(self.seconds, 3600)
        tail = f":{rest % 60:02d}" if rest % 60 else ""
        return f"{hours}:{rest // 60:02d}{tail}"


def read_times(text: str) -> list[Time]:
    """Every time in a text, in order of kind: digits, o'clock, past and to. 2:75 and 25:00 are
    none.
    """
    found = [
        _time(m["h"], int(m["m"]), int(m["s"] or 0), m["half"]) for m in DIGITAL.finditer(text)
    ]
    rest = DIGITAL.sub(" ", text)
    for m in PAST.finditer(rest):
        part = m["minutes"].lower()
        minutes = 30 if part == "half" else 15 if "quarter" in part else _count(part)
        back = m["side"].lower() in ("to", "before")
        hour = _count(m["hour"])
        found.append(
            _time(
                str((hour - 1) % 12 if back else hour),
                (60 - minutes) % 60 if back else minutes,
                0,
                None,
            )
        )
    found += [
        _time(str(_count(m["hour"])), 0, 0, m["half"] or m["only"])
        for m in O_CLOCK.finditer(PAST.sub(" ", rest))
    ]
    return [time for time in found if time is not None]


def _count(text: str) -> int:
    return int(text) if text.isdigit() else word_value(text.lower())


def _time(hour: str, minutes: int, seconds: int, half: str | None) -> Time | None:
    hours = int(hour)
    if hours > 24 or minutes > 59 or seconds > 59 or (half and not 1 <= hours <= 12):
        return None
    if half:
        hours = hours % 12 + (12 if half.lower().startswith("p") else 0)
    return Time(
        hours % 24 * 3600 + minutes * 60 + seconds,
        bool(half) or hours > 12,
        f"{int(hour)}:{minutes:02d}:{seconds:02d}",
    )
