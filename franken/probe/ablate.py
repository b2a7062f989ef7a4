"""Ablation of one decoder layer, in prefill and decoding (Frankenstein paper, §3.1.2): what breaks
when it is silenced?

What a layer adds to the residual stream is replaced: by nothing (`zero`: the layer is skipped, as
in the paper), by what it adds on average over a calibration set (`mean`), or by Gaussian noise with
the mean and spread of what it adds there (`noise`, seeded; the same for a token whatever the
batch). The whole layer, or its attention or MLP alone: `zero-attention`, `mean-mlp`, ….

Every ablation is a row that joins the plain run at its layer (`franken.probe.rows`): below it
nothing is computed twice, and all rows decode together, reading one copy of the prompt's keys and
values where they have not parted yet.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache

from franken.errors import UsageError
from franken.generate.native import Prompt, Response, encode_prompts
from franken.generate.streams import Cache
from franken.models.batch import ModelBatch
from franken.models.hooks import Context, Edit, edit
from franken.models.loading import Loaded
from franken.probe.methods.ablation import Kind, Site
from franken.probe.rows import RowCache, decode_rows, joining, reading, started

ROWS = 128


@dataclass(frozen=True, order=True)
class Ablation:
    """Layer `layer`'s `site`, replaced by `kind`."""

    layer: int
    kind: Kind = "zero"
    site: Site = "layer"


@dataclass(frozen=True)
class Calibration:
    """Mean and standard deviation of what every site adds to the residual stream, per feature; and
    the noise's seed.
    """

    mean: Mapping[tuple[Site, int], Float[Tensor, "hidden"]]
    spread: Mapping[tuple[Site, int], Float[Tensor, "hidden"]]
    seed: int = 0


def site_modules(loaded: Loaded, layer: int) -> dict[Site, nn.Module]:
    """The modules of a decoder layer that can be ablated: what it adds is their output."""
    block = loaded.family.decoder_layers(loaded.model)[layer]
    parts = loaded.family.adds(block)
    return {"layer": block, "attention": parts["attention"], "mlp": parts["mlp"]}


@torch.no_grad()
def calibrate(
    loaded: Loaded, prompts: Sequence[Prompt], layers: Sequence[int], seed: int = 0
) -> Calibration:
    """What the sites of `layers` add, over all tokens of `prompts`; accumulated in float64. Raises
    UsageError without prompts.
    """
    if not prompts:
        raise UsageError(
            "nothing to calibrate on", why="mean and noise need prompts that show what a layer adds"
        )
    sums: dict[tuple[Site, int], list[Tensor]] = {}

    def record(key: tuple[Site, int]) -> Edit:
        def look(output: Tensor, context: Context) -> Tensor:
            added = (output - context.input if key[0] == "layer" else output)[0].double().cpu()
            seen = sums.setdefault(key, [torch.zeros(()), torch.zeros(()), torch.zeros(())])
            sums[key] = [
                seen[0] + len(added),
                seen[1] + added.sum(0),
                seen[2] + added.square().sum(0),
            ]
            return output

        return look

    modules = {
        m: record((site, layer))
        for layer in layers
        for site, m in site_modules(loaded, layer).items()
    }
    keep = loaded.family.keep_last(loaded.model.config, loaded.device)
    with edit(modules):
        for prompt in prompts:
            batch = encode_prompts(loaded, [prompt])
            loaded.model(**batch, use_cache=False, logits_to_keep=keep)
    mean = {key: total / n for key, (n, total, _) in sums.items()}
    spread = {
        key: (squares / n - mean[key].square()).clamp(min=0).sqrt()
        for key, (n, _, squares) in sums.items()
    }
    kind = {"dtype": loaded.model.dtype, "device": loaded.device}
    return Calibration(
        {k: v.to(**kind) for k, v in mean.items()},
        {k: v.to(**kind) for k, v in spread.items()},
        seed,
    )


@torch.no_grad()
def ablate(
    loaded: Loaded,
    prompt: Prompt | ModelBatch,
    ablations: Sequence[Ablation],
    *,
    max_new_tokens: int,
    batch_size: int = ROWS,
    calibration: Calibration | None = None,
) -> list[Response]:
    """The plain greedy answer, then the answer under every ablation. The prompt may be encoded (a
    batch of one).

    `batch_size` bounds the rows in memory. Raises UsageError when mean or noise is asked for
    without a calibration.
    """
    if calibration is None and any(a.kind != "zero" for a in ablations):
        raise UsageError(
            "mean and noise need a calibration", why="they replace what a layer adds on average"
        )
    batch = encode_prompts(loaded, [prompt]) if isinstance(prompt, Prompt) else prompt
    wanted = sorted(set(ablations))
    answers: dict[Ablation | None, Response] = {}
    size = max(1, batch_size - 1)
    for start in range(0, max(1, len(wanted)), size):
        chunk = wanted[start : start + size]
        rows = _answers(loaded, batch, chunk, max_new_tokens, calibration)
        answers |= dict(zip([None, *chunk], rows, strict=True))
    return [answers[None], *(answers[a] for a in ablations)]


