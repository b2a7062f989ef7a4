"""The arithmetic of a merge, in torch: tensors are read, computed with, and rounded once.

Everything is computed in fp32 (fp64 when an input is) and rounded to the type of the base's tensor.
mergekit is imported when one of its methods is named, and this module when a tensor has to be
computed: an exact transplant needs neither.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from franken.checkpoints import LowRank, TensorEntry, read_bytes
from franken.errors import FrankenError
from franken.merge.parts import DROP, KEEP, parse_part
from franken.merge.recipe import ADAPTER, CAST, COPY, NOISE, Parameters
from franken.merge.surgery import Known, operated

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def read_tensor(entry: TensorEntry) -> Tensor:
    """A tensor from disk, in its own type and shape. Raises FrankenError for a type that torch has
    not.
    """
    if entry.dtype not in DTYPES:
        raise FrankenError(
            f"cannot compute with {entry.dtype}",
            why=f"{entry.name} in {entry.file.name} has this type",
            fix="copy it whole, or leave it out",
        )
    data = read_bytes(entry)
    if not data:
        return torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    return torch.frombuffer(data, dtype=DTYPES[entry.dtype]).reshape(entry.shape)


def read_source(entry: TensorEntry, update: LowRank | None) -> Tensor:
    """A tensor with what an adapter adds to it: W + scale · B·A, in fp32 (fp64 for F64)."""
    weights = read_tensor(entry)
    if update is None:
        return weights
    wide = torch.float64 if weights.dtype == torch.float64 else torch.float32
    product = read_tensor(update.b).to(wide) @ read_tensor(update.a).to(wide)
    return weights.to(wide) + update.scale * (product.T if update.transposed else product)


def compute(
    method: str,
    tensors: Sequence[Tensor],
    names: Sequence[str],
    parameters: Parameters,
    *,
    origin: int | None,
    seed: int,
    known: Known | None = None,
    key: str = "",
) -> Tensor:
    """The merged values, in fp32 (fp64 when an input is), of tensors of one shape. `origin` is an
    index into them. `known` keeps what surgery found of the tensor called `key`, for the next.
    """
    wide = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    tensors = [t.to(wide) for t in tensors]
    if method in (COPY, CAST, ADAPTER):
        return tensors[0]
    if method in (KEEP, DROP):
        part, kept = parse_part(str(parameters["part"])), {} if known is None else known
        base, donor = tensors
        return operated(base, donor, part, keep=method == KEEP, seed=seed, known=kept, key=key)
    if method == NOISE:
        draws = torch.randn(
            tensors[0].shape, generator=torch.Generator().manual_seed(seed), dtype=wide
        )
        spread = tensors[0].std() if tensors[0].numel() > 1 else torch.zeros((), dtype=wide)
        ratio = parameters["ratio"]
        assert isinstance(ratio, int | float)
        return (1 - ratio) * tensors[0] + ratio * spread * draws
    from mergekit.merge_methods import merge_tensors

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        try:
            return merge_tensors(
                tensors, method, parameters=dict(parameters), ids=list(names), base_index=origin
            )
        except ValueError as e:  # values that only this tensor's shape or contents forbid
            raise FrankenError(
                f"{method} cannot merge this tensor", why=str(e), fix="other parameters may"
            ) from e


def as_stored(values: Tensor, dtype: str) -> memoryview:
    """Values rounded to a safetensors type: the bytes that are written to disk."""
    flat = values.to(DTYPES[dtype]).contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
