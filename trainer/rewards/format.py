"""`format`: 1 for a reply in the shape of the template, else 0."""

from collections.abc import Sequence

from franken.generate.native import Response
from franken.tasks import Item
from trainer.rewards.context import Context
from trainer.templates import well_formed


def format(replies: Sequence[Response], rows: Sequence[Item], context: Context) -> list[float]:
    """1[well-formed]."""
    return [float(well_formed(reply.text, context.template)) for reply in replies]
