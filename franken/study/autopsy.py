"""`franken autopsy BASE [SFT] RL`: everything at once, on one page.

Probe every stage, compare the weights, evaluate every checkpoint, evaluate the paper's six hybrids
and random layer sets beside them (grafted in memory), and whatever else `franken.study.agenda`
plans; then write `out/index.html`. Everything that is complete is skipped, so the same command goes
on after an interrupt, and a study grows by calling it again with another checkpoint.

    out/study.json   what was done (franken/runs/record.py)    out/runs/    the run folders
    out/steps/       records and logs of the steps               out/index.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

from franken.checkpoints import name_of, open_checkpoint, resolve
from franken.devices import lanes_of
from franken.errors import UsageError
from franken.evaluate.run import plan_eval
from franken.layers import option_of, parse_ranges
from franken.lock import locked
from franken.outputs import refuse_other
from franken.runs import STAGES
from franken.runs.record import FILE, BudgetRecord, LeftOut, Models, StepRecord, Study, read_study
from franken.runs.training import frozen_layers, read_proofs
from franken.study.agenda import OPTIONAL, Settings, check_switches, study_steps
from franken.study.budget import FLOOR, Fit, fit, parse_budget
from franken.study.cost import Memory, lines, recorder, totals
from franken.study.hybrids import plan_hybrids
from franken.study.lanes import Report, check_present, run_steps
from franken.study.rates import find_rates
from franken.study.steps import Outcome, Step, stored_steps

SMALL = 1 << 30  # bytes; checkpoints below this run side by side


def plan_autopsy(
    base: str,
    sft: str | None,
    rl: str,
    *,
    out: Path,
    settings: Settings,
    extra: Models | None = None,
    title: str = "",
    command: str = "",
    before: Sequence[Step] = (),
) -> tuple[Study, list[Step]]:
    """The record of the study and its steps. Those `before` make the checkpoint of their `model`.

    `extra` are further checkpoints to evaluate: `control`, or `frozen-RANGE` (`frozen-late`,
    `frozen-0-3`) for RL with those text layers frozen. Raises UsageError for checkpoints that are
    not there or do not fit each other, unknown tasks, impossible numbers.
    """
    made = {step.model for step in before}
    _check_labels(extra or {})
    models = {"base": base} | ({"sft": sft} if sft else {}) | {"rl": rl} | dict(extra or {})
    paths = {label: _where(path, label in made) for label, path in models.items()}
    depth = _check_fit({label: p for label, p in paths.items() if label not in made})
    plan = plan_eval(
        tasks=settings.tasks,
        samples=settings.samples,
        n=settings.n,
        k=settings.k,
        seed=settings.seed,
        data=Path(settings.data) if settings.data else None,
    )
    check_switches(settings.without)
    arms = _frozen(models, depth)
    hybrids = plan_hybrids(
        depth,
        "SFT" if sft else "Base",
        controls=settings.controls,
        seed=settings.seed,
        frozen=arms.values(),
    )
    if taken := sorted({h.label for h in hybrids} & set(models)):
        raise UsageError(
            f"--extra {taken[0]}=…: that is the name of a hybrid",
            fix="give the checkpoint another label",
        )
    study = Study(
        title=title or name_of(paths["rl"]),
        models=paths,
        depth=depth,
        tasks=list(plan.tasks),
        samples=settings.samples,
        seed=settings.seed,
        data=settings.data,
        hybrids={h.label: h.record() for h in hybrids} if settings.on("hybrids") else {},
        frozen=arms,
        command=command,
        notes=_alike({label: paths[label] for label in STAGES if label in paths}),
        left_out=_switched_off(settings),
        sizes=settings.sizes(),
    )
    return study, study_steps(study, settings, out, before)


def _check_labels(extra: Models) -> None:
    """Refuse labels that would take the place of a stage: the page would then be about another
    model, unsaid.
    """
    for label in extra:
        if label in STAGES or not label.strip():
            why = "base, sft and rl are the checkpoints of the study itself"
            why = why if label.strip() else "it has no label"
            fix = "give another label: --extra control=FOLDER, --extra frozen-late=FOLDER"
            raise UsageError(f"cannot use --extra {label}={extra[label]}", why, fix)


def _switched_off(settings: Settings) -> list[LeftOut]:
    """The parts of a study that its settings leave out; patching is only named where it was asked
    for.
    """
    why = dict.fromkeys(settings.without, "switched off with --without")
    why |= dict.fromkeys(settings.dropped, "to fit the budget")
    return [LeftOut(id=name, what=OPTIONAL.get(name, name), why=text) for name, text in why.items()]


def fit_budget(
    base: str,
    sft: str | None,
    rl: str,
    *,
    out: Path,
    settings: Settings,
    budget: str,
    jobs: int | None = None,
    extra: Models | None = None,
) -> Fit:
    """The study that fits `budget` (30m, 2h), by the rule of `franken.study.budget`.

    A study that was begun under the same budget keeps the sizes that were chosen then. Raises
    UsageError.
    """
    asked = settings.sizes() | {"parts": [name for name in OPTIONAL if settings.on(name)]}
    before = read_study(out).budget if (out / FILE).exists() else None
    if before and before.estimate is not None and before.text == budget and before.asked == asked:
        chosen = replace(settings, **before.chosen | {"dropped": tuple(before.dropped)})
        return Fit(chosen, before.estimate, tuple(before.notes))
    whole, _ = plan_autopsy(base, sft, rl, out=out, settings=settings, extra=extra)
    lanes = jobs or default_jobs(whole)
    rates = find_rates(out, device=settings.device, jobs=lanes)
    memory = Memory()

    @cache
    def price(smaller: Settings) -> float | None:
        steps = plan_autopsy(base, sft, rl, out=out, settings=smaller, extra=extra)[1]
        return totals(lines(steps, stored_steps(steps, out).keys(), rates, memory), lanes).seconds

    return fit(settings, budget, price)


def _budget(asked: Settings, fitted: Fit, text: str) -> BudgetRecord:
    """As stored in study.json."""
    return BudgetRecord(
        text=text,
        seconds=parse_budget(text),
        estimate=fitted.estimate,
        notes=list(fitted.notes),
        asked=asked.sizes() | {"parts": [name for name in OPTIONAL if asked.on(name)]},
        chosen={name: getattr(fitted.settings, name) for name in FLOOR},
        dropped=list(fitted.settings.dropped),
    )


def run_autopsy(
    base: str,
    sft: str | None,
    rl: str,
    *,
    out: Path,
    settings: Settings | None = None,
    extra_models: Models | None = None,
    title: str = "",
    command: str = "",
    jobs: int | None = None,
    devices: Sequence[str] = (),
    before: Sequence[Step] = (),
    claimed: bool = False,
    report: Report | None = None,
    budget: str = "",
) -> Path:
    """Run what is missing of an autopsy and write its page. Returns the page's path.

    `before` are steps of the caller's own: training runs that make the checkpoint of their `model`.
    `jobs` lanes side by side: by default two for small checkpoints, else one; or a lane on each of
    `devices`.
    Steps that failed are named on the page and in study.json. With a `budget` (30m, 2h) sizes
    shrink until the study is expected to fit, and optional steps that have not started when it is
    used up are left out; every call has the whole budget for what is still to do. Raises UsageError
    if `out` holds something else, unless the caller has `claimed` it, and when no study fits the
    budget.
    """
    asked, fitted = settings or Settings(), None
    if devices:
        asked = replace(asked, device=lanes_of(devices, jobs, asked.device))
        jobs = len(devices)
        check_present(devices)
    if budget:
        fitted = fit_budget(
            base, sft, rl, out=out, settings=asked, budget=budget, jobs=jobs, extra=extra_models
        )
    settings = fitted.settings if fitted else asked
    study, steps = plan_autopsy(
        base,
        sft,
        rl,
        out=out,
        settings=settings,
        extra=extra_models,
        title=title,
        command=command,
        before=before,
    )
    if fitted:
        study.budget = _budget(asked, fitted, budget)
        study.notes += fitted.notes
        if report:
            for note in fitted.notes:
                report("budget", "chosen", note)
    _check(out, study, claimed)
    with locked(out):
        _claim(out, study)
        return _run(study, [*before, *steps], out, jobs, devices, report, budget)


def _run(
    study: Study,
    steps: Sequence[Step],
    out: Path,
    jobs: int | None,
    devices: Sequence[str],
    report: Report | None,
    budget: str,
) -> Path:
    from franken.report.page.build import build_page  # figures: not for --dry-run

    outcomes = run_steps(
        steps,
        folder=out,
        jobs=jobs or default_jobs(study),
        report=report,
        cost_of=recorder(steps),
        budget=parse_budget(budget) if budget else None,
        devices=devices,
    )
    study.steps = [_recorded(o, out) for o in outcomes if not o.left_out]
    study.left_out += [
        LeftOut(id=o.step.id, what=o.step.what, why=o.left_out, command=o.step.command)
        for o in outcomes
        if o.left_out
    ]
    study.save(out)
    return build_page(out)


def _frozen(models: Models, depth: int) -> dict[str, list[int]]:
    """The text layers that labels of the form `frozen-RANGE` name, from the bottom up. Raises
    UsageError where RANGE is none.
    """
    layers: dict[str, list[int]] = {}
    for label in (label for label in models if label.startswith("frozen-")):
        ranges = parse_ranges(label.removeprefix("frozen-"), {"text": depth})
        layers[label] = [i for r in ranges for i in r.layers]
        _check_proof(label, layers[label], Path(models[label]).parent / "freeze.json")
    return dict(sorted(layers.items(), key=lambda arm: arm[1]))


def _check_proof(label: str, named: Sequence[int], proof: Path) -> None:
    """A checkpoint of `freeze-train` lies beside the proof of what was frozen: the label must say
    the same text layers.
    """
    if not proof.exists():
        return
    proved = frozen_layers(list(read_proofs(proof).values()))
    if proved != sorted(named):
        instead = option_of(proved).replace("text:", "")
        raise UsageError(
            f"{label} is not what that run froze",
            f"{proof} says text layers {proved or 'none'}",
            f"call it frozen-{instead}"
            if proved
            else "give the checkpoint of a run with frozen layers",
        )


def default_jobs(study: Study) -> int:
    """Two lanes when every checkpoint is small, else one."""
    sizes = [open_checkpoint(p).nbytes for p in study.models.values() if Path(p).is_dir()]
    return 2 if max(sizes, default=0) < SMALL else 1


def _recorded(outcome: Outcome, out: Path) -> StepRecord:
    step = outcome.step
    return StepRecord(
        id=step.id,
        what=step.what,
        verb=step.verb,
        model=step.model,
        command=outcome.command or step.command,
        seconds=outcome.seconds,
        error=outcome.error,
        optional=bool(step.kind),
        folders=[Path(f).resolve().relative_to(out.resolve()).as_posix() for f in outcome.folders],
    )


def _check(out: Path, study: Study, claimed: bool) -> None:
    """Refuse a folder that holds something else or another study; nothing is written."""
    if not claimed:
        refuse_other(out, FILE)
    if not (out / FILE).exists():
        return
    before = read_study(out)
    for label, path in before.models.items():
        if study.models.get(label, path) != path:
            why = f"there, {label} is {path}"
            raise UsageError(f"{out} holds another study", why, "choose another --out")
    if before.made_of_runs:
        raise UsageError(
            f"{out} holds a report over runs", "it is no autopsy", "choose another --out"
        )


def _claim(out: Path, study: Study) -> None:
    """Make the folder this study's. A record that is there keeps its steps until this call has
    ended.
    """
    if (out / FILE).exists():  # what a budget chose holds for the call that resumes
        study = read_study(out).model_copy(update={"budget": study.budget})
    out.mkdir(parents=True, exist_ok=True)
    study.save(out)


def _where(path: str, to_be_made: bool) -> str:
    return str(Path(path).resolve()) if to_be_made else str(resolve(path).resolve())


def _alike(stages: Models) -> list[str]:
    """What to say of stages that are one folder: a control, in which nothing may be found."""
    return [
        f"{first} and {second} are the same checkpoint, so that nothing may differ between them: "
        "this study is a control of the method."
        for first, second in combinations(stages, 2)
        if stages[first] == stages[second]
    ]


def _check_fit(paths: Models) -> int:
    """All checkpoints must hold the same tensors in the same shapes. Returns the depth of the text
    decoder.
    """
    opened = {label: open_checkpoint(path) for label, path in paths.items()}
    first, *others = opened
    for label in others:
        a, b = opened[first].tensors, opened[label].tensors
        for name in sorted(a.keys() | b.keys()):
            one, two = (str(t[name].shape) if name in t else "not there" for t in (a, b))
            if one != two:
                raise UsageError(
                    f"{first} and {label} are not the same architecture",
                    f"{name} is {first}: {one}, {label}: {two}",
                    "an autopsy compares stages of one model",
                )
    return opened[first].depths["text"]
