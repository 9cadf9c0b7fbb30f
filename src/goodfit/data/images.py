"""One picture, from a file or from memory to 8-bit pixels: the same pixels for training and for prediction.

Nothing here imports torch, so a process that decodes pictures starts in the time of Pillow and numpy. JPEGs are decoded
in full: with Pillow's faster `draft` a file would have other pixels than the same picture handed over as an array.
"""

import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from goodfit.errors import DataError, kind_of

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "FORMATS",
    "INTERPOLATIONS",
    "MAX_PIXELS",
    "SUFFIXES",
    "Geometry",
    "Header",
    "Mode",
    "Read",
    "open_picture",
    "opened",
    "printable",
    "read_each",
    "read_header",
    "to_pixels",
]

Mode = Literal["RGB", "L"]

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # told by content; Pillow's other readers are never tried
SUFFIXES = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
MAX_PIXELS = 100_000_000
ORIENTATION = 0x0112  # the EXIF tag
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")  # Pillow's, in small letters


class Geometry(NamedTuple):
    """The form in which pictures are stored, height and width in pixels, and how they get it."""

    mode: Mode
    height: int
    width: int
    resize: Sequence[int] | None = None  # None: to cover height x width; (): not; (s,): the shorter side to s; (h, w): to that
    interpolation: str = "bilinear"
    plain: bool = False  # as Pillow's own conversion gives them: not turned upright, not put on white
    exact: bool = False  # refuse a picture that is not of height x width after the resize

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one stored picture, (C, H, W)."""
        return (3 if self.mode == "RGB" else 1, self.height, self.width)


class Header(NamedTuple):
    """What a file says of its picture before any pixel is decoded; the size is that of the picture upright."""

    width: int
    height: int
    grey: bool


class Read(NamedTuple):
    """What came of reading a picture's file."""

    header: Header | None
    pixels: NDArray[np.uint8] | None  # (C, H, W)
    reason: str | None  # why there are none


class _RefusedError(Exception):
    """Why a picture that Pillow would take is not taken; the name is put in front of it."""


@contextmanager
def opened(source: Any, name: str = "") -> "Iterator[Image]":
    """Open a picture for the length of a `with` block; its size is checked, its pixels are not decoded yet.

    `source` is a path, the bytes of a file, an open binary file, a PIL image or an array of pixels: (H, W), (H, W, C) or
    (C, H, W) with 1, 3 or 4 channels, 8- or 16-bit whole numbers or fractions from 0 to 1. Raise DataError naming the
    picture for whatever goes wrong here or in the block.
    """
    from PIL import Image, UnidentifiedImageError

    name = printable(name or (os.fspath(source) if isinstance(source, str | os.PathLike) else "the picture"))
    with warnings.catch_warnings():
        # Pillow warns of odd metadata, which does not matter, and of large pictures, which are refused below.
        warnings.simplefilter("ignore")
        try:
            if isinstance(source, np.ndarray):
                yield _from_array(source)
            elif isinstance(source, Image.Image):
                yield source
            else:
                _check_kind(source)
                with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
                    _check_size(image.width * image.height)
                    yield image
        except _RefusedError as error:
            raise DataError(f"{name} {error}") from error
        except Image.DecompressionBombError as error:
            pixels = re.search(r"\d+", str(error))  # the only place where Pillow says it
            raise DataError(f"{name} {_too_large(int(pixels[0]) if pixels else 0)}") from error
        except UnidentifiedImageError as error:
            raise DataError(f"{name} is damaged, or no picture in a known format ({', '.join(FORMATS)})") from error
        except Exception as error:  # damaged files make Pillow raise nearly anything
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            raise DataError(f"{name} cannot be read: {reason}") from error


def read_each(root: str, names: Iterable[str], geometry: Geometry) -> Iterator[Read]:
    """Yield what the files `root/name` hold, with why for those that cannot be read."""
    for name in names:
        header, pixels, reason = None, None, None
        try:
            with opened(f"{root}/{name}", name) as image:
                header = read_header(image)
                pixels = to_pixels(image, geometry)
        except DataError as error:
            reason = str(error)
        yield Read(header, pixels, reason)


def _check_kind(source: Any) -> None:
    if not isinstance(source, str | os.PathLike | bytes) and not hasattr(source, "read"):
        raise _RefusedError(f"is {kind_of(source)}; give a path, a file's bytes, an image or an array")


def printable(name: str) -> str:
    """Return a file's name as one line that any terminal takes: escaped where it holds line breaks or bytes of no text."""
    return name if name.isprintable() else repr(name)


