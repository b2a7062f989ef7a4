"""A LoRA adapter (PEFT's layout) on top of a checkpoint: W + s·B·A, never written out.

`open_adapter` gives a Checkpoint like any other: the tensors that the adapter stores whole
(`modules_to_save`, biases) are its own, all others are the base's, and `updates` says which of
those get a product added. s is alpha / r, or alpha / √r with rsLoRA (Hu et al. 2021, arXiv
2106.09685; Kalajdzievski 2023, arXiv 2312.03732).

Left out, and refused: DoRA, transposed and convolutional layers, methods other than LoRA, and
initialisations that move the base's weights (PiSSA, arXiv 2404.02948; OLoRA, arXiv 2406.01775).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from franken.checkpoints import ADAPTER, Checkpoint, LowRank, TensorEntry, as_entry
from franken.configs import complaints
from franken.errors import FrankenError, UsageError
from franken.files import AGAIN, inside, read_json
from franken.headers import read_header

WEIGHTS = "adapter_model.safetensors"
FLOATING = ("F64", "F32", "F16", "BF16")
PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.weight)?$")
# They subtract from the base's weights what the factors start with: B·A is then relative to weights
# that no file holds. (PEFT repeats them when it loads such an adapter.)
_MOVES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Settings that do not change what is added, or only say where; any other that is set is refused.
_HARMLESS = {
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
}
Alpha = Annotated[float | int, Field(ge=0, le=1e6)]
Rank = Annotated[int, Field(ge=1, le=2**20)]
Pattern = Annotated[str, Field(max_length=300)]


class AdapterConfig(BaseModel):
    """adapter_config.json, as far as it changes the numbers."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    peft_type: str
    r: Rank = 8
    lora_alpha: Alpha = 8
    use_rslora: bool = False
    rank_pattern: dict[Pattern, Rank] | None = None
    alpha_pattern: dict[Pattern, Alpha] | None = None
    init_lora_weights: bool | str | None = True

    def of_module(self, module: str) -> tuple[int, float]:
        """(rank, s) of a module: of the first pattern that its name ends with, else the common
        ones.
        """
        rank = _first_match(self.rank_pattern or {}, module, self.r)
        alpha = _first_match(self.alpha_pattern or {}, module, self.lora_alpha)
        return int(rank), alpha / (math.sqrt(rank) if self.use_rslora else rank)


class _Factors(NamedTuple):
    """The two factors of one weight, as far as they were seen, and PEFT's name of its module."""

    module: str
    embedding: bool
    a: TensorEntry | None = None
    b: TensorEntry | None = None


def open_adapter(folder: Path, base: Checkpoint) -> Checkpoint:
    """The base with the adapter applied. Raises UsageError for a kind of adapter that is not plain
    LoRA or does not fit, FrankenError for files that are broken.
    """
    if not (folder / WEIGHTS).exists():
        raise FrankenError(
            f"no {WEIGHTS} in {folder}",
            why="only safetensors are read",
            fix="save the adapter with safe_serialization",
        )
    settings, file = _settings(folder), inside(folder, WEIGHTS)
    tensors, factors = dict(base.tensors), dict[str, _Factors]()
    for stored in read_header(file):
        name = stored.name.removeprefix(PREFIX)
        factor = _FACTOR.match(name)
        weight = f"{factor['module']}.weight" if factor else name.replace(".base_layer.", ".")
        entry = as_entry(file, stored, base.model_type, weight)
        own = base.tensors.get(entry.canonical)
        if own is None:
            raise _unfit(
                folder, base, f"it changes {entry.canonical}, which the base does not have"
            )
        if entry.dtype not in FLOATING:
            raise _unsupported(folder, f"{entry.name} is {entry.dtype}")
        if factor:
            if len(entry.shape) != 2:
                raise _unsupported(folder, f"{entry.name} has {len(entry.shape)} axes")
            seen = factors.get(entry.canonical) or _Factors(
                factor["module"], factor["embedding"] is not None
            )
            side = {"a": entry} if factor["side"] == "A" else {"b": entry}
            factors[entry.canonical] = seen._replace(**side)
        elif entry.shape != own.shape:
            raise _unfit(
                folder, base, f"{entry.name} is {list(entry.shape)}, the base's {list(own.shape)}"
            )
        else:
            tensors[entry.canonical] = entry
    updates = {key: _update(key, pair, settings, base, folder) for key, pair in factors.items()}
    return replace(base, folder=folder, tensors=tensors, updates=updates)


