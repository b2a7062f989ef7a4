"""What is true of a pair of checkpoints by construction, as `organism.json` holds it."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from franken.runs.files import atomic_write_text, read_record

FILE = "organism.json"
SCHEMA = 1


class Truth(BaseModel):
    """What differs between the earlier and the later checkpoint, and what follows from it.

    `same_weights`: not one bit differs. `same_function`: both compute the same, up to rounding.
    `layers` are the 0-based text layers and `components` the components in them in which weights
    may differ; `parts` all parts that do. `before` and `update` are content hashes of what it was
    made from: the earlier checkpoint, and the one whose update was taken (empty for none).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    schema_version: int = Field(default=SCHEMA, alias="schema")
    kind: str
    seed: int
    strength: float
    same_weights: bool
    same_function: bool
    parts: list[str]
    layers: list[int]
    components: list[str]
    before: str
    update: str = ""

    def save(self, folder: Path) -> None:
        """Write it beside the weights."""
        atomic_write_text(
            folder / FILE, json.dumps(self.model_dump(mode="json", by_alias=True), indent=1)
        )


def read_truth(folder: Path) -> Truth:
    """The truth of an organism. Raises FrankenError where there is none."""
    return read_record(folder / FILE, Truth, schema=SCHEMA, again="make the organism again")
