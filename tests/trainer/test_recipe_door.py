"""What comes in as a recipe: one error for whatever is wrong with it, before any work."""

import os
import re
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from franken.errors import FrankenError, UsageError
from franken.names import Place
from franken.selection import select
from franken.yaml_files import parse_yaml
from trainer.loop import run_train
from trainer.recipe import load_recipe, parse_recipe

NUMBERS = [".inf", "-.inf", ".nan", "1e999", "-1", "1" + "0" * 400, "true", "null", "x", "[1]"]
NUMBERS += ["{a: 1}", "2020-01-01", "0x"]


@pytest.mark.parametrize(
    "key", ["lr", "temperature", "prompts", "clip", "steps", "betas.0", "seed"]
)
@pytest.mark.parametrize("value", NUMBERS)
def test_numbers_that_cannot_be_are_refused(key, value):
    if (key, value) in {("seed", "-1"), ("seed", "null"), ("temperature", "true"), ("lr", "true")}:
        return
    if value == "true" and key in ("prompts", "clip", "steps", "seed"):
        return  # pydantic reads it as one
    with pytest.raises(UsageError) as e:
        load_recipe("creature-rl", (f"stages.0.{key}={value}",))
    assert e.value.why


TEXTS = {
    "no mapping": "- 1",
    "no YAML": "a: [",
    "a tag": "a: !!python/object:os.system x",
    "aliases": "a: &a [1]\nb: [" + "*a, " * 200 + "]",
    "depth": "a: " + "[" * 5000,
    "a wrong key": "1: 2\nextends: creature-rl",
    "a list to extend": "extends: [a]",
    "size": "a: " + "x" * 2**21,
    "a date": "a: 2020-99-99",
    "empty": "",
    "no characters": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("case", TEXTS)
def test_files_that_are_no_recipe_are_one_error(tmp_path, case):
    text, file = TEXTS[case], tmp_path / "r.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError):
        load_recipe(file)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("pipe.yaml", "folder.yaml", "nowhere.yaml"):
        with pytest.raises(UsageError, match="cannot read"):
            load_recipe(tmp_path / name)


PLACES = {
    f"model.language_model.layers.{i}.self_attn.q_proj.weight": Place("text", i, "attn")
    for i in range(36)
}
PATTERNS = ["re:(", "re:[", "re:\\", "re:" + "(" * 400 + ")" * 400, "re:.{99999999999}", "re:(?P<"]
PATTERNS += ["re:((((w{1000}){1000}){1000}){1000})", "re:" + "x" * 2000, "re:(.|[a-z.])+[A-Z]"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_that_do_not_compile_or_explode_are_refused_soon(pattern):
    started = time.monotonic()
    with pytest.raises(UsageError, match="is no pattern|takes too long"):
        select([pattern], PLACES, option="--freeze")
    assert time.monotonic() - started < 5


def test_patterns_mean_what_they_mean_in_python():
    for pattern in ("q_proj", r"layers\.(1|2)\.", "^model", "weight$", "[0-9]{2}"):
        expected = {name for name in PLACES if re.search(pattern, name)}
        assert select([f"re:{pattern}"], PLACES, option="--freeze") == expected


def test_a_pattern_is_read_with_the_recipe():
    with pytest.raises(UsageError, match="is no pattern"):
        load_recipe("creature-rl", ("stages.0.freeze=['re:(']",))


def test_a_word_of_the_last_stage_is_told_before_the_first_one_trains(tmp_path):
    raw = load_recipe("creature-rl").model_dump(mode="json")
    stage = {**raw["stages"][0], "steps": 1, "eval_every": None}
    recipe = parse_recipe({**raw, "stages": [stage, {**stage, "freeze": ["text:0-99"]}]})
    heard = []
    with pytest.raises(FrankenError):
        run_train(recipe, tmp_path / "out", report=lambda *a, **k: heard.append(a))
    assert heard == []
    assert not list((tmp_path / "out").glob("step*"))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = sorted(load_recipe("creature-rl").stages[0].model_dump())


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
def test_any_values_are_a_recipe_or_one_error(changes):
    raw = load_recipe("creature-rl").model_dump(mode="json")
    with suppress(FrankenError):
        parse_recipe({**raw, "stages": [{**raw["stages"][0], **changes}]})


@settings(deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_is_yaml_or_one_error(text):
    with suppress(UsageError):
        parse_yaml(text, "it")
