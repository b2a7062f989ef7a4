"""Which model is base, sft and rl, from the manifests of runs alone: content hashes, stages of
diffs, labels.

What the caller says comes first, then a diff (its stages are the order of its arguments), a merge
sweep (the donor is RL, the base what RL started from), then names: a label that holds the word
base, sft or rl. What stays ambiguous is asked for.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from franken.errors import FrankenError, UsageError

STAGES = ("base", "sft", "rl")


@dataclass(frozen=True)
class Run:
    """A finished run as its manifest has it."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def verb(self) -> str:
        """eval, probe, diff, …"""
        return self.manifest["verb"]

    @property
    def label(self) -> str:
        """What the run calls its model."""
        return self.manifest["label"]

    @property
    def contents(self) -> list[str]:
        """Hashes of the models that its rows are about, a hybrid's receiver among them."""
        identity = self.manifest.get("identity", {})
        if self.verb == "diff":
            return list(identity["checkpoints"].values())
        if self.verb == "merge-sweep":
            return list(identity["models"])
        one = identity.get("model") or identity.get("checkpoint")
        return [one] if one else []

    @property
    def content(self) -> str:
        """The hash of its one model; empty for runs of several."""
        return self.contents[0] if len(self.contents) == 1 else ""

    @property
    def donor(self) -> str | None:
        """The hash of a hybrid's donor."""
        return self.manifest.get("identity", {}).get("donor")

    @property
    def graft(self) -> dict[str, Any] | None:
        """What a hybrid is made of."""
        return self.manifest.get("config", {}).get("graft")

    @property
    def measured(self) -> list[str]:
        """What it measured: two runs of one verb and model that share any of it count answers
        twice.
        """
        config = self.manifest.get("config", {})
        return list(
            {"eval": config.get("arms"), "probe": config.get("methods")}.get(self.verb)
            or [self.verb]
        )

    @property
    def paths(self) -> list[str]:
        """Where its checkpoints were."""
        return (
            list(self.manifest.get("models", {}).values())
            if self.verb in ("eval", "probe", "merge-sweep")
            else []
        )

    @property
    def command(self) -> str:
        """The command line that made it; empty where a study did."""
        program, *rest = self.manifest.get("argv") or [""]
        return (
            "" if not program or program.endswith("worker.py") else shlex.join(["franken", *rest])
        )

    def name_of(self, content: str) -> str:
        """What this run calls the model of that hash; empty for a model that it does not know."""
        models = self.manifest.get("models", {})
        if self.verb == "diff":
            stages = self.manifest["identity"]["checkpoints"]
            return next(
                (str(models.get(s, s)) for s, found in stages.items() if found == content), ""
            )
        if self.verb == "merge-sweep":
            names = dict(zip(self.contents, ("base", "donor"), strict=True))
            return str(models.get(names.get(content, ""), ""))
        if content and content == self.donor:
            return str(models.get(f"donor of {self.label}", ""))
        return str(next(iter(models.values()), "")) if content == self.content else ""


