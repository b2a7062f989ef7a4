"""What `franken train` hears of a run, and what it leaves to look at."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Report = Callable[[dict[str, Any]], None]


def reports(out: Path, lines: Report | None, tensorboard: bool) -> Report | None:
    """The reports of a run as one. Raises UsageError where tensorboard is asked for and not
    installed.
    """
    if not tensorboard:
        return lines
    from trainer.tensorboard import scalars

    board = scalars(out)

    def report(line: dict[str, Any]) -> None:
        board(line)
        if lines:
            lines(line)

    return report


def summarise(out: Path) -> dict[str, Any]:
    """Draw the figures of a finished run, and watch its stages for rewards that rose while
    correctness fell.
    """
    from franken.report.figures.training import draw_training
    from trainer.diagnostics import hacked

    log = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    stages = dict.fromkeys(line["stage"] for line in log)
    spans = [
        span
        for stage in stages
        for span in hacked([line for line in log if line["stage"] == stage])
    ]
    gallery = out / "gallery.html"
    figure = draw_training([out], out / "figures" / "training.png")
    return {
        "figure": str(figure),
        "gallery": str(gallery) if gallery.exists() else None,
        "hacked": spans,
    }
