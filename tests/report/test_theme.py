"""One look: colours apart for every eye, text dark enough, and a figure that stays as it is."""

import io
import itertools
import re
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from franken.report import theme as look
from franken.report.figures import plots
from franken.report.page.panels import Panel
from franken.report.ranges import TINTS

matplotlib.use("Agg")
CSS = (Path(look.__file__).parent / "page/templates/page.css").read_text()
REFERENCE = Path(__file__).with_name("reference_zero.png")
# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D65 of linear sRGB."""
    xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ) @ np.clip(rgb, 0, 1)
    t = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(a: str, b: str, deficiency: str) -> float:
    """ΔE (1976) between two colours as seen with a deficiency."""
    seen = [lab(np.array(DEFICIENCIES[deficiency]) @ linear(c)) for c in (a, b)]
    return float(np.linalg.norm(seen[0] - seen[1]))


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio."""
    one, two = sorted(
        (float(np.array([0.2126, 0.7152, 0.0722]) @ linear(c)) for c in (a, b)), reverse=True
    )
    return (one + 0.05) / (two + 0.05)


def variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def test_the_measures_are_right():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert lab(linear("#ff0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.1)
    assert (
        distance("#ff0000", "#00ff00", "deuteranopia") < distance("#ff0000", "#00ff00", "none") / 2
    )


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_that_share_a_figure_are_told_apart_by_every_eye(deficiency):
    """Checkpoints of one figure by colour alone; tasks, of which there are eight, by colour or
    marker.
    """
    together = [
        ["base", "sft", "rl", "control"],
        ["sft", "rl", "hybrid", "random"],
        ["sft", "rl", "control", "frozen-early", "frozen-middle", "frozen-late"],
    ]
    close = [
        (a, b, round(distance(look.CHECKPOINTS[a], look.CHECKPOINTS[b], deficiency)))
        for group in together
        for a, b in itertools.combinations(group, 2)
        if distance(look.CHECKPOINTS[a], look.CHECKPOINTS[b], deficiency) < 11
    ]
    close += [
        (a, b, round(distance(a, b, deficiency)))
        for palette in (look.PARTS, TINTS, look.DELTAS)
        for a, b in itertools.combinations(dict.fromkeys(palette.values()), 2)
        if distance(a, b, deficiency) < 11
    ]
    assert close == []
    assert len(set(look.TASK_MARKERS[: len(look.TASK_COLOURS)])) == len(look.TASK_COLOURS)


def test_text_has_contrast_on_every_ground_of_its_mode():
    light, dark = CSS.split("prefers-color-scheme: dark", 1)
    for colours in (variables(light), {**variables(light), **variables(dark.split("}")[0])}):
        pairs = [
            (ink, ground)
            for ink in ("ink", "soft", "faint", "good", "bad")
            for ground in ("paper", "card")
        ]
        pairs += [
            ("soft", "wash"),
            ("good", "good-wash"),
            ("bad", "bad-wash"),
            ("open", "open-wash"),
            ("soft", "same"),
        ]
        pairs += [
            ("on-source", "source"),
            ("on-changed", "changed"),
            ("faint", "wash"),
            ("ink", "open-wash"),
        ]
        low = {(a, b): round(contrast(colours[a], colours[b]), 2) for a, b in pairs}
        assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
        assert contrast(colours["accent"], colours["paper"]) >= 3  # the focus ring


@pytest.mark.parametrize("mode", look.MODES, ids=lambda mode: mode.name)
def test_figure_text_has_contrast_on_the_page(mode):
    light, dark = CSS.split("prefers-color-scheme: dark", 1)
    paper = variables(light if mode is look.LIGHT else dark)["paper"]
    for ink in (mode.ink, mode.muted):
        for ground in (paper, mode.band):
            assert contrast(ink, ground) >= 4.5, (ink, ground)


def test_lines_have_contrast_on_both_pages():
    light, dark = CSS.split("prefers-color-scheme: dark", 1)
    for paper in (variables(light)["paper"], variables(dark)["paper"]):
        for name in ("base", "sft", "rl", "frozen-middle", "hybrid"):
            assert contrast(look.CHECKPOINTS[name], paper) >= 2.9, name


def test_checkpoints_and_parts_keep_their_colours():
    assert look.CHECKPOINTS["sft"] == look.DELTAS["base→sft"]
    assert look.CHECKPOINTS["rl"] == look.DELTAS["sft→rl"]
    assert (look.colour("random-3a"), look.colour("SFT:RL:RL")) == (
        look.CHECKPOINTS["random"],
        look.CHECKPOINTS["hybrid"],
    )


def drawn() -> np.ndarray:
    """A layered panel of planted numbers as grey values, without any text, shrunk to 84 × 59."""
    layers = np.tile(np.arange(8), 2)
    value = np.concatenate([np.linspace(0.9, 0.1, 8), np.linspace(0.1, 0.5, 8)])
    table = pd.DataFrame(
        {
            "model": ["sft"] * 8 + ["rl"] * 8,
            "method": "zero",
            "metric": "accuracy_drop",
            "task": "all",
            "layer": layers,
            "component": "all",
            "part": "text",
            "value": value,
            "ci_low": value - 0.08,
            "ci_high": value + 0.08,
            "n": 10,
        }
    )

    def plot(ax, mode):
        plots.plot_zero(table, models=["sft", "rl"], depth=8, mode=mode, ax=ax)
        ax.set(xlabel="", ylabel="")
        ax.tick_params(labelbottom=False, labelleft=False)
        for text in ax.texts:
            text.set_visible(False)

    with look.theme():
        buffer = io.BytesIO()
        Panel("x", "x", "x", plot, layered=True, legend=False).draw(look.LIGHT).savefig(
            buffer, dpi=100, facecolor="white"
        )
    return np.asarray(Image.open(buffer).convert("L").resize((84, 59), Image.Resampling.BOX), float)


def test_a_figure_looks_as_it_did():
    """Against a picture in the repository, shrunk so that fonts and anti-aliasing do not count.
    FRANKEN_REFERENCE=1 renews it.
    """
    import os

    now = drawn()
    if os.environ.get("FRANKEN_REFERENCE"):
        Image.fromarray(now.round().astype(np.uint8)).save(REFERENCE, optimize=True)
    then = np.asarray(Image.open(REFERENCE).convert("L"), float)
    assert now.shape == then.shape
    assert float(np.sqrt(((now - then) ** 2).mean())) < 3  # of 255
    moved = np.roll(then, 2, axis=0)
    assert (
        float(np.sqrt(((moved - then) ** 2).mean())) > 6
    )  # a shift by two of the shrunk pixels is seen
