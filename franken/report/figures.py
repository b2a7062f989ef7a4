"""Which figures the page shows, in what order, and how to read each. Drawing itself is in `plots`.

A Panel is one small figure that stays legible on a phone; a Group is a row of panels with one sentence on how to read
them; a Section answers one question. Panels are drawn twice, for a light and for a dark page, so they are functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from franken.report import plots
from franken.report import theme as look
from franken.report.evidence import Evidence
from franken.report.headlines import paired, percent, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL = (4.2, 2.95)  # inches


@dataclass(frozen=True)
class Panel:
    """A figure: `draw(mode)` makes it, `title` is the HTML line above it, `alt` what a screen reader says."""

    key: str
    title: str
    alt: str
    draw: Callable[[look.Mode], Figure]


@dataclass(frozen=True)
class Group:
    """Panels that are read together."""

    title: str
    reading: str
    panels: list[Panel]
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A question's figures; `note` stands where there is nothing to draw."""

    key: str
    title: str
    lead: str
    groups: list[Group] = field(default_factory=list)
    note: str = ""


def sections(found: Evidence) -> list[Section]:
    """All sections of a page, those without runs with a note instead of figures."""
    return [where(found), what(found), transfer(found), necessary(found), how_good(found)]


def where(found: Evidence) -> Section:
    """Swap curves and zero ablation."""
    rows = found.layers("probe")
    lead = (
        "Swap the image's keys and values for another image's, in some layers only, and see whether the answer moves."
    )
    if len(rows) == 0:
        return Section("where", "Where it sees, where it reasons", lead, note="No probe was run.")
    models = [m for m in found.study.stages if m in set(rows["model"])]
    tasks = [t for t in found.study.tasks if t in set(rows["task"])] or plots.task_names(rows)

    def swaps(method: str, metric: str, tag: str) -> list[Panel]:
        return [
            Panel(
                f"{tag}-{m}", look.name(m), f"{tag} curves of {look.name(m)} by layer, one line per task",
                _small(lambda ax, mode, m=m: plots.plot_swap(
                    rows, model=m, method=method, metric=metric, tasks=tasks, mode=mode, ax=ax)),
            )
            for m in models
        ]  # fmt: skip

    groups = [
        Group(
            "Swapped from this layer up",
            "Each point: the share of answers that change when the source image's visual tokens replace the target's "
            "in this layer and all above it. Where a line falls, the model has finished reading the image for that "
            "task. Bands are 95 % Wilson intervals.",
            swaps("swap-suffix", "change_rate", "swap-suffix"),
        ),
        Group(
            "Turned into the source's answer",
            "The same swaps, counting only answers that become exactly what the model says about the source image: a "
            "swap that merely breaks the model does not count here.",
            swaps("swap-suffix", "flip_to_source_rate", "flip-to-source"),
        ),
        Group(
            "Swapped in this layer alone",
            "One layer at a time. High points are layers that matter by themselves; low lines mean that the image is "
            "read redundantly.",
            swaps("swap-single", "change_rate", "swap-single"),
        ),
        Group(
            "Without this layer",
            "Each decoder layer is skipped (replaced by the identity) and the questions are asked again.",
            [
                Panel(
                    "zero", "Accuracy lost, mean over tasks", "accuracy lost by skipping each layer, per checkpoint",
                    _small(lambda ax, mode: plots.plot_zero(rows, models=models, mode=mode, ax=ax)),
                ),
                *[
                    Panel(
                        f"zero-{t}", t, f"accuracy lost on {t} by skipping each layer, per checkpoint",
                        _small(lambda ax, mode, t=t: plots.plot_zero(rows, models=models, task=t, mode=mode, ax=ax)),
                    )
                    for t in tasks
                ],
            ],
        ),
    ]  # fmt: skip
    return Section("where", "Where it sees, where it reasons", lead, groups)


def what(found: Evidence) -> Section:
    """Energies and spectra of the updates."""
    rows = found.layers("diff")
    lead = "Subtract the weights of consecutive checkpoints, tensor by tensor."
    if len(rows) == 0:
        return Section("what", "What training changed", lead, note="The parameters were not compared.")
    deltas = ["base→sft", "sft→rl"] if "sft" in found.study.models else ["base→rl"]

    def panel(metric: str, title: str) -> Panel:
        return Panel(
            f"diff-{metric}", title, f"{title} by layer of vision, projector and text, per update",
            _small(lambda ax, mode: plots.plot_energy(rows, metric=metric, deltas=deltas, mode=mode, ax=ax)),
        )  # fmt: skip

    reading = (
        "Vision, projector and text stand side by side on one axis. Lines are whole layers; bands span the layer's "
        "attention and MLP. Weights are read completely, so there is no sampling error. A part that did not move (frozen "
        "in training) has no line on the logarithmic axis."
    )
    group = Group(
        "Size and shape of the updates", reading,
        [
            panel("relative_energy", "Relative energy ‖Δ‖ / ‖W‖"),
            panel("unchanged_fraction", "Elements left unchanged"),
            panel("effective_rank", "Effective rank of the update"),
        ],
    )  # fmt: skip
    return Section("what", "What training changed", lead, [group])


