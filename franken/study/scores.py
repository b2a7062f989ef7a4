"""M_vis, M_v2r and M_rea of the stages and the hybrids of a study, from evaluations that exist; no
model is asked.

One run folder: the scores of every label over its prompts, and each hybrid's gain over the parent,
paired by prompt, beside the gain of RL itself. p is Holm-adjusted over the hybrids of one score and
task; random layer sets give the band. Source of the scores: Frankenstein, arXiv 2602.12395, §4 and
appendix E (franken/evaluate/mscores.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from franken.errors import FrankenError, UsageError
from franken.evaluate.mscores import compare_m, m_rows, m_scores
from franken.runs import load_run, open_run
from franken.runs.columns import ANSWER
from franken.study.gains import adjust, control_band, gain_rows

SCORED = (*ANSWER, "score", "error", "ineligible")  # the columns that scores are made of


def run_scores(
    runs: Sequence[Path],
    *,
    parent: str,
    donor: str,
    random: Collection[str] = (),
    out: Path,
) -> Path:
    """Write the scores of evaluations, several of one label taken together, and return the folder.

    layers.parquet: `M_vis` … per label and task; `gain M_vis` … over `parent`, method `donor`,
    `hybrid` (every label with a graft) or `random` (the labels that `random` names). A label of
    which nothing can be scored is a warning of the run. Raises FrankenError for a run that is not
    finished.
    """
    if len({folder.resolve() for folder in runs}) < len(runs):
        raise UsageError(
            "one run is given twice", why="its answers would count twice", fix="name each run once"
        )
    loaded = [load_run(folder) for folder in runs]
    groups = {run.manifest.label: [] for run in loaded}
    for run in loaded:
        groups[run.manifest.label].append(run)
    grafted = [run.manifest.label for run in loaded if run.manifest.config.graft]
    kinds = {label: "random" if label in random else "hybrid" for label in grafted}
    kinds[donor] = "donor"
    identity = {
        "runs": {label: [run.folder.name for run in of] for label, of in groups.items()},
        "parent": parent,
        "donor": donor,
        "random": sorted(random),
    }
    models = {label: ", ".join(run.folder.name for run in of) for label, of in groups.items()}
    with open_run("scores", donor, identity, out, config=identity, models=models) as result:
        if result.is_complete():
            return result.folder
        rows, layers, warnings, tables = [], [], [], {}
        for label, of in groups.items():
            table = pd.concat([run.answers(*SCORED) for run in of], ignore_index=True)
            if table.duplicated(list(ANSWER)).any():
                raise FrankenError(
                    f"two runs of {label} hold the same answers",
                    why=", ".join(run.folder.name for run in of),
                    fix="give one of them, or name them apart with --label",
                )
            try:
                scores = m_scores(table)
            except UsageError as e:
                warnings.append(f"{label}: {e.what}: {e.why}")
                continue
            tables[label] = table
            layers += m_rows(table, label)
            rows += [
                {
                    "model": label,
                    "method": "greedy",
                    "task": task,
                    "sample": sample,
                    "metric": name,
                    "value": value,
                    "error": None,
                }
                for name, values in scores.items()
                for (task, sample), value in values.items()
            ]
        if not result.rows():
            result.append(rows)
        gains = []
        for label in [x for x in kinds if x in tables and parent in tables]:
            try:
                compared = compare_m(tables[parent], tables[label])
            except FrankenError as e:
                warnings.append(f"{label}: no gain over {parent}: {e.what}")
                continue
            gains += gain_rows(compared, "gain", label, kinds[label])
        gains = adjust(gains, "hybrid")
        extra = {"band": control_band(gains)}
        return result.finish(
            [*layers, *gains], n_requested=len(rows), warnings=warnings, extra=extra
        )
