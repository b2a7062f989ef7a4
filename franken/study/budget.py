"""`--budget 30m`: the largest study that is expected to fit, by a rule that is written here, and
said on the page.

Sizes only ever go down from what was asked for. First samples, image pairs and random sets shrink
to a half together; then optional parts go, dearest first in the order of `OPTIONAL`; then
everything shrinks further, down to `FLOOR`. Parts that still fit in the end come back. A budget
below the smallest study is refused with what that would take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from franken.errors import UsageError
from franken.study.agenda import OPTIONAL, Settings
from franken.study.cost import span

FLOOR = {"samples": 10, "probe_samples": 5, "controls": 1}
SHARES = (1.0, 0.75, 0.5), (0.35, 0.25, 0.15, 0.1, 0.0)  # before and after optional parts go
UNITS = {"s": 1, "m": 60, "h": 3600}
WORTH = 0.02  # a part is only dropped if that saves this share of the whole

Price = Callable[[Settings], float | None]  # about how many seconds a study takes


@dataclass(frozen=True)
class Fit:
    """What a budget chose: the settings, their estimate in seconds, and sentences that say what
    became smaller.
    """

    settings: Settings
    estimate: float
    notes: tuple[str, ...]


def parse_budget(text: str) -> float:
    """Seconds of `30m`, `2h`, `90s`, `1h30m`. Raises UsageError."""
    pieces = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    if (
        not pieces
        or "".join(a + b for a, b in pieces) != text
        or not sum(float(a) for a, _ in pieces)
    ):
        raise UsageError(
            f"cannot read the budget {text!r}",
            "it is a time",
            "write --budget 30m, 2h, 90s or 1h30m",
        )
    return sum(float(number) * UNITS[unit] for number, unit in pieces)


def fit(asked: Settings, text: str, price: Price) -> Fit:
    """The first study of the ladder whose price is within the budget, with all optional parts that
    fit as well.

    Raises UsageError when even the smallest is dearer, or when nothing is known of how long a study
    takes.
    """
    budget = parse_budget(text)
    chosen, cost = None, None
    for rung in _ladder(asked, price):
        cost = price(rung)
        if cost is None:
            why = "nothing is known of this machine's speed"
            raise UsageError(
                f"--budget {text} cannot be kept", why, "give --samples and --probe-samples instead"
            )
        if cost <= budget:
            chosen = rung
            break
    if chosen is None or cost is None:
        smallest = _scaled(asked, 0.0)
        needs = span(cost)
        raise UsageError(
            f"no study fits into {text}",
            f"the smallest ({smallest.samples} prompts and {smallest.probe_samples} image pairs a "
            f"task, no optional part) takes about {needs}",
            f"give --budget {_typed(cost or budget)}, fewer --tasks, or a smaller --n or "
            "--max-new-tokens",
        )
    for name in reversed(chosen.dropped):
        fuller = replace(chosen, dropped=tuple(x for x in chosen.dropped if x != name))
        more = price(fuller)
        if more is not None and more <= budget:
            chosen, cost = fuller, more
    return Fit(chosen, cost, _said(asked, chosen, text, cost))


def _ladder(asked: Settings, price: Price) -> Iterator[Settings]:
    """Ever smaller studies."""
    for share in SHARES[0]:
        yield _scaled(asked, share)
    small = _scaled(asked, SHARES[0][-1])
    before = price(small)
    for name in [x for x in OPTIONAL if small.on(x)]:
        fewer = replace(small, dropped=(*small.dropped, name))
        cost = price(fewer)
        if before is None or cost is None or before - cost >= WORTH * before:
            small, before = fewer, cost
            yield small
    everything = tuple(x for x in OPTIONAL if asked.on(x))
    for share in SHARES[1]:
        yield replace(_scaled(asked, share), dropped=everything if share == 0.0 else small.dropped)


def _scaled(asked: Settings, share: float) -> Settings:
    sizes = {
        name: min(getattr(asked, name), max(low, round(getattr(asked, name) * share)))
        for name, low in FLOOR.items()
    }
    return replace(asked, **sizes)


def _said(asked: Settings, chosen: Settings, text: str, cost: float) -> tuple[str, ...]:
    names = {
        "samples": "prompts a task",
        "probe_samples": "image pairs a task",
        "controls": "random layer sets of a size",
    }
    smaller = [
        f"{getattr(chosen, name)} instead of {getattr(asked, name)} {what}"
        for name, what in names.items()
        if getattr(chosen, name) < getattr(asked, name)
    ]
    lost = [OPTIONAL[name] for name in chosen.dropped]
    notes = [f"To fit a budget of {text}: {', '.join(smaller)}."] if smaller else []
    notes += [f"Left out to fit a budget of {text}: {'; '.join(lost)}."] if lost else []
    notes = notes or [f"Everything that was asked for fits a budget of {text}."]
    return (*notes, f"Expected to take about {span(cost)}.")


def _typed(seconds: float) -> str:
    """A budget that is enough, as it is typed."""
    return f"{int(seconds) + 1}s" if seconds < 99 else f"{int(seconds / 60) + 1}m"
