"""`patch-SITE` and `patch-SITE-noising`: activations of one image's run put into the other's, by
layer and token group. `patch` stands for both directions at each `--site`.

What is patched and how effects are measured is in `franken.probe.patch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from franken.plugins import register
from franken.probe.groups import GROUPS, PATCHES, ROWS, SITES, ByGroup, most
from franken.probe.method import DIFFERENCE, Columns, Cost

if TYPE_CHECKING:
    import pandas as pd

    from franken.probe.cost import TextShape
    from franken.probe.plan import ProbePlan
    from franken.probe.session import Session
    from franken.tasks import Pair

WAYS = {"": False, "-noising": True}  # what a name ends in → whether it is noising


@dataclass(frozen=True)
class Patch(ByGroup["Patch"]):
    """Denoising says what share of the logit difference comes back, noising what share is lost."""

    noising: bool = False

    short = "patch"
    needs_source = True
    components = "share of the logit difference"
    unit = "pairs"

    @property
    def measures(self) -> str:
        return "lost" if self.noising else "restored"

    @property
    def parts(self) -> tuple[str, ...]:
        """Of the projector all of what it says, of the tower's blocks what the decoder's have but
        single heads.
        """
        if self.by_head:
            return ("text",)
        tower = ("text", "vision")
        return (*tower, "projector") if self.site == "residual" else tower

    @classmethod
    def spelled(cls, sites: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"patch-{site}{way}" for site in sites for way in WAYS)

    @classmethod
    def cost(cls, methods: Sequence[Patch], plan: ProbePlan, shape: TextShape) -> Cost:
        """As if every two replies parted: a clean and a corrupt run a pair, then for every layer
        the layers above it, in rows.
        """
        pairs = [p for p in plan.pairs if not (p.error or p.ineligible)]
        items = [id(item) for p in pairs for item in (p.target, p.source)]
        if plan.part != "text":
            each = 2 + len(plan.layers) * (len(PATCHES) if plan.part == "vision" else 1)
            scored = len(methods) * len(pairs) * each
            return Cost.in_tower(plan, items=items, changes=0, asked=0, scored=scored)
        naive = resumed = 0
        for method in methods:
            variants = len(GROUPS) * (shape.heads if method.by_head else 1)
            naive += 2 * plan.max_new_tokens + 2 + len(plan.layers) * variants
            skipped = 1 if method.site == "residual" else 0  # the patched layer itself
            above = sum(shape.depth - layer - skipped for layer in plan.layers)
            resumed += above * -(-variants // ROWS)
        return Cost(
            forwards=2 * len(methods) * len(pairs),
            naive=len(plan.pairs) * naive,
            resumed_layers=resumed * len(pairs),
            replies=frozenset(items),
            activations=ROWS * shape.row + 4 * shape.stream,  # stream and site of two runs
        )

    @classmethod
    def check(cls, methods: Sequence[Patch], session: Session) -> list[str]:
        from franken.probe.controls import check_patching, check_tower

        if session.plan.part != "text":
            return check_tower(session.loaded, session.control_pairs, session.plan.part)
        sites = sorted({method.site for method in methods})
        return check_patching(session.loaded, session.control_pairs, sites)

    def measure(self, session: Session, pair: Pair) -> Sequence[Columns]:
        from franken.probe.patch import patch_pair
        from franken.probe.tower import patch_tower

        loaded, plan, forwards = session.loaded, session.plan, not self.noising
        prompts = session.prompt(pair.target), session.prompt(pair.source)
        replies = session.reply(pair.target), session.reply(pair.source)
        given = loaded, prompts, replies
        if plan.part == "text":
            return patch_pair(*given, self.site, plan.layers, denoising=forwards)
        return patch_tower(*given, plan.part, self.site, plan.layers, denoising=forwards)

    def title(self, rows: pd.DataFrame) -> str:
        """What is patched, and what carries most: the layer from which the last token carries more
        than the image's tokens, or the head that carries most; over all tasks.
        """
        compared = rows["metric"].iloc[0].endswith(DIFFERENCE)
        share = "Change in the share" if compared else "Share"
        if self.by_head:
            verb = "lose" if self.noising else "restore"
            text = f"{share} of the logit difference that single heads {verb}"
            return text if compared else text + most(rows)
        verb = "lost to the corrupt" if self.noising else "restored by the clean"
        where = _part(rows)
        text = f"{share} of the logit difference {verb} {where}{SITES[self.site]}"
        if compared or self.site != "residual" or not {"image", "last"} <= set(rows["component"]):
            return text
        pooled = rows.groupby(["component", "layer"])["value"].mean()
        image, last = pooled["image"], pooled["last"]
        over = [layer for layer in last.index if last[layer] > image.get(layer, 1.0)]
        if not over:
            return text
        return f"{text}: it has left the image for the last token by layer {int(over[0])}"


def _part(rows: pd.DataFrame) -> str:
    """Before a site's name, the part where it is not the decoder's."""
    part = str(rows["part"].iloc[0])
    return {"vision": "tower's ", "projector": "projector's "}.get(part, "")


for _site in SITES:
    for _way, _noising in WAYS.items():
        _name = f"patch-{_site}{_way}"
        register("probe", _name, Patch(_name, _site, _noising))
