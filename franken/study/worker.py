"""A worker of a study: reads steps as JSON lines on standard input, does them, answers on standard
output.

`python -m franken.study.worker`, started by `franken.study.steps`. It lives for many steps because
importing torch
and transformers costs more than most of them on a small model. Errors that a user can be told about
are answered; anything else ends the process, and the traceback is in the log.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from franken import plugins
from franken.errors import FrankenError

EVERY = 1.0  # seconds between two progress lines

Tick = Callable[[int, int, str], None]


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    plugins.use_named()
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between the answers
    try:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer: dict[str, Any] = {
                    "folders": do(request["verb"], request["args"], _ticker(answers))
                }
            except FrankenError as e:
                answer = {"error": ". ".join(x for x in (e.what, e.why) if x)}
            _say(answers, answer)
    except KeyboardInterrupt:
        sys.exit(130)


def do(verb: str, args: dict[str, Any], tick: Tick) -> list[str]:
    """Do one step and return its run folders. Raises FrankenError, also for an unknown verb."""
    if verb == "eval":
        from franken.evaluate.run import Graft, run_eval

        options = dict(args)
        grafts = options.pop("grafts", None)
        out, data = Path(options.pop("out")), options.pop("data", None)
        folders = run_eval(
            options.pop("models"),
            out=out,
            data=Path(data) if data else None,
            progress=tick,
            grafts=[Graft(**g) for g in grafts] if grafts else None,
            **options,
        )
        return [str(f) for f in folders]
    if verb == "probe":
        from franken.probe.plan import plan_probe
        from franken.probe.run import run_probe

        options = dict(args)
        out, device, data = (
            Path(options.pop("out")),
            options.pop("device"),
            options.pop("data", None),
        )
        plan = plan_probe(options.pop("model"), data=Path(data) if data else None, **options)
        return [str(run_probe(plan, out=out, device=device, dtype=options["dtype"], progress=tick))]
    if verb == "diff":
        return [_diff(args, tick)]
    if verb == "compare":
        return [_compare(args)]
    if verb == "scores":
        return [_scores(args)]
    raise FrankenError(
        f"a study has no step {verb!r}", "it knows eval, probe, diff, compare and scores"
    )


def _diff(args: dict[str, Any], tick: Tick) -> str:
    from franken.diff.plan import plan_diff
    from franken.diff.run import DiffOptions, run_diff

    plan = plan_diff(list(args["checkpoints"].values()))
    seen = 0

    def count(more: int) -> None:
        nonlocal seen
        seen += more
        tick(seen, plan.total_bytes, "bytes")

    options = DiffOptions(spectra=args["spectra"])
    return str(run_diff(plan, out=Path(args["out"]), options=options, jobs=1, progress=count))


def _compare(args: dict[str, Any]) -> str:
    from franken.evaluate.compare import compare_runs

    folders = [Path(f) for made in args["folders"].values() for f in made]
    if not folders:
        raise FrankenError("nothing to compare", "the evaluations failed")
    return str(compare_runs(folders, out=Path(args["out"]), seed=args["seed"]))


def _scores(args: dict[str, Any]) -> str:
    from franken.study.scores import run_scores

    made = args["folders"]
    groups = {
        label: [Path(f) for i in ids for f in made.get(i, [])]
        for label, ids in args["groups"].items()
    }
    options = {name: args[name] for name in ("parent", "donor", "hybrids", "seed")}
    return str(run_scores(groups, out=Path(args["out"]), **options))


def _ticker(answers: IO[str]) -> Tick:
    last = 0.0

    def tick(done: int, total: int, what: str) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            _say(answers, {"progress": f"{done}/{total} {what}"})

    return tick


def _say(answers: IO[str], content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
