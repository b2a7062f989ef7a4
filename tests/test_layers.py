"""Layer ranges: half-open, checked against the model's depth."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import franken
from franken.errors import UsageError
from franken.layers import (
    LayerRange,
    contiguous,
    describe_range,
    format_layers,
    name_layers,
    option_of,
    parse_ranges,
    thirds,
)

DEPTHS = {"text": 28, "vision": 32}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16-28", [("text", 16, 28)]),
        ("16:28", [("text", 16, 28)]),
        ("text:16-28", [("text", 16, 28)]),
        ("3", [("text", 3, 4)]),
        ("early", [("text", 0, 9)]),
        ("middle", [("text", 9, 18)]),
        ("late", [("text", 18, 28)]),
        ("vision:late", [("vision", 21, 32)]),
        ("all", [("text", 0, 28)]),
        ("0-2, vision:0-4", [("text", 0, 2), ("vision", 0, 4)]),
    ],
)
def test_parse(text, expected):
    assert [(r.part, r.start, r.stop) for r in parse_ranges(text, DEPTHS)] == expected


@pytest.mark.parametrize(
    "text", ["28-16", "5-5", "16-29", "28", "projector:0-1", "visoin:0-1", "sixteen", "", "-3"]
)
def test_bad_ranges_name_what_is_there(text):
    with pytest.raises(UsageError) as caught:
        parse_ranges(text, DEPTHS)
    assert caught.value.why


def test_past_the_end_names_the_depth():
    with pytest.raises(UsageError) as caught:
        parse_ranges("16-29", DEPTHS)
    assert "28 layers" in caught.value.why
    assert "16-28" in caught.value.fix


@given(st.integers(1, 200))
def test_thirds_partition_the_layers(depth):
    spans = list(thirds(depth).values())
    assert [layer for start, stop in spans for layer in range(start, stop)] == list(range(depth))


def test_words_and_storage():
    r = LayerRange("text", 16, 28)
    assert describe_range(r, 28) == "text layers 16..27 (12 of 28)"
    assert LayerRange(**r.to_dict()) == r
    assert (str(r), len(r), list(r.layers)[-1]) == ("text:16-28", 12, 27)


def test_people_read_the_last_layer_and_the_command_line_stops_before_it():
    layers = [5, 0, 1, 2, 7, 8]
    assert contiguous(layers) == [range(0, 3), range(5, 6), range(7, 9)]
    assert format_layers(layers) == "0..2, 5, 7..8"
    assert option_of(layers) == "text:0-3,text:5-6,text:7-9"
    assert option_of([3], "vision") == "vision:3-4"
    assert name_layers([3]) == "layer 3"
    assert name_layers([3, 4]) == "layers 3..4"
    assert format_layers([]) == option_of([]) == ""


@given(st.sets(st.integers(0, 27)))
def test_what_the_command_line_is_given_reads_back(layers):
    if layers:
        read = [i for r in parse_ranges(option_of(layers), DEPTHS) for i in r.layers]
        assert read == sorted(layers)


def test_no_other_place_writes_ranges():
    """A dash between two layer numbers is half-open and written here alone."""
    root = Path(franken.__file__).parent
    written = re.compile(r"\{[^{}]*(?:first|start|min\(|layers?\[0\])[^{}]*\}[-–][^ ]*\{")
    places = [
        f"{path.name}: {line.strip()}"
        for path in root.rglob("*.py")
        if path.name != "layers.py" and "puzzles" not in path.parts
        for line in path.read_text().splitlines()
        if written.search(line)
    ]
    assert places == []
