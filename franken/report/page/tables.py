"""The tables of the page: scores per checkpoint, paired comparisons, and what every run did and
failed at.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from franken.errors import FrankenError
from franken.evaluate.metrics import compare_samples
from franken.report.evidence import Evidence
from franken.report.headlines import layer_spans
from franken.report.ranges import effects
from franken.report.sources import folder_of, runs_of
from franken.report.theme import colour, name
from franken.report.verdicts import p_text, percent, points

RUN_FILES = ("run.json", "samples.parquet", "layers.parquet", "points.parquet")
LONGEST = 300  # characters of a reason


def model_table(found: Evidence) -> dict[str, Any]:
    """Checkpoints × metrics in the image arm, macro over tasks, and acc@1 per task. Cells: text,
    interval, n.
    """
    rows = found.layers("eval")
    labels = [m for m in found.study.models if len(rows) and m in set(rows["model"])]
    if not labels:
        return {"columns": [], "rows": []}
    image = rows[(rows["method"] == "image") & rows["model"].isin(labels)]
    ks = sorted({m for m in image["metric"] if str(m).startswith("acc@")}, key=lambda m: int(m[4:]))
    columns = [(m, "all") for m in (*ks, "greedy", "format", "strategies")]
    columns += [("acc@1", t) for t in dict.fromkeys(image["task"]) if t != "all"]
    table = image.set_index(["model", "metric", "task"])
    heads = [m if t == "all" else t for m, t in columns]
    body = []
    for label in labels:
        cells = [_cell(table, label, metric, task) for metric, task in columns]
        runs = runs_of(found, "eval", [label], "image")
        body.append(
            {
                "runs": runs,
                "label": label,
                "name": name(label),
                "colour": colour(label),
                "cells": cells,
            }
        )
    return {"columns": heads, "pooled": len([c for c in columns if c[1] == "all"]), "rows": body}


def _cell(table: Any, label: str, metric: str, task: str) -> dict[str, Any]:
    key = (label, metric, task)
    if key not in table.index:
        return {"text": "–", "range": "", "share": None, "n": 0}
    row = table.loc[key]
    row = row.iloc[0] if hasattr(row, "columns") else row
    value, low, high = (float(row[c]) for c in ("value", "ci_low", "ci_high"))
    if value != value:
        return {"text": "–", "range": "no data", "share": None, "n": 0}
    if metric == "strategies":
        return {
            "text": f"{value:.2f}",
            "range": f"{low:.2f} to {high:.2f}",
            "share": None,
            "n": int(row["n"]),
        }
    span = f"{100 * low:.1f} to {100 * high:.1f}"
    return {"text": percent(value), "range": span, "share": value, "n": int(row["n"])}


def comparison_table(found: Evidence) -> list[dict[str, Any]]:
    """Paired differences in acc@1 per task and pooled: RL against its parent and against the
    control.
    """
    parent = found.study.parent
    wanted = [(parent, "rl"), ("control", "rl"), ("base", parent)]
    out = []
    for a, b in wanted:
        left, right = found.samples("eval", a), found.samples("eval", b)
        if a == b or len(left) == 0 or len(right) == 0:
            continue
        try:
            table = compare_samples(left, right, "acc@1")
        except FrankenError:  # the two share no prompt: nothing to compare
            continue
        rows = [
            {
                "task": r["task"],
                "before": percent(r["mean_a"]),
                "after": percent(r["mean_b"]),
                "diff": points(r["diff"]),
                "range": f"{points(r['ci_low'])} to {points(r['ci_high'])}",
                "p": p_text(r["p_adjusted"]),
                "n": int(r["n"]),
                "clear": bool(r["p_adjusted"] < 0.05),
            }
            for r in table.to_dict("records")
        ]
        runs = runs_of(found, "eval", [a, b], "image")
        own = {
            f"runs_{side}": runs_of(found, "eval", [label], "image")
            for side, label in (("a", a), ("b", b))
        }
        out.append(
            {
                "title": f"{name(b)} against {name(a)}",
                "rows": rows,
                "a": name(a),
                "b": name(b),
                "runs": runs,
                **own,
            }
        )
    return out


def same_layers_table(found: Evidence) -> dict[str, Any] | None:
    """Layer sets × (put in, put back, frozen): paired differences of acc@1, see `ranges.effects`;
    None without any.
    """
    shown = effects(found)
    if not shown:
        return None
    parent = name(found.study.parent)
    columns = {
        "graft": f"put into {parent}, against {parent}",
        "revert": f"put back to {parent}, against RL",
        "freeze": "frozen in training, against RL",
    }
    known = {(e.kind, e.layers): e for e in shown}
    sets = list(dict.fromkeys(e.layers for e in shown))
    rows = []
    for layers in sorted(sets):
        cells = []
        for kind in columns:
            e = known.get((kind, layers))
            if e is None:
                cells.append({"text": "–", "range": "not run", "p": "", "runs": ()})
                continue
            cells.append(
                {
                    "text": points(e.diff),
                    "range": f"{points(e.low)} to {points(e.high)}, n = {e.n}",
                    "p": p_text(e.p),
                    "runs": runs_of(found, "eval", [e.against, e.label], "image"),
                }
            )
        rows.append({"layers": layer_spans(list(layers)), "cells": cells})
    return {"columns": list(columns.values()), "rows": rows}


def accounting(found: Evidence) -> list[dict[str, Any]]:
    """One row per run folder: its files, what it was asked, what came back, what failed or was left
    out and why, the command.
    """
    commands = {folder: step.command for step in found.study.steps for folder in step.folders}
    out = []
    for run in found.runs:
        at = folder_of(found, run)
        samples: Any = run.samples
        left = int(samples["ineligible"].notna().sum()) if "ineligible" in samples else 0
        files = [f for f in RUN_FILES if (run.folder / f).exists()]
        files += sorted(f"figures/{f.name}" for f in (run.folder / "figures").glob("*.png"))
        out.append(
            {
                "folder": at,
                "href": quote(at),
                "files": files,
                "verb": run.verb,
                "label": run.label,
                "requested": run.manifest.n_requested,
                "ok": run.manifest.n_ok - left,
                "failed": run.manifest.n_failed,
                "ineligible": left,
                "why": reasons(samples, "error"),
                "why_left": reasons(samples, "ineligible"),
                "seconds": run.manifest.seconds,
                "command": commands.get(at, ""),
                "warnings": run.manifest.warnings,
            }
        )
    return out


def reasons(samples: Any, column: str, most: int = 3) -> list[str]:
    """The most frequent reasons with how often each was given, and how many more there are."""
    counts = samples[column].dropna().value_counts() if column in samples else {}
    listed = [f"{str(why)[:LONGEST]} ({count})" for why, count in list(counts.items())[:most]]
    rest = len(counts) - len(listed)
    return listed + ([f"and {rest} other reasons, see samples.parquet"] if rest else [])


def gallery_counts(found: Evidence) -> dict[str, int]:
    """Totals over all runs: rows asked for, usable, failed, ineligible."""
    rows = accounting(found)
    keys = ("requested", "ok", "failed", "ineligible")
    return {key: sum(int(r[key] or 0) for r in rows) for key in keys}
