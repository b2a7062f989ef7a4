"""The folder of a training run: its recipe, the log of its updates, the proof of what was frozen,
and its summary.

    recipe.json     what is trained, and what `--freeze` or `--train` add   metrics.jsonl   an
                    update a line
    freeze.json     a proof a stage                                         train.json      written
                    last: the run is complete

`trainer` writes them, whoever asks what training left reads them here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, TypeAdapter

from franken.errors import FrankenError
from franken.runs.files import Stored, atomic_write_text, read_record
from franken.runs.manifest import GitCommit

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
RECIPE, METRICS, PROOFS, SUMMARY = "recipe.json", "metrics.jsonl", "freeze.json", "train.json"
AGAIN = "run the same franken train again; it resumes"


class TrainManifest(Stored):
    """The summary of a finished run, `train.json`. Seconds are of this process and of all stages'
    CPU time; `kept` and `score` say which checkpoint was exported where the best is kept.
    """

    schema_version: int = Field(default=SCHEMA, alias="schema")
    recipe: str
    updates: int
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    processes: int = 1
    franken: str | None = None
    git: GitCommit | None = None
    python: str = ""
    packages: dict[str, str | None] = {}
    threads: str | None = None
    time: str = ""


class StageRecord(Stored):
    """A stage of a recipe, as far as analyses read it; all of it is trainer/stages.py's."""

    kind: str
    steps: int | None = None
    rewards: dict[str, float] = {}


class RecipeRecord(Stored):
    """A recipe, as far as analyses read it."""

    name: str = ""
    model: str = ""
    seed: int = 0
    stages: list[StageRecord] = []


class TrainIdentity(Stored):
    """What makes two training runs the same, `recipe.json`."""

    recipe: RecipeRecord
    freeze: list[str] = []
    train: list[str] = []


class FrozenRow(Stored):
    """How many tensors and parameters of one place were frozen, or trained."""

    part: str
    layer: int | None
    component: str = "all"
    frozen: bool
    tensors: int = 0
    parameters: int = 0


Digests = dict[str, str]
"""SHA-256 of the bytes of each tensor, by its name."""


class Verified(Stored):
    """That `tensors` frozen tensors are bit-identical to before; their digests by name."""

    tensors: int
    bit_identical: bool = True
    sha256: Digests = {}


class FreezeProof(Stored):
    """What a stage froze, the digests of that `before` it trained, and the check afterwards."""

    table: list[FrozenRow]
    before: Digests = {}
    verified: Verified | None = None


class Update(Stored):
    """A line of metrics.jsonl: `step` counts in its stage, `update` in the run. Metrics of the
    algorithm (reward, correct, loss, entropy …) are further attributes; `held_out` are scores on
    questions that no update trains on, where the model was evaluated.
    """

    stage: int = 0
    step: int = 0
    update: int
    lr: float | None = None
    cpu_seconds: float | None = None
    held_out: dict[str, float | None] | None = None

    def numbers(self) -> dict[str, object]:
        """As a flat row, held-out scores as `held_out/<metric>`."""
        held_out = {f"held_out/{name}": value for name, value in (self.held_out or {}).items()}
        return {**self.model_dump(exclude={"held_out"}, exclude_unset=True), **held_out}


@dataclass(frozen=True)
class Progress:
    """An update as it is reported while the run goes on: of how many `steps` of a `kind` of stage,
    or of how many CPU-seconds.
    """

    kind: str
    update: Update
    steps: int | None
    cpu_seconds: float | None


Proofs = dict[str, FreezeProof]
"""Stage number, as text → its proof."""
PROOFS_BY_STAGE = TypeAdapter(Proofs)


class TrainingRun:
    """A folder of `franken train`. Files are read when they are first asked for."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def exists(self) -> bool:
        """Whether a training run was begun here."""
        return (self.folder / RECIPE).exists()

    def is_complete(self) -> bool:
        """Whether the summary is there, which is written last."""
        return (self.folder / SUMMARY).exists()

    @property
    def final(self) -> Path:
        """The trained checkpoint."""
        return self.folder / "final"

    @cached_property
    def manifest(self) -> TrainManifest:
        """The summary. Raises FrankenError for a run that is not finished."""
        if not self.is_complete():
            raise FrankenError(
                f"{self.folder} is not a finished run", f"it has no {SUMMARY}", AGAIN
            )
        return read_record(self.folder / SUMMARY, TrainManifest, schema=SCHEMA, again=AGAIN)

    @cached_property
    def recipe(self) -> RecipeRecord:
        """What was trained."""
        path = self.folder / RECIPE
        return read_record(path, TrainIdentity, schema=SCHEMA, again=AGAIN).recipe

    @cached_property
    def updates(self) -> list[Update]:
        """The log, without a last line that was cut off; empty before the first update."""
        log = self.folder / METRICS
        lines = log.read_text().splitlines() if log.exists() else []
        return [Update.model_validate_json(line) for line in lines if line.endswith("}")]

    def metrics(self) -> "pd.DataFrame":
        """The log as a table, a row an update, held-out scores as `held_out/<metric>`."""
        import pandas as pd

        return pd.DataFrame([update.numbers() for update in self.updates])

    @property
    def proofs(self) -> list[FreezeProof]:
        """What every stage froze, with the proof; empty before the first stage."""
        return list(read_proofs(self.folder / PROOFS).values())

    @property
    def rewards(self) -> dict[str, float]:
        """Reward → weight of the last RL stage; empty without one."""
        stages = [stage for stage in self.recipe.stages if stage.kind == "grpo"]
        return stages[-1].rewards if stages else {}

    def frozen_layers(self) -> list[int]:
        """The 0-based text layers that were frozen throughout, by the run's own proof."""
        return frozen_layers(self.proofs)


def frozen_layers(proofs: Sequence[FreezeProof]) -> list[int]:
    """The 0-based text layers of which no tensor trained in any stage."""
    rows = [row for proof in proofs for row in proof.table if row.part == "text"]
    trained = {row.layer for row in rows if not row.frozen}
    return sorted({row.layer for row in rows if row.layer is not None} - trained)


def read_proofs(path: Path) -> Proofs:
    """The proofs of a run; empty where there is no file yet."""
    return PROOFS_BY_STAGE.validate_json(path.read_text()) if path.exists() else {}


def write_proofs(path: Path, proofs: Proofs) -> None:
    """Write `freeze.json`, whole or not at all."""
    content = {stage: proof.stored() for stage, proof in proofs.items()}
    atomic_write_text(path, json.dumps(content, indent=1))
