"""Stitching: one model up to a layer and the other from there on, at every token (Bansal et al.
2021, arXiv 2106.07682, without a trained stitch; CMAP, arXiv 2402.14811, for stages of one model).

A model is a chain: tower, projector, decoder. Below the seam runs the *lower* model, above it the
*upper* one. What is no layer goes with its neighbour: patches with the tower's first block, what
follows its last with the projector; embeddings with the decoder's layer 0, its norm and head with
the last. So a seam at the bottom of a part is the upper model and one at the top of the decoder is
the lower model, bit for bit, and one layer that differs makes a step from 0 to 1 at that layer.

Two things are read of a stitched model: at the fork of the two models' replies the share of their
divergence that it restores (`franken.probe.across`), and its own greedy reply, graded. The first
runs only the layers above the seam again, on the lower model's stream, one row at a time: the same
kernels as in a whole run, so that equal layers give equal bits. For replies the modules of both
models are put into one, and back; nothing is copied.

Where bases drift apart, a `Carry` takes the lower model's stream into the upper's basis: affine by
least squares, shrunk towards leaving it as it is, or a rotation (orthogonal Procrustes), fitted on
prompts that are not probed. What Qwen3-VL's deepstack adds above the seam is not carried; LLaVA's
newline token is the receiving model's. The inputs that Gemma 4's layers have beside their stream
are made by the embeddings, and are the lower model's. Left out: stitching models of unequal depth
or width.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from franken.errors import FrankenError
from franken.generate.native import Prompt, Response, Sampling, encode_prompts, sample
from franken.models.batch import ModelBatch
from franken.models.hooks import keeping, returning
from franken.models.loading import Loaded
from franken.probe.patch import Recording, record, resume
from franken.probe.tower import Said, blocks_of, run_tower, tower_modules

RIDGE = 1e-3  # of the stream's mean variance; what few tokens do not tell stays as it is


@dataclass(frozen=True)
class Carry:
    """A map of a model's residual stream into another's basis."""

    weight: Float[Tensor, "hidden hidden"]
    bias: Float[Tensor, "hidden"]

    def __call__(self, stream: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows hidden"]:
        return stream @ self.weight.to(stream) + self.bias.to(stream)


def fit_carry(
    lower: Float[Tensor, "tokens hidden"], upper: Float[Tensor, "tokens hidden"], kind: str
) -> Carry:
    """The map from `lower` to `upper` at the same tokens, in fp64. `affine`: I + D with the least
    ‖lower (I + D) + b − upper‖² + λ‖D‖²; `rotation`: an orthogonal matrix and a shift.
    """
    x, y = lower.double(), upper.double()
    means = x.mean(0), y.mean(0)
    x, y = x - means[0], y - means[1]
    if kind == "rotation":
        left, _, right = torch.linalg.svd(x.mT @ y)
        weight = left @ right
    else:
        hidden = x.shape[1]
        one = torch.eye(hidden, dtype=x.dtype, device=x.device)
        gram = x.mT @ x
        weight = one + torch.linalg.solve(
            gram + RIDGE * gram.trace() / hidden * one, x.mT @ (y - x)
        )
    return Carry(weight, means[1] - means[0] @ weight)


@dataclass
class Carries:
    """The maps of both directions at every seam of the decoder, fitted when they are asked for.

    `streams` are the probed and the second model's, before each layer and after the last, over the
    tokens of all calibration prompts.
    """

    kind: str
    streams: tuple[Sequence[Tensor], Sequence[Tensor]]
    fitted: dict[tuple[bool, int], Carry] = field(default_factory=dict)

    def at(self, seam: int, *, back: bool) -> Carry:
        """From the probed model to the second below layer `seam`, or `back`."""
        if (back, seam) not in self.fitted:
            own, second = (stream[seam] for stream in self.streams)
            pair = (second, own) if back else (own, second)
            self.fitted[back, seam] = fit_carry(*pair, self.kind)
        return self.fitted[back, seam]


def calibrate(
    models: tuple[Loaded, Loaded], texts: Sequence[tuple[Prompt, Sequence[int]]], kind: str
) -> Carries:
    """Carries between two models, from both runs over prompts and the replies behind them."""
    streams: tuple[list[list[Tensor]], ...] = ([], [])
    for prompt, reply in texts:
        batch = encode_prompts(models[0], [prompt]).append(reply)
        for loaded, kept in zip(models, streams, strict=True):
            kept.append([x.cpu() for x in record(loaded.model, batch, "residual").stream])
    own, second = ([torch.cat(list(seam)) for seam in zip(*s, strict=True)] for s in streams)
    return Carries(kind, (own, second))


@dataclass(frozen=True)
class Stitch:
    """`lower` in the first `below` layers of a part and in all parts before it, `upper` in the
    rest. A projector has one layer.
    """

    lower: Loaded
    upper: Loaded
    part: str
    below: int
    carry: Carry | None = None

    @property
    def whole(self) -> Loaded | None:
        """The model that it is where the other has nothing to say."""
        if self.below == 0 and self.part != "projector":
            return self.upper
        top = len(self.lower.family.decoder_layers(self.lower.model))
        return self.lower if (self.part, self.below) == ("text", top) else None

    def logits(self, batch: ModelBatch, lower: "Run", upper: "Run") -> Float[Tensor, "vocabulary"]:
        """The last logits after one row, of which both models' own runs are known."""
        if self.whole is not None:
            return (lower if self.whole is self.lower else upper).recording.logits
        if self.part != "text":
            with self.running(lower.tower) as stitched, torch.no_grad():
                output = stitched.model(**batch, use_cache=False, logits_to_keep=1)
            return output.logits[0, -1].float()
        stream = lower.recording.stream[self.below][None]
        if self.carry is not None:
            stream = self.carry(stream)
        below, above = lower.recording, upper.recording
        calls = [
            (low, named) for (low, _), (_, named) in zip(below.calls, above.calls, strict=True)
        ]
        above = replace(above, added=below.added, calls=calls)
        return resume(self.upper.model, above, self.below - 1, stream)[0]

    @contextmanager
    def running(self, tower: Said) -> Iterator[Loaded]:
        """While it lasts, the stitched model. A seam in the tower needs what the lower one's said
        of the batch that is run.
        """
        if self.whole is not None:
            yield self.whole
        elif self.part == "text":
            with _hybrid(self.lower, self.upper, self.below, self.carry) as loaded:
                yield loaded
        else:
            modules = tower_modules(self.upper)
            given = dict(zip(modules[: self._said], tower[: self._said], strict=True))
            with returning(given):
                yield self.upper

    @property
    def _said(self) -> int:
        """How many modules of the tower are the lower model's."""
        if self.part == "vision":
            return self.below
        modules = tower_modules(self.lower)
        return len(modules) if self.below else len(blocks_of(self.lower))


