"""The papers' own tables from what runs hold: who runs down, who across, and which paired test
stands beside.

Sources: Frankenstein, arXiv 2602.12395, tables 2 and 3; MUPO, arXiv 2604.00479, table 1 and figures
2, 3; Disentangling Perception and Reasoning, arXiv 2601.00215, tables 2 and 3. Those print no
intervals; here every measurement has one (in the cell, or with --csv where the layout has no room),
and p is of the paired difference from the reference that the note names, Holm-corrected over what
the note says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from franken.evaluate.measures import NOT_RATES
from franken.evaluate.metrics import ALL, GREEDY, compare_values, per_prompt, spread
from franken.evaluate.mscores import NEEDS, SCORES
from franken.evaluate.mscores import m_scores as greedy_scores
from franken.evaluate.perception import DECOMPOSITION, decomposition, error_shares
from franken.report.tables.table import Table
from franken.runs import RunSet as Holdings
from franken.runs import TrainingRun
from franken.runs.runset import ANSWERS
from franken.stats import holm

Frame = Any
Values = dict[str, Frame]  # metric → one value a prompt
DIVERSITY = ("diversity", "strategies", "distinct-2", "self-overlap", "answer entropy")


def has_m_scores(found: Holdings) -> bool:
    """Evaluations with the arms of a score, or a comparison that has one."""
    return any(_has_score(arms) for arms in found.arms().values()) or _has(found, SCORES)


def has_hybrids(found: Holdings) -> bool:
    """A merge sweep, or an autopsy with hybrids."""
    return bool(found.of("merge-sweep")) or bool(found.record and found.record.hybrids)


def has_freezing(found: Holdings) -> bool:
    """A freeze study, or an autopsy with frozen checkpoints."""
    return bool(found.freezing) or bool(found.record and found.record.frozen)


def has_draws(found: Holdings) -> bool:
    """Evaluations with the image and at least two draws a prompt."""
    runs = found.of(*ANSWERS)
    return any(
        (run.samples["draw"].max() > 0) and "image" in set(run.samples["method"]) for run in runs
    )


def has_diversity(found: Holdings) -> bool:
    """A comparison of evaluations, or evaluations with draws."""
    return _has(found, DIVERSITY) or has_draws(found)


def has_modality(found: Holdings) -> bool:
    """Evaluations with both arms."""
    return any({"image", "text"} <= arms for arms in found.arms().values())


def has_perception(found: Holdings) -> bool:
    """A comparison with the decomposition, or evaluations with descriptions."""
    return _has(found, DECOMPOSITION) or any(
        {"image", "describe"} <= arms for arms in found.arms().values()
    )


def has_designs(found: Holdings) -> bool:
    """A training run with rewards."""
    return any(run.rewards for run in found.training)


def _has(found: Holdings, metrics: tuple[str, ...]) -> bool:
    return any(run.layers["metric"].isin(metrics).any() for run in found.of("compare"))


def _has_score(arms: set[str]) -> bool:
    return any(set(needed) <= arms for needed in NEEDS.values())


def m_scores(found: Holdings) -> list[Table]:
    """A row a model, a column a score: from evaluations, or from a comparison of some."""
    answers = found.answers()
    rows = _measured(answers, _m_scores)
    if rows:
        note = "Greedy answers, macro over tasks. " + _against(answers)
    else:
        rows = _compared(found, SCORES, method="greedy")
        note = "Greedy answers, macro over tasks. Rows `b - a` are paired differences."
    table = [
        Table(
            "m-scores", "M scores", _frame(rows), ("model",), ("metric",), percent=True, note=note
        )
    ]
    return table if len(rows) else []


def hybrids(found: Holdings) -> list[Table]:
    """Parents and hybrids side by side: rows are tasks and M scores, columns models. Or the gains
    of a merge sweep.
    """
    import pandas as pd

    made = []
    for run in found.of("merge-sweep"):
        rows: Any = run.layers[run.layers["metric"].str.startswith("gain ")]
        note = f"Paired differences from {run.manifest.models['base']!r}; p is Holm-adjusted over the windows."
        title = "Hybrids: what they gain over their base"
        made.append(
            Table("hybrids", title, rows, ("metric", "task"), ("model",), percent=True, note=note)
        )
    if found.record and found.record.hybrids:
        names = [n for n in ("base", "sft", *found.record.hybrids, "rl") if n in found.answers()]
        answers = {name: found.answers()[name] for name in names}
        parent = "sft" if "sft" in answers else "base"
        if parent in answers and len(answers) > 2:
            rows = _measured(answers, _skill, parent, every_task=True)
            note = (
                f"Image arm; p is paired against {parent}, Holm-corrected over the models of a row."
            )
            made.append(
                Table(
                    "hybrids",
                    "Hybrids beside their parents",
                    pd.DataFrame(rows),
                    ("metric", "task"),
                    ("model",),
                    percent=True,
                    note=note,
                )
            )
    return made


def freezing(found: Holdings) -> list[Table]:
    """Frozen layer sets: of a freeze study its arms, of an autopsy its frozen checkpoints, beside
    start and plain RL.
    """
    made = freeze_study(found)
    frozen = found.record.frozen if found.record else {}
    answers = (
        {n: rows for n, rows in found.answers().items() if n in ("sft", "rl", *frozen)}
        if frozen
        else {}
    )
    if "rl" in answers and len(answers) > 1:
        rows = _measured(answers, _skill, "rl", every_task=True)
        note = "Image arm; p is paired against rl, Holm-corrected over the models of a column."
        made.append(
            Table(
                "freezing",
                "RL with layers frozen",
                _frame(rows),
                ("model",),
                ("metric", "task"),
                percent=True,
                note=note,
            )
        )
    return made


def freeze_study(found: Holdings) -> list[Table]:
    """Each arm by what froze, was reverted or grafted: acc@1, and the differences from plain RL and
    from the start.
    """
    made = []
    for study in found.freezing:
        parts = []
        for name, value, low, high in (
            ("acc@1", "value", "low", "high"),
            ("minus plain RL", "minus_none", "minus_none_low", "minus_none_high"),
            ("minus start", "minus_start", "minus_start_low", "minus_start_high"),
        ):
            mine = study[study["metric"] == "acc@1"]
            part = mine[["run", "arm", "layers", "kind", "n"]].assign(
                what=name, value=mine[value], ci_low=mine[low], ci_high=mine[high], p_adjusted=None
            )
            own = {"minus plain RL": "none", "minus start": "start"}.get(name)
            parts.append(part[part["arm"] != own])
        import pandas as pd

        seeds = int(study["seeds"].iloc[0])
        note = f"{seeds} seeds, paired by seed and puzzle; not corrected for the number of arms."
        rows = pd.concat(parts, ignore_index=True)
        made.append(
            Table(
                "freezing",
                "Frozen, reverted and grafted layer sets",
                rows,
                ("arm", "layers", "kind"),
                ("what",),
                percent=True,
                note=note,
            )
        )
    return made


def acc_at_k(found: Holdings) -> list[Table]:
    """A row a model, a column a task and the average, a cell `acc@1/acc@k`, both at temperature 1;
    a table for each k drawn.
    """
    answers = {
        n: s[s["method"] == "image"]
        for n, s in found.answers().items()
        if "image" in set(s["method"])
    }
    draws = {name: _draws(samples) for name, samples in answers.items()}
    several = sorted({k for k in draws.values() if k > 1}, reverse=True)
    return [
        _acc_at(k, {name: samples for name, samples in answers.items() if draws[name] == k})
        for k in several
    ]


def _acc_at(k: int, answers: dict[str, Frame]) -> Table:
    rows = []
    for name, image in answers.items():
        for metric in ("acc@1", f"acc@{k}"):
            rows += spread(
                per_prompt(image, metric),
                list(dict.fromkeys(image["task"])),
                metric,
                model=name,
                arm="image",
            )
    table = _frame(
        sorted(rows, key=lambda row: row["task"] == ALL)
    )  # the average is the last column
    widest = 50 * float((table["ci_high"] - table["ci_low"]).max())
    several = table.loc[table["task"] != ALL, "n"].dropna()
    asked = (
        f"{int(several.min())}"
        if several.nunique() == 1
        else f"{int(several.min())} to {int(several.max())}"
    )
    note = (
        f"Cells are acc@1/acc@{k}, both at temperature 1 (the paper's acc@1 is greedy); {asked} prompts a task; the widest "
        f"95 % interval is ±{widest:.1f}, --csv has them all."
    )
    table["task"] = table["task"].where(table["task"] != ALL, "average")
    return Table(
        "acc@k",
        f"acc@1/acc@{k}",
        table,
        ("model",),
        ("task",),
        percent=True,
        pair="metric",
        note=note,
    )


def diversity(found: Holdings) -> list[Table]:
    """Diversity measures beside accuracy by model: of comparisons as measured, of evaluations what
    needs no embedding.
    """
    from franken.evaluate.diversity import diversity_measures
    from franken.evaluate.perception import usable

    stored = _compared(found, (*DIVERSITY, "acc@1", "acc@4"), method="image")
    if len(stored):
        note = "Image arm, macro over tasks. Rows `b - a` are paired differences."
        return [
            Table("diversity", "Diversity and accuracy", stored, ("model",), ("metric",), note=note)
        ]
    answers = {
        n: s for n, s in found.answers().items() if "image" in set(s["method"]) and _draws(s) > 1
    }

    def measure(samples: Frame) -> Values:
        image = samples[samples["method"] == "image"]
        k = _draws(samples)
        accuracy = {"acc@1": per_prompt(image, "acc@1"), f"acc@{k}": per_prompt(image, f"acc@{k}")}
        return {
            "strategies": per_prompt(image, "strategies"),
            **diversity_measures(usable(samples, "image")),
            **accuracy,
        }

    rows = _measured(answers, measure)
    note = (
        "Image arm, macro over tasks; the cosine diversity needs `franken eval` of several models. "
        + _against(answers)
    )
    return (
        [
            Table(
                "diversity",
                "Diversity and accuracy",
                _frame(rows),
                ("model",),
                ("metric",),
                note=note,
            )
        ]
        if rows
        else []
    )


def modality(found: Holdings) -> list[Table]:
    """Rows are tasks, columns models with the image and with the text in its place, greedy answers."""
    answers = {n: s for n, s in found.answers().items() if {"image", "text"} <= set(s["method"])}
    rows = []
    for name, samples in answers.items():
        for arm in ("image", "text"):
            part = samples[samples["method"] == arm]
            rows += spread(
                per_prompt(part, "greedy"),
                list(dict.fromkeys(part["task"])),
                "greedy",
                model=name,
                arm=arm,
            )
    if not rows:
        return []
    table = _frame(rows).rename(columns={"method": "arm"})
    return [
        Table(
            "modality",
            "With the image, and with its text instead",
            table,
            ("task",),
            ("model", "arm"),
            percent=True,
            note="Greedy answers.",
        )
    ]


def perception(found: Holdings) -> list[Table]:
    """Rows are models: P(description right), P(correct | …), and what went wrong as shares of the
    answers.
    """
    kinds = (
        "error: perception",
        "error: algorithm",
        "error: self-contradiction",
        "error: never stops",
        "error: unclear",
    )
    stored = _compared(found, (*DECOMPOSITION, "facts right", *kinds), method=None)
    title = "Perception or reasoning"
    if len(stored):
        note = "Macro over tasks. Rows `b - a` are paired differences."
        return [
            Table("perception", title, stored, ("metric",), ("model",), percent=True, note=note)
        ]
    answers = {
        n: s for n, s in found.answers().items() if {"image", "describe"} <= set(s["method"])
    }

    def measure(samples: Frame) -> Values:
        return {
            **decomposition(samples),
            **{f"error: {kind}": v for kind, v in error_shares(samples).items()},
        }

    rows = _measured(answers, measure)
    note = "Macro over tasks. " + _against(answers)
    return (
        [Table("perception", title, _frame(rows), ("metric",), ("model",), percent=True, note=note)]
        if rows
        else []
    )


def designs(found: Holdings) -> list[Table]:
    """Training runs by their rewards and weights, and the held-out scores they ended with."""
    rows = []
    for run in found.training:
        rewards = " + ".join(f"{weight:g} {name}" for name, weight in run.rewards.items())
        rows += [{"rewards": rewards, **row} for row in _held_out(run) if rewards]
    note = "Held-out scores at the last look; the log keeps no interval for them. `franken eval` of the checkpoint has."
    return (
        [
            Table(
                "designs",
                "Rewards and what they reached",
                _frame(rows),
                ("run", "rewards"),
                ("metric",),
                percent=True,
                note=note,
            )
        ]
        if rows
        else []
    )


def training(found: Holdings) -> list[Table]:
    """Training runs by their last held-out scores."""
    rows = [row for run in found.training for row in _held_out(run)]
    note = "Held-out scores at the last look; the log keeps no n and no interval for them."
    return (
        [
            Table(
                "training",
                "Training runs",
                _frame(rows),
                ("run", "update"),
                ("metric",),
                percent=True,
                note=note,
            )
        ]
        if (rows)
        else []
    )


def _held_out(run: TrainingRun) -> list[dict]:
    last = next((update for update in reversed(run.updates) if update.held_out), None)
    if last is None or last.held_out is None:
        return []
    blank = {"ci_low": None, "ci_high": None, "n": None, "p_adjusted": None}
    return [
        {"run": run.folder.name, "update": last.update, "metric": metric, "value": value, **blank}
        for metric, value in last.held_out.items()
    ]


def _m_scores(samples: Frame) -> Values:
    """The paper's greedy scores; none where no arm of theirs was asked."""
    return greedy_scores(samples) if _has_score(set(samples["method"])) else {}


