"""M_vis, M_v2r and M_rea of the stages and the hybrids of a study, from evaluations that exist; no
model is asked.

One run folder: the scores of every label over its prompts, and each hybrid's gain over the parent,
paired by prompt, beside the gain of RL itself. p is Holm-adjusted over the hybrids of one score and
task; random layer sets give the band. Source of the scores: Frankenstein, arXiv 2602.12395, §4 and
appendix E (franken/evaluate/mscores.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from franken.errors import FrankenError, UsageError

Frame = Any


def run_scores(
    groups: Mapping[str, Sequence[Path]],
    *,
    parent: str,
    donor: str,
    hybrids: Mapping[str, Mapping[str, Any]],
    out: Path,
    seed: int = 0,
) -> Path:
    """Write the scores of `groups` (label → evaluations of that model, one arm in one of them) and
    return the folder.

    layers.parquet: `M_vis` … per label and task; `gain M_vis` … over `parent`, method `donor`,
    `hybrid` or `random`. A label of which nothing can be scored is a warning of the run. Raises
    FrankenError for a run that is not finished.
    """
    import pandas as pd

    from franken.evaluate.mscores import compare_m, m_rows, m_scores
    from franken.runs import load_run, open_run
    from franken.study.sweep import control_band

    loaded = {label: [load_run(f) for f in folders] for label, folders in groups.items()}
    identity = {
        "runs": {label: [r.folder.name for r in runs] for label, runs in loaded.items()},
        "parent": parent,
        "donor": donor,
        "hybrids": {label: list(h["layers"]) for label, h in hybrids.items()},
        "seed": seed,
    }
    models = {label: ", ".join(r.folder.name for r in runs) for label, runs in loaded.items()}
    run = open_run("scores", donor, identity, out, config=identity, models=models)
    if run.is_complete():
        return run.folder
    rows, layers, warnings, usable = [], [], [], {}
    for label, runs in loaded.items():
        try:
            table = pd.concat([r.samples for r in runs], ignore_index=True) if runs else None
            found = m_scores(table) if table is not None else {}
        except UsageError as e:
            warnings.append(f"{label}: {e.what}: {e.why}")
            continue
        if table is None:
            warnings.append(f"{label}: its evaluations failed")
            continue
        usable[label] = table
        layers += m_rows(table, label, seed=seed)
        rows += [
            {
                "model": label,
                "method": "greedy",
                "task": t,
                "sample": s,
                "metric": name,
                "value": v,
                "error": None,
            }
            for name, values in found.items()
            for (t, s), v in values.items()
        ]
    if not run.rows():
        run.append(rows)
    kinds = {label: "random" if h.get("control") else "hybrid" for label, h in hybrids.items()} | {
        donor: "donor"
    }
    gains: list[dict[str, Any]] = []
    for label in [x for x in kinds if x in usable and parent in usable]:
        try:
            gains += _gains(
                label, kinds[label], compare_m(usable[parent], usable[label], seed=seed)
            )
        except FrankenError as e:
            warnings.append(f"{label}: no gain over {parent}: {e.what}")
    _adjust(gains)
    extra = {"band": control_band(gains)}
    return run.finish([*layers, *gains], n_requested=len(rows), warnings=warnings, extra=extra)


def _gains(label: str, kind: str, compared: Frame) -> list[dict[str, Any]]:
    from franken.runs import layer_row

    return [
        layer_row(
            model=label,
            method=kind,
            part="text",
            task=row["task"],
            metric=f"gain {row['metric']}",
            value=row["diff"],
            ci_low=row["ci_low"],
            ci_high=row["ci_high"],
            n=row["n"],
            p_adjusted=row["p"],
        )
        for row in compared.to_dict("records")
    ]


def _adjust(gains: list[dict[str, Any]]) -> None:
    from franken.stats import holm

    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in gains:
        if row["method"] == "hybrid":
            families.setdefault((row["metric"], row["task"]), []).append(row)
    for rows in families.values():
        for row, p in zip(rows, holm([r["p_adjusted"] for r in rows]), strict=True):
            row["p_adjusted"] = p
