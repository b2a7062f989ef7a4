"""Will it fit? The memory and the disk that a recipe needs, from shapes alone, before anything is
loaded.

Counted are weights, gradients, AdamW's two moments, the reference model, what the forward pass
keeps for the backward pass, logits, the images of a step's prompts, and the prefill and cache of
sampling; per process. With `sharding: fsdp` the four first ones are divided by `processes`, and
`gathered` comes on top: the whole model while it samples, else what is in no layer (of the layers,
gathered one by one, two or three are there at once; they are not counted). A stage's peak is the
largest of five moments: the loading (every process reads the model whole), the prefill of the
prompts that are sampled at once, the end of their sampling, the backward pass, the optimizer's
step. All responses are taken to be as long as they may be. Kept activations are those of the
Hugging Face layers with a fused attention (nothing of size tokens²), see `layer_bytes`; what
allocators waste, the CUDA context and the processor are not counted, so leave a tenth free. Time is
a lower bound from the multiplications alone.
"""

from dataclasses import dataclass

from franken.selection import select
from trainer.creature.align import AlignStage
from trainer.freeze import everything_frozen, frozen_keys
from trainer.kept import most_kept
from trainer.packing import CHUNK
from trainer.recipe import AnyStage, Lora, Recipe
from trainer.shapes import Shapes, Widths, numel
from trainer.stages import GrpoStage, SftStage

ITEM = {"fp32": 4, "bf16": 2}
CHANNELS = 6  # of a pixel: three colours, twice, since Qwen's towers read an image as two frames
LOGITS_COPIES = 4  # in fp32: scaled, their log-softmax, and two more for entropy or gradient


@dataclass(frozen=True)
class Lengths:
    """Tokens of one example: prompt with its image, image alone (after merging), answer. `known`
    says how it was found.
    """

    prompt: int
    image: int
    answer: int
    known: str


@dataclass(frozen=True)
class StagePlan:
    """Bytes a process needs in one stage, by what for; `peak` is the most at one moment, `flops`
    one update's, `seconds_at_least` its time where the device's speed is known.
    """

    kind: str
    parameters: int
    training: int
    parts: dict[str, int]
    checkpointed: int
    peak: int
    disk: int
    flops: float
    lengths: Lengths
    seconds_at_least: float | None = None


def layer_bytes(widths: Widths, item: int) -> int:
    """Bytes that one decoder layer keeps per token for its backward pass.

    Two RMSNorms keep the residual in fp32, the normalised value, and the weighted one; attention
    keeps q, the expanded k and v (rotated q and k share their inputs' sizes) and its output twice;
    SwiGLU keeps gate, up, silu(gate) and the product.
    """
    norms = 2 * (4 + 2 * item) * widths.hidden
    return norms + item * (5 * widths.queries + 4 * widths.inner)


