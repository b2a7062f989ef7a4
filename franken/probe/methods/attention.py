"""`attention`: how much the tokens that the model writes look at the image, by layer and head.

The arithmetic, and which figure of the Frankenstein paper it is, are in `franken.probe.attention`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from franken.layers import name_layers
from franken.plugins import register
from franken.probe import findings
from franken.probe.figure import Curves, Figure
from franken.probe.method import Columns, Method, Metric, head_cells

if TYPE_CHECKING:
    import pandas as pd

    from franken.probe.session import Session
    from franken.tasks import Pair

MASS = "attention_mass"
NO_WEIGHTS = "the layer has linear attention, which has no weights"


class Attention(Method["Attention"]):
    """The share of a written token's attention that falls on the image."""

    short = "attention"
    shown = (MASS,)

    def metrics(self, columns: Collection[str] = ()) -> tuple[Metric, ...]:
        """`attention_per_pair` is the mass over the number of visual tokens."""
        return (
            Metric(MASS, "mass", label="Attention to the image"),
            Metric("attention_per_pair", lambda rows: rows["mass"] / rows["n_vision"]),
            Metric(MASS, "head_mass", component=""),
        )

    @classmethod
    def check(cls, methods: Sequence[Attention], session: Session) -> list[str]:
        from franken.probe.controls import check_attention

        return check_attention(session.loaded, session.control_prompts)

    def measure(self, session: Session, pair: Pair) -> Sequence[Columns]:
        from franken.probe.attention import look_at_image

        reply = session.reply(pair.target)
        base = {"baseline": reply.text, "truncated": reply.truncated}
        looks = look_at_image(session.loaded, session.prompt(pair.target), reply.ids)
        chosen = [looks[layer] for layer in session.plan.layers]
        return [base | ({"ineligible": NO_WEIGHTS} if x is None else asdict(x)) for x in chosen]

    def title(self, rows: pd.DataFrame) -> str:
        """Where replies look at the image most."""
        pooled = findings.pool_tasks(findings.curve(rows, metric=MASS))
        where = name_layers(findings.peak(pooled))
        share = f"{100 * float(pooled['value'].max()):.0f} % of its attention"
        return f"What the model writes looks at the image most in {where}: {share}"

    @classmethod
    def figures(cls, methods: Sequence[Attention], rows: pd.DataFrame) -> list[Figure]:
        mass = findings.curve(rows, metric=MASS)
        heads = rows.loc[rows["component"].str.startswith("head ")]
        plots = [
            Curves(
                mass,
                title="Of what each written token looks at",
                label="attention to the image, %",
                axis="positive",
            ),
            head_cells(heads, label="% on the image", limits=(0, None), palette="mako_r"),
        ]
        return [Figure("attention", methods[0].title(mass), plots, 2, mass, "replies")]


register("probe", "attention", Attention("attention"))
