"""Which model is base, sft and rl, from the manifests of runs alone.

What the caller says comes first, then a diff (its stages are the order of its arguments), a merge
sweep (the donor is RL, the base what RL started from), then names: a label that holds the word
base, sft or rl. What stays ambiguous is asked for.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from franken.checkpoints import fingerprint, open_checkpoint
from franken.errors import FrankenError, UsageError
from franken.runs.loaded import LoadedRun
from franken.runs.training import TrainingRun

STAGES = ("base", "sft", "rl")
"""The stages of a study: the checkpoint before training, after the cold start, after RL."""

Stages = dict[str, str]
"""Stage → content hash of its model."""
Claims = dict[str, set[str]]
"""Stage → content hashes of the models that could be it."""


ModelNames = dict[str, str]
"""Content hash → what runs call the model."""


class Said(NamedTuple):
    """What the caller says of the stages: a checkpoint, a label or the beginning of a content hash;
    empty where it is to be told.
    """

    base: str = ""
    sft: str = ""
    rl: str = ""


class Lineage(NamedTuple):
    """Stage → content hash, in the order of the stages; and sentences on what was guessed."""

    stages: Stages
    notes: list[str]


class Frozen(NamedTuple):
    """Content hash of a training run's result → the text layers that it froze, where those are some
    and not all; and sentences on what could not be told.
    """

    layers: dict[str, list[int]]
    notes: list[str]


def model_names(runs: Sequence[LoadedRun]) -> ModelNames:
    """Content hash → what runs call it, of all models but hybrids; evaluations know best."""
    names: ModelNames = {}
    for run in sorted(runs, key=lambda r: (r.verb != "eval", r.verb != "probe")):
        for content in run.contents:
            label = run.label if run.content and not run.graft else run.name_of(content)
            names.setdefault(content, label)
    return names


def infer_stages(runs: Sequence[LoadedRun], said: Said = Said()) -> Lineage:
    """Tell the stages, but for those that the caller has `said`.

    Raises UsageError where it stays open which model is RL, or where two models claim one stage.
    """
    known = model_names(runs)
    stages = {stage: _resolve(stage, text, known) for stage, text in said._asdict().items() if text}
    notes: list[str] = []
    for claims in (_by_diff(runs), _by_sweep(runs, stages), _by_label(runs)):
        for stage in [s for s in STAGES if s in claims and s not in stages]:
            fresh = claims[stage] - set(stages.values())
            if len(fresh) > 1:
                names = " and ".join(sorted(known[c] for c in fresh))
                raise UsageError(
                    f"two models could be {stage}", f"they are {names}", f"say which with --{stage}"
                )
            if fresh:
                stages[stage] = fresh.pop()
    free = [content for content in known if content not in stages.values()]
    has_parent = bool({"base", "sft"} & set(stages))
    if "rl" not in stages and len(known) == 1:
        stages = {"rl": free[0] if free else next(iter(stages.values()))}
        notes.append(f"There is one model, {known[stages['rl']]}; it is called RL here.")
    elif "rl" in stages and not has_parent and len(free) == 1:
        stages["base"] = free[0]
        notes.append(f"{known[free[0]]} is taken for the base: it is the only other model.")
    elif "rl" not in stages or (len(known) > 1 and not has_parent):
        raise UsageError(
            "cannot tell which model is which",
            f"the models are {_listed(known)}",
            f"say it with {'--base' if 'rl' in stages else '--rl'} NAME",
        )
    if len(set(stages.values())) < len(stages):
        raise UsageError(
            "one model has two stages",
            ", ".join(f"{s}: {known.get(c, c)}" for s, c in stages.items()),
        )
    return Lineage({stage: stages[stage] for stage in STAGES if stage in stages}, notes)


def frozen_by_content(training: Sequence[TrainingRun]) -> Frozen:
    """What training runs froze, by the contents of their final checkpoints."""
    layers: dict[str, list[int]] = {}
    notes: list[str] = []
    for run in training:
        if not run.proofs:
            continue
        try:
            content = fingerprint(open_checkpoint(run.final))
        except FrankenError:
            notes.append(f"The training run {run.folder.name} has no final checkpoint any more.")
            continue
        named = {row.layer for proof in run.proofs for row in proof.table if row.part == "text"}
        frozen = run.frozen_layers()
        if frozen and len(frozen) < len(named - {None}):
            layers[content] = frozen
    return Frozen(layers, notes)


def _resolve(stage: str, text: str, known: ModelNames) -> str:
    """The hash of what `--base` and its like name."""
    fits = [
        content
        for content, name in known.items()
        if text == name or (len(text) >= 4 and content.startswith(text))
    ]
    if not fits and (Path(text).is_dir() or ":" in text):
        fits = [fingerprint(open_checkpoint(text))]
    if len(fits) == 1 and fits[0] in known:
        return fits[0]
    what = "fits two of them" if len(fits) > 1 else "is none of them"
    raise UsageError(
        f"--{stage} {text} {what}",
        f"the models are {_listed(known)}",
        "give a checkpoint, its label or its hash",
    )


def _listed(known: ModelNames) -> str:
    return ", ".join(f"{name} ({content[:8]})" for content, name in known.items()) or "none"


def _by_diff(runs: Sequence[LoadedRun]) -> Claims:
    """A diff of three says it all; one of two says RL, and a base that may have been an SFT where
    another says so.
    """
    claims: Claims = {}
    for run in sorted((r for r in runs if r.verb == "diff"), key=lambda r: -len(r.contents)):
        stages = run.manifest.identity.checkpoints
        claimed = {content for contents in claims.values() for content in contents}
        if claims and set(stages.values()) <= claimed:
            continue
        for stage, content in stages.items():
            claims.setdefault(stage, set()).add(content)
    return claims


def _by_sweep(runs: Sequence[LoadedRun], stages: Stages) -> Claims:
    claims: Claims = {}
    for run in (r for r in runs if r.verb == "merge-sweep"):
        start, donor = run.contents
        claims.setdefault("rl", set()).add(donor)
        if start not in stages.values():
            claims.setdefault("sft" if "base" in stages else "base", set()).add(start)
    return claims


def _by_label(runs: Sequence[LoadedRun]) -> Claims:
    """By label, or else by the name of its folder: a stage's own name before a name that holds the
    word.
    """
    exact: Claims = {}
    loose: Claims = {}
    for run in runs:
        labels = [(run.label, run.content)] if run.content and not run.graft else []
        if run.verb == "forks":
            labels = list(zip(run.manifest.models, run.contents, strict=False))
        for label, content in labels:
            if label in STAGES:
                exact.setdefault(label, set()).add(content)
            stage = stage_named(label)
            if stage and "frozen" not in label.lower():
                loose.setdefault(stage, set()).add(content)
    return loose | exact


def stage_named(label: str) -> str | None:
    """The stage whose name is a word of the label (`my_rl_7b` → rl); None for none, or several."""
    words = {word for word in re.split(r"[^a-z]+", label.lower()) if word in STAGES}
    return words.pop() if len(words) == 1 else None
