"""Hybrids by thirds and random layer sets."""

import pytest

from franken.layers import parse_ranges
from franken.study.hybrids import (
    FROM_RL,
    frozen_hybrids,
    plan_hybrids,
    random_hybrids,
    thirds_hybrids,
)


def test_the_six_hybrids_of_the_paper_at_its_depth():
    made = {h.label: h for h in thirds_hybrids(28, "IN")}
    assert list(made) == ["IN:RL:RL", "RL:IN:IN", "IN:IN:RL", "RL:RL:IN", "IN:RL:IN", "RL:IN:RL"]
    assert made["IN:RL:RL"].layers == tuple(range(9, 28))
    assert made["RL:IN:IN"].layers == tuple(range(9))
    assert made["RL:IN:RL"].ranges == "text:0-9,text:18-28"


@pytest.mark.parametrize("depth", [3, 4, 8, 36])
def test_ranges_read_back_as_the_layers(depth):
    for hybrid in plan_hybrids(depth, "SFT"):
        read = [i for r in parse_ranges(hybrid.ranges, {"text": depth}) for i in r.layers]
        assert read == list(hybrid.layers)


def test_random_sets_have_the_size_of_the_hybrids_differ_and_are_no_unions_of_thirds():
    made = plan_hybrids(8, "SFT", controls=3)
    randoms = [h for h in made if h.control]
    named = {h.layers for h in made if not h.control}
    assert [len(h.layers) for h in randoms] == [6, 6, 6, 3, 3, 3]
    assert len({h.layers for h in randoms}) == 6
    assert not named & {h.layers for h in randoms}
    assert plan_hybrids(8, "SFT", controls=3) == made


def test_tiny_decoders_leave_out_what_cannot_be():
    assert all(0 < len(h.layers) < 2 for h in thirds_hybrids(2, "SFT"))
    assert random_hybrids(3, [2], 5) == []
    assert len(FROM_RL) == 6


def test_hybrids_beside_frozen_layers_have_the_same_layers_and_all_others():
    late, odd = (5, 6, 7), (0, 3)
    made = plan_hybrids(8, "SFT", controls=1, frozen=[late, odd])
    chosen = [h for h in made if not h.control]
    assert [h.layers for h in chosen].count(late) == 1  # a third already
    beside = {h.label: h.layers for h in chosen[6:]}
    assert beside == {"RL 0, 3": (0, 3), "RL 1..2, 4..7": (1, 2, 4, 5, 6, 7)}
    assert {len(h.layers) for h in made if h.control} == {6, 3, 2}


def test_freezing_everything_or_nothing_has_no_hybrid_beside_it():
    assert frozen_hybrids(4, [range(4), ()], []) == []
