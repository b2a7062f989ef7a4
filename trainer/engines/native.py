"""Rollouts by the policy itself, in this process (franken.generate.native)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from franken.generate.native import Prompt, Response, Sampling, sample
from franken.models.batch import ModelBatch
from franken.models.loading import Loaded
from trainer.policy import row_slices
from trainer.sharding import whole


class NativeEngine:
    """Samples from the model that trains, `at_once` prompts (all by default) at a time.

    A sample's random stream follows from its prompt's key and its number, and a slice keeps the
    padding of the batch: only the rounding of products with another number of rows tells slices
    apart. In fp32 that is the last digit of log-probabilities; in 16 bits a draw that falls between
    two tokens may fall on the other one.
    """

    def __init__(self, policy: Loaded, at_once: int = 0) -> None:
        self.policy, self.at_once = policy, at_once

    @contextmanager
    def ready(self) -> Iterator[None]:
        """A sharded model is gathered once for all that is sampled."""
        with whole(self.policy.model):
            yield

    def sample(
        self, prompts: Sequence[Prompt], encoded: ModelBatch, sampling: Sampling
    ) -> list[list[Response]]:
        """`sampling.n` responses to every prompt; no more rows than those of a slice are in the
        cache.
        """
        responses: list[list[Response]] = []
        for rows in row_slices(len(prompts), self.at_once):
            part = encoded if len(rows) == len(prompts) else encoded.slice(rows)
            responses += sample(self.policy, part, [prompts[i].key for i in rows], sampling)
        return responses
