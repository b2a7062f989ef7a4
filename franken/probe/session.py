"""What the methods of one running probe share: its plan, the model in memory, what that model
answers by itself, and whatever else is made once a run.

A method that compares two models finds the second here as well. Both see the same tokens: the
probed model's processor encodes, and what it made is given to either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, cast

from franken.errors import FrankenError
from franken.generate.native import Prompt, Response, Sampling, encode_prompts, generate, sample
from franken.models.loading import Loaded

if TYPE_CHECKING:
    from franken.probe.plan import ProbePlan
    from franken.tasks import Item, Pair

CONTROLS = 2  # samples that the built-in controls run on
Made = TypeVar("Made")


def prompt_of(item: Item) -> Prompt:
    """The item as a user turn. Raises FrankenError for one that could not be read."""
    if item.error:
        raise FrankenError(item.error)
    return Prompt(item.question, item.pictures, item.id)


def _same_size(pair: Pair) -> bool:
    a, b = pair.target.image, pair.source.image
    return a is not None and b is not None and a.size == b.size


class Session:
    """A probe while it runs. `reload` loads the checkpoint once more, for what changes a model;
    `second` is the model that it is compared with.
    """

    def __init__(
        self,
        plan: ProbePlan,
        loaded: Loaded,
        reload: Callable[[], Loaded] | None = None,
        second: Loaded | None = None,
    ) -> None:
        self.plan, self.loaded = plan, loaded
        self.reload = reload or (lambda: loaded)
        self._second = second
        self._second_replies: dict[int, Response] = {}
        self._replies: dict[int, Response] = {}  # by identity: the plan keeps its items alive
        self._made: dict[object, object] = {}

    @property
    def depth(self) -> int:
        """How many layers the probed part has."""
        from franken.probe.plan import depth_of  # which imports the methods

        return depth_of(self.plan.checkpoint, self.plan.part)

    @property
    def second(self) -> Loaded:
        """The second model. Raises FrankenError in a probe of one."""
        if self._second is None:
            raise FrankenError("there is no second model", fix="name one with --against")
        return self._second

    @cached_property
    def control_prompts(self) -> list[Prompt]:
        """The first prompts, for controls."""
        readable = [p.target for p in self.plan.pairs if not p.target.error]
        return [prompt_of(item) for item in readable[:CONTROLS]]

    @cached_property
    def control_pairs(self) -> list[tuple[Prompt, Prompt]]:
        """The first (target, source) whose images are of equal size, for controls."""
        usable = [p for p in self.plan.pairs if not p.error and not p.ineligible and _same_size(p)]
        return [(prompt_of(p.target), prompt_of(p.source)) for p in usable[:CONTROLS]]

    def prompt(self, item: Item) -> Prompt:
        """The item as a user turn. Raises FrankenError for one that could not be read."""
        return prompt_of(item)

    def reply(self, item: Item) -> Response:
        """The model's greedy reply to an item, generated once and shared."""
        if id(item) not in self._replies:
            greedy = Sampling(1, 0.0, self.plan.max_new_tokens)
            self._replies[id(item)] = generate(self.loaded, [prompt_of(item)], greedy)[0][0]
        return self._replies[id(item)]

    def second_reply(self, item: Item) -> Response:
        """The second model's greedy reply to the same tokens, generated once and shared."""
        if id(item) not in self._second_replies:
            greedy = Sampling(1, 0.0, self.plan.max_new_tokens)
            batch = encode_prompts(self.loaded, [prompt_of(item)])
            self._second_replies[id(item)] = sample(self.second, batch, [item.id], greedy)[0][0]
        return self._second_replies[id(item)]

    def once(self, make: Callable[[Session], Made]) -> Made:
        """What `make` gives for this run, made at the first call: a calibration, a second copy."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast(Made, self._made[make])
