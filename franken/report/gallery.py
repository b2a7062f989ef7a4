"""What a reader looks at before any curve: image pairs with the answers under each swap, and
replies with reasoning.

Items are made again from the study's tasks and seed, so run folders hold no images. Which ones are
shown is fixed by a rule, the first of each task, never by how they look. Everything here is plain
text: the template escapes it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from franken import tasks as puzzles
from franken.layers import thirds
from franken.probe.findings import of_decoder
from franken.report.sources import Runs, runs_of
from franken.report.theme import name
from franken.runs import RunSet
from franken.runs.manifest import Config
from franken.tasks.grading import extract
from franken.tasks.sources import is_pairs

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

LARGEST = 320  # pixels; larger images are scaled down for the page
SMALL = 128  # pixels; smaller images stay PNG and are shown without smoothing
LONGEST_REPLY = 1200  # characters
LONGEST_CELL = 160  # characters of a reply behind a cell
MOST_PAIRS = 30  # on the page, however many were probed
MOST_REPLIES = 2  # prompts a task
SHOWN_SWAP = "swap-suffix"
DID = {"source": "becomes the source's", "changed": "only changes", "same": "stays"}
UNTIL = {
    "never": "to none",
    "early": "to an early layer",
    "middle": "to a middle layer",
    "late": "to a late layer",
}


class Picture(TypedDict):
    """A data URI, and whether its pixels are to be shown without smoothing."""

    uri: str
    pixelated: bool


class Cell(NamedTuple):
    """The answer after a swap at a layer, and what became of it: `source`, `changed` or `same`;
    `whole` is the reply where it says more.
    """

    layer: int
    state: str
    answer: str
    whole: str


class Strip(NamedTuple):
    """A checkpoint's answers to a pair: `before` any swap, to the source image, layer by layer."""

    model: str
    name: str
    cells: list[Cell]
    before: str
    right: bool
    source: str


@dataclass(frozen=True)
class PairCard:
    """An image pair with every checkpoint's strip. `did` and `until` say what happened to the last
    checkpoint's answer, and up to which third it follows the image; `places` are those of the
    filters' choices.
    """

    id: str
    task: str
    question: str
    target: Picture | None
    source: Picture | None
    target_answer: str
    source_answer: str
    strips: list[Strip]
    layers: list[int]
    did: str
    until: str
    places: tuple[int, ...] = ()
    classes: str = ""


class Filter(NamedTuple):
    """Radio buttons of which the first choice shows every card."""

    key: str
    title: str
    choices: list[str]


@dataclass(frozen=True)
class PairGallery:
    """The cards; `cap`, a sentence that says how many of how many are shown; the run folders that
    hold all of them; and filters by task, by what happened, and by third.
    """

    cards: Sequence[PairCard] = ()
    cap: str = ""
    runs: Runs = ()
    filters: Sequence[Filter] = ()


class Reply(NamedTuple):
    """A checkpoint's reply; `how` it was decoded: greedy or sampled."""

    model: str
    name: str
    how: str
    right: bool
    strategy: str | None
    text: str


class ReplyCard(NamedTuple):
    """A question with the replies of all checkpoints."""

    id: str
    task: str
    question: str
    gold: str
    image: Picture | None
    replies: list[Reply]


def image_uri(image: Image | None) -> Picture | None:
    """An image as the page embeds it; None for a missing one. Large images become JPEG of at most
    LARGEST pixels.
    """
    if image is None:
        return None
    small = max(image.size) <= SMALL
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        shrunk = image.convert("RGB")
        shrunk.thumbnail((LARGEST, LARGEST))
        shrunk.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"uri": f"data:image/{'png' if small else 'jpeg'};base64,{data}", "pixelated": small}


