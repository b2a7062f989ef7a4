"""`lens`: what the model would answer if it stopped at a layer, where its answer begins and at the
image's tokens.

How the residual stream is read is in `franken.probe.lens`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from franken.plugins import register
from franken.probe import findings
from franken.probe.figure import PERCENT, Curves, Figure
from franken.probe.method import Columns, Cost, Method, Metric

if TYPE_CHECKING:
    import pandas as pd

    from franken.probe.cost import TextShape
    from franken.probe.lens import Lens
    from franken.probe.plan import ProbePlan
    from franken.probe.session import Session
    from franken.tasks import Pair

BRIDGED = (
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen2",
    "qwen3",
)  # families that TransformerLens reads (tested)
CHUNK = 64  # positions whose logits over the vocabulary exist at a time
PLACES = {"all": "where the answer begins", "image": "at the image's tokens"}
PLOTS = {  # metric → the y axis's name
    "answer_probability": "probability of the answer, %",
    "answer_rank": "rank of the answer",
    "entropy": "entropy, nats",
}


def is_bridged(model_type: str) -> bool:
    """Whether TransformerLens reads a family, around a copy of the model of its own."""
    return model_type in BRIDGED


def lens_of(session: Session) -> Lens:
    """The lens for the run's model: TransformerLens around a second copy where it knows the
    family.
    """
    from franken.probe import lens

    return lens.lens_for(session.loaded, session.reload)


class LogitLens(Method["LogitLens"]):
    """Probability, rank and entropy of the right answer's first token, read at every layer.

    At the component `image`, probability and entropy are means over the image's tokens and the
    rank is the best one's.
    """

    short = "lens"
    shown = ("answer_is_first",)

    def metrics(self, columns: Collection[str] = ()) -> tuple[Metric, ...]:
        return (
            Metric(
                "answer_is_first", lambda rows: rows["rank_gold"] == 1, rate=True, compared=False
            ),
            *_readings("all", ""),
            *_readings("image", "image_"),
        )

    @classmethod
    def cost(cls, methods: Sequence[LogitLens], plan: ProbePlan, shape: TextShape) -> Cost:
        copies = 2 if is_bridged(plan.checkpoint.config.get("model_type", "")) else 1
        activations = shape.stream + 12 * CHUNK * shape.vocabulary  # logits and softmax in fp32
        usual = super().cost(methods, plan, shape)
        return replace(usual, copies=copies, activations=activations)

    @classmethod
    def check(cls, methods: Sequence[LogitLens], session: Session) -> list[str]:
        from franken.probe.controls import check_lens

        return check_lens(session.loaded, session.once(lens_of), session.control_prompts)

    def measure(self, session: Session, pair: Pair) -> Sequence[Columns]:
        from franken.probe.lens import read_answer

        reply, lens = session.reply(pair.target), session.once(lens_of)
        base = {"baseline": reply.text, "truncated": reply.truncated}
        prompt, answer = session.prompt(pair.target), pair.target.answer
        readings = read_answer(session.loaded, lens, prompt, reply.ids, answer)
        return [base | asdict(readings[layer]) for layer in session.plan.layers]

    def title(self, rows: pd.DataFrame) -> str:
        """From which layer on the right answer is read first, per task: at least half of the time,
        and in all layers above.
        """
        first = findings.select(rows, metric="answer_is_first", component="all")
        begins = []
        for task in findings.task_names(first):
            right = findings.select(first, task=task).sort_values("layer")
            wrong = right.loc[right["value"] < 0.5, "layer"]
            start = int(right["layer"].min()) if not len(wrong) else int(wrong.max()) + 1
            if start <= int(right["layer"].max()):
                begins.append((start, task))
        if not begins:
            return "What the residual stream would answer, read at each layer"
        return "The lens reads the answer from this layer on: " + ", ".join(
            f"{task} {start}" for start, task in sorted(begins)
        )

    @classmethod
    def figures(cls, methods: Sequence[LogitLens], rows: pd.DataFrame) -> list[Figure]:
        plots = [
            Curves(
                findings.select(rows, metric=metric, component=component),
                title=place if metric == "answer_probability" else "",
                label=label,
                scale=PERCENT if metric == "answer_probability" else 1,
                axis="log" if metric == "answer_rank" else "free",
            )
            for component, place in PLACES.items()
            if component in set(rows["component"])
            for metric, label in PLOTS.items()
        ]
        title, counted = methods[0].title(rows), findings.curve(rows, metric="answer_probability")
        return [Figure("lens", title, plots, 3, counted, "questions", width=3.9)]


def _readings(component: str, prefix: str) -> tuple[Metric, ...]:
    """Of the columns that begin with `prefix`; what is read at the image is not compared."""
    answer = component == "all"
    return (
        Metric(
            "answer_probability",
            f"{prefix}p_gold",
            component,
            label="Probability of the answer",
            compared=answer,
        ),
        Metric("entropy", f"{prefix}entropy", component, "Entropy, nats", scale=1, compared=answer),
        Metric("answer_rank", f"{prefix}rank_gold", component, geometric=True, compared=False),
    )


register("probe", "lens", LogitLens("lens"))
