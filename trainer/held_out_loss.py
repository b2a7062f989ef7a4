"""The loss on conversations that no update trains on: what supervised training watches."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from franken.models.loading import Loaded
from trainer.algorithms.groups import Metrics
from trainer.data import Conversation, encode


@torch.no_grad()
def held_out_loss(loaded: Loaded, conversations: Sequence[Conversation], batch: int) -> Metrics:
    """`{"loss", "token_accuracy", "tokens"}`: cross-entropy in nats a supervised token, over all of
    them, whatever the batch.
    """
    total, hits, tokens = 0.0, 0, 0
    head = loaded.model.get_output_embeddings()
    assert head is not None
    for first in range(0, len(conversations), batch):
        rows = encode(loaded, conversations[first : first + batch])
        hidden = loaded.model.model(**rows.inputs, use_cache=False).last_hidden_state[:, :-1]
        targets = rows.labels[:, 1:]
        logits = head(hidden[targets >= 0]).float()
        wanted = targets[targets >= 0]
        total += F.cross_entropy(logits, wanted, reduction="sum").item()
        hits += int((logits.argmax(-1) == wanted).sum())
        tokens += wanted.numel()
    return {"loss": total / tokens, "token_accuracy": hits / tokens, "tokens": tokens}
