"""Patching across models: which activations carry what one training made of another's model? (CMAP,
"cross-model activation patching", Prakash et al., arXiv 2402.14811)

Two models of one architecture read the same tokens: a prompt, its image, and what both of their
greedy replies share. There, at the *fork*, they part: donor and base say different tokens next.
Where they never part, they are read where the answer begins. Activations of the donor at one site
of a layer, at the tokens of one group, are put into the base's run, and the effect is the share of
the divergence that this restores:

    1 − KL(p_donor ‖ p_patched) / KL(p_donor ‖ p_base)

1 is the donor's distribution, 0 the base's; below 0 a patch takes the base further away. KL is over
the tokens that may be said, in nats and fp64. Where the two models agree, KL < `AGREE`, there is
nothing to restore: the prompt is ineligible. Both directions are measured, as what suffices need
not be necessary.

This presumes that both models write in one basis, as a model and what training made of it do. The
whole stream after the last layer, read by the base's norm and head, is all that layers can restore:
a share below 1 there is the head's. Sites, token groups, and how only the layers above run again
are those of `franken.probe.patch`.

Left out: patching at several layers or tokens of a reply at once, which stitching does
(`franken.probe.stitch`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from franken.errors import FrankenError
from franken.generate.native import Prompt, Response, encode_prompts
from franken.models.batch import ModelBatch
from franken.models.loading import Loaded
from franken.models.tokens import token_map
from franken.probe.groups import ROWS
from franken.probe.lens import answer_start
from franken.probe.method import Columns
from franken.probe.patch import (
    Recording,
    TokenGroups,
    Where,
    each_patch,
    effect_columns,
    parting_of,
    record,
    token_groups,
)
from franken.probe.scores import divergence

AGREE = 1e-3  # nats; a share of less is mostly the rounding of logits
AGREED = "the two models agree"


@dataclass(frozen=True)
class Fork:
    """Where two models are compared: after the last token of `batch`, a prompt and what both
    replies begin with.

    `tokens` are what the two say next, the probed model's first; None where their replies are the
    same, and the batch ends where the answer begins.
    """

    batch: ModelBatch
    groups: TokenGroups
    tokens: tuple[int, int] | None


def fork_of(loaded: Loaded, prompt: Prompt, replies: tuple[Response, Response]) -> Fork:
    """Where the greedy replies of the probed model, `loaded`, and of the second part."""
    own, other = replies
    parted = parting_of(own.ids, other.ids)
    shared, tokens = parted or (own.ids[: answer_start(loaded, own.ids)], None)
    batch = encode_prompts(loaded, [prompt])
    start = batch.tokens
    batch = batch.append(shared)
    spans = token_map(batch.input_ids, loaded.model.config, answer_start=start)[0]
    return Fork(batch, token_groups(spans, start + len(shared)), tokens)


@dataclass(frozen=True)
class Share:
    """The share of KL(donor ‖ base) that logits restore. `divergence` is that KL, in nats."""

    donor: Float[Tensor, "vocabulary"]
    divergence: float
    banned: Tensor

    @classmethod
    def of(cls, donor: Tensor, base: Tensor, banned: Tensor) -> "Share":
        """From the two models' own logits. `banned` tokens are never said."""
        return cls(donor, float(divergence(donor, base[None], banned)), banned)

    @property
    def agreed(self) -> bool:
        """Whether there is nothing to restore."""
        return self.divergence < AGREE

    def restored(self, rows: Float[Tensor, "rows vocabulary"]) -> list[float]:
        """1 is the donor's distribution, 0 the base's. Raises FrankenError where they agree."""
        if self.agreed:
            raise FrankenError(AGREED, why=f"their divergence is {self.divergence:.1e} nats")
        return (1 - divergence(self.donor, rows, self.banned) / self.divergence).tolist()


@torch.no_grad()
def across_effects(
    receiver: Loaded,
    base: Recording,
    donor: Recording,
    groups: TokenGroups,
    *,
    site: str,
    layers: Sequence[int],
    rows: int = ROWS,
) -> list[dict[Where, float]]:
    """The share restored by each token group's activations at each of `layers`; `receiver` made the
    run `base`. Raises FrankenError where the two runs agree.
    """
    share = Share.of(donor.logits, base.logits, receiver.banned_ids)
    return [
        {where: share.restored(logits[None])[0] for where, logits in of_layer}
        for of_layer in each_patch(receiver.model, base, donor, groups, site, layers, rows)
    ]


def told(
    loaded: Loaded, fork: Fork, base: Response, donor: Response, share: Share
) -> dict[str, object]:
    """The columns that say of a pair what was compared: both replies (`baseline` is the base's,
    `source_output` the donor's), where, and how far apart they were.
    """
    columns: dict[str, object] = {
        "baseline": base.text,
        "source_output": donor.text,
        "compared_at": "answer" if fork.tokens is None else "fork",
        "divergence": share.divergence,
    }
    if fork.tokens is not None:
        own, other = loaded.tokenizer.batch_decode([[token] for token in fork.tokens])
        columns |= {"own_token": own, "second_token": other}
    return columns


@torch.no_grad()
def across_pair(
    models: tuple[Loaded, Loaded],
    prompt: Prompt,
    replies: tuple[Response, Response],
    wanted: Sequence[tuple[str, bool]],
    layers: Sequence[int],
) -> list[list[Columns]]:
    """For every (site, back) of `wanted` the columns of one pair's rows, for each of `layers`:
    `effect_GROUP` (or `heads_GROUP`), or why not.

    `models` and `replies`: the probed model's, then the second's. `back`: the second gives.
    """
    own = models[0]
    fork = fork_of(own, prompt, replies)

    @cache
    def runs(site: str) -> list[Recording]:
        return [record(loaded.model, fork.batch, site) for loaded in models]

    measured: list[list[Columns]] = []
    for site, back in wanted:
        receiver, giver = (0, 1) if back else (1, 0)
        base, donor = runs(site)[receiver], runs(site)[giver]
        share = Share.of(donor.logits, base.logits, own.banned_ids)
        about = told(own, fork, replies[receiver], replies[giver], share)
        if share.agreed:
            why = f"{AGREED}: {share.divergence:.1e} nats"
            measured.append([{**about, "ineligible": why}] * len(layers))
            continue
        effects = across_effects(
            models[receiver], base, donor, fork.groups, site=site, layers=layers
        )
        measured.append([{**about, **effect_columns(by_place)} for by_place in effects])
    return measured
