"""From a row of a table to an item: question as it is put, answer with its type, options, images.

A row that cannot be asked or judged becomes an item with an `error`; none is dropped.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from franken.tasks.graders.compare import compare, infer_type
from franken.tasks.graders.options import LETTERS, right_options
from franken.tasks.graders.reply import extract, last_boxed
from franken.tasks.images import open_image
from franken.tasks.layouts import IN_QUESTION, Layout
from franken.tasks.puzzle import Item
from franken.tasks.tables import Row

PLACE = re.compile(r"<image[ _]?(\d*)>")
LABEL = re.compile(r"(?:^|(?<=[\s,;(]))\(?([A-Z])[:.)]\s*(?=\S)")


def item_of(row: Row, layout: Layout, name: str, number: int, folder: Path | None) -> Item:
    """One row as an item; what is wrong with it is its `error`. `folder` is where the paths of its
    images start.

    A row without a right answer cannot be asked in any arm: its question is empty too.
    """
    ids = [
        str(row[c])
        for part in layout.id.split("+")
        if (c := _column(part, row)) and row[c] not in (None, "")
    ]
    question = question_of(row, layout)
    answer, problem = _read_answer(_value(row, layout.answer), layout.reads)
    options, listed, unread = _read_options(row, layout, question)
    problem = problem or unread
    kind = layout.types.get(str(row.get(layout.type_column)), layout.answer_type)
    if options and kind in ("", "word", "integer", "number", "expression"):
        kind = "option" if not listed or _is_letter(answer, options) else kind
    if kind != "option":
        options = ()
    if problem is None:
        answer, kind, problem = _settle(answer, kind, options)
    images, trouble = _read_images(row, layout, folder)
    prompt = (
        ""
        if problem
        else _prompt(question, () if listed else options, kind, len(images), layout.ask)
    )
    problem = problem or trouble or (None if prompt else "the row has no question")
    task = task_of(row, layout, name)
    return Item(
        id=f"{name}-{'-'.join(ids) or number}",
        task=task,
        question=prompt,
        answer=answer,
        image=images[0] if images else None,
        description=str(_value(row, layout.description) or ""),
        error=problem,
        options=options,
        answer_type=kind,
        tolerance=layout.tolerance,
        more_images=tuple(images[1:]),
    )


def question_of(row: Row, layout: Layout) -> str:
    """What a row asks in its own words, before options and the form of the answer are added."""
    return str(_value(row, layout.question) or "").strip() or layout.empty


def task_of(row: Row, layout: Layout, name: str) -> str:
    """The task of a row. A name that a built-in task has gets `data-` in front, so that no other
    rule judges its answers.
    """
    from franken.tasks import is_puzzle
    from franken.tasks.vision_functionality import is_public

    task = str(_value(row, layout.task) or name) if layout.task else name
    return f"data-{task}" if is_puzzle(task) or is_public(task) else task


def _column(names: str, row: Row) -> str | None:
    return next((n for n in names.split("|") if n and row.get(n) is not None), None)


def _value(row: Row, names: str) -> Any:
    column = _column(names, row)
    return None if column is None else row[column]


def _read_answer(value: object, reads: str) -> tuple[str, str | None]:
    """(answer, what is wrong with it)."""
    if value is None or str(value).strip() == "":
        return "", "the row has no answer"
    if isinstance(value, list):
        value = json.dumps(value)
    text = f"{value:g}" if isinstance(value, float) else str(value).strip()
    if reads == "zero or one":
        known = {"0": "no", "1": "yes"}.get(text)
        return (known, None) if known else (text, f"the answer {text!r} is neither 0 nor 1")
    if reads == "last number mark":
        if "####" not in text:
            return text, "the answer has no ####"
        return text.rpartition("####")[2].strip(), None
    if reads == "boxed":
        boxed = last_boxed(text)
        return (
            (text, "the answer has no closed \\boxed{}")
            if boxed is None and "\\boxed" in text
            else (text if boxed is None else boxed, None)
        )
    if reads == "tagged" and "<answer>" in text:
        return extract(text) or "", None
    return text, None


def _read_options(
    row: Row, layout: Layout, question: str
) -> tuple[tuple[str, ...], bool, str | None]:
    """(texts of the options, whether the question lists them already, what is wrong with them)."""
    if layout.options == IN_QUESTION:
        return options_in(question), True, None
    value = _value(row, layout.options) if layout.options else None
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            return (), False, f"the options {value!r} are no list"
    if isinstance(value, str):
        value = options_in(value)
    if isinstance(value, Mapping):
        value = [value[k] for k in sorted(value) if value[k] is not None]
    if value is None:
        return (), False, None
    return tuple(re.sub(r"^\(?[A-Z]\)?[.:)]\s+", "", str(o)).strip() for o in value), False, None


def options_in(text: str) -> tuple[str, ...]:
    """The options that a text lists as A, B, C, … in order ("A. 3; B. 4", "Choices: A:2 B:3"); none
    when the letters have gaps.
    """
    labels = list(LABEL.finditer(text))
    cuts: list[re.Match[str]] = []
    for start in (i for i, m in enumerate(labels) if m[1] == "A"):
        chain = [labels[start]]
        for match in labels[start + 1 :]:
            if match[1] == LETTERS[len(chain)]:
                chain.append(match)
        cuts = chain if len(chain) >= len(cuts) else cuts
    if len(cuts) < 2:
        return ()
    ends = [*(m.start() for m in cuts[1:]), len(text)]
    return tuple(
        text[m.end() : end].strip().rstrip(",;").strip() for m, end in zip(cuts, ends, strict=True)
    )


def _is_letter(answer: str, options: Sequence[str]) -> bool:
    return (
        bool(re.fullmatch(r"\(?[A-Z]\)?(?:\s*,\s*\(?[A-Z]\)?)*\.?", answer))
        and answer.strip("().")[:1] in LETTERS[: len(options)]
    )


def _settle(answer: str, kind: str, options: tuple[str, ...]) -> tuple[str, str, str | None]:
    """(answer, type, what is wrong): a letter for options, and a type under which the right answer
    is right.
    """
    try:
        if kind == "option":
            return ", ".join(sorted(right_options(answer, options))), kind, None
        answer_type = kind or infer_type(answer)
        if compare(answer, answer, answer_type).score == 1:
            return answer, answer_type, None
    except ValueError as e:
        if kind:
            return answer, kind, str(e)
    return (
        (answer, kind, f"the answer {answer!r} cannot be read as {kind}")
        if kind
        else (answer, "expression", None)
    )


def _read_images(row: Row, layout: Layout, folder: Path | None) -> tuple[list[Image], str | None]:
    images, trouble = [], None
    for names in layout.images.split("+") if layout.images else []:
        value = _value(row, names)
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is None or one == "":
                continue
            image, problem = open_image(one, folder)
            trouble = trouble or problem
            images += [image] if image is not None else []
    return images, trouble


def _prompt(question: str, options: Sequence[str], kind: str, n_images: int, ask: str) -> str:
    """The question as it is put. Marks of the image's place go; with several images they name which
    one is meant.
    """

    def named(match: re.Match[str]) -> str:
        return f"[image {match[1]}]" if n_images > 1 and match[1] else ""

    lines = [PLACE.sub(named, question).strip()]
    if list(options) != list(
        LETTERS[: len(options)]
    ):  # bare letters say nothing that the image does not
        lines += [
            f"({letter}) {PLACE.sub(named, text).strip()}"
            for letter, text in zip(LETTERS, options, strict=False)
        ]
    lines += [ask] if ask else []
    lines += (
        ["Answer with the letter of the right option."] if kind == "option" and lines[0] else []
    )
    return "\n".join(lines).strip()
