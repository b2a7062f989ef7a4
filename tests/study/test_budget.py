"""A budget: read as typed, kept by a stated ladder, never silently; what is too small is refused
with what is not.
"""

import dataclasses

import pytest

from franken.errors import UsageError
from franken.study.agenda import OPTIONAL, Settings
from franken.study.budget import _typed, fit, parse_budget

ASKED = Settings(samples=100, probe_samples=40, controls=2)
WEIGHTS = {
    "scores": 3.0,
    "attention": 1.0,
    "diversity": 0.001,
    "arms": 1.0,
    "spectra": 0.0,
    "patch": 5.0,
}


def price(s: Settings) -> float:
    """An invented study: a second a prompt, a probe's pair and a control, more for each optional
    part.
    """
    parts = sum(weight for name, weight in WEIGHTS.items() if s.on(name))
    return 4 + (1 + parts) * s.samples + s.probe_samples + 10 * s.controls


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("2h", 7200), ("90s", 90), ("1h30m", 5400), ("1.5m", 90)]
)
def test_budgets_as_typed(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "30 m", "-3m", "2d", "0s", "30mm"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="cannot read the budget"):
        parse_budget(text)


def test_what_fits_is_left_as_it_was_asked_for():
    found = fit(ASKED, "1h", price)
    assert found.settings == ASKED
    assert found.notes[0] == "Everything that was asked for fits a budget of 1h."


@pytest.mark.parametrize("seconds", [64, 80, 100, 150, 200, 250, 300, 400, 500, 660])
def test_the_choice_fits_and_nothing_asked_for_grew(seconds):
    found = fit(ASKED, f"{seconds}s", price)
    assert price(found.settings) == found.estimate <= seconds
    for name in ("samples", "probe_samples", "controls"):
        assert 0 < getattr(found.settings, name) <= getattr(ASKED, name)


def test_smaller_before_fewer_parts_and_both_are_said():
    half = fit(ASKED, "400s", price)
    assert (half.settings.samples, half.settings.dropped) == (50, ())
    assert half.notes[0].startswith(
        "To fit a budget of 400s: 50 instead of 100 prompts a task, 20 instead of 40"
    )
    less = fit(ASKED, "220s", price)
    assert less.settings.samples == 50
    assert less.settings.dropped == ("scores",)
    assert any(OPTIONAL["scores"] in note for note in less.notes)


def test_parts_that_cost_nothing_are_kept():
    found = fit(ASKED, "150s", price)
    assert "diversity" not in found.settings.dropped
    assert "spectra" not in found.settings.dropped


def test_too_little_is_refused_with_the_cost_of_the_smallest():
    smallest = dataclasses.replace(
        ASKED, samples=10, probe_samples=5, controls=1, dropped=tuple(OPTIONAL)
    )
    assert price(smallest) == 29
    with pytest.raises(UsageError) as e:
        fit(ASKED, "20s", price)
    assert "about 29 s" in e.value.why
    assert "--budget 30s" in e.value.fix
    assert fit(ASKED, "30s", price).settings.samples == 10


def test_a_study_that_is_smaller_than_the_floor_does_not_grow():
    tiny = Settings(samples=2, probe_samples=1, controls=0)
    found = fit(tiny, "13s", price)
    assert (found.settings.samples, found.settings.controls) == (2, 0)


def test_an_unknown_price_cannot_be_kept():
    with pytest.raises(UsageError, match="cannot be kept"):
        fit(ASKED, "1h", lambda _: None)


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [
        (665, (100, 40, 2)),
        (620, (75, 30, 2)),
        (440, (50, 20, 1)),
        (80, (35, 14, 1)),
        (60, (25, 10, 1)),
        (45, (15, 6, 1)),
        (35, (10, 5, 1)),
    ],
)
def test_the_rungs_of_the_ladder(seconds, sizes):
    """All, three quarters, a half; then fewer parts; then a quarter and less, down to the floor."""
    chosen = fit(ASKED, f"{seconds}s", price).settings
    assert (chosen.samples, chosen.probe_samples, chosen.controls) == sizes


def test_a_part_is_kept_where_it_saves_less_than_a_fiftieth():
    """Of about 1099 s: scores take 30 and go before the samples do, attention takes 19 and
    stays.
    """

    def nearly(s: Settings) -> float:
        return 1000 + 30 * s.on("scores") + 19 * s.on("attention") + s.samples

    asked = dataclasses.replace(ASKED, controls=0)
    whole = nearly(dataclasses.replace(asked, samples=50))
    assert 19 < 0.02 * whole < 30
    for saved, samples in ((1, 50), (31, 35)):
        chosen = fit(asked, f"{whole - saved}s", nearly).settings
        assert (chosen.samples, chosen.dropped) == (samples, ("scores",))


def test_a_budget_that_is_met_exactly_is_kept():
    assert fit(ASKED, f"{price(ASKED)}s", price).settings == ASKED
    everything = dataclasses.replace(ASKED, samples=10, probe_samples=5, controls=1)
    fewer = dataclasses.replace(everything, dropped=("scores",))
    assert price(everything) > price(fewer)
    exact = fit(everything, f"{price(everything)}s", price)
    assert (exact.settings, exact.estimate) == (everything, price(everything))


@pytest.mark.parametrize(("seconds", "typed"), [(29.0, "30s"), (98.9, "99s"), (99.0, "2m")])
def test_a_budget_that_is_enough_is_typed_as_people_do(seconds, typed):
    assert _typed(seconds) == typed
    assert parse_budget(typed) > seconds
