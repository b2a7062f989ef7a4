"""Checkpoints of a training run: atomic, and exact.

    out/state/step-00000040/   model.safetensors (in-memory names), optimizer.pt, state.json written last

Weights are stored under the names they have in memory and loaded strictly. (transformers 5 saves some families under legacy
names; loading those into a model in memory restores nothing and merely warns.)
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model

from franken.errors import FrankenError
from franken.runs import atomic_write_text

KEEP = 2


@dataclass
class Position:
    """Where a run is: the stage, its step, updates over all stages, and CPU seconds spent training in this stage."""

    stage: int = 0
    step: int = 0
    updates: int = 0
    cpu_seconds: float = 0.0


def save_state(out: Path, model: Any, optimizer: torch.optim.Optimizer | None, position: Position) -> Path:
    """Write a checkpoint beside the others, then make it visible by one rename; older ones beyond `KEEP` go."""
    folder = out / "state" / f"step-{position.updates:08d}"
    if folder.exists():
        return folder
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_model(model, str(temporary / "model.safetensors"))
    saved = {"optimizer": optimizer.state_dict() if optimizer else None, "rng": torch.get_rng_state()}
    torch.save(saved, temporary / "optimizer.pt")
    for file in temporary.iterdir():
        _sync(file)
    atomic_write_text(temporary / "state.json", json.dumps(asdict(position)))
    os.replace(temporary, folder)
    _sync(folder.parent)
    for old in whole_states(out)[:-KEEP]:
        shutil.rmtree(old)
    return folder


def whole_states(out: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(p.parent for p in (out / "state").glob("step-*/state.json"))


def read_position(folder: Path) -> Position:
    """Where the checkpoint was taken."""
    return Position(**json.loads((folder / "state.json").read_text()))


def load_weights(folder: Path, model: Any) -> None:
    """Restore the model. Raises FrankenError if a name is missing or left over."""
    missing, unexpected = load_model(model, str(folder / "model.safetensors"), strict=False)
    if missing or unexpected:
        raise FrankenError(
            f"{folder.name} does not fit the model",
            why=f"missing {sorted(missing)[:2]}, unexpected {sorted(unexpected)[:2]}",
            fix="train into a new --out",
        )


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore optimiser and random state."""
    saved = torch.load(folder / "optimizer.pt", weights_only=True)
    if saved["optimizer"] is not None:
        optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["rng"])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