def infer_stages(runs: Sequence[Run], given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Stage → content hash, in the order of the stages, and sentences on what was guessed.

    Raises UsageError where it stays open which model is RL, or where two models claim one stage.
    """
    known = _names(runs)
    found = {stage: _resolve(stage, text, known) for stage, text in given.items() if text}
    notes: list[str] = []
    for claims in (_by_diff(runs), _by_sweep(runs, found), _by_label(runs)):
        for stage in [s for s in STAGES if s in claims and s not in found]:
            fresh = claims[stage] - set(found.values())
            if len(fresh) > 1:
                names = " and ".join(sorted(known[c] for c in fresh))
                raise UsageError(
                    f"two models could be {stage}", f"they are {names}", f"say which with --{stage}"
                )
            if fresh:
                found[stage] = fresh.pop()
    free = [c for c in known if c not in found.values()]
    if "rl" not in found and len(known) == 1:
        found = {"rl": free[0] if free else next(iter(found.values()))}
        notes.append(f"There is one model, {known[found['rl']]}; it is called RL here.")
    elif "rl" not in found or len(known) > 1 and not {"base", "sft"} & set(found):
        if "rl" in found and len(free) == 1:
            found["base"] = free[0]
            notes.append(f"{known[free[0]]} is taken for the base: it is the only other model.")
        else:
            missing = "--rl" if "rl" not in found else "--base"
            listed = (
                ", ".join(f"{name} ({content[:8]})" for content, name in known.items()) or "none"
            )
            raise UsageError(
                "cannot tell which model is which",
                f"the models are {listed}",
                f"say it with {missing} NAME",
            )
    if len(set(found.values())) < len(found):
        raise UsageError(
            "one model has two stages",
            ", ".join(f"{s}: {known.get(c, c)}" for s, c in found.items()),
        )
    return {stage: found[stage] for stage in STAGES if stage in found}, notes


def _names(runs: Sequence[Run]) -> dict[str, str]:
    """Content hash → what runs call it, of all models that are no hybrids; evaluations know best."""
    names: dict[str, str] = {}
    for run in sorted(runs, key=lambda r: (r.verb != "eval", r.verb != "probe")):
        for content in run.contents:
            label = run.label if run.content and not run.graft else run.name_of(content)
            names.setdefault(content, label)
    return names


def _resolve(stage: str, text: str, known: Mapping[str, str]) -> str:
    """The hash of what `--base` and its like name."""
    from franken.checkpoints import fingerprint, open_checkpoint

    fits = [
        c for c, name in known.items() if text == name or (len(text) >= 4 and c.startswith(text))
    ]
    if not fits and (Path(text).is_dir() or ":" in text):
        fits = [fingerprint(open_checkpoint(text))]
    if len(fits) == 1 and fits[0] in known:
        return fits[0]
    listed = ", ".join(f"{name} ({content[:8]})" for content, name in known.items())
    what = "fits two of them" if len(fits) > 1 else "is none of them"
    raise UsageError(
        f"--{stage} {text} {what}",
        f"the models are {listed}",
        "give a checkpoint, its label or its hash",
    )


def _by_diff(runs: Sequence[Run]) -> dict[str, set[str]]:
    """A diff of three says it all; one of two says RL, and a base that may have been an SFT where
    another says so.
    """
    claims: dict[str, set[str]] = {}
    for run in sorted((r for r in runs if r.verb == "diff"), key=lambda r: -len(r.contents)):
        stages = run.manifest["identity"]["checkpoints"]
        if claims and set(stages.values()) <= {c for found in claims.values() for c in found}:
            continue
        for stage, content in stages.items():
            claims.setdefault(stage, set()).add(content)
    return claims


def _by_sweep(runs: Sequence[Run], found: Mapping[str, str]) -> dict[str, set[str]]:
    claims: dict[str, set[str]] = {}
    for run in (r for r in runs if r.verb == "merge-sweep"):
        start, donor = run.contents
        claims.setdefault("rl", set()).add(donor)
        if start not in found.values():
            claims.setdefault("sft" if "base" in found else "base", set()).add(start)
    return claims


def _by_label(runs: Sequence[Run]) -> dict[str, set[str]]:
    """By label, or else by the name of its folder: a stage's own name before a name that holds the
    word.
    """
    exact: dict[str, set[str]] = {}
    loose: dict[str, set[str]] = {}
    for run in runs:
        if not run.content or run.graft:
            continue
        if run.label in STAGES:
            exact.setdefault(run.label, set()).add(run.content)
        words = {w for w in re.split(r"[^a-z]+", run.label.lower()) if w in STAGES}
        if len(words) == 1 and "frozen" not in run.label.lower():
            loose.setdefault(words.pop(), set()).add(run.content)
    return loose | exact


def freezes(trained: Sequence[Path]) -> tuple[dict[str, list[int]], list[str]]:
    """Content hash of a training run's result → the text layers that it froze, of runs that froze
    some and not all.
    """
    from franken.checkpoints import fingerprint, open_checkpoint

    found: dict[str, list[int]] = {}
    notes: list[str] = []
    for folder in trained:
        if not (folder / "freeze.json").exists():
            continue
        try:
            content = fingerprint(open_checkpoint(folder / "final"))
        except FrankenError:
            notes.append(f"The training run {folder.name} has no final checkpoint any more.")
            continue
        layers: dict[int, bool] = {}
        for stage in json.loads((folder / "freeze.json").read_text()).values():
            for row in stage["table"]:
                if row["part"] == "text" and row["layer"] is not None:
                    layers[row["layer"]] = layers.get(row["layer"], True) and row["frozen"]
        still = [i for i in sorted(layers) if layers[i]]
        if still and len(still) < len(layers):
            found[content] = still
    return found, notes
