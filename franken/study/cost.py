"""What the steps of a study will take, before anything is loaded: forward passes, tensors and bytes
to read, disk, seconds.

Passes are counted to the longest answer, so that models which say less need less. Seconds come from
records of steps that ran on this machine, `measured`: their seconds for each unit of work of the
same kind. Where there are none they are `computed`: the operations over the rate of a matrix
product that is timed here, and a fixed time a layer and pass; such numbers can be off by several
times, and say so. Comparing weights is timed on the very files (franken/diff/estimate.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace

from franken.checkpoints import Checkpoint, open_checkpoint
from franken.diff.estimate import estimate_seconds
from franken.diff.plan import plan_diff
from franken.diff.run import DiffOptions
from franken.forks.controls import RULES
from franken.forks.plan import PASSES
from franken.probe.cost import cost as cost_of_probe
from franken.probe.methods import parse
from franken.probe.plan import ProbePlan, plan_probe
from franken.study.lanes import CostOf
from franken.study.rates import Rates, group, machine
from franken.study.steps import Measured, Step
from franken.study.verbs import (
    Comparing,
    Cutting,
    Diffing,
    Evaluation,
    Forking,
    Probing,
    Questions,
    Scoring,
)
from franken.tasks.sources import load_tasks

PIXELS_PER_TOKEN = 28 * 28  # Qwen2.5-VL's; the true number is known once a prompt is processed
LETTERS_PER_TOKEN = 3  # about
CHUNK = 96  # prompts that `franken eval` asks between two writes
BYTES_A_ROW = {  # of the creature's Parquet files
    **{Evaluation.verb: 40, Probing.verb: 20, Forking.verb: 150, Diffing.verb: 400},
    **{Comparing.verb: 10, Scoring.verb: 10, Cutting.verb: 40},
}
PAGE = 4 << 20  # the page's figures
EFFICIENCY = 0.6  # of a matrix product's rate, for a forward pass; the creature's on a CPU, about
A_LAYER = 0.2e-3  # seconds that a pass through one layer takes at least, on a CPU as on a GPU
A_COMPARED_ANSWER = 2e-3  # seconds; embedding, resampling and t-SNE of one answer
A_SCORED_ANSWER = 0.2e-3
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
class Memory:
    """What the costs of several steps share: the largest probe's pairs and the prompts' lengths, by
    what they were asked with.
    """

    plans: dict[tuple[object, ...], tuple[int, ProbePlan]] = field(default_factory=dict)
    prompts: dict[tuple[object, ...], int] = field(default_factory=dict)


def study_costs(steps: Sequence[Step], memory: Memory | None = None) -> dict[str, Cost]:
    """What every step takes, by its id; what a step reads from others is their answers."""
    memory = memory or Memory()
    costs: dict[str, Cost] = {}
    for step in steps:
        does = step.does
        if isinstance(does, Evaluation):
            costs[step.id] = _eval_cost(does, memory)
        elif isinstance(does, Probing):
            costs[step.id] = _probe_cost(does, memory)
        elif isinstance(does, Forking):
            costs[step.id] = _forks_cost(does, memory)
        elif isinstance(does, Cutting):
            costs[step.id] = _cutting_cost(does, memory)
        elif isinstance(does, Diffing):
            costs[step.id] = _diff_cost(does)
        else:
            answers = sum(costs[i].answers for i in step.reads if i in costs)
            written = answers * BYTES_A_ROW.get(step.verb, 0)
            costs[step.id] = Cost(written=written, work=float(answers))
    return costs


def _eval_cost(does: Evaluation, memory: Memory) -> Cost:
    questions, new, n = max(1, len(does.tasks)) * does.samples, does.max_new_tokens, does.n
    arms, batch = len(does.arms), does.batch_size
    chunks = [CHUNK] * (questions // CHUNK) + ([questions % CHUNK] if questions % CHUNK else [])
    batches = sum(-(-c // batch) + -(-c // max(1, batch // n)) for c in chunks)
    model = open_checkpoint(does.model)
    prompts, answers = questions * arms, questions * arms * (n + 1)
    tokens = 2 * prompts * _prompt_tokens(does, memory) + answers * new
    return Cost(
        calls=batches * arms * new,
        prompts=prompts,
        answers=answers,
        new_tokens=new,
        tokens=tokens,
        tensors=len(model.tensors),
        read=model.nbytes + (open_checkpoint(does.donor).nbytes if does.donor else 0),
        written=answers * BYTES_A_ROW[does.verb],
        work=_flops(model, tokens),
    )


def _cutting_cost(does: Cutting, memory: Memory) -> Cost:
    """Every hybrid answers like a model of its own; their rows are eval's."""
    one = Evaluation(
        model=does.model,
        label="",
        donor=does.donor,
        n=does.n,
        tasks=does.tasks,
        samples=does.samples,
        seed=does.seed,
        data=does.data,
        max_new_tokens=does.max_new_tokens,
        out=does.out,
    )
    cost = _eval_cost(one, memory)
    times = {k: v * does.evaluations for k, v in asdict(cost).items()}
    return Cost(**times | {name: getattr(cost, name) for name in ("new_tokens", "tensors", "read")})


