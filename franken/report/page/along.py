"""The page's group on trajectories: how training went from its start to its end, over updates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from franken.diff.along_summary import shown_runs, values_of
from franken.report.behaviour import behaviour
from franken.report.figures import along
from franken.report.page.panels import Group, Panel
from franken.report.sources import folder_of
from franken.runs import LoadedRun, RunSet

READING = (
    "Every kept checkpoint of a training run, as a path from its start. Straightness is the "
    "distance from start to end over the length of the way; the rank-1 share is how much of all "
    "checkpoints' updates lies in one direction; the coefficient is how far along it each of them "
    "is. Dashed: a walk whose steps are as long as these and have nothing in common."
)


def trajectories(runset: RunSet) -> list[Group]:
    """A group for every trajectory of the page's model."""
    return [_group(runset, run) for run in runset.of("trajectory") if len(run.layers)]


def _group(runset: RunSet, run: LoadedRun) -> Group:
    key = f"along-{run.folder.name}"
    known = behaviour(run, runset)
    plots: list[tuple[str, str, Callable[..., object]]] = [
        ("distance", "Distance from the start", partial(along.plot_distance, run)),
        ("coefficient", "Along the first direction", partial(along.plot_coefficient, run)),
    ]
    if len(known):
        plots.append(("acc", "What it answers right", partial(along.plot_behaviour, run, known)))
    if known["metric"].isin(["diversity", "fork_share"]).any():
        other = partial(along.plot_other_behaviour, run, known)
        plots.append(("diversity", "Diversity and forks", other))
    for metric, title in (
        ("straightness", "Straightness"),
        ("rank_one_share", "Rank-1 share"),
        ("half_change", "Half of the change"),
    ):
        label = "by update" if metric == "half_change" else title.lower()
        plots.append((metric, f"{title} by layer", partial(along.plot_layers, run, metric, label)))
    panels = [
        Panel(f"{key}-{name}", title, f"{title}: {', '.join(shown_runs(run))}", plot)
        for name, title, plot in plots
    ]
    runs = (folder_of(runset, run),)
    counts = ", ".join(f"{len(r.updates)} of {r.run}" for r in run.manifest.trajectories)
    title = "The way there"
    return Group(key, title, READING, panels, _finding(run), f"checkpoints: {counts}", runs)


def _finding(run: LoadedRun) -> str:
    """The first run in a sentence, its null beside it."""
    name = shown_runs(run)[0]
    values = values_of(run.layers, name)
    if "straightness" not in values:
        return ""
    share, walk = values["rank_one_share"], values["rank_one_share_null"]
    return (
        f"{name}: straightness {values['straightness']:.2f} (a walk without direction: "
        f"{values['straightness_null']:.2f}); one direction holds {100 * share:.0f} % of all its "
        f"updates (the walk: {100 * walk:.0f} %)"
    )
