"""Activation patching: which activations carry the difference between two images? (Heimersheim and
Nanda 2024)

Two runs share every token and differ in the image: clean (the target) and corrupt (the source).
Their greedy replies have a first token where they part; the logit difference between the two tokens
there is positive in the clean run and negative in the corrupt one. Denoising puts clean activations
into the corrupt run and asks how much of the difference comes back; noising puts corrupt ones into
the clean run and asks how much is lost. Both are shares of clean − corrupt: 0 is nothing, 1 is all
of it. What is sufficient (denoising) need not be necessary (noising).

Sites, at layer ℓ: `residual`, the stream between ℓ and the next layer (with what the family adds
there: Qwen3-VL's deepstack); `attn` and `mlp`, what a block adds; `heads`, each head's input to the
output projection. Only layers from ℓ on run again, on the base run's own stored input, for all
token groups at once; the vision tower runs once an image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from franken.errors import FrankenError, UsageError
from franken.generate.native import Prompt, Response, encode_prompts
from franken.models.batch import ModelBatch
from franken.models.families import LINEAR, family_of
from franken.models.hooks import Context, Edit, edit
from franken.models.loading import Loaded
from franken.models.tokens import TokenMap, token_map
from franken.probe.groups import GROUPS, ROWS, WHOLE, ByGroup, groups_of
from franken.probe.method import Columns
from franken.probe.scores import parting

TokenGroups = Mapping[str, Int[Tensor, "some"]]  # name → positions in the row
Where = tuple[str, int | None]  # a token group, and a head or None for all of them


@dataclass
class Recording:
    """One run's stream before each layer and after the last, how each layer was called, and the
    patched site's activations.
    """

    stream: list[Float[Tensor, "tokens hidden"]] = field(default_factory=list)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    added: dict[int, Tensor] = field(
        default_factory=dict
    )  # by the decoder itself, after a layer: deepstack
    site: list[Float[Tensor, "tokens width"]] = field(default_factory=list)
    logits: Float[Tensor, "vocabulary"] = field(default_factory=lambda: torch.empty(0))


def token_groups(spans: TokenMap, tokens: int) -> TokenGroups:
    """Every token of a row in one group; `last` is the token that the difference is read at, and in
    no other group.

    `answer` is the part of the reply that both runs share. A group may be empty.
    """
    image = (
        torch.cat([torch.arange(s.start, s.stop) for s in spans.images])
        if spans.images
        else torch.arange(0)
    )
    seen = {*image.tolist(), tokens - 1}
    question_start, answer_start = spans.system.stop, spans.answer.start
    named = {
        "system": range(spans.system.start, spans.system.stop),
        "question": range(question_start, answer_start),
        "answer": range(answer_start, tokens),
    }
    groups = {
        k: torch.tensor([i for i in v if i not in seen], dtype=torch.long) for k, v in named.items()
    }
    groups |= {"image": image, "last": torch.tensor([tokens - 1])}
    return {name: groups[name] for name in GROUPS if name != WHOLE}


def parting_of(
    clean: Sequence[int], corrupt: Sequence[int]
) -> tuple[list[int], tuple[int, int]] | None:
    """What two replies share and the tokens after which they part; None when one is all of the
    other's beginning.
    """
    at = parting(clean, corrupt)
    if at is None or at == min(len(clean), len(corrupt)):
        return None
    return list(clean[:at]), (clean[at], corrupt[at])


@torch.no_grad()
def patch_effects(
    model: Any,
    clean: ModelBatch,
    corrupt: ModelBatch,
    parting: tuple[int, int],
    groups: TokenGroups,
    *,
    site: str,
    layers: Sequence[int],
    denoising: bool = True,
    rows: int = ROWS,
) -> tuple[list[dict[Where, float]], tuple[float, float]]:
    """The effect of patching each group at each of `layers`, and the logit differences of the clean
    and the corrupt run.

    `clean` and `corrupt` are one-row batches of equal tokens; `parting` the two tokens whose logits
    are compared after the last one, the clean run's first. The group `all` holds every token.
    Raises FrankenError when the batches differ in their tokens or the clean run does not prefer its
    token more.
    """
    check_tokens(clean, corrupt)
    base, donor = (
        record(model, batch, site)
        for batch in ((corrupt, clean) if denoising else (clean, corrupt))
    )
    scale = Scale.of(base.logits, donor.logits, parting, denoising=denoising)
    effects = [
        {where: scale.share(row) for where, row in rows_of}
        for rows_of in each_patch(model, base, donor, groups, site, layers, rows)
    ]
    return effects, scale.differences


def check_tokens(clean: ModelBatch, corrupt: ModelBatch) -> None:
    """Raises FrankenError where two runs cannot be compared token by token."""
    if not torch.equal(clean.input_ids, corrupt.input_ids):
        raise FrankenError(
            "clean and corrupt have different tokens",
            why="the images' sizes differ",
            fix="use equal sizes",
        )


@dataclass(frozen=True)
class Scale:
    """What a patched run's logit difference is a share of: 0 is the base's, 1 the donor's."""

    parting: tuple[int, int]
    start: float
    end: float
    denoising: bool

    @classmethod
    def of(
        cls, base: Tensor, donor: Tensor, parting: tuple[int, int], *, denoising: bool
    ) -> "Scale":
        """Raises FrankenError where the clean run does not prefer its token more."""
        start, end = (_difference(logits, parting) for logits in (base, donor))
        if (end - start) * (1 if denoising else -1) <= 0:
            raise FrankenError(
                "the logit difference is not larger in the clean run",
                why="it is lost in rounding",
                fix="use --dtype fp32",
            )
        return cls(parting, start, end, denoising)

    @property
    def differences(self) -> tuple[float, float]:
        """The clean and the corrupt run's logit difference."""
        return (self.end, self.start) if self.denoising else (self.start, self.end)

    def share(self, logits: Float[Tensor, "vocabulary"]) -> float:
        """The effect of a patch."""
        return (_difference(logits, self.parting) - self.start) / (self.end - self.start)


