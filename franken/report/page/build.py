"""The page: a study's folder in, one self-contained HTML file out, and its figures beside it.

Nothing is fetched: figures are PNGs inside the file (one for a light and one for a dark screen),
the style is inline, there is no script. Whatever a model wrote passes through jinja2's
autoescaping. Numbers come from the run folders that
`study.json` names, and each number links to the run's files and command; failed and ineligible
samples are counted,
never dropped. The same figures, one a group, go to `figures/` as PNG and PDF.
"""

from __future__ import annotations

import base64
import io
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from franken.report import theme as look
from franken.report.evidence import Evidence
from franken.report.gallery import filter_rules, pair_gallery, reasoning_gallery
from franken.report.headlines import all_headlines
from franken.report.page import spine as figures
from franken.report.page.panels import Group, Panel, Section, save_figures
from franken.report.page.tables import (
    accounting,
    comparison_table,
    gallery_counts,
    model_table,
    same_layers_table,
)
from franken.report.sources import Number, Runs, Sentence, anchor, numbers_of
from franken.runs import atomic_write_text, open_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
TINTS = 192  # colours of a stored figure; more cannot be seen in lines on a plain ground
Draw = Callable[[look.Mode], "Figure"]


def build_page(folder: Path, *, files: bool = True) -> Path:
    """Write `folder/index.html` from the study in `folder` and return its path; with `files`, also
    `folder/figures/`.

    Sections without runs are left out with a line that says so. Raises FrankenError when there is
    no study.
    """
    import matplotlib

    matplotlib.use("Agg")
    found = open_study(folder)
    sections = figures.sections(found)
    saved = save_figures(sections, folder / "figures") if files else {}
    atomic_write_text(folder / "index.html", render(found, sections, saved))
    return folder / "index.html"


def render(found: Evidence, sections: Sequence[Section], saved: dict[str, list[str]]) -> str:
    """The whole page as HTML. `saved`: the files in figures/ by the group's key."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

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

    summary, *questions = all_headlines(found)
    study, pairs = found.study, pair_gallery(found)
    environment.globals |= {
        "anchor": link,
        "combined": lambda: list(linked),
        "pieces": pieces,
        "colour": look.colour,
        "name": look.name,
    }
    return environment.get_template("page.html").render(
        study=study,
        summary=summary,
        questions=questions,
        models=model_table(found),
        spine=_spine(found),
        sections=[_section(s, saved) for s in sections],
        comparisons=comparison_table(found),
        same_layers=same_layers_table(found),
        pairs=pairs,
        gallery_rules=Markup(filter_rules(pairs)),
        replies=reasoning_gallery(found),
        runs=accounting(found),
        counts=gallery_counts(found),
        missing=found.missing,
        failures=[step for step in study.steps if step.error],
        notes=study.notes,
        left_out=study.left_out,
        where=shlex.quote(str(found.folder)),
        made=time.strftime("%-d %B %Y"),
    )


def pieces(text: str) -> tuple[str | Number, ...]:
    """A sentence as text and linked numbers; any other text as it is."""
    return text.pieces if isinstance(text, Sentence) else (text,)


def _section(section: Section, saved: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "key": section.key,
        "title": section.title,
        "lead": section.lead,
        "notes": section.notes,
        "groups": [_group(group, saved.get(group.key, [])) for group in section.groups],
    }


def _group(group: Group, files: Sequence[str]) -> dict[str, Any]:
    finding = numbers_of(group.finding, tuple(group.runs))
    return {
        "key": group.key,
        "title": group.title,
        "reading": group.reading,
        "finding": finding,
        "basis": group.basis,
        "runs": group.runs,
        "panels": [_finish(p) for p in group.panels],
        "files": [
            {"href": f"figures/{name}", "kind": name.rpartition(".")[2].upper()} for name in files
        ],
    }


def _spine(found: Evidence) -> dict[str, Any] | None:
    made = figures.spine(found)
    return None if made is None else _finish(made) | {"rows": made.rows}


def _finish(panel: Panel | figures.Spine) -> dict[str, Any]:
    """Draw a panel for both modes and wrap it for the template."""
    light, dark = (png(panel.draw, mode) for mode in look.MODES)
    width, height = (round(DPI * inches) for inches in panel.size)
    return {
        "title": panel.title,
        "alt": panel.alt,
        "light": light,
        "dark": dark,
        "layered": panel.layered,
        "width": width,
        "height": height,
    }


def png(draw: Draw, mode: look.Mode) -> str:
    """A figure as a PNG data URI, drawn in the theme of `mode`, with at most TINTS colours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

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


def figure_keys(sections: Sequence[Section]) -> list[str]:
    """The keys of all figures of a page, for tests."""
    return [p.key for s in sections for g in s.groups for p in g.panels]
