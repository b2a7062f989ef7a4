"""What must hold before a probe is believed. Run by default on the first usable samples, on the
model and prompts at hand.

- An image swapped with itself changes nothing, in any set of layers.
- Nothing swapped (suffix at L, prefix at 0) is the plain answer; everything (suffix at 0, prefix at
  L) the source's own.
- The plain row of an ablation is the plain answer, and a zeroed layer answers as one whose output
  is replaced by its input.
- Patching every token's residual stream restores the clean run, past the last layer at which the
  decoder itself adds the image (deepstack); patching no token changes nothing, at any site.
- Two models, one of which gives to the other: patching no token changes nothing, a model restores
  all of itself in itself, and the giver's whole stream after the last layer is read by the
  receiver's own head.
- A model that is stitched to itself is itself, in its logits and in its reply; and what is read of
  a stitched model layer by layer is what it says when it runs as one.
- In the tower: what was kept of a run and is said again gives the same logits; an image that sees
  itself changes nothing; the source's features are the source's answer; the clean image's patches
  after the last block restore the clean run.
- Attention edges cut in no layer leave the logits bit-identical, and with all edges from the image
  cut in all layers they are those of another image.
- The attention that a token gives to the image and to the rest is one.
- The lens at the last layer reads the model's own logits.
- A hook that returns what it gets leaves the logits bit-identical; and after the run so are the
  weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from franken.errors import VerificationError
from franken.generate.native import Prompt, Sampling, encode_prompts, generate
from franken.models.hooks import edit, identity_layer, keeping, returning
from franken.models.loading import Loaded
from franken.models.placement import waiting_weights
from franken.probe import ablate, attention, knockout, patch, stitch, swap, tower
from franken.probe.lens import Lens, answer_batch

ATTENTION_ROWS = 8
TOLERANCE = 1e-2  # of a share of a logit difference


def check_swaps(
    loaded: Loaded, pairs: Sequence[tuple[Prompt, Prompt]], max_new_tokens: int
) -> list[str]:
    """What fails of the controls on swaps, in words; of (target, source) with equal grids."""
    depth = len(loaded.family.decoder_layers(loaded.model))
    sets = [frozenset(), frozenset(range(depth)), frozenset([0]), frozenset([depth // 2])]
    failures = []
    for target, source in pairs:
        same = swap.swapped_answers(loaded, target, target, sets, max_new_tokens=max_new_tokens)
        ends = swap.swapped_answers(loaded, target, source, sets[:2], max_new_tokens=max_new_tokens)
        plain, other = (_greedy(loaded, prompt, max_new_tokens) for prompt in (target, source))
        if len({tuple(r.ids) for r in same}) > 1:
            failures.append(f"{target.key}: swapping an image with itself changes the answer")
        if ends[0].ids != plain or same[0].ids != plain:
            failures.append(f"{target.key}: nothing swapped is not the plain answer")
        if ends[1].ids != other:
            failures.append(f"{target.key}: everything swapped is not the source's answer")
    return failures


def check_ablations(
    loaded: Loaded, prompts: Sequence[Prompt], layer: int, max_new_tokens: int
) -> list[str]:
    """What fails of the controls on ablations, in words."""
    block: Any = loaded.family.decoder_layers(loaded.model)[layer]
    failures = []
    for prompt in prompts:
        plain, skipped = ablate.ablate(
            loaded, prompt, [ablate.Ablation(layer)], max_new_tokens=max_new_tokens
        )
        if plain.ids != _greedy(loaded, prompt, max_new_tokens):
            failures.append(f"{prompt.key}: nothing ablated is not the plain answer")
        with edit({block: identity_layer}):
            if skipped.ids != _greedy(loaded, prompt, max_new_tokens):
                failures.append(f"{prompt.key}: layer {layer} ablated is not layer {layer} skipped")
    return failures


@torch.no_grad()
def check_patching(
    loaded: Loaded, pairs: Sequence[tuple[Prompt, Prompt]], sites: Sequence[str]
) -> list[str]:
    """What fails of the controls on patching at `sites`, in words; of (clean, corrupt) with equal
    grids.
    """
    depth = len(loaded.family.decoder_layers(loaded.model))
    failures = []
    for prompts in pairs:
        clean, corrupt = (encode_prompts(loaded, [prompt]) for prompt in prompts)
        if not torch.equal(clean.input_ids, corrupt.input_ids):
            continue  # the sample's own error
        everything = torch.arange(clean.tokens)
        for site in dict.fromkeys(["residual", *sites]):
            base, donor = (patch.record(loaded.model, batch, site) for batch in (corrupt, clean))
            layer = max(depth // 2, *base.added, *donor.added, 0)
            chunk = [(everything[:0], None), (everything, None)]
            nothing, restored = patch.patched_logits(loaded.model, base, donor, site, layer, chunk)
            if not _close(nothing, base.logits, loaded.model.dtype):
                failures.append(f"{prompts[0].key}: patching nothing ({site}) changes the logits")
            if site == "residual" and not _close(restored, donor.logits, loaded.model.dtype):
                failures.append(
                    f"{prompts[0].key}: patching everything does not restore the clean run"
                )
    return failures


@torch.no_grad()
def check_tower(loaded: Loaded, pairs: Sequence[tuple[Prompt, Prompt]], part: str) -> list[str]:
    """What fails of the controls on the vision tower and the projector, in words; of (target,
    source) with equal grids.
    """
    depth, dtype = len(tower.blocks_of(loaded)), loaded.model.dtype
    last = depth - 1 if part == "vision" else 0
    failures = []
    for prompts in pairs:
        key = prompts[0].key
        target, source = (encode_prompts(loaded, [prompt]) for prompt in prompts)
        if not torch.equal(target.input_ids, source.input_ids):
            continue  # the sample's own error
        plain, other = (tower.run_tower(loaded, batch)[0] for batch in (target, source))
        modules = tower.tower_modules(loaded)
        with keeping(modules) as kept:
            tower.run_tower(loaded, target)
        with returning(dict(zip(modules, kept, strict=True))):
            if not _close(tower.run_tower(loaded, target)[0], plain, dtype):
                failures.append(f"{key}: a tower that is not changed has other logits")
        own = dict(enumerate(tower.look(loaded, part, target)))
        with tower.seeing(loaded, part, own):
            if not _close(tower.run_tower(loaded, target)[0], plain, dtype):
                failures.append(f"{key}: an image that sees itself has other logits")
        with tower.seeing(loaded, "projector", {0: tower.look(loaded, "projector", source)[0]}):
            if not _close(tower.run_tower(loaded, target)[0], other, dtype):
                failures.append(f"{key}: the source's features are not the source's answer")
        gap = plain - other
        if float(gap.max() - gap.min()) > 0:
            sides = int(gap.argmax()), int(gap.argmin())
            restored, _ = tower.tower_effects(
                loaded, target, source, sides, part=part, site="residual", layers=[last]
            )
            deep = len(loaded.family.projector_modules(loaded.model)) > 1 and part == "vision"
            if not deep and abs(restored[0]["all", None] - 1) > TOLERANCE:
                failures.append(f"{key}: all of the clean image does not restore the clean run")
    return failures


@torch.no_grad()
def check_across(
    loaded: Loaded, second: Loaded, prompts: Sequence[Prompt], sites: Sequence[str]
) -> list[str]:
    """What fails of the controls on patching across models at `sites`, in words, both ways."""
    depth, dtype = len(loaded.family.decoder_layers(loaded.model)), loaded.model.dtype
    failures = []
    for prompt in prompts:
        batch = encode_prompts(loaded, [prompt])
        everything = torch.arange(batch.tokens)
        chunk = [(everything[:0], None), (everything, None)]
        for site in dict.fromkeys(["residual", *sites]):
            runs = [patch.record(each.model, batch, site) for each in (loaded, second)]
            for model, base, donor in ((loaded, *runs), (second, *reversed(runs))):
                name, at = f"{prompt.key} ({site}, {model.name})", (site, depth // 2)
                nothing, _ = patch.patched_logits(model.model, base, donor, *at, chunk)
                _, same = patch.patched_logits(model.model, base, base, *at, chunk)
                if not _close(nothing, base.logits, dtype):
                    failures.append(f"{name}: patching nothing changes the logits")
                if not _close(same, base.logits, dtype):
                    failures.append(f"{name}: a model's own activations change its logits")
                if site == "residual":
                    top = (site, depth - 1)
                    _, given = patch.patched_logits(model.model, base, donor, *top, chunk)
                    if not _close(given, _read(model, donor.stream[-1][-1]), dtype):
                        failures.append(f"{name}: the last stream is not what its head reads")
    return failures


def _read(loaded: Loaded, stream: Tensor) -> Tensor:
    """What a model's own norm and head make of a token's stream after the last layer."""
    model = loaded.model
    return loaded.family.logits(model, model.get_decoder().norm(stream[None]))[0]


@torch.no_grad()
def check_stitches(
    loaded: Loaded, second: Loaded, part: str, prompts: Sequence[Prompt], max_new_tokens: int
) -> list[str]:
    """What fails of the controls on stitching in the middle of a part, in words."""
    layers = {
        "text": loaded.family.decoder_layers(loaded.model),
        "vision": loaded.family.vision_blocks(loaded.model),
    }.get(part) or (None,)
    below, dtype = (len(layers) + 1) // 2, loaded.model.dtype
    failures = []
    for prompt in prompts:
        batch = encode_prompts(loaded, [prompt])
        own, other = (stitch.run_of(each, batch) for each in (loaded, second))
        same = stitch.Stitch(loaded, loaded, part, below)
        if not _close(same.logits(batch, own, own), own.recording.logits, dtype):
            failures.append(f"{prompt.key}: a model stitched to itself has other logits")
        (reply,) = stitch.replies(loaded, [same], [prompt], max_new_tokens)[0]
        if reply.ids != _greedy(loaded, prompt, max_new_tokens):
            failures.append(f"{prompt.key}: a model stitched to itself replies otherwise")
        both = stitch.Stitch(loaded, second, part, below)
        read = both.logits(batch, own, other)
        with both.running(own.tower) as whole:
            said = whole.model(**batch, use_cache=False, logits_to_keep=1).logits[0, -1]
        if not _close(read, said, dtype):
            failures.append(f"{prompt.key}: a stitched model is not what is read of it")
    return failures


@torch.no_grad()
def check_knockouts(
    loaded: Loaded, prompts: Sequence[Prompt], pairs: Sequence[tuple[Prompt, Prompt]]
) -> list[str]:
    """What fails of the controls on cut edges, in words; of prompts, and of (target, source) whose
    images are of equal size, in all layers.
    """
    failures = []
    everything = frozenset(range(len(loaded.family.decoder_layers(loaded.model))))

    def logits(prompt: Prompt, layers: frozenset[int], inside: bool = True) -> Tensor:
        batch = encode_prompts(loaded, [prompt])
        groups = knockout.prompt_groups(loaded, batch)
        source = ["image"] if inside else []
        edges = knockout.edges_of(groups, batch.tokens, source, ["others"])
        return knockout.cut_pass(
            loaded, batch, [knockout.Cut(edges, layers)], batch.tokens, keep=1
        )[0]

    for prompt in prompts:
        if not torch.equal(logits(prompt, frozenset()), logits(prompt, everything, inside=False)):
            failures.append(f"{prompt.key}: cutting no edge changes the logits")
    for target, source in pairs:
        if not torch.equal(*(logits(prompt, everything) for prompt in (target, source))):
            failures.append(f"{target.key}: cut off from the image, the answer still depends on it")
    return failures


def check_attention(loaded: Loaded, prompts: Sequence[Prompt]) -> list[str]:
    """What fails of the control on attention, in words: the image's share and the rest's, measured
    apart, are one.
    """
    failures = []
    for prompt in prompts:
        batch = encode_prompts(loaded, [prompt])
        tokens = batch.tokens
        image = batch.is_image[0].cpu()
        rows = range(max(0, tokens - ATTENTION_ROWS), tokens)
        whole = sum(
            attention.attention_mass(loaded.model, batch, rows, columns)
            for columns in (image, ~image)
        )
        there = torch.as_tensor(whole)
        there = there[~there.isnan()]
        if not torch.allclose(there, torch.ones((), dtype=torch.float64), atol=1e-5):
            failures.append(f"{prompt.key}: the attention to image and rest is not one")
    return failures


@torch.no_grad()
def check_lens(loaded: Loaded, lens: Lens, prompts: Sequence[Prompt]) -> list[str]:
    """What fails of the control on the lens, in words."""
    failures = []
    for prompt in prompts:
        batch = answer_batch(loaded, prompt, [])
        own = loaded.model(**batch, logits_to_keep=1).logits[0, -1]
        read = lens.unembed(lens.stream(batch, [batch.tokens - 1])[-1])[0]
        if not _close(read, own, loaded.model.dtype):
            failures.append(f"{prompt.key}: the lens at the last layer is not the model's logits")
    return failures


def _close(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    """Equal up to rounding: √ε of the type, of the largest logit."""
    return float((a.float() - b.float()).abs().max()) <= torch.finfo(dtype).eps ** 0.5 * float(
        b.float().abs().max()
    )


@torch.no_grad()
def identity_hook_is_exact(loaded: Loaded, prompt: Prompt) -> bool:
    """Whether hooks that return what they get leave the logits bit-identical."""
    batch = encode_prompts(loaded, [prompt])
    before = loaded.model(**batch).logits
    with edit(
        {layer: lambda output, _: output for layer in loaded.family.decoder_layers(loaded.model)}
    ):
        after = loaded.model(**batch).logits
    return torch.equal(before, after)


def weights_digest(loaded: Loaded) -> str:
    """SHA-256 of every weight's name, shape and bytes, in hexadecimal."""
    digest = hashlib.sha256()
    elsewhere = waiting_weights(loaded.model)
    for name, held in loaded.model.state_dict().items():
        tensor = elsewhere[name].read() if name in elsewhere else held
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def conclude(failures: Sequence[str], dtype: torch.dtype) -> list[str]:
    """Warnings of a 16-bit model, whose batched kernels round differently. Raises VerificationError
    in fp32.
    """
    if failures and dtype == torch.float32:
        raise VerificationError(
            "a built-in control failed", why="; ".join(failures), fix="the probe would not be valid"
        )
    return list(failures)


def _greedy(loaded: Loaded, prompt: Prompt, max_new_tokens: int) -> list[int]:
    return generate(loaded, [prompt], Sampling(1, 0.0, max_new_tokens))[0][0].ids