def each_patch(
    model: Any,
    base: Recording,
    donor: Recording,
    groups: TokenGroups,
    site: str,
    layers: Sequence[int],
    rows: int = ROWS,
) -> Iterator[Iterator[tuple[Where, Float[Tensor, "vocabulary"]]]]:
    """For each of `layers`, the base run's last logits under every patch: of each token group that
    is not empty and of `all`, and in it of each head. `model` made the base run.
    """
    tokens = len(base.stream[0])
    places = {name: at for name, at in groups.items() if len(at)} | {WHOLE: torch.arange(tokens)}
    heads: Sequence[int | None] = range(_heads(model)) if site == "heads" else [None]
    wanted: list[Where] = [(name, head) for name in places for head in heads]

    def of_layer(layer: int) -> Iterator[tuple[Where, Tensor]]:
        for first in range(0, len(wanted), rows):
            some = wanted[first : first + rows]
            chunk = [(places[name], head) for name, head in some]
            yield from zip(
                some, patched_logits(model, base, donor, site, layer, chunk), strict=True
            )

    return (of_layer(layer) for layer in layers)


def patch_pair(
    loaded: Loaded,
    prompts: tuple[Prompt, Prompt],
    replies: tuple[Response, Response],
    site: str,
    layers: Sequence[int],
    *,
    denoising: bool,
) -> list[Columns]:
    """The columns of one pair's rows, for each of `layers`: `effect_GROUP` (or `heads_GROUP`), the
    logit differences, the two tokens.

    `prompts` and `replies`: clean, then corrupt. Raises FrankenError when the images' token grids
    differ.
    """

    def measure(
        clean: ModelBatch, corrupt: ModelBatch, parting: tuple[int, int], start: int
    ) -> Effects:
        spans = token_map(clean.input_ids, loaded.model.config, answer_start=start)[0]
        groups = token_groups(spans, clean.tokens)
        given = {"site": site, "layers": layers, "denoising": denoising}
        return patch_effects(loaded.model, clean, corrupt, parting, groups, **given)

    return pair_columns(loaded, prompts, replies, len(layers), measure)


Effects = tuple[list[dict[Where, float]], tuple[float, float]]
Measure = Callable[[ModelBatch, ModelBatch, tuple[int, int], int], Effects]


def pair_columns(
    loaded: Loaded,
    prompts: tuple[Prompt, Prompt],
    replies: tuple[Response, Response],
    layers: int,
    measure: Measure,
) -> list[Columns]:
    """The columns of one pair's rows, for each of so many layers: what `measure` finds where the
    replies part, given both runs' tokens, what they say next and where the reply begins; or why
    not.
    """
    columns: dict[str, object] = {"baseline": replies[0].text, "source_output": replies[1].text}
    parted = parting_of(replies[0].ids, replies[1].ids)
    if parted is None:
        return [columns | {"ineligible": "both images get the same reply"}] * layers
    shared, tokens = parted
    encoded = [encode_prompts(loaded, [prompt]) for prompt in prompts]
    clean, corrupt = (batch.append(shared) for batch in encoded)
    effects, (up, down) = measure(clean, corrupt, tokens, encoded[0].tokens)
    columns |= {"clean_difference": up, "corrupt_difference": down}
    words = loaded.tokenizer.batch_decode([[token] for token in tokens])
    columns |= {"clean_token": words[0], "corrupt_token": words[1]}
    return [{**columns, **effect_columns(by_place)} for by_place in effects]


def effect_columns(effects: Mapping[Where, float]) -> Columns:
    """One layer's effects as columns: `effect_GROUP`, or for heads the list `heads_GROUP`; None for
    an empty group.
    """
    columns: dict[str, float | list[float] | None] = {}
    for group in groups_of({f"effect_{name}" for name, _ in effects}):
        by_head = {head: effect for (name, head), effect in effects.items() if name == group}
        if any(head is not None for _, head in effects):
            columns[f"heads_{group}"] = list(by_head.values()) or None
        else:
            columns[f"effect_{group}"] = by_head.get(None)
    return columns


