"""Which part of an update is kept or dropped, as data: `rank:8`, `top:1%`, `sign`, …

rank:R          of every matrix the R leading directions: U_r Σ_r V_rᵀ (arXiv 2510.00553)
top:P%          of every tensor the P % of elements with the largest |Δ| (arXiv 2505.11711)
sign            of every element only the sign: sgn(Δ) · mean |Δ| of its tensor
norms           one-dimensional tensors, norm scales and biases, and nothing else
rotation        the new directions with the old singular values, U′ΣV′ᵀ − W (arXiv 2509.12235)
scale           the old directions with the new singular values, UΣ′Vᵀ − W
random-rank:R   R random directions: the null of rank:R
random:P%       P % of the elements, drawn: the null of top:P%
"""

import re
from dataclasses import dataclass

from franken.errors import UsageError, unknown

KEEP, DROP = "keep", "drop"
RANKS, SHARES, WHOLE = (
    ("rank", "random-rank"),
    ("top", "random"),
    ("sign", "norms", "rotation", "scale"),
)
NULL_OF = {"rank": "random-rank", "top": "random"}
_SIZED = re.compile(r"([a-z-]+):(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})(%?)")


@dataclass(frozen=True)
class Part:
    """A part of an update: `size` is a rank, a share in [0, 1], or 0 for kinds without one."""

    kind: str
    size: float = 0.0

    def __str__(self) -> str:
        if self.kind in RANKS:
            return f"{self.kind}:{int(self.size)}"
        return f"{self.kind}:{100 * self.size:g}%" if self.kind in SHARES else self.kind


def parse_part(text: str) -> Part:
    """Read `rank:8`, `top:1%`, `sign`. Raises UsageError."""
    if text in WHOLE:
        return Part(text)
    sized = _SIZED.fullmatch(text)
    kind = sized[1] if sized else text.partition(":")[0]
    if kind not in (*RANKS, *SHARES):
        spelled = [*(f"{k}:8" for k in RANKS), *(f"{k}:1%" for k in SHARES), *WHOLE]
        raise unknown("part of an update", text, spelled)
    if sized:
        size, share = float(sized[2]), bool(sized[3])
        if kind in RANKS and not share and size >= 1 and size.is_integer():
            return Part(kind, size)
        if kind in SHARES and share and 0 < size <= 100:
            return Part(kind, size / 100)
    wanted = "a whole number from 1 on" if kind in RANKS else "a percentage, above 0 and up to 100"
    example = f"{kind}:8" if kind in RANKS else f"{kind}:1%"
    raise UsageError(f"cannot read the part {text!r}", f"{kind} takes {wanted}", f"write {example}")
