"""`repetition`: −(1 − distinct / all) over the n-grams of words, in [−1, 0] (arXiv 2502.03373,
"Demystifying Long Chain-of-Thought Reasoning", charges repeated n-grams; this is the share of
them). Option `n`, 3 by default."""

from collections.abc import Sequence

from franken.generate.native import Response
from franken.tasks import Item
from trainer.rewards.context import Context


def repetition(replies: Sequence[Response], rows: Sequence[Item], context: Context) -> list[float]:
    """0 where nothing is repeated, also where a reply is shorter than n words."""
    n = int(context.options.get("n", 3))
    return [-_repeated(reply.text.lower().split(), n) for reply in replies]


def _repeated(words: list[str], n: int) -> float:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
