"""The simple form of a probe method: one function from a prompt and the model's reply to a number,
or several, a layer.

    def growth(loaded, prompt, reply): return [{"growth": 1.0}, …]    # a dictionary a decoder layer
    register("probe", "growth", growth)

Its numbers are stored under `own:NAME`, so that rows can be read without the plugin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from franken.errors import FrankenError
from franken.probe.method import Columns, Method, Metric

if TYPE_CHECKING:
    from franken.generate import Prompt, Response
    from franken.models.loading import Loaded
    from franken.probe.session import Session
    from franken.tasks import Pair

    Measure = Callable[[Loaded, Prompt, Response], Sequence[Mapping[str, float]]]

OWN = "own:"  # before the name of a number that such a function measured


@dataclass(frozen=True)
class Measured(Method["Measured"]):
    """A function `measure(loaded, prompt, reply)`; without one, rows can be read but not made."""

    function: Measure | None = None

    def metrics(self, columns: Collection[str] = ()) -> tuple[Metric, ...]:
        own = (column for column in columns if column.startswith(OWN))
        return tuple(Metric(column.removeprefix(OWN), column) for column in own)

    def label_of(self, metric: str) -> str:
        return metric

    def measure(self, session: Session, pair: Pair) -> Sequence[Columns]:
        if self.function is None:
            raise FrankenError(f"the method {self.name} is not loaded", fix="name its --plugin")
        reply = session.reply(pair.target)
        layers = self.function(session.loaded, session.prompt(pair.target), reply)
        if len(layers) != session.depth:
            raise FrankenError(
                f"a probe returned {len(layers)} rows for {session.depth} layers",
                "it should be one a decoder layer",
            )
        if not all(math.isfinite(value) for numbers in layers for value in numbers.values()):
            raise FrankenError("a probe returned a number that is not finite", "it is inf or nan")
        base = {"baseline": reply.text, "truncated": reply.truncated}
        return [
            base | {OWN + name: float(value) for name, value in layers[layer].items()}
            for layer in session.plan.layers
        ]
