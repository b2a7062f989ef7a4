"""Who answers: a checkpoint or a hosted model, by its name, loaded when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from franken.checkpoints import fingerprint, name_of, open_checkpoint, resolve
from franken.errors import UsageError
from franken.generate.engine import hosted_name

if TYPE_CHECKING:
    from franken.generate.engine import Engine
    from franken.models.loading import Loaded


def labels_of(models: Sequence[str], given: Sequence[str] | None = None) -> list[str]:
    """The given names, else those of `label_of`. Raises UsageError when they are not one a model,
    all different.
    """
    if given and len(given) != len(models):
        raise UsageError(
            f"{len(given)} labels for {len(models)} models", "", "give one label per model"
        )
    labels = list(given) if given else [label_of(m) for m in models]
    if len(set(labels)) < len(labels):
        raise UsageError(
            "two models have one name",
            f"they are {', '.join(labels)}",
            "name each of them with --label",
        )
    return labels


def label_of(model: str) -> str:
    """A short name for a checkpoint: `creature:sft` → `creature-sft`, a folder as `name_of`
    says.
    """
    return model.replace(":", "-") if ":" in model else name_of(model) or "model"


class Source:
    """A model that is loaded when the first run needs it, and then kept for the next ones."""

    def __init__(
        self,
        model: str,
        device: str,
        dtype: str,
        engine: str = "native",
        endpoint: str | None = None,
        cache: Path | None = None,
    ) -> None:
        self.hosted = hosted_name(model, engine)
        self.folder = model if self.hosted else str(resolve(model))
        self.kind = "openai" if self.hosted else engine
        self.device, self.dtype, self.endpoint, self.cache = device, dtype, endpoint, cache
        self._served: Any = None
        self._loaded: Loaded | None = None
        self.donated: dict[str, Any] = {}  # donors' tensors that a graft has read

    def loaded(self) -> Loaded:
        from franken.models import loading

        if self._loaded is None:
            self._loaded = loading.load(self.folder, device=self.device, dtype=self.dtype)
        return self._loaded

    def identity(self) -> dict[str, Any]:
        """Which model it is, and, where it is not the native one, by which engine it answers."""
        if self.hosted:
            return {"model": self.hosted, "endpoint": self.endpoint, "engine": self.kind}
        model = fingerprint(open_checkpoint(self.folder))
        return {"model": model} | ({"engine": self.kind} if self.kind != "native" else {})

    def engine(self, batch_size: int) -> Engine:
        """What answers the questions."""
        if self.kind == "native":
            from franken.generate.native import Native

            return Native(self.loaded(), batch_size)
        if self._served is None and self.hosted:
            from franken.generate.openai import hosted

            self._served = hosted(self.hosted, str(self.endpoint), self.cache)
        elif self._served is None:
            from franken.generate.vllm import VLLM

            self._served = VLLM(self.folder, self.dtype)
        return self._served

    def close(self) -> None:
        """Make room for the next model, where the engine keeps a device's memory to itself."""
        if self._served is not None and self.kind == "vllm":
            self._served.close()
            self._served = None
