"""One pair of images and what a swap of their visual tokens does to the answer, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from franken.report import theme as look
from franken.report.figures.sheet import save
from franken.tasks.grading import extract
from franken.tasks.images import read_image

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PLAIN, SOURCE, OTHER = look.CHECKPOINTS["base"], look.CHECKPOINTS["rl"], look.CHECKPOINTS["sft"]
MEANINGS = {PLAIN: "as without", OTHER: "another answer", SOURCE: "the source's answer"}
LONGEST, SHORT, LONGEST_QUESTION = 26, 9, 80  # characters
FEW = 12  # layers whose answers are written into the cells


def draw_pair(rows: pd.DataFrame, images: Sequence[Path], question: str, file: Path) -> Path:
    """Write a PNG: both images on the left; a strip for every method on the right, a cell a layer,
    coloured by the answer.

    `rows`: the samples of a run on one pair, with the columns method, layer, output, baseline,
    source_output, changed and to_source.
    """
    known = rows.loc[rows["output"].notna()]
    answers = [
        next((str(a) for a in known[column].dropna() if a), None)
        for column in ("baseline", "source_output")
    ]
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[1, 3.2])
    for place, (name, path) in enumerate(zip(("target", "source"), images, strict=True)):
        answer = answers[place]
        ax = figure.add_subplot(grid[place, 0])
        ax.imshow(read_image(Path(path), str(path)))
        ax.set_axis_off()
        ax.set_title(f"{name}: {_short(answer) if answer else 'not run'}", fontsize=9)
    ax = figure.add_subplot(grid[:, 1])
    plot_strips(known, ax=ax)
    if len(question) >= LONGEST_QUESTION:
        question = question[: LONGEST_QUESTION - 1] + "…"
    ax.set_title(look.literal(question), fontsize=10)
    handles = [Patch(color=colour, label=label) for colour, label in MEANINGS.items()]
    figure.legend(handles=handles, loc="outside lower right", ncols=3, frameon=False, fontsize=9)
    return save(figure, file)


def plot_strips(rows: pd.DataFrame, *, ax: Axes) -> Axes:
    """A strip a method, a cell a layer, coloured by what became of the answer."""
    methods = list(dict.fromkeys(rows["method"]))
    layers = sorted({int(layer) for layer in rows["layer"]})
    known = {name: rows[name].eq(True) for name in ("to_source", "changed")}
    for row in rows.assign(**known).to_dict("records"):
        x, y = layers.index(int(row["layer"])), methods.index(row["method"])
        colour = SOURCE if row["to_source"] else OTHER if row["changed"] else PLAIN
        ax.bar(x, 0.8, width=0.92, bottom=y - 0.4, color=colour, alpha=0.9)
        if len(layers) <= FEW:
            answer = _short(row["output"], SHORT)
            turn = 90 if len(answer) > 4 else 0
            text = ax.text(x, y, answer, rotation=turn, fontsize=8, color="white")
            text.set(horizontalalignment="center", verticalalignment="center")
    ax.set_yticks(range(len(methods)), methods)
    ax.set_ylim(len(methods) - 0.5, -0.5)
    step = max(1, len(layers) // 14)
    ax.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    ax.set_xlabel("layer")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(left=False)
    return ax


def _short(text: str, longest: int = LONGEST) -> str:
    answer = " ".join((extract(text) or text or "no answer").split())
    return look.literal(answer if len(answer) <= longest else answer[: longest - 1] + "…")
