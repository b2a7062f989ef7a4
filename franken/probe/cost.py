"""What a probe will take, before a model is loaded: forward passes and memory."""

from typing import Any

from franken import plugins
from franken.probe.lens import BRIDGED
from franken.probe.lens import CHUNK as LENS_CHUNK
from franken.probe.patch import ROWS as PATCH_ROWS
from franken.probe.plan import ProbePlan
from franken.probe.site_summary import GROUPS

PROMPT_TOKENS = 512  # taken for a prompt; the true number is known once an image is processed
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
PATCHES = len(GROUPS) + 1  # every group of tokens, and all of them


def cost(plan: ProbePlan) -> dict[str, Any]:
    """Answers, forward passes and MiB.

    `forwards` are passes of the whole model over a whole batch, decoding steps counted to the
    longest answer, and for patching
    as if every two replies parted; `resumed_layers` are the single decoder layers that patching
    runs again. The built-in controls come on top. `forwards_naive` are those of running every
    layer's answer from the pixels on, one by one.
    `memory_mib` is the weights, the keys and values of one batch, and the largest activations, for
    prompts of
    `PROMPT_TOKENS` tokens; the vision tower's are left out.
    """
    pairs, layers, new = len(plan.pairs), len(plan.layers), plan.max_new_tokens
    swaps, ablations = _rows(plan)
    rerun = (1 + swaps * new) * bool(plan.swaps) + ablations * new * bool(plan.ablations)
    fast = (
        _swap_forwards(plan) + _ablation_forwards(plan) if plan.engine == "torch" else pairs * rerun
    )
    measured = _measure_forwards(plan)
    return {
        "methods": list(plan.methods),
        "pairs": pairs,
        "layers": layers,
        "answers": plan.n_requested,
        "forwards": fast + measured,
        "resumed_layers": _resumed_layers(plan),
        "forwards_naive": pairs * rerun + _naive_measures(plan),
        "memory_mib": round((_weights(plan) + _keys_and_values(plan) + _activations(plan)) / 2**20),
    }


def _rows(plan: ProbePlan) -> tuple[int, int]:
    """Rows of one pair's swaps (with the plain one and the source's) and ablations (with the plain
    one).
    """
    layers = len(plan.layers)
    return 2 + len(plan.swaps) * layers, 1 + len(plan.ablations) * layers


def _swap_forwards(plan: ProbePlan) -> int:
    if not plan.swaps:
        return 0
    rows = _rows(plan)[0]
    together = max(1, plan.batch_size // rows)
    chunks = -(-(rows - 2) // max(1, plan.batch_size // together - 2))
    pairs = sum(_can_swap(p) for p in plan.pairs)
    batch = 1 + chunks * (plan.max_new_tokens + 1)  # both images; question and steps; the scores
    return -(-pairs // together) * batch


def _ablation_forwards(plan: ProbePlan) -> int:
    if not plan.ablations:
        return 0
    chunks = -(-(_rows(plan)[1] - 1) // (plan.batch_size - 1))
    return sum(not p.target.error for p in plan.pairs) * chunks * plan.max_new_tokens + len(
        plan.calibration
    )


def _measure_forwards(plan: ProbePlan) -> int:
    """One reply an item, one pass a sample for attention and for the lens, a clean and a corrupt
    one for every patching.
    """
    looked = [p.target for p in plan.pairs if not p.target.error] if _looks(plan) else []
    patched = [p for p in plan.pairs if _can_swap(p)] if plan.patches else []
    asked = {id(item) for item in looked} | {
        id(item) for p in patched for item in (p.target, p.source)
    }
    return (
        len(asked) * plan.max_new_tokens
        + _looks(plan) * len(looked)
        + 2 * len(plan.patches) * len(patched)
    )


def _resumed_layers(plan: ProbePlan) -> int:
    depth = plan.checkpoint.depths["text"]
    found = 0
    for method in plan.patches:
        variants = PATCHES * (_text(plan).get("num_attention_heads", 1) if "heads" in method else 1)
        again = sum(depth - layer - ("residual" in method) for layer in plan.layers)
        found += again * -(-variants // PATCH_ROWS)
    return found * sum(_can_swap(p) for p in plan.pairs)


def _naive_measures(plan: ProbePlan) -> int:
    """A reply for every method, and a whole pass for every patched group, head and layer."""
    new, heads = plan.max_new_tokens, _text(plan).get("num_attention_heads", 1)
    patches = [
        2 * new + 2 + len(plan.layers) * PATCHES * (heads if "heads" in m else 1)
        for m in plan.patches
    ]
    return len(plan.pairs) * (_looks(plan) * (new + 1) + sum(patches))


def _looks(plan: ProbePlan) -> int:
    return sum(method in plan.methods for method in ("attention", "lens", *plugins.names("probe")))


def _can_swap(pair: Any) -> bool:
    return not (pair.error or pair.ineligible)


def _weights(plan: ProbePlan) -> int:
    copies = (
        2 if "lens" in plan.methods and plan.checkpoint.config.get("model_type") in BRIDGED else 1
    )
    return copies * plan.checkpoint.nbytes


def _keys_and_values(plan: ProbePlan) -> int:
    text = _text(plan)
    heads = text.get("num_attention_heads", 1)
    width = text.get("head_dim") or text.get("hidden_size", 1) // heads
    token = (
        2
        * text.get("num_key_value_heads", heads)
        * width
        * plan.checkpoint.depths["text"]
        * _bytes(plan)
    )
    rows = _rows_at_once(plan)
    entries = max(2 if plan.swaps else 0, rows if plan.ablations else 0, 1)
    return token * (entries * PROMPT_TOKENS + rows * plan.max_new_tokens)


def _rows_at_once(plan: ProbePlan) -> int:
    swaps, ablations = _rows(plan)
    return min(
        plan.batch_size, max(swaps if plan.swaps else 0, ablations if plan.ablations else 0, 1)
    )


def _activations(plan: ProbePlan) -> int:
    """The largest of any method: the residual stream, its norm and one MLP's inner tensors; logits
    and their softmax in fp32.
    """
    text, size = _text(plan), _bytes(plan)
    hidden, vocabulary = text.get("hidden_size", 1), text.get("vocab_size", 1)
    token = size * (3 * hidden + 3 * text.get("intermediate_size", 4 * hidden))
    stream = size * hidden * PROMPT_TOKENS * (plan.checkpoint.depths["text"] + 1)
    rows = _rows_at_once(plan)
    found = [rows * (PROMPT_TOKENS * token + 8 * vocabulary)]
    if plan.patches:
        found.append(
            PATCH_ROWS * (PROMPT_TOKENS * token + 4 * vocabulary) + 4 * stream
        )  # stream and site of two runs
    if "lens" in plan.methods:
        found.append(stream + 12 * LENS_CHUNK * vocabulary)
    return max(found)


def _text(plan: ProbePlan) -> dict[str, Any]:
    return plan.checkpoint.config.get("text_config") or plan.checkpoint.config


def _bytes(plan: ProbePlan) -> int:
    config = plan.checkpoint.config
    own = 4 if "32" in str(config.get("dtype", config.get("torch_dtype"))) else 2
    return BYTES.get(str(plan.identity["dtype"]), own)
