"""Where two models part, as tables: the tokens, the sentences they stand in, the words, and what
cross-sampling recovers.
"""

from __future__ import annotations

import pandas as pd

from franken.forks.controls import RULES
from franken.forks.kinds import KINDS
from franken.forks.rows import OWN, STORED
from franken.report.tables.measurements import Measurements, brief
from franken.runs import RunSet

TOKENS = {
    "fork_share": "share of tokens that are forks",
    "forks a reply": "forks a reply",
    "js": "JS, mean over tokens",
    "js a reply": "JS, sum over a reply",
    "js in top 1 %": "share of all JS in the top 1 % of tokens",
    "js in top 5 %": "… in the top 5 %",
    "js in top 20 %": "… in the top 20 %",
    "kl_ab": "KL(a ‖ b), mean over tokens",
    "kl_ba": "KL(b ‖ a)",
    "entropy_a": "entropy of a",
    "entropy_b": "entropy of b",
    "vision_a": "visual dependency of a",
    "vision_b": "visual dependency of b",
}
KIND_METRICS = {
    "fork_share": "forks among them",
    "share_of_tokens": "of all tokens",
    "share_of_js": "of all JS",
}
CROSSED = {
    "acc@1": "acc@1",
    "places a reply": "places a reply",
    "changed a reply": "changed",
    "gain": "gain",
    "recovered": "of the gain",
}
NOTE = (
    "A token is a fork where the JS of the two next-token distributions is above the threshold; "
    "nats. Visual dependency: KL(with the image ‖ with a black one). Rows: whose replies; n = "
    "prompts."
)
CROSS_NOTE = (
    "`forks`: the other model's token where the two part; `random`, `entropy`, `elsewhere`: as "
    "many of its tokens anywhere, where the writer is least sure, and where another reply of the "
    "task has its forks. `of the gain`: share of the difference between the two models; – where "
    "that difference may be 0."
)


def has_forks(runset: RunSet) -> bool:
    """Whether two models were compared token by token."""
    return bool(runset.of("forks"))


def forks(runset: RunSet) -> list[Measurements]:
    """All tables of every run."""
    return [table for run in runset.of("forks") for table in tables_of(run.layers, run.label)]


def tables_of(layers: pd.DataFrame, label: str) -> list[Measurements]:
    """The tables of one run's rows, over all tasks; those without rows are left out."""
    rows = layers[layers["task"] == "all"]
    scored = rows[rows["method"].isin([OWN, STORED])]
    several = scored["method"].nunique() > 1
    whose = ("model", "method") if several else ("model",)
    part = _named(scored[scored["component"] == "all"], TOKENS)
    kinds = _named(scored[scored["component"].isin(KINDS)], KIND_METRICS)
    words = scored[scored["component"].str.match("said |after ")]
    crossed = rows[rows["method"].isin([OWN, *RULES]) & (rows["component"] == "all")]
    crossed = _named(crossed, CROSSED)
    crossed = crossed[crossed["model"].isin(set(crossed[crossed["method"] != OWN]["model"]))]
    made = [
        Measurements("forks tokens", f"{label}: every token", part, ("metric",), whose, note=NOTE),
        Measurements(
            "forks kinds",
            f"{label}: by kind of sentence",
            kinds,
            ("component",),
            (*whose, "metric"),
            write=brief,
        ),
        Measurements(
            "forks words",
            f"{label}: the words at forks, and before them: share of forks",
            words,
            ("component",),
            whose,
            write=brief,
        ),
        Measurements(
            "forks crossed",
            f"{label}: replies of one model with tokens of the other",
            crossed,
            ("model", "method"),
            ("metric",),
            note=CROSS_NOTE,
            columns=list(CROSSED.values()),
            write=brief,
        ),
    ]
    return [table for table in made if len(table.rows)]


def _named(rows: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """The rows of these metrics, in this order, as a reader sees them."""
    chosen = rows[rows["metric"].isin(list(names))]
    order = {name: place for place, name in enumerate(names)}
    chosen = chosen.sort_values("metric", key=lambda m: m.map(order), kind="stable")
    return chosen.assign(metric=chosen["metric"].map(names))
