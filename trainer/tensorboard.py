"""The metrics of every update for TensorBoard, on demand. metrics.jsonl has them anyway."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from franken.distribution import with_extra
from franken.errors import UsageError
from franken.runs.training import Progress

NOT_SHOWN = ("stage", "step", "update")


def scalars(out: Path) -> Callable[[Progress], None]:
    """A report for `run_train` that writes `out/tensorboard`. Raises UsageError where tensorboard
    is not installed.

    What a run wrote after the checkpoint from which it goes on is superseded: events keep the
    number of their update.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as e:
        raise UsageError(
            "tensorboard is not installed",
            why=str(e),
            fix=f"{with_extra('tensorboard')}, or leave --tensorboard out",
        ) from e
    opened: list[Any] = []

    def report(now: Progress) -> None:
        update = now.update.update
        if not opened:
            opened.append(SummaryWriter(str(out / "tensorboard"), purge_step=update))
        for name, value in now.update.numbers().items():
            if isinstance(value, int | float) and name not in NOT_SHOWN:
                opened[0].add_scalar(name, value, update)
        opened[0].flush()

    return report
