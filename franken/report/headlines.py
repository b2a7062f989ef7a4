"""One line per question, with its number, its interval, its n, and a verdict that a stated test
decides.

A verdict is about the claim of the paper (Frankenstein, arXiv 2602.12395) as it stands in these
checkpoints: `supported`, `not supported`, or `inconclusive`; `not measured` where the runs are
missing. The rules are the same for every study: one test decides each question, at the 5 % level,
after Holm's correction within the question. (They were settled while looking at the creature, so
the creature's own verdicts are an illustration, not a confirmation.)

Whether layers carry, or training without them keeps, RL's gain is judged against half of that gain:
a model that is not significantly worse than RL may still have lost most of it.
"""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import numpy as np

from franken import stats
from franken.layers import name_layers, thirds
from franken.probe.findings import of_decoder, peak, pool_tasks, select
from franken.probe.method import usable
from franken.report.headlines_layer_sets import necessary, transfer
from franken.report.sources import evals, runs_of, say
from franken.report.theme import name
from franken.report.verdicts import (
    ABSENT,
    AGAINST,
    NB,
    ONE_RUN,
    OPEN,
    SUPPORTED,
    Headline,
    holm_of,
    interval,
    judged,
    n_text,
    p_text,
    paired,
    paired_gap,
    percent,
)
from franken.runs import RunSet
from franken.stats import ALPHA, Estimate


def all_headlines(runset: RunSet) -> list[Headline]:
    """The summary line (is there a gain at all?) and the four questions, in the order of the
    page.
    """
    return [gain(runset), where(runset), what(runset), transfer(runset), necessary(runset)]


def gain(runset: RunSet) -> Headline:
    """Did RL improve on what it started from, and on the same compute of more SFT?"""
    parent = runset.study.parent
    claim = f"RL beats {name(parent)} on held-out questions"
    row = paired(runset, parent, "rl")
    if row is None:
        return Headline(
            "gain", "Did RL help?", "The checkpoints were not evaluated.", claim, ABSENT
        )
    answer = say(
        "RL answers {after:n} of the questions, {who} {before:n}: {gain:n}, {n:n} prompts, {p:n}.",
        evals(runset, parent, "rl"),
        {"after": evals(runset, "rl"), "before": evals(runset, parent)},
        who=name(parent),
        after=percent(row["mean_b"]),
        before=percent(row["mean_a"]),
        gain=interval(row),
        n=n_text(row["n"]),
        p=p_text(row["p"]),
    )
    wanted = [
        ("control", "rl", "acc@1"),
        *((parent, "rl", f"acc@{k}") for k in _ks(runset)),
        (parent, "rl", "strategies"),
    ]
    rows = {(a, m): r for a, b, m in wanted if (r := paired(runset, a, b, m)) is not None}
    adjusted = holm_of(rows)
    facts = [_against(runset, *of, r, adjusted[of]) for of, r in rows.items()]
    test = (
        "Sign-flip permutation test of acc@1 over prompts, both models on the same prompts; "
        f"tasks weigh the same. Below, Holm over the lines. {ONE_RUN}"
    )
    return Headline(
        "gain",
        "Did RL help?",
        answer,
        claim,
        judged(row, row["p"]),
        test,
        [*facts, *_unformatted(runset)],
    )


def _against(runset: RunSet, a: str, metric: str, row: Any, p: float) -> str:
    """RL beside something else, in one line."""
    runs = evals(runset, a, "rl")
    at = {"before": evals(runset, a), "after": evals(runset, "rl")}
    if metric == "strategies":
        return say(
            "Distinct strategies a prompt: {before:n} before, {after:n} after RL, {p:n}.",
            runs,
            at,
            before=f"{row['mean_a']:.2f}",
            after=f"{row['mean_b']:.2f}",
            p=p_text(p),
        )
    if a == "control":
        text = "Against SFT continued for the same time ({before:n}): {gain:n}, {p:n}, {n:n}."
    else:
        text = "{metric}: {before:n} before, {after:n} after RL, {gain:n}, {p:n}."
    return say(
        text,
        runs,
        at,
        metric=metric,
        before=percent(row["mean_a"]),
        after=percent(row["mean_b"]),
        gain=interval(row),
        p=p_text(p),
        n=n_text(row["n"]),
    )


