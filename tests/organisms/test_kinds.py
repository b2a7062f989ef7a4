"""Organisms hold what their truth says: which weights differ, and whether the function does."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from franken.checkpoints import open_checkpoint, read_array, resolve
from franken.errors import UsageError
from franken.models.tiny import save_tiny
from franken.organisms.kinds import make
from franken.organisms.truth import read_truth

SFT, BASE = "creature:sft", "creature:base"


def arrays(folder):
    return {k: read_array(e) for k, e in open_checkpoint(folder).tensors.items()}


def changed(before, after):
    one, other = arrays(before), arrays(after)
    return {name for name in one if not np.array_equal(one[name], other[name])}


def logits(folder):
    model = AutoModelForImageTextToText.from_pretrained(resolve(folder)).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def test_the_same_is_the_same_bit_for_bit(tmp_path):
    truth = make("same", SFT, tmp_path / "x")
    assert truth.same_weights
    assert truth.same_function
    assert truth.layers == truth.parts == []
    assert not changed(SFT, tmp_path / "x")
    assert read_truth(tmp_path / "x") == truth


def test_rounding_is_torch_s(tmp_path):
    make("rounded", SFT, tmp_path / "x")
    for name, values in arrays(SFT).items():
        expected = torch.from_numpy(values).bfloat16().float().numpy()
        assert np.array_equal(arrays(tmp_path / "x")[name], expected)


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_other_weights_compute_the_same(tmp_path, strength):
    truth = make("symmetric", SFT, tmp_path / "x", seed=3, strength=strength)
    assert truth.same_function
    assert not truth.same_weights
    assert len(truth.layers) == 8 * strength
    moved = changed(SFT, tmp_path / "x")
    places = open_checkpoint(SFT).tensors
    assert {places[name].place.layer for name in moved} == set(truth.layers)
    one, other = (
        np.concatenate([arrays(f)[name].ravel() for name in sorted(moved)])
        for f in (SFT, tmp_path / "x")
    )
    assert np.linalg.norm(one - other) > 0.5 * np.linalg.norm(one)  # far away, and yet
    torch.testing.assert_close(logits(tmp_path / "x"), logits(SFT), rtol=1e-4, atol=1e-4)


def test_symmetries_hold_where_query_heads_share_keys_and_values(tmp_path):
    before = save_tiny(tmp_path / "before", "qwen3_vl")
    assert open_checkpoint(before).settings.text.num_key_value_heads == 1
    make("symmetric", before, tmp_path / "x", seed=1)
    torch.testing.assert_close(logits(tmp_path / "x"), logits(before), rtol=1e-4, atol=1e-5)


def test_families_whose_layers_are_others_are_refused(tmp_path):
    before = save_tiny(tmp_path / "before", "gemma3")
    with pytest.raises(UsageError, match="no symmetry is known of a gemma3"):
        make("symmetric", before, tmp_path / "x")


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_noise_is_as_long_as_the_update_in_every_tensor(tmp_path, strength):
    make("noise", BASE, tmp_path / "x", after=SFT, seed=5, strength=strength)
    base, sft, noisy = (arrays(f) for f in (BASE, SFT, tmp_path / "x"))
    for name in base:
        update, drawn = sft[name] - base[name], noisy[name] - base[name]
        assert np.linalg.norm(drawn) == pytest.approx(
            strength * np.linalg.norm(update), rel=1e-3, abs=1e-6
        )
        if update.size > 1000 and update.any():  # independent of the update
            assert abs(np.sum(update * drawn)) < 0.2 * strength * np.sum(update**2)


@pytest.mark.parametrize(
    ("place", "layers", "components"),
    [
        ("layer:3", [3], ["attn", "mlp", "norm"]),
        ("layers:2-5", [2, 3, 4], ["attn", "mlp", "norm"]),
        ("late", [5, 6, 7], ["attn", "mlp", "norm"]),
        ("attn", list(range(8)), ["attn"]),
        ("norms", list(range(8)), ["norm"]),
        ("embed", [], ["embed"]),
        ("vision", [], []),
    ],
)
def test_a_graft_has_the_donor_s_bits_there_and_the_base_s_elsewhere(
    tmp_path, place, layers, components
):
    truth = make(f"graft:{place}", BASE, tmp_path / "x", after=SFT)
    assert (truth.layers, truth.components) == (layers, components)
    base, sft, made = (arrays(f) for f in (BASE, SFT, tmp_path / "x"))
    places = {name: e.place for name, e in open_checkpoint(BASE).tensors.items()}
    for name, spot in places.items():
        there = (
            spot.part == "vision"
            if place == "vision"
            else spot.part == "text"
            and (spot.layer in layers if layers else spot.layer is None)
            and spot.component in components
        )
        assert np.array_equal(made[name], (sft if there else base)[name]), name


def test_half_an_update_and_one_head(tmp_path):
    make("graft:layer:1", BASE, tmp_path / "half", after=SFT, strength=0.5)
    make("graft:heads:2.1", BASE, tmp_path / "head", after=SFT)
    base, sft, half, head = (arrays(f) for f in (BASE, SFT, tmp_path / "half", tmp_path / "head"))
    name = "text.layers.1.mlp.up_proj.weight"
    np.testing.assert_allclose(half[name], (base[name] + sft[name]) / 2, rtol=1e-6, atol=1e-7)
    own = slice(32, 64)
    for proj in ("q", "k", "v", "o"):
        name = f"text.layers.2.self_attn.{proj}_proj.weight"
        expected = base[name].copy()
        where = (slice(None), own) if proj == "o" else (own,)
        expected[where] = sft[name][where]
        assert np.array_equal(head[name], expected)
    moved = {name.rpartition(".")[0] for name in changed(BASE, tmp_path / "head")}
    assert moved == {f"text.layers.2.self_attn.{proj}_proj" for proj in "qkvo"}


def test_shared_keys_and_values_stay_when_one_head_moves(tmp_path):
    before = save_tiny(tmp_path / "before", "qwen3_vl")
    after = save_tiny(tmp_path / "after", "qwen3_vl", 1)
    make("graft:heads:0.1", before, tmp_path / "x", after=after)
    moved = {name.split(".")[-2] for name in changed(before, tmp_path / "x")}
    assert moved == {"q_proj", "o_proj"}


def test_again_is_left_alone_and_another_is_refused(tmp_path):
    one = make("symmetric", SFT, tmp_path / "x", seed=1)
    assert make("symmetric", SFT, tmp_path / "x", seed=1) == one
    with pytest.raises(UsageError, match="another organism"):
        make("symmetric", SFT, tmp_path / "x", seed=2)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("symetric", {}, "unknown kind of organism"),
        ("noise", {}, "needs two checkpoints"),
        ("same", {"strength": 0.5}, "has no strength"),
        ("symmetric", {"strength": 0.0}, "out of range"),
        ("graft:head", {"after": SFT}, "has no head"),
        ("graft:heads:9.0", {"after": SFT}, "has no head 9.0"),
        ("graft:layer:9", {"after": SFT}, "past the end"),
        ("graft:nowhere", {"after": SFT}, "cannot read the layer range"),
    ],
)
def test_what_cannot_be_made_is_refused(tmp_path, kind, options, message):
    with pytest.raises(UsageError, match=message):
        make(kind, BASE, tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()
