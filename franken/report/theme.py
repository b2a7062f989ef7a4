"""One look for every figure: colours that mean the same thing everywhere, for a light and a dark
page.

Checkpoints keep one colour through the whole report, tasks another family of colours and their own
marker, so that no figure depends on hue alone. Checkpoint colours are Okabe and Ito's with a darker
blue and purple, task colours Paul Tol's "bright" with darker greens and yellows. A test holds every
two checkpoint colours of one figure at least 11 apart (ΔE 1976) for normal, protanopic,
deuteranopic and tritanopic eyes (simulation of Machado et al. 2009), and all text at a contrast of
at least 4.5 : 1 on its ground.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CHECKPOINTS: dict[str, str] = {
    "base": "#8A8F98",
    "sft": "#0E7FC0",
    "rl": "#D55E00",
    "control": "#E0A100",
    "frozen-early": "#7BC8A4",
    "frozen-middle": "#1FA37A",
    "frozen-late": "#0B7A5C",
    "hybrid": "#A1458A",
    "random": "#A8ADB5",
}
PARTS: dict[str, str] = {"vision": "#AA3377", "projector": "#BBA02B", "text": "#4477AA"}
ARMS: dict[str, str] = {"image": "o", "text": "s", "blind": "X"}
DELTAS: dict[str, str] = {
    "base→sft": CHECKPOINTS["sft"],
    "sft→rl": CHECKPOINTS["rl"],
    "base→rl": "#A1458A",
}
ERRORS: dict[str, str] = {  # the kinds of errors, in the order of tables and figures
    "error: perception": "#AA3377",
    "error: algorithm": "#4477AA",
    "error: self-contradiction": "#C9A227",
    "error: never stops": "#8C6D5A",
    "error: unclear": "#C4C8CE",
}
TASK_COLOURS = (
    "#4477AA",
    "#EE6677",
    "#2F9E44",
    "#C9A227",
    "#AA3377",
    "#4DB6D6",
    "#8C6D5A",
    "#7A86B8",
)
TASK_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
NAMES: dict[str, str] = {
    "base": "Base",
    "sft": "SFT",
    "rl": "RL",
    "control": "SFT, continued",
    "frozen-early": "RL, early frozen",
    "frozen-middle": "RL, middle frozen",
    "frozen-late": "RL, late frozen",
}


@dataclass(frozen=True)
class Mode:
    """The neutral colours of a light or a dark page."""

    name: str
    ink: str
    muted: str
    grid: str
    band: str


LIGHT = Mode("light", "#22272E", "#5F6672", "#E6E4DF", "#F1EFEA")
DARK = Mode("dark", "#E4E6EA", "#9AA3AF", "#343A43", "#252B33")
MODES: tuple[Mode, ...] = (LIGHT, DARK)


def colour(label: str) -> str:
    """The fixed colour of a checkpoint; labels outside the fixed set share the colour of hybrids or
    of controls.
    """
    if label.startswith("random"):
        return CHECKPOINTS["random"]
    return CHECKPOINTS.get(label, CHECKPOINTS["hybrid"])


def name(label: str) -> str:
    """The name a reader sees for a checkpoint's label."""
    if label.startswith("random-"):
        return f"{label[7:-1]} random layers ({label[-1]})"
    return NAMES.get(label, label)


def literal(text: str) -> str:
    """Text for a figure as it is written: a dollar sign would start a formula, and a broken one
    stops the drawing.
    """
    return text.replace("$", r"\$")


def task_style(task: str, tasks: list[str]) -> tuple[str, str]:
    """(colour, marker) of a task, by its place in the list of all tasks of the study."""
    at = tasks.index(task) if task in tasks else len(tasks)
    return TASK_COLOURS[at % len(TASK_COLOURS)], TASK_MARKERS[at % len(TASK_MARKERS)]


@contextmanager
def theme(mode: Mode = LIGHT) -> Iterator[None]:
    """seaborn's whitegrid in the page's own inks, on a transparent ground. Restores matplotlib on
    the way out.
    """
    import matplotlib
    import seaborn as sns

    inks = {
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "text.color": mode.ink,
        "axes.labelcolor": mode.muted,
        "axes.edgecolor": mode.muted,
        "xtick.color": mode.muted,
        "ytick.color": mode.muted,
        "grid.color": mode.grid,
        "axes.grid.axis": "y",
        "axes.spines.left": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "grid.linewidth": 0.7,
        "xtick.bottom": True,
        "xtick.major.size": 3,
        "xtick.major.width": 0.8,
        "ytick.left": False,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "axes.labelsize": 9,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.titleweight": "bold",
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.8,
        "lines.markersize": 4.5,
        "lines.solid_capstyle": "round",
        "figure.constrained_layout.use": True,
    }
    with matplotlib.rc_context():
        sns.set_theme(style="whitegrid", context="notebook", rc=inks)
        yield