def where(runset: RunSet) -> Headline:
    """Where the model sees: do the swap curves of two tasks fall at different layers?"""
    question = "Where does it see, where does it reason?"
    claim = "Tasks stop reading the image at different depths"
    model = next((m for m in ("rl", "sft", "base") if m in runset.models("probe")), None)
    depths = reading_depths(runset, model) if model else {}
    depths = {t: d for t, d in depths.items() if len(d) >= 5}
    if model is None or len(depths) < 2:
        return Headline(
            "where", question, "Too few pairs whose answer follows the image.", claim, ABSENT
        )
    runs = runs_of(runset, "probe", [model], "swap-suffix")
    at = {t: stats.mean(d, span=runset.study.depth) for t, d in depths.items()}
    first, last, p, how, gap = _deepest_gap(runset, model, depths)
    answer = say(
        "In {who}, answers to {first} stop following the image after {early:n}, answers to {last} "
        "after {late:n}: {gap:n} later, {n:n} pairs, {p:n}.",
        runs,
        who=name(model),
        first=first,
        last=last,
        early=f"{at[first].value:.1f}{NB}layers",
        late=f"{at[last].value:.1f}",
        gap=f"{gap[0]:.1f} layers (95{NB}% {_signed(gap[1])} to {_signed(gap[2])})",
        n=f"{n_text(len(depths[first]))} and {len(depths[last])}",
        p=p_text(p),
    )
    facts: list[str] = [
        say(
            "{task}: the image matters through {layers:n}, {n:n} pairs that follow it.",
            runs,
            task=t,
            layers=_layers(at[t]),
            n=n_text(len(depths[t])),
        )
        for t in sorted(at, key=lambda t: at[t].value)
    ]
    facts += [worst] if (worst := costliest_layer(runset, model)) else []
    test = (
        "Per pair, the number of layers from which a suffix swap still changes the answer, among "
        f"pairs where the swap of all layers does; {how}, Holm over all pairs of tasks. The two "
        "tasks furthest apart are shown."
    )
    return Headline("where", question, answer, claim, SUPPORTED if p < ALPHA else OPEN, test, facts)


def what(runset: RunSet) -> Headline:
    """What training changed: is the RL update larger in the middle and late layers?"""
    question = "What did training change?"
    claim = "The RL update concentrates in middle and late layers"
    rows = runset.layers("diff")
    delta = runset.study.delta
    energy = text_layers(rows, delta, "relative_energy")
    if len(energy) < 3:
        return Headline("what", question, "The parameters were not compared.", claim, ABSENT)
    if not energy.mean() > 0:
        return Headline("what", question, "RL did not change the text layers.", claim, OPEN)
    runs = runs_of(runset, "diff")
    start = thirds(len(energy))["middle"][0]
    p = stats.permutation_test(energy[:start], energy[start:])
    ratio, low, high = stats.ratio(energy[:start], energy[start:])
    parts = {
        c: _ratio(text_layers(rows, delta, "relative_energy", c), start) for c in ("attn", "mlp")
    }
    known = [r for r in parts.values() if r == r]
    alike = all((r > 1) == (ratio > 1) for r in known)
    verdict = OPEN if p >= ALPHA or not alike else SUPPORTED if ratio > 1 else AGAINST
    answer = say(
        "RL moved a text layer by {mean:n} of its norm; middle and late layers moved {ratio:n} "
        "times as far as early ones (95 % {span:n}), {n:n} layers, {p:n}.",
        runs,
        mean=percent(float(energy.mean())),
        ratio=f"{ratio:.2f}",
        span=f"{low:.2f} to {high:.2f}",
        n=n_text(len(energy)),
        p=p_text(p),
    )
    facts: list[str] = []
    if len(known) == 2:
        facts.append(
            say(
                "By component, the same ratio is {attn:n} in attention and {mlp:n} in the MLPs.",
                runs,
                attn=f"{parts['attn']:.2f}",
                mlp=f"{parts['mlp']:.2f}",
            )
        )
    before = text_layers(rows, "base→sft", "relative_energy")
    if len(before):
        facts.append(
            say(
                "SFT moved a text layer by {mean:n}: {times:n} times as far as RL did.",
                runs,
                mean=percent(float(before.mean())),
                times=f"{before.mean() / energy.mean():.1f}",
            )
        )
    for metric, words in (
        ("unchanged_fraction", "of the elements of a text layer did not change at all in RL"),
        ("effective_rank", "is the mean effective rank of RL's update of a text layer"),
    ):
        values = text_layers(rows, delta, metric)
        if len(values):
            shown = (
                percent(float(values.mean()))
                if metric == "unchanged_fraction"
                else f"{values.mean():.1f}"
            )
            facts.append(say("{value:n} " + words + ".", runs, value=shown))
    test = (
        "Permutation over layers of the mean relative energy ‖Δ‖/‖W‖, early third against the "
        "rest, and the same direction in attention and in the MLPs. Weights are read whole, so "
        "the interval and p are over layers, as if they were drawn independently; neighbours are "
        "alike, so take p as the weakest of the four. Another training run may differ."
    )
    return Headline("what", question, answer, claim, verdict, test, facts)


