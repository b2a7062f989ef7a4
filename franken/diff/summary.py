"""A finished diff in words and tables, for the command line: what changed by part, by layer, and
what that means.
"""

from typing import Any

import numpy as np

from franken.diff.principal import MEASURES, OWN
from franken.runs import LoadedRun
from franken.stats import difference, holm, sign_flip_test

ROUNDING = (
    0.9  # above this share of both the changed weights and the energy, an update is called rounding
)
BY_PART = {
    "energy": "‖Δ‖",
    "relative_energy": "‖Δ‖ / ‖W‖",
    "unchanged_fraction": "unchanged",
    "sign_flip_fraction": "sign flips",
    "max_abs": "max |Δ|",
    "delta_cosine": "cosine with the update before",
    "rounding_fraction": "of the changed: one bf16 step",
    "rounding_energy": "their share of ‖Δ‖²",
    "effective_rank": "effective rank",
}
WORDS = {
    "principal_left": "overlap of U_k before and after",
    "principal_right": "overlap of V_k before and after",
    "spectral_shift": "‖σ′ − σ‖ / ‖σ‖",
    "scale_energy": "‖σ′ − σ‖² / ‖Δ‖²",
    "principal_energy": "share of Δ inside U_k, V_k",
}
KEY = ["method", "part", "metric"]
SHARES = ("unchanged_fraction", "sign_flip_fraction", "rounding_fraction", "rounding_energy")
Table = tuple[list[str], list[list[str]]]


def part_table(run: LoadedRun) -> Table:
    """A row per update and part; sums over all its tensors, computed from the rows."""
    from franken.diff.run import part_measures

    measured = part_measures(run.samples)
    shown = [
        name
        for name in BY_PART
        if any(values.get(name) is not None for values in measured.values())
    ]
    body = [
        [*key, *(_cell(name, values.get(name)) for name in shown)]
        for key, values in measured.items()
    ]
    return ["update", "part", *(BY_PART[name] for name in shown)], body


def layer_table(run: LoadedRun) -> Table:
    """A row per layer of every part, a column per update: relative energy and what stayed
    bit-equal.
    """
    rows: Any = run.layers[(run.layers["component"] == "all") & run.layers["layer"].notna()]
    updates = list(dict.fromkeys(rows["method"]))
    cells = rows.set_index(["part", "layer", "method", "metric"])["value"]
    body = []
    for part, layer in dict.fromkeys(zip(rows["part"], rows["layer"], strict=True)):
        values = [
            f"{_cell('relative_energy', cells[part, layer, update, 'relative_energy'])}"
            f" ({_cell('unchanged_fraction', cells[part, layer, update, 'unchanged_fraction'])})"
            for update in updates
        ]
        body.append([part, str(layer), *values])
    return ["part", "layer", *(f"{update}: ‖Δ‖ / ‖W‖ (unchanged)" for update in updates)], body


def principal_table(run: LoadedRun) -> Table:
    """A row per update, part and measure of `franken.diff.principal`: its mean over layers, those
    of a random Δ and of SFT's with the differences to them, 95 % intervals and p.

    The unit is the layer, the mean of its matrices, since matrices of one layer are alike. p is of
    sign flips, after Holm over the table; parts of one layer have none.
    """
    rows: Any = run.layers[(run.layers["component"] == "all") & run.layers["layer"].notna()]
    rows = rows[rows["metric"].isin(MEASURES) & rows["value"].notna()]
    cells = {key: group.set_index("layer")["value"] for key, group in rows.groupby(KEY, sort=False)}
    told, tests = [], []
    for update, part in dict.fromkeys((method, part) for method, part, _ in cells):
        for name in OWN:
            own = cells.get((update, part, name))
            if own is None:
                continue
            line, beside = [f"{own.mean():.4g}"], []
            for null in ("random", "sft"):
                other = cells.get((update, part, f"{name}_{null}"))
                line.append("-" if other is None else f"{other.mean():.4g}")
                pairs = None if other is None else np.array([other, own[other.index]], float)
                beside.append(pairs)
            tests += [
                None if p is None or p.shape[1] < 2 else sign_flip_test(p[1] - p[0]) for p in beside
            ]
            told.append((update, part, name, line, beside, len(own)))
    adjusted = iter(holm(tests))
    body = []
    for update, part, name, line, beside, n in told:
        against = [_against(pairs, next(adjusted)) for pairs in beside]
        body.append(
            [update, part, WORDS[name], line[0], line[1], against[0], line[2], against[1], str(n)]
        )
    header = ["update", "part", "measure", "Δ", "random Δ", "Δ − random [95 %], p"]
    return [*header, "SFT's Δ", "Δ − SFT's [95 %], p", "layers"], body


