"""What `franken train` hears of a run, and what it leaves to look at."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from franken.runs.training import Progress

Report = Callable[["Progress"], None]


def reports(out: Path, lines: Report | None, tensorboard: bool) -> Report | None:
    """The reports of a run as one. Raises UsageError where tensorboard is asked for and not
    installed.
    """
    if not tensorboard:
        return lines
    from trainer.tensorboard import scalars

    board = scalars(out)

    def report(now: "Progress") -> None:
        board(now)
        if lines:
            lines(now)

    return report


def summarise(out: Path) -> dict[str, Any]:
    """Draw the figures of a finished run, and watch its stages for rewards that rose while
    correctness fell.
    """
    from franken.report.figures.training import draw_training
    from franken.runs import TrainingRun
    from trainer.diagnostics import hacked

    updates = TrainingRun(out).updates
    spans = [
        span
        for stage in dict.fromkeys(update.stage for update in updates)
        for span in hacked([update for update in updates if update.stage == stage])
    ]
    gallery = out / "gallery.html"
    figure = draw_training([out], out / "figures" / "training.png")
    return {
        "figure": str(figure),
        "gallery": str(gallery) if gallery.exists() else None,
        "hacked": spans,
    }