def _answers(
    loaded: Loaded,
    batch: ModelBatch,
    ablations: Sequence[Ablation],
    max_new_tokens: int,
    calibration: Calibration | None,
) -> list[Response]:
    if loaded.family.keyless(loaded.model.config):
        return _answers_apart(loaded, batch, ablations, max_new_tokens, calibration)
    layers = loaded.family.decoder_layers(loaded.model)
    tokens = batch.tokens
    joins = [0, *(a.layer for a in ablations)]
    bases = [0] * len(joins)
    running = started(joins, len(layers))
    prompt_cache = DynamicCache()
    tables = replacements(ablations, calibration, tokens + max_new_tokens)
    place = _Place(tokens)
    with edit(_edits(loaded, ablations, tables, place)), counting(layers[0], place):
        with joining(layers, bases, joins), _deepstack_of_rows(loaded.model.get_decoder()):
            output = loaded.model(
                **batch, past_key_values=prompt_cache, use_cache=True, logits_to_keep=1
            )
        filled: Any = prompt_cache.layers
        stores = [(layer.keys, layer.values) for layer in filled]
        rows = torch.arange(len(joins), device=loaded.device)
        owners = [torch.where(rows < count, rows, 0) for count in running]
        later = torch.arange(tokens, tokens + max_new_tokens, device=loaded.device)
        cache = RowCache(stores, owners, torch.arange(tokens, device=loaded.device), later)
        place.cache = cache
        last = batch.last_position
        last = last.expand(*last.shape[:-2], len(joins), 1)
        assert batch.attention_mask is not None
        mask = batch.attention_mask.expand(len(joins), -1)
        with reading(loaded, cache):
            return decode_rows(loaded, cache, output.logits[:, -1], mask, last, max_new_tokens)


def _answers_apart(
    loaded: Loaded,
    batch: ModelBatch,
    ablations: Sequence[Ablation],
    max_new_tokens: int,
    calibration: Calibration | None,
) -> list[Response]:
    """The same with a cache of transformers' own, in which every row has all that it reads."""
    layers, count = loaded.family.decoder_layers(loaded.model), 1 + len(ablations)
    tables = replacements(ablations, calibration, batch.tokens + max_new_tokens)
    place, config = _Place(batch.tokens), loaded.model.config
    rows, cache = batch.repeat(count), _LiveCache(config.get_text_config(), count, loaded.device)
    keep = loaded.family.keep_last(config, loaded.device)
    with edit(_edits(loaded, ablations, tables, place)), counting(layers[0], place):
        output = loaded.model(**rows, past_key_values=cache, use_cache=True, logits_to_keep=keep)
        place.cache = cache
        mask, last = rows.attention_mask, rows.last_position
        assert mask is not None
        return decode_rows(loaded, cache, output.logits[:, -1], mask, last, max_new_tokens)


class _LiveCache(Cache):
    """Knows which rows are left."""

    def __init__(self, config: Any, rows: int, device: torch.device) -> None:
        super().__init__(config=config)
        self.live = torch.arange(rows, device=device)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.live = self.live[indices]


@dataclass
class _Place:
    """Where generation is: the prompt's length, the passes so far, and the cache that decoding
    reads once there is one.
    """

    tokens: int
    passes: int = 0
    cache: RowCache | _LiveCache | None = None

    @property
    def first(self) -> int:
        """The place of the running pass's first token: the prompt, then a token a pass."""
        return 0 if self.passes == 1 else self.tokens + self.passes - 2


@contextmanager
def counting(layer: nn.Module, place: _Place) -> Iterator[None]:
    """While it lasts, `place` knows how often the first decoder layer has begun."""

    def count(*_: object) -> None:
        place.passes += 1

    handle = layer.register_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _edits(
    loaded: Loaded, ablations: Sequence[Ablation], tables: Mapping[Ablation, Tensor], place: _Place
) -> dict[nn.Module, Edit]:
    """Per module the edit of the rows that ablate it."""
    members: dict[nn.Module, list[tuple[int, Ablation]]] = {}
    for row, ablation in enumerate(ablations, 1):
        members.setdefault(site_modules(loaded, ablation.layer)[ablation.site], []).append(
            (row, ablation)
        )

    def change(mine: list[tuple[int, Ablation]]) -> Edit:
        def replaced(output: Tensor, context: Context) -> Tensor:
            changed = output.clone()
            for row, ablation in mine:
                first, at = place.first, [row]
                if place.cache is not None:
                    at = (place.cache.live == row).nonzero()[:, 0].to(output.device)
                rest = (
                    context.input[at] if ablation.site == "layer" else torch.zeros_like(output[at])
                )
                if ablation in tables:
                    added = tables[ablation][first : first + output.shape[1]]
                    rest = rest + added.to(output.device)
                changed[at] = rest
            return changed

        return replaced

    return {module: change(mine) for module, mine in members.items()}


def replacements(
    ablations: Sequence[Ablation], calibration: Calibration | None, tokens: int
) -> dict[Ablation, Float[Tensor, "tokens hidden"]]:
    """What is added in place of the site's own, for every token; nothing for zero ablation."""
    tables = {}
    for ablation in ablations:
        if ablation.kind == "zero" or calibration is None:
            continue
        key = ablation.site, ablation.layer
        table = calibration.mean[key].expand(tokens, -1)
        if ablation.kind == "noise":
            seed = zlib.crc32(f"{calibration.seed}/{ablation.site}/{ablation.layer}".encode())
            drawn = torch.randn(table.shape, generator=torch.Generator().manual_seed(seed))
            table = table + calibration.spread[key] * drawn.to(table)
        tables[ablation] = table
    return tables


@contextmanager
def _deepstack_of_rows(decoder: Any) -> Iterator[None]:
    """Qwen3-VL adds image features between layers, by a mask of one row; it holds for all rows."""
    original = getattr(decoder, "_deepstack_process", None)
    if original is None:
        yield
        return

    def process(hidden: Tensor, mask: Tensor, features: Tensor) -> Tensor:
        rows = len(hidden) // len(mask)
        return original(hidden, mask.repeat(rows, 1), features.repeat(rows, 1))

    decoder._deepstack_process = process
    try:
        yield
    finally:
        del decoder._deepstack_process
