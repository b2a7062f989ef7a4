"""The three scores of the Frankenstein paper: vision, vision to reasoning, reasoning. Pure
functions of evaluation rows.

    M_vis   right with the image and wrong with a black one: what only the image can have given
    M_v2r   right with the image, and right with a black image beside the description
    M_rea   right from the text alone

of all prompts that both arms answered; a prompt that failed in one of them lowers n and counts as
neither. The paper has one answer a prompt, `greedy` here; over the draws at temperature 1 the arms
are paired draw by draw. The paper's M_rea is on other questions (MATH-500); here it is the same
questions, with the description in place of the image. Source: arXiv 2602.12395, §4 and appendix E.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from franken.errors import UsageError
from franken.evaluate.metrics import GREEDY, RIGHT, compare_values, spread

if TYPE_CHECKING:
    import pandas as pd

    from franken.evaluate.metrics import PromptValues
    from franken.runs import LayerRow

NEEDS: dict[str, tuple[str, ...]] = {
    "M_vis": ("image", "black"),
    "M_v2r": ("image", "black-text"),
    "M_rea": ("text",),
}
ARMS = ("image", "text", "black", "black-text")
SCORES = tuple(NEEDS)


def m_scores(samples: pd.DataFrame, *, greedy: bool = True) -> PromptValues:
    """Score → one value a prompt in [0, 1], indexed by (task, sample), from the rows of ONE model.

    Scores whose arms are not there are left out. Raises UsageError when none can be had.
    """
    right = answers_right(samples, greedy=greedy)
    tables = {
        name: right[list(arms)].dropna()
        for name, arms in NEEDS.items()
        if set(arms) <= set(right.columns)
    }
    if not tables:
        raise UsageError(
            "no M score can be had",
            f"the run's arms are {', '.join(right.columns)}",
            f"use --arms {','.join(ARMS)}",
        )
    hits = {
        name: table.iloc[:, 0] * (1 - table.iloc[:, 1]) if name == "M_vis" else table.prod(axis=1)
        for name, table in tables.items()
    }
    return {name: hit.groupby(["task", "sample"], sort=False).mean() for name, hit in hits.items()}


def m_rows(samples: pd.DataFrame, model: str, *, greedy: bool = True) -> list[LayerRow]:
    """The scores of one model as rows of layers.parquet, per task and for `all`, with intervals
    over prompts.
    """
    tasks = list(dict.fromkeys(samples["task"]))
    arm = "greedy" if greedy else "sampled"
    scores = m_scores(samples, greedy=greedy)
    return [
        row for name, v in scores.items() for row in spread(v, tasks, name, model=model, arm=arm)
    ]


def compare_m(
    a: pd.DataFrame, b: pd.DataFrame, *, greedy: bool = True, seed: int = 0
) -> pd.DataFrame:
    """The paired differences b - a of all scores that both have; columns as
    `franken.evaluate.metrics.compare_samples`.
    """
    import pandas as pd

    left, right = m_scores(a, greedy=greedy), m_scores(b, greedy=greedy)
    return pd.concat(
        [
            compare_values(left[name], right[name], name, seed=seed)
            for name in SCORES
            if name in left and name in right
        ],
        ignore_index=True,
    )


def answers_right(samples: pd.DataFrame, *, greedy: bool) -> pd.DataFrame:
    """A table (task, sample, draw) × arm of 1.0 right, 0.0 wrong, nan failed or never asked."""
    draws = samples[(samples["draw"] == GREEDY) == greedy]
    draws = draws[draws["error"].isna() & draws["ineligible"].isna()]
    right = draws.assign(right=(draws["score"].astype(float) > RIGHT).astype(float))
    return right.pivot(index=["task", "sample", "draw"], columns="method", values="right")