def transfer(found: Evidence) -> Section:
    """Hybrids beside the parent, RL and random controls."""
    study, rows = found.study, found.layers("eval")
    have = set(rows["model"]) if len(rows) else set()
    hybrids = [h for h, i in study.hybrids.items() if h in have and not i.get("control")]
    randoms = [h for h, i in study.hybrids.items() if h in have and i.get("control")]
    parent = study.parent
    lead = f"Put RL's layers into {look.name(parent)}, third by third, without any training, and ask again."
    if not hybrids:
        return Section("transfer", "Does the change transfer?", lead, note="No hybrid was evaluated.")
    labels = [parent, *hybrids, *randoms, "rl"]
    height = 0.27 * len(labels) + 0.8
    wide = [m for m in ("acc@4", "acc@8") if m in set(rows["metric"])][:1]
    limits = _limits(rows, labels, ["acc@1", *wide])

    def points_panel(metric: str) -> Panel:
        return Panel(
            f"hybrids-{metric}", f"{metric} of every hybrid",
            f"{metric} of the hybrids beside {parent}, RL and random layer sets",
            _small(lambda ax, mode: plots.plot_points(
                rows, labels=labels, metric=metric, reference=(parent, "rl"), limits=limits, mode=mode, ax=ax),
                size=(4.2, height)),
        )  # fmt: skip

    reading = (
        f"The name gives early:middle:late thirds. Dashed lines and their bands: {look.name(parent)} and RL. "
        f"Everything but the decoder layers (embeddings, vision, head) is {look.name(parent)}'s. Grey: as many layers "
        "drawn at random. Bars are 95 % bootstrap intervals over prompts."
    )
    groups = [Group("Hybrids", reading, [points_panel("acc@1"), *[points_panel(m) for m in wide]])]
    return Section("transfer", "Does the change transfer?", lead, groups)


def necessary(found: Evidence) -> Section:
    """Freeze arms beside RL and its parent."""
    study, rows = found.study, found.layers("eval")
    have = set(rows["model"]) if len(rows) else set()
    arms = [a for a in study.frozen if a in have]
    lead = "Repeat the RL run with a third of the decoder frozen, all else equal."
    if not arms:
        return Section("necessary", "Was it necessary?", lead, note="No freeze run was given.")
    labels = [study.parent, *(["control"] if "control" in have else []), *arms, "rl"]
    metrics = ["acc@1", *[m for m in ("acc@4", "acc@8") if m in set(rows["metric"])][:1]]
    limits = _limits(rows, labels, metrics)

    def panel(metric: str) -> Panel:
        return Panel(
            f"freeze-{metric}", f"{metric} after RL with layers frozen", f"{metric} of the freeze arms beside RL",
            _small(lambda ax, mode: plots.plot_points(
                rows, labels=labels, metric=metric, reference=(study.parent, "rl"), limits=limits, mode=mode, ax=ax),
                size=(4.2, 0.3 * len(labels) + 0.8)),
        )  # fmt: skip

    reading = (
        "If freezing a third costs the gain, the arm falls back to where RL started from; if not, it stays with RL. "
        "Bars are 95 % bootstrap intervals over prompts."
    )
    return Section("necessary", "Was it necessary?", lead, [Group("Freeze arms", reading, [panel(m) for m in metrics])])


