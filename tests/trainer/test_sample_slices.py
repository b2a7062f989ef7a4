"""Sampling a slice of prompts at a time says what sampling all at once says."""

import pytest
import torch

from franken.generate.native import Sampling
from franken.models.loading import wrap
from franken.models.tiny import tiny, tiny_batch
from trainer.engines import native
from trainer.engines.native import NativeEngine
from trainer.evaluate import prompts_of
from trainer.rollout import draw
from trainer.stages import GrpoStage
from trainer.towers import with_features

BASE = {"kind": "grpo", "steps": 1, "lr": 1e-3, "tasks": {"count": 1.0, "sum": 1.0, "compare": 1.0}}
BASE |= {"prompts": 7, "group": 5, "max_new_tokens": 40}


@pytest.mark.parametrize("frozen_vision", [False, True])
def test_slices_say_what_all_at_once_says(sft_creature, monkeypatch, frozen_vision):
    """The tokens are the same; log-probabilities differ by the rounding of products of fewer
    rows.
    """
    rows = []

    def counted(loaded, batch, keys, sampling):
        rows.append(batch.rows)
        return whole(loaded, batch, keys, sampling)

    whole = native.sample
    monkeypatch.setattr(native, "sample", counted)
    sft_creature.model.requires_grad_(not frozen_vision)
    try:
        drawn = {
            k: draw(sft_creature, GrpoStage(**BASE, sample_batch=k), seed=2, step=3)
            for k in (0, 1, 2, 7)
        }
    finally:
        sft_creature.model.requires_grad_(True)
    assert rows == [7, *[1] * 7, 2, 2, 2, 1, 7]
    widths = drawn[0].batch.encoded.attention_mask.sum(1)
    assert len(set(widths.tolist())) > 1  # else padding would not be tested
    for sliced in (drawn[1], drawn[2], drawn[7]):
        assert [item.id for item in sliced.items] == [item.id for item in drawn[0].items]
        for group, plain in zip(sliced.batch.groups, drawn[0].batch.groups, strict=True):
            assert [r.ids for r in group] == [r.ids for r in plain]
            for one, other in zip(group, plain, strict=True):
                assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    assert drawn[7].batch.groups == drawn[0].batch.groups  # bit for bit: the same calls


def test_a_prompts_samples_do_not_depend_on_its_slice(sft_creature):
    """The stream follows from the prompt's key alone: other neighbours, another place, the same
    words.
    """
    found = draw(sft_creature, GrpoStage(**BASE), seed=2, step=3)
    places = [5, 0, 3]
    some = found.batch.encoded.slice(places)
    prompts = prompts_of(GrpoStage(**BASE), [found.items[i] for i in places])
    again = NativeEngine(sft_creature, 2).sample(prompts, some, Sampling(5, 1.0, 40, 2))
    assert [[r.ids for r in g] for g in again] == [
        [r.ids for r in found.batch.groups[i]] for i in places
    ]


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_features_of_slices_are_the_features(family):
    model = tiny(family).requires_grad_(False)
    loaded = wrap(model, None, None)
    batch = tiny_batch(model, 5)
    everything, sliced = (with_features(loaded, batch, at_once) for at_once in (0, 2))
    assert sliced.images.pixel_values is None
    for place in range(5):
        one, other = (b.slice([place]).images.features for b in (everything, sliced))
        torch.testing.assert_close(one.pooler_output[0], other.pooler_output[0])
        for level, theirs in zip(
            getattr(one, "deepstack_features", None) or (),
            getattr(other, "deepstack_features", None) or (),
            strict=True,
        ):
            torch.testing.assert_close(level[0], theirs[0])
