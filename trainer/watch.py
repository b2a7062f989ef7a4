"""Seeing what the model says while it trains: five replies with their images at every evaluation,
as one page.

    out/gallery/update-<n>.json   the replies at one evaluation
    out/gallery.html              all of them, self-contained

The questions are the same at every look: the first held-out puzzles of each task in turn, or rows
of public data, held out where the stage holds some out. Replies are text and stay text: the page
escapes them, and forbids scripts and anything from elsewhere.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice, zip_longest
from pathlib import Path

from jinja2 import Environment

from franken import tasks
from franken.generate.native import Sampling, generate
from franken.models.loading import Loaded
from franken.report.gallery import Picture, image_uri
from franken.runs import atomic_write_text
from franken.tasks import Item
from trainer.checkpoint_files import Position
from trainer.creature.align import AlignStage
from trainer.evaluate import held_out_rows, longest_answer, prompts_of, puzzles_of
from trainer.public import public_items
from trainer.recipe import Recipe
from trainer.row_rules import RowRules
from trainer.stages import AskingStage, GrpoStage

SHOWN = 5
SEED = 77
PAGE = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ name }}: replies</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto;
       padding: 0 1rem; color: #22272e }
.look { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem }
.card { border: 1px solid #e6e4df; border-left: 4px solid #b42318; border-radius: 6px;
        padding: .7rem }
.card.right { border-left-color: #1fa37a }
img { max-width: 100%; min-width: 7rem } img.pixels { image-rendering: pixelated }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f1efea; padding: .5rem;
      font-size: 13px }
small { color: #6b7280 }
</style></head><body><h1>{{ name }}</h1>
{% for look in looks %}<h2>stage {{ look.stage }}, step {{ look.step }}</h2><div class="look">
{% for card in look.cards %}<div class="card{{ ' right' if card.right }}">
{% if card.image %}<img src="{{ card.image.uri }}" alt="the picture of {{ card.id }}"
 {%- if card.image.pixelated %} class="pixels"{% endif %}>{% endif %}
<p>{{ card.question }}</p><pre>{{ card.reply }}</pre>
<small>{{ card.verdict }}; the answer is {{ card.answer }}</small></div>{% endfor %}
</div>{% endfor %}</body></html>
""")


@dataclass(frozen=True)
class Card:
    """A question, its answer, and a greedy reply with the verdict on it."""

    id: str
    question: str
    answer: str
    reply: str
    verdict: str
    right: bool
    image: Picture | None


@dataclass(frozen=True)
class Look:
    """The replies at one evaluation: after `step` updates of a stage, `update` of the run."""

    stage: int
    step: int
    update: int
    cards: list[Card]


def watcher(recipe: Recipe, out: Path) -> Callable[[Position, Loaded], None]:
    """An observer for `run_train` that writes the gallery wherever a stage is evaluated
    (`eval_every`, and its last step).
    """

    def observe(position: Position, loaded: Loaded) -> None:
        stage = recipe.stages[position.stage]
        last = position.step == stage.steps
        due = stage.eval_every and (position.step % stage.eval_every == 0 or last)
        if position.step and due and not isinstance(stage, AlignStage):
            cards = completions(loaded, stage)
            look = Look(position.stage, position.step, position.updates, cards)
            write_look(out, recipe.name, look)

    return observe


def completions(loaded: Loaded, stage: AskingStage) -> list[Card]:
    """One greedy reply to each of the stage's first questions, with picture and verdict."""
    items = _questions(stage, SHOWN)
    if not items:
        return []
    greedy = Sampling(1, 0.0, longest_answer(stage), SEED)
    replies = generate(loaded, prompts_of(stage, items), greedy)
    return [_card(item, reply[0].text) for item, reply in zip(items, replies, strict=True)]


def write_look(out: Path, name: str, look: Look) -> Path:
    """Keep a look and write the page of all looks of the run, in order. Returns the page."""
    (out / "gallery").mkdir(parents=True, exist_ok=True)
    atomic_write_text(out / "gallery" / f"update-{look.update:08d}.json", json.dumps(asdict(look)))
    looks = [
        json.loads(file.read_text()) for file in sorted((out / "gallery").glob("update-*.json"))
    ]
    atomic_write_text(out / "gallery.html", PAGE.render(name=name, looks=looks))
    return out / "gallery.html"


def _questions(stage: AskingStage, count: int) -> list[Item]:
    if isinstance(stage, GrpoStage) and stage.held_out:
        return held_out_rows(stage)[:count]
    if isinstance(stage, GrpoStage) and stage.data:
        rules = RowRules(None, stage)
        pixels, skipped = stage.max_pixels, rules.skipped
        return public_items(
            stage.data, count, seed=SEED, step=0, max_pixels=pixels, skipped=skipped
        )
    by_task = [tasks.get(name).items(count, SEED, "test") for name in puzzles_of(stage)]
    turns = (item for row in zip_longest(*by_task) for item in row if item is not None)
    return list(islice(turns, count))


def _card(item: Item, reply: str) -> Card:
    grade = tasks.grade(reply, item)
    picture, right = image_uri(item.image), grade.score == 1.0
    return Card(item.id, item.question, item.answer, reply, grade.reason, right, picture)
