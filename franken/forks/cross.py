"""Cross-sampling: one model writes, and a rule takes the other's token at some places.

Both models read what has been written so far, whoever wrote it, with their own keys and values, in
the one decoding loop of the native engine (`franken.generate.streams`). Each would say what it says
by itself under the same random numbers: a rule that never takes the other's token gives the
writer's own samples, and one that always does gives the other's, token for token. Source:
cross-sampling of arXiv 2603.22446.

A `Rule` answers for the rows that go on whether the other's token is to be taken here; a budget
bounds how many are.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from franken.errors import FrankenError
from franken.forks import divergence
from franken.generate.engine import Prompt, Response, Sampling, sample_names
from franken.generate.native import draws, encode_prompts, end_ids, pick, responses
from franken.generate.streams import Stream, Tokens, advance, prefill
from franken.models.loading import Loaded


@dataclass(frozen=True)
class Here:
    """Where the rows that go on stand: the step, which rows they are, and what both models say."""

    step: int
    rows: Int[Tensor, "live"]
    writer: Stream
    other: Stream
    banned: Int[Tensor, "banned"]

    def js(self) -> Float[Tensor, "live"]:
        """How far the two are apart, at temperature 1."""
        return divergence.js(self._logp(self.writer), self._logp(self.other))

    def entropy(self) -> Float[Tensor, "live"]:
        """How unsure the writer is, at temperature 1."""
        return divergence.entropy(self._logp(self.writer))

    def _logp(self, stream: Stream) -> Float[Tensor, "live vocabulary"]:
        return divergence.log_probs(stream.logits.to(self.banned.device), self.banned)


Rule = Callable[[Here], Bool[Tensor, "live"]]


def never(here: Here) -> Bool[Tensor, "live"]:
    """The writer's own samples."""
    return torch.zeros_like(here.rows, dtype=torch.bool)


def always(here: Here) -> Bool[Tensor, "live"]:
    """The other's own samples."""
    return torch.ones_like(here.rows, dtype=torch.bool)


def where_they_part(threshold: float) -> Rule:
    """Where the two distributions are further apart than `threshold` (JS, in nats)."""
    return lambda here: here.js() > threshold


def where_unsure(least: Sequence[float]) -> Rule:
    """Where the writer's entropy is at least that of its row, in nats."""
    known: dict[torch.device, Tensor] = {}

    def rule(here: Here) -> Bool[Tensor, "live"]:
        bound = known.setdefault(
            here.rows.device, torch.tensor(least, dtype=torch.float64, device=here.rows.device)
        )
        return here.entropy() >= bound[here.rows]

    return rule


def at_places(places: Sequence[Collection[int]]) -> Rule:
    """At fixed places of each row, counted from 0."""
    sets = [frozenset(of_row) for of_row in places]

    def rule(here: Here) -> Bool[Tensor, "live"]:
        wanted = [here.step in sets[row] for row in here.rows.tolist()]
        return torch.tensor(wanted, device=here.rows.device)

    return rule


@dataclass(frozen=True)
class Crossed:
    """A reply of two models: at `places` the other's token was taken, at `changed` of them it was
    another one than the writer would have said.
    """

    response: Response
    places: list[int]
    changed: int


@torch.no_grad()
def cross_sample(
    writer: Loaded,
    other: Loaded,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    rule: Rule,
    budgets: Sequence[int],
) -> list[list[Crossed]]:
    """`[len(prompts)][n]` replies, drawn as one batch. `budgets`: at most so many places of each
    row; rows are the prompts in order, each `n` times. Raises FrankenError for models that read a
    prompt differently.
    """
    sampling.check()
    n = sampling.n
    batches = [encode_prompts(loaded, prompts) for loaded in (writer, other)]
    if batches[0].input_ids.tolist() != batches[1].input_ids.tolist():
        raise FrankenError(
            f"{writer.name} and {other.name} read a prompt as different tokens",
            why="their tokenizers, processors or chat templates differ",
            fix="give both the same companions beside their weights",
        )
    own, theirs = (
        prefill(loaded, batch, n) for loaded, batch in zip((writer, other), batches, strict=True)
    )
    device, banned = own.logits.device, writer.banned_ids.to(own.logits.device)
    rows, steps = own.logits.shape[0], sampling.max_new_tokens
    uniforms = None
    if sampling.temperature > 0:
        names = [name for p in prompts for name in sample_names(p.key, sampling)]
        uniforms = draws(names, steps, sampling.seed).to(device)
    left = torch.tensor(list(budgets), device=device)
    taken = torch.zeros((rows, steps), dtype=torch.bool, device=device)
    differs = torch.zeros_like(taken)
    others_banned = other.banned_ids.to(theirs.logits.device)

    def choose(t: int, live: Int[Tensor, "live"]) -> Tokens:
        u = None if uniforms is None else uniforms[live, t]
        theirs_u = None if u is None else u.to(theirs.logits.device)
        mine = pick(own.logits, banned, sampling.temperature, u)
        its = [
            part.to(device)
            for part in pick(theirs.logits, others_banned, sampling.temperature, theirs_u)
        ]
        wanted = rule(Here(t, live, own, theirs, banned)).to(device) & (left[live] > 0)
        left[live] -= wanted.long()
        taken[live, t], differs[live, t] = wanted, wanted & (mine[0] != its[0])
        return torch.where(wanted, its[0], mine[0]), torch.where(wanted, its[1], mine[1])

    ids, logprobs = advance([own, theirs], choose, end_ids(writer, sampling), sampling)
    written = (ids >= 0).to(device)
    said = responses(writer, ids, logprobs, sampling)
    places = [row.nonzero()[:, 0].tolist() for row in (taken & written).cpu()]
    changed = (differs & written).sum(1).tolist()
    crossed = [Crossed(*row) for row in zip(said, places, changed, strict=True)]
    return [crossed[i : i + n] for i in range(0, len(crossed), n)]
