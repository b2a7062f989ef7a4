"""One line per question, with its number, its interval, its n, and a verdict that a stated test decides.

A verdict is about the claim of the paper (Frankenstein, arXiv 2602.12395) as it stands in these checkpoints:
`supported`, `not supported`, or `inconclusive`; `not measured` where the runs are missing. The rules are the same for
every study: the 5 % level after Holm's correction within a question. (They were settled while looking at the creature,
so the creature's own verdicts are an illustration, not a confirmation.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from franken import stats
from franken.evaluate.metrics import compare_samples, per_prompt
from franken.layers import thirds
from franken.report.evidence import Evidence
from franken.report.theme import name

NB = "\N{NO-BREAK SPACE}"
ALPHA = 0.05
SUPPORTED, AGAINST, OPEN, ABSENT = "supported", "not supported", "inconclusive", "not measured"


@dataclass
class Headline:
    """An answer: `key` is its anchor on the page, `claim` what the verdict is about, `test` how it was decided."""

    key: str
    question: str
    answer: str
    claim: str
    verdict: str
    test: str = ""
    facts: list[str] = field(default_factory=list)


def points(x: float) -> str:
    """A share as signed percentage points: 0.102 → `+10.2`."""
    return f"{100 * x:+.1f}".replace("-", "\N{MINUS SIGN}")


def percent(x: float) -> str:
    """A share as a percentage: 0.726 → `72.6 %`."""
    return f"{100 * x:.1f}{NB}%"


def p_text(p: float) -> str:
    """`p = 0.03`, or `p < 0.001`."""
    text = "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"
    return text.replace(" ", NB)


def interval(row: Any) -> str:
    """A difference with its interval, in points: `+10.2 points (95 % +8.1 to +12.2)`."""
    return f"{points(row['diff'])} points (95{NB}% {points(row['ci_low'])} to {points(row['ci_high'])})"


def paired(found: Evidence, a: str, b: str, metric: str = "acc@1", task: str = "all") -> Any | None:
    """The paired comparison b - a in the image arm, as a row; None when either model was not evaluated."""
    left, right = (found.samples("eval", label) for label in (a, b))
    if len(left) == 0 or len(right) == 0:
        return None
    if any(len(per_prompt(t[t["method"] == "image"], metric)) == 0 for t in (left, right)):
        return None
    return compare_samples(left, right, metric).set_index("task").loc[task]


def all_headlines(found: Evidence) -> list[Headline]:
    """The summary line (is there a gain at all?) and the four questions, in the order of the page."""
    return [gain(found), where(found), what(found), transfer(found), necessary(found)]


def gain(found: Evidence) -> Headline:
    """Did RL improve on what it started from, and on the same compute of more SFT?"""
    parent = found.study.parent
    claim = f"RL beats {name(parent)} on held-out questions"
    row = paired(found, parent, "rl")
    if row is None:
        return Headline("gain", "Did RL help?", "The checkpoints were not evaluated.", claim, ABSENT)
    verdict = _verdict(row["diff"], row["p"])
    facts = []
    answer = (
        f"RL answers {percent(row['mean_b'])} of the questions, {name(parent)} {percent(row['mean_a'])}: "
        f"{interval(row)}, n{NB}={NB}{row['n']} prompts, {p_text(row['p'])}."
    )
    control = paired(found, "control", "rl")
    if control is not None:
        facts.append(
            f"Against SFT continued for the same time ({percent(control['mean_a'])}): {interval(control)}, "
            f"{p_text(control['p'])}, n{NB}={NB}{control['n']}."
        )
    for k in _ks(found):
        wide = paired(found, parent, "rl", f"acc@{k}")
        if wide is not None:
            facts.append(
                f"acc@{k}: {percent(wide['mean_a'])} before, {percent(wide['mean_b'])} after RL, {interval(wide)}, "
                f"{p_text(wide['p'])}."
            )
    varied = paired(found, parent, "rl", "strategies")
    if varied is not None:
        facts.append(
            f"Distinct strategies a prompt: {varied['mean_a']:.2f} before, {varied['mean_b']:.2f} after RL, "
            f"{p_text(varied['p'])}."
        )
    facts += _unformatted(found)
    test = "Sign-flip permutation test of acc@1 over prompts, both models on the same prompts."
    return Headline("gain", "Did RL help?", answer, claim, verdict, test, facts)


def where(found: Evidence) -> Headline:
    """Where the model sees: do the swap curves of two tasks fall at different layers?"""
    question = "Where does it see, where does it reason?"
    claim = "Tasks stop reading the image at different depths"
    model = next((m for m in ("rl", "sft", "base") if m in found.models("probe")), None)
    depths = reading_depths(found, model) if model else {}
    depths = {t: d for t, d in depths.items() if len(d) >= 5}
    if model is None or len(depths) < 2:
        return Headline("where", question, "Too few pairs whose answer follows the image.", claim, ABSENT)
    at = {t: stats.bootstrap_mean(d.tolist()) for t, d in depths.items()}
    first, last, p, how = _deepest_gap(found, model, depths)
    verdict = SUPPORTED if p < ALPHA else OPEN
    answer = (
        f"In {name(model)}, answers to {first} stop following the image after {_layers(at[first])}, answers to "
        f"{last} after {_layers(at[last])}, n{NB}={NB}{len(depths[first])} and {len(depths[last])} pairs, {p_text(p)}."
    )
    facts = [
        f"{t}: the image matters through {_layers(at[t])}, n = {len(depths[t])} pairs that follow it."
        for t in sorted(at, key=lambda t: at[t].value)
    ]
    worst = costliest_layer(found, model)
    if worst:
        facts.append(worst)
    test = (
        "Per pair, the number of layers from which a suffix swap still changes the answer, among pairs where the swap "
        f"of all layers does; {how}, Holm over pairs of tasks."
    )
    return Headline("where", question, answer, claim, verdict, test, facts)


def what(found: Evidence) -> Headline:
    """What training changed: is the RL update larger in the middle and late layers?"""
    question = "What did training change?"
    claim = "The RL update concentrates in middle and late layers"
    rows = found.layers("diff")
    delta = found.study.delta
    energy = _text_layers(rows, delta, "relative_energy")
    if len(energy) < 3:
        return Headline("what", question, "The parameters were not compared.", claim, ABSENT)
    start = thirds(len(energy))["middle"][0]
    early, rest = energy[:start], energy[start:]
    p = subset_p(energy, start)
    ratio = float(rest.mean() / early.mean()) if early.mean() else float("inf")
    verdict = OPEN if p >= ALPHA else SUPPORTED if ratio > 1 else AGAINST
    answer = (
        f"RL moved a text layer by {percent(float(energy.mean()))} of its norm; middle and late layers moved "
        f"{ratio:.2f} times as far as early ones, n{NB}={NB}{len(energy)} layers, {p_text(p)}."
    )
    facts = []
    before = _text_layers(rows, "base→sft", "relative_energy")
    if len(before):
        facts.append(
            f"SFT moved a text layer by {percent(float(before.mean()))}: {before.mean() / energy.mean():.1f} times as "
            "far as RL did."
        )
    for metric, words in (
        ("unchanged_fraction", "of the elements of a text layer did not change at all in RL"),
        ("effective_rank", "is the mean effective rank of RL's update of a text layer"),
    ):
        values = _text_layers(rows, delta, metric)
        if len(values):
            shown = percent(float(values.mean())) if metric == "unchanged_fraction" else f"{values.mean():.1f}"
            facts.append(f"{shown} {words}.")
    test = "Exact permutation over layers of the mean relative energy ‖Δ‖/‖W‖, early third against the rest."
    return Headline("what", question, answer, claim, verdict, test, facts)


def transfer(found: Evidence) -> Headline:
    """Whether RL's middle and late layers carry the gain into the parent."""
    question = "Does the change transfer?"
    claim = "RL's middle and late layers carry its gain"
    parent, study = found.study.parent, found.study
    hybrids = [h for h, info in study.hybrids.items() if not info.get("control")]
    rows = {h: r for h in hybrids if (r := paired(found, parent, h)) is not None}
    whole = paired(found, parent, "rl")
    late = set(range(thirds(study.depth)["middle"][0], study.depth))
    main = next((h for h in rows if set(study.hybrids[h]["layers"]) == late), None)
    if whole is None or main is None:
        return Headline("transfer", question, "No hybrid was evaluated.", claim, ABSENT)
    adjusted = dict(zip(rows, stats.holm([r["p"] for r in rows.values()]), strict=True))
    row, p = rows[main], adjusted[main]
    share = row["diff"] / whole["diff"] if abs(whole["diff"]) > 1e-9 else float("nan")
    controls = [
        (c, r) for c, info in study.hybrids.items()
        if info.get("control") and len(info["layers"]) == len(late) and (r := paired(found, c, main)) is not None
    ]  # fmt: skip
    beats = [r["diff"] > 0 and q < ALPHA for (_, r), q in zip(
        controls, stats.holm([float(r["p"]) for _, r in controls]), strict=True)]  # fmt: skip
    answer = (
        f"{name(parent)} with RL's layers {min(late)}–{max(late)} scores {percent(row['mean_b'])}: {interval(row)} "
        f"over {name(parent)}, {100 * share:.0f} % of RL's gain, n{NB}={NB}{row['n']}, {p_text(p)}."
    )
    if _verdict(whole["diff"], whole["p"]) != SUPPORTED:
        verdict = OPEN
        answer = f"RL shows no gain over {name(parent)} here, so there is none to transfer. {answer}"
    elif row["diff"] > 0 and p < ALPHA:
        verdict = SUPPORTED if all(beats) else OPEN
    else:
        verdict = AGAINST if row["ci_high"] < whole["diff"] / 2 else OPEN
    facts = [f"{h}: {interval(r)}, {p_text(adjusted[h])}." for h, r in rows.items()]
    facts += [
        f"Against {name(c)}, as many layers chosen at random: {interval(r)}, {p_text(r['p'])}." for c, r in controls
    ]
    test = (
        f"Sign-flip test of acc@1 against {name(parent)} over prompts, Holm over the hybrids; and against random layer "
        "sets of equal size."
    )
    return Headline("transfer", question, answer, claim, verdict, test, facts)


