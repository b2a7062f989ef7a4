"""The loop of `franken probe`: pairs and items × layers, controls first, every sample accounted for, resumable."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from franken import tasks
from franken.checkpoints import Checkpoint, fingerprint, open_checkpoint
from franken.contents import of_path
from franken.errors import FrankenError, UsageError, VerificationError, did_you_mean
from franken.layers import parse_ranges
from franken.probe.measures import MEASURES, at_sites, measure_all
from franken.probe.questions import load_questions
from franken.runs import Run, open_run
from franken.tasks import Item, Pair

ABLATIONS = tuple(f"{kind}{site}" for kind in ("zero", "mean", "noise") for site in ("", "-attention", "-mlp"))
SWAPS = ("swap-suffix", "swap-single", "swap-prefix")
METHODS = (*SWAPS, *ABLATIONS, *MEASURES)
ENGINES = ("torch", "nnsight")
ALIASES = {"swap": ("swap-suffix", "swap-single"), "patch": tuple(at_sites(["patch"], ["residual"]))}
FLUSH = 16
CALIBRATION = 16
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
    batch_size: int = 128
    engine: str = "torch"
    calibration: tuple[Item, ...] = ()

    @property
    def swaps(self) -> list[str]:
        """Its swaps."""
        return [m for m in self.methods if m.startswith("swap-")]

    @property
    def ablations(self) -> list[str]:
        """Its ablations."""
        return [m for m in self.methods if m in ABLATIONS]

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
    batch_size: int = 128,
    engine: str = "torch",
    pairs: Sequence[Pair] | None = None,
) -> ProbePlan:
    """Resolve methods, layers and pairs. Raises UsageError for anything unknown.

    `data` is a folder of image pairs or a file of text questions; `pairs` are used as they are.
    """
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
    if batch_size < 3:
        raise UsageError(
            f"--batch-size {batch_size} is too small", why="a swap needs the plain row, the source's and its own"
        )
    if engine not in ENGINES:
        raise UsageError(
            f"unknown engine {engine!r}", why="there are torch and nnsight", fix=did_you_mean(engine, ENGINES)
        )
    if samples < 1:
        raise UsageError(f"--samples {samples} is nothing", why="at least one is needed")
    ranges = parse_ranges(layers, checkpoint.depths)
    if any(r.part != "text" for r in ranges):
        raise UsageError(
            "only decoder layers can be probed", why="swap and zero act on the text part", fix="use text:…"
        )
    chosen = tuple(sorted({layer for r in ranges for layer in r.layers}))
    chosen_pairs = list(pairs) if pairs is not None else _pairs(task_names, samples, data, seed)
    needed = any(name.startswith(("mean", "noise")) for name in names)
    calibration = _calibration(chosen_pairs, task_names, data, seed) if needed and pairs is None else []
    if needed and not calibration:
        raise UsageError("mean and noise have nothing to calibrate on", why="they need samples", fix="use zero")
    identity = {
        "checkpoint": fingerprint(checkpoint), "methods": names, "layers": chosen, "pairs": [p.id for p in chosen_pairs],
        "seed": seed, "data": str(data) if data else None, "contents": of_path(data) if data else None,
        "samples": samples, "max_new_tokens": max_new_tokens, "dtype": dtype,
        "engine": engine, "calibration": [item.id for item in calibration],
    }  # fmt: skip
    return ProbePlan(
        checkpoint, names, tuple(chosen_pairs), chosen, identity, max_new_tokens, batch_size, engine, tuple(calibration)
    )


def one_pair(target: Path, source: Path, question: str) -> list[Pair]:
    """Two image files under one question. Raises UsageError for a file that is no image, or no question."""
    from PIL import Image

    if not question.strip():
        raise UsageError("--pair needs a question", why="it says what is asked about both images", fix='add --ask "…"')
    items = []
    for side, path in (("target", target), ("source", source)):
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except (OSError, SyntaxError, ValueError) as e:
            raise UsageError(f"{path} is no image", why=str(e), fix="give two image files") from e
        digest = hashlib.sha256(image.tobytes()).hexdigest()[:8]
        items.append(Item(f"pair-{side}-{digest}", "pair", question, "", image))
    return [Pair(f"{items[0].id}/{items[1].id}/{question}", "pair", "pair", *items)]


def run_probe(
    plan: ProbePlan, *, out: Path, device: str = "auto", dtype: str = "auto", progress: Progress | None = None
) -> Path:
    """Run or resume a probe. Returns the run folder. Raises VerificationError when a control fails."""
    from franken.models.loading import load
    from franken.probe import controls
    from franken.probe.summary import fall_tests, layer_rows, peaks

    name = plan.checkpoint.name
    run = open_run("probe", name, plan.identity, out, config=plan.identity, models={"model": name})
    if run.is_complete():
        return run.folder
    loaded = load(plan.checkpoint.folder, device=device, dtype=dtype)
    before = controls.weights_digest(loaded)
    warnings = check_controls(loaded, plan)
    done = {(r["method"], r["sample"], r["layer"]) for r in run.rows()}
    total = plan.n_requested
    seen = 0

    def step(rows: int, what: str) -> None:
        nonlocal seen
        seen += rows
        if progress:
            progress(seen, total, what)

    if plan.swaps:
        _swap_all(run, loaded, plan, done, step)
    if plan.ablations:
        _ablate_all(run, loaded, plan, done, step)

    def reload() -> Any:
        return load(plan.checkpoint.folder, device=device, dtype=dtype)

    measure_all(run, plan, loaded, reload, done, step, lambda pair: _head(plan, pair))
    if controls.weights_digest(loaded) != before:
        raise VerificationError("the weights changed during the probe", why="an edit was left in the model")
    rows = run.rows()
    summary = layer_rows(rows)
    extra = {"fall_tests": fall_tests(rows), "peaks": peaks(summary), "device": str(loaded.device)}
    return run.finish(summary, n_requested=total, warnings=warnings, extra=extra)


def check_controls(loaded: Any, plan: ProbePlan) -> list[str]:
    """Warnings of the built-in controls (`franken.probe.controls`). Raises VerificationError when one fails in fp32."""
    from franken.probe import controls

    usable = [p for p in plan.pairs if not p.error and not p.ineligible and _same_size(p)][: controls.SAMPLES]
    asked = [_prompt(p.target) for p in plan.pairs if not p.target.error][: controls.SAMPLES]
    failures = []
    if plan.swaps:
        pairs = [(_prompt(p.target), _prompt(p.source)) for p in usable]
        failures += controls.check_swaps(loaded, pairs, plan.max_new_tokens)
    if plan.ablations:
        middle = plan.layers[len(plan.layers) // 2]
        failures += controls.check_ablations(loaded, asked, middle, plan.max_new_tokens)
    for prompt in asked:
        if not controls.identity_hook_is_exact(loaded, prompt):
            failures.append(f"{prompt.key}: a hook that returns its input changes the logits")
    return controls.conclude(failures, loaded.model.dtype)


def _swap_all(run: Run, loaded: Any, plan: ProbePlan, done: set[Any], step: Any) -> None:
    from franken.probe.swap import swap_sets

    depth = plan.checkpoint.depths["text"]
    sets = [frozenset(), frozenset(range(depth))]
    sets += [s for m in plan.swaps for s in swap_sets(m.removeprefix("swap-"), plan.layers, depth)]
    keys = [(m, layer) for m in plan.swaps for layer in plan.layers]
    for start in range(0, len(plan.pairs), FLUSH):
        block = [p for p in plan.pairs[start : start + FLUSH] if (keys[0][0], p.id, keys[0][1]) not in done]
        rows = _swapped(loaded, plan, block, sets)
        waiting: list[dict[str, Any]] = []
        for pair in block:
            base, found = _head(plan, pair), rows.get(pair.id)
            if isinstance(found, list):
                plain, source, *swapped = found
                for (method, layer), row in zip(keys, swapped, strict=True):
                    waiting.append(base | {"method": method, "layer": layer} | _swap_row(pair, row, plain, source))
            else:
                error = found or pair.error
                waiting += [base | {"method": m, "layer": layer, "error": error} for m, layer in keys]
        run.append(waiting)
        for pair in plan.pairs[start : start + FLUSH]:
            step(len(keys), f"swap {pair.task}")


def _swapped(loaded: Any, plan: ProbePlan, pairs: Sequence[Pair], sets: list[frozenset[int]]) -> dict[str, Any]:
    """By pair id the rows of all sets, or what went wrong. Pairs of one shape run together."""
    if plan.engine == "nnsight":
        from franken.probe.nnsight_engine import encode_pair, stackable, swapped_batch
    else:
        from franken.probe.swap import encode_pair, stackable, swapped_batch

    found: dict[str, Any] = {}
    groups: list[list[tuple[str, Any]]] = []
    together = max(1, plan.batch_size // (len(set(sets)) + 1))
    for pair in pairs:
        if pair.error or pair.ineligible:
            continue
        try:
            encoded = encode_pair(loaded, _prompt(pair.target), _prompt(pair.source))
        except FrankenError as e:
            found[pair.id] = f"{e.what}: {e.why}"
            continue
        fitting = (g for g in groups if len(g) < together and stackable(g[0][1], encoded))
        group = next(fitting, None)
        if group is None:
            groups.append(group := [])
        group.append((pair.id, encoded))
    for group in groups:
        rows = swapped_batch(
            loaded, [encoded for _, encoded in group], sets, plan.max_new_tokens, plan.batch_size, measure=True
        )
        found |= dict(zip([key for key, _ in group], rows, strict=True))
    return found


def _swap_row(pair: Pair, row: Any, plain: Any, source: Any) -> dict[str, Any]:
    return judge(pair, row.answer.text, plain.answer.text, source.answer.text) | {
        "truncated": row.answer.truncated,
        "kl": row.kl,
        "logit_difference": row.logit_difference,
        "baseline_logit_difference": plain.logit_difference,
    }


def _ablate_all(run: Run, loaded: Any, plan: ProbePlan, done: set[Any], step: Any) -> None:
    if plan.engine == "nnsight":
        from franken.probe.nnsight_engine import ablate
    else:
        from franken.probe.ablate import ablate
    from franken.probe.ablate import ablations_of, calibrate

    keys = [(m, layer) for m in plan.ablations for layer in plan.layers]
    wanted = [a for m in plan.ablations for a in ablations_of(m, plan.layers)]
    calibration = None
    if plan.calibration:
        prompts = [_prompt(item) for item in plan.calibration]
        calibration = calibrate(loaded, prompts, plan.layers, int(plan.identity["seed"]))
    waiting: list[dict[str, Any]] = []
    for number, pair in enumerate(plan.pairs, 1):
        if (keys[0][0], pair.id, keys[0][1]) not in done:
            head = _head(plan, pair) | {"ineligible": None, "error": pair.target.error}
            if pair.target.error:
                waiting += [head | {"method": m, "layer": layer} for m, layer in keys]
            else:
                plain, *answers = ablate(
                    loaded, _prompt(pair.target), wanted, max_new_tokens=plan.max_new_tokens, calibration=calibration,
                    batch_size=plan.batch_size,
                )  # fmt: skip
                for (method, layer), now in zip(keys, answers, strict=True):
                    verdict = judge(pair, now.text, plain.text, "") | {"source_output": None, "to_source": None}
                    cut = {"truncated": now.truncated, "baseline_truncated": plain.truncated}
                    waiting.append(head | {"method": method, "layer": layer} | verdict | cut)
        if number % FLUSH == 0:
            run.append(waiting)
            waiting = []
        step(len(keys), f"ablation {pair.task}")
    run.append(waiting)


def judge(pair: Pair, text: str, plain: str, source: str) -> dict[str, Any]:
    """Compare an answer with the plain one and the source's, and grade it against the target's truth."""
    from franken.probe.scores import same_answer, same_text

    grade = tasks.grade(text, pair.target)
    return {
        "output": text,
        "baseline": plain,
        "source_output": source,
        "changed": not same_text(text, plain),
        "task_changed": not same_answer(text, plain, pair.target),
        "to_source": same_answer(text, source, pair.target) and not same_answer(source, plain, pair.target),
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
            "task_changed",
            "kl",
            "logit_difference",
            "baseline_logit_difference",
            "baseline_truncated",
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
    loaded = load_questions(data) if data.is_file() else tasks.load_folder(data)
    known = list(dict.fromkeys(p.task for p in loaded))
    for name in names:
        if name not in known:
            raise UsageError(
                f"{data} has no task {name!r}", why=f"it has {', '.join(known)}", fix=did_you_mean(name, known)
            )
    chosen = [name for name in known if not names or name in names]
    return [pair for name in chosen for pair in [p for p in loaded if p.task == name][:samples]]


def _calibration(pairs: Sequence[Pair], names: Sequence[str], data: Path | None, seed: int) -> list[Item]:
    """Items to calibrate on: of the other split for puzzles; of a file, rows that are not probed where there are any."""
    if data is None:
        chosen = names or tasks.names()
        each = -(-CALIBRATION // len(chosen))
        return [item for name in chosen for item in tasks.get(name).items(each, seed, "train")][:CALIBRATION]
    probed = {p.id for p in pairs}
    rows = [p for p in _pairs(names, sys.maxsize, data, seed) if not p.target.error]
    others = [p for p in rows if p.id not in probed]
    return [p.target for p in (others or rows)[:CALIBRATION]]


def _prompt(item: Item) -> Any:
    from franken.generate.native import Prompt

    return Prompt(item.question, (item.image,) if item.image else (), item.id)


def _same_size(pair: Pair) -> bool:
    a, b = pair.target.image, pair.source.image
    return a is not None and b is not None and a.size == b.size
