"""`franken eval`: ask a model the held-out questions of some tasks, grade the answers, store every
one of them.

One run folder per model, or per graft when grafts are given: a graft evaluates `model` with some
decoder layers taken from `donor`, in memory, so that a hybrid costs no disk. Every prompt is
answered n times at temperature 1 and once greedily. Rows are written in parts while the run goes
on; a run that was interrupted answers only what is missing, and gets the same numbers, because no
sample depends on the batch it was drawn in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from franken import tasks as puzzles
from franken.checkpoints import fingerprint, open_checkpoint, resolve
from franken.devices import first_of
from franken.errors import UsageError, check_positive
from franken.evaluate.arms import obstacle, parse_arms, prompt_for
from franken.evaluate.graft import Graft
from franken.evaluate.metrics import GREEDY, summarise
from franken.evaluate.rows import AnswerRow, answer_row, missing_row
from franken.evaluate.source import Source, label_of
from franken.generate.engine import Sampling, check_engine
from franken.merge.parts import DROP, KEEP
from franken.merge.plan import open_all, plan_merge
from franken.merge.recipe import COPY, DIFFERENCES, Recipe, Rule, checked
from franken.outputs import output_folder
from franken.runs import open_run
from franken.tasks.questions import Questions, questions_of
from franken.tasks.sources import canonical, contents

if TYPE_CHECKING:
    from franken.generate.engine import Engine
    from franken.merge.plan import Plan as MergePlan
    from franken.runs import Run
    from franken.tasks import Item

Progress = Callable[[int, int, str], None]  # answers stored, answers wanted, what is being done
CHUNK = 96  # prompts between two writes: what an interrupt can lose


@dataclass(frozen=True)
class Plan:
    """What a run asks, resolved: everything that changes its numbers, apart from the weights."""

    tasks: tuple[str, ...]
    samples: int
    n: int
    k: tuple[int, ...]
    arms: tuple[str, ...]
    seed: int
    max_new_tokens: int
    data: str | None

    @property
    def draws(self) -> list[int]:
        """Draw numbers of a prompt: the greedy answer first, then 0..n-1."""
        return [GREEDY, *range(self.n)]


def plan_eval(
    *,
    tasks: Sequence[str] | None = None,
    samples: int = 100,
    n: int = 4,
    k: Sequence[int] = (1, 4),
    arms: str | Sequence[str] = "image",
    seed: int = 0,
    max_new_tokens: int = 64,
    data: Path | str | None = None,
) -> Plan:
    """Resolve and check the options of an evaluation; imports neither torch nor transformers.

    Raises UsageError for an unknown task or arm, a k above n, or a number that is not positive.
    """
    names = tuple(dict.fromkeys(tasks or ()))
    if data is None:
        names = names or tuple(puzzles.names())
        for name in names:
            puzzles.get(name)
    for what, number in (("--samples", samples), ("--n", n), ("--max-new-tokens", max_new_tokens)):
        check_positive(what, number)
    for number in k:
        if not 1 <= number <= n:
            raise UsageError(
                f"acc@{number} cannot be estimated from {n} samples a prompt",
                f"the unbiased estimator needs between 1 and n = {n}",
                f"raise --n to {number} or drop k = {number}",
            )
    chosen = tuple(sorted(set(k)))
    where = canonical(data) if data else None
    return Plan(names, samples, n, chosen, parse_arms(arms), seed, max_new_tokens, where)


def load_questions(plan: Plan) -> Questions:
    """The questions of a plan, task by task: held-out puzzles, or those of its data."""
    return questions_of(plan.tasks, plan.samples, plan.seed, plan.data)


def run_eval(
    models: Sequence[str],
    *,
    tasks: Sequence[str] | None = None,
    samples: int = 100,
    n: int = 4,
    k: Sequence[int] = (1, 4),
    arms: str | Sequence[str] = "image",
    seed: int = 0,
    out: Path = Path("runs"),
    device: str = "auto",
    dtype: str = "auto",
    data: Path | str | None = None,
    grafts: Sequence[Graft | None] | None = None,
    labels: Sequence[str] | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 64,
    engine: str = "native",
    endpoint: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Evaluate models (or, with `grafts`, hybrids of each; None is the model itself) and return one
    run folder for each.

    `samples` prompts per task, `n` draws each at temperature 1 plus the greedy answer, in every
    arm. `labels` name the models in the tables (default: the folder's name). A complete run is
    returned as it is, without loading anything. `engine` runs the checkpoints; a model written
    `openai:NAME` is asked at `endpoint`, and its answers are kept in out/cache.

    Raises UsageError on options that cannot be, FrankenError on checkpoints that cannot be read.
    """
    endpoint, out = check_engine(models, engine, endpoint), output_folder(out)
    plan = plan_eval(
        tasks=tasks,
        samples=samples,
        n=n,
        k=k,
        arms=arms,
        seed=seed,
        max_new_tokens=max_new_tokens,
        data=data,
    )
    if labels is not None and len(labels) != len(models):
        raise UsageError(
            f"{len(labels)} labels for {len(models)} models", "", "give one label per model"
        )
    names = list(labels) if labels is not None else [label_of(m) for m in models]
    folders: list[Path] = []
    for name, model in zip(names, models, strict=True):
        source = Source(model, device, dtype, engine, endpoint, out / "cache")
        for graft in grafts if grafts is not None else (None,):
            folders.append(_run_one(source, name, graft, plan, out, batch_size, progress))
        source.close()
    return folders


