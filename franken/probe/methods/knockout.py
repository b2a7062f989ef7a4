"""`block:FROM>TO`: attention edges are cut, in windows of layers: tokens of the groups TO may not
attend to those of FROM.

`block-single:…`, `-suffix`, `-prefix`, `-window:5:…` choose the layers, as in swaps; `block` alone
cuts windows of a quarter of the layers (single layers are redundant). Groups are joined by `+`.
What a cut is, is in `franken.probe.knockout`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from franken.errors import FrankenError, UsageError, check_known
from franken.layers import name_layers
from franken.models.families import keyless
from franken.plugins import register
from franken.probe import findings
from franken.probe.figure import Curves, Figure
from franken.probe.groups import ROWS
from franken.probe.method import Columns, Cost, Measurement, Method, Metric
from franken.probe.methods.swap import MODES, Layers
from franken.stats import mcnemar_exact, sign_flip_test

if TYPE_CHECKING:
    import pandas as pd

    from franken.models.batch import ModelBatch
    from franken.probe.cost import TextShape
    from franken.probe.knockout import Answer, Cut, Edges
    from franken.probe.plan import ProbePlan
    from franken.probe.session import Session
    from franken.tasks import Pair

BY_CELL = ("cells", "elsewhere")  # groups that a minimal pair of images tells
SOURCES = ("system", "image", "question", "last", "all", "others", *BY_CELL)
TARGETS = ("system", "image", "question", "last", "all", "others")
SHARE = 4  # `block` cuts windows of so large a part of the layers
SCOPES = {
    "suffix": "in this layer and all above",
    "single": "in this layer alone",
    "prefix": "in all layers below this one",
}


def _lost(samples: pd.DataFrame, _: np.ndarray) -> float:
    """McNemar's exact p of right answers lost against those won."""
    before, now = (samples[name].astype(float) == 1.0 for name in ("baseline_score", "score"))
    return mcnemar_exact(int((before & ~now).sum()), int((now & ~before).sum()))


def _moved(_: pd.DataFrame, values: np.ndarray) -> float:
    """Are the samples' losses symmetric about 0? Less than 1e-4 nats is rounding."""
    return sign_flip_test(np.round(values, 4))


def _lost_logp(name: str) -> Metric:
    """The log-probability that a cut costs."""
    return Metric(
        f"{name}_logp_drop",
        lambda rows: (rows[f"baseline_{name}_logp"] - rows[f"{name}_logp"]).astype(float),
        label={
            "gold": "Log-probability of the right answer lost, nats",
            "reasoning": "Log-probability of the plain reasoning lost, nats",
        }[name],
        scale=1,
        test=_moved,
    )