def _against(pairs: np.ndarray | None, p: float) -> str:
    if pairs is None:
        return "-"
    found = difference(*pairs)
    value = f"{found.value:+.2g}"
    return value if p != p else f"{value} [{found.low:+.2g} {found.high:+.2g}], {p:.2g}"


def mixture_table(run: LoadedRun) -> Table:
    """A row per update and layer with experts: how far router and experts moved, and which most."""
    body = [
        [
            drift.method,
            str(drift.layer),
            _cell("relative_energy", drift.router),
            _cell("relative_energy", drift.median),
            _cell("relative_energy", drift.least),
            _cell("relative_energy", drift.largest),
            "-" if drift.expert is None else str(drift.expert),
            "-" if drift.share is None else f"{drift.share:.1%}",
            f"{drift.unmoved} of {drift.experts}",
        ]
        for drift in run.manifest.mixtures
    ]
    head = ["update", "layer", "router ‖Δ‖ / ‖W‖", "experts: median", "least", "largest"]
    return [*head, "which", "its share of ‖Δ‖²", "unmoved"], body


def sentences(run: LoadedRun) -> list[str]:
    """Where each update is, and whether it is more than rounding."""
    from franken.diff.run import part_measures

    said = []
    for where in run.manifest.location:
        test = where.test
        if test:
            said.append(
                f"{where.method}, {where.part}: the middle and late layers hold {test.share:.1%} "
                f"of ‖Δ‖²; {test.expected:.1%} would be their share (n = {test.n} layers, p = "
                f"{test.p:.2g} if layers are exchangeable, {test.p_shift:.2g} by circular shifts)"
            )
    said += _mixtures(run)
    for (update, part), values in part_measures(run.samples).items():
        if values["left_overlap"] is not None:
            said.append(
                f"{update}, {part}: its leading directions overlap with those of the update "
                f"before by {values['left_overlap']:.3g} on the left (chance: "
                f"{values['left_overlap_random']:.3g}) and {values['right_overlap']:.3g} on the "
                f"right ({values['right_overlap_random']:.3g}), the mean over its matrices"
            )
        fraction, energy = values["rounding_fraction"], values["rounding_energy"]
        if fraction is not None and energy is not None and min(fraction, energy) >= ROUNDING:
            said.append(
                f"{update}, {part}: made of rounding: {fraction:.1%} of the changed weights moved "
                f"by one bf16 step, and that is {energy:.1%} of ‖Δ‖²"
            )
    return said


def _mixtures(run: LoadedRun) -> list[str]:
    """Of every update the expert that moved most beyond its share, and the router that moved
    most.
    """
    said = []
    for update in dict.fromkeys(drift.method for drift in run.manifest.mixtures):
        moved = [d for d in run.manifest.mixtures if d.method == update and d.share is not None]
        if not moved:
            said.append(f"{update}: no expert moved")
            continue
        most = max(moved, key=lambda d: (d.share or 0) * d.experts)
        said.append(
            f"{update}: expert {most.expert} of layer {most.layer} moved most, {most.share:.1%} of "
            f"‖Δ‖² of that layer's experts; {1 / most.experts:.1%} would be its share"
        )
        routers = [d for d in run.manifest.mixtures if d.method == update and d.router]
        if routers:
            far = max(routers, key=lambda d: d.router or 0)
            said.append(
                f"{update}: the router moved most in layer {far.layer}, "
                f"‖Δ‖ / ‖W‖ = {far.router:.3g}"
            )
        else:
            said.append(f"{update}: no router moved")
    return said


def _cell(metric: str, value: float | None) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.1%}" if metric in SHARES else f"{value:.3g}"
