"""The figure of a freeze study: freezing, reverting and grafting the same layers, one row a layer
set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from franken.report import theme as look

KINDS = {
    "freeze": ("D55E00", "o", "RL with them frozen"),
    "revert": ("0072B2", "s", "RL, them put back"),
}
GRAFT = ("009E73", "^", "start, with RL's")


def draw_freezing(summary: Any, file: Path, metric: str = "acc@1") -> Path:
    """Two panels over the layer sets: what is lost against plain RL, and what RL's layers give the
    start.

    `summary`: the table of `trainer.freeze_study.run_freeze_study`. x in points with 95 %
    intervals; random sets are grey.
    """
    from matplotlib.figure import Figure

    rows = summary[(summary["metric"] == metric) & (summary["kind"] != "")]
    order = list(dict.fromkeys(rows["arm"]))
    whole = summary[(summary["metric"] == metric) & (summary["arm"] == "none")].iloc[0]
    with look.theme():
        figure = Figure(
            figsize=(9.5, 1.6 + 0.42 * len(order)), facecolor="white", layout="constrained"
        )
        lost, gained = figure.subplots(1, 2, sharey=True)
        for shift, (kind, (tint, marker, label)) in zip((-0.12, 0.12), KINDS.items(), strict=True):
            _points(
                lost,
                rows[rows["kind"] == kind],
                order,
                "minus_none",
                f"#{tint}",
                marker,
                label,
                shift,
            )
        _points(
            gained,
            rows[rows["kind"] == "graft"],
            order,
            "minus_start",
            f"#{GRAFT[0]}",
            GRAFT[1],
            GRAFT[2],
            0,
        )
        gained.axvline(
            100 * whole["minus_start"],
            color=look.colour("rl"),
            linestyle=(0, (4, 3)),
            label="plain RL",
        )
        for ax, title in (
            (lost, "Was the change of these layers necessary?"),
            (gained, "Is it enough alone?"),
        ):
            ax.axvline(0, color=look.LIGHT.muted, linewidth=0.8)
            ax.set_title(title)
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, fontsize=8)
        lost.set_xlabel(f"{metric} minus plain RL, points")
        gained.set_xlabel(f"{metric} minus the start, points")
        layers = rows.drop_duplicates("arm").set_index("arm")["layers"]
        lost.set_yticks(
            range(len(order)), [f"{arm}\n{layers[arm].replace('text:', '')}" for arm in order]
        )
        lost.invert_yaxis()
        figure.suptitle(
            f"{int(whole['seeds'])} seeds, {int(whole['n'])} puzzles; 95 % intervals over both, paired",
            fontsize=9,
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=160)
    return file


def _points(
    ax: Any,
    rows: Any,
    order: list[str],
    column: str,
    tint: str,
    marker: str,
    label: str,
    shift: float,
) -> None:
    for control in (False, True):
        mine = rows[rows["control"] == control]
        if mine.empty:
            continue
        at = [order.index(arm) + shift for arm in mine["arm"]]
        value, low, high = (
            100 * mine[f"{column}{end}"].to_numpy(float) for end in ("", "_low", "_high")
        )
        ax.errorbar(
            value,
            at,
            xerr=[value - low, high - value],
            linestyle="",
            marker=marker,
            markersize=5,
            capsize=2,
            color=tint,
            alpha=0.45 if control else 1,
            label=None if control else label,
        )
