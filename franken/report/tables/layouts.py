"""The papers' own tables from what runs hold: who runs down, who across, and which paired test
stands beside.

Sources: Frankenstein, arXiv 2602.12395, tables 2 and 3; MUPO, arXiv 2604.00479, table 1 and figures
2, 3; Disentangling Perception and Reasoning, arXiv 2601.00215, tables 2 and 3. Those print no
intervals; here every measurement has one (in the cell, or with --csv where the layout has no room),
and p is of the paired difference from the reference that the note names, Holm-corrected over what
the note says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import pandas as pd

from franken.evaluate.diversity import diversity_measures
from franken.evaluate.measures import NOT_RATES
from franken.evaluate.metrics import ALL, GREEDY, compare_values, per_prompt, spread
from franken.evaluate.mscores import NEEDS, SCORES
from franken.evaluate.mscores import m_scores as greedy_scores
from franken.evaluate.perception import DECOMPOSITION, decomposition, error_shares, usable
from franken.report import theme as look
from franken.report.tables.measurements import NUMBERS, Measurements
from franken.runs import RunSet, TrainingRun
from franken.runs.runset import ANSWERS
from franken.stats import holm

if TYPE_CHECKING:
    from franken.evaluate.metrics import PromptValues
    from franken.runs.runset import Answers

DIVERSITY = ("diversity", "strategies", "distinct-2", "self-overlap", "answer entropy")
MACRO = "macro over tasks."
DIFFERENCES = "Rows `b - a` are paired differences."


def has_m_scores(runset: RunSet) -> bool:
    """Evaluations with the arms of a score, or a comparison that has one."""
    return any(_has_score(arms) for arms in runset.arms().values()) or _has(runset, SCORES)


def has_hybrids(runset: RunSet) -> bool:
    """A merge sweep, or an autopsy with hybrids."""
    return bool(runset.of("merge-sweep")) or bool(runset.record and runset.record.hybrids)


def has_freezing(runset: RunSet) -> bool:
    """A freeze study, or an autopsy with frozen checkpoints."""
    return bool(runset.freezing) or bool(runset.record and runset.record.frozen)


def has_draws(runset: RunSet) -> bool:
    """Evaluations with the image and at least two draws a prompt."""
    answers = [run.samples for run in runset.of(*ANSWERS)]
    return any(s["draw"].max() > 0 and "image" in set(s["method"]) for s in answers)


def has_diversity(runset: RunSet) -> bool:
    """A comparison of evaluations, or evaluations with draws."""
    return _has(runset, DIVERSITY) or has_draws(runset)


def has_modality(runset: RunSet) -> bool:
    """Evaluations with both arms."""
    return any({"image", "text"} <= arms for arms in runset.arms().values())


def has_perception(runset: RunSet) -> bool:
    """A comparison with the decomposition, or evaluations with descriptions."""
    described = any({"image", "describe"} <= arms for arms in runset.arms().values())
    return described or _has(runset, DECOMPOSITION)


def has_designs(runset: RunSet) -> bool:
    """A training run with rewards."""
    return any(run.rewards for run in runset.training)


def m_scores(runset: RunSet) -> list[Measurements]:
    """A row a model, a column a score: from evaluations, or from a comparison of some."""
    answers = runset.answers()
    rows = _measured(answers, _m_scores)
    note = f"Greedy answers, {MACRO} {_against(answers) if len(rows) else DIFFERENCES}"
    rows = rows if len(rows) else _compared(runset, SCORES, method="greedy")
    return _made("m-scores", "M scores", rows, ("model",), ("metric",), note, percent=True)


def hybrids(runset: RunSet) -> list[Measurements]:
    """Parents and hybrids side by side: rows are tasks and M scores, columns models. Or the gains
    of a merge sweep.
    """
    made = []
    layout = ("metric", "task"), ("model",)
    for run in runset.of("merge-sweep"):
        rows = run.layers[run.layers["metric"].str.startswith("gain ")]
        base = run.manifest.models["base"]
        note = f"Paired differences from {base!r}; p is Holm-adjusted over the windows."
        title = "Hybrids: what they gain over their base"
        made.append(Measurements("hybrids", title, rows, *layout, percent=True, note=note))
    spliced = runset.record.hybrids if runset.record else {}
    names = [n for n in ("base", "sft", *spliced, "rl") if n in runset.answers()]
    answers = {name: runset.answers()[name] for name in names}
    parent = "sft" if "sft" in answers else "base"
    if spliced and parent in answers and len(answers) > 2:
        rows = _measured(answers, _skill, parent, every_task=True)
        note = f"Image arm; p is paired against {parent}, Holm-corrected over the models of a row."
        made += _made("hybrids", "Hybrids beside their parents", rows, *layout, note, percent=True)
    return made


def freezing(runset: RunSet) -> list[Measurements]:
    """Frozen layer sets: of a freeze study its arms, of an autopsy its frozen checkpoints, beside
    start and plain RL.
    """
    made = freeze_study(runset)
    frozen = runset.record.frozen if runset.record else {}
    answers = {n: s for n, s in runset.answers().items() if n in ("sft", "rl", *frozen)}
    if frozen and "rl" in answers and len(answers) > 1:
        rows = _measured(answers, _skill, "rl", every_task=True)
        note = "Image arm; p is paired against rl, Holm-corrected over the models of a column."
        title = "RL with layers frozen"
        layout = ("model",), ("metric", "task")
        made += _made("freezing", title, rows, *layout, note, percent=True)
    return made


def freeze_study(runset: RunSet) -> list[Measurements]:
    """Each arm by what froze, was reverted or grafted: acc@1, and the differences from plain RL and
    from the start.
    """
    made = []
    for study in runset.freezing:
        arms = study[study["metric"] == "acc@1"]
        parts = []
        for what, value, ends, own in (
            ("acc@1", "value", "", ""),
            ("minus plain RL", "minus_none", "minus_none_", "none"),
            ("minus start", "minus_start", "minus_start_", "start"),
        ):
            low, high = arms[f"{ends}low"], arms[f"{ends}high"]
            keys = arms[["run", "arm", "layers", "kind", "n"]]
            part = keys.assign(what=what, value=arms[value], ci_low=low, ci_high=high)
            parts.append(part[part["arm"] != own])
        seeds = int(study["seeds"].iloc[0])
        note = f"{seeds} seeds, paired by seed and puzzle; not corrected for the number of arms."
        title = "Frozen, reverted and grafted layer sets"
        rows = pd.concat(parts, ignore_index=True)
        down = ("arm", "layers", "kind")
        made += _made("freezing", title, rows, down, ("what",), note, percent=True)
    return made


def acc_at_k(runset: RunSet) -> list[Measurements]:
    """A row a model, a column a task and the average, a cell `acc@1/acc@k`, both at temperature 1;
    a table for each k drawn.
    """
    answers = {n: s[s["method"] == "image"] for n, s in runset.answers().items()}
    draws = {name: _draws(samples) for name, samples in answers.items()}
    several = sorted({k for k in draws.values() if k > 1}, reverse=True)
    return [_acc_at(k, {n: s for n, s in answers.items() if draws[n] == k}) for k in several]


def _acc_at(k: int, answers: Answers) -> Measurements:
    rows = []
    for name, image in answers.items():
        tasks = list(dict.fromkeys(image["task"]))
        for metric in ("acc@1", f"acc@{k}"):
            rows += spread(per_prompt(image, metric), tasks, metric, model=name, arm="image")
    rows.sort(key=lambda row: row["task"] == ALL)  # the average is the last column
    table = pd.DataFrame(rows)
    widest = 50 * float((table["ci_high"] - table["ci_low"]).max())
    counts = sorted(set(table.loc[table["task"] != ALL, "n"].dropna().astype(int)))
    prompts = f"{counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
    note = (
        f"Cells are acc@1/acc@{k}, both at temperature 1 (the paper's acc@1 is greedy); {prompts} "
        f"prompts a task; the widest 95 % interval is ±{widest:.1f}, --csv has them all."
    )
    table["task"] = table["task"].where(table["task"] != ALL, "average")
    title, layout = f"acc@1/acc@{k}", (("model",), ("task",))
    (made,) = _made("acc@k", title, table, *layout, note, percent=True, pair="metric")
    return made


def diversity(runset: RunSet) -> list[Measurements]:
    """Diversity measures beside accuracy by model: of comparisons as measured, of evaluations what
    needs no embedding.
    """
    rows = _compared(runset, (*DIVERSITY, "acc@1", "acc@4"), method="image")
    note = f"Image arm, {MACRO} {DIFFERENCES}"
    if not len(rows):
        answers = {n: s for n, s in runset.answers().items() if _draws(s) > 1}
        rows = _measured(answers, _diversity)
        note = (
            "Image arm, macro over tasks; the cosine diversity needs `franken eval` of several "
            f"models. {_against(answers)}"
        )
    return _made("diversity", "Diversity and accuracy", rows, ("model",), ("metric",), note)


def modality(runset: RunSet) -> list[Measurements]:
    """Rows are tasks, columns models with the image and with the text in its place, greedy
    answers.
    """
    rows = []
    for name, samples in runset.answers().items():
        arms = ("image", "text") if {"image", "text"} <= set(samples["method"]) else ()
        for arm in arms:
            part = samples[samples["method"] == arm]
            tasks = list(dict.fromkeys(part["task"]))
            rows += spread(per_prompt(part, "greedy"), tasks, "greedy", model=name, arm=arm)
    table = pd.DataFrame(rows).rename(columns={"method": "arm"})
    title, layout = "With the image, and with its text instead", (("task",), ("model", "arm"))
    return _made("modality", title, table, *layout, "Greedy answers.", percent=True)


def perception(runset: RunSet) -> list[Measurements]:
    """Rows are models: P(description right), P(correct | …), and what went wrong as shares of the
    answers.
    """
    rows = _compared(runset, (*DECOMPOSITION, "facts right", *look.ERRORS), method=None)
    note = f"Macro over tasks. {DIFFERENCES}"
    if not len(rows):
        described = {"image", "describe"}
        answers = {n: s for n, s in runset.answers().items() if described <= set(s["method"])}
        rows = _measured(answers, _perception)
        note = f"Macro over tasks. {_against(answers)}"
    layout = ("metric",), ("model",)
    return _made("perception", "Perception or reasoning", rows, *layout, note, percent=True)


def designs(runset: RunSet) -> list[Measurements]:
    """Training runs by their rewards and weights, and the held-out scores they ended with."""
    parts = []
    for run in runset.training:
        rewards = " + ".join(f"{weight:g} {name}" for name, weight in run.rewards.items())
        parts += [_held_out(run).assign(rewards=rewards)] if rewards else []
    note = (
        "Held-out scores at the last look; the log keeps no interval for them. `franken eval` of "
        "the checkpoint has."
    )
    title, layout = "Rewards and what they reached", (("run", "rewards"), ("metric",))
    return _made("designs", title, _joined(parts), *layout, note, percent=True)


def training(runset: RunSet) -> list[Measurements]:
    """Training runs by their last held-out scores."""
    rows = _joined([_held_out(run) for run in runset.training])
    note = "Held-out scores at the last look; the log keeps no n and no interval for them."
    layout = ("run", "update"), ("metric",)
    return _made("training", "Training runs", rows, *layout, note, percent=True)


def _made(
    name: str,
    title: str,
    rows: pd.DataFrame,
    down: tuple[str, ...],
    across: tuple[str, ...],
    note: str,
    *,
    percent: bool = False,
    pair: str = "",
) -> list[Measurements]:
    """The table of some rows; none without rows."""
    numbers = dict.fromkeys(set(NUMBERS) - set(rows))
    rows = rows.assign(**numbers)
    return [Measurements(name, title, rows, down, across, percent, pair, note)] * bool(len(rows))


def _held_out(run: TrainingRun) -> pd.DataFrame:
    """run, update, metric, value of a training run's last held-out scores; empty without any."""
    last = next((update for update in reversed(run.updates) if update.held_out), None)
    scores = pd.Series(last.held_out if last else {}, dtype=float)
    table = scores.rename_axis("metric").reset_index(name="value")
    return table.assign(run=run.folder.name, update=last.update if last else None)


