"""From a folder to a model in memory, without network, remote code or silently random weights."""

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from franken.checkpoints import Checkpoint, open_checkpoint
from franken.companions import check_answers, check_companions
from franken.devices import first_of, layers_of
from franken.errors import FrankenError, check_known
from franken.models.families import Family, family_of
from franken.models.features import accept_features, keep_single_tokens
from franken.models.placement import device_map, places_of, shares_of

if TYPE_CHECKING:
    from transformers import (
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        ProcessorMixin,
    )

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Parameters below which the work of a layer is less than that of sharing it among threads.
SMALL = 50_000_000
THREADS = torch.get_num_threads()


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model ready to run, with what is needed to talk to it. `processor` is None for text-only
    models.

    `device` is where inputs go and logits come from. `spread` is the device of every decoder layer
    of a model that is spread over several, and `waiting` what its weights on disk are kept in,
    where they are not those of the checkpoint.
    """

    # transformers' own types lack what each family's classes have
    model: Any
    processor: Any
    tokenizer: Any
    checkpoint: Checkpoint | None
    family: Family
    device: torch.device
    spread: tuple[str, ...] = ()
    waiting: "TemporaryDirectory[str] | None" = None

    @property
    def where(self) -> str:
        """The device, or which layers are on which."""
        return layers_of(self.spread) or str(self.device)

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return self.checkpoint.name if self.checkpoint else self.model.config.model_type

    @property
    def folder(self) -> Path | None:
        """Where it was loaded from."""
        return self.checkpoint.folder if self.checkpoint else None

    @property
    def banned_ids(self) -> Int[Tensor, "banned"]:
        """Tokens that are never sampled: image, video and vision markers."""
        banned = self.family.banned_token_ids(self.model.config, self.tokenizer)
        return torch.tensor(banned, device=self.device)


def pick_device(device: str = "auto") -> torch.device:
    """The device that computes first: of several, the first one, and for `auto` a card where there
    is one. Raises UsageError for a device that is not there.
    """
    return torch.device(shares_of(first_of(device), 0)[0].device)


def pick_dtype(dtype: str, config: Mapping[str, object]) -> torch.dtype:
    """`auto` is the checkpoint's own type; never fp16 unless asked for."""
    if dtype == "auto":
        stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
        return torch.bfloat16 if stored in ("bfloat16", "float16") else torch.float32
    check_known("dtype", [dtype], ("auto", *DTYPES))
    return DTYPES[dtype]


def choose_threads(parameters: int, device: torch.device) -> None:
    """One torch thread for a small model on the CPU, torch's own number for a larger one;
    OMP_NUM_THREADS has the last word.

    Threads that wait for each other on a busy machine make a model of a few million parameters many
    times slower.
    """
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1 if parameters < SMALL else THREADS)


