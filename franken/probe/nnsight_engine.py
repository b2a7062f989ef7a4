"""The same swaps and ablations written with nnsight (Fiotto-Kaufman et al., arXiv 2407.14561): a
second engine, and an example.

Nothing is cached, batched or resumed here: every token of every row is a whole forward pass with
its intervention, as one would write it down. It shares with the torch engine what the prompt is
(`encode_pair`), where its images are, and the scores; its rows are tested to be the same. Many
times slower: for checks, and as a pattern for interventions of one's own.

    net = trace_of(loaded)
    with net.model.trace(**batch):
        hidden = net.layers[3].output.save()      # a decoder layer's residual stream [rows, tokens,
                                                  hidden]
        net.layers[5].mlp.output[:] = 0           # in the order in which the model runs
        logits = net.model.output.logits.save()
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from franken.errors import UsageError
from franken.generate.native import Prompt, Response, Sampling, encode_prompts, end_ids, responses
from franken.generate.native import pick as pick_token
from franken.models.batch import ModelBatch
from franken.models.loading import Loaded
from franken.probe.ablate import Ablation, Calibration, replacements
from franken.probe.scores import Swapped, divergence, logit_difference, parting
from franken.probe.swap import Sets, check_swappable

Streams = list[tuple[Tensor, Tensor, Tensor]]  # a layer's keys, values and output
LogitsOf = Callable[[ModelBatch], Tensor]


@dataclass(frozen=True)
class Traced:
    """A model under nnsight, and its decoder layers there."""

    model: Any
    layers: Any


def trace_of(loaded: Loaded) -> Traced:
    """nnsight around a loaded model; the model itself stays as it is. Raises UsageError for one
    that is spread over several devices.
    """
    from nnsight import NNsight

    if loaded.spread:
        raise UsageError(
            "the nnsight engine runs on one device",
            why=f"the model is on {loaded.where}",
            fix="use --engine torch, which is the default",
        )
    net = NNsight(loaded.model)
    decoder = loaded.model.get_decoder()
    path = next(name for name, module in loaded.model.named_modules() if module is decoder)
    envoy: Any = net
    for part in path.split("."):
        envoy = getattr(envoy, part)
    return Traced(net, envoy.layers)


@torch.no_grad()
def swapped_batch(
    loaded: Loaded,
    pairs: Sequence[ModelBatch],
    sets: Sets,
    max_new_tokens: int,
    batch_size: int = 1,
    *,
    measure: bool = False,
) -> list[list[Swapped]]:
    """`[pairs][sets]` rows, as `franken.probe.swap.swapped_batch` gives them; `batch_size` is not
    used.
    """
    return [_swap_pair(loaded, pair, sets, max_new_tokens, measure) for pair in pairs]


def _swap_pair(
    loaded: Loaded, pair: ModelBatch, sets: Sets, max_new_tokens: int, measure: bool
) -> list[Swapped]:
    check_swappable(loaded)
    net, depth = trace_of(loaded), len(loaded.family.decoder_layers(loaded.model))
    image = pair.is_image[0].nonzero()[:, 0]
    target, source = (pair.slice([row]) for row in (0, 1))
    own, theirs = _streams(net, target, depth), _streams(net, source, depth)
    everything = frozenset(range(depth))
    answers = {
        chosen: _greedy(
            loaded,
            target,
            max_new_tokens,
            lambda row, c=chosen: _swap(net, row, c, image, own, theirs),
        )
        for chosen in {frozenset(), everything, *sets}
    }
    if not measure:
        return [Swapped(answers[chosen]) for chosen in sets]
    plain, other = answers[frozenset()].ids, answers[everything].ids
    shared = target.append(plain[: parting(plain, other) or 0])
    logits = {chosen: _swap(net, shared, chosen, image, own, theirs) for chosen in answers}
    return [
        Swapped(
            answers[chosen],
            float(divergence(logits[frozenset()], logits[chosen][None], loaded.banned_ids)),
            logit_difference(logits[chosen], plain, other),
        )
        for chosen in sets
    ]


@torch.no_grad()
def ablate(
    loaded: Loaded,
    prompt: Prompt | ModelBatch,
    ablations: Sequence[Ablation],
    *,
    max_new_tokens: int,
    batch_size: int = 1,
    calibration: Calibration | None = None,
) -> list[Response]:
    """The plain answer and one for every ablation, as `franken.probe.ablate.ablate`; `batch_size`
    is not used.
    """
    net = trace_of(loaded)
    batch = encode_prompts(loaded, [prompt]) if isinstance(prompt, Prompt) else prompt
    tables = replacements(ablations, calibration, batch.tokens + max_new_tokens)
    return [
        _greedy(
            loaded, batch, max_new_tokens, lambda row, a=a: _ablated(loaded, net, row, a, tables)
        )
        for a in (None, *ablations)
    ]


def _streams(net: Traced, batch: ModelBatch, depth: int) -> Streams:
    """Per layer the keys and values before their rotation, and the output."""
    streams: Streams = []
    with net.model.trace(**batch, use_cache=False):
        for layer in range(depth):
            block = net.layers[layer]
            keys = block.self_attn.k_proj.output.save()
            values = block.self_attn.v_proj.output.save()
            streams.append((keys, values, block.output.save()))
    return streams


def _swap(
    net: Traced,
    batch: ModelBatch,
    chosen: frozenset[int],
    image: Tensor,
    own: Streams,
    theirs: Streams,
) -> Float[Tensor, "vocabulary"]:
    """Logits after a row whose layers in `chosen` see the source's image; the image's own stream
    stays the target's.
    """
    with net.model.trace(**batch, use_cache=False):
        for layer in range(len(own)):
            block = net.layers[layer]
            if layer in chosen:
                block.self_attn.k_proj.output[:, image] = theirs[layer][0][:, image]
                block.self_attn.v_proj.output[:, image] = theirs[layer][1][:, image]
            block.output[:, image] = own[layer][2][:, image]
        logits = net.model.output.logits[0, -1].save()
    return logits  # noqa: RET504 - nnsight reads the block above as source


def _ablated(
    loaded: Loaded,
    net: Traced,
    batch: ModelBatch,
    ablation: Ablation | None,
    tables: Mapping[Ablation, Tensor],
) -> Float[Tensor, "vocabulary"]:
    """Logits after a row whose site adds something else, or nothing."""
    length = batch.tokens
    added = 0.0 if ablation is None or ablation not in tables else tables[ablation][:length]
    site, layer = (ablation.site, ablation.layer) if ablation else ("none", 0)
    block, own = net.layers[layer], loaded.family.decoder_layers(loaded.model)[layer]
    name = next(name for name in loaded.family.attention if hasattr(own, name))
    attention, mlp = getattr(block, name), getattr(block, loaded.family.mlp)
    with net.model.trace(**batch, use_cache=False):
        if site == "layer":
            stream = block.input.clone()
            block.output[:] = stream + added
        elif site == "attention" and name == "self_attn":  # whose output is a tuple
            attention.output[0][:] = added
        elif site == "attention":
            attention.output[:] = added
        elif site == "mlp":
            mlp.output[:] = added
        logits = net.model.output.logits[0, -1].save()
    return logits  # noqa: RET504 - nnsight reads the block above as source


def _greedy(loaded: Loaded, batch: ModelBatch, steps: int, logits_of: LogitsOf) -> Response:
    """The greedy continuation under an intervention, every token by a pass of its own."""
    ids: list[int] = []
    logprobs: list[float] = []
    sampling = Sampling(1, 0.0, steps)
    eos = set(end_ids(loaded, sampling))
    while len(ids) < steps and not (ids and ids[-1] in eos):
        token, logprob = pick_token(
            logits_of(batch.append(ids))[None].clone(), loaded.banned_ids, 0.0, None
        )
        ids.append(int(token))
        logprobs.append(float(logprob))
    return responses(loaded, torch.tensor([ids]), torch.tensor([logprobs]), sampling)[0]
