"""The one door for processors and tokenizers: programs that came with a checkpoint and raise all
kinds of things, over prompts, pictures and their own settings.
"""

from typing import Any

from franken.bounds import limit, said
from franken.errors import FrankenError


class Refused(FrankenError):
    """A processor does not take a prompt: a picture in a shape that it cannot scale, say, or a text
    that is longer than the bound `prompt_tokens`.
    """


def read_with(reader: Any, **given: Any) -> Any:
    """What a processor or tokenizer makes of prompts. Raises Refused where it does not take them,
    or makes too many tokens of one.
    """
    try:
        encoded = reader(**given)
    except MemoryError:
        raise
    except Exception as e:  # noqa: BLE001 - see above
        kind = "" if isinstance(e, ValueError) else f"{type(e).__name__}: "
        raise _refused(f"{kind}{e}".splitlines()[0][:300] if str(e) else kind) from e
    longest = max((len(row) for row in encoded["input_ids"]), default=0)
    if longest > limit("prompt_tokens"):
        raise _refused(f"it has {longest} tokens, more than {said('prompt_tokens')}")
    return encoded


def _refused(why: str) -> Refused:
    return Refused("the processor refuses a prompt", why, "leave it out, or mend its images")
