"""The pictures of one `franken diff`: how far each layer moved, what of it, in how many directions.

After the Frankenstein paper: figure 5 (energy by layer) and figure 6 (log σᵢ/σ₁ over layer × rank,
and its lines at fixed ranks). Weights are read whole, so there is no sampling error and no
interval; bands span a layer's attention and MLP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from franken.layers import thirds
from franken.report import theme as look
from franken.report.figures import plots
from franken.runs import LoadedRun, load_run

RANKS = (10, 20, 30, 40)  # of the paper's trend lines
DEEPEST = 50
COMPONENTS = ("attn", "mlp", "norm")
LOW = 1e-7  # singular values below this share of the first were not told from zero
PAGE = "#FFFFFF"
MIDDLE = "#E3E0D8"  # on the band of a part


def draw_diff(folder: Path) -> list[Path]:
    """Draw the figures of a finished run into its `figures/`; those that exist are kept. Returns
    their paths.
    """
    import matplotlib

    matplotlib.use("Agg")
    run = load_run(folder)
    updates = _adjacent(list(dict.fromkeys(run.layers["method"])))
    if not updates:  # no tensor could be compared
        return []
    makers = {
        "energy": lambda: _by_layer(run, updates, ["relative_energy", "energy"]),
        "unchanged": lambda: _by_layer(run, updates, ["unchanged_fraction", "rounding_fraction"]),
        "components": lambda: _components(run, updates),
    }
    decoder = _depth(run) > 0
    if decoder and _any(run, "singular_values"):
        spectra = layer_spectra(run)
        makers["spectrum-surface"] = lambda: _surface(spectra, updates)
        makers["spectra-by-third"] = lambda: _spectra_by_third(run, updates)
        makers["ranks"] = lambda: _by_layer(run, updates, ["effective_rank", "stable_rank"])
    if decoder and _any(run, "left_overlap"):
        makers["subspaces"] = lambda: _subspaces(run)
    drawn = []
    (folder / "figures").mkdir(exist_ok=True)
    for name, make in makers.items():
        path = folder / "figures" / f"{name}.png"
        if not path.exists():
            with look.theme():
                make().savefig(path, dpi=150, facecolor=PAGE)
        drawn.append(path)
    return drawn


def _adjacent(updates: list[str]) -> list[str]:
    """Without base → rl where it is the sum of two others: it would lie on top of the larger one."""
    return [u for u in updates if u != "base→rl"] if len(updates) == 3 else updates


def layer_spectra(run: LoadedRun) -> dict[str, np.ndarray]:
    """By update: log₁₀ σᵢ/σ₁ of the text layers [layer, rank], the mean over a layer's matrices;
    NaN where nothing moved.
    """
    rows: Any = run.samples
    rows = rows[(rows["part"] == "text") & rows["layer"].notna() & rows["singular_values"].notna()]
    found, depth = {}, _depth(run)
    for update, members in rows.groupby("method", sort=False):
        deepest = min(DEEPEST, min(len(s) for s in members["singular_values"]))
        surface = np.full((depth, deepest), np.nan)
        for layer, matrices in members.groupby("layer"):
            surface[int(layer)] = np.mean(
                [log_share(s)[:deepest] for s in matrices["singular_values"]], axis=0
            )
        found[str(update)] = surface
    return found


def _depth(run: LoadedRun) -> int:
    """Number of decoder layers that were compared up to; 0 when none was."""
    layers: Any = run.layers
    return max((int(i) for i in layers[layers["part"] == "text"]["layer"].dropna()), default=-1) + 1


def _any(run: LoadedRun, column: str) -> bool:
    rows: Any = run.samples
    return column in rows and bool(rows[column].notna().any())


def log_share(sigma: Any) -> np.ndarray:
    """log₁₀ σᵢ/σ₁, with what could not be told from zero at the floor."""
    sigma = np.asarray(sigma, float)
    return np.log10(np.maximum(sigma / sigma[0], LOW))


def _figure(
    rows: int, columns: int, width: float = 7.2, height: float = 2.9, **kwargs: Any
) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows))
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def _by_layer(run: LoadedRun, updates: list[str], metrics: list[str]) -> Any:
    figure, axes = _figure(len(metrics), 1, width=9.6)
    for ax, metric in zip(axes[:, 0], metrics, strict=True):
        plots.plot_energy(run.layers, metric=metric, deltas=updates, ax=ax)
        low, high = ax.get_ylim()
        if ax.get_yscale() == "log":  # room for the names of the thirds
            ax.set_ylim(low, high * (high / low) ** 0.12)
        _shade_thirds(ax, run)
    _legend(figure, axes[0, 0])
    return figure


def _legend(figure: Any, ax: Any) -> None:
    """One legend for all panels, above them."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))


