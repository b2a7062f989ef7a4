"""Texts → unit vectors, behind one function, for clustering and diversity.

    hashing                                       words and word pairs hashed to 1,024 buckets:
                                                  offline, instant
    a folder, or a hub id in the local cache      e.g. Qwen/Qwen3-Embedding-0.6B: last token's
                                                  hidden state (MUPO's choice)
    http://host:port/v1#MODEL                     an OpenAI-compatible /embeddings endpoint; nothing
                                                  is sent unless named

Texts are embedded bare, without instruction, as MUPO's release does, and each distinct text once
(cached by content). A key for an endpoint is read from the environment variable
FRANKEN_EMBEDDING_KEY.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from franken.checkpoints import resolve
from franken.endpoints import Endpoint, EndpointError
from franken.errors import FrankenError, UsageError
from franken.tasks.grading import reasoning

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HASHING = "hashing"
BUCKETS = 1024
MAX_TOKENS = 8192
CACHED_TEXTS = 65536
KEY = "FRANKEN_EMBEDDING_KEY"

Embed = Callable[[Sequence[str]], Float[Tensor, "texts dimensions"]]


def embedder(
    name: str = HASHING, *, device: str | torch.device = "cpu", batch_size: int = 16
) -> Embed:
    """The function for `name` (see above): texts → unit vectors on the CPU in fp32. Nothing is
    loaded before the first call.

    Raises UsageError for a model that is not there, FrankenError for an endpoint that fails.
    """
    if name == HASHING:
        return _cached(_hashing)
    if re.match(r"https?://", name):
        return _cached(_endpoint(name))
    folder = resolve(name)
    load = cache(lambda: _load(folder, device))

    def embed(texts: Sequence[str]) -> Tensor:
        model, tokenizer = load()
        parts = [texts[i : i + batch_size] for i in range(0, len(texts), batch_size)]
        return torch.cat([_last_token(model, tokenizer, part) for part in parts])

    return _cached(embed)


def segment(reply: str) -> str:
    """What of a reply is embedded: its reasoning, else what stands before the answer, else all of
    it.
    """
    thought = reasoning(reply)
    if thought:
        return thought
    before = re.split(r"<answer>|\\boxed\{", reply, maxsplit=1)[0]
    bare = re.sub(r"</?think>", " ", before).strip()
    return bare or reply.strip()


def _cached(embed: Embed) -> Embed:
    """Ask for each distinct text once, and keep the last `CACHED_TEXTS` answers, normalised."""
    known: OrderedDict[bytes, Tensor] = OrderedDict()

    def cached(texts: Sequence[str]) -> Tensor:
        keys = [hashlib.sha256(text.encode()).digest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            vectors = embed(list(new.values())).float().cpu()
            known.update(zip(new, _units(vectors), strict=True))
        for key in keys:
            known.move_to_end(key)
        vectors = torch.stack([known[key] for key in keys])
        while len(known) > CACHED_TEXTS:
            known.popitem(last=False)
        return vectors

    return cached


def _units(vectors: Float[Tensor, "texts dimensions"]) -> Float[Tensor, "texts dimensions"]:
    """Of length one; a vector of nothing (an empty text) becomes the first axis."""
    if not torch.isfinite(vectors).all():
        raise FrankenError(
            "an embedding is not finite",
            why="the embedder returned inf or nan",
            fix="use another dtype",
        )
    empty = vectors.norm(dim=1) == 0
    units = F.normalize(vectors, dim=1)
    units[empty] = torch.eye(1, vectors.shape[1])
    return units


def _hashing(texts: Sequence[str]) -> Tensor:
    from sklearn.feature_extraction.text import HashingVectorizer

    words = HashingVectorizer(
        n_features=BUCKETS,
        ngram_range=(1, 2),
        token_pattern=r"\S+",
        alternate_sign=False,
        lowercase=True,
    )
    counts: Any = words.transform(list(texts))
    return torch.from_numpy(counts.toarray()).float()


def _load(
    folder: Path, device: str | torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import AutoModel, AutoTokenizer

    if not any(folder.glob("*.safetensors")):
        raise UsageError(
            f"{folder} has no safetensors weights",
            why="pickled ones can run code",
            fix="convert the model",
        )
    where = torch.device(device)
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    model = AutoModel.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
    return model.to(where).eval(), tokenizer


@torch.no_grad()
def _last_token(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Tensor:
    """The last token's final hidden state, as Qwen3-Embedding is read. Padding is on the left."""
    inputs = tokenizer(
        list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    )
    inputs = {k: inputs[k].to(model.device) for k in ("input_ids", "attention_mask")}
    return model(**inputs, use_cache=False).last_hidden_state[:, -1].float().cpu()


def _endpoint(name: str) -> Embed:
    url, _, model = name.partition("#")
    endpoint = Endpoint(url, KEY, retries=3)

    def embed(texts: Sequence[str]) -> Tensor:
        try:
            with endpoint.client() as client:
                return torch.tensor(client.embed(model, texts))
        except EndpointError as e:
            why = f"{e.what} ({e.why})" if e.why else e.what
            fix = e.fix or "is the model named, as in http://host:port/v1#MODEL?"
            raise FrankenError(f"no embeddings from {endpoint.url}", why, fix) from e

    return embed
