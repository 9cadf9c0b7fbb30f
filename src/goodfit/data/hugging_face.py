"""Data sets of Hugging Face's library: pictures and numbers in their columns, read into stores.

The library itself is never imported: whoever hands over a data set of its has done so.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from goodfit.data.cache import choose_geometry
from goodfit.data.examples import TARGET_NAMES
from goodfit.data.images import opened, read_header, to_pixels
from goodfit.data.recognize import Recognized, fits
from goodfit.data.tensor_transform import TensorTransform, as_float32
from goodfit.errors import DataError

__all__ = ["as_tensors", "is_hugging_face", "recognize_hugging_face"]

SAMPLE = 1024  # pictures whose sizes are looked at before all are decoded
FORMATS = (None, "torch", "numpy")  # in which a column is what it says, with no code of the user's


def is_hugging_face(data_set: Any) -> bool:
    """Whether it is a map-style data set of the library."""
    kind = type(data_set)
    return kind.__module__ == "datasets.arrow_dataset" and kind.__name__ == "Dataset"


def as_tensors(data_set: Any) -> Any:
    """Return the data set so that its examples hold tensors in place of Python's lists, unless it has a format already."""
    return data_set.with_format("torch") if data_set.format["type"] is None else data_set


def recognize_hugging_face(data_set: Any) -> Recognized | None:
    """Return a column of pictures, or of numbers of one shape, and that of the targets; None for anything else.

    Pictures, and bytes in a picture's shape, are goodfit's to prepare, those of a folder among them, in whatever form they are
    handed out; numbers stay as they are.
    """
    columns, form = data_set.format["columns"], data_set.format["type"]
    targets = [name for name in columns if name in TARGET_NAMES]
    inputs = [name for name in columns if name not in TARGET_NAMES]
    if form not in FORMATS or len(targets) != 1 or len(inputs) != 1 or not len(data_set):
        return None
    labels = _numbers(data_set, targets[0])
    if labels is None or labels.ndim != 1:
        return None
    found = partial(
        Recognized, targets=labels, classes=tuple(getattr(data_set.features[targets[0]], "names", None) or ()) or None
    )
    column, feature = inputs[0], data_set.features[inputs[0]]
    kind = _kind(feature)
    if kind in ("Image", "uint8"):
        pixels = _pixels(data_set, column) if kind == "Image" else _as_pictures(_numbers(data_set, column, np.uint8))
        note = f"the pictures are scaled and centred by goodfit, and are not the numbers that the format {form!r} gives"
        return None if pixels is None else found(pixels, transform=None, notes=(note,) if form else ())
    numbers = _numbers(data_set, column)
    if numbers is None or numbers.ndim < 2 or not numbers.is_floating_point():
        return None
    shape = tuple(numbers.shape[1:])
    same = TensorTransform(shape, (0.0,) * shape[0], (1.0,) * shape[0])
    return found(as_float32(numbers, f"the column {column!r}"), transform=same)


def _kind(feature: Any) -> str:
    """Return what a column holds: "Image", or the type of its numbers, however deep in lists they lie."""
    if type(feature).__name__ == "Image":
        return "Image"
    while hasattr(feature, "feature"):
        feature = feature.feature
    return str(getattr(feature, "dtype", ""))


def _numbers(data_set: Any, column: str, dtype: Any = None) -> Tensor | None:
    """Return a column of numbers of one shape, None for any other; the library makes whole ones int64 unless told a type."""
    form = {"dtype": dtype} if dtype else {}
    values = data_set.select_columns([column]).with_format("numpy", **form)[:][column]
    if getattr(values, "dtype", None) is None or values.dtype.kind not in "fiub":
        return None
    return torch.from_numpy(values.copy())


def _as_pictures(numbers: Tensor | None) -> Tensor | None:
    """Return bytes (N, H, W), (N, C, H, W) or (N, H, W, C) as pictures (N, C, H, W); None where they are none."""
    if numbers is None or numbers.ndim not in (3, 4):
        return None
    if numbers.ndim == 3:
        return numbers.unsqueeze(1)
    channels_last = numbers.shape[1] not in (1, 3)
    pictures = numbers.movedim(3, 1).contiguous() if channels_last else numbers
    return pictures if pictures.shape[1] in (1, 3) else None


def _pixels(data_set: Any, column: str) -> Tensor | None:
    """Return the pictures (N, C, H, W) uint8 in the form that those of a folder would have; None for more than fit."""
    pictures = data_set.select_columns([column]).with_format(None)
    headers = []
    for row in range(0, len(pictures), -(-len(pictures) // SAMPLE)):
        with opened(_picture(pictures, column, row), f"example {row}") as image:
            headers.append(read_header(image))
    geometry = choose_geometry(headers, 0)
    store = torch.empty((len(pictures), *geometry.shape), dtype=torch.uint8, device="meta")
    if not fits(store.nbytes):
        return None
    store = torch.empty(store.shape, dtype=torch.uint8)
    for row in range(len(pictures)):
        with opened(_picture(pictures, column, row), f"example {row}") as image:
            store[row] = torch.from_numpy(to_pixels(image, geometry).copy())
    return store


def _picture(pictures: Any, column: str, row: int) -> Any:
    """Return one picture as Pillow has it; raise DataError for one that is missing or damaged."""
    try:
        picture = pictures[row][column]
    except Exception as error:  # whatever Pillow, or the library around it, finds wrong with the bytes
        raise DataError(f"example {row} cannot be read as a picture: {error!s:.200}; leave it out with filter()") from error
    if picture is None:
        raise DataError(f"example {row} has no picture; leave it out with filter()")
    return picture
