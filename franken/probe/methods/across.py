"""`across-SITE` and `across-SITE-back`: activations of one model put into the other's run on the
same tokens, by layer and token group. `across` stands for both directions at each `--site`.

`across` gives the probed model's activations to the second (`--against`): with RL probed against
SFT, what restores RL. `-back` gives the second's to the probed model: what undoes it. What the
effect is, is in `franken.probe.across`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from franken.errors import FrankenError
from franken.plugins import register
from franken.probe import findings
from franken.probe.groups import GROUPS, ROWS, SITES, ByGroup, most
from franken.probe.method import DIFFERENCE, Columns, Cost, Measurement

if TYPE_CHECKING:
    import pandas as pd

    from franken.probe.cost import TextShape
    from franken.probe.plan import ProbePlan
    from franken.probe.session import Session
    from franken.tasks import Pair

WAYS = {"": False, "-back": True}  # what a name ends in → whether the second model gives


@dataclass(frozen=True)
class Across(ByGroup["Across"]):
    """What share of the divergence of two models comes back with the donor's activations."""

    back: bool = False

    short = "across"
    needs_second = True
    components = "share of the divergence"

    @classmethod
    def spelled(cls, sites: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"across-{site}{way}" for site in sites for way in WAYS)

    @classmethod
    def cost(cls, methods: Sequence[Across], plan: ProbePlan, shape: TextShape) -> Cost:
        """As if all replies parted: a run of each model for each site, then for every layer the
        layers above it, in rows.
        """
        items = [p.target for p in plan.pairs if not p.target.error]
        naive = resumed = 0
        for method in methods:
            variants = len(GROUPS) * (shape.heads if method.by_head else 1)
            naive += 2 * plan.max_new_tokens + 2 + len(plan.layers) * variants
            skipped = 1 if method.site == "residual" else 0  # the patched layer itself
            above = sum(shape.depth - layer - skipped for layer in plan.layers)
            resumed += above * -(-variants // ROWS)
        return Cost(
            forwards=2 * len({method.site for method in methods}) * len(items),
            naive=len(items) * naive,
            resumed_layers=resumed * len(items),
            replies=frozenset(key for item in items for key in (id(item), ~id(item))),
            activations=ROWS * shape.row + 4 * shape.stream,  # stream and site of two runs
        )

    @classmethod
    def check(cls, methods: Sequence[Across], session: Session) -> list[str]:
        from franken.probe.controls import check_across

        sites = sorted({method.site for method in methods})
        return check_across(session.loaded, session.second, session.control_prompts, sites)

    @classmethod
    def run(
        cls, methods: Sequence[Across], session: Session, pairs: Sequence[Pair]
    ) -> Iterator[Measurement]:
        """Both models run once a pair and site, whichever way activations go."""
        from franken.probe.across import across_pair

        layers, models = session.plan.layers, (session.loaded, session.second)
        wanted = [(method.site, method.back) for method in methods]
        for pair in pairs:
            item, error = pair.target, None
            measured: list[list[Columns]] = [[{}] * len(layers)] * len(methods)
            try:
                replies = session.reply(item), session.second_reply(item)
                measured = across_pair(models, session.prompt(item), replies, wanted, layers)
            except FrankenError as e:
                error = f"{e.what}: {e.why}" if e.why else e.what
            for method, by_layer in zip(methods, measured, strict=True):
                for layer, columns in zip(layers, by_layer, strict=True):
                    yield Measurement(method.name, pair, layer, columns, error)

    def title(self, rows: pd.DataFrame) -> str:
        """What is patched, and over all tasks the head that carries most or the layer by which half
        is there.
        """
        compared = rows["metric"].iloc[0].endswith(DIFFERENCE)
        share = "Change in the share" if compared else "Share"
        whose = "second model's" if self.back else "probed model's"
        text = f"{share} of the divergence restored by the {whose} {SITES[self.site]}"
        if compared:
            return text
        if self.by_head:
            return text + most(rows)
        whole = findings.select(rows, component=findings.WHOLE).groupby("layer")["value"].mean()
        if self.site != "residual" or not len(half := whole[whole >= 0.5]):
            return text
        return f"{text}: half of it by layer {int(str(half.index[0]))}"


for _site in SITES:
    for _way, _back in WAYS.items():
        _name = f"across-{_site}{_way}"
        register("probe", _name, Across(_name, _site, _back))
