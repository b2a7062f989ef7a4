"""A probe method of your own, whole: what if a layer added only a part of what it adds?

    franken --plugin probe_method.py probe creature:sft --method damp:0.5 --tasks read --samples 10

franken's own methods are objects like this one, each in a file of `franken/probe/methods/`; copied
there, this file would be built in. Everything else asks the object: the command line what names and
arguments it takes, `--dry-run` what it costs, the run for its rows, `layers.parquet` and
`probe-compare` for its metrics, the figures for their titles.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from franken.errors import UsageError
from franken.generate.native import encode_prompts
from franken.layers import name_layers
from franken.models.hooks import Context, edit
from franken.plugins import register
from franken.probe import findings
from franken.probe.method import Method, Metric
from franken.probe.session import Session, prompt_of
from franken.tasks import Pair


@dataclass(frozen=True)
class Damp(Method):
    """What a layer adds to the residual stream is multiplied by `factor`; read at the token with
    which the model's own reply begins.
    """

    factor: float = 0.0

    short = "damp"  # what its work is called while it runs

    def given(self, argument: str) -> "Damp":
        """`damp:0.5`; without an argument the layer adds nothing."""
        try:
            factor = float(argument or 0)
        except ValueError as e:
            raise UsageError(f"damp:{argument} is no factor", fix="write damp:0.5") from e
        return replace(self, name=f"damp:{argument}" if argument else "damp", factor=factor)

    def metrics(self, columns: Collection[str] = ()) -> tuple[Metric, ...]:
        return (
            Metric("reply_kept", "kept", label="Replies that begin as before", rate=True),
            Metric("probability_lost", "lost", label="Probability of that token lost"),
        )

    @classmethod
    def cost(cls, methods, plan, shape):
        """One pass more for every layer; the default is one a question."""
        usual = super().cost(methods, plan, shape)
        more = len(methods) * len(plan.layers)
        return replace(
            usual,
            forwards=usual.forwards + more * len(usual.replies),
            naive=usual.naive + more * len(plan.pairs),
        )

    @torch.no_grad()
    def measure(self, session: Session, pair: Pair) -> Sequence[Mapping[str, object]]:
        """The columns of this pair's rows, for every layer of the plan."""
        loaded, first = session.loaded, session.reply(pair.target).ids[0]
        batch = encode_prompts(loaded, [prompt_of(pair.target)])
        layers = loaded.family.decoder_layers(loaded.model)

        def damped(output: Tensor, context: Context) -> Tensor:
            return context.input + self.factor * (output - context.input)

        def probabilities() -> Tensor:
            return loaded.model(**batch, logits_to_keep=1).logits[0, -1].float().softmax(-1)

        plain, rows = probabilities(), []
        for layer in session.plan.layers:
            with edit({layers[layer]: damped}):
                now = probabilities()
            lost = float(plain[first] - now[first])
            rows.append({"kept": bool(now.argmax() == plain.argmax()), "lost": lost})
        return rows

    def title(self, rows: pd.DataFrame) -> str:
        pooled = findings.pool_tasks(findings.curve(rows, metric="probability_lost"))
        return f"Its replies need {name_layers(findings.peak(pooled))} most"


register("probe", "damp", Damp("damp"))