def plan_stage(
    recipe: Recipe,
    index: int,
    shapes: Shapes,
    lengths: Lengths,
    processes: int = 1,
) -> StagePlan:
    """The memory of one stage. Raises UsageError for a freeze spec that matches nothing."""
    stage, sharded = recipe.stages[index], recipe.sharding == "fsdp"
    frozen = frozen_keys(shapes.places, stage.freeze, stage.train)
    training = set(shapes.tensors) - frozen
    if not training:
        raise everything_frozen()
    total = shapes.parameters
    count = sum(numel(shapes.tensors[name][0]) for name in training)
    if recipe.lora:
        training, count, adapters = _adapted(shapes, recipe.lora, training)
        total += adapters
    rows, tokens, answers = _micro_batch(stage, lengths)
    lowest = _lowest_kept(shapes, training)
    layers = shapes.text.layers - lowest
    shares = processes if sharded else 1
    weight = ITEM[recipe.dtype]  # bytes of what is stored, and below of what is computed
    item = 2 if recipe.precision == "bf16-mixed" else weight
    flat = 4 * shapes.text.hidden + item * 2 * shapes.text.hidden  # embeddings in, final norm
    a_layer = layer_bytes(shapes.text, item)
    activations = tokens * (layers * a_layer + flat)
    whole = tokens * (layers * item * shapes.text.hidden + a_layer + flat)
    charged = isinstance(stage, GrpoStage) and stage.beta
    # in the first stage the reference has what is frozen in common with the policy
    reference = count if index == 0 and not (sharded or recipe.lora) else total
    gathered = total if isinstance(stage, GrpoStage) else _outside_layers(shapes)
    images = _vision_bytes(shapes, training, rows, lengths, item)
    parts = {
        "weights": weight * total // shares,
        "gradients": weight * count // shares,
        "optimizer": 2 * weight * count // shares,
        "reference": weight * reference // shares if charged else 0,
        "gathered": item * gathered * sharded,
        "activations": (whole if recipe.activation_checkpointing else activations) + images,
        "logits": LOGITS_COPIES * 4 * answers * shapes.vocabulary,
        **_sampling(stage, shapes, training, lengths, item, processes),
    }
    steady = parts["weights"] + parts["optimizer"] + parts["reference"] + parts["images"]
    moments = {
        "prefill": steady + parts["gathered"] + parts["prefill"],
        "sampling": steady + parts["gathered"] + parts["cache"],
        "backward": steady
        + item * _outside_layers(shapes) * sharded
        + sum(parts[name] for name in ("gradients", "activations", "logits")),
        "step": steady + 2 * parts["gradients"],
        "loading": weight * total * sharded
        + (parts["weights"] if parts["reference"] else 0),  # whole, then spread
    }
    disk = _states_at_once(recipe) * (weight * total + 2 * weight * count) + weight * total
    disk += most_kept(recipe) * kept_bytes(recipe, shapes)
    again = recipe.activation_checkpointing
    flops = _flops(stage, shapes, count, lowest, lengths, again=again) / processes
    peak = max(moments.values())
    return StagePlan(stage.kind, total, count, parts, whole + images, peak, disk, flops, lengths)


def _outside_layers(shapes: Shapes) -> int:
    """Parameters that belong to no layer: embeddings, head, projector, last norm."""
    return sum(numel(shape) for shape, spot in shapes.tensors.values() if spot.layer is None)


def _states_at_once(recipe: Recipe) -> int:
    """Checkpoints on disk at the fullest moment: the last ones, the best ones where something is
    scored, and the next one.
    """
    scored = any(stage.eval_every for stage in recipe.stages)
    return recipe.keep.last + (recipe.keep.best if scored else 0) + 1


def kept_bytes(recipe: Recipe, shapes: Shapes) -> int:
    """Of one checkpoint that is kept: all weights, or those of the adapters."""
    count = sum(adapters_of(shapes, recipe.lora).values()) if recipe.lora else shapes.parameters
    return ITEM[recipe.dtype] * count


def adapters_of(shapes: Shapes, lora: Lora) -> dict[str, int]:
    """The parameters of the adapters (A and B together) that LoRA puts on each weight, by the
    weight's name.
    """
    linear = {
        n: p
        for n, (shape, p) in shapes.tensors.items()
        if len(shape) == 2 and p.component not in ("embed", "norm")
    }
    hosts = select(lora.targets, linear, option="lora.targets", why="no linear layer is there")
    return {name: lora.rank * sum(shapes.tensors[name][0]) for name in hosts}


def _adapted(shapes: Shapes, lora: Lora, training: set[str]) -> tuple[set[str], int, int]:
    """With LoRA: the weights whose adapters train, the parameters of those adapters, and those of
    all adapters.
    """
    size = adapters_of(shapes, lora)
    if not size.keys() & training:
        raise everything_frozen("adapter")
    return (
        size.keys() & training,
        sum(size[name] for name in size.keys() & training),
        sum(size.values()),
    )


def _lowest_kept(shapes: Shapes, training: set[str]) -> int:
    """The decoder layer from which on activations are kept: the lowest that trains, the first where
    something below it trains.
    """
    spots = [shapes.tensors[name][1] for name in training]
    if any(spot.part != "text" or spot.component == "embed" for spot in spots):
        return 0
    inside = (spot.layer for spot in spots if spot.layer is not None)
    return min(inside, default=shapes.text.layers)


