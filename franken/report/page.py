"""The page: a study's folder in, one self-contained HTML file out.

Nothing is fetched: figures are PNGs inside the file (one for a light and one for a dark screen), the style is inline,
there is no script. Whatever a model wrote passes through jinja2's autoescaping. Numbers come from the run folders that
`study.json` names, and each section links to them; failed and ineligible samples are counted, never dropped.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from franken.report import figures
from franken.report import theme as look
from franken.report.evidence import Evidence, gather
from franken.report.gallery import pair_gallery, reasoning_gallery
from franken.report.headlines import all_headlines
from franken.report.record import read_study
from franken.report.tables import accounting, comparison_table, gallery_counts, model_table
from franken.runs import atomic_write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
Draw = Callable[[look.Mode], "Figure"]


def build_page(folder: Path) -> Path:
    """Write `folder/index.html` from the study in `folder` and return its path.

    Sections without runs are left out with a line that says so. Raises FrankenError when there is no study.
    """
    import matplotlib

    matplotlib.use("Agg")
    found = gather(folder, read_study(folder))
    html = render(found)
    atomic_write_text(folder / "index.html", html)
    return folder / "index.html"


def render(found: Evidence) -> str:
    """The whole page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    summary, *questions = all_headlines(found)
    return environment.get_template("template.html").render(
        study=found.study, summary=summary, questions=questions, models=model_table(found),
        spine=_finish(figures.spine(found)), sections=[_section(s) for s in figures.sections(found)],
        comparisons=comparison_table(found), pairs=pair_gallery(found), replies=reasoning_gallery(found),
        runs=accounting(found), counts=gallery_counts(found), missing=found.missing,
        failures=[s for s in found.study.steps if s.get("error")], colour=look.colour,
        made=time.strftime("%-d %B %Y"), name=look.name,
    )  # fmt: skip


def _section(section: figures.Section) -> dict[str, Any]:
    return {
        "key": section.key, "title": section.title, "lead": section.lead, "note": section.note,
        "groups": [
            {"title": g.title, "reading": g.reading, "panels": [_finish(p) for p in g.panels], "wide": g.wide}
            for g in section.groups
        ],
    }  # fmt: skip


def _finish(panel: figures.Panel | None) -> dict[str, Any] | None:
    """Draw a panel for both modes and wrap it for the template."""
    if panel is None:
        return None
    light, dark = (png(panel.draw, mode) for mode in look.MODES)
    return {"title": panel.title, "alt": panel.alt, "light": light, "dark": dark}


def png(draw: Draw, mode: look.Mode) -> str:
    """A figure as a PNG data URI, drawn in the theme of `mode`."""
    with look.theme(mode):
        figure = draw(mode)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, transparent=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def figure_keys(sections: Sequence[figures.Section]) -> list[str]:
    """The keys of all figures of a page, for tests."""
    return [p.key for s in sections for g in s.groups for p in g.panels]
