"""What the steps of a study will take, before anything is loaded: forward passes, tensors and bytes
to read, disk, seconds.

Passes are counted to the longest answer, so that models which say less need less. Seconds come from
records of steps that ran on this machine, `measured`: their seconds for each unit of work of the
same kind. Where there are none they are
`computed`: the operations over the rate of a matrix product that is timed here, and a fixed time a
layer and pass; such
numbers can be off by several times, and say so. Comparing weights is timed on the very files
(franken/diff/estimate.py).
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from franken.checkpoints import Checkpoint, open_checkpoint
from franken.study.steps import Step

PIXELS_PER_TOKEN, LETTERS_PER_TOKEN = (
    28 * 28,
    3,
)  # Qwen2.5-VL's, about; the true number is known once a prompt is processed
CHUNK = 96  # prompts that `franken eval` asks between two writes
BYTES_A_ROW = {
    "eval": 40,
    "probe": 20,
    "diff": 400,
    "compare": 10,
    "scores": 10,
}  # of the creature's Parquet files
PAGE = 4 << 20  # the page's figures
EFFICIENCY = 0.6  # of a matrix product's rate, for a whole forward pass; the creature on a CPU reaches about that
A_LAYER = {"cpu": 0.2e-3, "cuda": 0.2e-3}  # seconds that a pass through one layer takes at least
A_COMPARED_ANSWER = 2e-3  # seconds; embedding, resampling and t-SNE of one answer
TRIES = 8  # products that are timed
DISK = 1e9  # bytes a second, of loading


@dataclass(frozen=True)
class Cost:
    """Of one step. `calls` are forward passes over a batch, `tokens` all positions of them, `work`
    what time goes with.
    """

    calls: int = 0
    prompts: int = 0
    answers: int = 0
    new_tokens: int = 0
    tokens: int = 0
    tensors: int = 0
    read: int = 0
    written: int = 0
    work: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        mine, theirs = asdict(self), asdict(other)
        added = {k: mine[k] + theirs[k] for k in mine}
        return Cost(**added | {"new_tokens": max(self.new_tokens, other.new_tokens)})


@dataclass
class Rates:
    """Seconds a unit of work, by verb (and kind of probe). `how` says where they are from."""

    measured: dict[str, float] = field(default_factory=dict)
    flops: float | None = None  # a second, of a matrix product here
    device: str = "cpu"


def group(step: Step) -> str:
    """Steps of one group take time alike: the verb, and of probes what is probed."""
    return step.kind if step.verb == "probe" and step.kind else step.verb


def machine() -> str:
    """A name for this machine under which times are comparable."""
    return f"{platform.node()} ({platform.machine()}, {os.cpu_count()} cores)"


def study_costs(steps: Sequence[Step], memory: dict[str, Any] | None = None) -> dict[str, Cost]:
    """What every step takes, by its id; what a step reads from others is their answers.

    `memory` keeps what steps of one kind share: a probe's plan is made once a study.
    """
    memory = {} if memory is None else memory
    found: dict[str, Cost] = {}
    for step in steps:
        if step.verb == "eval":
            found[step.id] = _eval_cost(step.args, memory)
        elif step.verb == "probe":
            found[step.id] = _probe_cost(step.args, memory)
        elif step.verb == "diff":
            found[step.id] = _diff_cost(step.args)
        else:
            answers = sum(found[i].answers for i in step.reads if i in found)
            found[step.id] = Cost(
                written=answers * BYTES_A_ROW.get(step.verb, 0), work=float(answers)
            )
    return found


def _eval_cost(args: Mapping[str, Any], memory: dict[str, Any]) -> Cost:
    questions, new, n = len(args["tasks"]) * args["samples"], args["max_new_tokens"], args["n"]
    if not args["tasks"]:
        questions = args["samples"]
    arms, batch = len(args["arms"]), args["batch_size"]
    chunks = [CHUNK] * (questions // CHUNK) + ([questions % CHUNK] if questions % CHUNK else [])
    batches = sum(-(-c // batch) + -(-c // max(1, batch // n)) for c in chunks)
    model = open_checkpoint(args["models"][0])
    prompts, answers = questions * arms, questions * arms * (n + 1)
    tokens = 2 * prompts * _prompt_tokens(args, args["tasks"], memory) + answers * new
    donated = [open_checkpoint(graft["donor"]).nbytes for graft in args.get("grafts", [])]
    calls = batches * arms * new
    return Cost(
        calls,
        prompts,
        answers,
        new,
        tokens,
        len(model.tensors),
        model.nbytes + sum(donated),
        answers * BYTES_A_ROW["eval"],
        _flops(model, tokens),
    )


def _probe_cost(args: Mapping[str, Any], memory: dict[str, Any]) -> Cost:
    from franken.probe.cost import cost
    from franken.probe.methods import parse

    model, new = open_checkpoint(args["model"]), args["max_new_tokens"]
    found = cost(replace(_probe_plan(args, memory), methods=parse(args["methods"])))
    pairs, passes = found["pairs"], found["resumed_layers"] // max(1, model.depths["text"])
    rows = found["answers"] if not passes else 2 * pairs
    prompt = _prompt_tokens(args, args["task_names"], memory)
    tokens = 2 * pairs * prompt + rows * new + passes * prompt
    written = found["answers"] * BYTES_A_ROW["probe"]
    return Cost(
        found["forwards"],
        pairs,
        found["answers"],
        new,
        tokens,
        len(model.tensors),
        model.nbytes,
        written,
        _flops(model, tokens),
    )


def _probe_plan(args: Mapping[str, Any], memory: dict[str, Any]) -> Any:
    """The probe's plan; a smaller one is the first pairs of each task of a larger one, since making
    pairs takes a while.
    """
    from franken.probe.plan import plan_probe

    names = ("task_names", "data", "seed", "max_new_tokens")
    named = json.dumps(["probe", *(args[name] for name in names)])
    if named not in memory or memory[named][0] < args["samples"]:
        options = {name: args[name] for name in (*names, "methods", "samples")}
        memory[named] = args["samples"], plan_probe(args["model"], **options)
    seen: dict[str, int] = {}
    first = []
    for pair in memory[named][1].pairs:
        seen[pair.task] = seen.get(pair.task, 0) + 1
        first += [pair] if seen[pair.task] <= args["samples"] else []
    return replace(memory[named][1], pairs=tuple(first))


def _diff_cost(args: Mapping[str, Any]) -> Cost:
    from franken.diff.plan import plan_diff

    plan = plan_diff(list(args["checkpoints"].values()))
    rows = len(plan.tensors) * len(plan.deltas)
    return Cost(
        tensors=len(plan.tensors) * len(args["checkpoints"]),
        read=plan.total_bytes,
        written=rows * BYTES_A_ROW["diff"],
        work=float(plan.total_bytes),
    )


def _prompt_tokens(args: Mapping[str, Any], tasks: Sequence[str], memory: dict[str, Any]) -> int:
    """About how long a prompt is, from the first question of every task: its letters, and the area
    of its images.
    """
    named = json.dumps(["prompt", list(tasks), args["data"]])
    if named not in memory:
        from franken.tasks.sources import load_tasks

        items = [i for i in load_tasks(list(tasks), 1, args["seed"], args["data"]) if not i.error]
        areas = [
            sum(x.width * x.height for x in (i.image, *i.more_images) if x is not None)
            for i in items
        ]
        letters = [len(i.question) for i in items]
        tokens = sum(areas) / PIXELS_PER_TOKEN + sum(letters) / LETTERS_PER_TOKEN
        memory[named] = max(1, round(tokens / max(1, len(items))))
    return memory[named]


def _flops(model: Checkpoint, tokens: int) -> float:
    """Two operations a weight of the decoder and token; an embedding counts as the head that may be
    tied to it.
    """
    weights = [
        math.prod(entry.shape) for entry in model.tensors.values() if entry.place.part == "text"
    ]
    return 2.0 * sum(weights) * tokens


def measured_rates(folder: Path) -> dict[str, float]:
    """Seconds a unit of work of the steps that ran on this machine, by group, from
    `folder/steps/*.json`.
    """
    seconds: dict[str, float] = {}
    work: dict[str, float] = {}
    for file in sorted((folder / "steps").glob("*.json")):
        stored = json.loads(file.read_text())
        done = stored.get("cost")
        if done and done["machine"] == machine() and done["work"] > 0:
            seconds[done["group"]] = seconds.get(done["group"], 0.0) + stored["seconds"]
            work[done["group"]] = work.get(done["group"], 0.0) + done["work"]
    return {name: seconds[name] / work[name] for name in work}


@cache
def product_rate(device: str, threads: int) -> float:
    """Operations a second of a square matrix product on `device`, the best of a few, timed once a
    process.

    fp32 on a CPU, bf16 on a GPU.
    """
    import time

    import torch

    size = 4096 if device.startswith("cuda") else 768
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        block = torch.ones(size, size, device=device, dtype=dtype)
        taken = []
        for _ in range(1 + TRIES):  # the first wakes the library up
            began = time.perf_counter()
            (block @ block)[0, 0].item()
            taken.append(time.perf_counter() - began)
        return 2.0 * size**3 / min(taken[1:])
    finally:
        torch.set_num_threads(before)


def recorder(steps: Sequence[Step]) -> Callable[[Step], dict[str, Any]]:
    """What `run_steps` stores of a step beside its seconds, so that later estimates can go by them."""
    by_id = {step.id: step for step in steps}
    memory: dict[str, Any] = {}

    def record(step: Step) -> dict[str, Any]:
        found = study_costs([*(by_id[i] for i in step.reads), step], memory)[step.id]
        return {"machine": machine(), "group": group(step), "work": found.work}

    return record


def step_seconds(step: Step, cost: Cost, rates: Rates) -> tuple[float | None, str]:
    """How long a step takes, and how that is known: `measured`, `computed`, or (None, `unknown`)."""
    if group(step) in rates.measured:
        return cost.work * rates.measured[group(step)], "measured"
    if step.verb in ("compare", "scores"):
        return cost.work * A_COMPARED_ANSWER * (1.0 if step.verb == "compare" else 0.1), "computed"
    if step.verb == "diff":
        return _diff_seconds(step.args), "timed on these files"
    if step.verb in ("eval", "probe") and rates.flops:
        path = step.args["models"][0] if step.verb == "eval" else step.args["model"]
        model = open_checkpoint(path)
        layers = (
            cost.calls
            * model.depths["text"]
            * A_LAYER["cuda" if rates.device.startswith("cuda") else "cpu"]
        )
        return cost.work / (EFFICIENCY * rates.flops) + layers + cost.read / DISK, "computed"
    return None, "unknown"


def _diff_seconds(args: Mapping[str, Any]) -> float:
    from franken.diff.estimate import estimate_seconds
    from franken.diff.plan import plan_diff
    from franken.diff.run import DiffOptions

    plan = plan_diff(list(args["checkpoints"].values()))
    return estimate_seconds(plan, DiffOptions(spectra=args["spectra"]), 1)


def total_seconds(seconds: Sequence[float | None], jobs: int) -> float | None:
    """Of all steps in `jobs` lanes, at best; None where one of them is unknown."""
    known = [s for s in seconds if s is not None]
    if len(known) < len(seconds):
        return None
    return max([sum(known) / jobs, *known]) if known else 0.0


def find_rates(folder: Path, *, device: str, jobs: int, needed: bool = True) -> Rates:
    """What is known of this machine: times of the study in `folder`, and, if `needed`, a matrix
    product timed now.
    """
    rates = Rates(measured_rates(folder), device=device)
    if needed and not {"eval", "probe"} <= rates.measured.keys():
        from franken.models.loading import pick_device

        rates.device = str(pick_device(device))
        rates.flops = product_rate(rates.device, 1 if jobs > 1 else cores())
    return rates


def cores() -> int:
    """How many threads may run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Line:
    """A step in the table of `--dry-run`: what it takes, how long, how that is known, and whether
    it is done.
    """

    step: Step
    cost: Cost
    seconds: float | None
    how: str
    done: bool

    def to_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "id": self.step.id,
            "what": self.step.what,
            "command": self.step.command,
            "optional": bool(self.step.kind),
            **asdict(self.cost),
            "seconds": self.seconds,
            "how": self.how,
            "done": self.done,
        }


