"""The record of a study, `study.json`: which checkpoints, which hybrids, which runs, and what went
wrong.

`franken autopsy` writes it, and `franken report RUN...` over runs that exist; the page reads it.
Paths of runs are relative to the study's folder, so that the folder can be moved, zipped and sent.
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from franken.errors import FrankenError
from franken.runs.files import atomic_write_text, read_record
from franken.runs.lineage import STAGES

FILE = "study.json"
SCHEMA = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class HybridRecord(_Part):
    """A layer set that a hybrid takes from RL: 0-based text `layers`, the same as `ranges` on the
    command line, and whether it is a random set of a control. `pattern` is of older records.
    """

    layers: list[int]
    ranges: str = ""
    control: bool = False
    pattern: str = ""


class StepRecord(_Part):
    """A step that ran: its command line, how long it took, the run folders it left (relative to the
    study's), or the `error` it failed with.

    `model` is the label of its rows on the page. `rename` is of records over runs that exist: name
    in the run → label on the page.
    """

    id: str
    what: str
    verb: str = ""
    model: str | None = None
    command: str = ""
    seconds: float = 0.0
    error: str | None = None
    folders: list[str] = []
    optional: bool = False
    rename: dict[str, str] = {}


class LeftOut(_Part):
    """A step that was not run on purpose: switched off, or over the budget."""

    id: str
    what: str = ""
    why: str = ""
    command: str = ""


class BudgetRecord(_Part):
    """The time that a study may take: `text` as typed (30m), in `seconds`, what it was estimated to
    take, and the sizes: `asked`, and `chosen` to fit it; `dropped` are the parts left out.
    """

    text: str
    seconds: float = 0.0
    estimate: float | None = None
    notes: list[str] = []
    asked: dict[str, object] = {}
    chosen: dict[str, object] = {}
    dropped: list[str] = []


Models = dict[str, str]
"""A model's label → the folder of its checkpoint."""


class Study(_Part):
    """What a study did. `models` maps a label (base, sft, rl, control, frozen-late …) to its
    checkpoint, `hybrids` a label to its layers, `frozen` a label to the 0-based text layers that
    were frozen in training.

    `notes` are sentences about the whole study that its reader must see: sizes that a budget chose,
    models that were guessed. `sizes` say how much was measured (samples, probe_samples, n, k,
    controls …); records of older versions have none. `made_of_runs`: `franken report RUN...` wrote
    this record.
    """

    title: str
    models: Models
    depth: int
    tasks: list[str]
    samples: int
    seed: int
    data: str | None = None
    hybrids: dict[str, HybridRecord] = {}
    frozen: dict[str, list[int]] = {}
    steps: list[StepRecord] = []
    command: str = ""
    notes: list[str] = []
    left_out: list[LeftOut] = []
    budget: BudgetRecord | None = None
    sizes: dict[str, object] = {}
    made_of_runs: bool = False
    schema_version: int = Field(default=SCHEMA, alias="schema")

    @property
    def parent(self) -> str:
        """The label of what RL started from: `sft`, or `base` where there is no SFT."""
        return "sft" if "sft" in self.models else "base"

    @property
    def stages(self) -> list[str]:
        """base, sft, rl, as far as they are there."""
        return [stage for stage in STAGES if stage in self.models]

    @property
    def delta(self) -> str:
        """The name of the RL update in `franken diff`."""
        return f"{self.parent}→rl"

    def folders(self) -> list[str]:
        """The run folders of all steps that ended well."""
        return list(dict.fromkeys(folder for step in self.steps for folder in step.folders))

    def save(self, folder: Path) -> Path:
        """Write `study.json`, whole or not at all."""
        content = self.model_dump(mode="json", by_alias=True)
        atomic_write_text(folder / FILE, json.dumps(content, indent=2, ensure_ascii=False))
        return folder / FILE


def read_study(folder: Path) -> Study:
    """Read the record of a study. Raises FrankenError where there is none, or one that this version
    cannot read.
    """
    path = folder / FILE
    if not path.exists():
        raise FrankenError(
            f"{folder} holds no study", f"there is no {FILE}", "run franken autopsy --out there"
        )
    again = "run the same franken autopsy again; it resumes"
    return read_record(path, Study, schema=SCHEMA, again=again)
