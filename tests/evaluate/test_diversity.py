"""Diversity on constructed sets with known answers; correlations against scipy and the closed form
of the partial one.
"""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from franken.evaluate.diversity import (
    answer_entropy,
    difficulty_controls,
    distinct_ngrams,
    diversity_measures,
    mean_cosine_distance,
    self_overlap,
)
from franken.evaluate.embed import embedder
from franken.stats import correlation


def test_cosine_distance_of_equal_orthogonal_and_opposite_vectors():
    assert mean_cosine_distance(np.eye(4)) == pytest.approx(1)
    assert mean_cosine_distance(np.tile(np.eye(4)[0], (5, 1))) == pytest.approx(0)
    assert mean_cosine_distance(np.array([[1.0, 0], [-1, 0]])) == pytest.approx(2)


def test_cosine_distance_equals_the_loop_over_pairs():
    vectors = np.random.default_rng(0).normal(size=(7, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [1 - a @ b for a, b in itertools.combinations(vectors, 2)]
    assert mean_cosine_distance(vectors) == pytest.approx(np.mean(pairs))


def test_words_shared_and_not():
    assert distinct_ngrams(["a b c", "a b c"]) == 0.5
    assert distinct_ngrams(["a b", "c d"]) == 1
    assert np.isnan(distinct_ngrams(["a", "b"]))
    assert self_overlap(["a b c d e"] * 3) == 1
    assert self_overlap(["a b", "c d"]) == 0
    # 1-grams: 1/2 and 1/2 shared; 2-grams: none; no 3- or 4-grams
    assert self_overlap(["a b", "a c"]) == pytest.approx(0.25)
    # a word twice counts as often as one other text has it
    assert self_overlap(["a a", "a b", "a c"]) == pytest.approx((3 * 0.5 + 0) / 6)


def test_entropy_of_answers():
    assert answer_entropy(["1", "1", "1"]) == 0
    assert answer_entropy(["1", "2", "3", "4"]) == pytest.approx(2)
    assert answer_entropy(["Red", "red.", None, None]) == pytest.approx(1)


def test_measures_per_prompt_with_the_hashing_embedder():
    texts = {"same": ["a b c"] * 3, "other": ["a b", "c d", "e f"], "one": ["a b"]}
    rows = pd.DataFrame(
        [
            {
                "task": "t",
                "sample": name,
                "draw": draw,
                "output": f"<think> {text} </think> <answer> {draw} </answer>",
                "answer": str(draw),
            }
            for name, found in texts.items()
            for draw, text in [(-1, "never mind"), *enumerate(found)]
        ]
    )
    found = {
        name: v.droplevel("task").to_dict()
        for name, v in diversity_measures(rows, embedder()).items()
    }
    assert found["diversity"] == pytest.approx({"same": 0, "other": 1}, abs=1e-6)
    assert found["distinct-2"] == pytest.approx({"same": 1 / 3, "other": 1})
    assert found["self-overlap"] == {"same": 1, "other": 0}
    assert found["answer entropy"] == pytest.approx({"same": np.log2(3), "other": np.log2(3)})


def test_a_correlation_that_difficulty_makes_is_taken_out():
    rng = np.random.default_rng(2)
    hard = rng.normal(size=400)
    x, y = hard + rng.normal(size=400), hard + rng.normal(size=400)
    raw = correlation(x, y)
    assert raw.low > 0.3
    partial = correlation(x, y, controls=hard[:, None])
    xy, xz, yz = (reference.pearsonr(a, b)[0] for a, b in ((x, y), (x, hard), (y, hard)))
    assert partial.value == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    assert partial.low < 0 < partial.high


def test_strata_remove_what_lies_between_tasks():
    rng = np.random.default_rng(3)
    tasks = ["a"] * 100 + ["b"] * 100
    shift = np.repeat([0.0, 5.0], 100)
    x, y = shift + rng.normal(size=200), shift + rng.normal(size=200)
    assert correlation(x, y).value > 0.7
    within = correlation(x, y, controls=difficulty_controls(tasks, None)).value
    assert within == pytest.approx(
        reference.pearsonr(
            np.r_[x[:100] - x[:100].mean(), x[100:] - x[100:].mean()],
            np.r_[y[:100] - y[:100].mean(), y[100:] - y[100:].mean()],
        )[0]
    )
    assert difficulty_controls(tasks, shift).shape == (200, 2)


def test_intervals_of_clustered_rows_are_wider_and_nothing_comes_of_nothing():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 40))
    x, y = np.repeat(x, 5), np.repeat(y, 5)
    alone, clustered = (correlation(x, y, units=c) for c in (None, np.repeat(np.arange(40), 5)))
    assert clustered.high - clustered.low > 1.5 * (alone.high - alone.low)
    assert np.isnan(correlation(np.ones(20), y[:20], ranks=True).value)
    assert np.isnan(correlation(x[:3], y[:3]).value)
