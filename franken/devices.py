"""Which devices there are to be used, as the command line writes them.

    auto                    the card, or the CPU where there is none; several cards share a model
                            that is too large for one
    cpu, cuda, cuda:1       that one
    cuda:0+cuda:1           both: each holds a share of the layers
    cuda:0=20GiB+cpu+disk   so much of the first; what does not fit there waits in the CPU's memory
                            or in the checkpoint's files, and is fetched in every pass
    cuda:0,cuda:1           with --devices: a lane of a study on each

Nothing here imports torch, so a plan can be checked without it; whether a card is there is asked
where a model is loaded (`franken.models.placement`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from franken.errors import UsageError

UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}
_SHARE = re.compile(r"(cpu|disk|cuda(?::[0-9]{1,3})?|mps)(?:=([0-9]{1,6}(?:\.[0-9]+)?)(\w+))?")


@dataclass(frozen=True)
class Share:
    """A device that holds a part of a model, and how many bytes of weights at most."""

    device: str
    room: int | None = None

    @property
    def is_card(self) -> bool:
        """Whether it computes by itself, and is not the CPU."""
        return self.device.partition(":")[0] not in ("cpu", "disk")


def parse_device(text: str) -> tuple[Share, ...]:
    """The devices that a model is spread over, as they are written; one for most. Raises
    UsageError.
    """
    shares = [_share(piece, text) for piece in text.split("+")]
    names = [share.device for share in shares]
    order = [2 if name == "disk" else 1 if name == "cpu" else 0 for name in names]
    if len(set(names)) < len(names):
        raise UsageError(f"--device {text} names a device twice", fix="name each of them once")
    if len(names) > 1 and "cuda" in names:
        raise UsageError(f"--device {text}: which card is cuda?", fix="write cuda:0+cuda:1")
    if order != sorted(order) or names[0] == "disk":
        raise UsageError(
            f"--device {text} is in the wrong order",
            why="a model computes on the first; what does not fit goes to the next",
            fix="name cards first, then cpu, then disk",
        )
    return tuple(shares)


def parse_devices(text: str) -> tuple[str, ...]:
    """The devices of lanes that work side by side, one for each lane; none of an empty text. Raises
    UsageError.
    """
    pieces = [piece.strip() for piece in text.split(",")] if text else []
    for piece in pieces:
        parse_device(piece)
    return tuple(pieces)


def lanes_of(devices: Sequence[str], jobs: int | None, device: str = "auto") -> str:
    """The kind of device that all lanes are on: `cpu`, `cuda`.

    Raises UsageError where they are of several kinds, since rounding would then depend on which
    lane was free, and where `jobs` or `device` say something else.
    """
    kinds = {first_of(each).partition(":")[0] for each in devices}
    if len(kinds) > 1:
        raise UsageError(
            f"lanes on {' and '.join(sorted(kinds))}",
            why="what is compared has to be computed on one kind of device",
            fix="name devices of one kind",
        )
    if jobs not in (None, len(devices)):
        raise UsageError(
            f"--jobs {jobs} for {len(devices)} devices",
            why="there is a lane for every device",
            fix="leave --jobs out; a device that is named twice has two lanes",
        )
    if device != "auto":
        raise UsageError("--device and --devices exclude each other", fix="give one of them")
    return kinds.pop()


def first_of(device: str) -> str:
    """The device on which a model computes first: `cuda:0` of `cuda:0=20GiB+cpu`."""
    return device if device == "auto" else parse_device(device)[0].device


def free_memory() -> int:
    """Bytes that the machine, or the container, still has; 0 where the system does not say."""
    free = _number_in("/proc/meminfo", r"MemAvailable:\s+(\d+) kB") * 1024
    limit = _number_in("/sys/fs/cgroup/memory.max", r"(\d+)")
    return min(free, limit or free)


def _share(piece: str, text: str) -> Share:
    match = _SHARE.fullmatch(piece)
    if match is None or (match[2] and (match[3] not in UNITS or match[1] == "disk")):
        raise UsageError(
            f"unknown device {text!r}",
            why=f"{piece!r} is none",
            fix="use cpu, cuda, cuda:1, or several: cuda:0+cuda:1, cuda:0=20GiB+cpu+disk",
        )
    return Share(match[1], int(float(match[2]) * UNITS[match[3]]) if match[2] else None)


def _number_in(file: str, pattern: str) -> int:
    """The number in a file of the system; 0 where there is none."""
    text = Path(file).read_text() if Path(file).exists() else ""
    match = re.search(pattern, text)
    return int(match[1]) if match else 0


def layers_of(places: Sequence[str]) -> str:
    """`cuda:0 layers 0..13, cuda:1 layers 14..27`, from the device of every layer."""
    said, first = [], 0
    for at in range(1, len(places) + 1):
        if at == len(places) or places[at] != places[first]:
            what = f"layer {first}" if at - first == 1 else f"layers {first}..{at - 1}"
            said.append(f"{places[first]} {what}")
            first = at
    return ", ".join(said)
