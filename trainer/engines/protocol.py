"""What the GRPO stage asks of an engine: responses of the policy as it is now."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from franken.generate.native import Prompt, Response, Sampling
from franken.models.batch import ModelBatch


class RolloutEngine(Protocol):
    """Samples responses with the policy's current weights.

    A response carries the log-probabilities of its tokens under the distribution that it was drawn
    from; image and vision-marker tokens are never sampled. Samples follow from the prompt's key,
    the sampling's seed and the weights.
    """

    def ready(self) -> AbstractContextManager[None]:
        """Within it, `sample` uses the weights after the last optimizer step; outside, an engine
        may give its memory back.
        """
        ...

    def sample(
        self, prompts: Sequence[Prompt], encoded: ModelBatch, sampling: Sampling
    ) -> list[list[Response]]:
        """`sampling.n` responses to every prompt. `encoded` are the same prompts as the trainer's
        processor encodes them, for engines that read tokens instead of images.
        """
        ...
