"""Clock times in digits and in words; ratios, which are written as times are."""

import re
from typing import NamedTuple

from franken.tasks.graders.numbers import WORD_NUMBER, han_value, word_value
from franken.tasks.graders.reply import affirmed, narrow
from franken.tasks.graders.verdict import Verdict, decide, refuse

DIGITAL = re.compile(
    r"(?<![\d:.])(?P<h>\d{1,2})\s*(?:[:h]|(?<=\d)\.(?=\d\d(?!\d)))\s*(?P<m>\d\d)(?::(?P<s>\d\d))?"
    r"(?![\d:])"
    r"\s*(?P<half>[ap]\.?\s?m\b\.?)?",
    re.IGNORECASE,
)
HAN_COUNT = r"\d{1,2}|[零一二两三四五六七八九十]{1,3}"
HAN = re.compile(
    rf"(?P<h>{HAN_COUNT})\s*[点时]\s*(?:(?P<m>{HAN_COUNT})\s*分|(?P<part>半|一刻|三刻|整)?)"
)
SPOKEN = re.compile(
    rf"(?P<hour>{WORD_NUMBER})[ -](?:(?:oh|o)[ -])?(?P<minutes>{WORD_NUMBER})", re.I
)
NOON = re.compile(r"\b(?:(noon|midday)|midnight)\b", re.IGNORECASE)
HOUR = rf"(?P<hour>\d{{1,2}}|{WORD_NUMBER})"
O_CLOCK = re.compile(
    rf"(?<![\d:.]){HOUR}\s*(?:o['’]?clock\s*(?P<half>[ap]\.?m\b\.?)?|(?P<only>[ap]\.?m\b\.?))",
    re.IGNORECASE,
)
PAST = re.compile(
    rf"\b(?P<minutes>half|(?:a )?quarter|\d{{1,2}}|{WORD_NUMBER})(?:\s+minutes?)?\s+"
    rf"(?P<side>past|after|to|before)\s+{HOUR}",
    re.IGNORECASE,
)
RATIO = re.compile(r"(?<![\d:.,])\d{1,9}(?:\.\d{1,9})?(?:\s*:\s*\d{1,9}(?:\.\d{1,9})?)+(?![\d:])")
TO = re.compile(r"(?<=\d)\s+to\s+(?=\d)", re.IGNORECASE)


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
    """Every time in a text, in order of kind: digits, Chinese, past and to, o'clock. 2:75 and 25:00
    are none.
    """
    times = [
        _time(m["h"], int(m["m"]), int(m["s"] or 0), m["half"]) for m in DIGITAL.finditer(text)
    ]
    rest = DIGITAL.sub(" ", text)
    times += [Time(43200 if m[1] else 0, True, "12:00:00") for m in NOON.finditer(rest)]
    spoken = SPOKEN.fullmatch(rest.strip(" ."))
    if spoken:
        times.append(_time(str(_count(spoken["hour"])), _count(spoken["minutes"]), 0, None))
    parts = {"半": 30, "一刻": 15, "三刻": 45}
    times += [
        _time(str(_count(m["h"])), _count(m["m"] or "0") or parts.get(m["part"], 0), 0, None)
        for m in HAN.finditer(rest)
    ]
    for m in PAST.finditer(rest):
        part = m["minutes"].lower()
        minutes = 30 if part == "half" else 15 if "quarter" in part else _count(part)
        back = m["side"].lower() in ("to", "before")
        hour = _count(m["hour"])
        hour = (hour - 1) % 12 if back else hour
        times.append(_time(str(hour), (60 - minutes) % 60 if back else minutes, 0, None))
    times += [
        _time(str(_count(m["hour"])), 0, 0, m["half"] or m["only"])
        for m in O_CLOCK.finditer(PAST.sub(" ", rest))
    ]
    return [time for time in times if time is not None]


def _count(text: str) -> int:
    if text.isdigit():
        return int(text)
    return word_value(text.lower()) if text.isascii() else han_value(text) or 0


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


def compare_clock(text: str, gold: str) -> Verdict:
    """Times of a dial: 2:43, 02:43, 14:43, half past two; 0:37 is 12:37. A gold with am or pm, or
    from 13:00, is a time of day.
    """
    right = read_times(gold)
    if len(right) != 1:
        raise ValueError(f"the right answer {gold!r} is not a time")
    rest = affirmed(narrow(text))
    times = list(dict.fromkeys(read_times(rest)))
    if not times:
        return refuse(f"no time in {rest!r}")
    if len(times) > 1:
        return refuse(f"several times in {rest!r}")
    truth, time = right[0], times[0]
    shown = str(time), str(truth)
    if not truth.fixed:
        return decide(time.seconds % 43200 == truth.seconds % 43200, *shown, "time of a dial")
    if not time.fixed and truth.shown != time.shown:
        reason = f"{time} does not say which half of the day, right is {truth}"
        return Verdict(0.0, reason, *shown, "time of the day")
    return decide(time.seconds == truth.seconds, *shown, "time of the day")


def compare_ratio(text: str, gold: str) -> Verdict:
    """Ratios, term by term: 3 : 4 and 3 to 4 are 3:4; 6:8 is not, nor is 13:20 for 1:20. A ratio
    that may be a time (9:45) is also met by that time in words or with am and pm.
    """
    right = read_ratio(gold)
    if right is None:
        raise ValueError(f"the right answer {gold!r} is not a ratio")
    rest = affirmed(narrow(text))
    ratios = {read_ratio(m[0]) for m in RATIO.finditer(TO.sub(":", rest))}
    shown = ":".join(map(str, right))
    if len(ratios) > 1:
        return refuse(f"several ratios in {rest!r}")
    if ratios:
        said = next(iter(ratios)) or ()
        return decide(said == right, ":".join(map(str, said)), shown, "ratio, term by term")
    times, truth = list(dict.fromkeys(read_times(rest))), read_times(gold)
    if len(times) != 1 or len(truth) != 1:
        return refuse(f"no ratio in {rest!r}")
    same = times[0].seconds % 43200 == truth[0].seconds % 43200
    return decide(same, str(times[0]), shown, "time of a dial")


def read_ratio(text: str) -> tuple[float, ...] | None:
    """The terms of a text that is a ratio; None when it is none."""
    match = RATIO.fullmatch(TO.sub(":", text.strip(" .()[]")))
    if not match:
        return None
    terms = [float(term) for term in match[0].split(":")]
    return tuple(int(t) if t.is_integer() else t for t in terms)
