"""The published benchmarks as data: which columns hold question, answer, options and images, and
how answers are written.

A layout is a map from what a question needs to the columns of a table. Those of the published data
sets are here, after their dataset cards and the scripts that read them; any other table gets one
from the user.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from franken.errors import UsageError, check_known
from franken.tasks.answers import INDEX
from franken.tasks.graders.verdict import ANSWER_TYPES
from franken.tasks.images import Bounds


@dataclass(frozen=True)
class Layout:
    """The columns of one table. A name may hold alternatives (`solution|answer`): the first that a
    row has counts.

    A name may be a path into a column (`reward_model.ground_truth`). `images`, `id` and `options`
    may name several columns with `+`. `type_column` holds names that `types`
    translates to answer types; `answer_type` fixes one for all rows. `reads` says how the answer is
    written: `as is`, `text`, `boxed`, `tagged` (or boxed), `last number mark` (#### 72), `zero or
    one`, `index from 0` or `1` of the options, `any of` a list. `options` may hold a list, also as
    text, letters with texts ("A. 3; B. 4"), or `in question` when the question itself lists them.
    `question` may hold a conversation, whose last reply is the answer where no column is.
    `context` stands before the question.

    The bounds are of one row: what is beyond them is its error. `max_image_pixels` is checked
    before a picture is decoded. `files` says that images lie in archives beside the
    hub's table.
    """

    question: str = "question"
    answer: str = "answer"
    id: str = ""
    images: str = ""
    options: str = ""
    task: str = ""
    description: str = ""
    answer_type: str = ""
    type_column: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    reads: str = "as is"
    ask: str = ""  # put behind the question
    empty: str = ""  # the question of a row whose question is part of the image
    hub: str = ""
    config: str = ""
    split: str = ""
    tolerance: float = 0.0
    context: str = ""
    encoding: str = ""
    files: bool = False
    parts_of_one: bool = False  # several marks name the parts of one picture
    max_characters: int = 100_000
    max_images: int = 32
    max_image_pixels: int = Bounds.pixels
    max_aspect: float = Bounds.aspect
    marks: str = (
        ""  # columns, with `+`, that only this data set has; without, it is known by its name alone
    )


IN_QUESTION = "in question"
READS = ("as is", "text", "boxed", "tagged", "last number mark", "zero or one", "any of", *INDEX)
CONVERSATIONS = ("messages", "conversations", "conversation")
GENERIC = Layout(
    question=f"question|problem|prompt|query|{'|'.join(CONVERSATIONS)}",
    answer="answer|gold|solution|label|reward_model.ground_truth|response|",
    id="id|",
    images="image|images|image_path|",
    options="options|choices|A+B+C+D+E+F+G+H|",
    reads="tagged",
)
VISTA_TYPES = {"integer": "integer", "float": "number", "text": "word", "list": "expression"}
IN_IMAGE = "Answer the question that the image shows."

BENCHMARKS: dict[str, Layout] = {
    "mathvista": Layout(
        id="pid",
        images="decoded_image|image",
        options="choices",
        type_column="answer_type",
        types=VISTA_TYPES,
        marks="pid+question_type+answer_type",
        hub="AI4Math/MathVista",
        split="testmini",
    ),
    "mathverse": Layout(
        id="sample_index",
        images="image",
        options=IN_QUESTION,
        type_column="question_type",
        types={"multi-choice": "option", "free-form": ""},
        empty=IN_IMAGE,
        marks="sample_index+problem_version",
        hub="AI4Math/MathVerse",
        config="testmini",
        split="testmini",
    ),
    "mathvision": Layout(
        id="id",
        images="decoded_image|image",
        options="options",
        parts_of_one=True,
        marks="level+subject+image+options",
        hub="MathLLMs/MathVision",
        split="test",
    ),
    "logicvista": Layout(
        id="id|question_id",
        images="image|imagename",
        options=IN_QUESTION,
        answer_type="option",
        marks="reasoning+skill",
        hub="lscpku/LogicVista",
        split="test",
    ),
    "wemath": Layout(
        id="ID+key",
        images="image_path",
        options="option",
        answer_type="option",
        marks="knowledge concept+option+key",
        hub="We-Math/We-Math",
        split="testmini",
    ),
    "geometry3k": Layout(
        question="problem", images="images", hub="hiyouga/geometry3k", split="test"
    ),
    "mmstar": Layout(
        id="index",
        images="image",
        options=IN_QUESTION,
        answer_type="option",
        marks="l2_category+meta_info",
        hub="Lin-Chen/MMStar",
        split="val",
    ),
    "hallusionbench": Layout(
        answer="gt_answer",
        id="category+subcategory+set_id+figure_id+question_id",
        images="image",
        answer_type="yes_no",
        reads="zero or one",
        ask="Answer yes or no.",
        marks="gt_answer+set_id+figure_id",
        hub="lmms-lab/HallusionBench",
        split="image",
    ),
    "mmmu-pro": Layout(
        id="id",
        images="image_1+image_2+image_3+image_4+image_5+image_6+image_7",
        options="options",
        answer_type="option",
        marks="image_1+options+subject",
        hub="MMMU/MMMU_Pro",
        config="standard (10 options)",
        split="test",
    ),
    "mmmu-pro-vision": Layout(
        question="question|",
        id="id",
        images="image",
        options="options",
        answer_type="option",
        empty=IN_IMAGE,
        hub="MMMU/MMMU_Pro",
        config="vision",
        split="test",
    ),
    "mmmu": Layout(
        id="id",
        images="image_1+image_2+image_3+image_4+image_5+image_6+image_7",
        options="options",
        reads="any of",
        marks="image_1+options+question_type",
        hub="MMMU/MMMU",
        split="validation",
    ),
    "mmbench": Layout(
        id="index",
        images="image|",
        options="A+B+C+D",
        context="hint|",
        answer_type="option",
        marks="index+A+B",
        hub="lmms-lab/MMBench_EN",
        split="dev",
    ),
    "ai2d": Layout(
        images="image",
        options="options",
        answer_type="option",
        reads="index from 0",
        hub="lmms-lab/ai2d",
        split="test",
    ),
    "scienceqa": Layout(
        images="image|",
        options="choices",
        context="hint|",
        answer_type="option",
        reads="index from 0",
        marks="choices+hint+lecture",
        hub="derek-thomas/ScienceQA",
        split="test",
    ),
    "chartqa": Layout(
        question="query|question",
        answer="label|answer",
        images="image",
        marks="query+human_or_machine",
        hub="HuggingFaceM4/ChartQA",
        split="test",
    ),
    "math-500": Layout(
        question="problem",
        id="unique_id",
        answer_type="expression",
        marks="unique_id+level",
        hub="HuggingFaceH4/MATH-500",
        split="test",
    ),
    "gsm8k": Layout(
        answer_type="number",
        reads="last number mark",
        hub="openai/gsm8k",
        config="main",
        split="test",
    ),
    "virl39k": Layout(
        id="qid",
        images="image",
        options=IN_QUESTION,
        reads="boxed",
        files=True,
        marks="PassRate_32BTrained+qid",
        hub="TIGER-Lab/ViRL39K",
        split="train",
    ),
    "clevr": Layout(
        question="problem",
        answer="solution|answer",
        images="image|images",
        answer_type="integer",
        reads="tagged",
        hub="leonardPKU/clevr_cogen_a_train",
        split="train",
    ),
}


def layout_named(name: str) -> Layout:
    """A published benchmark's layout. Raises UsageError for an unknown name."""
    check_known("benchmark", [name.lower()], BENCHMARKS)
    return BENCHMARKS[name.lower()]


def columns_of(*names: str) -> list[str]:
    """The columns of a table that are meant by `solution|answer`, `A+B` or a path into one; a path
    may also be a column of that name.
    """
    asked = [column for text in names for column in re.split(r"[|+]", text) if column]
    return list(dict.fromkeys(part for c in asked for part in (c, c.partition(".")[0])))


def recognise(columns: Sequence[str]) -> tuple[str, Layout] | None:
    """The benchmark that has these columns; `("", GENERIC)` for any table with a question and an
    answer; None.
    """
    have = set(columns)
    fits = [
        name
        for name, layout in BENCHMARKS.items()
        if layout.marks and set(layout.marks.split("+")) <= have
    ]
    if fits:
        best = max(fits, key=lambda name: BENCHMARKS[name].marks.count("+"))
        return best, BENCHMARKS[best]
    asks = have & set(GENERIC.question.split("|"))
    answers = have & {name.partition(".")[0] for name in GENERIC.answer.split("|") if name}
    return ("", GENERIC) if asks and (answers or have & set(CONVERSATIONS)) else None


def layout_of(columns: Mapping[str, Any], base: Layout | None = None) -> Layout:
    """A layout from a user's map, over another one. Raises UsageError for unknown keys or types."""
    known = [f.name for f in fields(Layout) if f.name not in ("types", "type_column")]
    check_known("column key", columns, known, fix="see --help")
    values = dict(columns)
    for f in fields(Layout):
        if f.name in values and f.type is not str:
            values[f.name] = _number(f.name, values[f.name], f.type)
    start = base if base is not None else Layout(answer_type="")
    layout = Layout(**{**{f.name: getattr(start, f.name) for f in fields(Layout)}, **values})
    check_known("answer type", [layout.answer_type, *layout.types.values()], ("", *ANSWER_TYPES))
    check_known("way of writing answers", [layout.reads], READS)
    return layout


def _number(key: str, text: object, kind: object) -> object:
    """A setting that is no text. Raises UsageError."""
    if kind is bool:
        return str(text).lower() in ("true", "yes", "1")
    try:
        return int(str(text)) if kind is int else float(str(text))
    except ValueError as e:
        why = "the columns' map gives this setting a number"
        raise UsageError(f"{key}={text} is no number", why, "check --columns") from e
