"""The door for rows, attacked: whatever a table holds is a question or a failed row, soon.

Nothing but FrankenError may be raised. `make fuzz` raises the number of examples.
"""

import json
import os
import time
from contextlib import suppress

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from franken.errors import FrankenError
from franken.tasks.benchmarks import item_of
from franken.tasks.layouts import BENCHMARKS, GENERIC, layout_of
from franken.tasks.sources import canonical, load_tasks, open_stream
from franken.tasks.spoken import spoken_of

EXAMPLES = int(os.environ.get("FRANKEN_FUZZ", "100"))
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
SECONDS = 1.0

WORDS = st.sampled_from(
    ["", "A", "AC", "B. 4", "A. 3; B. 4", "<image>", "<image 2>", "[1]", "['a', 'b']", "\\boxed{3}"]
    + [
        "<answer>",
        "#### 7",
        "\0",
        "\ud800",
        "{",
        "[{",
        '[{"role": 1}]',
        "../a.png",
        "https://x",
        "3",
    ]
    + ["iVBORw0KGgo=", "data:image/png;base64,x", "A:" * 3000, "[" * 3000, "9" * 5000, "<|im_end|>"]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.text(), st.binary(max_size=40)
)
KEYS = st.sampled_from(
    [
        "role",
        "content",
        "from",
        "value",
        "type",
        "text",
        "image",
        "image_url",
        "url",
        "bytes",
        "path",
    ]
    + ["A", "B", "label", "ground_truth"]
)
ROLES = st.sampled_from(["user", "assistant", "system", "human", "gpt", "tool", "USER"])
TURN = st.fixed_dictionaries(
    {"role": st.one_of(ROLES, SCALARS), "content": st.deferred(lambda: CELLS)}
)
CELLS = st.recursive(
    st.one_of(SCALARS, SCALARS, st.lists(TURN, max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, st.text(max_size=5)), inner)
    ),
    max_leaves=8,
)
COLUMNS = st.sampled_from(
    ["question", "problem", "prompt", "messages", "answer", "solution", "label", "image", "images"]
    + ["options", "choices", "A", "B", "C", "id", "reward_model", "hint", "task", "image_1"]
)
ROWS = st.dictionaries(COLUMNS, CELLS, max_size=8)
LAYOUTS = [
    GENERIC,
    *BENCHMARKS.values(),
    layout_of({"task": "task", "description": "hint"}, GENERIC),
]


@FUZZ
@given(row=ROWS, layout=st.sampled_from(LAYOUTS))
def test_any_row_is_an_item_soon(row, layout, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    started = time.perf_counter()
    item = item_of(row, layout, "x", 3, folder)
    spoken = spoken_of(row, layout, "x", 3, folder)
    assert time.perf_counter() - started < SECONDS
    assert item.error or (item.question and item.answer)
    assert spoken.error or all(question and reply for question, reply in spoken.turns)
    for text in (item.id, item.task, item.question, item.answer, *item.options):
        text.encode()
        assert "\0" not in text


@FUZZ
@given(
    content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)),
    kind=st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet"]),
)
def test_any_file_is_a_table_or_refused(content, kind, tmp_path_factory):
    file = tmp_path_factory.mktemp("any") / f"x.{kind}"
    file.write_bytes(content)
    with suppress(FrankenError):
        stream = open_stream(canonical(file, "question=question,answer=answer"))
        stream.pick(range(min(stream.size, 5)))


@FUZZ
@given(rows=st.lists(ROWS, min_size=1, max_size=4))
def test_no_row_of_a_file_vanishes(rows, tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "x.jsonl"
    plain = [{"question": "q", "answer": "1"}] + [
        {k: v for k, v in row.items() if _is_json(v)} for row in rows
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in plain))
    items = load_tasks((), 10**6, 0, canonical(file))
    assert len(items) == len(plain)
    assert len({item.id for item in items}) == len(items)


@pytest.mark.parametrize(
    "row", [{"reward_model": "{"}, {"question": [], "reward_model": "{"}, {"answer": {"a": "{"}}]
)
def test_rows_that_once_ended_the_file(row, tmp_path):
    (tmp_path / "x.jsonl").write_text(
        json.dumps({"question": "q", "answer": "1"}) + "\n" + json.dumps(row) + "\n"
    )
    sound, broken = load_tasks((), 10, 0, canonical(tmp_path / "x.jsonl"))
    assert not sound.error
    assert broken.error


def _is_json(value):
    try:
        return len(json.dumps(value)) < 10**6
    except (TypeError, ValueError):
        return False


@pytest.mark.parametrize(
    "text", ["A. x " * 20_000, "(A) " * 25_000, "<image>" * 14_000, "A" * 99_999]
)
def test_long_questions_are_read_soon(text):
    for layout in (GENERIC, BENCHMARKS["virl39k"], BENCHMARKS["mmmu-pro"]):
        started = time.perf_counter()
        item_of({"question": text, "answer": "A"}, layout, "x", 0, None)
        assert time.perf_counter() - started < SECONDS


def test_structures_in_parquet_columns(tmp_path):
    rows = {"question": [{"a": 1}], "answer": [[{"b": [1.5]}]], "images": [[["a.png"]]]}
    pd.DataFrame(rows).to_parquet(tmp_path / "x.parquet")
    (item,) = load_tasks((), 5, 0, canonical(tmp_path / "x.parquet"))
    assert item.error == "the question is a structure, not a text"
