"""`zero`, `mean`, `noise`, each also `-attention` or `-mlp`: what a layer adds is replaced by
nothing, by its mean over samples that are not probed, or by noise of that mean and spread.

How, and how all of them run as rows of one batch, is in `franken.probe.ablate`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from franken.layers import name_layers
from franken.plugins import register
from franken.probe import findings
from franken.probe.figure import Curves, Figure
from franken.probe.method import Cost, Measurement, Method, Metric
from franken.stats import mcnemar_exact

if TYPE_CHECKING:
    import pandas as pd

    from franken.generate import Prompt, Response
    from franken.probe.ablate import Ablation, Calibration
    from franken.probe.cost import TextShape
    from franken.probe.plan import ProbePlan
    from franken.probe.session import Session
    from franken.tasks import Pair

Kind = Literal["zero", "mean", "noise"]
Site = Literal["layer", "attention", "mlp"]
KINDS: dict[Kind, str] = {"zero": "skipped", "mean": "set to its mean", "noise": "plus noise"}
SITES: dict[Site, str] = {"layer": "Layer", "attention": "Attention", "mlp": "MLP"}


def calibration_of(session: Session) -> Calibration | None:
    """What the probed layers add on average, over the plan's samples for that."""
    from franken.probe.ablate import calibrate

    plan = session.plan
    prompts = [session.prompt(item) for item in plan.calibration]
    return calibrate(session.loaded, prompts, plan.layers, plan.seed) if prompts else None


def _lost(samples: pd.DataFrame, _: np.ndarray) -> float:
    """McNemar's exact p of right answers lost against those won."""
    before, now = (samples[name].astype(float) == 1.0 for name in ("baseline_score", "score"))
    return mcnemar_exact(int((before & ~now).sum()), int((now & ~before).sum()))


