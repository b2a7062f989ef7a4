"""Swap and ablation on every family: against passes written with nnsight, which cache and batch
nothing.
"""

from dataclasses import replace

import pytest
from hand_built import FAMILIES
from spelled import ablations_of, swap_sets

from franken.models.creature import build_tokenizer
from franken.models.loading import wrap
from franken.models.tiny import tiny, tiny_batch
from franken.probe import nnsight_engine
from franken.probe.ablate import ablate, calibrate
from franken.probe.swap import stackable, swapped_batch

LAYERS = 3
SWAPPED = [name for name in FAMILIES if name != "qwen3_5"]
SETS = [
    frozenset(),
    *(
        s
        for m in ("suffix", "single", "prefix", "window:2")
        for s in swap_sets(m, range(LAYERS), LAYERS)
    ),
]


def model_of(model_type):
    model = tiny(model_type, layers=LAYERS)
    return wrap(model, None, build_tokenizer())


def encoded(loaded, seed=0, images=1, rows=1):
    batch = tiny_batch(loaded.model, rows, seed, images)
    return replace(batch, input_ids=batch.input_ids[:1].expand(rows, -1).clone())


def pair_of(loaded, seed=0, images=1):
    return encoded(loaded, seed, images, rows=2)


def ids(rows):
    return [row.answer.ids for row in rows]


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("model_type", SWAPPED)
def test_swaps_on_every_family(model_type, images):
    loaded = model_of(model_type)
    pair = pair_of(loaded, images=images)
    ours = swapped_batch(loaded, [pair], SETS, 4, measure=True)[0]
    theirs = nnsight_engine.swapped_batch(loaded, [pair], SETS, 4, measure=True)[0]
    assert ids(ours) == ids(theirs)
    assert [r.kl for r in ours] == pytest.approx([r.kl for r in theirs], abs=1e-4)
    assert max(r.kl for r in ours) > 1e-4  # the source's image is seen
    other = swapped_batch(loaded, [pair.slice([1, 0])], [frozenset()], 4)[0]
    assert ids(ours)[1] == ids(other)[0]  # suffix at 0 is the source's own answer


@pytest.mark.parametrize("model_type", SWAPPED)
def test_pairs_stack_on_every_family(model_type):
    loaded = model_of(model_type)
    pairs = [pair_of(loaded, seed, images=2) for seed in (0, 1)]
    assert stackable(*pairs)
    together = swapped_batch(loaded, pairs, SETS, 3)
    assert [ids(rows) for rows in together] == [
        ids(swapped_batch(loaded, [p], SETS, 3)[0]) for p in pairs
    ]


@pytest.mark.parametrize("model_type", [*FAMILIES, "qwen2", "qwen3"])
def test_ablations_on_every_family(model_type, monkeypatch):
    loaded = model_of(model_type)
    batch = encoded(loaded, images=2)
    monkeypatch.setattr("franken.probe.ablate.encode_prompts", lambda _, prompts: prompts[0])
    calibration = calibrate(loaded, [encoded(loaded, seed=3)], range(LAYERS))
    wanted = ablations_of(range(LAYERS))
    given = {"max_new_tokens": 4, "calibration": calibration}
    ours, theirs = (
        engine(loaded, batch, wanted, **given) for engine in (ablate, nnsight_engine.ablate)
    )
    assert [r.ids for r in ours] == [r.ids for r in theirs]
    assert len({tuple(r.ids) for r in ours}) > 1


def test_a_sliding_window_is_kept():
    loaded = model_of("gemma3")
    decoder = loaded.model.get_decoder()
    for config in (decoder.config, *(layer.self_attn for layer in decoder.layers)):
        config.sliding_window = 4
    pair = pair_of(loaded, images=2)
    ours = swapped_batch(loaded, [pair], SETS, 6, measure=True)[0]
    theirs = nnsight_engine.swapped_batch(loaded, [pair], SETS, 6, measure=True)[0]
    assert ids(ours) == ids(theirs)
    assert [r.kl for r in ours] == pytest.approx([r.kl for r in theirs], abs=1e-4)
