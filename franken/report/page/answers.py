"""The section on answers: success against tries, variety, and whether perception or reasoning
fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

from franken.evaluate.mscores import SCORES
from franken.evaluate.perception import DECOMPOSITION
from franken.report import theme as look
from franken.report.figures import answers as plots
from franken.report.figures.plots import select, task_names
from franken.report.page.panels import Group, Panel, Section, basis
from franken.report.sources import folder_of, runs_of
from franken.report.verdicts import paired, percent
from franken.runs import LoadedRun, RunSet

TITLE = "How good, how varied"
LEAD = "More tries, fewer strategies: what RL gains at one sample it may lose at several."
SHORT: dict[str, str] = dict(
    zip(
        DECOMPOSITION, ("reads it right", "right if read right", "right if read wrong"), strict=True
    )
)
ARMS = {"image": "with the image", "text": "with the description", "blind": "with neither"}


def how_good(runset: RunSet) -> Section:
    """acc@k per task and pooled, the arms, variety, and what it takes."""
    study, rows = runset.study, runset.layers("eval")
    if len(rows) == 0:
        return Section("good", TITLE, LEAD, notes=["Nothing was evaluated."])
    models = [m for m in (*study.stages, "control") if m in set(rows["model"])]
    tasks = ["all", *task_names(rows)]
    groups, notes = [_acc_at_k(runset, rows, models, tasks)], []
    others = set(rows.loc[rows["method"] != "image", "model"])
    if seen := [m for m in study.stages if m in others]:
        groups.append(_arms(runset, rows, seen, tasks))
    compared = comparison_run(runset)
    if compared is None:
        notes.append(
            "The answers were not compared with each other: variety is counted in strategies only, "
            "and why answers are wrong was not told apart."
        )
    groups.append(_variety(runset, rows, models, compared))
    taken = _what_it_takes(runset, compared)
    return Section("good", TITLE, LEAD, [*groups, *([taken] if taken else [])], notes)


def comparison_run(runset: RunSet) -> LoadedRun | None:
    """The finished comparison of evaluations that holds most models of the study, if any."""
    return max(runset.of("compare"), key=lambda r: len(r.manifest.config.models), default=None)


def _by_task(key: str, alt: str, tasks: Sequence[str], plot: Callable[..., object]) -> list[Panel]:
    """A panel a task of a plot that takes one."""
    panels = []
    for task in tasks:
        title = "All tasks" if task == "all" else task
        of_task = partial(plot, task=task)
        panels.append(Panel(f"{key}-{task}", title, alt.format(title), of_task, framed=True))
    return panels


def _acc_at_k(
    runset: RunSet, rows: pd.DataFrame, models: Sequence[str], tasks: Sequence[str]
) -> Group:
    parent, runs = runset.study.parent, runs_of(runset, "eval", models, "image")
    ks = sorted(int(m[4:]) for m in set(rows["metric"].astype(str)) if m.startswith("acc@"))
    texts = []
    for k in dict.fromkeys((1, *ks[-1:])):
        row = paired(runset, parent, "rl", f"acc@{k}")
        if row is not None:
            texts.append(f"acc@{k} {percent(row['mean_b'])} against {percent(row['mean_a'])}")
    finding = f"RL against {look.name(parent)}: {', '.join(texts)}" if len(texts) > 1 else ""
    shown = rows.loc[rows["model"].isin(models)]
    return Group(
        "acck",
        "acc@k",
        "The chance that at least one of k samples is right (unbiased, temperature 1). Lines that "
        "cross: the parent finds more answers when it may try more often. Bands are 95 % bootstrap "
        "intervals over prompts.",
        _by_task(
            "acck",
            "acc@k on {} per checkpoint",
            tasks,
            partial(plots.plot_acc_at_k, rows, models=models),
        ),
        finding,
        basis(runset, runs, select(shown, metric="acc@1", task="all", method="image"), "prompts"),
        runs,
    )


def _arms(runset: RunSet, rows: pd.DataFrame, seen: Sequence[str], tasks: Sequence[str]) -> Group:
    runs, last = runs_of(runset, "eval", seen), seen[-1]
    own = select(rows, model=last, task="all", metric="acc@1")
    rates = own.dropna(subset=["value"]).set_index("method")["value"]
    texts = [f"{percent(rates[arm])} {words}" for arm, words in ARMS.items() if arm in rates.index]
    alt = "accuracy per arm on {}, per checkpoint"
    return Group(
        "arms",
        "Perception or reasoning",
        "The same questions with the image, with the puzzle's exact description instead, and with "
        "neither. What is right with nothing to look at is guessing.",
        _by_task("arms", alt, tasks, partial(plots.plot_arms, rows, models=seen)),
        f"{look.name(last)} answers {', '.join(texts)}",
        basis(runset, runs, own, "prompts"),
        runs,
    )


def _variety(
    runset: RunSet, rows: pd.DataFrame, models: Sequence[str], compared: LoadedRun | None
) -> Group:
    """Strategies per prompt of every checkpoint; with a comparison also the plane of replies and
    what goes with success.
    """
    runs = runs_of(runset, "eval", models, "image")
    counts = select(rows.loc[rows["model"].isin(models)], metric="strategies", task="all")
    points = partial(plots.plot_points, rows, metric="strategies", rate=False, reference=())
    panels = [
        Panel(
            "strategies",
            "Distinct strategies a prompt",
            "distinct strategies a prompt, per checkpoint",
            partial(points, labels=models),
            size=(4.2, 0.3 * len(models) + 1.4),
            legend=False,
        )
    ]
    row = paired(runset, runset.study.parent, "rl", "strategies")
    finding = ""
    if row is not None:
        before, after = f"{row['mean_a']:.2f} before RL", f"{row['mean_b']:.2f} after"
        finding = f"Distinct strategies a prompt: {before}, {after}"
    if compared is not None:
        runs = (*runs, folder_of(runset, compared))
        panels += _planes(compared)
    return Group(
        "variety",
        "Variety of answers",
        "How differently a checkpoint solves the same prompt when it is asked several times. "
        "Intervals are 95 % over prompts; in the plane (t-SNE of the replies' embeddings) only "
        "neighbourhood means something.",
        panels,
        finding,
        basis(runset, runs, counts, "prompts"),
        runs,
    )


def _planes(run: LoadedRun) -> list[Panel]:
    file = run.folder / "points.parquet"
    models = list(run.manifest.config.models)
    panels: list[Panel] = []
    points = pd.read_parquet(file).dropna(subset=["x", "y"]) if file.exists() else pd.DataFrame()
    if len(points):
        plane = partial(plots.plot_plane, points)
        panels += [
            Panel(
                "plane-model",
                "Replies, by checkpoint",
                "replies on a plane, coloured by checkpoint",
                partial(plane, column="model", tints=plots.tints(models)),
            ),
            Panel(
                "plane-right",
                "Replies, by outcome",
                "replies on a plane, right and wrong",
                partial(plane, column="right", tints=plots.RIGHT),
            ),
        ]
    if "diversity" in set(run.layers["metric"]):
        success = plots.widest_success(run)
        panels += [
            Panel(
                "diversity-success",
                "Diversity against success, a point a prompt",
                "diversity of a prompt's replies against acc@k",
                partial(plots.plot_against_success, run, models=models),
            ),
            Panel(
                "diversity-correlation",
                f"Correlation of diversity with {success}",
                f"correlations of diversity with {success}",
                partial(plots.plot_correlations, run, models=models),
                legend=False,
            ),
        ]
    return panels


def _what_it_takes(runset: RunSet, compared: LoadedRun | None) -> Group | None:
    """Perceiving and reasoning apart, the M scores, and the kinds of errors, over all tasks."""
    sources = [*runset.of("scores"), *([compared] if compared is not None else [])]
    if not sources:
        return None
    layers = pd.concat([r.layers for r in sources], ignore_index=True)
    models = [m for m in (*runset.study.stages, "control") if (layers["model"] == m).any()]
    rows = layers.loc[layers["model"].isin(models) & (layers["task"] == "all")]
    rows = rows.dropna(subset=["value"])
    greedy = rows["metric"].isin(SCORES) & (rows["method"] == "greedy")
    scores = rows.loc[rows["metric"].isin(DECOMPOSITION) | greedy]
    names = [m for m in (*DECOMPOSITION, *SCORES) if m in set(scores["metric"])]
    errors = rows.loc[rows["metric"].isin(look.ERRORS)]
    panels: list[Panel] = []
    if names:
        parts = partial(plots.plot_rows, scores, column="metric", names=names, models=models)
        panels.append(
            Panel(
                "what-it-takes",
                "What it takes",
                "description right, answer given the description, and M scores, per checkpoint",
                partial(parts, called=SHORT),
                size=(4.2, 0.42 * len(names) + 1.3),
            )
        )
    if len(errors):
        wrong = [m for m in models if (errors["model"] == m).any()]
        panels.append(
            Panel(
                "errors",
                "Why answers are wrong",
                "kinds of errors as shares of all answers, per checkpoint",
                partial(plots.plot_errors, errors, models=wrong),
                size=(4.2, 0.4 * len(wrong) + 1.6),
            )
        )
    if not panels:
        return None
    runs = tuple(folder_of(runset, r) for r in sources)
    finding = ""
    shares = errors.loc[errors["model"] == "rl"].set_index("metric")["value"].sort_values()
    if len(shares) and shares.iloc[-1] > 0:
        kind = str(shares.index[-1]).removeprefix("error: ")
        finding = f"RL's most frequent error: {kind}, {percent(shares.iloc[-1])} of its answers"
    return Group(
        "takes",
        "What it takes, and why it fails",
        "An answer needs the image read and the reasoning done. M_vis: right with the image, wrong "
        "with a black one; M_v2r: right with the image, and with a black image beside the "
        "description; M_rea: right from the description alone.",
        panels,
        finding,
        basis(runset, runs, scores if len(scores) else errors, "prompts"),
        runs,
    )
