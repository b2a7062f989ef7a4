"""Parts of an update against numpy's SVD, sorting and plain arithmetic; kept and dropped are the
whole.
"""

import numpy as np
import pytest
import torch

from franken.checkpoints import open_checkpoint, read_array
from franken.errors import UsageError
from franken.merge.graft import graft
from franken.merge.options import recipe_from_options
from franken.merge.parts import parse_part
from franken.merge.plan import open_all, plan_merge
from franken.merge.run import run_merge
from franken.merge.surgery import drawn, largest, leading, operated
from franken.models.loading import load
from franken.models.tiny import save_tiny

PARTS = ["rank:1", "rank:3", "top:10%", "sign", "norms", "random-rank:2", "random:10%"]
PARTS += ["rotation", "scale"]
SHAPES = [(12, 7), (7, 12), (9, 9), (6,), (5, 3, 2)]
SEED = 7


def pair(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    base = torch.randn(shape, generator=generator).to(dtype)
    return base, (base + 0.1 * torch.randn(shape, generator=generator)).to(dtype)


def part(base, donor, text, *, keep=True, known=None):
    wide = (base.float(), donor.float())
    known = {} if known is None else known
    return operated(*wide, parse_part(text), keep=keep, seed=SEED, known=known, key="x")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", PARTS)
def test_kept_and_dropped_are_the_whole_update(shape, text):
    base, donor = (x.double() for x in pair(shape))
    how = {"seed": SEED, "known": {}, "key": "x"}
    kept, dropped = (
        operated(base, donor, parse_part(text), keep=k, **how) - base for k in (True, False)
    )
    assert torch.equal((base + kept + dropped).float(), donor.float())


@pytest.mark.parametrize("text", PARTS)
def test_of_bf16_weights_they_are_the_whole_within_one_unit(text):
    base, donor = pair((40, 24), torch.bfloat16)
    kept, dropped = (part(base, donor, text, keep=k).bfloat16().double() for k in (True, False))
    whole = kept + dropped - base.double()
    size = torch.stack([kept, dropped, base.double(), donor.double()]).abs().amax(0)
    unit = 2.0 ** (torch.floor(torch.log2(size)) - 7)
    assert ((whole - donor.double()).abs() <= unit).all()


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (9, 9), (5, 3, 2)])
@pytest.mark.parametrize("rank", [1, 3])
def test_rank_is_numpys_truncated_svd(shape, rank):
    base, donor = pair(shape)
    delta = (donor.double() - base.double()).reshape(shape[0], -1).numpy()
    u, s, vt = np.linalg.svd(delta, full_matrices=False)
    expected = (u[:, :rank] * s[:rank]) @ vt[:rank]
    found = (part(base, donor, f"rank:{rank}").double() - base.double()).reshape(delta.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_planted_rank_is_found_and_truncation_is_near_exact():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(600, 300, generator=generator)
    u, v = (torch.randn(n, 4, generator=generator) for n in (600, 300))
    donor = base + u @ v.T
    np.testing.assert_allclose(part(base, donor, "rank:4"), donor, atol=3e-5)
    assert (part(base, donor, "rank:3") - donor).abs().max() > 1
    dropped = part(base, donor, "rank:4", keep=False)
    np.testing.assert_allclose(dropped, base, atol=3e-5)


def test_lanczos_finds_what_the_whole_decomposition_does():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(500, 300, generator=generator, dtype=torch.float64)
    gram = matrix.T @ matrix
    few, every = leading(gram, 5), torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :5]
    np.testing.assert_allclose(few @ few.T, every @ every.T, atol=1e-8)


def test_directions_are_found_once_for_all_ranks(monkeypatch):
    asked = []

    def counted(gram, rank):
        asked.append(rank)
        return leading(gram, rank)

    monkeypatch.setattr("franken.merge.surgery.leading", counted)
    base, donor = pair((20, 9))
    known = {}
    several = [part(base, donor, f"rank:{r}", known=known) for r in (4, 1, 2)]
    assert asked == [9]
    for rank, found in zip((4, 1, 2), several, strict=True):
        assert torch.equal(found, part(base, donor, f"rank:{rank}"))


@pytest.mark.parametrize("count", [0, 1, 50, 99, 100])
def test_the_largest_are_those_of_a_sort(count):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(100, generator=generator).abs()
    mask = largest(values, count, generator)
    assert int(mask.sum()) == count
    assert set(values[mask].tolist()) == set(values.sort(descending=True).values[:count].tolist())


def test_ties_are_drawn_and_not_all_taken():
    values = torch.tensor([1.0, *[0.5] * 100, 0.0])
    masks = [largest(values, 11, torch.Generator().manual_seed(seed)) for seed in range(2)]
    for mask in masks:
        assert int(mask.sum()) == 11
        assert mask[0]
        assert not mask[-1]
    assert not torch.equal(*masks)


def test_drawn_elements_are_as_many_as_asked_in_every_block(monkeypatch):
    monkeypatch.setattr("franken.merge.surgery.BLOCK", 10)
    mask = drawn(37, 11, torch.Generator().manual_seed(0))
    assert int(mask.sum()) == 11
    assert [int(block.sum()) for block in mask.split(10)] == [2, 3, 3, 3]


def test_top_of_everything_is_the_donor_and_top_of_little_by_hand():
    base, donor = torch.zeros(2, 2), torch.tensor([[1.0, -4.0], [2.0, -3.0]])
    assert torch.equal(part(base, donor, "top:100%"), donor)
    expected = torch.tensor([[0.0, -4.0], [0.0, -3.0]])
    assert torch.equal(part(base, donor, "top:50%"), expected)
    assert torch.equal(part(base, donor, "top:50%", keep=False), donor - expected)