def _shade_thirds(ax: Any, run: LoadedRun) -> None:
    """The middle third of the tower and of the decoder, shaded on the axis they share."""
    places = plots.diff_places(plots.number_projector(run.layers))
    for part in ("vision", "text"):
        layers = [layer for (p, layer) in places if p == part]
        if len(layers) >= 3 and len(layers) == max(layers) + 1:
            offset = places[(part, 0)]
            start, stop = thirds(len(layers))["middle"]
            ax.axvspan(
                start - 0.5 + offset, stop - 0.5 + offset, color=MIDDLE, zorder=-4, linewidth=0
            )
            plots.shade_thirds(ax, len(layers), look.LIGHT, offset=offset)


def _components(run: LoadedRun, updates: list[str]) -> Any:
    import seaborn as sns

    rows: Any = run.layers[
        (run.layers["metric"] == "relative_energy") & run.layers["layer"].notna()
    ]
    rows = rows[rows["component"].isin(COMPONENTS) & (rows["value"] > 0)]
    figure, axes = _figure(len(updates), 1, width=10.5, height=1.7)
    places = [place for place in plots.diff_places(run.layers) if place[0] != "projector"]
    step = 1 if len(places) <= 24 else 4
    for ax, update in zip(axes[:, 0], updates, strict=True):
        cells = {
            (r.component, r.part, r.layer): np.log10(r.value)
            for r in rows[rows["method"] == update].itertuples()
        }
        ax.set_title(f"{update}  (blank: did not move)")
        if not cells:
            ax.set_axis_off()
            continue
        table = [
            [cells.get((component, *place), np.nan) for place in places] for component in COMPONENTS
        ]
        sns.heatmap(
            np.array(table),
            ax=ax,
            cmap="mako_r",
            cbar_kws={"label": "log₁₀ ‖Δ‖ / ‖W‖", "pad": 0.01},
            xticklabels=[
                f"{part[0]}{layer}" if layer % step == 0 else "" for part, layer in places
            ],
            yticklabels=COMPONENTS,
        )
        ax.tick_params(axis="y", rotation=0)
    axes[-1, 0].set_xlabel("v: vision layer, t: text layer")
    return figure


