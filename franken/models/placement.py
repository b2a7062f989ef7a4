"""A model spread over several devices, by accelerate's hooks: where every layer goes, and the
weights that wait elsewhere.

What is outside of the decoder's layers (embeddings, vision tower, projector, the output head) is on
the first device, and so are inputs, masks and logits; the layers follow in order, a run of them on
every device. Over cards alone each holds a like share of its room, as caches and activations lie
beside the weights; where `cpu` or `disk` are named, each device is filled before the next. Weights
on the CPU beside a card, and on disk, are fetched for every pass.

accelerate moves what a layer is given to the layer's device inside the module's call. A hook of
torch therefore sees the input where the layer before left it, and the output on the layer's own
device.

Left out: a layer that is split itself (tensor parallelism), training.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from franken.devices import Share, free_memory, parse_device
from franken.errors import UsageError

WEIGHTS = 0.8  # of a device's free memory may be weights; the rest is caches and activations
FITS = 0.7  # of the first card's: a smaller model is not spread by `auto`

DeviceMap = dict[str, str | int]  # module or parameter → device, as transformers takes it


def shares_of(device: str, nbytes: int) -> tuple[Share, ...]:
    """The devices that a model of `nbytes` goes to. `auto` is the first card, all cards where the
    model would take more than `FITS` of it, and the CPU where there is none.

    Raises UsageError for a device that is not there.
    """
    if device != "auto":
        return tuple(_present(share) for share in parse_device(device))
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if cards < 2 or nbytes <= FITS * torch.cuda.mem_get_info(0)[0]:
        return (Share("cuda" if cards else "cpu"),)
    return tuple(Share(f"cuda:{card}") for card in range(cards))


def _present(share: Share) -> Share:
    name, _, number = share.device.partition(":")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "there is no CUDA device",
            why="torch finds none",
            fix="use --device cpu (in training: --set device=cpu)",
        )
    if name == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"there is no {share.device}", why=f"torch finds {torch.cuda.device_count()} cards"
        )
    return share


def device_map(model: nn.Module, layers: nn.ModuleList, shares: tuple[Share, ...]) -> DeviceMap:
    """Where every module of a model goes, which may be on the meta device.

    Raises UsageError where it does not fit.
    """
    path = next(name for name, module in model.named_modules() if module is layers)
    rest = dict(outside_layers(model, layers))
    sizes = [_nbytes(layer) for layer in layers]
    places = _layout(sum(map(_nbytes, rest.values())), sizes, shares)
    placed = dict.fromkeys(rest, shares[0].device)
    placed |= {f"{path}.{number}": place for number, place in enumerate(places)}
    return {name: _as_accelerate(place) for name, place in placed.items()}


def places_of(map: DeviceMap) -> list[str]:
    """The device of every decoder layer in a device map."""
    return [
        f"cuda:{place}" if isinstance(place, int) else place
        for name, place in map.items()
        if name.rpartition(".")[2].isdigit()
    ]


def outside_layers(
    module: nn.Module, layers: nn.ModuleList, path: str = ""
) -> Iterator[tuple[str, nn.Module | Tensor]]:
    """The largest modules, and single tensors, that hold nothing of the decoder's layers."""
    for name, parameter in module.named_parameters(recurse=False):
        yield path + name, parameter
    for name, buffer in module.named_buffers(recurse=False):
        yield path + name, buffer
    for name, child in module.named_children():
        if child is layers:
            continue
        if any(inner is layers for inner in child.modules()):
            yield from outside_layers(child, layers, f"{path}{name}.")
        else:
            yield path + name, child


def _nbytes(what: nn.Module | Tensor) -> int:
    tensors = [what] if isinstance(what, Tensor) else [*what.parameters(), *what.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _layout(rest: int, layers: list[int], shares: tuple[Share, ...]) -> list[str]:
    """The device of every layer, from sizes in bytes."""
    rooms = [_room(share) for share in shares]
    needed = rest + sum(layers)
    if rest > rooms[0]:
        raise UsageError(
            f"{shares[0].device} has room for {_gib(rooms[0])} of weights",
            why=f"embeddings, vision tower and output head are on the first device: {_gib(rest)}",
            fix="begin with a larger device",
        )
    if needed > sum(rooms):
        raise UsageError(
            f"{' and '.join(s.device for s in shares)} have room for {_gib(sum(rooms))} of weights",
            why=f"the model has {_gib(needed)}",
            fix="name more devices, as cuda:0+cuda:1+cpu; disk has room for anything",
        )
    if all(share.is_card for share in shares):
        share_of_room = needed / sum(rooms)
        largest = max(layers, default=0)
        rooms = [min(room, share_of_room * room + largest) for room in rooms]
    places: list[str] = []
    at, used = 0, rest
    for size in layers:
        while used + size > rooms[at]:
            at, used = at + 1, 0
            if at == len(rooms):
                raise UsageError(
                    "the layers do not fit beside each other",
                    why="whole layers go to a device, and a piece of each device stays empty",
                    fix="name one device more, as +cpu or +disk",
                )
        used += size
        places.append(shares[at].device)
    return places


def _room(share: Share) -> float:
    if share.room is not None:
        return share.room
    if share.device == "disk":
        return float("inf")
    if share.is_card:
        return WEIGHTS * torch.cuda.mem_get_info(share.device)[0]
    return WEIGHTS * free_memory() or float("inf")


def _as_accelerate(device: str) -> str | int:
    return int(device.removeprefix("cuda:")) if device.startswith("cuda:") else device


def _gib(nbytes: float) -> str:
    return f"{nbytes / 2**30:.2f} GiB"


@dataclass(frozen=True)
class Waiting:
    """A weight that is not in the model between passes: the hook that fetches it, and its name
    there.
    """

    hook: Any
    name: str

    def read(self) -> Tensor:
        """Its value, as the next pass will have it."""
        return self.hook.weights_map[self.name]


def waiting_weights(model: nn.Module) -> dict[str, Waiting]:
    """The weights that a pass fetches from elsewhere, by their names in the model."""
    found = {}
    for path, module in model.named_modules():
        hook = getattr(module, "_hf_hook", None)
        for each in getattr(hook, "hooks", [hook]):
            if getattr(each, "offload", False):
                for name, _ in module.named_parameters(recurse=False):
                    found[f"{path}.{name}" if path else name] = Waiting(each, name)
    return found
