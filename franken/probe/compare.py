"""Two checkpoints under the same probe: what differs, layer by layer, paired by sample (the
Frankenstein paper's figure 3).

The two runs asked the same questions about the same images; the difference of each sample's values,
second − first, is averaged with a paired bootstrap interval and tested by sign flips, Holm over the
layers (and heads) of one method, task and metric. What either run could not measure is kept as a
row that says why, and left out of the means.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from franken.errors import UsageError
from franken.probe.measures import OWN
from franken.probe.site_summary import GROUPS, mean_row
from franken.runs import LoadedRun, load_run, open_run
from franken.stats import holm, sign_flip_test

Row = Mapping[str, Any]
Key = tuple[str, str, int]
MEASURED = {  # by the method's first word: metric → how a row has it
    "swap": {
        "change_rate": lambda r: float(r["changed"]),
        "task_change_rate": lambda r: (
            None if r.get("task_changed") is None else float(r["task_changed"])
        ),
        "flip_to_source_rate": lambda r: float(r["to_source"]),
        "kl": lambda r: r.get("kl"),
    },
    "attention": {
        "attention_mass": lambda r: r["mass"],
        "attention_per_pair": lambda r: r["mass"] / r["n_vision"],
    },
    "lens": {"answer_probability": lambda r: r["p_gold"], "entropy": lambda r: r["entropy"]},
}
MEASURED |= dict.fromkeys(
    ("zero", "mean", "noise"),
    {"accuracy_drop": lambda r: float(r["baseline_score"]) - float(r["score"])},
)


def compare_probes(first: Path, second: Path, *, out: Path) -> Path:
    """The paired differences of two finished probe runs, as a run of its own. Returns its folder.

    Raises UsageError when they share no sample, or one sample asks different questions.
    """
    a, b = load_run(first), load_run(second)
    names = [run.label for run in (a, b)]
    label = "→".join(names if names[0] != names[1] else [first.name, second.name])
    identity = {"runs": [run.manifest.identity.stored() for run in (a, b)]}
    run = open_run(
        "probe-compare",
        label,
        identity,
        out,
        config=identity,
        models=dict(zip("ab", names, strict=True)),
    )
    if run.is_complete():
        return run.folder
    rows = list(_pairs(a, b))
    if not any(row["metric"] for row in rows):
        raise UsageError(
            "nothing to compare",
            why="the runs share no sample that both measured",
            fix="probe both alike",
        )
    run.append(rows)
    return run.finish(
        difference_rows(label, rows),
        n_requested=len(rows),
        extra={"compared": [str(first), str(second)]},
    )


def difference_rows(model: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The summary: mean difference per method, task, metric, component and layer, with interval and
    adjusted p.
    """
    cells: dict[tuple[str, str, str, str], dict[int, list[float]]] = {}
    for row in rows:
        if row["error"] is None and row["ineligible"] is None:
            key = row["method"], row["task"], row["metric"], row["component"]
            cells.setdefault(key, {}).setdefault(row["layer"], []).append(
                row["second"] - row["first"]
            )
    families: dict[tuple[str, ...], list[tuple[dict[str, Any], float]]] = {}
    for (method, task, metric, component), layers in cells.items():
        head = {"model": model, "method": method, "part": "text", "task": task}
        for layer, values in sorted(layers.items()):
            found = mean_row(head, layer, f"{metric}_difference", values, component)
            kind = component.partition("head")[0]
            families.setdefault((method, task, metric, kind), []).append(
                (found, sign_flip_test(values))
            )
    return [
        row | {"p_adjusted": p}
        for members in families.values()
        for (row, _), p in zip(members, holm([p for _, p in members]), strict=True)
    ]


def _pairs(a: LoadedRun, b: LoadedRun) -> Iterator[dict[str, Any]]:
    ours, theirs = ({_key(r): r for r in _records(run)} for run in (a, b))
    for key in dict.fromkeys([*ours, *theirs]):
        one, two = ours.get(key), theirs.get(key)
        known = one or two or {}
        head = {
            "method": key[0],
            "sample": key[1],
            "layer": key[2],
            "task": known["task"],
            "question": known["question"],
        }
        blank = {
            "metric": None,
            "component": None,
            "first": None,
            "second": None,
            "ineligible": None,
            "error": None,
        }
        if one is None or two is None:
            yield (
                head | blank | {"error": f"only in the {'second' if one is None else 'first'} run"}
            )
            continue
        if one["question"] != two["question"]:
            raise UsageError(
                f"{key[1]} is not the same question in both runs",
                why="the runs used different data",
            )
        error, why_not = one["error"] or two["error"], one["ineligible"] or two["ineligible"]
        if error or why_not:
            yield head | blank | {"error": error, "ineligible": why_not}
            continue
        after = dict(_values(two))
        for place, value in _values(one):
            if place in after:
                metric, component = place
                yield (
                    head
                    | blank
                    | {
                        "metric": metric,
                        "component": component,
                        "first": value,
                        "second": after[place],
                    }
                )


def _values(row: Row) -> Iterator[tuple[tuple[str, str], float]]:
    """((metric, component), value) of everything that one row measured."""
    method = str(row["method"])
    for metric, read in MEASURED.get(method.split("-")[0], {}).items():
        if (value := read(row)) is not None:
            yield (metric, "all"), value
    for name, value in row.items():
        if name.startswith(OWN) and value is not None:
            yield (name.removeprefix(OWN), "all"), float(value)
    if method == "attention":
        for number, mass in enumerate(row["head_mass"]):
            yield ("attention_mass", f"head {number}"), float(mass)
    if method.startswith("patch-"):
        metric = "lost" if method.endswith("-noising") else "restored"
        for group in (*GROUPS, "all"):
            if (value := row.get(f"effect_{group}")) is not None:
                yield (metric, group), value
            for number, value in enumerate(_listed(row.get(f"heads_{group}"))):
                yield (metric, f"{group}, head {number}"), float(value)


def _listed(value: Any) -> list[float]:
    return [] if value is None else list(value)


def _records(run: LoadedRun) -> list[dict[str, Any]]:
    table: Any = run.samples.astype(object)
    return table.where(table.notna(), None).to_dict("records")


def _key(row: Row) -> Key:
    return str(row["method"]), str(row["sample"]), int(row["layer"])