def _probe_cost(does: Probing, memory: Memory) -> Cost:
    model, new = open_checkpoint(does.model), does.max_new_tokens
    counted = cost_of_probe(_probe_plan(does, memory))
    pairs, passes = counted["pairs"], counted["resumed_layers"] // max(1, model.depths["text"])
    rows = 2 * pairs if passes and not does.against else counted["answers"]
    prompt = _prompt_tokens(does, memory)
    tokens = 2 * pairs * prompt + rows * new + passes * prompt
    return Cost(
        calls=counted["forwards"],
        prompts=pairs,
        answers=counted["answers"],
        new_tokens=new,
        tokens=tokens,
        tensors=len(model.tensors),
        read=model.nbytes,
        written=counted["answers"] * BYTES_A_ROW[does.verb],
        work=_flops(model, tokens),
    )


def _probe_plan(does: Probing, memory: Memory) -> ProbePlan:
    """The probe's plan; a smaller one is the first pairs of each task of a larger one, since making
    pairs takes a while.
    """
    asked = (does.tasks, does.data, does.seed, does.max_new_tokens)
    if asked not in memory.plans or memory.plans[asked][0] < does.samples:
        plan = plan_probe(  # whatever the methods, the pairs are the same
            does.model,
            methods=("zero",),
            task_names=does.tasks,
            samples=does.samples,
            data=does.data,
            seed=does.seed,
            max_new_tokens=does.max_new_tokens,
        )
        memory.plans[asked] = does.samples, plan
    plan = memory.plans[asked][1]
    seen: Counter[str] = Counter()
    first = []
    for pair in plan.pairs:
        seen[pair.task] += 1
        first += [pair] if seen[pair.task] <= does.samples else []
    second = open_checkpoint(does.against) if does.against else None
    methods = parse(does.methods)
    return replace(plan, pairs=tuple(first), methods=methods, against=second)


