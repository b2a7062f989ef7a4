"""The vision tower and the projector as sites: what does the answer become if a block of the tower
is skipped, sees another image, or says what it says of another image?

Everything that is changed here happens before the decoder begins, once a prompt, so that a change
is a context in which the pixels go through the tower; decoding then goes on as ever, the prompts of
several pairs in one batch.

- `skipped`: a block adds nothing, as in the decoder; without the projector the decoder finds zeros
  where the image should be.
- `seeing`: the blocks of a set take keys and values of the source image, and the target's patches
  look at those; their own residual stream stays the target's (design §4.5a, which is of the
  decoder). Keys and values are those of the linear maps, before the positions are turned in: both
  images have the same grid. At the projector, the source's features as a whole.
- `tower_effects`: activations of the clean image's run in the corrupt one's, and back. All patches
  of a block at once would be the image as a whole. Patches are therefore told apart by whether
  their own pixels differ between the two images: `changed` ones, and the `unchanged` rest, which
  knows of the difference only what earlier blocks brought there.

The projector is a layer of its own, with all modules that hand features to the decoder (Qwen3-VL's
deepstack). Left out: single heads of the tower; parts of a block in `skipped`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from franken.errors import FrankenError
from franken.generate.native import Prompt, Response, Sampling, sample
from franken.models.batch import ModelBatch, join
from franken.models.hooks import Context, Edit, edit, identity_layer, keeping, returning
from franken.models.loading import Loaded
from franken.probe.groups import CHANGED, UNCHANGED, WHOLE
from franken.probe.method import Columns
from franken.probe.patch import Effects, Scale, Where, check_tokens, pair_columns
from franken.probe.scores import divergence, logit_difference, parting

Said = list[list[object]]  # what each of some modules returned, call by call
ATTENTION = ("attn", "self_attn", "attention")  # what families call it in a block of the tower


def blocks_of(loaded: Loaded) -> list[nn.Module]:
    """The tower's blocks; none in text models."""
    blocks = loaded.family.vision_blocks(loaded.model)
    return [] if blocks is None else list(blocks)


def tower_modules(loaded: Loaded) -> list[nn.Module]:
    """The tower's blocks and the projector, in the order in which they run."""
    return [*blocks_of(loaded), *loaded.family.projector_modules(loaded.model)]


@contextmanager
def skipped(loaded: Loaded, part: str, layer: int) -> Iterator[None]:
    """While it lasts, a block of the tower hands its input on, or the projector says zeros."""
    if part == "vision":
        edits: dict[nn.Module, Edit] = {blocks_of(loaded)[layer]: identity_layer}
    else:
        edits = dict.fromkeys(loaded.family.projector_modules(loaded.model), _zeros)
    with edit(edits, ahead=True):
        yield


def _zeros(output: Tensor, _: Context) -> Tensor:
    return torch.zeros_like(output)


def eyes_of(loaded: Loaded, part: str, layer: int) -> list[nn.Module]:
    """The modules that say what a layer reads of the image: those that make a block's keys and
    values, or the projector's. Raises FrankenError for a block built in another way.
    """
    if part == "projector":
        return loaded.family.projector_modules(loaded.model)
    attention = _attention(blocks_of(loaded)[layer])
    for names in (("qkv",), ("k_proj", "v_proj")):
        if all(hasattr(attention, name) for name in names):
            return [getattr(attention, name) for name in names]
    raise FrankenError(
        f"the tower of {loaded.family.model_type} has no keys and values that franken knows",
        why=f"its attention is a {type(attention).__name__}",
        fix="probe its decoder: --part text",
    )


def look(loaded: Loaded, part: str, batch: ModelBatch) -> list[Said]:
    """By layer, what it reads of a batch's images, for `seeing`."""
    depth = len(blocks_of(loaded)) if part == "vision" else 1
    eyes = [eyes_of(loaded, part, layer) for layer in range(depth)]
    with keeping([module for of_layer in eyes for module in of_layer]) as kept:
        run_tower(loaded, batch)
    said = iter(kept)
    return [[next(said) for _ in of_layer] for of_layer in eyes]


