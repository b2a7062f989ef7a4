"""From probe rows to rates per layer and task, with intervals; and a test of whether tasks fall at
different depths.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from franken.probe.measures import OWN
from franken.probe.site_summary import summarise_attention, summarise_lens, summarise_patch
from franken.runs import layer_row
from franken.stats import (
    bootstrap_mean,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    sign_flip_test,
    wilson,
)

Row = Mapping[str, Any]


RATES = (
    ("change_rate", "changed"),
    ("task_change_rate", "task_changed"),
    ("flip_to_source_rate", "to_source"),
)
PEAKED = ("change_rate", "task_change_rate", "flip_to_source_rate", "accuracy_drop")


def usable(rows: Sequence[Row]) -> list[Row]:
    """Rows that carry a measurement: neither failed nor ineligible."""
    return [r for r in rows if not r["error"] and not r["ineligible"]]


def layer_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row a model, method, layer, task and metric. A layer without data has null values and n =
    0.

    Swaps: `change_rate` (as text), `task_change_rate` (as the task counts it) and
    `flip_to_source_rate` with Wilson intervals,
    `kl` and `logit_difference` (bootstrap) where target and source part, and `fall_layer` per task.
    Ablations: `accuracy`,
    `change_rate` and `truncated_rate` (Wilson), `accuracy_drop` against the unablated answers
    (paired bootstrap; exact McNemar,
    Holm over layers). Lens: `answer_is_first` (Wilson) and `answer_probability` (bootstrap) of the
    right answer's first token.
    """
    summary: list[dict[str, Any]] = []
    for (model, method, task), members in _group(rows, "model", "method", "task").items():
        by_layer = {
            layer: usable(cell)
            for (layer,), cell in _group(members, "layer").items()
            if layer is not None
        }
        head = {"model": model, "method": method, "part": "text", "task": task}
        if method.startswith("patch-"):
            summary += summarise_patch(head, by_layer)
        elif method == "attention":
            summary += [
                row
                for layer, cell in sorted(by_layer.items())
                for row in summarise_attention(head, layer, cell)
            ]
        elif method == "lens":
            for layer, cell in sorted(by_layer.items()):
                summary += _lens(head, layer, cell)
        elif method.startswith(("zero", "mean", "noise")):
            summary += _ablation(head, by_layer)
        elif not method.startswith("swap-"):
            for layer, cell in sorted(by_layer.items()):
                summary += _own(head, layer, cell)
        else:
            for layer, cell in sorted(by_layer.items()):
                for metric, field in RATES:
                    summary.append(_rate(head, layer, metric, [bool(r[field]) for r in cell]))
                for metric in ("kl", "logit_difference"):
                    summary.append(
                        _mean(
                            head,
                            layer,
                            metric,
                            [r[metric] for r in cell if r.get(metric) is not None],
                        )
                    )
            falls = list(fall_layers(usable(members)).values())
            value, low, high = bootstrap_mean(falls)
            if method == "swap-suffix" and falls:
                summary.append(
                    layer_row(
                        **head,
                        metric="fall_layer",
                        value=value,
                        ci_low=low,
                        ci_high=high,
                        n=len(falls),
                    )
                )
    return summary


def peaks(summary: Sequence[Row]) -> list[dict[str, Any]]:
    """Where a method acts most, per model, method, task and metric: all layers whose interval
    overlaps the best one's.

    A peak that holds every layer says that the samples do not tell the layers apart; one without
    data is left out, as is a curve that is zero everywhere.
    """
    found = []
    chosen = [r for r in summary if r["metric"] in PEAKED and r["layer"] is not None and r["n"]]
    for (model, method, task, metric), cell in _group(
        chosen, "model", "method", "task", "metric"
    ).items():
        best = max(cell, key=lambda r: r["value"])
        if best["value"] <= 0:
            continue
        layers = sorted(int(r["layer"]) for r in cell if r["ci_high"] >= best["ci_low"])
        found.append(
            {
                "model": model,
                "method": method,
                "task": task,
                "metric": metric,
                "best": int(best["layer"]),
                "layers": layers,
            }
        )
    return found


def fall_layers(rows: Sequence[Row]) -> dict[str, float]:
    """Per sample, the number of layers ℓ at which a suffix swap still changes the answer: where
    vision has been read out.

    For a curve that falls once it is the layer of the fall. Samples whose answer does not even
    change at ℓ = 0 are left out.
    """
    falls = {}
    for (sample,), cell in _group(rows, "sample").items():
        changed = {int(r["layer"]): bool(r["changed"]) for r in cell if r["layer"] is not None}
        if changed.get(0):
            falls[sample] = float(sum(changed.values()))
    return falls