@dataclass(frozen=True)
class Run:
    """What one model did with a batch."""

    recording: Recording
    tower: Said


def run_of(loaded: Loaded, batch: ModelBatch) -> Run:
    """A recorded run over one row, and what its tower said."""
    with keeping(tower_modules(loaded)) as tower:
        return Run(record(loaded.model, batch, "residual"), tower)


def replies(
    own: Loaded, stitches: Sequence[Stitch], prompts: Sequence[Prompt], max_new_tokens: int
) -> list[list[Response]]:
    """The greedy replies of every stitched model to prompts that run as one batch, encoded by
    `own`.
    """
    batch = encode_prompts(own, prompts)
    towers: Mapping[int, Said] = {}
    if any(stitch.part != "text" and stitch.whole is None for stitch in stitches):
        models = {id(stitch.lower): stitch.lower for stitch in stitches}
        towers = {key: _tower(loaded, batch) for key, loaded in models.items()}
    greedy, keys = Sampling(1, 0.0, max_new_tokens), [prompt.key for prompt in prompts]
    answers: list[list[Response]] = []
    for stitch in stitches:
        with stitch.running(towers.get(id(stitch.lower), [])) as loaded:
            answers.append([drawn[0] for drawn in sample(loaded, batch, keys, greedy)])
    return answers


@torch.no_grad()
def _tower(loaded: Loaded, batch: ModelBatch) -> Said:
    with keeping(tower_modules(loaded)) as tower:
        run_tower(loaded, batch)
    return tower


@contextmanager
def _hybrid(lower: Loaded, upper: Loaded, below: int, carry: Carry | None) -> Iterator[Loaded]:
    """`lower` with the decoder layers from `below` on, the norm and the head of `upper`."""
    model: Any = lower.model
    decoder, giver = model.get_decoder(), upper.model.get_decoder()
    if len(decoder.layers) != len(giver.layers):
        raise FrankenError("models of unequal depth cannot be stitched")
    layers, norm, head = list(decoder.layers), decoder.norm, model.get_output_embeddings()
    with ExitStack() as stack:
        if carry is not None:
            hook = _carrying(carry)
            handle = giver.layers[below].register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        try:
            for number in range(below, len(layers)):
                decoder.layers[number] = giver.layers[number]
            decoder.norm = giver.norm
            model.set_output_embeddings(upper.model.get_output_embeddings())
            yield lower
        finally:
            for number, layer in enumerate(layers):
                decoder.layers[number] = layer
            decoder.norm = norm
            model.set_output_embeddings(head)


def _carrying(carry: Carry) -> Any:
    """A hook before a layer that carries its input."""

    def hook(
        _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        if args:
            return (carry(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": carry(kwargs["hidden_states"])}

    return hook