def reading_depths(runset: RunSet, model: str) -> dict[str, np.ndarray]:
    """Per task, for each pair whose answer follows the image: how many suffix swaps (from layer 0,
    1, …) change it.
    """
    rows = of_decoder(runset.samples("probe", model))
    rows = usable(rows[rows["method"] == "swap-suffix"])
    out: dict[str, np.ndarray] = {}
    for task, part in rows.groupby("task", sort=False):
        table = part.assign(changed=part["changed"].astype(float)).pivot_table(
            index="sample", columns="layer", values="changed"
        )
        if 0 in table.columns:
            out[str(task)] = table[table[0] > 0].sum(axis=1).to_numpy(float)
    return out


def _deepest_gap(
    runset: RunSet, model: str, depths: dict[str, np.ndarray]
) -> tuple[str, str, float, str, Estimate]:
    """The two tasks that fall furthest apart: (earlier, later, adjusted p, the test's name, gap
    with interval).

    Tasks that share their images were tested in pairs by the probe (`fall_tests` of its manifest);
    other tasks are compared as independent samples. Holm runs over all pairs of tasks. Shown is the
    widest gap, with the interval of its test.
    """
    manifest = runset.manifest("probe", model)
    paired_tests = {frozenset(t.tasks): t for t in manifest.fall_tests} if manifest else {}
    pairs = list(combinations(depths, 2))
    tests = [paired_tests.get(frozenset(ab)) for ab in pairs]
    raw = [
        t.p if t else stats.permutation_test(depths[a], depths[b])
        for t, (a, b) in zip(tests, pairs, strict=True)
    ]
    gaps = [abs(depths[a].mean() - depths[b].mean()) for a, b in pairs]
    adjusted = stats.holm(raw)
    at = max(range(len(pairs)), key=lambda i: gaps[i])
    (a, b), test = pairs[at], tests[at]
    a, b = (a, b) if depths[a].mean() <= depths[b].mean() else (b, a)
    gap = stats.gap(depths[a], depths[b]) if test is None else paired_gap(test, b)
    how = (
        f"sign-flip test paired by image (n = {test.n} images)"
        if test
        else "permutation test between the two tasks"
    )
    return a, b, adjusted[at], how, gap


def costliest_layer(runset: RunSet, model: str) -> str:
    """Which layer's removal costs most accuracy over all tasks; several where their intervals
    overlap.
    """
    rows = of_decoder(runset.layers("probe"))
    pooled = pool_tasks(select(rows, model=model, method="zero", metric="accuracy_drop"))
    if len(pooled) == 0:
        return ""
    top = pooled.iloc[int(pooled["value"].argmax())]
    layers = peak(pooled)
    who = name_layers(layers) if len(layers) == 1 else f"one of the {name_layers(layers)}"
    return say(
        "Removing {who} costs most: {cost:n} of accuracy at layer {layer} (95 % {span:n}), mean "
        "over tasks.",
        runs_of(runset, "probe", [model], "zero"),
        who=who,
        cost=f"{100 * top['value']:.0f} points",
        layer=int(top["layer"]),
        span=f"{100 * top['ci_low']:.0f} to {100 * top['ci_high']:.0f}",
    )


def text_layers(rows: Any, delta: str, metric: str, component: str = "all") -> np.ndarray:
    """A metric of an update by text layer, ascending; empty where it was not measured."""
    if len(rows) == 0:
        return np.zeros(0)
    keep = (rows["method"] == delta) & (rows["metric"] == metric) & (rows["part"] == "text")
    keep &= (rows["component"] == component) & rows["layer"].notna()
    return rows[keep].sort_values("layer")["value"].dropna().to_numpy(float)


def _unformatted(runset: RunSet) -> list[str]:
    """A warning for stages that hardly ever keep the answer format: their score says little about
    what they see.
    """
    rows = select(runset.layers("eval"), metric="format", task="all", method="image")
    rates = {m: float(v) for m, v in zip(rows["model"], rows["value"], strict=True) if v == v}
    return [
        say(
            "{who} keeps the answer format in {rate:n} of its replies: its score measures that as "
            "much as what it sees.",
            evals(runset, m),
            who=name(m),
            rate=percent(rates[m]),
        )
        for m in runset.study.stages
        if rates.get(m, 1.0) < 0.5
    ]


def _ks(runset: RunSet) -> list[int]:
    rows = runset.layers("eval")
    names = set(rows["metric"].astype(str)) if len(rows) else ()
    return sorted(int(m[4:]) for m in names if re.fullmatch(r"acc@\d+", m) and m != "acc@1")


def _ratio(values: np.ndarray, start: int) -> float:
    early = values[:start].mean() if len(values) > start else 0.0
    return float(values[start:].mean() / early) if early > 0 else float("nan")


def _layers(mean: Estimate) -> str:
    return f"{mean.value:.1f} layers (95{NB}% {mean.low:.1f} to {mean.high:.1f})"


def _signed(x: float) -> str:
    return f"{x:.1f}".replace("-", "\N{MINUS SIGN}")
