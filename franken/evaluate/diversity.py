"""How varied are a model's answers to one prompt, and does variety go with success?

Measures of the n draws of a prompt, all of their reasoning segments (franken/evaluate/embed.py):

    diversity        mean pairwise cosine distance of the embeddings (MUPO, arXiv 2604.00479, §3)
    distinct-2       different pairs of words over all pairs of words
    self-overlap     how much of a draw's 1- to 4-grams the other draws hold (as self-BLEU, without
                     brevity penalty or smoothing)
    answer entropy   of the answers given, in bits; no answer counts as one of them

`association` gives Pearson's and Spearman's correlation with bootstrap intervals. Easy prompts have
both right and uniform
answers, so the raw correlation of diversity with acc@k says little; `controls` takes difficulty
out. Source of the question: MUPO, figure 2 C and D, which show a regression line without r, p or n.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from franken.evaluate.metrics import GREEDY
from franken.stats import Estimate
from franken.tasks.grading import normalise

if TYPE_CHECKING:
    from franken.evaluate.embed import Embed

Frame = Any
BY_PROMPT = ["task", "sample"]
ORDERS = (1, 2, 3, 4)  # of n-grams in the overlap
NO_ANSWER = "\0"


def diversity_measures(rows: Frame, embed: Embed | None = None) -> dict[str, Frame]:
    """Measure → one value a prompt, from the usable rows of ONE model and ONE arm; prompts with one
    draw have none.
    """
    from franken.evaluate.embed import segment

    draws = rows[rows["draw"] != GREEDY]
    draws = draws.assign(segment=[segment(text) for text in draws["output"]])
    several = draws.groupby(BY_PROMPT, sort=False)["draw"].transform("size") > 1
    draws = draws[several]
    by = draws.groupby(BY_PROMPT, sort=False)

    def each(column: str, measure: Callable[[list], float]) -> Frame:
        return by[column].agg(lambda values: measure(list(values))).astype(float)

    found = {
        "distinct-2": each("segment", distinct_ngrams),
        "self-overlap": each("segment", self_overlap),
        "answer entropy": each("answer", answer_entropy),
    }
    if embed is None:
        return found
    vectors = embed(draws["segment"].tolist()).numpy() if len(draws) else np.zeros((0, 1))
    places = draws.assign(place=range(len(draws))).groupby(BY_PROMPT, sort=False)["place"]
    return {
        "diversity": places.agg(lambda at: mean_cosine_distance(vectors[list(at)])).astype(float),
        **found,
    }


def mean_cosine_distance(vectors: np.ndarray) -> float:
    """The mean of 1 - cosine over all pairs of rows; rows have length one, and there are two or
    more of them.
    """
    n = len(vectors)
    length = float(
        (vectors.astype(np.float64).sum(0) ** 2).sum()
    )  # = n + the sum of cosines over ordered pairs
    return max(0.0, 1.0 - (length - n) / (n * (n - 1)))


def distinct_ngrams(texts: Sequence[str], order: int = 2) -> float:
    """Different n-grams over all n-grams of the texts; nan when there is none."""
    grams = [gram for text in texts for gram in _ngrams(text, order)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def self_overlap(texts: Sequence[str]) -> float:
    """Mean over texts and orders of the share of a text's n-grams that another text holds, counted
    at most as often.
    """
    scores = []
    for order in ORDERS:
        counts = [Counter(_ngrams(text, order)) for text in texts]
        for i, own in enumerate(counts):
            if not own:
                continue
            others = Counter()
            for j, other in enumerate(counts):
                if j != i:
                    others |= other  # the larger count of any one text, as in BLEU
            scores.append((own & others).total() / own.total())
    return float(np.mean(scores)) if scores else float("nan")


def answer_entropy(answers: Sequence[str | None]) -> float:
    """Shannon entropy of the answers in bits."""
    counts = Counter(normalise(a) if isinstance(a, str) else NO_ANSWER for a in answers)
    shares = np.array(list(counts.values())) / len(answers)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def association(
    x: np.ndarray,
    y: np.ndarray,
    *,
    ranks: bool,
    controls: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Pearson's correlation (of ranks: Spearman's) of x and y, partial given the columns of
    `controls`.

    The 95 % interval is a percentile bootstrap over rows, or over `clusters` of rows (prompts,
    where several models answer one). nan where there are fewer than four rows or nothing varies.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    known = ~(np.isnan(x) | np.isnan(y))
    controls = np.zeros((len(x), 0)) if controls is None else np.asarray(controls, float)
    known &= ~np.isnan(controls).any(axis=1)
    x, y, controls = x[known], y[known], controls[known]
    units = (
        np.arange(len(x))
        if clusters is None
        else np.unique(np.asarray(clusters)[known], return_inverse=True)[1]
    )
    ordinal = [
        i for i, c in enumerate(controls.T) if len(np.unique(c)) > 2
    ]  # two values mean the same ranked or not
    value = _partial(x, y, controls, ranks, ordinal)
    if np.isnan(value):
        return Estimate(value, value, value)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(units == u) for u in range(units.max() + 1)]
    drawn = []
    for _ in range(n_boot):
        at = np.concatenate([members[u] for u in rng.integers(0, len(members), len(members))])
        drawn.append(_partial(x[at], y[at], controls[at], ranks, ordinal))
    kept = [d for d in drawn if not np.isnan(d)]
    low, high = np.quantile(kept, [0.025, 0.975]) if kept else (float("nan"), float("nan"))
    return Estimate(value, float(low), float(high))


def difficulty_controls(tasks: Sequence[str], difficulty: np.ndarray | None) -> np.ndarray:
    """Control columns: one per task but the first (so that only differences within a task count),
    then the difficulty.
    """
    names = list(dict.fromkeys(tasks))
    columns = [np.array([t == name for t in tasks], float) for name in names[1:]]
    columns += [] if difficulty is None else [np.asarray(difficulty, float)]
    return np.stack(columns, 1) if columns else np.zeros((len(tasks), 0))


def _partial(
    x: np.ndarray, y: np.ndarray, controls: np.ndarray, ranks: bool, ordinal: Sequence[int]
) -> float:
    from scipy.stats import rankdata

    if len(x) < 4 + controls.shape[1]:
        return float("nan")
    if ranks:
        x, y = rankdata(x), rankdata(y)
        controls = controls.copy()
        for i in ordinal:
            controls[:, i] = rankdata(controls[:, i])
    design = np.column_stack([np.ones(len(x)), controls])
    x, y = (v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (x, y))
    size = np.linalg.norm(x) * np.linalg.norm(y)
    small = 1e-9 * len(x)
    if np.linalg.norm(x) < small or np.linalg.norm(y) < small:
        return float("nan")
    return float(x @ y / size)


def _ngrams(text: str, order: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]
