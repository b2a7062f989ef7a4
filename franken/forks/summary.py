"""From scored and crossed replies to numbers: where two models part, and what those places carry.

Every number is made per prompt first, so that prompts are the unit of every interval: a mean over
the tokens of a prompt's replies, then over prompts (`franken.evaluate.metrics.spread`); `all` is
the mean of the tasks. Shares of a sum (how much of all divergence is in one kind of sentence) are
ratios of two means over prompts, with Fieller's interval (`franken.stats.recovered`); for `all`
they are over the prompts of all tasks together.

Rows of layers.parquet: `model` wrote the replies. `method` own or stored: what its tokens show,
with `component` all, a kind of sentence, a tenth of the reply, `at forks` and `elsewhere`,
`said "x"` and `after "x"`. `method` a rule of cross-sampling: accuracy, gain over the writer's own
replies, and the share of the other model's gain that is recovered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from franken import stats
from franken.evaluate.metrics import ALL, compare_values, estimate_row, per_prompt, spread
from franken.forks.controls import CONTROLS, FORKS, RULES
from franken.forks.kinds import KINDS
from franken.forks.rows import OWN, STORED
from franken.forks.score import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from franken.runs import LayerRow

TOPS = (0.5, 1, 2, 5, 10, 20, 50)  # % of the tokens, ordered by divergence
TENTHS = 10
FIRST = 5  # a fork is a choice among the likeliest where the other's favourite is among so many
LISTED = 6  # words at forks that are listed
MEANS = ("js", "kl_ab", "kl_ba", "entropy_a", "entropy_b", "vision_a", "vision_b")
AT_FORKS = ("entropy_a", "entropy_b", "vision_a", "vision_b")
AT, ELSE = "at forks", "elsewhere"
BY = ["task", "sample"]


@dataclass(frozen=True)
class Pair:
    """At so many forks of a model's replies, a would rather say one word and b another."""

    model: str
    a: str
    b: str
    n: int


