"""The section on forks: where in their replies RL and what it started from part, and what those
places carry.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from franken.forks.rows import OWN
from franken.report import theme as look
from franken.report.figures import forks as figures
from franken.report.page.panels import Group, Panel, Section, basis
from franken.report.sources import folder_of
from franken.runs import LoadedRun, RunSet

TITLE = "Where they part"
LEAD = (
    "Both models answer, both read every reply: at which tokens would they go on differently, and "
    "is it those that make the difference?"
)
ABSENT = "The two models were not compared token by token: franken forks SFT RL does it."
TOP = 5  # percent of the tokens that a finding names


def forks(runset: RunSet) -> Section:
    """Divergence by token, place and kind of sentence, and cross-sampling, of the largest run of RL
    and its parent; else of the first.
    """
    run = _chosen(runset)
    if run is None:
        return Section("forks", TITLE, LEAD, notes=[ABSENT])
    models = list(dict.fromkeys(run.layers["model"]))
    groups = [_tokens(runset, run, models)]
    if figures.has_crossed(run.layers):
        groups.append(_crossed(runset, run, models))
    return Section("forks", TITLE, LEAD, groups)


def _chosen(runset: RunSet) -> LoadedRun | None:
    runs = sorted(runset.of("forks"), key=lambda run: -run.manifest.n_requested)
    wanted = {runset.study.parent, "rl"}
    fitting = [run for run in runs if set(run.layers["model"]) == wanted]
    return next(iter([*fitting, *runs]), None)


def _tokens(runset: RunSet, run: LoadedRun, models: Sequence[str]) -> Group:
    rows, folders = run.layers, (folder_of(runset, run),)
    threshold = run.manifest.config.threshold
    drawn = [
        ("curve", "How concentrated", "share of all divergence in the tokens that differ most"),
        ("tenths", "Along the reply", "share of tokens that are forks by tenth of the reply"),
        ("kinds", "By kind of sentence", "share of all divergence by kind of sentence"),
    ]
    plots = {
        "curve": figures.plot_curve,
        "tenths": figures.plot_tenths,
        "kinds": figures.plot_kinds,
    }
    panels = [
        Panel(f"forks-{key}", title, alt, partial(plots[key], rows, models), framed=key != "kinds")
        for key, title, alt in drawn
    ]
    own = _whole(rows)
    return Group(
        "forks-tokens",
        "Where their distributions differ",
        "A token is a fork where the Jensen-Shannon divergence of the two next-token "
        f"distributions is above {threshold:g} nats. Colours: whose replies. Dashed, and ticks: "
        "what an even spread over tokens would give. Bands and bars: 95 % intervals over prompts.",
        panels,
        _finding(own, models),
        basis(runset, folders, own, "prompts", models),
        folders,
    )


def _finding(rows: pd.DataFrame, models: Sequence[str]) -> str:
    parts = []
    for model in models:
        own = rows.loc[rows["model"] == model].dropna(subset=["value"])
        value = dict(zip(own["metric"], 100 * own["value"], strict=True))
        top = f"js in top {TOP} %"
        if {"fork_share", top} <= value.keys():
            parts.append(
                f"{value['fork_share']:.1f} % of the tokens of {look.name(model)} are forks, "
                f"and {value[top]:.0f} % of all divergence is in the {TOP} % that differ most"
            )
    return "; ".join(parts)


def _crossed(runset: RunSet, run: LoadedRun, models: Sequence[str]) -> Group:
    rows, folders = run.layers, (folder_of(runset, run),)
    panel = Panel(
        "forks-recovered",
        "Replies of one with tokens of the other",
        "share of the difference between the two models that each rule recovers",
        partial(figures.plot_recovered, rows, models),
        size=(6.3, 2.95),
    )
    part = rows.loc[(rows["metric"] == "recovered") & (rows["task"] == "all")]
    return Group(
        "forks-crossed",
        "Do those tokens carry the gain?",
        "One model writes, with the other's token where the two part; beside it, as many of the "
        "other's tokens anywhere, where the writer is least sure, and at the places where another "
        "reply has its forks. 100 %: as good, or as bad, as the other model. If another reply's "
        "places do as well, the position alone is enough. Fieller's 95 % intervals, paired by "
        "prompt; none where the difference may be 0.",
        [panel],
        _recovered(part, models),
        basis(runset, folders, part, "prompts", models),
        folders,
    )


def _recovered(rows: pd.DataFrame, models: Sequence[str]) -> str:
    first, second = (look.name(model) for model in models)
    own = rows.loc[rows["model"] == models[0]].dropna(subset=["value"])
    ends = 100 * own[["ci_low", "value", "ci_high"]].to_numpy(float)
    shares = dict(zip(own["method"], ends.tolist(), strict=True))
    if "forks" not in shares:
        return f"{first} and {second} may be equally good: there is no gain to have a share of"
    low, value, high = shares["forks"]
    names = (("random", "anywhere"), ("elsewhere", "at the forks of another reply"))
    beside = [f"as many {where} {shares[rule][1]:.0f} %" for rule, where in names if rule in shares]
    text = f"tokens of {second} where they part recover {value:.0f} % ({low:.0f} to {high:.0f})"
    return ", ".join([f"In {first}, {text} of the difference", *beside])


def _whole(rows: pd.DataFrame) -> pd.DataFrame:
    """What all tokens of the replies show, over all tasks."""
    own = rows.loc[(rows["component"] == "all") & (rows["task"] == "all")]
    drawn = own.loc[own["method"] == OWN]
    scored = drawn if (drawn["metric"] == "js").any() else own.loc[own["method"] == "stored"]
    return scored.loc[scored["metric"].isin(["fork_share", f"js in top {TOP} %"])]
