"""A probe: how much longer does every layer make the residual stream, at the last token before the
answer?

    franken --plugin probe.py probe creature:sft --method growth --tasks read --samples 10

A probe gets the loaded model, one prompt and the model's own greedy reply, and returns a dictionary
of numbers for every decoder layer. `franken probe` does the rest: controls, resuming, intervals,
`layers.parquet`.
"""

import torch

from franken.generate.native import Prompt, Response, encode_prompts
from franken.models.loading import Loaded
from franken.plugins import register


@torch.no_grad()
def growth(loaded: Loaded, prompt: Prompt, reply: Response) -> list[dict[str, float]]:
    """‖output‖ / ‖input‖ of every layer. `franken.models.hooks.edit` is there for probes that
    change something.
    """
    seen: list[float] = []

    def look(module, args, kwargs, output):
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        seen.append(float(after[0, -1].norm() / before[0, -1].norm()))

    layers = loaded.family.decoder_layers(loaded.model)
    hooks = [layer.register_forward_hook(look, with_kwargs=True) for layer in layers]
    try:
        loaded.model(**encode_prompts(loaded, [prompt]), use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return [{"growth": value} for value in seen]


register("probe", "growth", growth)
