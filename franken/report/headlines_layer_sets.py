"""The headlines on layer sets: what RL's layers carry into its parent, and what RL learns when they
are frozen.
"""

from __future__ import annotations

from typing import Any

from franken.layers import format_layers, name_layers, thirds
from franken.report.sources import evals, join, say
from franken.report.theme import name
from franken.report.verdicts import (
    ABSENT,
    AGAINST,
    NB,
    ONE_RUN,
    OPEN,
    SUPPORTED,
    Headline,
    above_half,
    holm_of,
    interval,
    judged,
    keeps_text,
    n_text,
    p_text,
    paired,
    percent,
    side_of_half,
)
from franken.runs import RunSet
from franken.stats import ALPHA


def transfer(runset: RunSet) -> Headline:
    """Whether RL's middle and late layers carry the gain into the parent."""
    question = "Does the change transfer?"
    claim = "RL's middle and late layers carry its gain"
    parent, study = runset.study.parent, runset.study
    hybrids = [h for h, info in study.hybrids.items() if not info.control]
    rows = {h: r for h in hybrids if (r := paired(runset, parent, h)) is not None}
    whole = paired(runset, parent, "rl")
    late = set(range(thirds(study.depth)["middle"][0], study.depth))
    main = next((h for h in rows if set(study.hybrids[h].layers) == late), None)
    half = above_half(runset, main) if main else None
    if whole is None or main is None or half is None:
        return Headline("transfer", question, "No hybrid was evaluated.", claim, ABSENT)
    adjusted = holm_of(rows)
    row, p = rows[main], adjusted[main]
    sized = [
        h for h, info in study.hybrids.items() if info.control and len(info.layers) == len(late)
    ]
    controls = {c: r for c in sized if (r := paired(runset, c, main)) is not None}
    controlled = holm_of(controls)
    beats = [r["diff"] > 0 and controlled[c] < ALPHA for c, r in controls.items()]
    gained = judged(whole, whole["p"]) == SUPPORTED
    part = ", {share:n} of RL's gain" if gained else ""
    share = f"{100 * row['diff'] / whole['diff']:.0f}{NB}%" if gained else ""
    runs = evals(runset, parent, main, "rl")
    answer = say(
        "{who} with RL's {span} scores {after:n}: {gain:n} over {who}" + part + ", {n:n}, {p:n}.",
        runs,
        {"after": evals(runset, main), "gain": evals(runset, parent, main)},
        who=name(parent),
        span=name_layers(late),
        after=percent(row["mean_b"]),
        gain=interval(row),
        share=share,
        n=n_text(row["n"]),
        p=p_text(p),
    )
    if not gained:
        verdict = OPEN
        answer = join(
            say(
                "RL shows no gain over {who} here, so there is none to transfer.", who=name(parent)
            ),
            answer,
        )
    elif side_of_half(half) == -1:
        verdict = AGAINST
    elif row["diff"] > 0 and p < ALPHA and side_of_half(half) == 1 and beats and all(beats):
        verdict = SUPPORTED
    else:
        verdict = OPEN
    facts: list[str] = [
        say(
            "{label}: {gain:n}, {p:n}.",
            evals(runset, parent, h),
            label=h,
            gain=interval(r),
            p=p_text(adjusted[h]),
        )
        for h, r in rows.items()
    ]
    facts.append(
        say("{label} against half of RL's gain: {gap:n}.", runs, label=main, gap=interval(half))
    )
    facts += [
        say(
            "{main} against {control}, as many layers chosen at random: {gain:n}, {p:n}.",
            evals(runset, c, main),
            main=main,
            control=name(c),
            gain=interval(r),
            p=p_text(controlled[c]),
        )
        for c, r in controls.items()
    ]
    if not controls:
        facts.append(
            "No random layer set of this size was evaluated, so nothing says that it is these "
            "layers."
        )
    test = (
        f"Sign-flip tests of acc@1 over prompts. Supported: above {name(parent)} (Holm over the "
        "hybrids), above half of RL's gain (95 % interval and sign flips), and above every "
        "random layer set of equal size (Holm over them). Not supported: below half of RL's "
        f"gain. {ONE_RUN}"
    )
    return Headline("transfer", question, answer, claim, verdict, test, facts)


def necessary(runset: RunSet) -> Headline:
    """Whether RL still gains when its late layers are frozen."""
    question, parent, study = "Was it necessary?", runset.study.parent, runset.study
    arms = {a: r for a in study.frozen if (r := paired(runset, "rl", a)) is not None}
    whole = paired(runset, parent, "rl")
    if not arms or whole is None:
        how = (
            "No freeze run was given. Repeat RL with layers frozen (franken freeze-train) and "
            "name it with --extra."
        )
        return Headline(
            "necessary", question, how, "Without its late layers RL loses its gain", ABSENT
        )
    lower = holm_of(arms)
    halves = {a: above_half(runset, a) for a in arms}
    late = set(range(*thirds(study.depth)["late"]))
    key = max(
        arms,
        key=lambda a: len(late & set(study.frozen[a])) - 0.01 * len(set(study.frozen[a]) - late),
    )
    span = name_layers(study.frozen[key])
    exact = set(study.frozen[key]) == late
    claim = (
        "Without its late layers RL loses its gain"
        if exact
        else f"Without {span} RL loses its gain"
    )
    states = {a: _freeze_state(r, lower[a], halves[a]) for a, r in arms.items()}
    row = arms[key]
    answer = say(
        "RL with {span} frozen scores {after:n}: {loss:n} against full RL, {n:n}, {p:n}.",
        evals(runset, "rl", key),
        {"after": evals(runset, key)},
        span=span,
        after=percent(row["mean_b"]),
        loss=interval(row),
        n=n_text(row["n"]),
        p=p_text(lower[key]),
    )
    verdict = {"needed": SUPPORTED, "not needed": AGAINST}.get(states[key], OPEN)
    if judged(whole, whole["p"]) != SUPPORTED:
        verdict = OPEN
        answer = join(
            say("RL shows no gain over {who} here, so there is none to lose.", who=name(parent)),
            answer,
        )
    facts: list[str] = []
    for arm, r in arms.items():
        line = say(
            "{arm} ({span}): {loss:n} against RL, {p:n}; {state}.",
            evals(runset, "rl", arm),
            arm=name(arm),
            span=format_layers(study.frozen[arm]),
            loss=interval(r),
            p=p_text(lower[arm]),
            state=states[arm],
        )
        half = halves[arm]
        facts.append(
            join(line, keeps_text(half, evals(runset, parent, "rl", arm)))
            if half is not None
            else line
        )
    test = (
        "Sign-flip tests of acc@1 over prompts. Needed: below RL (Holm over the arms) and below "
        "half of RL's gain (95 % interval and sign flips). Not needed: above half of RL's gain. "
        f"{ONE_RUN}"
    )
    return Headline("necessary", question, answer, claim, verdict, test, facts)


def _freeze_state(row: Any, p: float, half: Any | None) -> str:
    if half is not None and side_of_half(half) == 1:
        return "not needed"
    if half is not None and side_of_half(half) == -1 and row["diff"] < 0 and p < ALPHA:
        return "needed"
    return OPEN
