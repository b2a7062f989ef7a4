"""A look at a data set as one HTML file: pictures in their places, nothing fetched, everything that
comes from the data escaped.
"""

import base64
import io

from jinja2 import Environment
from PIL.Image import Image

from franken.tasks.look import Look, pictures_of
from franken.tasks.marks import pieces
from franken.tasks.puzzle import Item

LONGEST_SIDE = 480

PAGE = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ look.data }}</title>
<meta name="viewport" content="width=device-width">
<style>
:root { color-scheme: light dark; --line: #8885; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; } th { text-align: left; font-weight: 600; }
td, th { padding: .15rem 1rem .15rem 0; vertical-align: top; border-bottom: 1px solid var(--line); }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
article { border: 1px solid var(--line); border-radius: .4rem; padding: .8rem 1rem;
  margin: 1rem 0; }
article header { font-size: .85rem; opacity: .75; overflow-wrap: anywhere; }
.asked { white-space: pre-wrap; overflow-wrap: anywhere; }
.asked img { max-height: 15rem; max-width: 100%; vertical-align: middle; margin: .2rem;
  border: 1px solid var(--line); }
.gold { margin-top: .6rem; } .error { color: #b00020; font-weight: 600; }
@media (prefers-color-scheme: dark) { .error { color: #ff8a80; } }
</style>
<h1>{{ look.data }}</h1>
<p>{{ look.size }} rows, taken for {{ look.layout }};
{{ failed }} of the first {{ look.checked }} fail.</p>
{% macro pairs(title, head, rows, numbers=true) %}{% if rows %}<h2>{{ title }}</h2><table>
<tr>{% for name in head %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td
{%- if numbers and not loop.first %} class="n"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}{% endmacro %}
{{ pairs("What is in which column", ["what", "column"], held, false) }}
{{ pairs("Rows that fail", ["why", "rows", "first row"], errors) }}
{{ pairs("Types of answers", ["type", "rows"], look.types.items()) }}
{{ pairs("Images a row", ["images", "rows"], look.images.items()) }}
{{ pairs("Notes", ["note", "images"], look.notes.items()) }}
{{ pairs("Lengths", ["of", "least", "median", "most"], lengths) }}
<h2>The first {{ shown|length }} rows as they are asked</h2>
{% for item, parts in shown %}<article><header>{{ item.id }} · {{ item.task }}</header>
{% if item.error %}<p class="error">{{ item.error }}</p>{% endif %}
<div class="asked">{% for text, picture in parts %}
{%- if picture %}<img src="{{ picture }}" alt="image {{ loop.index }}">
{%- else %}{{ text }}{% endif %}{%- endfor %}</div>
<div class="gold"><strong>{{ item.answer }}</strong>{% for other in item.accepted %} or
<strong>{{ other }}</strong>{% endfor %}{% if item.answer_type %} · graded as
{{ item.answer_type }}{% endif %}</div></article>
{% endfor %}</html>
""")


def page(look: Look) -> str:
    """The page of a look."""
    return PAGE.render(
        look=look,
        held=[*look.columns.items(), *look.settings.items()],
        failed=sum(look.errors.values()),
        errors=[(why, count, look.example[why]) for why, count in look.errors.items()],
        lengths=[
            (what, f"{s.least:.10g}", f"{s.median:.10g}", f"{s.most:.10g}")
            for what, s in look.lengths.items()
        ],
        shown=[(item, _parts(item)) for item in look.items],
    )


def _parts(item: Item) -> list[tuple[str, str]]:
    """The question as texts and pictures, in their order."""
    pictures = pictures_of(item)
    uris = iter([_uri(picture) for picture in pictures])
    if item.error or not item.question:
        return [("", uri) for uri in uris] + [(item.question, "")]
    return [
        ("", next(uris)) if p is None else (p, "") for p in pieces(item.question, len(pictures))
    ]


def _uri(picture: Image) -> str:
    small = picture.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    small.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
