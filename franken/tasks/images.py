"""Every image that is read from a file or from bytes comes through here, as data sets store them: a
path, bytes, a struct of both, base64 text, or an image already.

What comes out is RGB as a person sees the picture: turned as its EXIF says, transparency on white,
16-bit grey scaled to 8 bits. What cannot be read is the error of its sample. Nothing is fetched.
"""

import base64
import binascii
import io
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from franken.errors import FrankenError

# SyntaxError and struct.error are PIL's, on broken PNG chunks and EXIF.
BROKEN = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


def read_image(source: Path | bytes | Image.Image, name: str) -> Image.Image:
    """The first frame of a picture in RGB. Raises FrankenError, which says `name`."""
    try:
        if isinstance(source, Image.Image):
            return _as_seen(source)
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as opened:
            return _as_seen(opened)
    except FileNotFoundError as e:
        raise FrankenError(f"{name} cannot be read: it is missing") from e
    except BROKEN as e:
        raise FrankenError(f"{name} cannot be read: {e}") from e


def open_image(value: object, folder: Path | None) -> tuple[Image.Image | None, str | None]:
    """(image, what is wrong with it) of a data set's value. Paths start at `folder` and may not
    leave it.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    name: str | Path = "the image"
    if isinstance(value, str) and value.startswith("data:image/"):
        try:
            value = base64.b64decode(value.partition(",")[2], validate=True)
        except binascii.Error as e:
            return None, f"the image is not base64: {e}"
    if isinstance(value, str | Path):
        name = value if isinstance(value, str) else value.name
        if folder is None:
            return None, f"{name} is a path, and there is no folder to look in"
        value = (folder / value).resolve()
        if not value.is_relative_to(folder.resolve()):
            return None, f"{name} lies outside the data folder"
    if value is None:
        return None, "the row names no image"
    if isinstance(value, bytearray):
        value = bytes(value)
    if not isinstance(value, Path | bytes | Image.Image):
        return None, f"an image cannot be a {type(value).__name__}"
    try:
        return read_image(value, str(name)), None
    except FrankenError as e:
        return None, e.what


def _as_seen(image: Image.Image) -> Image.Image:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of no known range")
    if image.mode.startswith("I"):  # PIL clips what is above 255, to white
        values = np.asarray(image)
        if values.min() < 0 or values.max() >= 2**16:
            raise ValueError("its pixels are 32-bit numbers of no known range")
        clear = image.info.get("transparency")
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
        if isinstance(clear, int):
            image.info["transparency"] = round(clear / 257)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")