def necessary(found: Evidence) -> Headline:
    """Whether RL still gains when a third of the layers is frozen."""
    question = "Was it necessary?"
    claim = "Without its late layers RL loses its gain"
    parent = found.study.parent
    arms = {a: r for a in found.study.frozen if (r := paired(found, "rl", a)) is not None}
    if not arms:
        how = "No freeze run was given. Repeat RL with layers frozen (franken freeze-train) and name it with --extra."
        return Headline("necessary", question, how, claim, ABSENT)
    lower = dict(zip(arms, stats.holm([r["p"] for r in arms.values()]), strict=True))
    above = {a: paired(found, parent, a) for a in arms}
    gains = dict(zip(arms, stats.holm([float(r["p"]) for r in above.values() if r is not None]), strict=False))
    whole = paired(found, parent, "rl")
    verdicts: dict[str, str] = {}
    for arm, row in arms.items():
        up = above[arm]
        if row["diff"] < 0 and lower[arm] < ALPHA:
            verdicts[arm] = "needed"
        elif up is not None and up["diff"] > 0 and gains[arm] < ALPHA:
            verdicts[arm] = "not needed"
        else:
            verdicts[arm] = OPEN
    key = "frozen-late" if "frozen-late" in arms else list(arms)[-1]
    row = arms[key]
    verdict = {"needed": SUPPORTED, "not needed": AGAINST}.get(verdicts[key], OPEN)
    answer = (
        f"RL with layers {_span(found.study.frozen[key])} frozen scores {percent(row['mean_b'])}: {interval(row)} "
        f"against full RL, n{NB}={NB}{row['n']}, {p_text(lower[key])}."
    )
    if whole is None or _verdict(whole["diff"], whole["p"]) != SUPPORTED:
        verdict = OPEN
    facts = []
    for arm, r in arms.items():
        line = f"{name(arm)} ({_span(found.study.frozen[arm])}): {interval(r)} against RL, {p_text(lower[arm])}"
        up = above[arm]
        line += f"; {interval(up)} over {name(parent)}" if up is not None else ""
        facts.append(f"{line}: {verdicts[arm]}.")
    test = (
        "Sign-flip tests of acc@1 over prompts, Holm over the arms. Needed: below RL. Not needed: not below RL, and "
        f"above {name(parent)}."
    )
    return Headline("necessary", question, answer, claim, verdict, test, facts)


