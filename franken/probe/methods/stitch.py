"""`stitch-below` and `stitch-above`: the probed model up to a layer, or from it on, and the second
model (`--against`) elsewhere. `stitch` stands for both; each also with `:affine` or `:rotation`,
which carry the stream from one model's basis into the other's.

Both are read as what brings the probed model back: below, its layers 0 to ℓ; above, its layers ℓ
and up. What is stitched and read is in `franken.probe.stitch`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from franken.errors import FrankenError, check_known
from franken.plugins import register
from franken.probe import findings
from franken.probe.figure import Curves, Figure
from franken.probe.groups import p_value
from franken.probe.method import Cost, Measurement, Method, Metric
from franken.stats import mcnemar_exact

if TYPE_CHECKING:
    import pandas as pd

    from franken.generate import Prompt, Response
    from franken.probe.answers import Answered
    from franken.probe.cost import TextShape
    from franken.probe.plan import ProbePlan
    from franken.probe.session import Session
    from franken.probe.stitch import Carries, Stitch
    from franken.tasks import Pair

CARRIES = ("affine", "rotation")
WAYS = {"below": "up to this layer", "above": "from this layer on"}


def _gained(samples: pd.DataFrame, _: np.ndarray) -> float:
    """McNemar's exact p of answers that became right against those that became wrong."""
    before, now = (samples[name].astype(float) == 1.0 for name in ("baseline_score", "score"))
    return mcnemar_exact(int((now & ~before).sum()), int((before & ~now).sum()))


