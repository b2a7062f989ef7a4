"""Every image that is read from a file or from bytes comes through here, as data sets store them: a
path, bytes, a struct of both, base64 text, or an image already.

What comes out is RGB as a person sees the picture: turned as its EXIF says, transparency on white,
16-bit grey scaled to 8 bits, the first frame of several (`info["frames"]` says so). What cannot be
read, or is too large or too long to be a picture, is the error of its sample. Nothing is fetched.
"""

import base64
import binascii
import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from franken.errors import FrankenError
from franken.tasks import archives

# SyntaxError and struct.error are PIL's, on broken PNG chunks and EXIF.
BROKEN = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)
BASE64 = re.compile(r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk[0-3]|SUkq|TU0AK)[A-Za-z0-9+/\s]*={0,2}")
ADDRESS = re.compile(r"(?:https?|ftp|s3|gs|hf)://", re.IGNORECASE)


@dataclass(frozen=True)
class Bounds:
    """What a picture may be: pixels, checked before any is decoded, and how much longer one side is
    than the other (the processors of Qwen-VL refuse what is above 200).
    """

    pixels: int = 89_478_485  # PIL's own
    aspect: float = 200.0


def black(image: Image.Image) -> Image.Image:
    """A black picture of the same size: nothing to see, in as many visual tokens."""
    return Image.new("RGB", image.size)


def read_image(
    source: Path | bytes | Image.Image, name: str, bounds: Bounds | None = None
) -> Image.Image:
    """The first frame of a picture in RGB. Raises FrankenError, which says `name`."""
    bounds = bounds or Bounds()
    try:
        if isinstance(source, Image.Image):
            return _as_seen(source, bounds)
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as opened:
            seen = _as_seen(opened, bounds)
            if getattr(opened, "is_animated", False):
                seen.info["frames"] = "the first of several"
            return seen
    except FileNotFoundError as e:
        raise FrankenError(f"{name} cannot be read: it is missing") from e
    except UnidentifiedImageError as e:
        raise FrankenError(f"{name} cannot be read: it is no picture, or not all of one") from e
    except BROKEN as e:
        raise FrankenError(f"{name} cannot be read: {e}") from e


def open_image(
    value: object, folder: Path | None, bounds: Bounds | None = None
) -> tuple[Image.Image | None, str | None]:
    """(image, what is wrong with it) of a data set's value. Paths start at `folder` and may not
    leave it; what is not there may lie in an archive that is.
    """
    try:
        source, name = _source_of(value, folder)
        return read_image(source, name, bounds), None
    except FrankenError as e:
        return None, e.what


def _source_of(value: object, folder: Path | None) -> tuple[Path | bytes | Image.Image, str]:
    """What to decode, and what to call it. Raises FrankenError."""
    if isinstance(value, Mapping):
        value = next((value[k] for k in ("bytes", "path", "url", "image") if value.get(k)), None)
    if value is None:
        raise FrankenError("the row names no image")
    if isinstance(value, bytes | bytearray):
        return bytes(value), "the image"
    if isinstance(value, Image.Image):
        return value, "the image"
    if not isinstance(value, str | Path):
        raise FrankenError(f"an image cannot be a {type(value).__name__}")
    if isinstance(value, str) and (data := _base64(value)) is not None:
        return data, "the image"
    return _file(value, folder)


def _base64(text: str) -> bytes | None:
    """The bytes of a data address, or of base64 that begins as a picture does; None for a path."""
    if text.startswith("data:image/"):
        text = text.partition(",")[2]
    elif not BASE64.fullmatch(text):
        return None
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as e:
        raise FrankenError(f"the image is not base64: {e}") from e


def _file(value: str | Path, folder: Path | None) -> tuple[Path | bytes, str]:
    name = value if isinstance(value, str) else value.name
    shown = name if len(name) <= 200 else f"{name[:200]}…"
    if ADDRESS.match(name):
        raise FrankenError(f"{shown} is an address, and nothing is fetched")
    if folder is None:
        raise FrankenError(f"{shown} is a path, and there is no folder to look in")
    try:
        path = (folder / name if isinstance(value, str) else value).resolve()
        inside, here = path.is_relative_to(folder.resolve()), path.exists()
    except (OSError, ValueError) as e:  # too long, or with a NUL
        raise FrankenError(f"{shown} is no path: {e}") from e
    if not inside:
        raise FrankenError(f"{shown} lies outside the data folder")
    packed = (
        None if here else archives.member(folder, path.relative_to(folder.resolve()).as_posix())
    )
    return (path if packed is None else packed), shown


def _check(size: tuple[int, int], bounds: Bounds) -> None:
    width, height = size
    if width * height > bounds.pixels:
        raise ValueError(f"{width} × {height} is more than max_image_pixels={bounds.pixels}")
    if min(size) < 1 or max(size) / min(size) > bounds.aspect:
        most = f"max_aspect={bounds.aspect:g}"
        raise ValueError(f"{width} × {height}: one side is more than {most} times the other")


def _as_seen(image: Image.Image, bounds: Bounds) -> Image.Image:
    _check(image.size, bounds)
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
