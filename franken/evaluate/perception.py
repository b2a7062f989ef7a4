"""Perception or reasoning? What the arms of one model say together, as one value a prompt, so that
models can be paired.

The decomposition: P(correct) = P(D) P(correct | D) + P(not D) P(correct | not D), with D that the
model's own greedy description has every fact right that the question needs. P(D) is perception as
far as it can be said; P(correct | D) is what is left to reasoning. Description and answer are
separate replies: D says what the model can see, not what it saw.

Three levels of generalisation (SEED-Bench-R1's in-distribution to cross-task, arXiv 2503.24376, for
puzzles): a new state (held-out states of trained puzzles), a new rendering of it (the `restyled`
arm), and a new puzzle type (puzzles that were not trained).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from franken.evaluate.arms import DESCRIBE
from franken.evaluate.metrics import BY_PROMPT, GREEDY, RIGHT, per_prompt
from franken.evaluate.reading import KINDS

if TYPE_CHECKING:
    import pandas as pd

    from franken.evaluate.metrics import PromptValues

DECOMPOSITION = (
    "P(description right)",
    "P(correct | description right)",
    "P(correct | description wrong)",
)
LEVELS = ("new state", "new rendering", "new puzzle type")


def decomposition(samples: pd.DataFrame, arm: str = "image") -> PromptValues:
    """The three probabilities of `DECOMPOSITION`; the conditional ones over the prompts whose
    condition holds.

    From the rows of ONE model with the arms `arm` (its draws at temperature 1) and `describe`
    (greedy). Empty without both.
    """
    described = usable(samples, DESCRIBE)
    described = described[described["draw"] == GREEDY].set_index(BY_PROMPT)["score"].astype(float)
    correct = per_prompt(samples[samples["method"] == arm], "acc@1")
    both = described.index.intersection(correct.index, sort=False)
    if not len(both):
        return {}
    seen, correct = (described[both] > RIGHT).astype(float), correct[both]
    return dict(zip(DECOMPOSITION, (seen, correct[seen == 1], correct[seen == 0]), strict=True))


def facts_right(samples: pd.DataFrame) -> pd.Series:
    """The share of all facts that a description has right, the mean over the draws of each
    prompt.
    """
    rows = usable(samples, DESCRIBE)
    rows = rows[rows["draw"] != GREEDY]
    return (
        rows.assign(share=rows["facts_right"].astype(float))
        .groupby(BY_PROMPT, sort=False)["share"]
        .mean()
    )


def error_shares(samples: pd.DataFrame, arm: str = "image") -> PromptValues:
    """Kind → its share of a prompt's draws. With acc@1 they add up to one."""
    rows = usable(samples, arm)
    rows = rows[rows["draw"] != GREEDY]
    return {
        kind: rows.assign(hit=(rows["kind"] == kind).astype(float))
        .groupby(BY_PROMPT, sort=False)["hit"]
        .mean()
        for kind in KINDS
    }


def misled(samples: pd.DataFrame, arm: str) -> pd.Series:
    """How often the answer follows the wrong fact of a `corrupted` or `conflict` description."""
    rows = usable(samples, arm)
    rows = rows[rows["draw"] != GREEDY]
    return (
        rows.assign(hit=rows["misled"].eq(True).astype(float))
        .groupby(BY_PROMPT, sort=False)["hit"]
        .mean()
    )


def levels(samples: pd.DataFrame, trained: Collection[str]) -> PromptValues:
    """Level → acc@1 per prompt. Levels without a prompt are left out: no restyled arm, or no task
    outside of `trained`.
    """
    image, restyled = (
        per_prompt(samples[samples["method"] == arm], "acc@1") for arm in ("image", "restyled")
    )
    known, known_too = (
        v.index.get_level_values("task").isin(list(trained)) for v in (image, restyled)
    )
    measured = zip(LEVELS, (image[known], restyled[known_too], image[~known]), strict=True)
    return {level: values for level, values in measured if len(values)}


def usable(samples: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The rows of an arm that hold an answer."""
    return samples[
        (samples["method"] == arm) & samples["error"].isna() & samples["ineligible"].isna()
    ]
