"""Freezing beside merging, for the same layers: is RL's change of them necessary, and is it enough
by itself?

Three effects of a layer set R, all paired by prompt: `graft` puts RL's R into the parent (against
the parent); `revert` puts the parent's R back into RL (against RL; in decoder layers only,
everything else is the parent's anyway, see franken/study/hybrids.py); `freeze` is RL trained with R
frozen (against RL). Random sets of as many layers give the band of controls. Drawn over the layers
they act on, on the axis that all figures share.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from franken import stats
from franken.layers import contiguous, thirds
from franken.report import theme as look
from franken.report.figures import plots
from franken.report.verdicts import interval, paired
from franken.runs import RunSet

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

KINDS = {"graft": "put into {parent}", "revert": "put back to {parent}", "freeze": "frozen in RL"}
TINTS = {"graft": "#009E73", "revert": "#0072B2", "freeze": "#D55E00"}  # Okabe and Ito
MARKS = {"graft": "^", "revert": "s", "freeze": "o"}


Band = tuple[float, float, int]


@dataclass(frozen=True)
class Effect:
    """A paired difference of acc@1 that a layer set makes, a share in [-1, 1]; `p` is Holm-adjusted
    within its kind.
    """

    kind: str
    layers: tuple[int, ...]
    label: str  # the model that was evaluated
    against: str
    diff: float
    low: float
    high: float
    p: float
    n: int
    share: float  # acc@1 of the model itself

    @classmethod
    def of(
        cls, kind: str, layers: Sequence[int], label: str, against: str, row: pd.Series, p: float
    ) -> Effect:
        """From a row of `paired`."""
        numbers = (float(row[name]) for name in ("diff", "ci_low", "ci_high"))
        n, share = int(row["n"]), float(row["mean_b"])
        return cls(kind, tuple(layers), label, against, *numbers, p=p, n=n, share=share)

    def __str__(self) -> str:
        return interval({"diff": self.diff, "ci_low": self.low, "ci_high": self.high})


def effects(runset: RunSet) -> list[Effect]:
    """All effects of the layer sets that a study froze or are thirds of the decoder, kind by
    kind.
    """
    study = runset.study
    whole = set(range(study.depth))
    sets = [tuple(range(*bounds)) for bounds in thirds(study.depth).values()]
    sets = list(
        dict.fromkeys([*(s for s in sets if s), *(tuple(sorted(f)) for f in study.frozen.values())])
    )
    hybrids = {
        tuple(sorted(info.layers)): label
        for label, info in study.hybrids.items()
        if not info.control
    }
    arms = {tuple(sorted(layers)): label for label, layers in study.frozen.items()}
    plan = {
        "graft": [(s, hybrids.get(s), study.parent) for s in sets],
        "revert": [(s, hybrids.get(tuple(sorted(whole - set(s)))), "rl") for s in sets],
        "freeze": [(s, arms.get(s), "rl") for s in sets],
    }
    made: list[Effect] = []
    for kind, wanted in plan.items():
        rows = [
            (s, label, other, paired(runset, other, label)) for s, label, other in wanted if label
        ]
        known = [(s, label, other, row) for s, label, other, row in rows if row is not None]
        adjusted = stats.holm([float(row["p"]) for *_, row in known])
        made += [
            Effect.of(kind, s, label, other, row, p)
            for (s, label, other, row), p in zip(known, adjusted, strict=True)
        ]
    return made


def all_hybrids(runset: RunSet) -> list[Effect]:
    """Every hybrid against the parent, random sets (kind `random`) included; Holm over the planned
    ones.
    """
    rows = [
        (label, info, paired(runset, runset.study.parent, label))
        for label, info in runset.study.hybrids.items()
    ]
    known = [(label, info, row) for label, info, row in rows if row is not None]
    planned = [i for i, (_, info, _) in enumerate(known) if not info.control]
    p_values = [float(row["p"]) for *_, row in known]
    for i, p in zip(planned, stats.holm([p_values[i] for i in planned]), strict=True):
        p_values[i] = p
    return [
        Effect.of(
            "random" if info.control else "graft", info.layers, label, runset.study.parent, row, p
        )
        for (label, info, row), p in zip(known, p_values, strict=True)
    ]


def control_bands(shown: Sequence[Effect], sizes: Collection[int] | None = None) -> dict[int, Band]:
    """By size of the layer set: lowest and highest estimate of the random sets, and how many there
    are.
    """
    gains: dict[int, list[float]] = {}
    for effect in shown:
        if effect.kind == "random" and (sizes is None or len(effect.layers) in sizes):
            gains.setdefault(len(effect.layers), []).append(effect.diff)
    return {size: (min(values), max(values), len(values)) for size, values in sorted(gains.items())}


def plot_effects(
    shown: Sequence[Effect],
    *,
    depth: int,
    parent: str,
    whole: float | None = None,
    label: str = "RL",
    bands: Mapping[int, Band] | None = None,
    mode: look.Mode = look.LIGHT,
    ax: Axes,
) -> Axes:
    """Each effect as a bar over its layers at the height of its difference, in points, with its 95
    % interval.

    `whole`: the difference that all of RL makes, dashed; `bands`: of the random sets, see
    `control_bands`.
    """
    plots.layer_axis(ax, depth, mode)
    for number, (size, (low, high, count)) in enumerate((bands or {}).items()):
        ax.axhspan(
            100 * low,
            100 * high,
            facecolor="none" if number else look.CHECKPOINTS["random"],
            alpha=0.4,
            linewidth=0,
            edgecolor=mode.muted,
            hatch="////" if number else None,
            label=f"{count} × {size} random",
            zorder=0,
        )
    ax.axhline(0, color=mode.muted, linewidth=0.8)
    if whole is not None:
        ax.axhline(
            100 * whole, color=look.colour("rl"), linewidth=1.1, linestyle=(0, (4, 3)), label=label
        )
    kinds = list(dict.fromkeys(e.kind for e in shown))
    for kind in kinds:
        own = [e for e in shown if e.kind == kind]
        tint, name = TINTS[kind], KINDS[kind].format(parent=look.name(parent))
        for number, effect in enumerate(own):
            at = _where(
                effect,
                number if len(kinds) == 1 else kinds.index(kind),
                len(own if len(kinds) == 1 else kinds),
            )
            value, low, high = 100 * effect.diff, 100 * effect.low, 100 * effect.high
            spans = contiguous(effect.layers)
            ax.hlines(
                [value] * len(spans),
                [span[0] - 0.42 for span in spans],
                [span[-1] + 0.42 for span in spans],
                color=tint,
                linewidth=2.4,
            )
            ax.hlines(value, spans[0][0], spans[-1][-1], color=tint, linewidth=0.8, linestyle=":")
            ax.vlines(at, low, high, color=tint, linewidth=1.2, alpha=0.75)
            ax.plot(
                [at], [value], MARKS[kind], color=tint, markersize=5, label=None if number else name
            )
    ax.margins(y=0.16)  # room for the names of the thirds
    return ax


def plot_scores(
    table: Any, *, labels: Sequence[str], names: Sequence[str], mode: look.Mode, ax: Axes
) -> Axes:
    """Differences in points with intervals: a row a model, a mark a score. `table`: model, metric,
    diff, ci_low, ci_high.
    """
    offsets = np.linspace(-0.24, 0.24, max(2, len(names)))
    for number, score in enumerate(names):
        tint, marker = look.task_style(score, list(names))
        rows = table[table["metric"] == score].set_index("model")
        own = [label for label in labels if label in rows.index]
        y = [labels.index(label) + offsets[number] for label in own]
        value, low, high = (
            100 * rows.loc[own, c].to_numpy(float) for c in ("diff", "ci_low", "ci_high")
        )
        ax.hlines(y, low, high, color=tint, linewidth=1.3)
        ax.plot(value, y, linestyle="", marker=marker, color=tint, label=score)
    ax.axvline(0, color=mode.muted, linewidth=0.8)
    ax.set_yticks(range(len(labels)), [look.name(label) for label in labels])
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(axis="x", color=mode.grid)
    ax.grid(visible=False, axis="y")
    return ax


def _where(effect: Effect, number: int, of: int) -> float:
    """x of the interval: spread over the widest run of the effect's layers, so that no two stand on
    one place.
    """
    widest = max(contiguous(effect.layers), key=len)
    return widest[0] - 0.3 + (len(widest) - 0.4) * (number + 1) / (of + 1)