@torch.no_grad()
def record(model: Any, batch: ModelBatch, site: str) -> Recording:
    """Run a one-row batch once and keep what resuming it from any layer needs. Raises UsageError
    where the model's layers cannot run by themselves, or have no heads of one kind.
    """
    text = model.config.get_text_config()
    linear = (getattr(text, "layer_types", None) or []).count(LINEAR)
    shared = getattr(text, "num_kv_shared_layers", None) or 0
    if reason := ByGroup("patch", site).obstacle(linear, shared):
        raise UsageError(f"patching {site} is not defined for {model.config.model_type}", reason)
    layers = model.get_decoder().layers
    recording = Recording()
    outputs: list[Tensor] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = dict(kwargs)
        hidden = args[0] if args else inputs.pop("hidden_states")
        recording.stream.append(hidden[0])
        inputs |= {"past_key_values": None, "use_cache": False}
        recording.calls.append((args[1:], inputs))

    def keep(into: list[Tensor], what: Literal["input", "output"] = "output") -> Edit:
        def look(output: Tensor, context: Context) -> Tensor:
            into.append((output if what == "output" else context.input)[0])
            return output

        return look

    watched: dict[nn.Module, Edit] = {layer: keep(outputs) for layer in layers}
    if site == "heads":
        watched |= {layer.self_attn.o_proj: keep(recording.site, "input") for layer in layers}
    elif site != "residual":
        watched |= {_block(model, layer, site): keep(recording.site) for layer in layers}
    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    try:
        with edit(watched):
            output = model(**batch, use_cache=False, logits_to_keep=1)
            recording.logits = output.logits[0, -1].float()
    finally:
        for handle in handles:
            handle.remove()
    for number, (out, into) in enumerate(zip(outputs, recording.stream[1:], strict=False)):
        if not torch.equal(out, into):
            recording.added[number] = into - out
    recording.stream.append(outputs[-1])
    return recording


@torch.no_grad()
def patched_logits(
    model: Any,
    base: Recording,
    donor: Recording,
    site: str,
    layer: int,
    chunk: Sequence[tuple[Tensor, int | None]],
) -> Float[Tensor, "rows vocabulary"]:
    """The base run's last logits, a row for every (tokens, head) of `chunk` whose activations at
    `layer` are the donor's.
    """
    return resume(model, base, layer, _patched(model, base, donor, site, layer, chunk))


def _patched(
    model: Any,
    base: Recording,
    donor: Recording,
    site: str,
    layer: int,
    chunk: Sequence[tuple[Tensor, int | None]],
) -> Float[Tensor, "rows tokens hidden"]:
    """The stream after `layer` in the base run, one row for every patch."""
    block = model.get_decoder().layers[layer]
    if site == "residual":
        return _insert(
            base.stream[layer + 1].repeat(len(chunk), 1, 1), donor.stream[layer + 1], chunk, 0
        )
    stream = base.stream[layer].expand(len(chunk), -1, -1)
    width = donor.site[layer].shape[-1] // _heads(model)
    if site == "heads":
        handle = block.self_attn.o_proj.register_forward_pre_hook(
            lambda _, args: (_insert(args[0].clone(), donor.site[layer], chunk, width),)
        )
        try:
            return _step(model, base, layer, stream)
        finally:
            handle.remove()
    with edit(
        {
            _block(model, block, site): lambda out, _: _insert(
                out.clone(), donor.site[layer], chunk, 0
            )
        }
    ):
        return _step(model, base, layer, stream)


def _insert(
    rows: Tensor, donor: Tensor, chunk: Sequence[tuple[Tensor, int | None]], width: int
) -> Tensor:
    for row, (at, head) in zip(rows, chunk, strict=True):
        columns = slice(None) if head is None else slice(head * width, (head + 1) * width)
        row[at, columns] = donor[at, columns]
    return rows


def _step(model: Any, base: Recording, layer: int, stream: Tensor) -> Tensor:
    """One decoder layer as the base run called it, and what the decoder adds behind it."""
    beside, named = base.calls[layer]
    output = model.get_decoder().layers[layer](stream, *beside, **named)
    hidden = output[0] if isinstance(output, tuple) else output
    return hidden + base.added[layer] if layer in base.added else hidden


@torch.no_grad()
def resume(
    model: Any, base: Recording, layer: int, stream: Float[Tensor, "rows tokens hidden"]
) -> Float[Tensor, "rows vocabulary"]:
    """The last logits of the base run from the stream after `layer` on."""
    decoder = model.get_decoder()
    for later in range(layer + 1, len(decoder.layers)):
        stream = _step(model, base, later, stream)
    return family_of(model.config.model_type).logits(model, decoder.norm(stream[:, -1])).float()


def _block(model: Any, layer: nn.Module, site: str) -> nn.Module:
    """The module whose output is what attention or MLP add."""
    parts = family_of(model.config.model_type).adds(layer)
    return parts["attention" if site == "attn" else "mlp"]


def _heads(model: Any) -> int:
    return model.config.get_text_config().num_attention_heads


def _difference(logits: Tensor, parting: tuple[int, int]) -> float:
    return float(logits[parting[0]] - logits[parting[1]])
