"""What must hold before a probe is believed. Run by default on the first usable samples, on the model and prompts at hand.

- An image swapped with itself changes nothing, in any set of layers.
- Nothing swapped (suffix at L, prefix at 0) is the plain answer; everything (suffix at 0, prefix at L) the source's own.
- The plain row of an ablation is the plain answer, and a zeroed layer answers as one whose output is replaced by its input.
- A hook that returns what it gets leaves the logits bit-identical; and after the run so are the weights.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import torch

from franken.errors import VerificationError
from franken.generate.native import Prompt, Sampling, encode_prompts, generate
from franken.models.hooks import edit, identity_layer
from franken.models.loading import Loaded

SAMPLES = 2


def check_swaps(loaded: Loaded, pairs: Sequence[tuple[Prompt, Prompt]], max_new_tokens: int) -> list[str]:
    """What fails of the controls on swaps, in words; of (target, source) with equal grids."""
    from franken.probe.swap import swap_sets, swapped_answers

    depth = len(loaded.family.decoder_layers(loaded.model))
    sets = [frozenset(), frozenset(range(depth)), *swap_sets("single", (0, depth // 2), depth)]
    failures = []
    for target, source in pairs:
        same = swapped_answers(loaded, target, target, sets, max_new_tokens=max_new_tokens)
        ends = swapped_answers(loaded, target, source, sets[:2], max_new_tokens=max_new_tokens)
        plain, other = (_greedy(loaded, prompt, max_new_tokens) for prompt in (target, source))
        if len({tuple(r.ids) for r in same}) > 1:
            failures.append(f"{target.key}: swapping an image with itself changes the answer")
        if ends[0].ids != plain or same[0].ids != plain:
            failures.append(f"{target.key}: nothing swapped is not the plain answer")
        if ends[1].ids != other:
            failures.append(f"{target.key}: everything swapped is not the source's answer")
    return failures


def check_ablations(loaded: Loaded, prompts: Sequence[Prompt], layer: int, max_new_tokens: int) -> list[str]:
    """What fails of the controls on ablations, in words."""
    from franken.probe.ablate import Ablation, ablate

    block: Any = loaded.family.decoder_layers(loaded.model)[layer]
    failures = []
    for prompt in prompts:
        plain, skipped = ablate(loaded, prompt, [Ablation(layer)], max_new_tokens=max_new_tokens)
        if plain.ids != _greedy(loaded, prompt, max_new_tokens):
            failures.append(f"{prompt.key}: nothing ablated is not the plain answer")
        with edit({block: identity_layer}):
            if skipped.ids != _greedy(loaded, prompt, max_new_tokens):
                failures.append(f"{prompt.key}: layer {layer} ablated is not layer {layer} skipped")
    return failures


@torch.no_grad()
def identity_hook_is_exact(loaded: Loaded, prompt: Prompt) -> bool:
    """Whether hooks that return what they get leave the logits bit-identical."""
    batch = encode_prompts(loaded, [prompt])
    before = loaded.model(**batch).logits
    with edit({layer: lambda output, _: output for layer in loaded.family.decoder_layers(loaded.model)}):
        after = loaded.model(**batch).logits
    return torch.equal(before, after)


def weights_digest(loaded: Loaded) -> int:
    """A checksum of every weight's bits."""
    digest = 0
    for name, tensor in loaded.model.state_dict().items():
        bits = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        digest = zlib.crc32(f"{name}{int(bits.sum(dtype=torch.int64))}".encode(), digest)
    return digest


def conclude(failures: Sequence[str], dtype: torch.dtype) -> list[str]:
    """Warnings of a 16-bit model, whose batched kernels round differently. Raises VerificationError in fp32."""
    if failures and dtype == torch.float32:
        raise VerificationError(
            "a built-in control failed", why="; ".join(failures), fix="the probe would not be valid"
        )
    return list(failures)


def _greedy(loaded: Loaded, prompt: Prompt, max_new_tokens: int) -> list[int]:
    return generate(loaded, [prompt], Sampling(1, 0.0, max_new_tokens))[0][0].ids