def reading_depths(found: Evidence, model: str) -> dict[str, np.ndarray]:
    """Per task, for each pair whose answer follows the image: how many suffix swaps (from layer 0, 1, …) change it."""
    rows = found.samples("probe", model)
    rows = rows[(rows["method"] == "swap-suffix") & rows["error"].isna() & rows["ineligible"].isna()]
    out: dict[str, np.ndarray] = {}
    for task, part in rows.groupby("task", sort=False):
        table = part.assign(changed=part["changed"].astype(float)).pivot_table(
            index="sample", columns="layer", values="changed"
        )
        if 0 in table.columns:
            out[str(task)] = table[table[0] > 0].sum(axis=1).to_numpy(float)
    return out


def _deepest_gap(found: Evidence, model: str, depths: dict[str, np.ndarray]) -> tuple[str, str, float, str]:
    """The two tasks that fall furthest apart: (earlier, later, adjusted p, the test's name).

    Tasks that share their images were tested in pairs by the probe (`fall_tests` of its manifest); other tasks are
    compared as independent samples. Holm runs over all pairs of tasks. Shown is the widest gap.
    """
    paired_tests = {frozenset(t["tasks"]): t for t in found.manifest("probe", model).get("fall_tests") or []}
    pairs = list(combinations(depths, 2))
    tests = [paired_tests.get(frozenset(ab)) for ab in pairs]
    raw = [float(t["p"]) if t else permutation_p(depths[a], depths[b]) for t, (a, b) in zip(tests, pairs, strict=True)]
    gaps = [abs(depths[a].mean() - depths[b].mean()) for a, b in pairs]
    adjusted = stats.holm(raw)
    at = max(range(len(pairs)), key=lambda i: gaps[i])
    (a, b), test = pairs[at], tests[at]
    a, b = (a, b) if depths[a].mean() <= depths[b].mean() else (b, a)
    how = (
        f"sign-flip test paired by image (n = {test['n']} images)" if test else "permutation test between the two tasks"
    )
    return a, b, adjusted[at], how