def test_signs_and_norms_by_hand():
    base, donor = torch.zeros(2, 2), torch.tensor([[1.0, -4.0], [0.0, -3.0]])
    assert torch.equal(part(base, donor, "sign"), torch.tensor([[2.0, -2.0], [0.0, -2.0]]))
    assert torch.equal(part(base, donor, "norms"), base)
    assert torch.equal(part(base[0], donor[0], "norms"), donor[0])


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (9, 9), (5, 3, 2), (6,)])
@pytest.mark.parametrize("text", ["rotation", "scale"])
def test_rotation_and_scale_are_numpys_vectors_with_the_other_values(shape, text):
    base, donor = pair(shape)
    sides = [x.double().reshape(shape[0], -1).numpy() for x in (base, donor)]
    (u, s, vt), (u2, s2, vt2) = (np.linalg.svd(x, full_matrices=False) for x in sides)
    expected = (u2 * s) @ vt2 if text == "rotation" else (u * s2) @ vt
    found = part(base, donor, text).double().reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_planted_rotation_is_all_rotation_and_a_planted_scaling_all_scale():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(20, 12, generator=generator)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator)).Q
    u, s, vt = torch.linalg.svd(base, full_matrices=False)
    rotated, scaled = base @ turn, (u * (s * torch.linspace(1.5, 1.1, 12))) @ vt
    for donor, whole, nothing in ((rotated, "rotation", "scale"), (scaled, "scale", "rotation")):
        np.testing.assert_allclose(part(base, donor, whole), donor, atol=1e-5)
        np.testing.assert_allclose(part(base, donor, nothing), base, atol=1e-5)


def test_directions_without_a_length_stay_without_one():
    base = torch.outer(torch.arange(1.0, 6), torch.ones(3))
    donor = base + torch.eye(5)[:, :3]
    assert torch.isfinite(part(base, donor, "scale")).all()
    assert np.linalg.matrix_rank(part(base, donor, "scale"), tol=1e-4) == 1


def test_random_directions_hold_a_share_of_the_update_like_chance():
    base, donor = pair((400, 100))
    kept = part(base, donor, "random-rank:20") - base
    share = (kept.norm() / (donor - base).norm()) ** 2
    assert share == pytest.approx(0.2, abs=0.02)
    assert np.linalg.matrix_rank(kept.double(), tol=1e-3) == 20


@pytest.mark.parametrize(
    "text",
    ["rank:0", "rank:1.5", "rank", "rank:5%", "top:0%", "top:101%", "top:5", "tops", "sign:1"],
)
def test_parts_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="part"):
        parse_part(text)


@pytest.mark.parametrize("text", ["rank:12", "top:1%", "random:.5%", "sign"])
def test_a_part_prints_as_it_is_read(text):
    assert parse_part(str(parse_part(text))) == parse_part(text)


def hybrid(out, *checkpoints, **options):
    recipe = recipe_from_options([str(c) for c in checkpoints], **options)
    plan = plan_merge(recipe, open_all(recipe))
    return plan, run_merge(plan, out)


def arrays(folder):
    return {k: read_array(e) for k, e in open_checkpoint(folder).tensors.items()}


@pytest.mark.parametrize("text", ["rank:2", "top:5%", "random:5%"])
def test_on_disk_kept_and_dropped_are_the_donor_in_every_tensor(tmp_path, text):
    base = save_tiny(tmp_path / "base", "qwen2_5_vl", max_shard_size="60KB")
    donor = save_tiny(tmp_path / "donor", "qwen2_5_vl", 1)
    _, kept = hybrid(tmp_path / "kept", base, donor, keep=text)
    _, dropped = hybrid(tmp_path / "dropped", base, donor, drop=text)
    b, d, k, r = (arrays(f) for f in (base, donor, kept, dropped))
    for name in b:
        whole = k[name].astype(np.float64) + r[name] - b[name]
        np.testing.assert_allclose(whole, d[name], atol=2e-7, err_msg=name)


def test_a_range_and_a_component_compose_with_a_part(tmp_path):
    base, donor = "creature:base", "creature:sft"
    _, out = hybrid(tmp_path / "x", base, donor, keep="top:10%", layers="2-4", components="mlp")
    before, after = arrays(base), arrays(out)
    for name, entry in open_checkpoint(base).tensors.items():
        moved = np.mean(before[name] != after[name])
        inside = entry.place.layer in (2, 3) and entry.place.component == "mlp"
        inside = inside and entry.place.part == "text"
        assert moved == (pytest.approx(0.1, abs=0.01) if inside else 0), name


def test_in_memory_it_is_the_written_hybrid(tmp_path):
    plan, out = hybrid(tmp_path / "x", "creature:base", "creature:sft", drop="rank:2")
    model = load("creature:base", device="cpu").model
    expected = load(out, device="cpu").model.state_dict()
    donated = {}
    with graft(model, plan, donated=donated):
        for name, value in model.state_dict().items():
            assert torch.equal(value, expected[name]), name
    assert any(key.startswith("directions of") for key in donated)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "rank:1", "drop": "rank:1"}, "stand alone"),
        ({"keep": "rank:1", "alpha": "0.5"}, "stand alone"),
        ({"keep": "rank:1", "method": "ties"}, "stand alone"),
        ({"keep": "rank:1", "relative_to": "base"}, "not relative"),
    ],
)
def test_options_that_contradict_are_refused(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        hybrid(tmp_path / "x", "creature:base", "creature:sft", **options)
