"""What the methods of one running probe share: its plan, the model in memory, what that model
answers by itself, and whatever else is made once a run.

A method that compares two models finds the second here as well, once plans name one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

from franken.errors import FrankenError
from franken.generate.native import Prompt, Response, Sampling, generate
from franken.models.loading import Loaded

if TYPE_CHECKING:
    from franken.probe.plan import ProbePlan
    from franken.tasks import Item

Made = TypeVar("Made")


def prompt_of(item: Item) -> Prompt:
    """The item as a user turn. Raises FrankenError for one that could not be read."""
    if item.error:
        raise FrankenError(item.error)
    return Prompt(item.question, (item.image, *item.more_images) if item.image else (), item.id)


class Session:
    """A probe while it runs. `reload` loads the checkpoint once more, for what changes a model."""

    def __init__(
        self, plan: ProbePlan, loaded: Loaded, reload: Callable[[], Loaded] | None = None
    ) -> None:
        self.plan, self.loaded = plan, loaded
        self.reload = reload or (lambda: loaded)
        self._replies: dict[int, Response] = {}  # by identity: the plan keeps its items alive
        self._made: dict[object, object] = {}

    @property
    def depth(self) -> int:
        """How many decoder layers the model has."""
        return self.plan.checkpoint.depths["text"]

    def reply(self, item: Item) -> Response:
        """The model's greedy reply to an item, generated once and shared."""
        if id(item) not in self._replies:
            greedy = Sampling(1, 0.0, self.plan.max_new_tokens)
            self._replies[id(item)] = generate(self.loaded, [prompt_of(item)], greedy)[0][0]
        return self._replies[id(item)]

    def once(self, make: Callable[[Session], Made]) -> Made:
        """What `make` gives for this run, made at the first call: a calibration, a second copy."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast(Made, self._made[make])