def _skill(samples: Frame) -> Values:
    return {
        "acc@1": per_prompt(samples[samples["method"] == "image"], "acc@1"),
        **_m_scores(samples),
    }


def _draws(samples: Frame) -> int:
    """The draws that every prompt has in the image arm."""
    image = samples[(samples["method"] == "image") & (samples["draw"] != GREEDY)]
    return int(image.groupby(["task", "sample"]).size().min()) if len(image) else 0


def _measured(
    answers: dict[str, Frame],
    measure: Callable[[Frame], Values],
    reference: str = "",
    *,
    every_task: bool = False,
) -> list[dict]:
    """Rows of layers.parquet over all tasks; p of the paired difference from the reference, Holm
    over the models.
    """
    values = {name: measure(samples) for name, samples in answers.items()}
    if every_task:  # who stand side by side are measured alike
        shared = set.intersection(*(set(found) for found in values.values()))
        values = {
            name: {m: v for m, v in found.items() if m in shared} for name, found in values.items()
        }
    reference = reference or next((name for name, found in values.items() if found), "")
    rows, tests = [], []
    for name, found in values.items():
        for metric, per in found.items():
            tasks = list(dict.fromkeys(per.index.get_level_values("task")))
            made = spread(per, tasks, metric, model=name, arm="", counts=metric in NOT_RATES)
            made = made if every_task else made[-1:]
            if name != reference and metric in values.get(reference, {}):
                tests += _paired(values[reference][metric], per, metric, made)
            rows += made
    families: dict[tuple[str, str], list[tuple[dict, float]]] = {}
    for row, p in tests:
        families.setdefault((row["metric"], row["task"]), []).append((row, p))
    for family in families.values():
        for (row, _), p in zip(family, holm([p for _, p in family]), strict=True):
            row["p_adjusted"] = p
    return rows