@dataclass(frozen=True)
class Ablate(Method["Ablate"]):
    """Accuracy without what a layer adds, and what that costs, paired by question."""

    kind: Kind
    site: Site = "layer"

    short = "ablation"
    shown = ("change_rate", "accuracy_drop")

    def metrics(self, columns: Collection[str] = ()) -> tuple[Metric, ...]:
        return (
            Metric("accuracy", lambda rows: rows["score"] == 1.0, rate=True, compared=False),
            Metric("change_rate", "changed", rate=True, compared=False, peaked=True),
            Metric("truncated_rate", "truncated", rate=True, compared=False),
            Metric(
                "accuracy_drop",
                lambda rows: rows["baseline_score"].astype(float) - rows["score"].astype(float),
                label="Accuracy lost",
                rate_difference=True,
                peaked=True,
                test=_lost,
            ),
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """In the tower and at the projector a layer can be skipped, nothing else."""
        whole = self.kind == "zero" and self.site == "layer"
        return ("text", "vision", "projector") if whole else ("text",)

    @property
    def calibrated(self) -> bool:
        return self.kind != "zero"

    def at(self, layers: Sequence[int]) -> list[Ablation]:
        """The ablation of each of `layers`."""
        from franken.probe.ablate import Ablation

        return [Ablation(layer, self.kind, self.site) for layer in layers]

    @classmethod
    def cost(cls, methods: Sequence[Ablate], plan: ProbePlan, shape: TextShape) -> Cost:
        """Rows of one question are its ablations and the plain answer; each has keys and values of
        its own.
        """
        items = [id(p.target) for p in plan.pairs if not p.target.error]
        if plan.part != "text":
            changes = len(plan.layers)
            return Cost.in_tower(plan, items=items, changes=changes, asked=len(items), scored=0)
        rows, new = 1 + len(methods) * len(plan.layers), plan.max_new_tokens
        naive = len(plan.pairs) * rows * new
        batches = -(-(rows - 1) // (plan.batch_size - 1))
        forwards = len(items) * batches * new + len(plan.calibration)
        if plan.engine != "torch":
            forwards = naive
        return Cost(forwards=forwards, naive=naive, rows=rows, stores=plan.batch_size)

    @classmethod
    def check(cls, methods: Sequence[Ablate], session: Session) -> list[str]:
        from franken.probe.controls import check_ablations, check_tower

        if session.plan.part != "text":
            return check_tower(session.loaded, session.control_pairs, session.plan.part)
        layers, new = session.plan.layers, session.plan.max_new_tokens
        middle = layers[len(layers) // 2]
        return check_ablations(session.loaded, session.control_prompts, middle, new)

    @classmethod
    def run(
        cls, methods: Sequence[Ablate], session: Session, pairs: Sequence[Pair]
    ) -> Iterator[Measurement]:
        """All ablations of a question run as the rows of one batch."""
        from franken.probe.answers import is_doubtful, judge

        loaded, plan = session.loaded, session.plan
        if plan.part != "text":
            yield from _in_tower(methods[0], session, pairs)
            return
        if plan.engine == "nnsight":
            from franken.probe.nnsight_engine import ablate
        else:
            from franken.probe.ablate import ablate
        wanted = [(m.name, a) for m in methods for a in m.at(plan.layers)]
        for pair in pairs:
            prompt = session.prompt(pair.target)

            def answers(ablations: Sequence[Ablation], prompt: Prompt = prompt) -> list[Response]:
                return ablate(
                    loaded,
                    prompt,
                    ablations,
                    max_new_tokens=plan.max_new_tokens,
                    calibration=session.once(calibration_of),
                    batch_size=plan.batch_size,
                )

            plain, *rows = answers([ablation for _, ablation in wanted])
            for (method, ablation), now in zip(wanted, rows, strict=True):
                if is_doubtful(loaded, now, plain):
                    first, again = answers([ablation])
                    judged = judge(pair, again, first, batched=now.text)
                else:
                    judged = judge(pair, now, plain)
                yield Measurement(method, pair, ablation.layer, asdict(judged))

    def title(self, rows: pd.DataFrame) -> str:
        """The layers that cost most in the first ablation drawn, over all tasks."""
        pooled = findings.pool_tasks(rows.loc[rows["method"] == rows["method"].iloc[0]])
        costly = findings.peak(pooled)
        if not costly:
            return "Accuracy lost without a layer"
        where, verb = name_layers(costly), "costs" if len(costly) == 1 else "cost"
        return f"{where.capitalize()} {verb} most: {100 * pooled['value'].max():.0f} points"

    @classmethod
    def figures(cls, methods: Sequence[Ablate], rows: pd.DataFrame) -> list[Figure]:
        drops = findings.curve(rows, metric="accuracy_drop")
        plots = [
            Curves(
                findings.select(drops, method=method.name),
                title=f"{SITES[method.site]} {KINDS[method.kind]}",
                label="" if number else "accuracy lost, points",
                axis="signed",
            )
            for number, method in enumerate(methods)
        ]
        title, columns = methods[0].title(drops), min(3, len(plots))
        return [Figure("ablation", title, plots, columns, drops, "questions", shared_y=True)]


def _in_tower(method: Ablate, session: Session, pairs: Sequence[Pair]) -> Iterator[Measurement]:
    """Each layer skipped for all pairs at once, whose prompts are the rows of one batch."""
    from franken.generate.native import encode_prompts
    from franken.probe.answers import is_doubtful, judge
    from franken.probe.tower import replies, skipped

    loaded, plan = session.loaded, session.plan

    def answers(prompts: Sequence[Prompt], layers: Sequence[int]) -> list[list[Response]]:
        batch, said = encode_prompts(loaded, prompts), []
        for layer in layers:
            with skipped(loaded, plan.part, layer):
                said.append(replies(loaded, batch, prompts, plan.max_new_tokens))
        return said

    for start in range(0, len(pairs), plan.batch_size):
        chunk = pairs[start : start + plan.batch_size]
        prompts = [session.prompt(pair.target) for pair in chunk]
        by_layer = answers(prompts, plan.layers)
        for place, pair in enumerate(chunk):
            plain = session.reply(pair.target)
            for layer, said in zip(plan.layers, by_layer, strict=True):
                now, batched = said[place], None
                if is_doubtful(loaded, now, plain):
                    now, batched = answers([prompts[place]], [layer])[0][0], now.text
                judged = judge(pair, now, plain, batched=batched)
                yield Measurement(method.name, pair, layer, asdict(judged))


for _kind in KINDS:
    for _site in SITES:
        _name = _kind if _site == "layer" else f"{_kind}-{_site}"
        register("probe", _name, Ablate(_name, _kind, _site))
