"""One sentence on top of each probe figure: what was found, from the same rows that are drawn.

A peak is the set of layers whose 95 % interval overlaps the best layer's.
"""

from __future__ import annotations

from typing import Any

from franken.layers import spelled
from franken.report.figures import plots

METRICS = {
    "attention_mass": "Attention to the image",
    "change_rate": "Answers changed",
    "flip_to_source_rate": "Answers turned into the source's",
    "accuracy_drop": "Accuracy lost",
    "answer_probability": "Probability of the answer",
    "entropy": "Entropy, nats",
}


def peak(rows: Any) -> list[int]:
    """The layers whose interval overlaps that of the layer with the highest value. Empty without
    rows.
    """
    if not len(rows):
        return []
    best = rows.loc[rows["value"].astype(float).idxmax()]
    return sorted(int(i) for i in rows[rows["ci_high"] >= best["ci_low"]]["layer"])


def layers_of(found: list[int]) -> str:
    """`layer 3` or `layers 3..5`."""
    return f"{'layer' if len(found) == 1 else 'layers'} {spelled(found)}"


def of_swaps(rows: Any) -> str:
    """How deep the image is read out, per task, where suffix swaps were made."""
    falls = rows[(rows["metric"] == "fall_layer") & rows["value"].notna()].sort_values("value")
    if not len(falls):
        return "Answers that change when layers see another image"
    listed = ", ".join(f"{r.task} {r.value:.1f}" for r in falls.itertuples())
    return f"Answers follow the image through this many layers, mean per task: {listed}"


def of_ablation(rows: Any) -> str:
    """The layers that cost most in the first ablation drawn, over all tasks."""
    rows = rows[rows["method"] == rows["method"].iloc[0]]
    pooled = plots.pool_tasks(rows)
    found = peak(pooled)
    if not found:
        return "Accuracy lost without a layer"
    return f"{layers_of(found).capitalize()} {'costs' if len(found) == 1 else 'cost'} most: {100 * pooled['value'].max():.0f} points"


def of_attention(rows: Any) -> str:
    """Where replies look at the image most."""
    pooled = plots.pool_tasks(rows)
    top = 100 * float(pooled["value"].max())
    return f"What the model writes looks at the image most in {layers_of(peak(pooled))}: {top:.0f} % of its attention"


def of_patching(rows: Any, method: str) -> str:
    """What is patched, and from which layer the last token carries more than the image's tokens,
    over all tasks.
    """
    site, _, direction = method.removeprefix("patch-").partition("-")
    what = {"residual": "residual stream", "attn": "attention outputs", "mlp": "MLP outputs"}[site]
    verb = "lost to the corrupt" if direction else "restored by the clean"
    text = f"Share of the logit difference {verb} {what}"
    if rows["metric"].iloc[0].endswith("_difference"):
        return f"Change in the {text[0].lower()}{text[1:]}"
    pooled = rows.groupby(["component", "layer"])["value"].mean()
    if site != "residual" or not {"image", "last"} <= set(rows["component"]):
        return text
    over = [
        int(layer) for layer, x in pooled["last"].items() if x > pooled["image"].get(layer, 1.0)
    ]
    return f"{text}: it has left the image for the last token by layer {over[0]}" if over else text


def of_patched_heads(rows: Any, method: str) -> str:
    """The head that carries most, over all tasks."""
    verb = "lose" if method.endswith("-noising") else "restore"
    if rows["metric"].iloc[0].endswith("_difference"):
        return f"Change in the share of the logit difference that single heads {verb}"
    heads = rows[~rows["component"].str.startswith("all")]
    pooled = heads.groupby(["component", "layer"])["value"].mean()
    if not len(pooled):
        return f"Share of the logit difference that single heads {verb}"
    (component, layer), share = pooled.idxmax(), float(pooled.max())
    group, _, head = component.partition(", ")
    return f"Share of the logit difference that single heads {verb}; most: layer {int(layer)}, {head}, {group} tokens, {share:.2f}"


def of_lens(rows: Any) -> str:
    """From which layer on the right answer is read first, per task: at least half of the time, and
    in all layers above.
    """
    first = rows[(rows["metric"] == "answer_is_first") & (rows["component"] == "all")]
    found = []
    for task in plots.task_names(first):
        right = first[first["task"] == task].sort_values("layer")
        wrong = right[right["value"] < 0.5]["layer"]
        start = int(right["layer"].min()) if not len(wrong) else int(wrong.max()) + 1
        if start <= int(right["layer"].max()):
            found.append((start, task))
    if not found:
        return "What the residual stream would answer, read at each layer"
    return "The lens reads the answer from this layer on: " + ", ".join(
        f"{task} {start}" for start, task in sorted(found)
    )


def of_shift(rows: Any, first: str, second: str) -> str:
    """In which layers the first metric's difference is sure in some task, and which way."""
    metric = rows["metric"].iloc[0]
    found = rows[(rows["metric"] == metric) & (rows["component"] == "all")]
    start = f"{METRICS.get(metric.removesuffix('_difference'), metric)}, {second} against {first}"
    ways: dict[str, list[int]] = {"more": [], "less": [], "more or less, by task,": []}
    for layer, cell in found[found["p_adjusted"] < 0.05].groupby("layer"):
        signs = set(cell["value"] > 0)
        way = "more or less, by task," if len(signs) == 2 else "more" if signs == {True} else "less"
        ways[way].append(int(layer))
    parts = [f"{way} in {layers_of(layers)}" for way, layers in ways.items() if layers]
    return f"{start}: " + (", ".join(parts) if parts else "no layer differs")
