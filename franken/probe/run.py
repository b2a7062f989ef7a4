"""The loop of `franken probe`: pairs and items × layers, controls first, every sample accounted for, resumable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from franken import tasks
from franken.checkpoints import Checkpoint, fingerprint, open_checkpoint
from franken.errors import FrankenError, UsageError, VerificationError, did_you_mean
from franken.layers import parse_ranges
from franken.probe.measures import MEASURES, at_sites, measure_all
from franken.runs import Run, open_run
from franken.tasks import Item, Pair
from franken.tasks.grading import extract, normalise

METHODS = ("swap-suffix", "swap-single", "swap-prefix", "zero", *MEASURES)
ALIASES = {"swap": ("swap-suffix", "swap-single"), "patch": tuple(at_sites(["patch"], ["residual"]))}
FLUSH = 16
CONTROL_PAIRS = 2
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ProbePlan:
    """Everything that is resolved before a model is loaded."""

    checkpoint: Checkpoint
    methods: tuple[str, ...]
    pairs: tuple[Pair, ...]
    layers: tuple[int, ...]
    identity: dict[str, Any]
    max_new_tokens: int

    @property
    def n_requested(self) -> int:
        """Rows that the run will hold."""
        return len(self.methods) * len(self.pairs) * len(self.layers)


def plan_probe(
    model: str,
    *,
    methods: Sequence[str] = ("swap", "zero"),
    task_names: Sequence[str] = (),
    samples: int = 50,
    data: Path | None = None,
    layers: str = "all",
    seed: int = 0,
    max_new_tokens: int = 64,
    dtype: str = "auto",
) -> ProbePlan:
    """Resolve methods, layers and pairs. Raises UsageError for anything unknown."""
    checkpoint = open_checkpoint(model)
    names = tuple(dict.fromkeys(m for given in methods for m in ALIASES.get(given, (given,))))
    for name in names:
        if name.startswith("swap-window"):
            from franken.probe.swap import swap_sets

            swap_sets(name.removeprefix("swap-"), (), checkpoint.depths["text"])
        elif name not in METHODS:
            known = (*METHODS, "swap-window:3", *ALIASES)
            raise UsageError(
                f"unknown method {name!r}",
                why=f"there are {', '.join(known)}",
                fix=did_you_mean(name, known) or "pick one",
            )
    if samples < 1:
        raise UsageError(f"--samples {samples} is nothing", why="at least one is needed")
    ranges = parse_ranges(layers, checkpoint.depths)
    if any(r.part != "text" for r in ranges):
        raise UsageError(
            "only decoder layers can be probed", why="swap and zero act on the text part", fix="use text:…"
        )
    chosen = tuple(sorted({layer for r in ranges for layer in r.layers}))
    pairs = _pairs(task_names, samples, data, seed)
    identity = {
        "checkpoint": fingerprint(checkpoint), "methods": names, "layers": chosen, "pairs": [p.id for p in pairs], "seed": seed,
        "data": str(data) if data else None, "samples": samples, "max_new_tokens": max_new_tokens, "dtype": dtype,
    }  # fmt: skip
    return ProbePlan(checkpoint, names, tuple(pairs), chosen, identity, max_new_tokens)


def run_probe(
    plan: ProbePlan, *, out: Path, device: str = "auto", dtype: str = "auto", progress: Progress | None = None
) -> Path:
    """Run or resume a probe. Returns the run folder. Raises VerificationError when a control fails."""
    from franken.models.loading import load
    from franken.probe.summary import fall_tests, layer_rows

    name = plan.checkpoint.name
    run = open_run("probe", name, plan.identity, out, config=plan.identity, models={"model": name})
    if run.is_complete():
        return run.folder
    loaded = load(plan.checkpoint.folder, device=device, dtype=dtype)
    warnings = check_controls(loaded, plan)
    done = {(r["method"], r["sample"], r["layer"]) for r in run.rows()}
    total = plan.n_requested
    seen = 0

    def step(rows: int, what: str) -> None:
        nonlocal seen
        seen += rows
        if progress:
            progress(seen, total, what)

    swaps = [m for m in plan.methods if m.startswith("swap-")]
    if swaps:
        _swap_all(run, loaded, plan, swaps, done, step)
    if "zero" in plan.methods:
        _ablate_all(run, loaded, plan, done, step)

    def reload() -> Any:
        return load(plan.checkpoint.folder, device=device, dtype=dtype)

    measure_all(run, plan, loaded, reload, done, step, lambda pair: _head(plan, pair))
    rows = run.rows()
    return run.finish(
        layer_rows(rows), n_requested=total, warnings=warnings, extra={"fall_tests": fall_tests(rows), "device": device}
    )


def check_controls(loaded: Any, plan: ProbePlan) -> list[str]:
    """What must hold before anything is believed; on the first usable pairs.

    Swapping an image with itself changes nothing; nothing swapped equals plain generation; all layers swapped equals running
    the source image; a hook that returns what it gets leaves the logits bit-identical. In 16-bit types batched kernels round
    differently, so a difference there is returned as a warning. Raises VerificationError in fp32.
    """
    from franken.generate.native import Sampling, generate
    from franken.probe.swap import swapped_answers

    usable = [p for p in plan.pairs if not p.error and not p.ineligible and _same_size(p)][:CONTROL_PAIRS]
    failures = []
    everything = frozenset(range(plan.checkpoint.depths["text"]))
    greedy = Sampling(1, 0.0, plan.max_new_tokens)
    for pair in usable:
        target, source = _prompt(pair.target), _prompt(pair.source)
        same = swapped_answers(
            loaded, target, target, [frozenset(), everything, frozenset([0])], max_new_tokens=plan.max_new_tokens
        )
        plain, other = (generate(loaded, [p], greedy)[0][0] for p in (target, source))
        swapped = swapped_answers(loaded, target, source, [everything], max_new_tokens=plan.max_new_tokens)[0]
        if len({tuple(r.ids) for r in same}) > 1:
            failures.append(f"{pair.id}: swapping an image with itself changes the answer")
        if same[0].ids != plain.ids:
            failures.append(f"{pair.id}: nothing swapped is not the plain answer")
        if swapped.ids != other.ids:
            failures.append(f"{pair.id}: everything swapped is not the source's answer")
        if not _identity_hook_is_exact(loaded, target):
            failures.append(f"{pair.id}: a hook that returns its input changes the logits")
    if failures and loaded.model.dtype == torch.float32:
        raise VerificationError(
            "a built-in control failed", why="; ".join(failures), fix="the probe would not be valid"
        )
    return failures


def _swap_all(run: Run, loaded: Any, plan: ProbePlan, methods: list[str], done: set[Any], step: Any) -> None:
    from franken.probe.swap import swap_sets, swapped_answers

    depth = plan.checkpoint.depths["text"]
    everything = frozenset(range(depth))
    sets = [s for m in methods for s in swap_sets(m.removeprefix("swap-"), plan.layers, depth)]
    keys = [(m, layer) for m in methods for layer in plan.layers]
    waiting: list[dict[str, Any]] = []
    for number, pair in enumerate(plan.pairs, 1):
        if (keys[0][0], pair.id, keys[0][1]) not in done:
            base = _head(plan, pair)
            if pair.error or pair.ineligible:
                waiting += [base | {"method": m, "layer": layer} for m, layer in keys]
            else:
                try:
                    prompts = _prompt(pair.target), _prompt(pair.source)
                    answers = swapped_answers(
                        loaded, *prompts, [frozenset(), everything, *sets], max_new_tokens=plan.max_new_tokens
                    )
                    plain, source, *swapped = [r.text for r in answers]
                    for (method, layer), text in zip(keys, swapped, strict=True):
                        waiting.append(base | {"method": method, "layer": layer} | judge(pair, text, plain, source))
                except FrankenError as e:
                    waiting += [
                        base | {"method": m, "layer": layer, "error": f"{e.what}: {e.why}"} for m, layer in keys
                    ]
        step(len(keys), f"swap {pair.task}")
        if number % FLUSH == 0:
            run.append(waiting)
            waiting = []
    run.append(waiting)


def _ablate_all(run: Run, loaded: Any, plan: ProbePlan, done: set[Any], step: Any) -> None:
    from franken.probe.ablate import ablated_answers

    good = [p for p in plan.pairs if not p.target.error and p.target.image is not None]
    bad = [p for p in plan.pairs if p not in good]
    prompts = [_prompt(p.target) for p in good]
    plain: list[str] | None = None
    for layer in plan.layers:
        if plan.pairs and ("zero", plan.pairs[0].id, layer) not in done:
            if plain is None:
                plain = [r.text for r in ablated_answers(loaded, prompts, None, max_new_tokens=plan.max_new_tokens)]
            answers = ablated_answers(loaded, prompts, layer, max_new_tokens=plan.max_new_tokens)
            rows = [_head(plan, p) | {"method": "zero", "layer": layer, "ineligible": None} for p in bad]
            for pair, before, now in zip(good, plain, answers, strict=True):
                verdict = judge(pair, now.text, before, "") | {"source_output": None, "to_source": None}
                head = _head(plan, pair) | {"ineligible": None, "error": None}
                rows.append(head | {"method": "zero", "layer": layer, "truncated": now.truncated} | verdict)
            order = {p.id: i for i, p in enumerate(plan.pairs)}
            run.append(sorted(rows, key=lambda r: order[r["sample"]]))
        step(len(plan.pairs), f"zero layer {layer}")


def judge(pair: Pair, text: str, plain: str, source: str) -> dict[str, Any]:
    """Compare an answer with the plain one and the source's, and grade it against the target's truth."""
    said, before, there = (normalise(extract(t) or "") for t in (text, plain, source))
    grade = tasks.grade(text, pair.target)
    return {
        "output": text,
        "baseline": plain,
        "source_output": source,
        "changed": said != before,
        "to_source": said == there and there != before,
        "score": grade.score,
        "baseline_score": tasks.grade(plain, pair.target).score,
        "reason": grade.reason,
    }


def _head(plan: ProbePlan, pair: Pair) -> dict[str, Any]:
    blank = dict.fromkeys(
        (
            "output",
            "baseline",
            "source_output",
            "changed",
            "to_source",
            "score",
            "baseline_score",
            "reason",
            "truncated",
        )
    )
    known = tasks.is_puzzle(pair.task)
    return {
        "model": plan.checkpoint.name, "method": None, "part": "text", "layer": None, "task": pair.task, "sample": pair.id,
        "world": tasks.get(pair.task).world if known else None, "question": pair.target.question,
        "gold": pair.target.answer, "source_gold": pair.source.answer, "fact": pair.fact, **blank,
        "error": pair.error, "ineligible": pair.ineligible,
    }  # fmt: skip


def _pairs(names: Sequence[str], samples: int, data: Path | None, seed: int) -> list[Pair]:
    if data is None:
        return [pair for name in names or tasks.names() for pair in tasks.get(name).pairs(samples, seed, "test")]
    loaded = tasks.load_folder(data)
    known = list(dict.fromkeys(p.task for p in loaded))
    for name in names:
        if name not in known:
            raise UsageError(
                f"{data} has no task {name!r}", why=f"it has {', '.join(known)}", fix=did_you_mean(name, known)
            )
    chosen = [name for name in known if not names or name in names]
    return [pair for name in chosen for pair in [p for p in loaded if p.task == name][:samples]]


def _prompt(item: Item) -> Any:
    from franken.generate.native import Prompt

    return Prompt(item.question, (item.image,) if item.image else (), item.id)


def _same_size(pair: Pair) -> bool:
    a, b = pair.target.image, pair.source.image
    return a is not None and b is not None and a.size == b.size


@torch.no_grad()
def _identity_hook_is_exact(loaded: Any, prompt: Any) -> bool:
    from franken.generate.native import encode_prompts
    from franken.models.hooks import edit

    batch = encode_prompts(loaded, [prompt])
    before = loaded.model(**batch).logits
    with edit({layer: lambda output, _: output for layer in loaded.family.decoder_layers(loaded.model)}):
        after = loaded.model(**batch).logits
    return torch.equal(before, after)