def _forks_cost(does: Forking, memory: Memory) -> Cost:
    """Both models write and read all replies, with the image and without; then both directions of
    every rule, in each of which both models read on.
    """
    questions, new = max(1, len(does.tasks)) * does.samples, does.max_new_tokens
    crossings = 2 * len(RULES)
    own = 2 * questions * does.draws
    answers = own * (1 + len(RULES))
    batches = -(-questions // max(1, does.batch_size // does.draws))
    reads = 2 + PASSES + 2 * crossings  # of every prompt
    written = own * (1 + PASSES) + 2 * (answers - own)  # replies that a model writes or reads
    tokens = reads * questions * _prompt_tokens(does, memory) + written * new
    models = [open_checkpoint(path) for path in (does.model, does.other)]
    return Cost(
        calls=batches * new * (2 + 2 * crossings) + PASSES * -(-own // does.batch_size),
        prompts=questions,
        answers=answers,
        new_tokens=new,
        tokens=tokens,
        tensors=sum(len(model.tensors) for model in models),
        read=sum(model.nbytes for model in models),
        written=answers * BYTES_A_ROW[does.verb],
        work=_flops(models[0], tokens),
    )


def _diff_cost(does: Diffing) -> Cost:
    plan = plan_diff(list(does.checkpoints))
    rows = len(plan.tensors) * len(plan.deltas)
    return Cost(
        tensors=len(plan.tensors) * len(does.checkpoints),
        read=plan.total_bytes,
        written=rows * BYTES_A_ROW[does.verb],
        work=float(plan.total_bytes),
    )


def _prompt_tokens(does: Questions, memory: Memory) -> int:
    """About how long a prompt is, from the first question of every task: its letters, and the area
    of its images.
    """
    asked = (does.tasks, does.data)
    if asked not in memory.prompts:
        items = [i for i in load_tasks(list(does.tasks), 1, does.seed, does.data) if not i.error]
        areas = [
            sum(x.width * x.height for x in (i.image, *i.more_images) if x is not None)
            for i in items
        ]
        letters = [len(i.question) for i in items]
        tokens = sum(areas) / PIXELS_PER_TOKEN + sum(letters) / LETTERS_PER_TOKEN
        memory.prompts[asked] = max(1, round(tokens / max(1, len(items))))
    return memory.prompts[asked]


def _flops(model: Checkpoint, tokens: int) -> float:
    """Two operations a weight of the decoder and token; an embedding counts as the head that may be
    tied to it.
    """
    weights = [
        math.prod(entry.shape) for entry in model.tensors.values() if entry.place.part == "text"
    ]
    return 2.0 * sum(weights) * tokens


def recorder(steps: Sequence[Step]) -> CostOf:
    """What `run_steps` stores of a step beside its seconds, so that later estimates can go by
    them.
    """
    by_id = {step.id: step for step in steps}
    memory = Memory()

    def record(step: Step) -> Measured:
        work = study_costs([*(by_id[i] for i in step.reads), step], memory)[step.id].work
        return Measured(machine=machine(), group=group(step), work=work)

    return record


def step_seconds(step: Step, cost: Cost, rates: Rates) -> tuple[float | None, str]:
    """How long a step takes, and how that is known: `measured`, `computed`, or (None,
    `unknown`).
    """
    does = step.does
    if group(step) in rates.measured:
        return cost.work * rates.measured[group(step)], "measured"
    if isinstance(does, Comparing):
        return cost.work * A_COMPARED_ANSWER, "computed"
    if isinstance(does, Scoring):
        return cost.work * A_SCORED_ANSWER, "computed"
    if isinstance(does, Diffing):
        options = DiffOptions(spectra=does.spectra)
        seconds = estimate_seconds(plan_diff(list(does.checkpoints)), options, 1)
        return seconds, "timed on these files"
    if isinstance(does, Evaluation | Probing | Forking | Cutting) and rates.flops:
        a_pass = A_LAYER * open_checkpoint(does.model).depths["text"]
        passes = cost.calls * a_pass
        return cost.work / (EFFICIENCY * rates.flops) + passes + cost.read / DISK, "computed"
    return None, "unknown"


def total_seconds(seconds: Sequence[float | None], jobs: int) -> float | None:
    """Of all steps in `jobs` lanes, at best; None where one of them is unknown."""
    known = [s for s in seconds if s is not None]
    if len(known) < len(seconds):
        return None
    return max([sum(known) / jobs, *known]) if known else 0.0


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

    def to_dict(self) -> dict[str, object]:
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
    steps: Sequence[Step], done: Collection[str], rates: Rates, memory: Memory | None = None
) -> list[Line]:
    """What every step takes; a step that is done takes nothing, and is still counted."""
    costs = study_costs(steps, memory)
    return [
        Line(step, costs[step.id], 0.0, "done", True)
        if step.id in done
        else Line(step, costs[step.id], *step_seconds(step, costs[step.id], rates), False)
        for step in steps
    ]


@dataclass(frozen=True)
class Total:
    """What is still to do: sums over the steps that are not done, and about how long it takes."""

    steps: int
    done: int
    calls: int
    prompts: int
    answers: int
    tensors: int
    read: int
    written: int
    seconds: float | None
    jobs: int


def totals(table: Sequence[Line], jobs: int) -> Total:
    """The sum of a table, in `jobs` lanes."""
    todo = [line for line in table if not line.done]
    whole = sum((line.cost for line in todo), Cost())
    return Total(
        steps=len(table),
        done=len(table) - len(todo),
        calls=whole.calls,
        prompts=whole.prompts,
        answers=whole.answers,
        tensors=whole.tensors,
        read=whole.read,
        written=whole.written + PAGE,
        seconds=total_seconds([line.seconds for line in todo], jobs),
        jobs=jobs,
    )


def explained(rates: Rates) -> str:
    """A sentence: how the times are known."""
    parts = []
    if rates.measured:
        parts.append(f"measured here: {', '.join(sorted(rates.measured))}")
    if rates.flops:
        rate = (
            f"{rates.flops / 1e9:.3g} Gflop/s (a matrix product on {rates.device}, timed now) × "
            f"{EFFICIENCY}"
        )
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
