"""What a probe will take, before a model is loaded: forward passes and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from franken.probe.methods import by_class

if TYPE_CHECKING:
    from franken.probe.plan import ProbePlan

PROMPT_TOKENS = 512  # taken for a prompt; the true number is known once an image is processed
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


class ProbeCost(TypedDict):
    """`forwards` are passes of the whole model over a whole batch, decoding steps counted to the
    longest answer, and for patching as if every two replies parted; `resumed_layers` are the single
    decoder layers that run again. The built-in controls come on top. `forwards_naive` are those of
    running every layer's answer from the pixels on, one by one. `memory_mib` is the weights (of
    both models where two are compared), the keys and values of one batch, and the largest
    activations, for prompts of `PROMPT_TOKENS` tokens; the vision tower's are left out.
    """

    methods: list[str]
    pairs: int
    layers: int
    answers: int
    forwards: int
    resumed_layers: int
    forwards_naive: int
    memory_mib: int


@dataclass(frozen=True)
class TextShape:
    """The sizes of a decoder, and what its activations take, in bytes."""

    depth: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    bytes: int  # of a number

    @classmethod
    def of(cls, plan: ProbePlan) -> TextShape:
        """From the checkpoint's config."""
        config = plan.checkpoint.config
        text = config.get("text_config") or config
        hidden, heads = text.get("hidden_size", 1), text.get("num_attention_heads", 1)
        own = 4 if "32" in str(config.get("dtype", config.get("torch_dtype"))) else 2
        return cls(
            depth=plan.checkpoint.depths["text"],
            hidden=hidden,
            intermediate=text.get("intermediate_size", 4 * hidden),
            vocabulary=text.get("vocab_size", 1),
            heads=heads,
            kv_heads=text.get("num_key_value_heads", heads),
            head_dim=text.get("head_dim") or hidden // heads,
            bytes=BYTES.get(plan.dtype, own),
        )

    @property
    def row(self) -> int:
        """A prompt's residual stream, its norm and one MLP's inner tensors; the logits in fp32."""
        token = self.bytes * (3 * self.hidden + 3 * self.intermediate)
        return PROMPT_TOKENS * token + 4 * self.vocabulary

    @property
    def stream(self) -> int:
        """A prompt's residual stream before every layer and after the last."""
        return self.bytes * self.hidden * PROMPT_TOKENS * (self.depth + 1)

    @property
    def keys_and_values(self) -> int:
        """One token's, in all layers."""
        return 2 * self.kv_heads * self.head_dim * self.depth * self.bytes


def cost(plan: ProbePlan) -> ProbeCost:
    """Answers, forward passes and MiB of all its methods."""
    shape, new = TextShape.of(plan), plan.max_new_tokens
    parts = [type(methods[0]).cost(methods, plan, shape) for methods in by_class(plan.methods)]
    replies = frozenset[int]().union(*(part.replies for part in parts))
    rows = min(plan.batch_size, max(part.rows for part in parts))
    stores = min(rows, max(part.stores for part in parts))
    cache = shape.keys_and_values * (stores * PROMPT_TOKENS + rows * new)
    softmax = 4 * shape.vocabulary  # of the logits, in fp32
    activations = max(rows * (shape.row + softmax), *(part.activations for part in parts))
    weights = max(part.copies for part in parts) * plan.checkpoint.nbytes
    weights += plan.against.nbytes if plan.against else 0
    return {
        "methods": list(plan.names),
        "pairs": len(plan.pairs),
        "layers": len(plan.layers),
        "answers": plan.n_requested,
        "forwards": sum(part.forwards for part in parts) + len(replies) * new,
        "resumed_layers": sum(part.resumed_layers for part in parts),
        "forwards_naive": sum(part.naive for part in parts),
        "memory_mib": round((weights + cache + activations) / 2**20),
    }