def fall_tests(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Do two tasks fall at different layers? Paired by the image both ask about, sign-flip test,
    Holm over task pairs.

    Puzzles of one world draw the same i-th image, so sample `read-…-7` is paired with `sum-…-7`.
    Pairs of tasks that share no image are not tested.
    """
    suffix = [r for r in usable(rows) if r["method"] == "swap-suffix"]
    by_task = {
        task: _by_image(fall_layers(cell)) for (task,), cell in _group(suffix, "task").items()
    }
    worlds = {r["task"]: r.get("world") for r in suffix}
    tests = []
    for a, b in itertools.combinations(by_task, 2):
        shared = sorted(set(by_task[a]) & set(by_task[b]))
        if worlds[a] != worlds[b] or worlds[a] is None or len(shared) < 2:
            continue
        x, y = ([by_task[t][i] for i in shared] for t in (a, b))
        difference, low, high = paired_bootstrap(y, x)
        p = sign_flip_test(np.subtract(y, x))
        tests.append(
            {"tasks": [a, b], "difference": difference, "ci": [low, high], "p": p, "n": len(shared)}
        )
    for test, adjusted in zip(tests, holm([t["p"] for t in tests]), strict=True):
        test["p_adjusted"] = adjusted
    return tests


def _ablation(head: dict[str, Any], by_layer: dict[Any, list[Row]]) -> list[dict[str, Any]]:
    rows, p_values = [], []
    for layer, cell in sorted(by_layer.items()):
        now = [float(r["score"]) for r in cell]
        before = [float(r["baseline_score"]) for r in cell]
        rows.append(_rate(head, layer, "accuracy", [x == 1.0 for x in now]))
        rows.append(_rate(head, layer, "change_rate", [bool(r["changed"]) for r in cell]))
        rows.append(_rate(head, layer, "truncated_rate", [bool(r.get("truncated")) for r in cell]))
        drop, low, high = paired_bootstrap(before, now)
        lost = sum(b == 1.0 and n != 1.0 for b, n in zip(before, now, strict=True))
        won = sum(n == 1.0 and b != 1.0 for b, n in zip(before, now, strict=True))
        p_values.append(mcnemar_exact(lost, won))
        rows.append(
            layer_row(
                **head,
                layer=layer,
                metric="accuracy_drop",
                n=len(cell),
                value=drop if cell else None,
                ci_low=low if cell else None,
                ci_high=high if cell else None,
            )
        )
    for row, adjusted in zip(
        (r for r in rows if r["metric"] == "accuracy_drop"), holm(p_values), strict=True
    ):
        row["p_adjusted"] = adjusted
    return rows


def _lens(head: dict[str, Any], layer: Any, cell: list[Row]) -> list[dict[str, Any]]:
    first = _rate(head, layer, "answer_is_first", [r["rank_gold"] == 1 for r in cell])
    return [first, *summarise_lens(head, layer, cell)]


def _own(head: dict[str, Any], layer: Any, cell: list[Row]) -> list[dict[str, Any]]:
    """What a plugin measured: the mean of each of its numbers."""
    names = dict.fromkeys(key for row in cell for key in row if key.startswith(OWN))
    values = {name: [row[name] for row in cell if row.get(name) is not None] for name in names}
    return [
        _mean(head, layer, name.removeprefix(OWN), found) for name, found in values.items() if found
    ]


def _rate(head: dict[str, Any], layer: Any, metric: str, hits: list[bool]) -> dict[str, Any]:
    n = len(hits)
    low, high = wilson(sum(hits), n)
    values = {"value": sum(hits) / n, "ci_low": low, "ci_high": high} if n else {}
    return layer_row(**head, layer=int(layer), metric=metric, n=n, **values)


def _mean(head: dict[str, Any], layer: Any, metric: str, values: list[float]) -> dict[str, Any]:
    value, low, high = bootstrap_mean(values)
    known = {"value": value, "ci_low": low, "ci_high": high} if values else {}
    return layer_row(**head, layer=int(layer), metric=metric, n=len(values), **known)


def _by_image(falls: Mapping[str, float]) -> dict[str, float]:
    return {sample.split("-", 1)[-1]: value for sample, value in falls.items()}


def _group(rows: Sequence[Row], *fields: str) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[f] for f in fields), []).append(row)
    return groups