def _has(runset: RunSet, metrics: Collection[str]) -> bool:
    return any(run.layers["metric"].isin(metrics).any() for run in runset.of("compare"))


def _has_score(arms: set[str]) -> bool:
    return any(set(needed) <= arms for needed in NEEDS.values())


def _m_scores(samples: pd.DataFrame) -> PromptValues:
    """The paper's greedy scores; none where no model was run in an arm of theirs."""
    return greedy_scores(samples) if _has_score(set(samples["method"])) else {}


def _skill(samples: pd.DataFrame) -> PromptValues:
    image = samples[samples["method"] == "image"]
    return {"acc@1": per_prompt(image, "acc@1"), **_m_scores(samples)}


def _diversity(samples: pd.DataFrame) -> PromptValues:
    image, widest = samples[samples["method"] == "image"], f"acc@{_draws(samples)}"
    return {
        "strategies": per_prompt(image, "strategies"),
        **diversity_measures(usable(samples, "image")),
        **{metric: per_prompt(image, metric) for metric in ("acc@1", widest)},
    }


def _perception(samples: pd.DataFrame) -> PromptValues:
    errors = {f"error: {kind}": share for kind, share in error_shares(samples).items()}
    return {**decomposition(samples), **errors}


def _draws(samples: pd.DataFrame) -> int:
    """The draws that every prompt has in the image arm."""
    image = samples[(samples["method"] == "image") & (samples["draw"] != GREEDY)]
    return int(image.groupby(["task", "sample"]).size().min()) if len(image) else 0