def _paired(
    reference: Frame, values: Frame, metric: str, rows: list[dict]
) -> list[tuple[dict, float]]:
    if not len(reference.dropna().index.intersection(values.dropna().index)):
        return []
    p = {
        row["task"]: row["p"]
        for row in compare_values(reference, values, metric).to_dict("records")
    }
    return [(row, p[row["task"]]) for row in rows if row["task"] in p]


def _compared(found: Holdings, metrics: tuple[str, ...], *, method: str | None) -> Frame:
    """Rows of comparisons of evaluations over all tasks, in the order of `metrics`."""
    import pandas as pd

    parts = []
    for run in found.of("compare"):
        rows: Any = run.layers[(run.layers["task"] == ALL) & run.layers["metric"].isin(metrics)]
        rows = rows[rows["method"] == method] if method else rows
        parts.append(
            rows.assign(order=rows["metric"].map(list(metrics).index)).sort_values(
                "order", kind="stable"
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _frame(rows: Any) -> Frame:
    import pandas as pd

    table: Any = pd.DataFrame(rows)
    return table if "p_adjusted" in table or not len(table) else table.assign(p_adjusted=None)


def _against(answers: dict[str, Frame]) -> str:
    first = next(iter(answers), "")
    return (
        f"p is paired against {first}, Holm-corrected over the models." if len(answers) > 1 else ""
    )
