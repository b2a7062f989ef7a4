"""`routing`: the share of tokens that two checkpoints of a mixture of experts give to the same
experts, by layer. What that is exactly, is in `franken.probe.routing`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from franken.experts import ROUTER
from franken.plugins import register
from franken.probe import findings
from franken.probe.method import Columns, Cost, Method, Metric, usable

if TYPE_CHECKING:
    import pandas as pd

    from franken.checkpoints import Checkpoint
    from franken.probe.cost import TextShape
    from franken.probe.plan import ProbePlan
    from franken.probe.session import Session
    from franken.tasks import Pair

AGREEMENT, OVERLAP = "routing_agreement", "expert_overlap"
GROUPS = ("image", "text", "reply")
DENSE = "the layer has no experts"


class Routing(Method["Routing"]):
    """How alike two models route the same tokens."""

    short = "routing"
    needs_second = True
    shown = (AGREEMENT,)
    components = "tokens"

    def metrics(self, columns: Collection[str] = ()) -> tuple[Metric, ...]:
        """Means over prompts of shares of their tokens."""
        label = "Tokens with the same experts"
        return (
            Metric(AGREEMENT, "agreement", label=label, rate=True, peaked=True),
            *(Metric(AGREEMENT, f"agreement_{g}", component=g, rate=True) for g in GROUPS),
            Metric(OVERLAP, "overlap", label="Experts in common", rate=True),
        )

    def unfit(self, checkpoint: Checkpoint) -> str | None:
        """A dense model routes nothing."""
        if any(ROUTER.fullmatch(name) for name in checkpoint.tensors):
            return None
        return "routing is defined for mixtures of experts, and it is none"

    @classmethod
    def cost(cls, methods: Sequence[Routing], plan: ProbePlan, shape: TextShape) -> Cost:
        """The greedy reply, and a pass of either model over it."""
        items = [p.target for p in plan.pairs if not p.target.error]
        passes = 2 * len(items)
        return Cost(forwards=passes, naive=passes, replies=frozenset(map(id, items)))

    @classmethod
    def check(cls, methods: Sequence[Routing], session: Session) -> list[str]:
        from franken.probe.routing import routing_agreement

        models = session.loaded, session.loaded
        return [
            f"{prompt.key}: the model does not route as itself"
            for prompt in session.control_prompts
            if any(a.agreement < 1 for a in routing_agreement(*models, prompt, []).values())
        ]

    def measure(self, session: Session, pair: Pair) -> Sequence[Columns]:
        from franken.probe.routing import routing_agreement

        reply = session.reply(pair.target)
        base = {"baseline": reply.text, "truncated": reply.truncated}
        models, prompt = (session.loaded, session.second), session.prompt(pair.target)
        measured = routing_agreement(*models, prompt, reply.ids)
        return [
            base | (asdict(measured[layer]) if layer in measured else {"ineligible": DENSE})
            for layer in session.plan.layers
        ]

    @classmethod
    def results(cls, samples: pd.DataFrame) -> Mapping[str, object]:
        """`rerouted`: of every layer the expert whose share of the tokens differs most between the
        second model (`before`) and the probed one (`after`), means over prompts.
        """
        rows = samples[samples["method"] == "routing"]
        found = []
        for layer, cell in usable(rows).groupby("layer"):
            after, before = (
                np.array([list(load) for load in cell[name]]).mean(0)
                for name in ("load", "load_second")
            )
            expert = int(np.abs(after - before).argmax())
            shares = {"before": float(before[expert]), "after": float(after[expert])}
            found.append({"layer": int(str(layer)), "expert": expert, **shares})
        return {"rerouted": found}

    def title(self, rows: pd.DataFrame) -> str:
        """Where the two part most."""
        pooled = findings.pool_tasks(findings.curve(rows, metric=AGREEMENT))
        lowest = pooled.iloc[int(pooled["value"].argmin())]
        share = f"{100 * float(lowest['value']):.0f} % of tokens"
        return (
            f"Both models agree least in layer {int(lowest['layer'])}: {share} see the same experts"
        )


register("probe", "routing", Routing("routing"))