def _run_one(
    source: Source,
    name: str,
    graft: Graft | None,
    plan: Plan,
    out: Path,
    batch_size: int,
    progress: Progress | None,
) -> Path:
    label = graft.label if graft else name
    models = {name: source.folder}
    if graft and source.kind != "native":
        raise UsageError(
            "a hybrid is made in memory",
            f"the engine {source.kind} has its own",
            "use --engine native",
        )
    identity: dict[str, Any] = {**asdict(plan), **source.identity()}
    identity |= {
        "label": label,
        "dtype": source.dtype,
        "device": first_of(source.device).split(":")[0],
    }
    identity |= {"contents": contents(plan.data)} if plan.data else {}
    if graft:
        donor = str(resolve(graft.donor))
        models |= {f"donor of {label}": donor}
        identity |= {"donor": fingerprint(open_checkpoint(donor)), "layers": graft.layers}
        optional = ("take", "keep", "drop", "components", "draw")
        identity |= {name: value for name in optional if (value := getattr(graft, name))}
        for i, (other, layers) in enumerate(graft.more, 2):
            models |= {f"donor {i} of {label}": str(resolve(other))}
            identity |= {
                f"donor {i}": fingerprint(open_checkpoint(resolve(other))),
                f"layers {i}": layers,
            }
    config = {
        **asdict(plan),
        "device": source.device,
        "dtype": source.dtype,
        "batch_size": batch_size,
    }
    config |= {"engine": source.kind, "endpoint": source.endpoint}
    config["graft"] = asdict(graft) if graft else None
    with open_run("eval", label, identity, out, config=config, models=models) as run:
        if run.is_complete():
            return run.folder
        hybrid = _plan_hybrid(source.folder, graft) if graft else None
        asked = load_questions(plan)
        _answer_missing(run, source, label, hybrid, plan, asked, batch_size, progress)
        import pandas as pd

        rows = pd.DataFrame(run.rows())
        warnings = (
            [f"donor: {d.kind}: {d.text}" for allowed in hybrid.allowed.values() for d in allowed]
            if hybrid
            else []
        )
        requested = len(plan.arms) * len(asked.items) * len(plan.draws)
        return run.finish(summarise(rows, k=plan.k), n_requested=requested, warnings=warnings)


