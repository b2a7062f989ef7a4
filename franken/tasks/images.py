"""Images as data sets store them: a path, bytes, a struct of both, base64 text, or an image
already.
"""

import base64
import binascii
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image


def open_image(value: Any, folder: Path | None) -> tuple[Image.Image | None, str | None]:
    """(image in RGB, what is wrong with it). Paths start at `folder` and may not leave it; nothing
    is fetched.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, Image.Image):
        return value.convert("RGB"), None
    if isinstance(value, str) and value.startswith("data:image/"):
        try:
            value = base64.b64decode(value.partition(",")[2], validate=True)
        except binascii.Error as e:
            return None, f"the image is not base64: {e}"
    if isinstance(value, str):
        return _open_path(value, folder)
    if isinstance(value, bytes | bytearray):
        return _open(io.BytesIO(value), "the image")
    return None, f"an image cannot be a {type(value).__name__}"


def _open_path(name: str, folder: Path | None) -> tuple[Image.Image | None, str | None]:
    if folder is None:
        return None, f"{name} is a path, and there is no folder to look in"
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        return None, f"{name} lies outside the data folder"
    return _open(path, name)


def _open(file: Path | io.BytesIO, name: str) -> tuple[Image.Image | None, str | None]:
    try:
        with Image.open(file) as opened:
            return opened.convert("RGB"), None
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as e:  # SyntaxError: PIL's, on broken PNG chunks
        return None, f"{name} cannot be read: {e}"
