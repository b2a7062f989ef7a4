"""The section on answers: success against tries, variety, and whether perception or reasoning
fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from franken.report import theme as look
from franken.report.evidence import Evidence
from franken.report.figures import comparison as eval_figures
from franken.report.figures import plots
from franken.report.page.panels import Group, Panel, Section, basis
from franken.report.sources import folder_of, runs_of
from franken.report.verdicts import paired, percent
from franken.runs import LoadedRun

TITLE = "How good, how varied"
SHORT: dict[str, str] = dict(
    zip(
        eval_figures.PARTS,
        ("reads it right", "right if read right", "right if read wrong"),
        strict=True,
    )
)


def how_good(found: Evidence) -> Section:
    """acc@k per task and pooled, the arms, variety, and what it takes."""
    study, rows = found.study, found.layers("eval")
    lead = "More tries, fewer strategies: what RL gains at one sample it may lose at several."
    if len(rows) == 0:
        return Section("good", TITLE, lead, notes=["Nothing was evaluated."])
    models = [m for m in (*study.stages, "control") if m in set(rows["model"])]
    tasks = [t for t in plots.task_names(rows) if t in set(rows["task"])]
    groups, notes = [_acc_at_k(found, rows, models, tasks)], []
    seen = [
        m for m in study.stages if len(rows[(rows["model"] == m) & (rows["method"] != "image")])
    ]
    if seen:
        groups.append(_arms(found, rows, seen, tasks))
    compared = comparison_run(found)
    if compared is None:
        notes.append(
            "The answers were not compared with each other: variety is counted in strategies only, and why answers are "
            "wrong was not told apart."
        )
    groups += [_variety(found, rows, models, compared)]
    taken = _what_it_takes(found, compared)
    return Section("good", TITLE, lead, [*groups, *([taken] if taken else [])], notes)


def comparison_run(found: Evidence) -> LoadedRun | None:
    """The finished comparison of evaluations that holds most models of the study, if any."""
    runs = [r for r in found.runs if r.verb == "compare"]
    return max(runs, key=lambda r: len(r.manifest.config.models), default=None)


def _acc_at_k(found: Evidence, rows: Any, models: list[str], tasks: list[str]) -> Group:
    parent, runs = found.study.parent, runs_of(found, "eval", models, "image")
    ks = sorted(int(m[4:]) for m in set(rows["metric"].astype(str)) if m.startswith("acc@"))
    one, wide = (
        paired(found, parent, "rl"),
        paired(found, parent, "rl", f"acc@{ks[-1]}") if ks else None,
    )
    finding = ""
    if one is not None and wide is not None and len(ks) > 1:
        finding = (
            f"RL against {look.name(parent)}: acc@1 {percent(one['mean_b'])} against {percent(one['mean_a'])}, "
            f"acc@{ks[-1]} {percent(wide['mean_b'])} against {percent(wide['mean_a'])}"
        )
    shown = rows[(rows["metric"] == "acc@1") & (rows["task"] == "all") & rows["model"].isin(models)]
    return Group(
        "acck",
        "acc@k",
        "The chance that at least one of k samples is right (unbiased, temperature 1). Lines that cross: the parent finds "
        "more answers when it may try more often. Bands are 95 % bootstrap intervals over prompts.",
        [
            Panel(
                f"acck-{t}",
                _task(t),
                f"acc@k on {_task(t)} per checkpoint",
                lambda ax, mode, t=t: plots.plot_acc_at_k(
                    rows, models=models, task=t, mode=mode, ax=ax
                ),
                framed=True,
            )
            for t in ("all", *tasks)
        ],
        finding,
        basis(found, runs, shown[shown["method"] == "image"], "prompts"),
        runs,
    )


def _arms(found: Evidence, rows: Any, seen: list[str], tasks: list[str]) -> Group:
    runs = runs_of(found, "eval", seen)
    last = seen[-1]
    own = rows[
        (rows["model"] == last) & (rows["task"] == "all") & (rows["metric"] == "acc@1")
    ].set_index("method")
    said = [
        f"{percent(float(own.loc[a, 'value']))} {words}"
        for a, words in (
            ("image", "with the image"),
            ("text", "with the description"),
            ("blind", "with neither"),
        )
        if a in own.index and own.loc[a, "value"] == own.loc[a, "value"]
    ]
    return Group(
        "arms",
        "Perception or reasoning",
        "The same questions with the image, with the puzzle's exact description instead, and with neither. What is right "
        "with nothing to look at is guessing.",
        [
            Panel(
                f"arms-{t}",
                _task(t),
                f"accuracy per arm on {_task(t)}, per checkpoint",
                lambda ax, mode, t=t: plots.plot_arms(rows, models=seen, task=t, mode=mode, ax=ax),
                framed=True,
            )
            for t in ("all", *tasks)
        ],
        f"{look.name(last)} answers {', '.join(said)}",
        basis(found, runs, own.reset_index(), "prompts"),
        runs,
    )


def _variety(found: Evidence, rows: Any, models: list[str], compared: LoadedRun | None) -> Group:
    """Strategies per prompt of every checkpoint; with a comparison also the plane of replies and
    what goes with success.
    """
    runs = runs_of(found, "eval", models, "image")
    panels = [
        Panel(
            "strategies",
            "Distinct strategies a prompt",
            "distinct strategies a prompt, per checkpoint",
            lambda ax, mode: _plot_counts(ax, mode, rows, "strategies", models),
            size=(4.2, 0.3 * len(models) + 1.4),
            legend=False,
        )
    ]
    row = paired(found, found.study.parent, "rl", "strategies")
    finding = (
        ""
        if row is None
        else f"Distinct strategies a prompt: {row['mean_a']:.2f} before RL, {row['mean_b']:.2f} after"
    )
    if compared is not None:
        runs = (*runs, folder_of(found, compared))
        panels += _planes(compared)
    return Group(
        "variety",
        "Variety of answers",
        "How differently a checkpoint solves the same prompt when it is asked several times. Intervals are 95 % over "
        "prompts; in the plane (t-SNE of the replies' embeddings) only neighbourhood means something.",
        panels,
        finding,
        basis(
            found,
            runs,
            rows[
                (rows["metric"] == "strategies")
                & (rows["task"] == "all")
                & rows["model"].isin(models)
            ],
            "prompts",
        ),
        runs,
    )


def _planes(run: LoadedRun) -> list[Panel]:
    import pandas as pd

    file = run.folder / "points.parquet"
    models = list(run.manifest.config.models)
    panels: list[Panel] = []
    cloud = pd.read_parquet(file).dropna(subset=["x", "y"]) if file.exists() else pd.DataFrame()
    if len(cloud):
        panels += [
            Panel(
                "plane-model",
                "Replies, by checkpoint",
                "replies on a plane, coloured by checkpoint",
                lambda ax, mode: _plot_plane(ax, cloud, "model", _tints(models)),
            ),
            Panel(
                "plane-right",
                "Replies, by outcome",
                "replies on a plane, right and wrong",
                lambda ax, mode: _plot_plane(
                    ax, cloud, "right", {True: "#1FA37A", False: "#D55E00"}
                ),
            ),
        ]
    if "diversity" in set(run.layers["metric"]):
        tints = _tints(models)
        panels.append(
            Panel(
                "diversity-success",
                "Diversity against success, a point a prompt",
                "diversity of a prompt's replies against acc@k",
                lambda ax, mode: eval_figures.against_success(ax, run, models, tints),
            )
        )
        success = eval_figures.widest_success(run)
        panels.append(
            Panel(
                "diversity-correlation",
                f"Correlation of diversity with {success}",
                f"correlations of diversity with {success}",
                lambda ax, mode: eval_figures.correlations(ax, run, models, success, mode),
                legend=False,
            )
        )
    return panels


def _what_it_takes(found: Evidence, compared: LoadedRun | None) -> Group | None:
    """Perceiving and reasoning apart, the M scores, and the kinds of errors, over all tasks."""
    import pandas as pd

    scored = [r for r in found.runs if r.verb == "scores"]
    sources = [*scored, *([compared] if compared is not None else [])]
    if not sources:
        return None
    layers: Any = pd.concat([r.layers for r in sources], ignore_index=True)
    models = [m for m in (*found.study.stages, "control") if (layers["model"] == m).any()]
    rows = layers[
        layers["model"].isin(models) & (layers["task"] == "all") & layers["value"].notna()
    ]
    kinds = rows["metric"].isin(eval_figures.SCORES) & (rows["method"] == "greedy")
    scores = rows[rows["metric"].isin(eval_figures.PARTS) | kinds]
    names = [m for m in (*eval_figures.PARTS, *eval_figures.SCORES) if m in set(scores["metric"])]
    errors = rows[rows["metric"].isin(look.ERRORS)]
    panels: list[Panel] = []
    if names:
        panels.append(
            Panel(
                "what-it-takes",
                "What it takes",
                "description right, answer given the description, and M scores, per checkpoint",
                lambda ax, mode: _plot_parts(ax, mode, scores, names, models),
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
                lambda ax, mode: _plot_errors(ax, errors, wrong),
                size=(4.2, 0.4 * len(wrong) + 1.6),
            )
        )
    if not panels:
        return None
    runs = tuple(folder_of(found, r) for r in sources)
    worst = errors[errors["model"] == "rl"].sort_values("value").tail(1)
    finding = "".join(
        f"RL's most frequent error: {r['metric'].removeprefix('error: ')}, {percent(float(r['value']))} of its answers"
        for r in worst.to_dict("records")
        if r["value"] > 0
    )
    return Group(
        "takes",
        "What it takes, and why it fails",
        "An answer needs the image read and the reasoning done. M_vis: right with the image, wrong with a black one; M_v2r: "
        "right with the image, and with a black image beside the description; M_rea: right from the description alone.",
        panels,
        finding,
        basis(found, runs, scores if len(scores) else errors, "prompts"),
        runs,
    )


def _plot_parts(ax: Any, mode: look.Mode, scores: Any, names: list[str], models: list[str]) -> None:
    eval_figures.rows_of_points(ax, scores, "metric", names, models, mode)
    for line in ax.lines:
        line.set_label(look.name(str(line.get_label())))
    ax.set_yticks(range(len(names)), [SHORT.get(name, name) for name in names])


def _plot_errors(ax: Any, errors: Any, models: list[str]) -> None:
    eval_figures.stacked(ax, errors, models)
    ax.set_yticks(range(len(models)), [look.name(m) for m in models])


def _plot_counts(ax: Any, mode: look.Mode, rows: Any, metric: str, models: Sequence[str]) -> None:
    keep = (rows["metric"] == metric) & (rows["task"] == "all") & (rows["method"] == "image")
    table = rows[keep & rows["value"].notna()].set_index("model")
    for y, model in enumerate(models):
        if model in table.index:
            low, value, high = (float(table.loc[model, c]) for c in ("ci_low", "value", "ci_high"))
            ax.hlines(y, low, high, color=look.colour(model), linewidth=2.6, alpha=0.55)
            ax.plot([value], [y], "o", color=look.colour(model), markersize=6.5)
    ax.set_yticks(range(len(models)), [look.name(m) for m in models])
    ax.set_ylim(len(models) - 0.4, -0.6)
    ax.grid(axis="x", color=mode.grid)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(metric)


def _plot_plane(ax: Any, cloud: Any, column: str, tints: dict[Any, str]) -> None:
    names = {True: "right", False: "wrong"}
    for number, (value, tint) in enumerate(tints.items()):
        own = cloud[cloud[column] == value]
        label = names[value] if isinstance(value, bool) else look.name(value)
        ax.plot(
            own["x"],
            own["y"],
            look.TASK_MARKERS[number],
            color=tint,
            alpha=0.5,
            markersize=2.6,
            linestyle="",
            label=label,
        )
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)


def _tints(models: Sequence[str]) -> dict[str, str]:
    known = {m: look.CHECKPOINTS[m] for m in models if m in look.CHECKPOINTS}
    return known if len(known) == len(models) else eval_figures.tints(models)


def _task(task: str) -> str:
    return "All tasks" if task == "all" else task
