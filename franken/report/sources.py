"""Where a number comes from: sentences that know their numbers' runs, and the anchors that the page
links them to.

A number links to an anchor in the page's Runs section, and there stand the run folder's files and
the command that makes them. So every number leads to its file without a script, and the links of a
page that was moved still work inside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from string import Formatter
from typing import NamedTuple

from franken.runs import LoadedRun, RunSet

NUMBERS = re.compile(
    r"(?<![\w@^.:/-])(?!95\s%)[+\N{MINUS SIGN}]?\d+(?:\.\d+)?(?:(?:-|\.\.)\d+)?"
    r"(?:[\s\N{NO-BREAK SPACE}](?:%|points))?(?![\w:])"
)
Runs = tuple[str, ...]  # run folders, relative to the study's folder


class Number(NamedTuple):
    """A number as text, and the runs it was computed from."""

    text: str
    runs: Runs


class Sentence(str):
    """Plain text that remembers its `pieces`: strings, and Numbers that the page links."""

    pieces: tuple[str | Number, ...]

    def __new__(cls, pieces: Iterable[str | Number]) -> Sentence:
        pieces = tuple(pieces)
        text = "".join(p.text if isinstance(p, Number) else p for p in pieces)
        sentence = super().__new__(cls, text)
        sentence.pieces = pieces
        return sentence


def say(
    template: str, runs: Runs = (), at: Mapping[str, Runs] | None = None, **fields: object
) -> Sentence:
    """Fill a template. `{gain:n}` is a number from `runs`, or from `at["gain"]`; `{who}` is plain
    text.
    """
    pieces: list[str | Number] = []
    for text, field, spec, _ in Formatter().parse(template):
        pieces.append(text)
        if field is not None:
            value = str(fields[field])
            pieces.append(Number(value, (at or {}).get(field, runs)) if spec == "n" else value)
    return Sentence(pieces)


def join(*sentences: str) -> Sentence:
    """Sentences one after the other, their pieces kept."""
    pieces: list[str | Number] = []
    for sentence in sentences:
        pieces += [" "] if pieces else []
        pieces += sentence.pieces if isinstance(sentence, Sentence) else (sentence,)
    return Sentence(pieces)


def numbers_of(text: str, runs: Runs) -> Sentence:
    """Plain text with each number in it, its unit included, taken as one from `runs`; not those
    inside names like acc@4.
    """
    pieces: list[str | Number] = []
    end = 0
    for number in NUMBERS.finditer(text):
        pieces += [text[end : number.start()], Number(number.group(), runs)]
        end = number.end()
    return Sentence([*pieces, text[end:]])


def runs_of(
    runs: RunSet, verb: str, models: Iterable[str] | None = None, method: str | None = None
) -> Runs:
    """The run folders of a verb that hold rows of these models (of one method or arm), relative to
    the study's folder, in the order of the models.
    """
    wanted = None if models is None else list(models)
    ranked: list[tuple[int, str]] = []
    for run in runs.of(verb):
        rows = run.samples
        if method is not None and "method" in rows:
            rows = rows[rows["method"] == method]
        held = set(rows["model"]) if "model" in rows else set()
        if wanted is None or held & set(wanted):
            rank = next((i for i, model in enumerate(wanted or ()) if model in held), 0)
            ranked.append((rank, folder_of(runs, run)))
    return tuple(folder for _, folder in sorted(ranked, key=lambda pair: pair[0]))


def folder_of(runs: RunSet, run: LoadedRun) -> str:
    """A run's folder relative to the study's."""
    return run.folder.relative_to(runs.folder).as_posix()


def anchor(runs: Runs) -> str:
    """The id on the page of one run, or of several together; empty without runs."""
    names = [re.sub(r"[^A-Za-z0-9]+", "-", "/".join(run.split("/")[-2:])) for run in runs]
    return ("run-" if len(names) == 1 else "from-") + "--".join(names) if names else ""


def evals(runset: RunSet, *models: str) -> tuple[str, ...]:
    """The runs that evaluated these models with the image."""
    return runs_of(runset, "eval", models, "image")
