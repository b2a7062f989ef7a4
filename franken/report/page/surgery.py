"""The section on parts of the update: how little of it is enough, and how little is needed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from franken.report import theme as look
from franken.report.figures.surgery import LINES, SIZES, kinds_of, plot_curves
from franken.report.page.panels import Group, Panel, Section, basis
from franken.report.sources import runs_of
from franken.report.verdicts import NB, percent
from franken.runs import RunSet

if TYPE_CHECKING:
    import pandas as pd

KEY, TITLE = "surgery", "How little is enough?"
VERB = "surgery"


def surgery(runset: RunSet) -> Section:
    """What parts of RL's update recover alone, and what is left without them."""
    parent = look.name(runset.study.parent)
    lead = (
        f"Give {parent} a part of RL's update, and RL all of its update but that part. What is "
        "enough need not be needed."
    )
    rows = runset.layers(VERB)
    if len(rows) == 0:
        how = (
            "No part of the update was tried (franken merge-sweep SFT RL --along rank,top,random)."
        )
        return Section(KEY, TITLE, lead, notes=[how])
    runs = runs_of(runset, VERB)
    panels = [
        Panel(
            f"surgery-{kind.replace(' ', '-')}",
            f"Along {kind}",
            f"share of RL's gain that {LINES['keep']} recovers and {LINES['drop']} keeps, over "
            f"{SIZES.get(kind, 'parts without a size')}, beside random parts of equal size",
            partial(plot_curves, rows, kind),
        )
        for kind in kinds_of(rows)
    ]
    group = Group(
        "surgery",
        "The part alone, and all but the part",
        "0 % is where RL started from, 100 % is RL. Where both curves are high the update is "
        "redundant: the part is enough and yet not needed. Grey: as many random directions, or "
        "elements. Per matrix; bars are 95 % intervals over prompts (Fieller).",
        panels,
        finding(rows),
        basis(runset, runs, rows[rows["metric"] == "recovered"], "prompts", ["rl"]),
        runs,
    )
    return Section(KEY, TITLE, lead, [group])


def finding(rows: pd.DataFrame) -> str:
    """The smallest rank, or else the smallest part, alone and left out."""
    shares = rows.loc[rows["metric"] == "recovered"]
    kept = shares.loc[shares["method"] == "keep"]
    ranked = kept.loc[kept["component"].str.startswith("rank:")]
    if shares["ci_low"].isna().all():
        return "RL shows no sure gain, so there is none to recover"
    first = (ranked if len(ranked) else kept).iloc[0]
    own = shares.loc[(shares["component"] == first["component"]) & (shares["method"] == "drop")]
    without = own.iloc[0]

    def told(row: pd.Series) -> str:
        low, high = (percent(row[c]).removesuffix(f"{NB}%") for c in ("ci_low", "ci_high"))
        return f"{percent(row['value'])} (95{NB}% {low} to {high})"

    return (
        f"{first['component']} of every tensor alone recovers {told(first)} of RL's gain, all but "
        f"that {told(without)}"
    )
