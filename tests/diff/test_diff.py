"""The differ against naive float64 arithmetic and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from franken.diff.metrics import measures, ranks, singular_values, sums
from franken.diff.run import plan_diff, run_diff
from franken.errors import UsageError
from franken.layers import LayerRange
from franken.models.tiny import save_tiny, tiny
from franken.names import canonical
from franken.runs import load_run


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_sums_equal_naive_float64(rows, cols, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(rows, cols)).astype(np.float32)
    b = np.where(rng.random(a.shape) < 0.5, a, a + rng.normal(size=a.shape).astype(np.float32) * 1e-3)
    found = measures(sums(a.ravel(), b.ravel()))
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    assert found["energy"] == pytest.approx(np.linalg.norm(y - x), rel=1e-5, abs=1e-12)
    assert found["relative_energy"] == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), rel=1e-5, abs=1e-12)
    assert found["unchanged_fraction"] == (a == b).mean()
    assert found["cosine"] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_chunks_do_not_show(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1000)).astype(np.float32)
    whole = sums(a, b)
    monkeypatch.setattr("franken.diff.metrics.CHUNK", 7)
    assert sums(a, b) == pytest.approx(whole)


@pytest.mark.parametrize("shape", [(30, 30), (20, 70), (70, 20)])
def test_singular_values_equal_svd(shape, monkeypatch):
    monkeypatch.setattr("franken.diff.metrics.CHUNK", 300)
    a, b = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    expected = np.linalg.svd((b - a).astype(np.float64), compute_uv=False)
    assert singular_values(a.ravel(), b.ravel(), shape) == pytest.approx(expected, rel=1e-6)


def ranks_of(delta):
    return ranks(singular_values(np.zeros(delta.size), delta.ravel(), delta.shape))


def test_ranks_have_their_closed_forms():
    q = np.linalg.qr(np.random.default_rng(2).normal(size=(40, 40)))[0]
    equal = q[:, :5] @ q[:5]  # five equal singular values
    assert ranks_of(equal)["effective_rank"] == pytest.approx(5, rel=1e-5)
    assert ranks_of(equal)["stable_rank"] == pytest.approx(5, rel=1e-5)
    assert ranks_of(np.outer(q[0], q[1]))["effective_rank"] == pytest.approx(1, rel=1e-4)
    assert ranks_of(np.zeros((4, 4))) == {"effective_rank": None, "stable_rank": None}


@pytest.fixture
def triple(tmp_path):
    """base, sft (moved everywhere), rl (layer 1 of sft moved), with the models."""
    models = {"base": tiny("qwen2_5_vl", 0), "sft": tiny("qwen2_5_vl", 1), "rl": tiny("qwen2_5_vl", 1)}
    with torch.no_grad():
        for parameter in models["rl"].get_decoder().layers[1].parameters():
            parameter.add_(0.25)
    for stage, model in models.items():
        model.save_pretrained(tmp_path / stage, save_original_format=stage != "rl")
    return models, {stage: tmp_path / stage for stage in models}


def test_layers_add_up_as_squares(triple, tmp_path):
    models, folders = triple
    run = load_run(run_diff(plan_diff(folders), out=tmp_path / "runs"))
    table = run.layers[(run.layers["component"] == "all") & (run.layers["metric"] == "energy")]
    named = {stage: dict(m.named_parameters()) for stage, m in models.items()}
    for earlier, later in (("base", "sft"), ("sft", "rl"), ("base", "rl")):
        for layer in range(3):
            prefix = f"text.layers.{layer}."
            squares = sum(
                float(((named[later][n] - p).double() ** 2).sum())
                for n, p in named[earlier].items()
                if canonical(n, "qwen2_5_vl").startswith(prefix)
            )
            row = table[
                (table["method"] == f"{earlier}→{later}") & (table["part"] == "text") & (table["layer"] == layer)
            ]
            assert row["value"].item() == pytest.approx(squares**0.5, rel=1e-6)
    moved = table[(table["method"] == "sft→rl") & (table["value"] > 0)]
    assert moved[["part", "layer"]].values.tolist() == [["text", 1]]


def test_a_resumed_run_equals_an_uninterrupted_one(triple, tmp_path, monkeypatch):
    _, folders = triple
    plan = plan_diff(folders)
    whole = load_run(run_diff(plan, out=tmp_path / "whole"))
    monkeypatch.setattr("franken.diff.run.FLUSH_BYTES", 1)
    calls = []

    def stop(n):
        calls.append(n)
        if len(calls) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_diff(plan, out=tmp_path / "cut", progress=stop)
    resumed = load_run(run_diff(plan, out=tmp_path / "cut"))
    assert resumed.layers.equals(whole.layers)
    assert len(resumed.samples) == len(whole.samples)


def test_what_cannot_be_compared_is_listed(tmp_path):
    save_tiny(tmp_path / "a", "qwen2", layers=3)
    save_tiny(tmp_path / "b", "qwen2", layers=2)
    plan = plan_diff({"base": tmp_path / "a", "rl": tmp_path / "b"})
    assert all("layers.2." in name for name in plan.problems)
    run = load_run(run_diff(plan, out=tmp_path / "runs"))
    assert run.manifest["n_failed"] == len(plan.problems) > 0


def test_only_the_asked_layers(triple):
    plan = plan_diff(triple[1], [LayerRange("text", 1, 2)])
    assert {plan.checkpoints["base"].tensors[t].place.layer for t in plan.tensors} == {1}


def test_nothing_in_common(tmp_path):
    save_tiny(tmp_path / "a", "qwen2", layers=1)
    save_tiny(tmp_path / "b", "qwen2", layers=3)
    with pytest.raises(UsageError, match="share no tensor"):
        plan_diff({"base": tmp_path / "a", "rl": tmp_path / "b"}, [LayerRange("text", 2, 3)])
