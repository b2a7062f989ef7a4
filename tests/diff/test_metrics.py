"""One-pass statistics against naive float64 arithmetic, with planted structure."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from franken.diff import metrics
from franken.diff.metrics import Sums, add, measures, sums

FLAT = {"relative_energy_sft": None, "delta_cosine": None}


def as_float32(array, dtype):
    return torch.as_tensor(array).to(dtype).float().numpy()


def ordered(bf16_values):
    """bf16 numbers as integers that count: neighbours differ by one, and 0 and −0 are one
    number.
    """
    bits = bf16_values.view(np.uint32).astype(np.int64) >> 16
    magnitude = bits & 0x7FFF
    return np.where(bits >> 15, -magnitude, magnitude)


def naive(a, b):
    """The measures of two float32 arrays by their definitions, in float64."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    d = y - x
    changed = a.view(np.uint32).ravel() != b.view(np.uint32).ravel()
    smaller = np.minimum(np.abs(x), np.abs(y))
    unit = np.where(
        smaller > 2.0**-126,
        2.0 ** (np.floor(np.log2(np.maximum(smaller, 2.0**-126))) - 7),
        2.0**-133,
    )
    near = changed & (np.abs(d) <= unit)
    return {
        "energy": np.linalg.norm(d),
        "relative_energy": np.linalg.norm(d) / np.linalg.norm(x),
        "unchanged_fraction": 1 - changed.mean(),
        "sign_flip_fraction": (x * y < 0).mean(),
        "mean_abs": np.abs(d).mean(),
        "max_abs": np.abs(d).max(),
        "cosine": x @ y / np.linalg.norm(x) / np.linalg.norm(y),
        "rounding_fraction": near.sum() / changed.sum() if changed.any() else None,
        "rounding_energy": (d[near] ** 2).sum() / (d**2).sum() if d.any() else None,
    }


def close(value):
    return None if value is None else pytest.approx(value, rel=2e-6, abs=1e-12)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 5000),
    st.integers(0, 2**31),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_every_measure_equals_its_definition(stored, n, seed, one, two):
    """Blocks of unchanged, slightly moved, far moved and flipped weights, of any pair of types."""
    rng = np.random.default_rng(seed)
    a = as_float32((rng.normal(size=n) * 0.05).astype(np.float32), one)
    kind = rng.integers(0, 4, n)
    moved = np.choose(
        kind, [a, a * (1 + rng.normal(size=n) * 2e-3), a + rng.normal(size=n) * 0.02, -a]
    )
    b = as_float32(moved.astype(np.float32), two)
    found = measures(sums(stored(a, b, dtype=(one, two)))[0])._asdict()
    expected = naive(a, b)
    cosine = expected.pop("cosine")  # of float32 sums: its error is absolute
    assert found["cosine"] == (None if cosine is None else pytest.approx(cosine, abs=2e-6))
    assert {k: v for k, v in found.items() if k not in {*FLAT, "cosine"}} == {
        k: close(v) for k, v in expected.items()
    }
    assert {k: found[k] for k in FLAT} == FLAT


def test_three_checkpoints_in_one_pass_equal_three_pairs(stored):
    rng = np.random.default_rng(0)
    a, step, other = rng.normal(size=(3, 9000)).astype(np.float32)
    b = a + np.float32(0.01) * step
    c = b + np.float32(0.003) * (step + other)
    values = stored(a, b, c)
    found = [measures(total)._asdict() for total in sums(values)]
    for (x, y), three in zip(((0, 1), (1, 2), (0, 2)), found, strict=True):
        alone = measures(sums([values[x], values[y]])[0])._asdict()
        assert {k: v for k, v in three.items() if k not in FLAT} == {
            k: v for k, v in alone.items() if k not in FLAT
        }
    first, second = (b - a).astype(np.float64), (c - b).astype(np.float64)
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert [m["delta_cosine"] for m in found] == [None, pytest.approx(cosine, rel=1e-5), None]
    norm = np.linalg.norm(b.astype(np.float64))
    assert [m["relative_energy_sft"] for m in found] == [
        pytest.approx(np.linalg.norm(x.astype(np.float64)) / norm, rel=1e-5)
        for x in (b - a, c - b, c - a)
    ]


def test_one_bf16_step_is_exactly_the_neighbouring_value(stored):
    """Over all binades from 2⁻¹¹⁸ on, both directions and signs, and zero: against integer
    arithmetic on the bits.
    """
    rng = np.random.default_rng(1)
    bits = rng.integers(0x0483, 0x7F00, 20000).astype(np.uint16) | (
        rng.integers(0, 2, 20000).astype(np.uint16) << 15
    )
    bits[:6] = [0x0000, 0x8000, 0x0001, 0x8001, 0x3F80, 0xBF80]
    steps = rng.integers(-3, 4, bits.size)
    magnitude = np.clip((bits & 0x7FFF).astype(int) + steps, 0, 0x7F7F).astype(np.uint16)
    other = magnitude | (bits & 0x8000)
    a, b = ((x.astype(np.uint32) << 16).view(np.float32) for x in (bits, other))
    apart = np.abs(ordered(a) - ordered(b))
    changed = bits != other
    total = sums(stored(a, b, dtype=torch.bfloat16))[0]
    assert total.near == (changed & (apart <= 1)).sum()
    assert 0 < total.near < changed.sum()


