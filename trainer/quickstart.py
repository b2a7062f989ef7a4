"""`franken quickstart`: RL on the creature before your eyes, then everything franken knows about
what it changed.

The shipped Base and SFT (or, with `start="base"`, an SFT made now) → GRPO; the same RL with the
early, the middle and the late third frozen; SFT continued for as much CPU time as RL took, as a
control; then the autopsy of all of them. Two processes run side by side, each with one thread:
trainings first, the autopsy's steps as soon as their checkpoints are there. Everything that is
complete is skipped, so an interrupted quickstart goes on where it stopped.

    out/train/<name>/   the training runs     out/index.html   the page     out/runs/, out/steps/
                        see the autopsy
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from franken.checkpoints import resolve
from franken.errors import UsageError
from franken.outputs import refuse_other
from franken.runs import STAGES, TrainingRun, atomic_write_text
from franken.runs.record import Models
from franken.study.autopsy import Settings, run_autopsy
from franken.study.lanes import Report
from franken.study.steps import Step
from franken.study.verbs import Process

Start = Literal["sft", "base"]
MARK = "quickstart.json"
ARMS = ("late", "middle", "early")


@dataclass(frozen=True)
class Size:
    """How long a quickstart trains and how much it measures. `steps` are GRPO updates; None is the
    recipe's number.
    """

    steps: int | None
    settings: Settings


QUICK = Size(
    None,
    Settings(
        samples=100,
        n=4,
        k=(1, 4),
        probe_samples=100,
        arm_draws=2,
        controls=2,
        batch_size=384,
        attention_samples=10,
        fork_samples=10,
        score_samples=50,
    ),
)
FULL = Size(
    400,
    Settings(
        samples=400, n=8, k=(1, 2, 4, 8), probe_samples=100, arm_draws=4, controls=4, batch_size=384
    ),
)


def plan_quickstart(
    out: Path, *, start: Start = "sft", size: Size = QUICK
) -> tuple[Models, list[Step]]:
    """The checkpoints, and the training steps that make some of them."""
    trained = out.resolve() / "train"
    paths = {"base": str(resolve("creature:base")), "sft": str(resolve("creature:sft"))}
    steps: list[Step] = []
    after: tuple[str, ...] = ()
    if start == "base":
        steps.append(
            _training("sft", "train SFT from Base", ["train", "creature-sft"], trained, cost=50.0)
        )
        paths["sft"], after = str(trained / "sft" / "final"), ("train-sft",)
    length = [f"stages.0.steps={size.steps}"] if size.steps else []
    sets = [f"model={paths['sft']}", *length]
    rl = ["train", "creature-rl"]
    steps.append(_training("rl", "train RL (GRPO)", rl, trained, sets=sets, needs=after, cost=40.0))
    for number, arm in enumerate(ARMS):
        label, what = f"frozen-{arm}", f"train RL with the {arm} third frozen"
        verb = ["freeze-train", "creature-rl", "--freeze", f"text:{arm}"]
        steps.append(
            _training(label, what, verb, trained, sets=sets, needs=after, cost=30.0 - number)
        )
    control = ["train", "creature-sft-more"]

    def budget() -> list[str]:
        return [
            f"model={paths['sft']}",
            f"stages.0.cpu_seconds={round(TrainingRun(trained / 'rl').manifest.cpu_seconds, 1)}",
        ]

    what = "continue SFT for the CPU time of RL"
    steps.append(
        _training("control", what, control, trained, sets=budget, needs=("train-rl",), cost=35.0)
    )
    for label in ("rl", "control", *(f"frozen-{arm}" for arm in ARMS)):
        paths[label] = str(trained / label / "final")
    return paths, steps


def run_quickstart(
    out: Path,
    *,
    start: Start = "sft",
    full: bool = False,
    jobs: int = 2,
    size: Size | None = None,
    report: Report | None = None,
) -> Path:
    """Run or resume the quickstart in `out` and return the path of its page.

    Raises UsageError when `out` holds something else, or a quickstart of another kind;
    KeyboardInterrupt after the children were stopped and have saved what they were doing.
    """
    size = size or (FULL if full else QUICK)
    _claim(out, start, full)
    paths, trainings = plan_quickstart(out, start=start, size=size)
    extra = {label: path for label, path in paths.items() if label not in STAGES}
    command = (
        "franken quickstart"
        + (" --from base" if start == "base" else "")
        + (" --full" if full else "")
    )
    return run_autopsy(
        paths["base"],
        paths["sft"],
        paths["rl"],
        out=out,
        settings=size.settings,
        extra_models=extra,
        title="the creature",
        command=command,
        jobs=jobs,
        before=trainings,
        claimed=True,
        report=report,
    )


def _training(
    label: str,
    what: str,
    verb: list[str],
    trained: Path,
    *,
    sets: list[str] | Callable[[], list[str]] | None = None,
    needs: tuple[str, ...] = (),
    cost: float,
) -> Step:
    folder = trained / label

    def argv() -> list[str]:
        values = sets() if callable(sets) else sets or []
        options = [x for value in values for x in ("--set", value)]
        return [sys.executable, "-m", "franken.cli", *verb, "--out", str(folder), *options]

    command = " ".join(["franken", *verb, "--out", f"train/{label}"])
    process = Process("train", command, argv, is_done=TrainingRun(folder).is_complete)
    return Step(f"train-{label}", what, process, model=label, needs=needs, weight=cost)


def _claim(out: Path, start: Start, full: bool) -> None:
    kind = {"start": start, "full": full}
    mark = out / MARK
    if mark.exists():
        if json.loads(mark.read_text()) != kind:
            raise UsageError(
                f"{out} holds another quickstart",
                f"it was started as {mark.read_text()}",
                "choose another --out",
            )
        return
    refuse_other(out, MARK)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_text(mark, json.dumps(kind))
