"""A finished diff in words and tables, for the command line: what changed by part, by layer, and
what that means.
"""

from typing import Any

from franken.runs import LoadedRun

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


def _cell(metric: str, value: float | None) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.1%}" if metric in SHARES else f"{value:.3g}"