def _measured(
    answers: Answers,
    measure: Callable[[pd.DataFrame], PromptValues],
    reference: str = "",
    *,
    every_task: bool = False,
) -> pd.DataFrame:
    """Rows of layers.parquet over all tasks; p of the paired difference from the reference, Holm
    over the models.

    `measure` gives one value a prompt by metric. With `every_task` also a row a task, of the
    metrics that all models have: who stand side by side are measured alike.
    """
    values = {name: measure(samples) for name, samples in answers.items()}
    shared = set.intersection(*map(set, values.values())) if every_task else None
    reference = reference or next((name for name, metrics in values.items() if metrics), "")
    rows = []
    for name, metrics in values.items():
        for metric, per in metrics.items():
            if shared is not None and metric not in shared:
                continue
            tasks = list(dict.fromkeys(per.index.get_level_values("task")))
            counts = metric in NOT_RATES
            spreads = spread(per, tasks, metric, model=name, arm="", counts=counts)
            other = None if name == reference else values[reference].get(metric)
            p = _paired_p(other, per, metric)
            shown = spreads if every_task else spreads[-1:]
            rows += [{**row, "p_adjusted": p.get(row["task"] or "")} for row in shown]
    table = pd.DataFrame(rows)
    if len(table):
        families = table.astype({"p_adjusted": float}).groupby(["metric", "task"], sort=False)
        table["p_adjusted"] = families["p_adjusted"].transform(lambda p: holm(list(p)))
    return table


def _paired_p(reference: pd.Series | None, values: pd.Series, metric: str) -> dict[str, float]:
    """p of the paired difference by task; none where the two share no prompt."""
    if reference is None or not len(reference.dropna().index.intersection(values.dropna().index)):
        return {}
    table = compare_values(reference, values, metric)
    return dict(zip(table["task"], table["p"], strict=True))


def _compared(runset: RunSet, metrics: Collection[str], *, method: str | None) -> pd.DataFrame:
    """Rows of comparisons of evaluations over all tasks, in the order of `metrics`."""
    order = {metric: place for place, metric in enumerate(metrics)}
    parts = []
    for run in runset.of("compare"):
        rows = run.layers[(run.layers["task"] == ALL) & run.layers["metric"].isin(order)]
        rows = rows[rows["method"] == method] if method else rows
        parts.append(rows.sort_values("metric", key=lambda m: m.map(order), kind="stable"))
    return _joined(parts)


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _against(answers: Answers) -> str:
    if len(answers) < 2:
        return ""
    return f"p is paired against {next(iter(answers))}, Holm-corrected over the models."