@dataclass(frozen=True)
class Knockout(Method["Knockout"]):
    """What some edges of attention carry, by layers: the log-probability of the right answer, and
    the accuracy of the greedy reply, without them.
    """

    mode: str
    width: int = 0  # of a window; 0 is a quarter of the layers
    source: tuple[str, ...] = ()
    to: tuple[str, ...] = ()

    short = "knockout"
    shown = ("accuracy_drop", "gold_logp_drop")

    def obstacle(self, linear: int, shared: int) -> str | None:
        return keyless(linear, shared)

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
            _lost_logp("gold"),
            _lost_logp("reasoning"),
        )

    def given(self, argument: str) -> Self:
        width, edges = self.width, argument
        if self.mode == "window":
            number, _, edges = argument.partition(":")
            width = int(number) if number.isdigit() else 0
        sides = [tuple(side.split("+")) for side in edges.split(">")]
        if len(sides) != 2 or (self.mode == "window" and width < 1):
            raise UsageError(
                f"{self.name} needs edges" if not argument else f"{argument!r} are no edges",
                why="it cuts the attention of one group of tokens to another",
                fix=f"write for example {self.example}",
            )
        source, to = sides
        for side, known in ((source, SOURCES), (to, TARGETS)):
            check_known("group of tokens", side, known)
        if source == to == ("others",):
            raise UsageError(
                "others>others are no edges", why="each side would be what the other is not"
            )
        name = f"{self.name}:{argument}"
        return replace(self, name=name, width=width, source=source, to=to)

    @property
    def example(self) -> str:
        window = ":5" if self.mode == "window" else ""
        return f"{self.name.partition(':')[0]}{window}:image>question"

    @property
    def edges(self) -> str:
        """FROM>TO, as it was spelled."""
        return f"{'+'.join(self.source)}>{'+'.join(self.to)}"

    @property
    def by_cell(self) -> bool:
        """Whether only a part of the image is cut off."""
        return bool({*BY_CELL} & {*self.source})

    def sets(self, layers: Sequence[int], depth: int) -> list[Layers]:
        """The layers in which edges are cut, for every ℓ of `layers`: as in a swap."""
        if self.mode in MODES:
            return [MODES[self.mode](layer, depth) for layer in layers]
        width = self.width or max(1, round(depth / SHARE))
        below, above = (width - 1) // 2, width // 2 + 1
        return [
            frozenset(range(max(0, layer - below), min(depth, layer + above))) for layer in layers
        ]

    @classmethod
    def cost(cls, methods: Sequence[Knockout], plan: ProbePlan, shape: TextShape) -> Cost:
        """A row for every set of layers, in batches: the image once, a pass over what is said, and
        the reply.
        """
        items = [p.target for p in plan.pairs if not p.target.error]
        rows, new = len(methods) * len(plan.layers), plan.max_new_tokens
        size = min(rows, ROWS, plan.batch_size)
        batches = -(-rows // size)
        return Cost(
            forwards=len(items) * batches * (3 + new),
            naive=len(plan.pairs) * rows * (new + 1),
            replies=frozenset(map(id, items)),
            rows=size,
            stores=size,
            activations=size * (shape.row + 8 * shape.vocabulary * new),
        )

    @classmethod
    def check(cls, methods: Sequence[Knockout], session: Session) -> list[str]:
        from franken.probe.controls import check_knockouts
        from franken.probe.knockout import check_attended

        wanted = frozenset().union(
            *(each for m in methods for each in m.sets(session.plan.layers, session.depth))
        )
        check_attended(session.loaded, sorted(wanted))
        whole = session.control_pairs if session.depth == len(wanted) else []
        return check_knockouts(session.loaded, session.control_prompts, whole)

    @classmethod
    def run(
        cls, methods: Sequence[Knockout], session: Session, pairs: Sequence[Pair]
    ) -> Iterator[Measurement]:
        """All cuts of a question run as rows of a batch."""
        layers = session.plan.layers
        for pair in pairs:
            error, why = None, None
            judged: dict[tuple[str, int], Columns] = {}
            try:
                batch = encode_prompts_of(session, pair)
                edges, why = _edges(methods, session, pair, batch)
                judged = _judged(edges, session, pair, batch)
            except FrankenError as e:
                error = _told(e)
            for method in methods:
                for layer in layers:
                    columns = judged.get((method.name, layer), {})
                    ineligible = None if error or columns else why
                    yield Measurement(method.name, pair, layer, columns, error, ineligible)

    def title(self, rows: pd.DataFrame) -> str:
        """The edges, and the layers in which they cost most, over all tasks."""
        what = f"{' and '.join(self.to)} tokens without {' and '.join(self.source)}"
        pooled = findings.pool_tasks(findings.select(rows, metric="accuracy_drop"))
        costly = findings.peak(pooled)
        if not costly or pooled["value"].max() <= 0:
            return f"{what}: no accuracy lost"
        most = f"{100 * pooled['value'].max():.0f} points"
        return f"{what}: accuracy lost, most at {name_layers(costly)}, {most}"

    @classmethod
    def figures(cls, methods: Sequence[Knockout], rows: pd.DataFrame) -> list[Figure]:
        """A line of plots for accuracy and one for log-probability, a column a method."""
        drawn = {"accuracy_drop": "accuracy lost, points", "gold_logp_drop": "log p lost, nats"}
        plots = [
            Curves(
                findings.curve(rows, method=method.name, metric=metric),
                title=f"{method.edges}, {method.where}" if metric == "accuracy_drop" else "",
                label=label if method is methods[0] else "",
                scale=method.scale_of(metric),
                axis="signed",
                ringed=True,
            )
            for metric, label in drawn.items()
            for method in methods
        ]
        counted = findings.curve(rows, metric="accuracy_drop")
        title = methods[0].title(rows.loc[rows["method"] == methods[0].name])
        return [Figure("knockout", title, plots, len(methods), counted, "questions")]

    @property
    def where(self) -> str:
        """In which layers, for each layer of the axis."""
        if self.mode in SCOPES:
            return SCOPES[self.mode]
        return f"in the {self.width or 'nearest'} layers around this one"


def encode_prompts_of(session: Session, pair: Pair) -> ModelBatch:
    """The question as a batch of one row."""
    from franken.generate.native import encode_prompts

    return encode_prompts(session.loaded, [session.prompt(pair.target)])


def _told(error: FrankenError) -> str:
    return f"{error.what}: {error.why}" if error.why else error.what


def _edges(
    methods: Sequence[Knockout], session: Session, pair: Pair, batch: ModelBatch
) -> tuple[dict[Knockout, Edges], str | None]:
    """The edges that each method cuts; without those of `cells` where the pair does not tell them,
    and why not.
    """
    from franken.probe.knockout import cell_groups, edges_of, prompt_groups

    groups, why = prompt_groups(session.loaded, batch), None
    if not len(groups["image"]) and any("image" in (*m.source, *m.to) for m in methods):
        raise FrankenError("there is nothing to cut off", why="the prompt holds no image")
    if any(method.by_cell for method in methods):
        one, other = pair.target.image, pair.source.image
        try:
            if one is None or other is None or one is other:
                raise FrankenError("the cells of the image are not known", why="it has no twin")
            groups |= cell_groups(session.loaded, batch, (one, other), pair.id)
        except FrankenError as e:
            why = _told(e)
    usable = [m for m in methods if not (m.by_cell and why)]
    edges = {m: edges_of(groups, batch.tokens, m.source, m.to) for m in usable}
    return edges, why


def _judged(
    edges: Mapping[Knockout, Edges], session: Session, pair: Pair, batch: ModelBatch
) -> dict[tuple[str, int], Columns]:
    """By method and layer the columns of a pair's row."""
    from franken.probe.answers import is_doubtful, judge
    from franken.probe.knockout import Cut, knocked_answers

    if not edges:
        return {}
    loaded, plan = session.loaded, session.plan
    plain, gold = session.reply(pair.target), pair.target.answer

    def answers(cuts: Sequence[Cut]) -> list[Answer]:
        return knocked_answers(
            loaded,
            batch,
            cuts,
            gold,
            plain,
            max_new_tokens=plan.max_new_tokens,
            rows=min(ROWS, plan.batch_size),
        )

    keys = [
        (method, layer, chosen)
        for method in edges
        for layer, chosen in zip(plan.layers, method.sets(plan.layers, session.depth), strict=True)
    ]
    base, *rows = answers(
        [Cut(next(iter(edges.values()))), *(Cut(edges[m], chosen) for m, _, chosen in keys)]
    )
    judged: dict[tuple[str, int], Columns] = {}
    for (method, layer, chosen), row in zip(keys, rows, strict=True):
        now, first, batched = row, base, None
        if is_doubtful(loaded, row.answer, base.answer):
            first, now = answers([Cut(edges[method]), Cut(edges[method], chosen)])
            batched = row.answer.text
        judged[method.name, layer] = {
            **asdict(judge(pair, now.answer, first.answer, batched=batched)),
            "gold_logp": now.gold_logp,
            "baseline_gold_logp": first.gold_logp,
            "reasoning_logp": now.reasoning_logp,
            "baseline_reasoning_logp": first.reasoning_logp,
        }
    return judged


for _scope in ("", *MODES, "window"):
    _name = f"block-{_scope}" if _scope else "block"
    register("probe", _name, Knockout(_name, _scope))