def costliest_layer(found: Evidence, model: str) -> str:
    """Which layer's removal costs most accuracy over all tasks; several where their intervals overlap."""
    from franken.report.plots import pool_tasks

    rows = found.layers("probe")
    rows = rows[(rows["model"] == model) & (rows["method"] == "zero") & (rows["metric"] == "accuracy_drop")]
    pooled = pool_tasks(rows)
    if len(pooled) == 0:
        return ""
    top = pooled.loc[pooled["value"].idxmax()]
    rivals = pooled[pooled["ci_high"] >= top["ci_low"]]
    layers = [int(i) for i in rivals["layer"]]
    who = f"layer {layers[0]}" if len(layers) == 1 else f"one of the layers {_span(layers)}"
    return (
        f"Removing {who} costs most: {100 * top['value']:.0f} points of accuracy at layer {int(top['layer'])} "
        f"(95 % {100 * top['ci_low']:.0f} to {100 * top['ci_high']:.0f}), mean over tasks."
    )


def permutation_p(a: np.ndarray, b: np.ndarray, *, n_perm: int = 10_000, seed: int = 0) -> float:
    """Two-sided permutation p that two independent samples have equal means; never below 1/(n_perm + 1)."""
    pool = np.concatenate([a, b])
    rng = np.random.default_rng(seed)
    seen = abs(a.mean() - b.mean())
    orders = rng.permuted(np.tile(pool, (n_perm, 1)), axis=1)
    means = orders[:, : len(a)].mean(1) - orders[:, len(a) :].mean(1)
    return float(((np.abs(means) >= seen - 1e-12).sum() + 1) / (n_perm + 1))


def subset_p(values: np.ndarray, size: int, *, n_perm: int = 20_000, seed: int = 0) -> float:
    """Two-sided p that the first `size` values differ in mean from the rest: exact, or drawn where subsets are many."""
    from math import comb

    n = len(values)
    if not 0 < size < n:
        return 1.0
    total = values.sum()

    def gap(chosen: Any) -> float:
        inside = values[list(chosen)].sum()
        return abs(inside / size - (total - inside) / (n - size))

    seen = gap(range(size)) - 1e-12
    if comb(n, size) <= n_perm:
        gaps = np.array([gap(c) for c in combinations(range(n), size)])
        return float((gaps >= seen).mean())
    rng = np.random.default_rng(seed)
    drawn = np.array([gap(rng.permutation(n)[:size]) for _ in range(n_perm)])
    return float(((drawn >= seen).sum() + 1) / (n_perm + 1))


def _unformatted(found: Evidence) -> list[str]:
    """A warning for stages that hardly ever keep the answer format: their score says little about what they see."""
    rows = found.layers("eval")
    rows = rows[(rows["metric"] == "format") & (rows["task"] == "all") & (rows["method"] == "image")]
    rates = {m: float(v) for m, v in zip(rows["model"], rows["value"], strict=True) if v == v}
    return [
        f"{name(m)} keeps the answer format in {percent(rates[m])} of its replies: its score measures that as much as what "
        "it sees."
        for m in found.study.stages
        if rates.get(m, 1.0) < 0.5
    ]


def _verdict(diff: float, p: float) -> str:
    if p >= ALPHA:
        return OPEN
    return SUPPORTED if diff > 0 else AGAINST


def _ks(found: Evidence) -> list[int]:
    rows = found.layers("eval")
    names = rows[rows["metric"].astype(str).str.fullmatch(r"acc@\d+")]["metric"].unique() if len(rows) else []
    return sorted(int(m[4:]) for m in names if m != "acc@1")


def _text_layers(rows: Any, delta: str, metric: str) -> np.ndarray:
    if len(rows) == 0:
        return np.zeros(0)
    keep = (rows["method"] == delta) & (rows["metric"] == metric) & (rows["part"] == "text")
    keep &= (rows["component"] == "all") & rows["layer"].notna()
    return rows[keep].sort_values("layer")["value"].dropna().to_numpy(float)


def _layers(mean: stats.Estimate) -> str:
    return f"{mean.value:.1f} layers ({mean.low:.1f} to {mean.high:.1f})"


def _span(layers: list[int]) -> str:
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in runs)
