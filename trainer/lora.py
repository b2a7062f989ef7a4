"""LoRA through PEFT (Hu et al. 2021, arXiv 2106.09685): low-rank updates train, the weights stand
still and are merged at export.

The adapters are put into the model in place, so that sampling, losses and checkpoints see an
ordinary model. What they hang on is said in the words of `--freeze`: `text.attn`, `text:4-8.mlp`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors.torch import save_file
from torch import nn

from franken.adapters import PREFIX, WEIGHTS
from franken.distribution import with_extra
from franken.errors import UsageError
from franken.names import canonical, place
from franken.selection import select

if TYPE_CHECKING:
    from peft import LoraModel
    from transformers import PreTrainedModel


def add_lora(
    model: "PreTrainedModel", *, rank: int, alpha: float, targets: Sequence[str], seed: int
) -> list[str]:
    """Put adapters on the linear layers that `targets` mean; returns their module names. B starts
    at zero: nothing changes.

    Raises UsageError where `targets` mean no linear layer, or PEFT is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as e:
        raise UsageError(
            "LoRA needs PEFT", why="it is not installed", fix=with_extra("lora")
        ) from e
    model_type = model.config.model_type
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    parameters = {name for name, _ in model.named_parameters()}  # a tied head is not there
    names = {canonical(f"{n}.weight", model_type): n for n in linear if f"{n}.weight" in parameters}
    places = {key: place(f"{name}.weight", model_type) for key, name in names.items()}
    chosen = sorted(
        names[k]
        for k in select(targets, places, option="lora.targets", why="no linear layer is there")
    )
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen)  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    return chosen


def save_adapter(
    model: nn.Module, folder: Path, weights: Mapping[str, torch.Tensor] | None, *, base: str
) -> None:
    """Write the adapters alone, in PEFT's layout, relative to the checkpoint `base`. `weights` are
    the model's where it is spread over processes.
    """
    named = model.state_dict() if weights is None else weights
    factors = {
        PREFIX + name.replace(".default.", "."): value.detach().cpu().contiguous()
        for name, value in named.items()
        if ".lora_" in name
    }
    save_file(factors, folder / WEIGHTS, metadata={"format": "pt"})
    config = cast("LoraModel", model).peft_config["default"]
    config.base_model_name_or_path = base
    config.save_pretrained(str(folder))


def merge_lora(model: nn.Module) -> None:
    """Add s·B·A to every weight and take the adapters out: the model has the parameters it had
    before.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
