"""Zero ablation: a decoder layer that adds nothing to its input, in prefill and decoding (Frankenstein paper, §3.1.2).

The layer still runs and keeps its own cache, so lengths stay consistent; its output is replaced by its input.
"""

from collections.abc import Sequence

from franken.generate.native import Prompt, Response, Sampling, generate
from franken.models.hooks import edit, identity_layer
from franken.models.loading import Loaded


def ablated_answers(
    loaded: Loaded, prompts: Sequence[Prompt], layer: int | None, *, max_new_tokens: int, batch_size: int = 64
) -> list[Response]:
    """Greedy answers with decoder layer `layer` skipped; None skips nothing."""
    edits = {} if layer is None else {loaded.family.decoder_layers(loaded.model)[layer]: identity_layer}
    with edit(edits):
        answers = generate(loaded, prompts, Sampling(1, 0.0, max_new_tokens), batch_size=batch_size)
    return [row[0] for row in answers]