def load(
    path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    attn: str = "sdpa",
    finished: bool = True,
) -> Loaded:
    """Load a local checkpoint in eval mode, on one device or spread over several, as
    `franken.devices` has them.

    >>> creature = franken.load("creature:sft", device="cpu")
    >>> creature.family.model_type, len(creature.family.decoder_layers(creature.model))
    ('qwen2_5_vl', 8)

    A folder that is still being written is refused unless `finished` is false.
    Raises FrankenError when a weight is missing or left over: transformers would fill it with
    random numbers and warn.
    """
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    checkpoint = open_checkpoint(path, finished=finished)
    check_companions(checkpoint.folder)
    precision = pick_dtype(dtype, checkpoint.config)
    values = sum(math.prod(entry.shape) for entry in checkpoint.tensors.values())
    shares = shares_of(device, values * precision.itemsize)
    where = torch.device(shares[0].device)
    multimodal = checkpoint.settings.vision_config is not None
    check_answers(checkpoint.folder, sees=multimodal)
    auto: Any = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
    reader: Any = AutoProcessor if multimodal else AutoTokenizer
    with _told(checkpoint.folder):
        config = AutoConfig.from_pretrained(checkpoint.folder)
        _check_sizes(checkpoint, config)
    waiting = TemporaryDirectory(prefix="franken-") if shares[-1].device == "disk" else None
    spread: dict[str, Any] = {}
    if len(shares) > 1:
        logging.getLogger("accelerate").setLevel(logging.ERROR)  # that weights wait is meant
        with torch.device("meta"):
            empty = auto.from_config(config, dtype=precision)
        layers = family_of(checkpoint.model_type).decoder_layers(empty)
        spread["device_map"] = device_map(empty, layers, shares)
        spread["offload_folder"] = waiting and waiting.name
    with _told(checkpoint.folder):
        model, report = auto.from_pretrained(
            checkpoint.folder,
            dtype=precision,
            attn_implementation=attn,
            local_files_only=True,
            output_loading_info=True,
            **spread,
        )
    problems = {
        kind: sorted(map(str, report.get(kind) or []))
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }
    problems = {kind: names for kind, names in problems.items() if names}
    if problems:
        listed = "; ".join(
            f"{kind.replace('_', ' ')}: {', '.join(names[:3])}" for kind, names in problems.items()
        )
        raise FrankenError(
            f"{path} does not load completely",
            why=listed,
            fix="the checkpoint is incomplete; make it again",
        )
    choose_threads(model.num_parameters(), where)
    with _told(checkpoint.folder):
        processor = reader.from_pretrained(checkpoint.folder, local_files_only=True)
    tokenizer = processor.tokenizer if multimodal else processor
    model = model.eval() if spread else model.to(where).eval()
    loaded = wrap(model, processor if multimodal else None, tokenizer, checkpoint)
    places = places_of(spread.get("device_map", {}))
    return replace(loaded, spread=tuple(places), waiting=waiting)


def _check_sizes(checkpoint: Checkpoint, config: "PretrainedConfig") -> None:
    """Raises FrankenError where transformers would make a decoder of another size than the weights,
    filled with random numbers: a configuration that leaves sizes out means the family's defaults.
    """
    text = config.get_text_config()
    embeddings = checkpoint.tensors.get("text.embed_tokens.weight")
    sizes = {
        "layers": (text.num_hidden_layers, checkpoint.depths.get("text")),
        "features": (text.hidden_size, embeddings.shape[-1] if embeddings else None),
        "tokens": (text.vocab_size, embeddings.shape[0] if embeddings else None),
    }
    for what, (stated, stored) in sizes.items():
        if stored is not None and stated != stored:
            raise FrankenError(
                f"{checkpoint.folder} does not load",
                why=f"its config.json means a decoder of {stated} {what}, its weights have "
                f"{stored}",
                fix="fetch the checkpoint again, or correct its config.json",
            )


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What transformers raises for files that it cannot read becomes a FrankenError."""
    try:
        yield
    except (FrankenError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as e:  # noqa: BLE001 - tokenizers raises Exception itself, configurations anything
        why = f"{type(e).__name__}: {e}".strip().splitlines()[0][:300]
        raise FrankenError(
            f"{folder} does not load",
            why=why,
            fix="fetch the checkpoint again; --debug shows what transformers was doing",
        ) from e


def saved_tensors(model: "PreTrainedModel") -> Iterator[tuple[str, Tensor]]:
    """What a checkpoint of the model holds, by its name in memory: parameters, and the buffers that
    are saved (Gemma 4's scales of layers).
    """
    saved = model.state_dict().keys()
    yield from model.named_parameters()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in saved)


def wrap(
    model: "PreTrainedModel",
    processor: "ProcessorMixin | None",
    tokenizer: "PreTrainedTokenizerBase",
    checkpoint: Checkpoint | None = None,
) -> Loaded:
    """A Loaded around a model that is already in memory."""
    accept_features(model)
    keep_single_tokens(model)
    family = family_of(model.config.model_type)
    return Loaded(model, processor, tokenizer, checkpoint, family, next(model.parameters()).device)