def lines(
    steps: Sequence[Step], done: Collection[str], rates: Rates, memory: dict[str, Any] | None = None
) -> list[Line]:
    """What every step takes; a step that is done takes nothing, and is still counted. `memory` as
    of `study_costs`.
    """
    costs = study_costs(steps, memory)
    found = []
    for step in steps:
        if step.id in done:
            found.append(Line(step, costs[step.id], 0.0, "done", True))
        else:
            found.append(
                Line(step, costs[step.id], *step_seconds(step, costs[step.id], rates), False)
            )
    return found


def totals(found: Sequence[Line], jobs: int) -> dict[str, Any]:
    """What is still to do: sums over the steps that are not done, and about how long it takes in
    `jobs` lanes.
    """
    todo = [x for x in found if not x.done]
    whole = sum((x.cost for x in todo), Cost())
    seconds = total_seconds([x.seconds for x in todo], jobs)
    return {
        "steps": len(found),
        "done": len(found) - len(todo),
        "calls": whole.calls,
        "prompts": whole.prompts,
        "answers": whole.answers,
        "tensors": whole.tensors,
        "read": whole.read,
        "written": whole.written + PAGE,
        "seconds": seconds,
        "jobs": jobs,
    }


def explained(rates: Rates) -> str:
    """A sentence: how the times are known."""
    parts = []
    if rates.measured:
        parts.append(f"measured here: {', '.join(sorted(rates.measured))}")
    if rates.flops:
        rate = f"{rates.flops / 1e9:.3g} Gflop/s (a matrix product on {rates.device}, timed now) × {EFFICIENCY}"
        parts.append(f"computed, to the longest answer, at {rate}; can be off by several times")
    return "; ".join(parts) or "nothing is known of this machine"


def span(seconds: float | None) -> str:
    """A time as people say it: `42 s`, `7 min`, `3.5 h`; `unknown`."""
    if seconds is None:
        return "unknown"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Bytes as people say them: `15.2 GB`."""
    number, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.3g} {unit}" if number else "0"