@dataclass(frozen=True)
class StitchAt(Method["StitchAt"]):
    """The share of the divergence of two models that some layers of the probed one restore, and the
    accuracy that they gain over the second.
    """

    way: str
    carry: str = ""

    short = "stitch"
    needs_second = True
    shown = ("restored", "gain")

    def metrics(self, columns: Collection[str] = ()) -> tuple[Metric, ...]:
        return (
            Metric("restored", "restored", label="Share of the divergence restored", test=p_value),
            Metric("accuracy", lambda rows: rows["score"] == 1.0, rate=True, compared=False),
            Metric("turned_rate", "to_source", rate=True, compared=False),
            Metric(
                "gain",
                lambda rows: rows["score"].astype(float) - rows["baseline_score"].astype(float),
                label="Accuracy gained over the second model",
                rate_difference=True,
                test=_gained,
            ),
        )

    @classmethod
    def spelled(cls, sites: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"stitch-{way}" for way in WAYS)

    def given(self, argument: str) -> Self:
        if not argument:
            return self
        check_known("carry", [argument], CARRIES, fix=f"write for example {self.name}:affine")
        return replace(self, name=f"{self.name}:{argument}", carry=argument)

    @property
    def parts(self) -> tuple[str, ...]:
        return ("text",) if self.carry else ("text", "projector", "vision")

    @property
    def calibrated(self) -> bool:
        return bool(self.carry)

    @classmethod
    def cost(cls, methods: Sequence[StitchAt], plan: ProbePlan, shape: TextShape) -> Cost:
        """Both models run once a pair; a stitched model runs the decoder from its seam on, or all
        of it where the seam is in the tower, and then replies.
        """
        items = [p.target for p in plan.pairs if not p.target.error]
        text = plan.part == "text"
        seams = [m.below(layer) for m in methods for layer in plan.layers]
        inside = [seam for seam in seams if not text or 0 < seam < shape.depth]
        resumed = sum(shape.depth - seam for seam in inside) if text else 0
        batches = -(-len(items) // plan.batch_size)
        whole = 0 if text else len(inside) * len(items)
        decoding = (len(inside) + 1) * batches * plan.max_new_tokens
        return Cost(
            forwards=2 * len(items) + whole + decoding + 2 * len(plan.calibration),
            naive=len(items) * len(seams) * (plan.max_new_tokens + 1),
            resumed_layers=resumed * len(items),
            replies=frozenset(key for item in items for key in (id(item), ~id(item))),
            rows=plan.batch_size,
            stores=plan.batch_size,
            activations=shape.row + 2 * shape.stream,
        )

    def below(self, layer: int) -> int:
        """How many layers the lower model runs: below, the probed one is it, and `layer` is in."""
        return layer + 1 if self.way == "below" else layer

    def at(self, layer: int, session: Session) -> Stitch:
        """The stitched model of a layer."""
        from franken.probe.stitch import Stitch

        models = session.loaded, session.second
        lower, upper = models if self.way == "below" else models[::-1]
        stitch = Stitch(lower, upper, session.plan.part, self.below(layer))
        if not self.carry or stitch.whole is not None:
            return stitch
        carries = session.once(_carries)[self.carry]
        return replace(stitch, carry=carries.at(stitch.below, back=self.way == "above"))

    @classmethod
    def check(cls, methods: Sequence[StitchAt], session: Session) -> list[str]:
        from franken.probe.controls import check_stitches

        models = session.loaded, session.second
        new = session.plan.max_new_tokens
        return check_stitches(*models, session.plan.part, session.control_prompts, new)

    @classmethod
    def run(
        cls, methods: Sequence[StitchAt], session: Session, pairs: Sequence[Pair]
    ) -> Iterator[Measurement]:
        """The replies of all pairs to one stitched model are one batch."""
        keys = [(method, layer) for method in methods for layer in session.plan.layers]
        stitches = [method.at(layer, session) for method, layer in keys]
        restored: dict[str, list[dict[str, object]]] = {}
        errors: dict[str, str] = {}
        for pair in pairs:
            try:
                restored[pair.id] = _restored(stitches, session, pair)
            except FrankenError as e:
                errors[pair.id] = f"{e.what}: {e.why}" if e.why else e.what
        said = _replies(stitches, session, [p for p in pairs if p.id not in errors])
        for pair in pairs:
            for number, (method, layer) in enumerate(keys):
                if pair.id in errors:
                    yield Measurement(method.name, pair, layer, {}, errors[pair.id])
                else:
                    columns = restored[pair.id][number] | asdict(said[pair.id][number])
                    yield Measurement(method.name, pair, layer, columns)

    def title(self, rows: pd.DataFrame) -> str:
        """By which of the probed model's layers half of the divergence is restored; over tasks."""
        told = []
        for way, name in (("below", "up to"), ("above", "from")):
            method = f"stitch-{way}{f':{self.carry}' if self.carry else ''}"
            own = findings.select(rows, method=method, metric="restored")
            mean = own.groupby("layer")["value"].mean()
            if len(half := mean[mean >= 0.5]):
                told.append(f"{name} {int(str(half.index[0 if way == 'below' else -1]))}")
        if not told:
            return "What the probed model's layers bring back in the second model"
        return (
            f"Half of the divergence comes back with the probed model's layers {', or '.join(told)}"
        )

    @classmethod
    def figures(cls, methods: Sequence[StitchAt], rows: pd.DataFrame) -> list[Figure]:
        """A line of plots a number, a column a method."""
        plots = [
            Curves(
                findings.curve(rows, method=method.name, metric=metric),
                title=f"Probed model {WAYS[method.way]}{f', {method.carry}' * bool(method.carry)}",
                label=f"{method.label_of(metric).lower()}, %" if method is methods[0] else "",
                axis="signed",
                ringed=True,
            )
            for metric in ("restored", "gain")
            for method in methods
        ]
        title, counted = methods[0].title(rows), findings.curve(rows, metric="gain")
        return [Figure("stitch", title, plots, len(methods), counted, "questions", RINGED)]


RINGED = "ringed where p < 0.05 after Holm over layers"


def _carries(session: Session) -> dict[str, Carries]:
    """By kind, the maps between the two models' bases, from prompts that are not probed."""
    from franken.probe.stitch import calibrate

    items = session.plan.calibration
    texts = [(session.prompt(item), session.reply(item).ids) for item in items]
    kinds = {m.carry for m in session.plan.methods if isinstance(m, StitchAt) and m.carry}
    models = session.loaded, session.second
    first = calibrate(models, texts, "affine")
    return {kind: replace(first, kind=kind, fitted={}) for kind in kinds}


def _restored(stitches: Sequence[Stitch], session: Session, pair: Pair) -> list[dict[str, object]]:
    """By stitch, the share of the divergence that it restores at the pair's fork; None where the
    two models agree there.
    """
    from franken.probe.across import Share, fork_of, told
    from franken.probe.stitch import run_of

    own, second = session.loaded, session.second
    replies = session.reply(pair.target), session.second_reply(pair.target)
    fork = fork_of(own, session.prompt(pair.target), replies)
    runs = {id(loaded): run_of(loaded, fork.batch) for loaded in (own, second)}
    donor, base = (runs[id(loaded)].recording.logits for loaded in (own, second))
    share = Share.of(donor, base, own.banned_ids)
    about = told(own, fork, replies[1], replies[0], share)
    if share.agreed:
        return [{**about, "restored": None}] * len(stitches)
    shares = []
    for stitch in stitches:
        logits = stitch.logits(fork.batch, runs[id(stitch.lower)], runs[id(stitch.upper)])
        shares.append({**about, "restored": share.restored(logits[None])[0]})
    return shares


def _replies(
    stitches: Sequence[Stitch], session: Session, pairs: Sequence[Pair]
) -> dict[str, list[Answered]]:
    """By pair id the judged reply of every stitched model: `baseline` is the second model's,
    `source_output` the probed one's. What might be the batch's rounding runs again alone.
    """
    from franken.probe.answers import is_doubtful, judge
    from franken.probe.stitch import replies

    own, second, new = session.loaded, session.second, session.plan.max_new_tokens
    known = {id(own): session.reply, id(second): session.second_reply}
    inside = [stitch for stitch in stitches if stitch.whole is None]
    judged: dict[str, list[Answered]] = {}
    size = session.plan.batch_size
    for start in range(0, len(pairs), size):
        chunk = pairs[start : start + size]
        prompts: list[Prompt] = [session.prompt(pair.target) for pair in chunk]
        batch = iter(replies(own, inside, prompts, new) if inside else [])
        said: list[list[Response]] = [
            next(batch)
            if stitch.whole is None
            else [known[id(stitch.whole)](pair.target) for pair in chunk]
            for stitch in stitches
        ]
        for place, pair in enumerate(chunk):
            plain, donor = session.second_reply(pair.target), session.reply(pair.target)
            rows = judged[pair.id] = []
            for stitch, answers in zip(stitches, said, strict=True):
                now, batched = answers[place], None
                if stitch.whole is None and is_doubtful(own, now, plain):
                    batched = now.text
                    now = replies(own, [stitch], [prompts[place]], new)[0][0]
                rows.append(judge(pair, now, plain, donor, batched))
    return judged


for _way in WAYS:
    register("probe", f"stitch-{_way}", StitchAt(f"stitch-{_way}", _way))
