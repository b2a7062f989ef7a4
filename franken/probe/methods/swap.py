"""`swap-suffix`, `-single`, `-prefix` and `-window:w`: some layers see another image. `swap` stands
for suffix and single.

What a swap is, and how all of them run as rows of one batch, is in `franken.probe.swap`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Self

import numpy as np

from franken.errors import FrankenError, UsageError
from franken.models.families import keyless
from franken.plugins import register
from franken.probe import findings
from franken.probe.figure import Curves, Figure
from franken.probe.method import Cost, Measurement, Method, Metric, usable
from franken.runs import layer_row
from franken.runs.manifest import FallTest
from franken.stats import difference, holm, mean, sign_flip_test

if TYPE_CHECKING:
    import pandas as pd

    from franken.models.batch import ModelBatch
    from franken.probe.answers import Answered
    from franken.probe.cost import TextShape
    from franken.probe.plan import ProbePlan
    from franken.probe.scores import Swapped
    from franken.probe.session import Session
    from franken.runs import LayerRow, RowHead
    from franken.tasks import Pair

Layers = frozenset[int]
MODES = {  # mode → the swapped layers for the layer ℓ of a model's `depth`
    "suffix": lambda layer, depth: frozenset(range(layer, depth)),
    "single": lambda layer, depth: frozenset([layer]),
    "prefix": lambda layer, depth: frozenset(range(layer)),
}
TITLES = {
    "suffix": "Swapped in this layer and all above",
    "single": "Swapped in this layer alone",
    "prefix": "Swapped in all layers below this one",
}
RATES = (  # metric, column, component, label
    ("change_rate", "changed", "all", "Answers changed"),
    ("task_change_rate", "task_changed", "all", "Answers changed, as the task counts"),
    ("flip_to_source_rate", "to_source", "all", "Answers turned into the source's"),
)


@dataclass(frozen=True)
class Swap(Method["Swap"]):
    """The share of answers that change, as text and as the task counts it, and that turn into the
    source's; KL divergence and logit difference where the two plain answers part.
    """

    mode: str
    width: int = 0  # of a window

    short = "swap"
    needs_source = True
    shown = ("change_rate",)

    def metrics(self, columns: Collection[str] = ()) -> tuple[Metric, ...]:
        return (
            *(Metric(*r, rate=True, peaked=True) for r in RATES),
            Metric("kl", "kl", label="KL divergence, nats", scale=1),
            Metric("logit_difference", "logit_difference", compared=False),
        )

    @classmethod
    def spelled(cls, sites: Sequence[str]) -> tuple[str, ...]:
        return ("swap-suffix", "swap-single")

    def given(self, argument: str) -> Self:
        if self.mode != "window":
            return super().given(argument)
        if not argument.isdigit() or int(argument) < 1:
            raise UsageError(
                f"unknown swap mode {f'window:{argument}'!r}",
                why=f"the modes are {', '.join(MODES)}, window:w",
                fix="write for example swap-window:3",
            )
        return replace(self, name=f"{self.name}:{argument}", width=int(argument))

    @property
    def example(self) -> str:
        return "swap-window:3" if self.mode == "window" else self.name

    def sets(self, layers: Sequence[int], depth: int) -> list[Layers]:
        """The set of swapped layers for every ℓ of `layers`. A window of w layers is centred at ℓ
        and cut off at the ends.
        """
        if self.mode in MODES:
            return [MODES[self.mode](layer, depth) for layer in layers]
        below, above = (self.width - 1) // 2, self.width // 2 + 1
        return [
            frozenset(range(max(0, layer - below), min(depth, layer + above))) for layer in layers
        ]

    @property
    def parts(self) -> tuple[str, ...]:
        return ("text", "vision", "projector")

    def obstacle(self, linear: int, shared: int) -> str | None:
        reason = keyless(linear, shared)
        return reason and f"a swap gives layers the keys and values of another image; {reason}"

    @classmethod
    def cost(cls, methods: Sequence[Swap], plan: ProbePlan, shape: TextShape) -> Cost:
        """Rows of one pair are its swaps, the plain answer and the source's."""
        if plan.part != "text":
            usable = [p for p in plan.pairs if not (p.error or p.ineligible)]
            items = [id(item) for p in usable for item in (p.target, p.source)]
            changes, asked = len(methods) * len(plan.layers), len(usable)
            scored = asked * (2 + changes)
            return Cost.in_tower(plan, items=items, changes=changes, asked=asked, scored=scored)
        rows = 2 + len(methods) * len(plan.layers)
        naive = len(plan.pairs) * (1 + rows * plan.max_new_tokens)
        together = max(1, plan.batch_size // rows)
        batches = -(-(rows - 2) // max(1, plan.batch_size // together - 2))
        # both images at once; then question and steps, and the scores, a batch of rows
        passes = 1 + batches * (plan.max_new_tokens + 1)
        pairs = sum(not (p.error or p.ineligible) for p in plan.pairs)
        forwards = -(-pairs // together) * passes if plan.engine == "torch" else naive
        return Cost(forwards=forwards, naive=naive, rows=rows, stores=2)

    @classmethod
    def check(cls, methods: Sequence[Swap], session: Session) -> list[str]:
        from franken.probe.controls import check_swaps, check_tower

        if session.plan.part != "text":
            return check_tower(session.loaded, session.control_pairs, session.plan.part)
        return check_swaps(session.loaded, session.control_pairs, session.plan.max_new_tokens)

    @classmethod
    def run(
        cls, methods: Sequence[Swap], session: Session, pairs: Sequence[Pair]
    ) -> Iterator[Measurement]:
        """Pairs of one shape run together, every set of layers as a row of the batch."""
        layers = session.plan.layers
        sets = [chosen for m in methods for chosen in m.sets(layers, session.depth)]
        keys = [(m.name, layer) for m in methods for layer in layers]
        in_tower = session.plan.part != "text"
        groups, errors = _encode(session, pairs, 1 if in_tower else len(set(sets)) + 3)
        rows = {}
        for group in groups:
            rows |= (_in_tower if in_tower else _answers)(session, group, sets)
        for pair in pairs:
            for number, (method, layer) in enumerate(keys):
                if pair.id in errors:
                    yield Measurement(method, pair, layer, {}, errors[pair.id])
                else:
                    yield Measurement(method, pair, layer, asdict(rows[pair.id][number]))

    def summarise(self, samples: pd.DataFrame, head: RowHead) -> list[LayerRow]:
        """And `fall_layer` of suffix swaps: through how many layers an answer follows the image."""
        rows = super().summarise(samples, head)
        falls = list(fall_layers(usable(samples)).values())
        if self.mode == "suffix" and falls:
            fall = mean(falls, span=samples["layer"].nunique()).columns()
            rows.append(layer_row(**head, metric="fall_layer", n=len(falls), **fall))
        return rows

    @classmethod
    def results(cls, samples: pd.DataFrame) -> Mapping[str, object]:
        """`fall_tests` between tasks that ask about the same images."""
        return {"fall_tests": [test.model_dump() for test in fall_tests(samples)]}

    def title(self, rows: pd.DataFrame) -> str:
        """How deep the image is read out, per task, where suffix swaps were made."""
        falls = findings.select(rows, metric="fall_layer").dropna(subset=["value"])
        if not len(falls):
            return "Answers that change when layers see another image"
        ordered = falls.sort_values("value")
        listed = ", ".join(
            f"{task} {value:.1f}"
            for task, value in zip(ordered["task"], ordered["value"], strict=True)
        )
        return f"Answers follow the image through this many layers, mean per task: {listed}"

    @classmethod
    def figures(cls, methods: Sequence[Swap], rows: pd.DataFrame) -> list[Figure]:
        """A line of plots a rate, a column a method."""
        plots = [
            Curves(
                findings.curve(rows, method=method.name, metric=metric),
                title=TITLES.get(method.mode, method.name),
                label=f"{label.lower()}, %" if method is methods[0] else "",
                axis="rate",
            )
            for metric, _, _, label in RATES
            if (rows["metric"] == metric).any()
            for method in methods
        ]
        title, counted = methods[0].title(rows), findings.curve(rows, metric="change_rate")
        return [Figure("change-rate", title, plots, len(methods), counted, "pairs", shared_y=True)]


def _encode(
    session: Session, pairs: Sequence[Pair], rows: int
) -> tuple[list[list[tuple[Pair, ModelBatch]]], dict[str, str]]:
    """Pairs that fit into one batch of so many `rows` each, and by pair id what is wrong with the
    others.
    """
    from franken.probe.swap import encode_pair, stackable

    together = max(1, session.plan.batch_size // rows)
    groups: list[list[tuple[Pair, ModelBatch]]] = []
    errors: dict[str, str] = {}
    for pair in pairs:
        try:
            prompts = session.prompt(pair.target), session.prompt(pair.source)
            encoded = encode_pair(session.loaded, *prompts)
        except FrankenError as e:
            errors[pair.id] = f"{e.what}: {e.why}"
            continue
        fitting = (g for g in groups if len(g) < together and stackable(g[0][1], encoded))
        group = next(fitting, None)
        if group is None:
            groups.append(group := [])
        group.append((pair, encoded))
    return groups, errors


def _answers(
    session: Session, group: Sequence[tuple[Pair, ModelBatch]], sets: Sequence[Layers]
) -> dict[str, list[Answered]]:
    """By pair id the judged answer under every set. What might be rounding runs again alone."""
    from franken.probe.answers import is_doubtful

    loaded, plan = session.loaded, session.plan
    if plan.engine == "nnsight":
        from franken.probe.nnsight_engine import swapped_batch
    else:
        from franken.probe.swap import swapped_batch
    ends = [frozenset(), frozenset(range(session.depth))]  # the plain answer and the source's

    def swapped(encoded: Sequence[ModelBatch], chosen: Sequence[Layers]) -> list[list[Swapped]]:
        size = plan.batch_size
        asked = [*ends, *chosen]
        return swapped_batch(loaded, encoded, asked, plan.max_new_tokens, size, measure=True)

    answers = {}
    batch = swapped([encoded for _, encoded in group], sets)
    for (pair, encoded), (plain, source, *rows) in zip(group, batch, strict=True):
        alone = cache(lambda chosen, encoded=encoded: swapped([encoded], [chosen])[0])
        judged = answers[pair.id] = []
        for chosen, row in zip(sets, rows, strict=True):
            if is_doubtful(loaded, row.answer, plain.answer):
                first, second, again = alone(chosen)
                judged.append(_judged(pair, again, first, second, row.answer.text))
            else:
                judged.append(_judged(pair, row, plain, source, None))
    return answers


def _in_tower(
    session: Session, group: Sequence[tuple[Pair, ModelBatch]], sets: Sequence[Layers]
) -> dict[str, list[Answered]]:
    """As `_answers`, of blocks of the tower, or of the projector."""
    from franken.probe.answers import is_doubtful
    from franken.probe.scores import Swapped
    from franken.probe.tower import swapped_answers, swapped_scores

    loaded, plan = session.loaded, session.plan
    asked = list(dict.fromkeys(sets))

    def answers(some: Sequence[tuple[Pair, ModelBatch]], chosen: Sequence[Layers]):
        prompts = [session.prompt(pair.target) for pair, _ in some]
        encoded = [batch for _, batch in some]
        return swapped_answers(loaded, plan.part, encoded, prompts, chosen, plan.max_new_tokens)

    together = dict(zip(asked, answers(group, asked), strict=True))
    judged = {}
    for place, (pair, encoded) in enumerate(group):
        replies = session.reply(pair.target), session.reply(pair.source)
        scores = swapped_scores(loaded, plan.part, encoded, replies, [frozenset(), *asked])
        plain = Swapped(replies[0], *scores[0])
        source = Swapped(replies[1])
        by_set = dict(zip(asked, scores[1:], strict=True))
        rows = judged[pair.id] = []
        for chosen in sets:
            now, batched = together[chosen][place], None
            if is_doubtful(loaded, now, plain.answer):
                now, batched = answers([(pair, encoded)], [chosen])[0][0], now.text
            rows.append(_judged(pair, Swapped(now, *by_set[chosen]), plain, source, batched))
    return judged


def _judged(
    pair: Pair, row: Swapped, plain: Swapped, source: Swapped, batched: str | None
) -> Answered:
    from franken.probe.answers import judge

    judged = judge(pair, row.answer, plain.answer, source.answer, batched)
    return replace(
        judged,
        kl=row.kl,
        logit_difference=row.logit_difference,
        baseline_logit_difference=plain.logit_difference,
    )


def fall_layers(samples: pd.DataFrame) -> dict[str, float]:
    """Per sample, the number of layers ℓ at which a suffix swap still changes the answer: where the
    image has been read out.

    For a curve that falls once it is the layer of the fall. Samples whose answer does not even
    change at ℓ = 0 are left out.
    """
    falls = {}
    for sample, cell in samples.groupby("sample", sort=False):
        changed = dict(zip(cell["layer"].astype(int), cell["changed"].astype(bool), strict=True))
        if changed.get(0):
            falls[str(sample)] = float(sum(changed.values()))
    return falls


def fall_tests(samples: pd.DataFrame) -> list[FallTest]:
    """Do two tasks fall at different layers? Paired by the image both ask about, sign-flip test,
    Holm over task pairs.

    Puzzles of one world draw the same i-th image, so sample `read-…-7` is paired with `sum-…-7`.
    Pairs of tasks that share no image are not tested.
    """
    suffix = findings.select(usable(samples), method="swap-suffix")
    falls: dict[str, dict[str, float]] = {}
    worlds: dict[str, str | None] = {}
    for task, cell in suffix.groupby("task", sort=False):
        by_sample = fall_layers(cell)
        falls[str(task)] = {sample.split("-", 1)[-1]: fall for sample, fall in by_sample.items()}
        worlds[str(task)] = cell["world"].iloc[0]
    tests: list[FallTest] = []
    for a, b in itertools.combinations(falls, 2):
        shared = sorted(set(falls[a]) & set(falls[b]))
        if worlds[a] != worlds[b] or worlds[a] is None or len(shared) < 2:
            continue
        x, y = ([falls[task][image] for image in shared] for task in (a, b))
        gap, low, high = difference(x, y, span=suffix["layer"].nunique())
        p = sign_flip_test(np.subtract(y, x))
        tests.append(FallTest(tasks=(a, b), difference=gap, ci=(low, high), p=p, n=len(shared)))
    adjusted = holm([test.p for test in tests])
    return [
        test.model_copy(update={"p_adjusted": p}) for test, p in zip(tests, adjusted, strict=True)
    ]


for _mode in (*MODES, "window"):
    register("probe", f"swap-{_mode}", Swap(f"swap-{_mode}", _mode))
