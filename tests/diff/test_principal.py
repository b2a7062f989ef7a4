"""Leading directions of the weights against numpy's SVD of the whole; planted turns and stretches
are told apart; both nulls have the norm of the update.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest

from franken.diff import principal, spectra
from franken.diff.plan import plan_diff
from franken.diff.principal import OWN, Principal, measured, signs
from franken.diff.run import DiffOptions, run_diff
from franken.diff.summary import principal_table
from franken.runs import load_run

SEED, K = 7, 3
rng = np.random.default_rng(0)


def weights(shape, k=8, seed=0):
    """A matrix whose singular values are well apart, as those of trained weights are."""
    rng, k = np.random.default_rng(seed), min(k, *shape)
    left, right = (np.linalg.qr(rng.normal(size=(n, k)))[0] for n in shape)
    return ((left * np.linspace(9, 2, k)) @ right.T).astype(np.float32)


def naive(before, after, k, norm):
    """The measures by whole SVDs."""
    before, after = (x.reshape(len(x), -1).astype(np.float64) for x in (before, after))
    (u, s, vt), (u2, s2, vt2) = (np.linalg.svd(x, full_matrices=False) for x in (before, after))
    u, u2, v, v2 = u[:, :k], u2[:, :k], vt[:k].T, vt2[:k].T
    inside = u @ u.T @ (after - before) @ v @ v.T
    return {
        "principal_left": (np.linalg.norm(u.T @ u2) ** 2) / k,
        "principal_right": (np.linalg.norm(v.T @ v2) ** 2) / k,
        "spectral_shift": np.linalg.norm(s - s2) / np.linalg.norm(s),
        "scale_energy": (np.linalg.norm(s - s2) / norm) ** 2,
        "principal_energy": (np.linalg.norm(inside) / norm) ** 2,
    }


@pytest.mark.parametrize("shape", [(40, 40), (20, 50), (50, 20), (8, 3, 2, 2)])
def test_all_of_it_equals_whole_svds(stored, shape, monkeypatch):
    monkeypatch.setattr(spectra, "BLOCK", 170)
    base, sft, rl = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    sft, rl = base + 0.3 * sft, base + 0.3 * sft + 0.1 * rl
    norms = [float(np.linalg.norm(b - a)) for a, b in ((base, sft), (sft, rl))]
    first, second = measured(stored(base, sft, rl), norms, k=K, seed=SEED)
    for found, before, after, norm in ((first, base, sft, norms[0]), (second, sft, rl, norms[1])):
        drawn = signs(SEED, norm / base.size**0.5, 0, base.size).reshape(shape)
        assert np.linalg.norm(drawn) == pytest.approx(norm)
        expected = naive(before, after, K, norm)
        expected |= {
            f"{name}_random": value
            for name, value in naive(before, before + drawn, K, norm).items()
        }
        if found is second:
            scaled = base.astype(float) + (sft - base) * (norms[1] / norms[0])
            nulls = naive(base, scaled, K, norm).items()
            expected |= {f"{name}_sft": value for name, value in nulls}
        values = {k: v for k, v in found._asdict().items() if v is not None}
        assert values == pytest.approx({"principal_k": K, **expected}, rel=1e-4, abs=1e-6)


def test_a_planted_turn_and_a_planted_stretch_are_told_apart(stored):
    before = weights((30, 20))
    turn = np.linalg.qr(np.eye(20) + 0.1 * np.random.default_rng(2).normal(size=(20, 20)))[0]
    turned = (before @ turn).astype(np.float32)
    u, s, vt = np.linalg.svd(before, full_matrices=False)
    stretched = ((u * s * 1.05) @ vt).astype(np.float32)
    found = {}
    for name, after in (("turned", turned), ("stretched", stretched)):
        norm = float(np.linalg.norm(after - before))
        (found[name],) = measured(stored(before, after), [norm], k=K, seed=SEED)
    turn, stretch = found["turned"], found["stretched"]
    assert turn.principal_right < 0.99
    assert turn.principal_left == pytest.approx(1, abs=1e-6)  # turned on one side only
    assert turn.spectral_shift == pytest.approx(0, abs=1e-5)
    assert turn.scale_energy == pytest.approx(0, abs=1e-5)
    assert stretch.principal_left == pytest.approx(1, abs=1e-6)
    assert stretch.principal_right == pytest.approx(1, abs=1e-6)
    assert stretch.spectral_shift == pytest.approx(0.05, rel=1e-4)
    assert stretch.scale_energy == pytest.approx(1, rel=1e-4)


def test_an_update_inside_the_leading_directions_is_there_and_noise_is_not(stored):
    before = weights((60, 40))
    u, _, vt = np.linalg.svd(before, full_matrices=False)
    after = before + 0.1 * u[:, :1] @ vt[1:2]
    norm = float(np.linalg.norm(after - before))
    (found,) = measured(stored(before, after), [norm], k=K, seed=SEED)
    assert found.principal_energy_random is not None
    assert found.principal_energy == pytest.approx(1, abs=1e-4)
    assert found.principal_energy_random < 10 * K**2 / before.size


def test_the_share_of_a_random_update_is_k_squared_over_its_size():
    shape, share = (30, 20), []
    left, right = (np.linalg.qr(rng.normal(size=(n, K)))[0] for n in shape)
    kept = principal.Frame(np.ones(20), left, right)
    for seed in range(400):
        noise = partial(signs, seed, 1.0)
        share.append(principal._inside(kept, K, shape, noise) ** 2 / 600)
    deviation = np.std(share) / len(share) ** 0.5
    assert np.mean(share) == pytest.approx(K**2 / 600, abs=4 * deviation)


def test_signs_do_not_depend_on_the_stretches_and_are_fair():
    whole = signs(SEED, 2.0, 0, 10_000)
    parts = [signs(SEED, 2.0, a, b) for a, b in ((0, 1), (1, 700), (700, 2048), (2048, 10_000))]
    assert np.array_equal(np.concatenate(parts), whole)
    assert set(whole.tolist()) == {-2.0, 2.0}
    assert abs(whole.mean()) < 2 * 4 / 100
    assert not np.array_equal(whole, signs(SEED + 1, 2.0, 0, 10_000))


def test_nothing_is_said_of_a_matrix_that_did_not_move(stored):
    before = weights((9, 6))
    moved = before + np.float32(0.1)
    norm = float(np.linalg.norm(moved - before))
    first, second = measured(stored(before, before, moved), [0.0, norm], k=K, seed=SEED)
    assert first == Principal()
    assert second.principal_left is not None
    assert second.principal_left_sft is None
    nothing = np.zeros((9, 6), np.float32)
    (found,) = measured(stored(nothing, moved), [1.0], k=K, seed=SEED)
    assert found.principal_left is None


def test_a_run_has_it_by_matrix_layer_and_part(triple, tmp_path):
    options = DiffOptions(principal=True, k=2)
    folder = run_diff(plan_diff(triple[1]), out=tmp_path, options=options)
    run = load_run(folder)
    rows: Any = run.samples.set_index(["method", "tensor"])
    moved = rows.loc[("sft→rl", "text.layers.1.mlp.up_proj.weight")]
    assert moved[[*OWN, "principal_left_random", "principal_left_sft"]].notna().all()
    frozen = rows.loc[("sft→rl", "text.layers.0.mlp.up_proj.weight")]
    assert frozen[list(OWN)].isna().all()
    assert rows.loc["base→rl", list(OWN)].isna().all(axis=None)
    header, body = principal_table(run)
    assert "random Δ" in header
    assert {(row[0], row[1]) for row in body} >= {("base→sft", "text"), ("sft→rl", "text")}
    layer: Any = run.layers.query("method == 'base→sft' and part == 'text' and layer == 2")
    mean = layer[(layer["component"] == "all") & (layer["metric"] == "principal_right")]
    own = rows.loc["base→sft"].query("part == 'text' and layer == 2")["principal_right"]
    assert mean["value"].item() == pytest.approx(own.dropna().astype(float).mean())
