"""A LoRA adapter (PEFT's layout) on top of a checkpoint: W + s·B·A, never written out.

`open_adapter` gives a Checkpoint like any other: the tensors that the adapter stores whole
(`modules_to_save`, biases) are its
own, all others are the base's, and `updates` says which of those get a product added. s is alpha /
r, or alpha / √r with rsLoRA (Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv
2312.03732).

Left out, and refused: DoRA, transposed and convolutional layers, methods other than LoRA.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from franken.checkpoints import ADAPTER, Checkpoint, LowRank, TensorEntry, file_entries
from franken.errors import FrankenError, UsageError
from franken.names import canonical, place

WEIGHTS = "adapter_model.safetensors"
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.weight)?$")
# Initialisations that subtract from the base's weights what the factors start with: B·A is then
# relative to weights that no file holds. (PEFT repeats them when it loads such an adapter.)
_MOVES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_NOT_PLAIN = (
    "use_dora",
    "fan_in_fan_out",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "alora_invocation_tokens",
    "trainable_token_indices",
    "target_parameters",
    "velora_config",
    "monteclora_config",
    "arrow_config",
    "kasa_config",
    "ensure_weight_tying",
)


def open_adapter(folder: Path, base: Checkpoint) -> Checkpoint:
    """The base with the adapter applied. Raises UsageError for a kind of adapter that is not plain
    LoRA or does not fit.
    """
    settings = _settings(folder)
    tensors, factors = dict(base.tensors), dict[str, dict[str, TensorEntry]]()
    for raw, dtype, shape, start, stop in file_entries(folder / WEIGHTS):
        name = raw.removeprefix("base_model.model.")
        found = _FACTOR.match(name)
        weight = f"{found['module']}.weight" if found else name.replace(".base_layer.", ".")
        key = canonical(weight, base.model_type)
        if key not in base.tensors:
            raise UsageError(
                f"the adapter {folder.name} does not fit {base.name}",
                why=f"it changes {key}, which the base does not have",
                fix="give the checkpoint that it was trained on as the one before it",
            )
        spot = place(weight, base.model_type)
        entry = TensorEntry(raw, key, folder / WEIGHTS, dtype, shape, start, stop, spot)
        if found:
            factors.setdefault(key, {})[found["side"]] = entry
            if len(shape) != 2:
                raise _unsupported(folder, f"{raw} has {len(shape)} axes")
        elif shape != base.tensors[key].shape:
            raise UsageError(
                f"{raw} is {list(shape)} in the adapter, {list(base.tensors[key].shape)} in {base.name}"
            )
        else:
            tensors[key] = entry
    updates = {key: _update(key, pair, settings, base, folder) for key, pair in factors.items()}
    return replace(base, folder=folder, tensors=tensors, updates=updates)


def _update(
    key: str,
    pair: Mapping[str, TensorEntry],
    settings: Mapping[str, Any],
    base: Checkpoint,
    folder: Path,
) -> LowRank:
    if set(pair) != {"A", "B"}:
        raise FrankenError(
            f"{folder.name} holds only one factor of {key}", fix="save the adapter again"
        )
    a, b = pair["A"], pair["B"]
    embedding = "lora_embedding" in a.name
    rows, columns = (a.shape[1], b.shape[0]) if embedding else (b.shape[0], a.shape[1])
    if (rows, columns) != base.tensors[key].shape or a.shape[0] != b.shape[1]:
        raise UsageError(
            f"the adapter {folder.name} does not fit {base.name}",
            why=f"its update of {key} is {rows} × {columns}, the weight {list(base.tensors[key].shape)}",
        )
    rank = a.shape[0]
    module = a.name.removeprefix("base_model.model.").split(".lora_")[0]
    patterns = settings.get("alpha_pattern") or {}
    alpha = next(
        (v for k, v in patterns.items() if re.match(rf"(.*\.)?({k})$", module)),
        settings["lora_alpha"],
    )
    scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    return LowRank(a, b, float(scale), embedding)


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / ADAPTER).read_text())
    except json.JSONDecodeError as e:
        raise FrankenError(f"{folder / ADAPTER} is not JSON", why=str(e)) from e
    if not (folder / WEIGHTS).exists():
        raise FrankenError(
            f"no {WEIGHTS} in {folder}",
            why="only safetensors are read",
            fix="save the adapter with safe_serialization",
        )
    if settings.get("peft_type") != "LORA":
        raise _unsupported(folder, f"it is {settings.get('peft_type')}")
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_MOVES_THE_BASE):
        raise UsageError(
            f"the adapter {folder.name} is relative to other weights than its base's",
            why=f"it was initialised by {start}, which changes the base too",
            fix="save it with PEFT's save_pretrained(…, path_initial_model_for_weight_conversion=…), "
            "which makes plain LoRA of it, or merge it into its base with PEFT",
        )
    for option in _NOT_PLAIN:
        if settings.get(option):
            raise _unsupported(folder, f"it has {option}")
    return settings


def _unsupported(folder: Path, why: str) -> UsageError:
    return UsageError(
        f"the adapter {folder.name} is not plain LoRA",
        why=why,
        fix="merge it into its base with PEFT, then compare",
    )