@contextmanager
def seeing(loaded: Loaded, part: str, seen: Mapping[int, Said]) -> Iterator[None]:
    """While it lasts, each layer reads of the image what was kept of another run."""
    with ExitStack() as stack:
        for layer, said in seen.items():
            for module, kept in zip(eyes_of(loaded, part, layer), said, strict=True):
                fused = part == "vision" and module is getattr(
                    _attention(blocks_of(loaded)[layer]), "qkv", None
                )
                if fused:
                    stack.enter_context(edit({module: _keys_and_values(kept)}))
                else:
                    stack.enter_context(returning({module: kept}))
        yield


def _keys_and_values(kept: Sequence[object]) -> Edit:
    """Queries stay a module's own; the two thirds behind them are the next that were kept."""
    calls = iter(kept)

    def change(output: Tensor, _: Context) -> Tensor:
        other: Any = next(calls)
        queries = output.shape[-1] // 3
        return torch.cat([output[..., :queries], other[..., queries:]], -1)

    return change


@torch.no_grad()
def run_tower(loaded: Loaded, batch: ModelBatch) -> Float[Tensor, "rows vocabulary"]:
    """A whole pass, from the pixels on: the logits after the last token of every row."""
    output = loaded.model(**batch, use_cache=False, logits_to_keep=1)
    return output.logits[:, -1].float()


def replies(
    loaded: Loaded, batch: ModelBatch, prompts: Sequence[Prompt], max_new_tokens: int
) -> list[Response]:
    """The greedy replies to some encoded prompts."""
    greedy = Sampling(1, 0.0, max_new_tokens)
    drawn = sample(loaded, batch, [prompt.key for prompt in prompts], greedy)
    return [one[0] for one in drawn]


def swapped_answers(
    loaded: Loaded,
    part: str,
    pairs: Sequence[ModelBatch],
    prompts: Sequence[Prompt],
    sets: Sequence[Collection[int]],
    max_new_tokens: int,
) -> list[list[Response]]:
    """By set of swapped layers, the greedy answers to the targets of encoded pairs (target, source)
    that all have one shape.
    """
    targets, sources = (join([pair.slice([side]) for pair in pairs]) for side in (0, 1))
    seen = look(loaded, part, sources)
    answers = []
    for chosen in sets:
        with seeing(loaded, part, {layer: seen[layer] for layer in chosen}):
            answers.append(replies(loaded, targets, prompts, max_new_tokens))
    return answers


def swapped_scores(
    loaded: Loaded,
    part: str,
    pair: ModelBatch,
    said: tuple[Response, Response],
    sets: Sequence[Collection[int]],
) -> list[tuple[float, float | None]]:
    """By set of swapped layers, KL and logit difference (`franken.probe.scores`) where the plain
    answer and the source's part.
    """
    plain, source = (reply.ids for reply in said)
    seen = look(loaded, part, pair.slice([1]))
    batch = pair.slice([0]).append(plain[: parting(plain, source) or 0])
    own = run_tower(loaded, batch)
    scores = []
    for chosen in sets:
        with seeing(loaded, part, {layer: seen[layer] for layer in chosen}):
            logits = run_tower(loaded, batch)
        kl = float(divergence(own[0], logits, loaded.banned_ids))
        scores.append((kl, logit_difference(logits[0], plain, source)))
    return scores


@torch.no_grad()
def tower_effects(
    loaded: Loaded,
    clean: ModelBatch,
    corrupt: ModelBatch,
    parting: tuple[int, int],
    *,
    part: str,
    site: str,
    layers: Sequence[int],
    denoising: bool = True,
) -> Effects:
    """As `franken.probe.patch.patch_effects`, for `changed`, `unchanged` and all patches at each of
    `layers`; of the projector for all of it.

    Raises FrankenError when the two images differ in their grid or not in what the model prefers.
    """
    check_tokens(clean, corrupt)
    runs = _Run.of(loaded, corrupt, part, site), _Run.of(loaded, clean, part, site)
    base, donor = runs if denoising else runs[::-1]
    scale = Scale.of(base.logits, donor.logits, parting, denoising=denoising)
    groups = _patches(base, donor, part)
    effects: list[dict[Where, float]] = []
    for layer in layers:
        rows = {
            name: _patched(loaded, base, donor, part, site, layer, mask)
            for name, mask in groups.items()
        }
        effects.append({(name, None): scale.share(logits) for name, logits in rows.items()})
    return effects, scale.differences


