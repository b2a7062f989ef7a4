"""Conversations as data sets write them, as questions and replies with marks for their images.

    OpenAI, TRL, verl, ms-swift   {"role": "user", "content": "…" or parts}
    ShareGPT, LLaVA, VLM-R1       {"from": "human", "value": "…"}

A part of a message is a text or an image; an image that is named there is taken from there, one
that is not is the next of the row's image column. Left out: tools, videos, sound.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from franken.errors import FrankenError
from franken.tasks.marks import MARK
from franken.tasks.values import from_json, kind_of, text_of

ROLES = {
    "user": "user",
    "human": "user",
    "system": "system",
    "developer": "system",
} | dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt"), "assistant")
IMAGE_KEYS = ("image", "image_url", "url", "path", "bytes", "input_image")
MARKS_OF_OTHERS = ("<video>", "<audio>")


@dataclass(frozen=True)
class Dialogue:
    """Turns of (question, reply), the last reply empty where there is none; what a system message
    says; and the images that the messages name themselves.
    """

    system: str
    turns: tuple[tuple[str, str], ...]
    images: tuple[object, ...] = ()

    @property
    def last(self) -> tuple[str, str]:
        """The last question, with its reply."""
        return self.turns[len(self.turns) - 1]


def dialogue_of(value: object, longest: int) -> Dialogue | None:
    """A cell as a conversation; None where it is none. Raises FrankenError for one that cannot be
    held: roles out of turn, parts of unknown kind.
    """
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = from_json(value)
        except FrankenError:
            return None
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return None
    if not value or not all(isinstance(turn, Mapping) and _is_turn(turn) for turn in value):
        return None
    images: list[object] = []
    system, turns = "", []
    for message in value:
        role, text = _message(message, images, longest)
        if role == "system" and not turns and not system:
            system = text
        elif role == "user" and (not turns or turns[-1][1]):
            turns.append((text, ""))
        elif role == "assistant" and turns and not turns[-1][1]:
            turns[-1] = (turns[-1][0], text)
        else:
            raise FrankenError(f"the conversation has a turn of {role} out of its place")
    if not turns:
        raise FrankenError("the conversation asks nothing")
    return Dialogue(system, tuple(turns), tuple(images))


def _is_turn(turn: Mapping[str, object]) -> bool:
    return ("role" in turn and "content" in turn) or ("from" in turn and "value" in turn)


def _message(message: Mapping[str, object], images: list[object], longest: int) -> tuple[str, str]:
    said = message.get("role") if "role" in message else message.get("from")
    role = ROLES.get(said.lower()) if isinstance(said, str) else None
    if role is None:
        raise FrankenError(f"a turn of {said if isinstance(said, str) else kind_of(said)!r}")
    content = message["content"] if "content" in message else message.get("value")
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        return role, "".join(_part(part, images, longest) for part in content).strip()
    return role, text_of(content, f"the turn of {role}", longest)


def _part(part: object, images: list[object], longest: int) -> str:
    if isinstance(part, str):
        text_of(part, "a part of a message", longest)
        return part
    if not isinstance(part, Mapping):
        raise FrankenError(f"a part of a message is a {kind_of(part)}")
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text"):
        text = part.get("text")
        text_of(text, "a part of a message", longest)
        return text if isinstance(text, str) else ""
    if kind not in ("image", "image_url", "input_image"):
        named = f"is of type {kind!r}" if isinstance(kind, str) else "has no type"
        raise FrankenError(f"a part of a message {named}")
    named = next((part[key] for key in IMAGE_KEYS if part.get(key)), None)
    if named is not None:
        images.append(named.get("url") if isinstance(named, Mapping) and "url" in named else named)
    return MARK