def how_good(found: Evidence) -> Section:
    """acc@k per task and pooled, and the arms."""
    study, rows = found.study, found.layers("eval")
    lead = "More tries, fewer strategies: what RL gains at one sample it may lose at several."
    if len(rows) == 0:
        return Section("good", "How good, how varied", lead, note="Nothing was evaluated.")
    models = [m for m in (*study.stages, "control") if m in set(rows["model"])]
    tasks = [t for t in plots.task_names(rows) if t in set(rows["task"])]

    def curve(task: str) -> Panel:
        title = "All tasks" if task == "all" else task
        return Panel(
            f"acck-{task}", title, f"acc@k on {title} per checkpoint",
            _small(lambda ax, mode: plots.plot_acc_at_k(rows, models=models, task=task, mode=mode, ax=ax)),
        )  # fmt: skip

    groups = [
        Group(
            "acc@k",
            "The chance that at least one of k samples is right (unbiased, temperature 1). Lines that cross: the "
            "parent finds more answers when it may try more often. Bands are 95 % bootstrap intervals over prompts.",
            [curve(t) for t in ("all", *tasks)],
        )
    ]  # fmt: skip
    seen = [m for m in study.stages if len(rows[(rows["model"] == m) & (rows["method"] != "image")])]
    if seen:
        groups.append(Group(
            "Perception or reasoning",
            "The same questions with the image, with the puzzle's exact description instead, and with neither. What is "
            "right with nothing to look at is guessing.",
            [
                Panel(
                    f"arms-{t}", "All tasks" if t == "all" else t, f"accuracy per arm on {t}, per checkpoint",
                    _small(lambda ax, mode, t=t: plots.plot_arms(rows, models=seen, task=t, mode=mode, ax=ax)),
                )
                for t in ("all", *tasks)
            ],
        ))  # fmt: skip
    return Section("good", "How good, how varied", lead, groups)


def spine(found: Evidence) -> Panel | None:
    """Everything about a layer above that layer: swaps, skips, energy, hybrids and freezing on one x axis."""
    study = found.study
    probe, diff = found.layers("probe"), found.layers("diff")
    ranges = {mode.name: _range_rows(found, mode) for mode in look.MODES}
    if len(probe) == 0 and len(diff) == 0:
        return None

    def draw(mode: look.Mode) -> Figure:
        from matplotlib.figure import Figure

        bars = ranges[mode.name]
        heights = [1.5, 1.5, 1.5, max(0.8, 0.24 * len(bars))]
        figure = Figure(figsize=(5.4, sum(heights) + 1.3))
        axes = figure.subplots(4, 1, gridspec_kw={"height_ratios": heights}, sharex=True)
        models = [m for m in study.stages if m in set(probe["model"])] if len(probe) else []
        swap = probe[(probe["method"] == "swap-suffix") & (probe["metric"] == "change_rate")]
        for m in models:
            plots.draw_line(axes[0], plots.pool_tasks(swap[swap["model"] == m]), look.colour(m), look.name(m))
        if models:
            plots.shade_thirds(axes[0], study.depth, mode)
        plots.percent_axis(axes[0], headroom=True)
        axes[0].set_ylabel("answers changed\nby a swap from here, %", fontsize=8)
        plots.legend(axes[0])
        plots.plot_zero(probe, models=models, mode=mode, ax=axes[1])
        axes[1].set_ylabel("accuracy lost\nwithout it, points", fontsize=8)
        text = diff[(diff["part"] == "text") & diff["layer"].notna()] if len(diff) else diff
        plots.plot_update(text, delta=study.delta, mode=mode, ax=axes[2])
        axes[2].set_ylabel("moved by RL\n‖Δ‖ / ‖W‖, %", fontsize=8)
        plots.plot_ranges(bars, depth=study.depth, mode=mode, ax=axes[3])
        for ax in axes[:3]:
            ax.set_xlabel("")
        return figure

    return Panel("spine", "One axis: the layers", "Swaps, ablations, updates, hybrids and freezing per layer", draw)


def _limits(rows: Any, labels: list[str], metrics: list[str]) -> tuple[float, float]:
    """One x range, in percent, for the panels of several metrics, so that widths can be compared."""
    shown = rows[rows["model"].isin(labels) & rows["metric"].isin(metrics) & (rows["method"] == "image")]
    shown = shown[shown["task"] == "all"]
    low, high = 100 * float(shown["ci_low"].min()), 100 * float(shown["ci_high"].max())
    return low - 0.04 * (high - low), min(100.5, high + 0.04 * (high - low))


def _range_rows(found: Evidence, mode: look.Mode) -> list[dict[str, Any]]:
    study, rows = found.study, []
    for label, info in study.hybrids.items():
        row = None if info.get("control") else paired(found, study.parent, label)
        if row is not None:
            text = f"{percent(row['mean_b'])}  ({points(row['diff'])})"
            rows.append({"label": label, "layers": set(info["layers"]), "colour": look.colour("rl"), "text": text})
    for label, layers in study.frozen.items():
        row = paired(found, study.parent, label)
        if row is not None:
            free = set(range(study.depth)) - set(layers)
            text = f"{percent(row['mean_b'])}  ({points(row['diff'])})"
            rows.append({"label": look.name(label), "layers": free, "colour": look.colour(label), "text": text})
    return rows


def _small(draw: Callable[[Axes, look.Mode], Any], size: tuple[float, float] = SMALL) -> Callable[[look.Mode], Figure]:
    def make(mode: look.Mode) -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=size)
        ax = figure.add_subplot()
        draw(ax, mode)
        plots.legend(ax)
        return figure

    return make