@dataclass
class _Run:
    """One pass: what the blocks said, the patched modules, and what the first block was given."""

    batch: ModelBatch
    blocks: Said = field(default_factory=list)
    site: dict[nn.Module, Tensor] = field(default_factory=dict)
    first: Tensor | None = None
    logits: Float[Tensor, "vocabulary"] = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def of(cls, loaded: Loaded, batch: ModelBatch, part: str, site: str) -> "_Run":
        run, blocks = cls(batch), blocks_of(loaded)
        depth = len(blocks) if part == "vision" else 1

        def keep(module: nn.Module) -> Edit:
            def kept(output: Tensor, _: Context) -> Tensor:
                run.site[module] = output
                return output

            return kept

        def begin(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            run.first = args[0] if args else kwargs["hidden_states"]

        watched = [m for layer in range(depth) for m in _sites(loaded, part, site, layer)]
        handle = blocks[0].register_forward_pre_hook(begin, with_kwargs=True)
        try:
            with keeping(blocks) as run.blocks, edit({module: keep(module) for module in watched}):
                run.logits = run_tower(loaded, batch)[0]
        finally:
            handle.remove()
        return run


def _patches(base: _Run, donor: _Run, part: str) -> dict[str, Bool[Tensor, "*patches"] | None]:
    """The groups of patches that are not empty, as masks of the tower's stream; None is all."""
    if part == "projector" or base.first is None or donor.first is None:
        return {WHOLE: None}
    changed = (base.first != donor.first).any(-1)
    groups = {CHANGED: changed, UNCHANGED: ~changed}
    return {name: mask for name, mask in groups.items() if mask.any()} | {WHOLE: None}


def _patched(
    loaded: Loaded,
    base: _Run,
    donor: _Run,
    part: str,
    site: str,
    layer: int,
    mask: Bool[Tensor, "*patches"] | None,
) -> Float[Tensor, "vocabulary"]:
    """The base run's last logits with the donor's activations of some patches; blocks below the
    layer do not run again.
    """
    blocks = blocks_of(loaded)
    below = layer if part == "vision" else len(blocks)
    kept = dict(zip(blocks[:below], base.blocks[:below], strict=True))

    def put(given: Tensor) -> Edit:
        def change(output: Tensor, _: Context) -> Tensor:
            return given if mask is None else torch.where(mask[..., None], given, output)

        return change

    edits = {module: put(donor.site[module]) for module in _sites(loaded, part, site, layer)}
    with returning(kept), edit(edits, ahead=True):
        return run_tower(loaded, base.batch)[0]


def _sites(loaded: Loaded, part: str, site: str, layer: int) -> list[nn.Module]:
    if part == "projector":
        return loaded.family.projector_modules(loaded.model)
    block: Any = blocks_of(loaded)[layer]
    return [block if site == "residual" else _attention(block) if site == "attn" else block.mlp]


def _attention(block: Any) -> Any:
    """A block's attention. Raises FrankenError where it is called otherwise than franken knows."""
    for name in ATTENTION:
        if hasattr(block, name):
            return getattr(block, name)
    raise FrankenError(
        f"{type(block).__name__} has no attention that franken knows",
        why=f"it is called {' or '.join(ATTENTION)} elsewhere",
        fix="probe the decoder: --part text",
    )


def patch_tower(
    loaded: Loaded,
    prompts: tuple[Prompt, Prompt],
    said: tuple[Response, Response],
    part: str,
    site: str,
    layers: Sequence[int],
    *,
    denoising: bool,
) -> list[Columns]:
    """The columns of one pair's rows, for each of `layers`, as `franken.probe.patch.patch_pair`."""

    def measure(
        clean: ModelBatch, corrupt: ModelBatch, parting: tuple[int, int], _: int
    ) -> Effects:
        given = {"part": part, "site": site, "layers": layers, "denoising": denoising}
        return tower_effects(loaded, clean, corrupt, parting, **given)

    return pair_columns(loaded, prompts, said, len(layers), measure)