def _micro_batch(stage: AnyStage, lengths: Lengths) -> tuple[int, int, int]:
    """(images, tokens, tokens with logits) of the largest forward pass of an update."""
    if isinstance(stage, AlignStage):
        return stage.batch, 0, 0
    if isinstance(stage, SftStage):
        example = lengths.prompt + lengths.answer
        tokens = stage.batch * example
        if stage.token_budget:  # of examples shorter than the longest, rows are full all the same
            tokens = max(example, min(tokens, stage.token_budget))
        examples = -(-tokens // example)
        answers = examples * lengths.answer
        return examples, tokens, min(answers, CHUNK) if stage.packed else answers
    row, budget = lengths.prompt + stage.max_new_tokens, stage.token_budget
    if stage.packed:
        responses = stage.group
        if budget:
            responses = max(1, min(responses, (budget - lengths.prompt) // stage.max_new_tokens))
        answers = responses * stage.max_new_tokens
        return 1, lengths.prompt + answers, min(answers, CHUNK)
    responses = min(stage.micro_rows, stage.prompts * stage.group)
    if budget:
        responses = max(1, min(stage.prompts * stage.group, budget // row))
    return responses, responses * row, responses * stage.max_new_tokens


def _vision_bytes(
    shapes: Shapes, training: set[str], rows: int, lengths: Lengths, item: int
) -> int:
    """What the vision tower keeps where it or the projector trains; otherwise the features of the
    images.
    """
    if shapes.vision is None or not lengths.image:
        return 0
    patches = lengths.image * max(1, shapes.pixels_a_token // 196)
    trains = any(shapes.tensors[name][1].part == "vision" for name in training)
    layers = shapes.vision.layers if trains else 0
    return rows * (
        patches * layers * layer_bytes(shapes.vision, item)
        + lengths.image * shapes.text.hidden * item
    )


def _sampling(
    stage: AnyStage, shapes: Shapes, training: set[str], lengths: Lengths, item: int, processes: int
) -> dict[str, int]:
    """What an RL step holds beside the update, nothing in other stages.

    `images` are those of all prompts: features, or pixels where the tower trains. `prefill` are the
    prompts that are sampled at once, through one layer, with their keys and values. `cache` are
    keys and values of their samples, one layer twice while it grows, and the logits of one token.
    """
    if not isinstance(stage, GrpoStage):
        return dict.fromkeys(("images", "prefill", "cache"), 0)
    prompts, text = -(-stage.prompts // processes), shapes.text
    at_once = min(stage.sample_batch or prompts, prompts)
    trains = any(shapes.tensors[name][1].part in ("vision", "projector") for name in training)
    image_token = CHANNELS * shapes.pixels_a_token if trains else text.hidden
    keys_values = 2 * text.keys
    layer = keys_values * item * (lengths.prompt + stage.max_new_tokens)
    logits = LOGITS_COPIES * 4 * shapes.vocabulary
    prompt_token = 3 * text.inner + 3 * text.hidden + keys_values * text.layers
    return {
        "images": prompts * lengths.image * image_token * item if shapes.vision else 0,
        "prefill": at_once * lengths.prompt * item * prompt_token,
        "cache": at_once * stage.group * (layer * (text.layers + 1) + logits),
    }


def _flops(
    stage: AnyStage,
    shapes: Shapes,
    training: int,
    lowest: int,
    lengths: Lengths,
    *,
    again: bool = False,
) -> float:
    """Multiply-adds × 2 of one update through the decoder's matrices: 2 a token forward (sampling
    once, training once), 2 for the gradient of what passes through, 2 for that of what trains, and
    with activation checkpointing 2 to run that `again`. Attention's scores are left out."""
    if isinstance(stage, AlignStage):
        return 0.0
    layers = (
        shape
        for shape, spot in shapes.tensors.values()
        if spot.part == "text" and spot.layer is not None
    )
    forward, head = sum(map(numel, layers)), shapes.vocabulary * shapes.text.hidden
    depth = shapes.text.layers
    through = (2 if again else 1) * forward * (depth - lowest) / max(depth, 1)
    if isinstance(stage, SftStage):
        answers = stage.batch * lengths.answer
        tokens = stage.batch * lengths.prompt + answers
        return 2.0 * (tokens * (forward + through + min(training, forward)) + 3 * answers * head)
    rows = stage.prompts * stage.group
    answers = rows * stage.max_new_tokens
    trained = answers + (stage.prompts if stage.packed else rows) * lengths.prompt
    sampled = answers + stage.prompts * lengths.prompt
    passes = trained * (forward * (2 if stage.beta else 1) + through + min(training, forward))
    return 2.0 * (
        sampled * forward + answers * head + stage.inner_steps * (passes + 3 * answers * head)
    )
