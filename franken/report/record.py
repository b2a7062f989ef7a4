"""The record of a study, `study.json`: which checkpoints, which hybrids, which runs, and what went
wrong.

The study writes it, the page reads it. Paths of runs are relative to the study's folder, so that
the folder can be moved, zipped and sent.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from franken.errors import FrankenError
from franken.runs import atomic_write_text

FILE = "study.json"
SCHEMA = 1


@dataclass
class Study:
    """What an autopsy did. `models` maps a label (base, sft, rl, control, frozen-late …) to its
    checkpoint.

    hybrids: label → {"pattern", "layers" (0-based text layers from the donor), "control" (True for
    random layers)} frozen: label → 0-based text layers that were frozen in training steps: {"id",
    "what", "verb", "model", "command", "seconds", "error", "folders", "optional"}; folders are
    relative to
      the study's folder; a step that was left out is not among them
    notes: sentences about the whole study that its reader must see: sizes that a budget chose,
    models that were guessed left_out: {"id", "what", "why", "command"} of steps that were not run
    on purpose: switched off, over the budget budget: {"text" (as it was typed: 30m), "seconds",
    "estimate" (seconds or None), "chosen" {size: number}}, or None made_of_runs: `franken report
    RUN...` wrote this record; its steps may `rename` models: {name in the run: label here} sizes:
    how much was measured: samples, probe_samples, n, k, controls …; empty in records of older
    versions
    """

    title: str
    models: dict[str, str]
    depth: int
    tasks: list[str]
    samples: int
    seed: int
    data: str | None = None
    hybrids: dict[str, dict[str, Any]] = field(default_factory=dict)
    frozen: dict[str, list[int]] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    command: str = ""
    notes: list[str] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    budget: dict[str, Any] | None = None
    sizes: dict[str, Any] = field(default_factory=dict)
    made_of_runs: bool = False
    schema: int = SCHEMA

    @property
    def parent(self) -> str:
        """The label of what RL started from: `sft`, or `base` where there is no SFT."""
        return "sft" if "sft" in self.models else "base"

    @property
    def stages(self) -> list[str]:
        """base, sft, rl, as far as they are there."""
        return [s for s in ("base", "sft", "rl") if s in self.models]

    @property
    def delta(self) -> str:
        """The name of the RL update in `franken diff`."""
        return f"{self.parent}→rl"

    def beside(self, arm: str) -> dict[str, str | None]:
        """The hybrids of the very layers that a frozen arm froze: `graft` has only RL's of these,
        `revert` RL's of all others.

        None where the study has no such hybrid.
        """
        frozen = set(self.frozen[arm])
        others = set(range(self.depth)) - frozen

        def of(layers: set[int]) -> str | None:
            made = {
                label: set(h["layers"]) for label, h in self.hybrids.items() if not h.get("control")
            }
            return next((label for label, found in made.items() if found == layers), None)

        return {"graft": of(frozen), "revert": of(others)}

    def folders(self) -> list[str]:
        """The run folders of all steps that ended well."""
        return list(dict.fromkeys(f for s in self.steps for f in s.get("folders") or []))

    def save(self, folder: Path) -> Path:
        """Write `study.json`, whole or not at all."""
        atomic_write_text(folder / FILE, json.dumps(asdict(self), indent=2, ensure_ascii=False))
        return folder / FILE


def read_study(folder: Path) -> Study:
    """Read the record of a study. Raises FrankenError where there is none."""
    path = folder / FILE
    if not path.exists():
        raise FrankenError(
            f"{folder} holds no study", f"there is no {FILE}", "run franken autopsy --out there"
        )
    again = "run the same franken autopsy again; it resumes"
    try:
        stored = json.loads(path.read_text())
    except ValueError as e:
        raise FrankenError(f"{path} is damaged", str(e), again) from e
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if schema != SCHEMA:
        raise FrankenError(
            f"{path} has schema {schema}", f"this franken reads schema {SCHEMA}", again
        )
    unknown = set(stored) - set(Study.__dataclass_fields__)
    if unknown:
        newer = f"it has {', '.join(sorted(unknown))}, which this franken does not know"
        raise FrankenError(f"{path} was written by another version", newer, "use that version")
    return Study(**stored)
