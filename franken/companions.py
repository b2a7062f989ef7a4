"""What lies beside the weights of a checkpoint and says how to use them: its tokens, and how it
prepares images. A file that is absent says nothing; one that is broken is a FrankenError.
"""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from franken.configs import complaints
from franken.errors import FrankenError
from franken.files import AGAIN, inside, read_json

M = TypeVar("M", bound=BaseModel)
NOT_SETTINGS = (  # of an image processor: which class it is, and where it runs
    "processor_class",
    "image_processor_type",
    "feature_extractor_type",
    "auto_map",
    "data_format",
    "device",
)


class _Added(BaseModel):
    content: str
    id: int


class _Tokens(BaseModel):
    vocab: dict[str, int] | list[tuple[str, float]] = Field(default_factory=dict)

    def numbered(self) -> set[tuple[str, int]]:
        """(token, id); unigram models list (token, score)."""
        if isinstance(self.vocab, dict):
            return set(self.vocab.items())
        return {(token, number) for number, (token, _) in enumerate(self.vocab)}


class _Tokenizer(BaseModel):
    """tokenizer.json."""

    model_config = ConfigDict(protected_namespaces=())
    model: _Tokens
    added_tokens: list[_Added] = Field(default_factory=list)


class _Plain(BaseModel):
    """vocab.json and added_tokens.json."""

    ids: dict[str, int]


class _Processor(BaseModel):
    """preprocessor_config.json, or the image_processor of processor_config.json."""

    model_config = ConfigDict(extra="allow")
    image_processor: dict[str, Any] | None = None


def vocabulary(folder: Path) -> set[tuple[str, int]]:
    """(token, id) of a tokenizer; empty where there is none."""
    whole = _read(folder, "tokenizer.json")
    if whole is not None:
        tokenizer = _checked(_Tokenizer, whole, folder / "tokenizer.json")
        return tokenizer.model.numbered() | {(t.content, t.id) for t in tokenizer.added_tokens}
    pairs: set[tuple[str, int]] = set()
    for name in ("vocab.json", "added_tokens.json"):
        ids = _read(folder, name)
        if ids is not None:
            pairs |= _checked(_Plain, {"ids": ids}, folder / name).ids.items()
    return pairs


def image_settings(folder: Path) -> list[tuple[str, object]]:
    """(name, value) of how a checkpoint prepares images, without what only names classes."""
    said: dict[str, object] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        settings = _read(folder, name)
        if settings is not None:
            processor = _checked(_Processor, settings, folder / name)
            own = name.startswith("pre")
            said |= (processor.model_extra if own else processor.image_processor) or {}
    return [(k, v) for k, v in said.items() if k not in NOT_SETTINGS and not k.startswith("_")]


def same_file(one: Path, other: Path, name: str) -> bool:
    """Whether both folders hold the same bytes under a name."""
    a, b = one / name, other / name
    if not (a.is_file() and b.is_file()) or a.stat().st_size != b.stat().st_size:
        return False
    return a.samefile(b) or a.read_bytes() == b.read_bytes()


def _read(folder: Path, name: str) -> dict[str, Any] | None:
    there = (folder / name).is_symlink() or (folder / name).exists()
    return read_json(inside(folder, name)) if there else None


def _checked(kind: type[M], content: dict[str, Any], path: Path) -> M:
    try:
        return kind.model_validate(content)
    except ValidationError as e:
        raise FrankenError(
            f"{path} is not what a checkpoint has there", why=complaints(e), fix=AGAIN
        ) from e
