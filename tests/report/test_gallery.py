"""The galleries: a stated cap, small pictures, filters whose rules fit the cards."""

import base64
import io
import re
import time
from dataclasses import replace
from itertools import product

import pytest
from PIL import Image

from franken import tasks as puzzles
from franken.report.gallery import (
    LARGEST,
    MOST_PAIRS,
    filter_rules,
    image_uri,
    pair_gallery,
    reasoning_gallery,
)
from franken.runs import Study, open_run, open_study

THOUSAND = 1000


@pytest.fixture(scope="module")
def found(built):
    return open_study(built)


def test_cards_hold_what_the_run_says(found):
    gallery = pair_gallery(found)
    rows = found.samples("probe")
    assert 0 < len(gallery.cards) <= MOST_PAIRS
    for card in gallery.cards[:4]:
        for strip in card.strips:
            own = rows[
                (rows["sample"] == card.id)
                & (rows["model"] == strip.model)
                & (rows["method"] == "swap-suffix")
            ]
            own = own.sort_values("layer")
            states = [
                "source" if s else "changed" if c else "same"
                for s, c in zip(own.to_source, own.changed, strict=True)
            ]
            assert [c.state for c in strip.cells] == states
        moved = [i for i, state in enumerate(states) if state != "same"]  # of the last checkpoint
        third = (
            "never"
            if not moved
            else "early"
            if moved[-1] < 2
            else "middle"
            if moved[-1] < 5
            else "late"
        )
        assert card.until == third
    failed = rows[rows["error"].notna() | rows["ineligible"].notna()]
    assert not {c.id for c in gallery.cards} & set(failed[failed["model"] == "rl"]["sample"])


def test_the_rules_hide_just_the_other_cards_and_say_when_none_is_left(found):
    gallery = pair_gallery(found)
    rules = filter_rules(gallery)
    hidden = re.findall(r"#(\w+)-(\d+):checked\) \.of-pairs:not\(\.(\w+)-is-(\d+)\)", rules)
    assert len(hidden) == sum(len(f.choices) - 1 for f in gallery.filters)
    assert all((a, i) == (b, j) for a, i, b, j in hidden)
    blank = set(
        re.findall(
            r"#task-(\d+):checked\):has\(#did-(\d+):checked\):has\(#until-(\d+):checked\) \.none-fits",
            rules,
        )
    )
    for chosen in product(*(range(len(f.choices)) for f in gallery.filters)):
        fits = [
            c
            for c in gallery.cards
            if all(x in (0, y) for x, y in zip(chosen, c.places, strict=True))
        ]
        assert (tuple(map(str, chosen)) in blank) == (not fits)


def test_the_rules_hold_no_text_of_others(found):
    gallery = pair_gallery(found)
    evil = ["all", "</style><script>alert(1)</script>"] * 3
    filters = [gallery.filters[0]._replace(choices=evil), *gallery.filters[1:]]
    assert "script" not in filter_rules(replace(gallery, filters=filters))


def test_large_images_are_scaled_down():
    shown = image_uri(Image.effect_noise((2000, 1500), 80))
    assert shown is not None
    raw = base64.b64decode(shown["uri"].split(",")[1])
    assert max(Image.open(io.BytesIO(raw)).size) == LARGEST
    assert len(raw) < 60_000
    assert image_uri(None) is None


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """A probe of 1,000 pairs over 28 layers, as of a 7B model, with long replies."""
    folder = tmp_path_factory.mktemp("thousand")
    run = open_run(
        "probe",
        "rl",
        {},
        folder / "runs",
        config={"samples": THOUSAND, "seed": 0, "data": None},
        models={},
    )
    reply = "<think> " + "step by step " * 40 + "</think> <answer> {} </answer>"
    rows = []
    for pair in puzzles.get("count").pairs(THOUSAND, 0):
        before, after = reply.format(pair.target.answer), reply.format(pair.source.answer)
        for layer in range(28):
            changed = layer < 14
            rows.append(
                {
                    "model": "rl",
                    "method": "swap-suffix",
                    "part": "text",
                    "layer": layer,
                    "task": "count",
                    "sample": pair.id,
                    "output": after if changed else before,
                    "baseline": before,
                    "source_output": after,
                    "changed": changed,
                    "to_source": changed,
                    "score": 0.0,
                    "baseline_score": 1.0,
                    "error": None,
                    "ineligible": None,
                }
            )
    run.append(rows)
    done = run.finish([], n_requested=len(rows))
    step = {
        "id": "p",
        "what": "p",
        "model": "rl",
        "command": "franken probe",
        "seconds": 1,
        "error": None,
    }
    step["folders"] = [str(done.relative_to(folder))]
    study = Study(
        title="large",
        models={"base": "b", "rl": "r"},
        depth=28,
        tasks=["count"],
        samples=THOUSAND,
        seed=0,
        steps=[step],
    )
    study.save(folder)
    return folder


def test_with_a_thousand_samples_the_page_stays_small_and_quick(thousand):
    from franken.report.page.build import build_page

    started = time.monotonic()
    html = build_page(thousand, files=False).read_text()
    assert time.monotonic() - started < 60
    assert len(html) < 2_500_000
    assert html.count('class="pair of-pairs') == MOST_PAIRS
    assert f"Shown: {MOST_PAIRS} of {THOUSAND} eligible pairs" in html
    assert re.search(r'href="#run-probe-rl-\w+">All rows</a>', html)
    assert "samples.parquet" in html


def test_replies_of_failed_prompts_are_not_shown(found):
    cards = reasoning_gallery(found)
    rows = found.samples("eval")
    failed = set(rows[rows["error"].notna() & (rows["model"] == "rl")]["sample"])
    assert failed
    assert cards
    assert not any(r.model == "rl" for c in cards if c.id in failed for r in c.replies)