def _update(
    key: str, factors: _Factors, settings: AdapterConfig, base: Checkpoint, folder: Path
) -> LowRank:
    a, b = factors.a, factors.b
    if a is None or b is None:
        raise FrankenError(
            f"{folder.name} holds only one factor of {key}",
            why="LoRA is a product of two",
            fix="save the adapter again",
        )
    rows, columns = (a.shape[1], b.shape[0]) if factors.embedding else (b.shape[0], a.shape[1])
    if (rows, columns) != base.tensors[key].shape or a.shape[0] != b.shape[1]:
        shape = list(base.tensors[key].shape)
        raise _unfit(folder, base, f"its update of {key} is {rows} × {columns}, the weight {shape}")
    rank, scale = settings.of_module(factors.module)
    if rank != a.shape[0]:
        raise FrankenError(
            f"{folder / ADAPTER} does not fit its weights",
            why=f"it gives {factors.module} the rank {rank}, and {a.name} has {a.shape[0]}",
            fix=AGAIN,
        )
    return LowRank(a, b, scale, factors.embedding)


def _settings(folder: Path) -> AdapterConfig:
    path = inside(folder, ADAPTER)
    try:
        settings = AdapterConfig.model_validate(read_json(path))
    except ValidationError as e:
        raise FrankenError(f"{path} is not an adapter's", why=complaints(e), fix=AGAIN) from e
    for pattern in (*(settings.rank_pattern or {}), *(settings.alpha_pattern or {})):
        _check_pattern(pattern, path)
    if settings.peft_type != "LORA":
        raise _unsupported(folder, f"it is {settings.peft_type}")
    start = settings.init_lora_weights
    if isinstance(start, str) and start.startswith(_MOVES_THE_BASE):
        raise UsageError(
            f"the adapter {folder.name} is relative to other weights than its base's",
            why=f"it was initialised by {start}, which changes the base too",
            fix="save it with PEFT's save_pretrained(…, path_initial_model_for_weight_conversion=…)"
            ", which makes plain LoRA of it, or merge it into its base with PEFT",
        )
    for option, value in (settings.model_extra or {}).items():
        if value and option not in _HARMLESS:
            raise _unsupported(folder, f"it has {option}")
    return settings


def _check_pattern(pattern: str, path: Path) -> None:
    """Only expressions whose matching takes polynomial time: no repeated group, few repetitions."""
    try:
        re.compile(pattern)
        simple = not re.search(r"\)[*+{?]", pattern) and len(re.findall(r"[*+{]", pattern)) <= 3
    except re.error:
        simple = False
    if not simple:
        raise FrankenError(
            f"{path} holds a pattern that is not matched: {pattern[:80]!r}",
            why="it is no regular expression, or one that can take forever",
            fix="write it without repeated groups",
        )


def _first_match(patterns: Mapping[str, float], module: str, otherwise: float) -> float:
    """As PEFT matches: at the end of the name, after a dot or the whole of it."""
    return next(
        (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)),
        otherwise,
    )


def _unfit(folder: Path, base: Checkpoint, why: str) -> UsageError:
    return UsageError(
        f"the adapter {folder.name} does not fit {base.name}",
        why=why,
        fix="give the checkpoint that it was trained on as the one before it",
    )


def _unsupported(folder: Path, why: str) -> UsageError:
    return UsageError(
        f"the adapter {folder.name} is not plain LoRA",
        why=why,
        fix="merge it into its base with PEFT, then compare",
    )