def open_picture(source: Any, mode: Mode, name: str = "") -> "Image":
    """Return a picture upright, 8 bits a channel, on white where it is transparent, in `mode`; see `opened`."""
    with opened(source, name) as image:
        return _convert(image, mode)


def to_pixels(image: "Image", geometry: Geometry) -> NDArray[np.uint8]:
    """Return an opened picture as (C, H, W): converted, resized, cropped at the centre or put on black where it is too small.

    A picture that has the size already keeps its pixels. Resizing and cropping, where they are given, are torchvision's
    `Resize` and `CenterCrop` to the byte.
    """
    from PIL import Image, ImageOps

    image = image.convert("RGB").convert(geometry.mode) if geometry.plain else _convert(image, geometry.mode)
    size = (geometry.width, geometry.height)
    if geometry.resize is not None:
        image = _crop(_resize(image, geometry.resize, geometry.interpolation), geometry)
    elif image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling[geometry.interpolation.upper()])
    pixels = np.frombuffer(image.tobytes(), np.uint8)  # a fifth faster than np.asarray(image)
    return pixels.reshape(geometry.height, geometry.width, -1).transpose(2, 0, 1)


def _resize(image: "Image", resize: Sequence[int], interpolation: str) -> "Image":
    from PIL import Image

    width, height = image.size
    if len(resize) == 2:
        height, width = resize
    elif resize:
        (side,) = resize
        width, height = (side, side * height // width) if width <= height else (side * width // height, side)
    _check_size(width * height)
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling[interpolation.upper()])


def _crop(image: "Image", geometry: Geometry) -> "Image":
    if image.size == (geometry.width, geometry.height):
        return image
    if geometry.exact:
        raise _RefusedError(f"has {image.height} x {image.width} pixels, not {geometry.height} x {geometry.width}")
    left, top = (_margin(has, wanted) for has, wanted in zip(image.size, (geometry.width, geometry.height), strict=True))
    return image.crop((left, top, left + geometry.width, top + geometry.height))


def _margin(has: int, wanted: int) -> int:
    """What is cut off at the left or the top, below 0 for what is added, with torchvision's two ways of rounding."""
    return round((has - wanted) / 2) if has >= wanted else -((wanted - has) // 2)


def read_header(image: "Image") -> Header:
    """Return what is known of an opened picture before it is decoded."""
    width, height = image.size
    # A TIFF has no such entry: Pillow turns it by itself.
    if "exif" in image.info and image.getexif().get(ORIENTATION) in (5, 6, 7, 8):
        width, height = height, width
    return Header(width, height, image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16"))


def _check_size(pixels: int) -> None:
    if pixels == 0:
        raise _RefusedError("has no pixels")
    if pixels > MAX_PIXELS:
        raise _RefusedError(_too_large(pixels))


def _too_large(pixels: int) -> str:
    return f"has {math.ceil(pixels / 1e6)} megapixels; at most {MAX_PIXELS // 10**6} are decoded, so make it smaller"


def _convert(image: "Image", mode: Mode) -> "Image":
    from PIL import Image, ImageOps

    image.load()  # before the orientation is asked for: some formats keep it behind the pixels
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I;16"):
        image = _from_array(np.asarray(image))
    elif image.mode == "I":  # where Pillow has no 16-bit mode
        image = _from_array(np.asarray(image).clip(0, 65535).astype(np.uint16))
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")  # by way of RGB, so that grey is the same grey from every mode
    return image if image.mode == mode else image.convert(mode)


def _from_array(array: NDArray[Any]) -> "Image":
    """Return an array of pixels as a picture of 8 bits a channel."""
    from PIL import Image

    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise _RefusedError(f"has shape {array.shape}; give (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels")
    _check_size(array.shape[0] * array.shape[1])
    return Image.fromarray(np.ascontiguousarray(_eight_bits(array)))


def _eight_bits(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return np.asarray((array.astype(np.uint32) * 255 + 32767) // 65535, np.uint8)
    if array.dtype.kind != "f":
        raise _RefusedError(f"has {array.dtype} pixels; give 8- or 16-bit unsigned numbers, or fractions from 0 to 1")
    if not (array.min() >= -1e-4 and array.max() <= 1 + 1e-4):  # not: so that NaN is refused too
        raise _RefusedError(f"has pixels from {array.min():g} to {array.max():g}; give fractions from 0 to 1")
    return np.asarray(np.rint(array.astype(np.float32).clip(0, 1) * 255), np.uint8)
