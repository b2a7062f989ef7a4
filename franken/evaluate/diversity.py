"""How varied are a model's answers to one prompt, and does variety go with success?

Measures of the n draws of a prompt, all of their reasoning segments (franken/evaluate/embed.py):

    diversity        mean pairwise cosine distance of the embeddings (MUPO, arXiv 2604.00479, §3)
    distinct-2       different pairs of words over all pairs of words
    self-overlap     how much of a draw's 1- to 4-grams the other draws hold (as self-BLEU, without
                     brevity penalty or smoothing)
    answer entropy   of the answers given, in bits; no answer counts as one of them

Easy prompts have both right and uniform answers, so the raw correlation of diversity with acc@k
says little; `difficulty_controls` takes difficulty out. Source of the question: MUPO, figure 2 C
and D, which show a regression line without r, p or n.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from franken.evaluate.metrics import BY_PROMPT, GREEDY
from franken.tasks.grading import normalise

if TYPE_CHECKING:
    import pandas as pd

    from franken.evaluate.embed import Embed
    from franken.evaluate.metrics import PromptValues

ORDERS = (1, 2, 3, 4)  # of n-grams in the overlap
NO_ANSWER = "\0"


def diversity_measures(rows: pd.DataFrame, embed: Embed | None = None) -> PromptValues:
    """Measure → one value a prompt, from the usable rows of ONE model and ONE arm; prompts with one
    draw have none.
    """
    from franken.evaluate.embed import segment

    draws = rows[rows["draw"] != GREEDY]
    draws = draws.assign(segment=[segment(text) for text in draws["output"]])
    several = draws.groupby(BY_PROMPT, sort=False)["draw"].transform("size") > 1
    draws = draws[several]
    by = draws.groupby(BY_PROMPT, sort=False)

    def each(column: str, measure: Callable[[list], float]) -> pd.Series:
        return by[column].agg(lambda values: measure(list(values))).astype(float)

    of_words = {
        "distinct-2": each("segment", distinct_ngrams),
        "self-overlap": each("segment", self_overlap),
        "answer entropy": each("answer", answer_entropy),
    }
    if embed is None:
        return of_words
    vectors = embed(draws["segment"].tolist()).numpy() if len(draws) else np.zeros((0, 1))
    places = draws.assign(place=range(len(draws))).groupby(BY_PROMPT, sort=False)["place"]
    return {
        "diversity": places.agg(lambda at: mean_cosine_distance(vectors[list(at)])).astype(float),
        **of_words,
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


def difficulty_controls(tasks: Sequence[str], difficulty: np.ndarray | None) -> np.ndarray:
    """Control columns: one per task but the first (so that only differences within a task count),
    then the difficulty.
    """
    names = list(dict.fromkeys(tasks))
    columns = [np.array([t == name for t in tasks], float) for name in names[1:]]
    columns += [] if difficulty is None else [np.asarray(difficulty, float)]
    return np.stack(columns, 1) if columns else np.zeros((len(tasks), 0))


def _ngrams(text: str, order: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]
