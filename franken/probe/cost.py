"""What a probe will take, before a model is loaded: forward passes and memory."""

from typing import Any

from franken.probe.run import ProbePlan

PROMPT_TOKENS = 512  # taken for a prompt; the true number is known once an image is processed
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def cost(plan: ProbePlan) -> dict[str, Any]:
    """Answers, forward passes (of a whole batch; decoding steps counted to the longest answer) and MiB.

    `forwards_naive` are those of running every layer's answer from the pixels on, one by one. `memory_mib` is the weights plus
    the keys and values of one batch, for prompts of `PROMPT_TOKENS` tokens; activations come on top.
    """
    pairs, layers, new = len(plan.pairs), len(plan.layers), plan.max_new_tokens
    swap_rows = 2 + len(plan.swaps) * layers
    ablation_rows = 1 + len(plan.ablations) * layers
    forwards = naive = 0
    if plan.swaps and plan.engine == "torch":
        together = max(1, plan.batch_size // swap_rows)
        chunks = -(-(swap_rows - 2) // max(1, plan.batch_size // together - 2))
        forwards += -(-pairs // together) * (1 + chunks * (new + 1))  # both images; question and steps; the scores
    if plan.ablations and plan.engine == "torch":
        forwards += pairs * -(-(ablation_rows - 1) // (plan.batch_size - 1)) * new + len(plan.calibration)
    naive += pairs * ((1 + swap_rows * new) * bool(plan.swaps) + ablation_rows * new * bool(plan.ablations))
    token = _bytes_a_token(plan)
    rows = min(plan.batch_size, max(swap_rows if plan.swaps else 0, ablation_rows if plan.ablations else 0))
    entries = max(2 if plan.swaps else 0, rows if plan.ablations else 0)
    cache = token * (entries * PROMPT_TOKENS + rows * new)
    return {
        "methods": list(plan.methods), "pairs": pairs, "layers": layers, "answers": plan.n_requested,
        "forwards": forwards if plan.engine == "torch" else naive, "forwards_naive": naive,
        "memory_mib": round((plan.checkpoint.nbytes + cache) / 2**20),
    }  # fmt: skip


def _bytes_a_token(plan: ProbePlan) -> int:
    config: dict[str, Any] = plan.checkpoint.config
    text: dict[str, Any] = config.get("text_config") or config
    heads = text.get("num_attention_heads", 1)
    width = text.get("head_dim") or text.get("hidden_size", 1) // heads
    size = BYTES.get(
        str(plan.identity["dtype"]), 4 if "32" in str(config.get("dtype", config.get("torch_dtype"))) else 2
    )
    return 2 * text.get("num_key_value_heads", heads) * width * plan.checkpoint.depths["text"] * size