def pair_gallery(runs: RunSet) -> PairGallery:
    """The first eligible pairs of each task: both images, the question, and each checkpoint's
    answer by swap layer.
    """
    rows = of_decoder(runs.samples("probe"))
    rows = rows[rows["method"] == SHOWN_SWAP] if len(rows) else rows
    if len(rows) == 0:
        return PairGallery()
    usable = rows[rows["error"].isna() & rows["ineligible"].isna()]
    models = usable.groupby(["task", "sample"])["model"].transform("nunique")
    usable = usable[models == rows["model"].nunique()]  # so that a card compares all checkpoints
    tasks = list(dict.fromkeys(str(task) for task in usable["task"]))
    per_task = max(1, MOST_PAIRS // max(1, len(tasks)))
    cards = [
        card
        for task in tasks[:MOST_PAIRS]
        for card in _cards_of(runs, task, usable[usable["task"] == task], per_task)
    ]
    if not cards:
        return PairGallery()
    shown_tasks = list(dict.fromkeys(card.task for card in cards))
    filters = [
        Filter("task", "Task", ["all tasks", *shown_tasks]),
        Filter("did", f"{cards[0].strips[-1].name}'s answer", ["anything", *DID.values()]),
        Filter("until", "Follows the image", ["to any layer", *UNTIL.values()]),
    ]
    total, probed = (len(r.drop_duplicates(["task", "sample"])) for r in (usable, rows))
    cap = (
        f"Shown: {len(cards)} of {total} eligible pairs, the first of each task "
        f"(at most {per_task}); {probed} were asked."
    )
    placed = [_placed(card, shown_tasks, filters) for card in cards]
    return PairGallery(placed, cap, runs_of(runs, "probe", None, SHOWN_SWAP), filters)


def filter_rules(gallery: PairGallery) -> str:
    """CSS that hides the cards which the checked radio buttons exclude, and says so where none is
    left. No text of others.
    """
    filters, places = gallery.filters, {card.places for card in gallery.cards}
    rules = [
        f"body:has(#{f.key}-{i}:checked) .of-pairs:not(.{f.key}-is-{i}) {{ display: none; }}"
        for f in filters
        for i in range(1, len(f.choices))
    ]
    blank = [
        "body"
        + "".join(f":has(#{f.key}-{i}:checked)" for f, i in zip(filters, chosen, strict=True))
        + " .none-fits"
        for chosen in product(*(range(len(f.choices)) for f in filters))
        if not any(all(c in (0, p) for c, p in zip(chosen, place, strict=True)) for place in places)
    ]
    return "\n".join([*rules, *([",\n".join(blank) + " { display: block; }"] if blank else [])])


def reasoning_gallery(runs: RunSet) -> list[ReplyCard]:
    """The first prompts of each task with each checkpoint's greedy reply and first draw, in the
    image arm.
    """
    rows = runs.samples("eval")
    if len(rows) == 0:
        return []
    models = [m for m in (*runs.study.stages, "control") if m in set(rows["model"])]
    rows = rows[(rows["method"] == "image") & rows["model"].isin(models) & (rows["draw"] < 1)]
    rows = rows[rows["error"].isna() & rows["ineligible"].isna()]
    cards: list[ReplyCard] = []
    for task in dict.fromkeys(str(task) for task in rows["task"]):
        of_task = rows[rows["task"] == task]
        items = {item.id: item for item in _items(runs, task)}
        for sample in list(dict.fromkeys(of_task["sample"]))[:MOST_REPLIES]:
            item, own = items.get(str(sample)), of_task[of_task["sample"] == sample]
            replies = [reply for m in models for reply in _replies(own[own["model"] == m])]
            asked = str(own.iloc[0].get("question") or "")
            question, image = (item.question, item.image) if item else (asked, None)
            gold = str(own.iloc[0]["gold"])
            cards.append(ReplyCard(str(sample), task, question, gold, image_uri(image), replies))
    return cards


def _cards_of(runs: RunSet, task: str, rows: pd.DataFrame, most: int) -> list[PairCard]:
    """The cards of a task's first pairs, as far as these can be made again."""
    samples = list(dict.fromkeys(rows["sample"]))[:most]
    pairs = {pair.id: pair for pair in _pairs(runs, task)}
    stages = runs.study.stages
    return [
        _pair_card(pairs[sample], rows[rows["sample"] == sample], stages)
        for sample in samples
        if sample in pairs
    ]


def _pair_card(pair: puzzles.Pair, rows: pd.DataFrame, stages: Sequence[str]) -> PairCard:
    own = (rows[rows["model"] == model].sort_values("layer") for model in stages)
    strips = [_strip(of_model) for of_model in own if len(of_model)]
    states = [cell.state for cell in strips[-1].cells] if strips else []
    return PairCard(
        id=pair.id,
        task=pair.task,
        question=pair.target.question,
        target=image_uri(pair.target.image),
        source=image_uri(pair.source.image),
        target_answer=pair.target.answer,
        source_answer=pair.source.answer,
        strips=strips,
        layers=[cell.layer for cell in strips[0].cells] if strips else [],
        did=next((state for state in DID if state in states), "same"),
        until=_until(states),
    )


def _strip(rows: pd.DataFrame) -> Strip:
    """Rows of one pair and one model, by layer."""
    cells = []
    for row in rows.to_dict("records"):
        state = "source" if row["to_source"] else "changed" if row["changed"] else "same"
        answer, reply = _short(row["output"]), str(row["output"] or "")[:LONGEST_CELL]
        cells.append(Cell(int(row["layer"]), state, answer, "" if reply == answer else reply))
    first = rows.iloc[0]
    return Strip(
        model=first["model"],
        name=name(first["model"]),
        cells=cells,
        before=_short(first["baseline"]),
        right=bool(first["baseline_score"] and first["baseline_score"] > 0.5),
        source=_short(first["source_output"]),
    )


def _placed(card: PairCard, tasks: Sequence[str], filters: Sequence[Filter]) -> PairCard:
    """The card with its places among the filters' choices, and the classes that the rules name."""
    places = (
        1 + tasks.index(card.task),
        1 + list(DID).index(card.did),
        1 + list(UNTIL).index(card.until),
    )
    classes = " ".join(f"{f.key}-is-{place}" for f, place in zip(filters, places, strict=True))
    return replace(card, places=places, classes=classes)


def _until(states: Sequence[str]) -> str:
    """The third of the decoder of the last layer from which a swap still changes the answer;
    `never` where none does.
    """
    moved = [i for i, state in enumerate(states) if state != "same"]
    if not moved:
        return "never"
    return next(
        third for third, (start, stop) in thirds(len(states)).items() if start <= moved[-1] < stop
    )


def _replies(rows: pd.DataFrame) -> list[Reply]:
    """A model's replies to one prompt, the greedy one first."""
    return [
        Reply(
            model=row["model"],
            name=name(row["model"]),
            how="greedy" if row["draw"] < 0 else "sampled",
            right=bool(row["score"] and row["score"] > 0.5),
            strategy=row["strategy"],
            text=str(row["output"])[:LONGEST_REPLY].strip(),
        )
        for row in rows.sort_values("draw").to_dict("records")
    ]


def _short(reply: str | None, limit: int = 24) -> str:
    text = (extract(str(reply)) or "") if reply is not None else ""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _pairs(runs: RunSet, task: str) -> list[puzzles.Pair]:
    config = next((run.manifest.config for run in runs.of("probe")), Config())
    if config.data:
        return [pair for pair in _of_folder(config.data) if pair.task == task]
    if not puzzles.is_puzzle(task):
        return []
    return puzzles.get(task).pairs(config.samples or 0, config.seed)


def _items(runs: RunSet, task: str) -> list[puzzles.Item]:
    study = runs.study
    if study.data:
        return [pair.target for pair in _of_folder(study.data) if pair.task == task]
    return puzzles.get(task).items(8, study.seed, split="test") if puzzles.is_puzzle(task) else []


def _of_folder(data: str) -> list[puzzles.Pair]:
    """The pairs of a folder of pairs; none of a table, whose rows are not read again here."""
    return puzzles.load_folder(Path(data)) if is_pairs(Path(data)) else []