def test_rounding_is_called_rounding_and_training_is_not(stored):
    rng = np.random.default_rng(2)
    exact = rng.normal(size=50_000).astype(np.float32)
    a = as_float32(exact, torch.bfloat16)
    again = as_float32(
        exact * (1 + 1e-4 * rng.normal(size=exact.size).astype(np.float32)), torch.bfloat16
    )
    trained = as_float32(a + 0.05 * rng.normal(size=a.size).astype(np.float32), torch.bfloat16)
    rounding = measures(sums(stored(a, again, dtype=torch.bfloat16))[0])
    training = measures(sums(stored(a, trained, dtype=torch.bfloat16))[0])
    assert rounding.rounding_fraction == 1.0
    assert rounding.rounding_energy == 1.0
    assert rounding.unchanged_fraction > 0.9
    assert training.rounding_fraction < 0.2
    assert training.rounding_energy < 0.01


def test_the_cosine_keeps_its_digits_where_checkpoints_hardly_differ(stored):
    a = np.random.default_rng(3).normal(size=200_000).astype(np.float32)
    b = a.copy()
    b[::1000] *= np.float32(1.001)
    x, y = a.astype(np.longdouble), b.astype(np.longdouble)
    exact = 1 - (x @ y) / np.sqrt(x @ x) / np.sqrt(y @ y)
    assert 1 - measures(sums(stored(a, b))[0]).cosine == pytest.approx(float(exact), rel=1e-2)


def test_chunks_do_not_show(stored, monkeypatch):
    a, b, c = np.random.default_rng(0).normal(size=(3, 10_001)).astype(np.float32)
    values = stored(a, b, c)
    whole = sums(values)
    monkeypatch.setattr(metrics, "CHUNK", 700)
    for one, two in zip(sums(values), whole, strict=True):
        assert one == pytest.approx(two, rel=1e-6)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from([1e-44, 1e-38, 1e-24, 1e-20, 1e-12, 1e17, 3e20, 1e38]), st.booleans())
def test_no_magnitude_is_too_small_or_too_large(stored, scale, mixed):
    """Squares of a block underflow or overflow in float32, beside a block where they do not."""
    rng = np.random.default_rng(5)
    a, b, c = (rng.uniform(-1, 1, size=(3, 5000)) * scale).astype(np.float32)
    if mixed:
        a[:2048], b[:2048], c[:2048] = rng.normal(size=(3, 2048))
    total = sums(stored(a, b, c))
    x, y, z = (values.astype(np.float64) for values in (a, b, c))
    for (one, two), measured in zip(((x, y), (y, z), (x, z)), total, strict=True):
        d = two - one
        assert metrics.is_finite(measured)
        assert measured.delta == pytest.approx(d @ d, rel=1e-6)
        assert measured.delta_abs == pytest.approx(np.abs(d).sum(), rel=1e-6)
        assert measured.largest == pytest.approx(np.abs(d).max(), rel=1e-6)
        assert measured.earlier == pytest.approx(one @ one, rel=1e-6)
    bound = np.linalg.norm(y - x) * np.linalg.norm(z - y)
    assert total[1].product == pytest.approx((y - x) @ (z - y), rel=1e-6, abs=1e-6 * bound)


def test_nan_and_infinity_are_seen(stored):
    for bad in (np.nan, np.inf):
        a = np.ones(5000, np.float32)
        b = a.copy()
        b[4321] = bad
        assert not metrics.is_finite(sums(stored(a, b))[0])
    assert metrics.is_finite(sums(stored(a, a))[0])


def test_zeros_have_no_ratios_and_unions_add_up(stored):
    zero = np.zeros(100, np.float32)
    found = measures(sums(stored(zero, zero))[0])
    assert found._asdict() == {
        "energy": 0.0,
        "relative_energy": None,
        "relative_energy_sft": None,
        "unchanged_fraction": 1.0,
        "sign_flip_fraction": 0.0,
        "mean_abs": 0.0,
        "max_abs": 0.0,
        "cosine": None,
        "delta_cosine": None,
        "rounding_fraction": None,
        "rounding_energy": None,
    }
    a, b = np.random.default_rng(4).normal(size=(2, 400)).astype(np.float32)
    halves = add(sums(stored(a[:100], b[:100]))[0], sums(stored(a[100:], b[100:]))[0])
    assert halves == pytest.approx(sums(stored(a, b))[0], rel=1e-6)
    assert add(Sums(), halves) == halves
