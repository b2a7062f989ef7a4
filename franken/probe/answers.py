"""The columns of rows whose method changed the model's run and let it answer: the answer, judged
against the plain one.

In 16 bits a row's answer depends on what it is batched with. There every row that changed is run
again alone, with nothing but the rows that it is compared with, and judged by that: `rerun` says
which, `batched_output` what the batch had said. In fp32 the two agree (tested) and nothing is run
twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from franken import tasks
from franken.generate import Response
from franken.models.loading import Loaded
from franken.probe.scores import same_answer, same_text

if TYPE_CHECKING:
    import pandas as pd

    from franken.tasks import Pair


@dataclass(frozen=True)
class Answered:
    """An answer under an intervention, the plain one (`baseline`), and the source image's; what was
    not measured is null. KL is in nats, plain ‖ changed.
    """

    output: str | None = None
    baseline: str | None = None
    source_output: str | None = None
    changed: bool | None = None
    task_changed: bool | None = None
    to_source: bool | None = None
    score: float | None = None
    baseline_score: float | None = None
    reason: str | None = None
    truncated: bool | None = None
    baseline_truncated: bool | None = None
    kl: float | None = None
    logit_difference: float | None = None
    baseline_logit_difference: float | None = None
    rerun: bool | None = None
    batched_output: str | None = None


def judge(
    pair: Pair,
    now: Response,
    plain: Response,
    source: Response | None = None,
    batched: str | None = None,
) -> Answered:
    """Compare an answer with the plain one and the source's, and grade it against the target's
    truth. `batched` is what the batch had said, where the row ran again alone.
    """
    grade = tasks.grade(now.text, pair.target)
    other = None if source is None else source.text
    to_source = None
    if other is not None:
        to_source = same_answer(now.text, other, pair.target)
        to_source = to_source and not same_answer(other, plain.text, pair.target)
    return Answered(
        output=now.text,
        baseline=plain.text,
        source_output=other,
        changed=not same_text(now.text, plain.text),
        task_changed=not same_answer(now.text, plain.text, pair.target),
        to_source=to_source,
        score=grade.score,
        baseline_score=tasks.grade(plain.text, pair.target).score,
        reason=grade.reason,
        truncated=now.truncated,
        baseline_truncated=plain.truncated,
        rerun=batched is not None,
        batched_output=batched,
    )


def is_doubtful(loaded: Loaded, now: Response, plain: Response) -> bool:
    """Whether a row's change might be the batch's rounding."""
    return now.text != plain.text and loaded.model.dtype != torch.float32


def reruns(samples: pd.DataFrame) -> dict[str, int]:
    """How many rows were run again alone, and how many of those then had not changed."""
    again = samples.loc[samples["rerun"].eq(other=True)]
    return {"rows": len(again), "unchanged_alone": int(again["changed"].eq(other=False).sum())}
