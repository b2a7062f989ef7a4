"""The methods that change the model's run, block by block of pairs: rows of swaps and ablations, judged against the plain answer."""

from collections.abc import Callable, Sequence
from typing import Any

from franken import tasks
from franken.errors import FrankenError
from franken.probe.measures import FLUSH, prompt_of
from franken.probe.plan import ProbePlan
from franken.runs import Run
from franken.tasks import Pair

MEASURED = (
    "output", "baseline", "source_output", "changed", "task_changed", "to_source", "score", "baseline_score", "reason", "truncated",
    "baseline_truncated", "kl", "logit_difference", "baseline_logit_difference",
)  # fmt: skip
Step = Callable[[int, str], None]


def swap_all(run: Run, loaded: Any, plan: ProbePlan, done: set[Any], step: Step) -> None:
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
            base, found = row_head(plan, pair), rows.get(pair.id)
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
            encoded = encode_pair(loaded, prompt_of(pair.target), prompt_of(pair.source))
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


def ablate_all(run: Run, loaded: Any, plan: ProbePlan, done: set[Any], step: Step) -> None:
    if plan.engine == "nnsight":
        from franken.probe.nnsight_engine import ablate
    else:
        from franken.probe.ablate import ablate
    from franken.probe.ablate import ablations_of, calibrate

    keys = [(m, layer) for m in plan.ablations for layer in plan.layers]
    wanted = [a for m in plan.ablations for a in ablations_of(m, plan.layers)]
    calibration = None
    if plan.calibration:
        prompts = [prompt_of(item) for item in plan.calibration]
        calibration = calibrate(loaded, prompts, plan.layers, int(plan.identity["seed"]))
    waiting: list[dict[str, Any]] = []
    for number, pair in enumerate(plan.pairs, 1):
        if (keys[0][0], pair.id, keys[0][1]) not in done:
            head = row_head(plan, pair) | {"ineligible": None, "error": pair.target.error}
            if pair.target.error:
                waiting += [head | {"method": m, "layer": layer} for m, layer in keys]
            else:
                plain, *answers = ablate(
                    loaded, prompt_of(pair.target), wanted, max_new_tokens=plan.max_new_tokens, calibration=calibration,
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


def row_head(plan: ProbePlan, pair: Pair) -> dict[str, Any]:
    """What all rows of a pair share, with nothing measured yet."""
    blank = dict.fromkeys(MEASURED)
    known = tasks.is_puzzle(pair.task)
    return {
        "model": plan.checkpoint.name, "method": None, "part": "text", "layer": None, "task": pair.task, "sample": pair.id,
        "world": tasks.get(pair.task).world if known else None, "question": pair.target.question,
        "gold": pair.target.answer, "source_gold": pair.source.answer, "fact": pair.fact, **blank,
        "error": pair.error, "ineligible": pair.ineligible,
    }  # fmt: skip
