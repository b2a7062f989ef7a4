"""One pair of images and what a swap of their visual tokens does to the answer, layer by layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from franken.report import theme as look
from franken.tasks.images import read_image

PLAIN, SOURCE, OTHER = look.CHECKPOINTS["base"], look.CHECKPOINTS["rl"], look.CHECKPOINTS["sft"]
LONGEST = 26


def draw_pair(
    rows: Sequence[dict[str, Any]], images: Sequence[Path], question: str, file: Path
) -> Path:
    """Write a PNG: both images on the left; a strip for every method on the right, a cell a layer,
    coloured by the answer.

    `rows`: the samples of a run on one pair, with the columns method, layer, output, baseline,
    source_output, changed and to_source.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    known = [r for r in rows if r["output"] is not None]
    methods = list(dict.fromkeys(r["method"] for r in known))
    layers = sorted({int(r["layer"]) for r in known})
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[1, 3.2])
    source_said = next((r["source_output"] for r in known if r["source_output"]), None)
    answers = [known[0]["baseline"] if known else None, source_said]
    for place, (name, path, said) in enumerate(
        zip(("target", "source"), images, answers, strict=True)
    ):
        axes = figure.add_subplot(grid[place, 0])
        axes.imshow(read_image(Path(path), str(path)))
        axes.set_axis_off()
        axes.set_title(f"{name}: {_short(said) if said else 'not run'}", fontsize=9)
    axes = figure.add_subplot(grid[:, 1])
    for row in known:
        x, y = layers.index(int(row["layer"])), methods.index(row["method"])
        colour = SOURCE if row["to_source"] else OTHER if row["changed"] else PLAIN
        axes.bar(x, 0.8, width=0.92, bottom=y - 0.4, color=colour, alpha=0.9)
        if len(layers) <= 12:
            said = _short(row["output"], 9)
            turn = 90 if len(said) > 4 else 0
            axes.text(
                x, y, said, ha="center", va="center", rotation=turn, fontsize=8, color="white"
            )
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    step = max(1, len(layers) // 14)
    axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axes.set_xlabel("layer")
    axes.set_title(question if len(question) < 80 else question[:79] + "…", fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    kinds = ((PLAIN, "as without"), (OTHER, "another answer"), (SOURCE, "the source's answer"))
    handles = [Patch(color=colour, label=label) for colour, label in kinds]
    figure.legend(handles=handles, loc="outside lower right", ncols=3, frameon=False, fontsize=9)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    return file


def _short(text: str, longest: int = LONGEST) -> str:
    from franken.tasks.grading import extract

    said = " ".join((extract(text) or text or "no answer").split())
    said = said if len(said) <= longest else said[: longest - 1] + "…"
    return said.replace("$", "\\$")
