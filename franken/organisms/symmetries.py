"""Other weights, the same function: a large ‖Δ‖ behind which nothing has changed.

Three symmetries of a Llama-shaped decoder layer, all of them at once. The neurons of an MLP may be
numbered otherwise: rows of gate and up, columns of down. Values may be rotated inside a head if the
output projection turns them back: v ← R v, W_o ← W_o Rᵀ, one R for each key-value head. The scale
of an RMS norm may be folded into the matrices that read it: γ ← 1, W ← W · diag(γ).

In exact arithmetic the model computes the same, in fp32 up to rounding. (Such changes are why a
distance between weights says little by itself; Ainsworth et al., Git Re-Basin, arXiv 2209.04836.)
"""

import re

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from franken.checkpoints import Checkpoint, TensorEntry, read_array
from franken.errors import UsageError

_LAYER = re.compile(r"text\.layers\.(\d+)\.(.+)")
NORM_BEFORE = {  # what reads each norm's output
    **dict.fromkeys(
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "input_layernorm"
    ),
    **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), "post_attention_layernorm"),
}
KNOWN = {*NORM_BEFORE, *NORM_BEFORE.values(), "self_attn.o_proj", "mlp.down_proj"}
WITH_BIAS = ("mlp.gate_proj", "mlp.up_proj", "self_attn.v_proj")  # whose outputs are renumbered
ALLOWED = {*KNOWN, "self_attn.q_norm", "self_attn.k_norm"}
ONE_PLUS = ("gemma", "gemma2", "gemma3", "gemma3_text", "paligemma")  # scale by 1 + γ, other norms

Rotation = Float[ndarray, "width width"]


def check(source: Checkpoint) -> None:
    """Raises UsageError for a decoder that is not of this shape."""
    seen = {_LAYER.fullmatch(name) for name in source.tensors}
    modules = {m[2].rpartition(".")[0] for m in seen if m}
    if source.model_type in ONE_PLUS or not modules >= KNOWN or not modules <= ALLOWED:
        odd = sorted(modules - ALLOWED) or sorted(KNOWN - modules) or [source.model_type]
        raise UsageError(
            f"no symmetry is known of a {source.model_type} decoder",
            why=f"its layers are not Llama's: {', '.join(odd[:3])}",
            fix="use another kind of organism",
        )


def moved(source: Checkpoint, entry: TensorEntry, seed: int) -> Float[ndarray, "..."] | None:
    """What a tensor of a decoder layer becomes under the layer's symmetries of `seed`; None for
    tensors that they leave alone.
    """
    match = _LAYER.fullmatch(entry.canonical)
    if not match:
        return None
    layer, (module, _, kind) = int(match[1]), match[2].rpartition(".")
    if module in NORM_BEFORE.values():
        return np.ones(entry.shape)
    if module not in KNOWN:
        return None
    if kind == "bias" and module not in WITH_BIAS:
        return None
    values = read_array(entry).astype(np.float64)
    if kind == "weight" and module in NORM_BEFORE:
        norm = source.tensors[f"text.layers.{layer}.{NORM_BEFORE[module]}.weight"]
        values = values * read_array(norm).astype(np.float64)
    match module:
        case "mlp.gate_proj" | "mlp.up_proj":
            return values[_order(source, layer, seed)]
        case "mlp.down_proj":
            return values[:, _order(source, layer, seed)]
        case "self_attn.v_proj":
            return _by_head(values, _rotations(source, layer, seed))
        case "self_attn.o_proj":
            return _by_head(values.T, _for_queries(source, _rotations(source, layer, seed))).T
    return values


def _order(source: Checkpoint, layer: int, seed: int) -> Int[ndarray, "neurons"]:
    neurons = source.tensors[f"text.layers.{layer}.mlp.gate_proj.weight"].shape[0]
    return np.random.default_rng([seed, layer, 0]).permutation(neurons)


def _rotations(source: Checkpoint, layer: int, seed: int) -> list[Rotation]:
    """An orthogonal matrix a key-value head."""
    heads, _ = _heads(source)
    width = source.tensors[f"text.layers.{layer}.self_attn.v_proj.weight"].shape[0] // heads
    rng = np.random.default_rng([seed, layer, 1])
    return [np.linalg.qr(rng.standard_normal((width, width)))[0] for _ in range(heads)]


def _for_queries(source: Checkpoint, rotations: list[Rotation]) -> list[Rotation]:
    """The rotation of its key-value head, for every query head."""
    shared, queries = _heads(source)
    return [rotations[head // (queries // shared)] for head in range(queries)]


def _by_head(rows: Float[ndarray, "heads*width ..."], rotations: list[Rotation]) -> ndarray:
    blocks = np.split(rows, len(rotations))
    return np.concatenate([r @ block for r, block in zip(rotations, blocks, strict=True)])


def _heads(source: Checkpoint) -> tuple[int, int]:
    """Key-value heads, and query heads."""
    text = source.settings.text
    queries = text.num_attention_heads
    if not queries:
        raise UsageError(
            f"{source.name} does not say how many heads it has",
            why="its config.json has no num_attention_heads",
            fix="write it there",
        )
    return text.num_key_value_heads or queries, queries
