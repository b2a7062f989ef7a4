"""How many tokens a question has, without the weights of the model that is asked."""

from collections.abc import Callable
from typing import Any

from franken.checkpoints import open_checkpoint
from franken.companions import check_companions
from franken.errors import FrankenError
from franken.generate.engine import Prompt, template_text
from franken.generate.reading import Refused, read_with
from franken.models.templates import adds_special_tokens
from franken.tasks.puzzle import Item


def token_counter(model: str) -> Callable[[Item], int]:
    """Counts an item's prompt as a checkpoint's own processor makes it, images included.

    Only tokenizer and processor are read. What is returned raises FrankenError for a question that
    the processor refuses. Raises FrankenError where the checkpoint is not here.
    """
    from transformers import AutoProcessor, AutoTokenizer

    checkpoint = open_checkpoint(model)
    check_companions(checkpoint.folder)
    sees = checkpoint.settings.vision_config is not None
    kind: Any = AutoProcessor if sees else AutoTokenizer
    reader = kind.from_pretrained(checkpoint.folder, local_files_only=True)

    def count(item: Item) -> int:
        images = () if item.image is None else (item.image, *item.more_images)
        text = template_text(reader, Prompt(item.question, images))
        if images and not sees:
            raise FrankenError(f"{model} cannot see the images")
        seen = {"images": [list(images)]} if images else {}
        try:
            special = adds_special_tokens(reader, text)
            read = read_with(reader, text=[text], add_special_tokens=special, **seen)
        except Refused as e:
            raise FrankenError(f"the processor refuses it: {e.why}") from e
        return len(read["input_ids"][0])

    return count
