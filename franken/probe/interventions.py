"""The methods that change the model's run, block by block of pairs: rows of swaps and ablations,
judged against the plain answer.

In 16 bits a row's answer depends on what it is batched with. There every row that changed is run
again alone, with nothing but the rows that it is compared with, and judged by that: `rerun` says
which, `batched_output` what the batch had said. In fp32 the two agree (tested) and nothing is run
twice.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from franken import tasks
from franken.errors import FrankenError
from franken.probe.measures import FLUSH, prompt_of
from franken.probe.plan import ProbePlan
from franken.runs import Run
from franken.tasks import Pair

MEASURED = (
    "output",
    "baseline",
    "source_output",
    "changed",
    "task_changed",
    "to_source",
    "score",
    "baseline_score",
    "reason",
    "truncated",
    "baseline_truncated",
    "kl",
    "logit_difference",
    "baseline_logit_difference",
    "rerun",
    "batched_output",
)
Step = Callable[[int, str], None]


def swap_all(run: Run, loaded: Any, plan: ProbePlan, done: set[Any], step: Step) -> None:
    from franken.probe.swap import swap_sets

    depth = plan.checkpoint.depths["text"]
    sets = [frozenset(), frozenset(range(depth))]
    sets += [s for m in plan.swaps for s in swap_sets(m.removeprefix("swap-"), plan.layers, depth)]
    keys = [(m, layer) for m in plan.swaps for layer in plan.layers]
    for start in range(0, len(plan.pairs), FLUSH):
        block = [
            p
            for p in plan.pairs[start : start + FLUSH]
            if (keys[0][0], p.id, keys[0][1]) not in done
        ]
        rows = _swapped(loaded, plan, block, sets)
        waiting: list[dict[str, Any]] = []
        for pair in block:
            base, found = row_head(plan, pair), rows.get(pair.id)
            if isinstance(found, list):
                for (method, layer), row in zip(keys, found, strict=True):
                    waiting.append(
                        base | {"method": method, "layer": layer} | _swap_row(pair, *row)
                    )
            else:
                error = found or pair.error
                waiting += [
                    base | {"method": m, "layer": layer, "error": error} for m, layer in keys
                ]
        run.append(waiting)
        for pair in plan.pairs[start : start + FLUSH]:
            step(len(keys), f"swap {pair.task}")


def _swapped(
    loaded: Any, plan: ProbePlan, pairs: Sequence[Pair], sets: list[frozenset[int]]
) -> dict[str, Any]:
    """By pair id what went wrong, or for all sets but the first two the arguments of `_swap_row`.

    Pairs of one shape run together. The first two sets are those of no layer and of all layers.
    """
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
            loaded,
            [encoded for _, encoded in group],
            sets,
            plan.max_new_tokens,
            plan.batch_size,
            measure=True,
        )
        for (key, encoded), (plain, source, *swapped) in zip(group, rows, strict=True):

            @cache
            def alone(chosen: frozenset[int], encoded: Any = encoded) -> Any:
                asked = [*sets[:2], chosen]
                return swapped_batch(
                    loaded, [encoded], asked, plan.max_new_tokens, plan.batch_size, measure=True
                )[0]

            found[key] = []
            for chosen, row in zip(sets[2:], swapped, strict=True):
                if _doubtful(loaded, row.answer.text, plain.answer.text):
                    first, second, again = alone(chosen)
                    found[key].append((again, first, second, row.answer.text))
                else:
                    found[key].append((row, plain, source, None))
    return found


def _doubtful(loaded: Any, text: str, plain: str) -> bool:
    """Whether a row's change might be the batch's rounding."""
    from torch import float32

    return text != plain and loaded.model.dtype != float32


def _again(batched: str | None) -> dict[str, Any]:
    return {"rerun": batched is not None, "batched_output": batched}


def _swap_row(pair: Pair, row: Any, plain: Any, source: Any, batched: str | None) -> dict[str, Any]:
    return (
        _again(batched)
        | judge(pair, row.answer.text, plain.answer.text, source.answer.text)
        | {
            "truncated": row.answer.truncated,
            "kl": row.kl,
            "logit_difference": row.logit_difference,
            "baseline_logit_difference": plain.logit_difference,
        }
    )


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
                asked = partial(
                    ablate,
                    loaded,
                    prompt_of(pair.target),
                    max_new_tokens=plan.max_new_tokens,
                    calibration=calibration,
                    batch_size=plan.batch_size,
                )
                plain, *answers = asked(wanted)
                for (method, layer), ablation, now in zip(keys, wanted, answers, strict=True):
                    known = head | {"method": method, "layer": layer}
                    if _doubtful(loaded, now.text, plain.text):
                        first, again = asked([ablation])
                        waiting.append(known | _ablated_row(pair, again, first, now.text))
                    else:
                        waiting.append(known | _ablated_row(pair, now, plain, None))
        if number % FLUSH == 0:
            run.append(waiting)
            waiting = []
        step(len(keys), f"ablation {pair.task}")
    run.append(waiting)


def _ablated_row(pair: Pair, now: Any, plain: Any, batched: str | None) -> dict[str, Any]:
    cut = {"truncated": now.truncated, "baseline_truncated": plain.truncated}
    return (
        judge(pair, now.text, plain.text, "")
        | {"source_output": None, "to_source": None}
        | cut
        | _again(batched)
    )


def reruns(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many rows were run again alone, and how many of those then had not changed."""
    again = [r for r in rows if r.get("rerun")]
    return {"rows": len(again), "unchanged_alone": sum(not r["changed"] for r in again)}


def judge(pair: Pair, text: str, plain: str, source: str) -> dict[str, Any]:
    """Compare an answer with the plain one and the source's, and grade it against the target's
    truth.
    """
    from franken.probe.scores import same_answer, same_text

    grade = tasks.grade(text, pair.target)
    return {
        "output": text,
        "baseline": plain,
        "source_output": source,
        "changed": not same_text(text, plain),
        "task_changed": not same_answer(text, plain, pair.target),
        "to_source": same_answer(text, source, pair.target)
        and not same_answer(source, plain, pair.target),
        "score": grade.score,
        "baseline_score": tasks.grade(plain, pair.target).score,
        "reason": grade.reason,
    }


def row_head(plan: ProbePlan, pair: Pair) -> dict[str, Any]:
    """What all rows of a pair share, with nothing measured yet."""
    blank = dict.fromkeys(MEASURED)
    known = tasks.is_puzzle(pair.task)
    return {
        "model": plan.checkpoint.name,
        "method": None,
        "part": "text",
        "layer": None,
        "task": pair.task,
        "sample": pair.id,
        "world": tasks.get(pair.task).world if known else None,
        "question": pair.target.question,
        "gold": pair.target.answer,
        "source_gold": pair.source.answer,
        "fact": pair.fact,
        **blank,
        "error": pair.error,
        "ineligible": pair.ineligible,
    }
