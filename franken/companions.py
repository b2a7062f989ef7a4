"""What lies beside the weights of a checkpoint and says how to use them: its tokens, how it
prepares images, how it generates. A file that is absent says nothing; one that is broken is a
FrankenError.
"""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from franken.configs import complaints
from franken.errors import FrankenError
from franken.files import AGAIN, inside, read_json

MAX_TEMPLATE = 1 << 20  # bytes
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
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


class _Generation(BaseModel):
    """generation_config.json, as far as transformers computes with it."""

    bos_token_id: int | list[int] | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    max_new_tokens: int | None = Field(None, ge=0, le=2**31)
    max_length: int | None = Field(None, ge=0, le=2**31)
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None


class _Processor(BaseModel):
    """preprocessor_config.json, or the image_processor of processor_config.json."""

    model_config = ConfigDict(extra="allow")
    image_processor: dict[str, Any] | None = None


def check_companions(folder: Path) -> None:
    """Raises FrankenError for a file beside the weights that is not what transformers expects."""
    vocabulary(folder)
    image_settings(folder)
    for name in ("tokenizer_config.json", "special_tokens_map.json", "chat_template.json"):
        _read(folder, name)
    generation = _read(folder, "generation_config.json")
    if generation is not None:
        _checked(_Generation, generation, folder / "generation_config.json")
    template = folder / "chat_template.jinja"
    if template.exists() and inside(folder, template.name).stat().st_size > MAX_TEMPLATE:
        raise FrankenError(
            f"{template} is too long", why=f"it has more than {MAX_TEMPLATE:,} bytes", fix=AGAIN
        )


def check_answers(folder: Path, *, sees: bool) -> None:
    """Raises FrankenError where a file is missing without which a model cannot be asked.

    That is a tokenizer, its settings (without them transformers takes another one in silence) and,
    if the model `sees`, how it prepares images.
    """
    needed = [
        ("tokenizer", TOKENIZERS),
        ("settings of its tokenizer", ("tokenizer_config.json",)),
        *([("image processor", PROCESSORS)] if sees else []),
    ]
    for what, names in needed:
        if not any((folder / name).exists() for name in names):
            raise FrankenError(
                f"{folder} has no {what}",
                why=f"beside its weights there is no {' or '.join(names)}",
                fix="copy it from the model that it was made from",
            )


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
    for name in PROCESSORS:
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
