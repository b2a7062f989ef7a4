"""What a probe method is: one object, which everything else asks.

An object is one method as it is spelled on the command line and in a run's rows, for example
`patch-heads-noising`; what its spellings share is its class, in one file of
`franken.probe.methods`. The class says which parts and sites it takes, what it costs, how it runs
and is checked; its `metrics` say how rows become estimates and what two runs are compared by; and
it describes its figures as data (`franken.probe.figure`). Adding a method is adding a file, there
or as a plugin: both end in `register("probe", name, method)`.

Importing a method's file loads no torch, since the report and `--dry-run` ask methods too: what
computes is imported by the functions that run it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np

from franken import stats
from franken.errors import FrankenError, UsageError
from franken.layers import name_layers
from franken.probe import findings
from franken.probe.figure import PERCENT, Cells, Curves, Figure
from franken.runs import layer_row
from franken.stats import ALPHA

if TYPE_CHECKING:
    import pandas as pd

    from franken.checkpoints import Checkpoint
    from franken.probe.cost import TextShape
    from franken.probe.plan import ProbePlan
    from franken.probe.session import Session
    from franken.runs import LayerRow, RowHead
    from franken.tasks import Pair

M = TypeVar("M", bound="Method[Any]")  # a subclass itself: its methods are handled together
DIFFERENCE = "_difference"  # behind the name of a metric that two runs are compared by


@dataclass(frozen=True)
class Metric:
    """A number of every sample, and how its mean over samples is estimated.

    `column` of samples.parquet, or a function of the samples. A column of lists has a number a
    head: its components are `COMPONENT, head 3`, or `head 3` where `component` is empty. A `rate`
    lies in [0, 1], a `rate_difference` in [−1, 1]; `geometric` means are of the logarithms of
    ranks, from 1. `test` gives a p-value from a layer's samples and their values; Holm runs over
    the layers, and the heads, of a component. `label` is what figures call it (those without one
    are not drawn), in percent by default: `scale`. `compared`: whether `probe-compare` tests its
    difference; `peaked`: whether a run's `peaks` are found in it.
    """

    name: str
    column: str | Callable[[pd.DataFrame], pd.Series]
    component: str = findings.WHOLE
    label: str = ""
    scale: float = PERCENT
    rate: bool = False
    rate_difference: bool = False
    geometric: bool = False
    compared: bool = True
    peaked: bool = False
    test: Callable[[pd.DataFrame, np.ndarray], float] | None = None

    def values(self, samples: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
        """(component, a number a sample) of the samples that have one."""
        import pandas as pd

        if callable(self.column) and len(samples):
            measured = self.column(samples).dropna()
        elif self.column in samples:
            measured = samples[self.column].dropna()
        else:
            measured = pd.Series(dtype=float)
        if len(measured) and np.ndim(measured.iloc[0]):
            prefix = f"{self.component}, " if self.component else ""
            heads = np.array([list(numbers) for numbers in measured], float).T
            for head, numbers in enumerate(heads):
                yield f"{prefix}head {head}", pd.Series(numbers, measured.index)
        elif self.component:
            yield self.component, measured.astype(float)

    def estimate(self, head: RowHead, layer: int, component: str, values: np.ndarray) -> LayerRow:
        """A row of layers.parquet: the mean with its interval; null values and n = 0 without
        data.
        """
        row = layer_row(**head, layer=layer, metric=self.name, component=component, n=len(values))
        if not len(values):
            return row
        if self.rate:
            estimate = stats.mean_rate(values)
        elif self.rate_difference:
            estimate = stats.difference(np.maximum(-values, 0), np.maximum(values, 0), rates=True)
        else:
            estimate = stats.mean(np.log(values) if self.geometric else values)
        if self.geometric:
            # A rank is at least 1: an interval cut there holds the mean just as often.
            estimate = stats.Estimate(*np.maximum(np.exp(estimate), 1.0))
        return {**row, **estimate.columns()}


Columns = Mapping[str, object]
"""What a method says of a pair at one layer, by the columns of samples.parquet."""


class Measurement(NamedTuple):
    """A row of samples.parquet: what a method measured of a pair at a layer, or why it did not."""

    method: str
    pair: Pair
    layer: int
    columns: Columns
    error: str | None = None
    ineligible: str | None = None


@dataclass(frozen=True)
class Cost:
    """What the methods of one class take.

    Forward passes are of the whole model over a batch. `naive` is what running every layer's answer
    from the pixels on, one by one, would take; `resumed_layers` counts single decoder layers that
    run again; `replies` are the items whose own greedy reply is needed, shared among all methods:
    the `id` of an item for the model's own, its complement (`~`) for the second model's.
    For memory: `rows` that run at a time, prompts whose keys and values are stored for them,
    activations in bytes beyond those of the rows, and copies of the weights.
    """

    forwards: int = 0
    naive: int = 0
    resumed_layers: int = 0
    replies: frozenset[int] = field(default_factory=frozenset)
    rows: int = 1
    stores: int = 1
    activations: int = 0
    copies: int = 1

    @classmethod
    def in_tower(
        cls, plan: ProbePlan, *, items: Collection[int], changes: int, asked: int, scored: int
    ) -> Cost:
        """Of changes to the tower or the projector, which are whole passes: each of `changes` is
        answered by `asked` prompts, in batches, and read in `scored` passes of one.
        """
        batches = -(-asked // plan.batch_size)
        return cls(
            forwards=changes * batches * plan.max_new_tokens + scored,
            naive=changes * asked * plan.max_new_tokens + scored,
            replies=frozenset(items),
            rows=plan.batch_size,
            stores=plan.batch_size,
        )


@dataclass(frozen=True)
class Method(Generic[M]):
    """A probe method; `name` is what the command line and rows call it. A subclass gives `metrics`,
    and `measure` or `run`.
    """

    name: str

    short: ClassVar[str] = ""  # what the class is called, in progress and as a shorthand
    sites: ClassVar[tuple[str, ...]] = ()  # what `--site` may name
    needs_source: ClassVar[bool] = False  # whether it looks at the second image
    needs_second: ClassVar[bool] = False  # whether it compares the model with a second one
    shown: ClassVar[tuple[str, ...] | None] = None  # metrics printed at the end; None is all
    components: ClassVar[str] = ""  # the heading of a printed table a task, components across

    def metrics(self, columns: Collection[str] = ()) -> tuple[Metric, ...]:
        """What samples with these columns are summarised and compared by."""
        return ()

    # what it is called

    @classmethod
    def spelled(cls, sites: Sequence[str]) -> tuple[str, ...]:
        """The names that `short` stands for at these sites; none where it is a name itself."""
        return ()

    def given(self, argument: str) -> Self:
        """The method for what follows a colon in its name. Raises UsageError for one that it does
        not take.
        """
        if argument:
            raise UsageError(
                f"{self.name} takes no {argument!r}",
                why="nothing may follow its name",
                fix=f"write {self.name}",
            )
        return self

    @property
    def example(self) -> str:
        """A name that it goes by, for messages."""
        return self.name

    # what it takes

    def obstacle(self, linear: int, shared: int) -> str | None:
        """Why it is not defined for a model of which so many layers have linear attention, and so
        many read the keys and values of lower ones; None where it is.
        """
        return None

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of a model whose layers it can probe."""
        return ("text",)

    def unfit(self, checkpoint: Checkpoint) -> str | None:
        """Why it is not defined for a checkpoint, seen from its headers; None where it is."""
        return None

    @property
    def calibrated(self) -> bool:
        """Whether it needs samples that are not probed, to know what is usual."""
        return False

    @classmethod
    def cost(cls, methods: Sequence[M], plan: ProbePlan, shape: TextShape) -> Cost:
        """By default the greedy reply and one more pass a question, for each method."""
        items = [p.target for p in plan.pairs if not p.target.error]
        return Cost(
            forwards=len(methods) * len(items),
            naive=len(methods) * len(plan.pairs) * (plan.max_new_tokens + 1),
            replies=frozenset(map(id, items)),
        )

    # how it runs

    @classmethod
    def check(cls, methods: Sequence[M], session: Session) -> list[str]:
        """What fails of its built-in controls, in words."""
        return []

    @classmethod
    def run(
        cls, methods: Sequence[M], session: Session, pairs: Sequence[Pair]
    ) -> Iterator[Measurement]:
        """The rows of some pairs, pair by pair; all methods of the class that were asked for run
        together, so that they may share work.
        """
        for pair in pairs:
            for method in methods:
                try:
                    by_layer, error = method.measure(session, pair), None
                except FrankenError as e:
                    by_layer, error = None, f"{e.what}: {e.why}" if e.why else e.what
                for place, layer in enumerate(session.plan.layers):
                    columns = {} if by_layer is None else by_layer[place]
                    yield Measurement(method.name, pair, layer, columns, error)

    def measure(self, session: Session, pair: Pair) -> Sequence[Columns]:
        """The columns of one pair's rows, a mapping for each of the plan's layers. A FrankenError
        is the pair's own: its rows say so.
        """
        raise NotImplementedError

    # what its rows say

    def summarise(self, samples: pd.DataFrame, head: RowHead) -> list[LayerRow]:
        """The rows of layers.parquet of one model and task, whose names are in `head`.

        `samples` are all rows, those that failed or are ineligible too: a layer of which nothing is
        left has null values and n = 0.
        """
        rows: list[LayerRow] = []
        families: dict[tuple[str, str], list[tuple[LayerRow, float]]] = {}
        for layer, cell in samples.groupby("layer"):
            measured = usable(cell)
            for metric in self.metrics(samples.columns):
                for component, values in metric.values(measured):
                    numbers = values.to_numpy(float)
                    row = metric.estimate(head, int(str(layer)), component, numbers)
                    rows.append(row)
                    if metric.test:
                        kind = metric.name, component.partition("head")[0]
                        p = metric.test(measured, numbers)
                        families.setdefault(kind, []).append((row, p))
        for members in families.values():
            adjusted = stats.holm([p for _, p in members])
            for (row, _), p in zip(members, adjusted, strict=True):
                row["p_adjusted"] = p
        return rows

    @classmethod
    def results(cls, samples: pd.DataFrame) -> Mapping[str, object]:
        """What else the manifest tells of a run's samples, by name."""
        return {}

    # how it is drawn

    def label_of(self, metric: str) -> str:
        """What figures call a metric; empty for one that is not drawn."""
        return next((m.label for m in self.metrics() if m.name == metric), metric)

    def scale_of(self, metric: str) -> float:
        """What values of a metric are multiplied by in figures."""
        return next((m.scale for m in self.metrics() if m.name == metric), 1.0)

    def title(self, rows: pd.DataFrame) -> str:
        """One sentence on top of its figure: what was found, from the rows that are drawn."""
        return f"{self.name}, by layer"

    @classmethod
    def figures(cls, methods: Sequence[M], rows: pd.DataFrame) -> list[Figure]:
        """The figures of a run; `rows` are those of the methods that have a value. By default a
        figure a method and in it a plot a metric.
        """
        drawn = []
        for method in methods:
            own = findings.select(rows, method=method.name)
            plots = [
                Curves(
                    findings.curve(own, metric=metric),
                    label=method.label_of(metric),
                    scale=method.scale_of(metric),
                )
                for metric in dict.fromkeys(own["metric"])
            ]
            columns = min(3, len(plots))
            name, title = method.name.replace(":", "-"), method.title(own)
            drawn.append(Figure(name, title, plots, columns, own, "questions"))
        return drawn

    def comparison(self, rows: pd.DataFrame, first: str, second: str) -> Figure:
        """The figure of a comparison of two runs, second − first: a plot a metric, and one by
        head.
        """
        plots: list[Curves | Cells] = []
        for name in dict.fromkeys(rows["metric"]):
            metric = name.removesuffix(DIFFERENCE)
            if not self.label_of(metric):
                continue
            scale = self.scale_of(metric)
            plots.append(
                Curves(
                    findings.curve(rows, metric=name),
                    title=self.label_of(metric),
                    label=f"{second} − {first}" + (", points" if scale == PERCENT else ""),
                    scale=scale,
                    axis="signed",
                    ringed=True,
                )
            )
        if len(by_head := rows.loc[rows["component"].str.startswith("head ")]):
            plots.append(head_cells(by_head, label="points", limits=(None, None)))
        title = self._shift(rows, first, second)
        note = f"{self.name}; ringed where p < {ALPHA} after Holm"
        return Figure(f"{self.name}-shift", title, plots, len(plots), rows, "pairs", note)

    def _shift(self, rows: pd.DataFrame, first: str, second: str) -> str:
        """In which layers the first metric's difference is sure in some task, and which way."""
        metric = rows["metric"].iloc[0]
        label = self.label_of(metric.removesuffix(DIFFERENCE))
        ways: dict[str, list[int]] = {"more": [], "less": [], "more or less, by task,": []}
        differs = findings.curve(rows, metric=metric)
        for layer, cell in differs.loc[differs["p_adjusted"] < ALPHA].groupby("layer"):
            signs = set(cell["value"] > 0)
            way = (
                "more or less, by task," if len(signs) == 2 else "more" if True in signs else "less"
            )
            ways[way].append(int(str(layer)))
        parts = [f"{way} in {name_layers(layers)}" for way, layers in ways.items() if layers]
        return f"{label}, {second} against {first}: {', '.join(parts) or 'no layer differs'}"


def usable(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples that carry a measurement: neither failed nor ineligible."""
    return samples.loc[samples["error"].isna() & samples["ineligible"].isna()]


def head_cells(
    rows: pd.DataFrame,
    *,
    title: str = "By head, mean over tasks",
    label: str,
    scale: float = PERCENT,
    limits: tuple[float | None, float | None],
    palette: str = "vlag",
) -> Cells:
    """Layer × head, the mean over tasks; components end in `head 3`."""
    mean = rows.pivot_table(index=["component", "layer"], values="value").reset_index()
    order = sorted(set(mean["component"]), key=lambda name: int(name.split()[-1]))
    return Cells(mean, order, title, label, scale, limits, palette, heads=True)
