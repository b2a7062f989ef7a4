"""Figures: tidy rows in, Axes out, with intervals and the right numbers on them."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from franken.report import theme as look
from franken.report.figures import answers, plots, updates
from franken.report.page.build import png
from franken.runs import RunSet, open_study

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def found(make_study, tmp_path_factory) -> RunSet:
    folder = make_study(tmp_path_factory.mktemp("plots"), samples=10)
    return open_study(folder)


def test_every_plot_returns_axes_with_a_band_or_bars(found):
    probe, diff, evals = (found.layers(v) for v in ("probe", "diff", "eval"))
    drawn = [
        plots.plot_swap(probe, model="rl"),
        plots.plot_swap(probe, model="rl", method="swap-single", metric="flip_to_source_rate"),
        plots.plot_zero(probe),
        plots.plot_zero(probe, task="count"),
        updates.plot_energy(diff),
        updates.plot_energy(diff, metric="unchanged_fraction"),
        updates.plot_update(diff[diff["part"] == "text"], delta="sft→rl"),
        answers.plot_acc_at_k(evals, models=["base", "sft", "rl", "control"]),
    ]
    for ax in drawn:
        assert isinstance(ax, Axes)
        assert len(ax.collections) >= len([x for x in ax.lines if len(x.get_xdata()) > 2])
        assert ax.collections
    points = answers.plot_points(evals, labels=["sft", "SFT:RL:RL", "random-3a", "rl"])
    assert [t.get_text() for t in points.get_yticklabels()] == [
        "SFT",
        "SFT:RL:RL",
        "3 random layers (a)",
        "RL",
    ]
    arms = answers.plot_arms(evals, models=["base", "sft", "rl"])
    assert len(arms.containers) == 3


def test_a_swap_curve_shows_the_rates_of_the_table(found):
    probe = found.layers("probe")
    ax = plots.plot_swap(probe, model="sft", tasks=["count"])
    rows = probe[
        (probe["model"] == "sft")
        & (probe["method"] == "swap-suffix")
        & (probe["metric"] == "change_rate")
    ]
    expected = rows[rows["task"] == "count"].sort_values("layer")["value"].to_numpy(float) * 100
    assert np.allclose(ax.lines[0].get_ydata(), expected)
    assert list(ax.lines[0].get_xdata()) == list(range(8))


def test_checkpoints_keep_their_colour_in_every_figure(found):
    evals, probe = found.layers("eval"), found.layers("probe")
    for ax in (
        answers.plot_acc_at_k(evals, models=["rl", "base"]),
        plots.plot_zero(probe, models=["rl", "base"]),
    ):
        colours = {line.get_label(): line.get_color() for line in ax.lines}
        assert colours["RL"] == look.CHECKPOINTS["rl"]
        assert colours["Base"] == look.CHECKPOINTS["base"]


def test_pooling_over_tasks_is_their_mean_with_an_independent_interval():
    rows = pd.DataFrame(
        {
            "task": ["a", "b", "all"],
            "layer": [0, 0, 0],
            "value": [0.2, 0.6, 9.0],
            "ci_low": [0.1, 0.5, 9.0],
            "ci_high": [0.3, 0.7, 9.0],
            "n": [10, 10, 20],
        }
    )
    pooled = plots.pool_tasks(rows)
    assert pooled["value"].tolist() == pytest.approx([0.4])
    assert pooled["ci_high"].iloc[0] - 0.4 == pytest.approx(0.1 / np.sqrt(2))
    assert pooled["n"].tolist() == [20]


def test_vision_projector_and_text_stand_side_by_side(found):
    places = updates.diff_places(updates.number_projector(found.layers("diff")))
    order = sorted(places, key=lambda key: places[key])
    assert order == [
        ("vision", 0),
        ("vision", 1),
        ("projector", 0),
        *[("text", i) for i in range(8)],
    ]


def test_an_empty_table_gives_an_empty_figure_not_an_error(found):
    none = found.layers("probe").iloc[:0]
    assert isinstance(plots.plot_swap(none, model="rl"), Axes)
    assert isinstance(plots.plot_zero(none), Axes)


def test_drawing_leaves_matplotlib_as_it_was_and_is_the_same_twice(found):
    before = dict(matplotlib.rcParams)

    def draw(mode):
        return plots.plot_zero(found.layers("probe"), mode=mode).figure

    first = png(draw, look.DARK)
    assert dict(matplotlib.rcParams) == before
    assert png(draw, look.DARK) == first
    assert png(draw, look.LIGHT) != first


def test_the_figure_of_a_freeze_study_names_layers_with_the_last_included():
    from franken.report.figures.freezing import name_stored

    assert name_stored("text:0-1,text:6-8") == "0, 6..7"
    assert name_stored("text:3-6") == "3..5"
    assert name_stored("vision:0-2,text:3-4") == "vision:0-2,text:3-4"


def test_a_range_of_layers_is_one_linked_number():
    from franken.report.sources import Number, numbers_of

    pieces = numbers_of("most in layers 0..2, 5, 42 % over tasks", ("r",)).pieces
    assert [p.text for p in pieces if isinstance(p, Number)] == ["0..2", "5", "42 %"]