def _plan_hybrid(folder: str, graft: Graft) -> MergePlan:
    """What the graft changes. A donor that differs, but can be put in, is a warning of the run; one
    that cannot is refused.
    """
    given = [(graft.donor, graft.layers), *graft.more]
    donors = {
        f"donor {i}" if i > 1 else "donor": str(resolve(donor))
        for i, (donor, _) in enumerate(given, 1)
    }
    part = graft.keep or graft.drop
    method = KEEP if graft.keep else DROP if graft.drop else COPY
    how = Rule(
        method=method, parameters={"part": part} if part else {}, components=graft.components
    )
    rules = [
        replace(how, inputs=(name,), layers=layers, take=graft.take if name == "donor" else ())
        for name, (_, layers) in zip(donors, given, strict=True)
    ]
    allow = frozenset(DIFFERENCES)
    recipe = checked(Recipe(folder, donors, tuple(rules), graft.draw, allow))
    return plan_merge(recipe, open_all(recipe))


def _answer_missing(
    run: Run,
    source: Source,
    label: str,
    hybrid: MergePlan | None,
    plan: Plan,
    asked: Questions,
    batch_size: int,
    progress: Progress | None,
) -> None:
    have = {(r["method"], r["sample"], int(r["draw"])) for r in run.rows()}
    items = asked.items
    total = len(plan.arms) * len(items) * len(plan.draws)
    todo = {
        arm: [i for i in items if any((arm, i.id, d) not in have for d in plan.draws)]
        for arm in plan.arms
    }
    if progress:
        progress(len(have), total, label)
    if not any(todo.values()):
        return
    with _grafted(source, hybrid, batch_size) as engine:
        for arm, missing in todo.items():
            for start in range(0, len(missing), CHUNK):
                some = asked.seen(missing[start : start + CHUNK])
                rows = _answer(engine, label, arm, some, plan)
                rows = [r for r in rows if (r["method"], r["sample"], r["draw"]) not in have]
                run.append(rows)
                have |= {(r["method"], r["sample"], r["draw"]) for r in rows}
                if progress:
                    progress(len(have), total, f"{label}, {arm}")


@contextmanager
def _grafted(source: Source, hybrid: MergePlan | None, batch_size: int) -> Iterator[Engine]:
    """The model's engine, with the hybrid's tensors in place for as long as the block runs."""
    if hybrid is None:
        yield source.engine(batch_size)
        return
    from franken.merge.graft import graft

    with graft(source.loaded().model, hybrid, donated=source.donated):
        yield source.engine(batch_size)


def _answer(engine: Engine, label: str, arm: str, items: list[Item], plan: Plan) -> list[AnswerRow]:
    """All rows of some items in one arm: answers, or the reason why there is none."""
    rows: list[AnswerRow] = []
    askable: list[Item] = []
    for item in items:
        error, ineligible = obstacle(item, arm)
        if error or ineligible:
            rows += [
                missing_row(label, arm, item, d, error=error, ineligible=ineligible)
                for d in plan.draws
            ]
        else:
            askable.append(item)
    if not askable:
        return rows
    prompts = [prompt_for(i, arm) for i in askable]
    cap, seed = plan.max_new_tokens, plan.seed
    greedy = engine.generate(prompts, Sampling(n=1, temperature=0.0, max_new_tokens=cap, seed=seed))
    drawn = engine.generate(
        prompts, Sampling(n=plan.n, temperature=1.0, max_new_tokens=cap, seed=seed)
    )
    for item, one, many in zip(askable, greedy, drawn, strict=True):
        for draw, response in zip(plan.draws, [*one, *many], strict=True):
            if response.error:
                rows.append(missing_row(label, arm, item, draw, error=response.error))
                continue
            length = len(response.ids) or None  # an endpoint may not tell tokens
            rows.append(
                answer_row(
                    label,
                    arm,
                    item,
                    draw,
                    response.text,
                    tokens=length,
                    truncated=response.truncated,
                )
            )
    return rows
