"""config.json and the index of the shards, as typed and validated values.

A configuration says which family a model is of, how many layers its parts have and how wide they
are; what else it says stays in `ModelConfig.raw` for those who pass it on. Older spellings (flat
text settings, `llm_config`) are read as the present ones. A field that is left out means the
family's default and is None here.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from franken.errors import FrankenError, UsageError
from franken.files import AGAIN, inside, read_json

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
Count = Annotated[int, Field(ge=0, le=2**31)]
Depth = Annotated[int, Field(ge=1, le=4096)]


class Section(BaseModel):
    """The settings of one part that franken reads. Sizes count features, heads or layers."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, protected_namespaces=())
    model_type: str | None = Field(None, max_length=100)
    num_hidden_layers: Depth | None = None
    hidden_size: Count | None = None
    intermediate_size: Count | None = None
    num_attention_heads: Count | None = None
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    vocab_size: Count | None = None
    tie_word_embeddings: bool | None = None
    rope_parameters: dict[str, Any] | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_theta: float | int | None = None


class Vision(Section):
    """The settings of the vision tower; Qwen calls its number of layers `depth`."""

    depth: Depth | None = None
    num_hidden_layers: Any = None  # a list of stages in hierarchical towers
    vocab_size: Any = None


class ModelConfig(Section):
    """A model's configuration."""

    # narrower than a section's, as a frozen field may be
    model_type: str = Field(max_length=100)  # pyright: ignore[reportIncompatibleVariableOverride]
    text_config: Section | None = None
    llm_config: Section | None = None
    vision_config: Vision | None = None
    dtype: str | None = None
    torch_dtype: str | None = None
    architectures: list[str] | None = None

    @cached_property
    def text(self) -> Section:
        """The settings of the decoder: a section of their own, or the flat ones of a text model."""
        return self.text_config or self.llm_config or self

    @property
    def tied(self) -> bool:
        """Whether embeddings and head are one tensor; where nothing is said, they are."""
        for said in (self.tie_word_embeddings, self.text.tie_word_embeddings):
            if said is not None:
                return said
        return True

    @property
    def depths(self) -> dict[str, int]:
        """Number of layers by part, where the configuration says it."""
        text = self.text.num_hidden_layers or self.num_hidden_layers
        vision = self.vision_config and (
            self.vision_config.depth or self.vision_config.num_hidden_layers
        )
        said = {"text": text, "vision": vision}
        return {part: n for part, n in said.items() if isinstance(n, int)}


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The configuration of a checkpoint, and all that its file holds.

    Raises UsageError where there is none, FrankenError for one that cannot be a model's.
    """
    if not (folder / CONFIG).is_symlink() and not (folder / CONFIG).exists():
        raise UsageError(
            f"{folder} has no {CONFIG}",
            why=f"a checkpoint folder holds a {CONFIG}",
            fix="give the folder of a model",
        )
    path = inside(folder, CONFIG)
    raw = read_json(path)
    if raw.get("transformers_weights") is not None:
        raise FrankenError(
            f"{path} names other weights than those beside it",
            why="its transformers_weights makes transformers load another file",
            fix="remove that line, if the checkpoint is yours",
        )
    try:
        return ModelConfig.model_validate(raw), raw
    except ValidationError as e:
        raise FrankenError(f"{path} is not a model's", why=complaints(e), fix=AGAIN) from e


class _Index(BaseModel):
    model_config = ConfigDict(strict=True)
    weight_map: dict[str, str] = Field(min_length=1)


def read_index(folder: Path) -> dict[str, str]:
    """The name of its shard for every tensor that the index lists."""
    path = inside(folder, INDEX)
    try:
        return _Index.model_validate(read_json(path)).weight_map
    except ValidationError as e:
        raise FrankenError(f"{path} is not an index of shards", why=complaints(e), fix=AGAIN) from e


def complaints(error: ValidationError) -> str:
    """The first three things that are wrong: `vision_config.depth: Input should be …`."""
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg'][:200]}" for e in error.errors()[:3]
    )
