"""The base of everything that is read from YAML: frozen, and no unknown keys."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A frozen record that takes no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