def _surface(spectra: dict[str, np.ndarray], updates: list[str]) -> Any:
    """The paper's figure 6: above the surface over layer × rank, below its lines at fixed ranks."""
    from matplotlib.figure import Figure

    shown = [u for u in updates if u in spectra]
    handles: Any = ([], [])
    figure = Figure(figsize=(5.2 * len(shown), 7.6))
    for column, update in enumerate(shown):
        surface = spectra[update]
        layer, rank = np.meshgrid(
            range(surface.shape[0]), np.arange(1, surface.shape[1] + 1), indexing="ij"
        )
        ax: Any = figure.add_subplot(2, len(shown), column + 1, projection="3d")
        ax.plot_surface(
            layer, rank, surface, cmap="mako", linewidth=0, antialiased=True, rcount=60, ccount=60
        )
        ax.set(xlabel="text layer", ylabel="rank i", zlabel="log₁₀ σᵢ / σ₁", title=update)
        ax.view_init(elev=22, azim=-60)
        ax.set_box_aspect((1.5, 1.1, 0.9), zoom=0.95)
        ax.set(xlim=(0, surface.shape[0] - 1), zlim=(np.nanmin(surface), 0))
        lines: Any = figure.add_subplot(2, len(shown), len(shown) + column + 1)
        for number, i in enumerate(r for r in RANKS if r <= surface.shape[1]):
            tint = look.TASK_COLOURS[number]
            lines.plot(
                surface[:, i - 1], color=tint, marker=look.TASK_MARKERS[number], label=f"rank {i}"
            )
        _text_axis(lines, surface.shape[0])
        lines.set_ylabel("log₁₀ σᵢ / σ₁")
        lines.set_ylim(top=0.12 * abs(np.nanmin(surface[:, : max(RANKS)])))
        handles = lines.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower left", ncols=len(RANKS))
    return figure


def _text_axis(ax: Any, depth: int) -> None:
    ax.set_xlim(-0.5, depth - 0.5)
    ax.set_xlabel("text layer")
    plots.shade_thirds(ax, depth, look.LIGHT)


def _spectra_by_third(run: LoadedRun, updates: list[str]) -> Any:
    """The same matrix in early, middle and late layers: comparable, unlike one matrix of each third
    picked by position.
    """
    rows: Any = run.samples
    rows = rows[
        (rows["part"] == "text") & rows["layer"].notna() & rows["singular_values"].notna()
    ].copy()
    rows["matrix"] = rows["tensor"].str.replace(r"^text\.layers\.\d+\.|\.weight$", "", regex=True)
    matrices = sorted(rows["matrix"].unique())
    depth = _depth(run)
    shown = [u for u in updates if (rows["method"] == u).any()]
    figure, axes = _figure(len(matrices), len(shown), width=3.6, height=1.9, sharey=True)
    for line, matrix in zip(axes, matrices, strict=True):
        for ax, update in zip(line, shown, strict=True):
            here = rows[(rows["matrix"] == matrix) & (rows["method"] == update)]
            for number, (third, (start, stop)) in enumerate(thirds(depth).items()):
                members = here[(here["layer"] >= start) & (here["layer"] < stop)]["singular_values"]
                if len(members):
                    curve = np.mean([log_share(s) for s in members], axis=0)
                    ax.plot(
                        np.arange(1, curve.size + 1),
                        curve,
                        color=look.TASK_COLOURS[number],
                        label=third,
                    )
            ax.set_title(f"{matrix}, {update}", fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("i")
    for line in axes:
        line[0].set_ylabel("log₁₀ σᵢ / σ₁")
    _legend(figure, axes[0, 0])
    return figure


def _subspaces(run: LoadedRun) -> Any:
    figure, axes = _figure(1, 2, width=5.6, height=3.2, sharey=True)
    for ax, side in zip(axes[0], ("left", "right"), strict=True):
        layers: Any = run.layers
        rows = layers[
            (layers["part"] == "text") & (layers["component"] == "all") & layers["layer"].notna()
        ]
        for metric, tint, label in (
            (f"{side}_overlap", look.DELTAS["sft→rl"], "SFT's and RL's updates"),
            (f"{side}_overlap_random", look.LIGHT.muted, "random subspaces"),
        ):
            line = rows[(rows["metric"] == metric) & rows["value"].notna()].sort_values("layer")
            ax.plot(line["layer"].to_numpy(int), line["value"], color=tint, marker="o", label=label)
        _text_axis(ax, _depth(run))
        ax.set_ylim(-0.02, 1.08)
        ax.set_title(f"{side} singular subspaces")
    axes[0, 0].set_ylabel("overlap ‖U₁ᵀU₂‖² / k")
    _legend(figure, axes[0, 0])
    return figure
