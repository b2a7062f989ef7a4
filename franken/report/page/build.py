"""The page: a study's folder in, one self-contained HTML file out, and its figures beside it.

Nothing is fetched: figures are PNGs inside the file (one for a light and one for a dark screen),
the style is inline, there is no script. Whatever a model wrote passes through jinja2's
autoescaping. Numbers come from the run folders that `study.json` names, and each number links to
the run's files and command; failed and ineligible samples are counted, never dropped. The same
figures, one a group, go to `figures/` as PNG and PDF.
"""

from __future__ import annotations

import base64
import io
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from franken.report import theme as look
from franken.report.gallery import filter_rules, pair_gallery, reasoning_gallery
from franken.report.headlines import all_headlines
from franken.report.page.answers import how_good
from franken.report.page.forks import forks
from franken.report.page.layer_sets import necessary, transfer
from franken.report.page.panels import Panel, Section, save_figures
from franken.report.page.spine import Spine, spine
from franken.report.page.surgery import surgery
from franken.report.page.tables import (
    accounting,
    comparison_tables,
    model_table,
    same_layers_table,
    scores,
    totals,
)
from franken.report.page.what import what
from franken.report.page.where import where
from franken.report.sources import Number, Runs, Sentence, anchor, numbers_of
from franken.report.verdicts import percent
from franken.runs import RunSet, atomic_write_text, open_study

DPI = 150
TINTS = 192  # colours of a stored figure; more cannot be seen in lines on a plain ground
Draw = Callable[[look.Mode], Figure]


def build_page(folder: Path, *, files: bool = True) -> Path:
    """Write `folder/index.html` from the study in `folder` and return its path; with `files`, also
    `folder/figures/`.

    Sections without runs are left out with a line that says so. Raises FrankenError when there is
    no study.
    """
    runset = open_study(folder)
    made = sections(runset)
    saved = save_figures(made, folder / "figures") if files else {}
    atomic_write_text(folder / "index.html", render(runset, made, saved))
    return folder / "index.html"


def sections(runset: RunSet) -> list[Section]:
    """All sections of a page, those without runs with a note instead of figures."""
    asked = (where, forks, what, transfer, surgery, necessary, how_good)
    return [section(runset) for section in asked]


def render(runset: RunSet, sections: Sequence[Section], saved: Mapping[str, Sequence[str]]) -> str:
    """The whole page as HTML. `saved`: the files in figures/ by the group's key."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    linked: dict[Runs, None] = {}

    def link(runs: Sequence[str]) -> str:
        if len(runs) > 1:
            linked[tuple(runs)] = None
        return anchor(tuple(runs))

    environment.globals |= {
        "anchor": link,
        "combined": lambda: list(linked),
        "pieces": pieces,
        "numbers_of": numbers_of,
        "draw": drawn,
        "colour": look.colour,
        "name": look.name,
        "percent": percent,
    }
    summary, *questions = all_headlines(runset)
    study, pairs, accounts = runset.study, pair_gallery(runset), accounting(runset)
    return environment.get_template("page.html").render(
        study=study,
        summary=summary,
        questions=questions,
        scores=scores(runset),
        models=model_table(runset),
        spine=spine(runset),
        sections=sections,
        saved=saved,
        comparisons=comparison_tables(runset),
        same_layers=same_layers_table(runset),
        pairs=pairs,
        gallery_rules=Markup(filter_rules(pairs)),
        replies=reasoning_gallery(runset),
        runs=accounts,
        counts=totals(accounts),
        missing=runset.missing,
        failures=[step for step in study.steps if step.error],
        notes=study.notes,
        left_out=study.left_out,
        where=shlex.quote(str(runset.folder)),
        made=time.strftime("%-d %B %Y"),
    )


def pieces(text: str) -> tuple[str | Number, ...]:
    """A sentence as text and linked numbers; any other text as it is."""
    return text.pieces if isinstance(text, Sentence) else (text,)


class Drawn(NamedTuple):
    """A figure as it stands on the page: data URIs for a light and a dark screen, and pixels."""

    light: str
    dark: str
    width: int
    height: int


def drawn(panel: Panel | Spine) -> Drawn:
    """Draw a panel for both modes."""
    light, dark = (png(panel.draw, mode) for mode in look.MODES)
    width, height = (round(DPI * inches) for inches in panel.size)
    return Drawn(light, dark, width, height)


def png(draw: Draw, mode: look.Mode) -> str:
    """A figure as a PNG data URI, drawn in the theme of `mode`, with at most TINTS colours."""
    with look.theme(mode):
        figure = draw(mode)
        figure.set_dpi(DPI)
        figure.patch.set_alpha(0)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    buffer = io.BytesIO()
    image.quantize(TINTS, Image.Quantize.FASTOCTREE).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