def token_table(samples: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """A row a token of the replies that were scored: the columns of `Scores`, its `place` from 0,
    `tenth` of the reply from 1, text, the text `before` it, kind, and whether it is a `fork`.
    """
    rows = samples[samples["method"].isin([OWN, STORED]) & samples["error"].isna()]
    lengths = rows["ids"].map(len).to_numpy(int)
    heads = ["model", "method", "task", "sample", "draw"]
    table = rows[heads].loc[rows.index.repeat(lengths)].reset_index(drop=True)
    for name in ("ids", "pieces", "kinds", *COLUMNS):
        filled = [
            np.full(length, np.nan) if cells is None or np.ndim(cells) == 0 else cells
            for cells, length in zip(rows[name], lengths, strict=True)
        ]
        table[name] = list(chain(*filled))
    table["place"] = [place for length in lengths for place in range(length)]
    table["tenth"] = TENTHS * table["place"] // np.repeat(lengths, lengths) + 1
    table["before"] = table["pieces"].shift(fill_value="").where(table["place"] > 0, "")
    table["fork"] = table["js"] > threshold
    return table


def summarise(
    samples: pd.DataFrame, labels: Sequence[str], threshold: float, word: Callable[[int], str]
) -> tuple[list[LayerRow], dict[str, object]]:
    """The rows of layers.parquet, and for the manifest the pairs of words at forks. `word` gives
    the text of a token.
    """
    tokens = token_table(samples, threshold)
    rows: list[LayerRow] = []
    pairs: list[Pair] = []
    for model in labels:
        for method in (OWN, STORED):
            part = tokens[(tokens["model"] == model) & (tokens["method"] == method)]
            if len(part):
                rows += _of_tokens(part, model, method)
                pairs += _pairs(part, model, word)
    rows += _crossed(samples, labels)
    return rows, {"fork_pairs": [vars(pair) for pair in pairs]}


def _of_tokens(tokens: pd.DataFrame, model: str, method: str) -> list[LayerRow]:
    tasks = list(dict.fromkeys(tokens["task"]))

    def means(part: pd.DataFrame, metrics: Sequence[str], component: str = "all") -> list[LayerRow]:
        return [
            {**row, "component": component}
            for metric in metrics
            for row in spread(
                part.groupby(BY, sort=False)["fork" if metric == "fork_share" else metric].mean(),
                tasks,
                metric,
                model=model,
                arm=method,
                counts=metric != "fork_share",
            )
        ]

    def shares(metric: str, part: pd.Series, whole: pd.Series, component: str) -> list[LayerRow]:
        """Of the sums over each prompt's tokens."""
        both = _sums(tokens, part=part, whole=whole)
        made = [
            estimate_row(model, method, task, metric, _part(p, w), len(p))
            for task, p, w in _by_task(both, tasks)
        ]
        return [{**row, "component": component} for row in made]

    one = tokens["fork"] | True
    rows = means(tokens, ["fork_share", *MEANS])
    rows += _per_reply(tokens, tasks, model, method)
    rows += _tops(tokens, model, method)
    for kind in (k for k in KINDS if (tokens["kinds"] == k).any()):
        here = tokens["kinds"] == kind
        rows += means(tokens[here], ["fork_share", "js"], kind)
        rows += shares("share_of_js", tokens["js"].where(here, 0.0), tokens["js"], kind)
        rows += shares("share_of_tokens", here, one, kind)
    for tenth in range(1, TENTHS + 1):
        part = tokens[tokens["tenth"] == tenth]
        rows += means(part, ["fork_share", "js"], f"tenth {tenth}") if len(part) else []
    for name, part in ((AT, tokens[tokens["fork"]]), (ELSE, tokens[~tokens["fork"]])):
        rows += means(part, AT_FORKS, name) if len(part) else []
    forks = tokens["fork"]
    if not forks.any():
        return rows
    for metric, column in (("b_among_a", "top_b_in_a"), ("a_among_b", "top_a_in_b")):
        rows += shares(f"{metric}'s_{FIRST}", forks & (tokens[column] <= FIRST), forks, AT)
    for name, column in (("said", "pieces"), ("after", "before")):
        words = tokens[column].str.strip()
        for text in words[forks].value_counts().head(LISTED).index:
            found = shares("share_of_forks", forks & (words == text), forks, f'{name} "{text}"')
            rows += [row for row in found if row["task"] == ALL]
    return rows


def _sums(tokens: pd.DataFrame, **values: pd.Series) -> pd.DataFrame:
    """Sums over the tokens of each prompt."""
    table = tokens[BY].assign(**{name: v.astype(float) for name, v in values.items()})
    return table.groupby(BY, sort=False).sum()


def _by_task(sums: pd.DataFrame, tasks: Sequence[str]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(task, part, whole) of each task, and of all prompts together."""
    of = sums.index.get_level_values("task")
    groups = [(task, sums[of == task]) for task in tasks] + [(ALL, sums)]
    return [(task, g["part"].to_numpy(), g["whole"].to_numpy()) for task, g in groups]


def _per_reply(
    tokens: pd.DataFrame, tasks: Sequence[str], model: str, method: str
) -> list[LayerRow]:
    """Forks of a reply, and its whole divergence, KL both ways, and log-ratio of the sequence."""
    table = tokens.assign(log_ratio=tokens["logp_a"] - tokens["logp_b"])
    names = {"fork": "forks", **{x: x for x in ("js", "kl_ab", "kl_ba", "log_ratio")}}
    sums = table.groupby([*BY, "draw"], sort=False)[list(names)].sum()
    values = sums.groupby(level=BY, sort=False).mean()
    return [
        row
        for column, name in names.items()
        for row in spread(
            values[column], tasks, f"{name} a reply", model=model, arm=method, counts=True
        )
    ]


def top_share(values: np.ndarray, units: np.ndarray, percent: float) -> stats.Estimate:
    """The share of a sum that is in the largest values, so many percent of all, with the interval
    of their `units`.

    The ends of that top are themselves estimated. The interval takes each unit's influence: what it
    has above the smallest value c of the top, and c for its share of the places (the sum of an
    L-statistic is the sum of these).
    """
    ranked = np.sort(values)[::-1]
    places = len(values) * percent / 100
    least = ranked[max(0, int(np.ceil(places)) - 1)]
    owner = np.unique(units, return_inverse=True)[1]
    above = np.bincount(owner, np.maximum(values - least, 0.0))
    part = above + least * percent / 100 * np.bincount(owner)
    return _part(part, np.bincount(owner, values))


def _part(part: np.ndarray, whole: np.ndarray) -> stats.Estimate:
    """The share of a sum that is in a part of it, between none and all."""
    found = stats.recovered(np.zeros_like(whole), whole, part)
    return stats.Estimate(found.value, *(float(np.clip(end, 0, 1)) for end in found[1:]))


def _tops(tokens: pd.DataFrame, model: str, method: str) -> list[LayerRow]:
    rows = []
    units = (tokens["task"] + "\n" + tokens["sample"]).to_numpy(str)
    n = len(np.unique(units))
    for percent in TOPS:
        estimate = top_share(tokens["js"].to_numpy(float), units, percent)
        rows.append(estimate_row(model, method, ALL, f"js in top {percent:g} %", estimate, n))
    return rows


def _pairs(tokens: pd.DataFrame, model: str, word: Callable[[int], str]) -> list[Pair]:
    """What the two would rather say at forks, the most frequent first."""
    forks = tokens[tokens["fork"]]
    counted = Counter(zip(forks["top_a"].astype(int), forks["top_b"].astype(int), strict=True))
    return [Pair(model, word(a), word(b), n) for (a, b), n in counted.most_common(LISTED)]


def _crossed(samples: pd.DataFrame, labels: Sequence[str]) -> list[LayerRow]:
    """Accuracy by rule, and what it recovers of the other's gain, paired by prompt."""
    rows: list[LayerRow] = []
    own = {label: _right(samples, label, OWN) for label in labels}
    tasks = list(dict.fromkeys(samples["task"]))
    for model, other in (tuple(labels), tuple(reversed(labels))):
        if not len(own[model]):
            continue
        rows += spread(own[model], tasks, "acc@1", model=model, arm=OWN)
        rows += _gains(own[model], own[other], model, OWN, "gain of the other")
        by_rule = {rule: _right(samples, model, rule) for rule in RULES}
        by_rule = {rule: values for rule, values in by_rule.items() if len(values)}
        gains: list[LayerRow] = []
        for rule, values in by_rule.items():
            rows += spread(values, tasks, "acc@1", model=model, arm=rule)
            rows += _taken(samples, tasks, model, rule)
            gains += _gains(own[model], values, model, rule, "gain")
            rows += _recovered(own[model], own[other], values, tasks, model, rule)
        rows += _adjusted(gains)
        controls = [c for c in CONTROLS if c in by_rule and FORKS in by_rule]
        beside = [_gains(by_rule[c], by_rule[FORKS], model, FORKS, f"over {c}") for c in controls]
        rows += _adjusted([row for made in beside for row in made])
    return rows


def _right(samples: pd.DataFrame, model: str, method: str) -> pd.Series:
    """The share of right draws of each prompt."""
    rows = samples[(samples["model"] == model) & (samples["method"] == method)]
    return per_prompt(rows, "acc@1")


def _taken(samples: pd.DataFrame, tasks: Sequence[str], model: str, rule: str) -> list[LayerRow]:
    """How many tokens were the other's, a reply; how many of them another one than the writer's."""
    mine = (samples["model"] == model) & (samples["method"] == rule) & samples["error"].isna()
    rows = samples[mine]
    of = [rows[column] for column in BY]
    values = {
        "places a reply": rows["places"].map(len).astype(float),
        "changed a reply": rows["changed"].astype(float),
        "share_of_tokens": rows["places"].map(len).astype(float) / rows["tokens"].astype(float),
    }
    return [
        row
        for metric, each in values.items()
        for row in spread(
            each.groupby(of, sort=False).mean(),
            tasks,
            metric,
            model=model,
            arm=rule,
            counts=metric != "share_of_tokens",
        )
    ]


def _gains(
    before: pd.Series, after: pd.Series, model: str, rule: str, metric: str
) -> list[LayerRow]:
    """Paired differences by task and for `all`."""
    if not len(before) or not len(after):
        return []
    compared = compare_values(before, after, "acc@1")
    return [
        estimate_row(
            model,
            rule,
            row["task"],
            metric,
            stats.Estimate(row["diff"], row["ci_low"], row["ci_high"]),
            row["n"],
            p=row["p_adjusted"],
        )
        for row in compared.to_dict("records")
    ]


def _adjusted(rows: Sequence[LayerRow]) -> list[LayerRow]:
    """The p of `all` are Holm-corrected together; those of single tasks are, over the tasks of each
    comparison.
    """
    whole = [row for row in rows if row["task"] == ALL]
    adjusted = stats.holm([row["p_adjusted"] or 0.0 for row in whole])
    for row, p in zip(whole, adjusted, strict=True):
        row["p_adjusted"] = p
    return list(rows)


def _recovered(
    own: pd.Series,
    other: pd.Series,
    values: pd.Series,
    tasks: Sequence[str],
    model: str,
    rule: str,
) -> list[LayerRow]:
    """(acc_rule − acc_own) / (acc_other − acc_own), paired by prompt; null where the interval of
    the whole gain holds 0: then nothing can be said of its share.
    """
    import pandas as pd

    table = pd.concat({"own": own, "other": other, "rule": values}, axis=1, join="inner").dropna()
    of = table.index.get_level_values("task")
    groups = {task: table[of == task].to_numpy(float).T for task in tasks}
    made = [(task, _share(three), three.shape[1]) for task, three in groups.items()]
    made.append((ALL, _share(*groups.values()), len(table)))
    return [estimate_row(model, rule, t, "recovered", estimate, n) for t, estimate, n in made]


def _share(*groups: np.ndarray) -> stats.Estimate:
    """Of the gain, from tables [own, other, rule] by prompt; nothing where the gain may be 0."""
    found = stats.recovered(*(side for three in groups for side in three))
    return stats.Estimate(*[np.nan] * 3) if np.isnan(found.low) else found
