"""CIFAR-10 and CIFAR-100 without trusting their pickles: MD5 first, then an unpickler that admits numpy arrays only."""

import pickle
from collections.abc import Sequence
from hashlib import md5
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from goodfit.errors import DataError

__all__ = ["MD5", "read_cifar"]

# Those in torchvision's own classes, written out because importing torchvision takes a second.
MD5 = {
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
    "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
}


def read_cifar(root: Path, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the pictures (N, 3, 32, 32) uint8 and the labels (N,) int64 of the batches `names`, which are keys of MD5.

    Raises DataError for a file that is absent, is not the one published, or does not hold what it should.
    """
    pixels, labels = zip(*(_read_batch(root / name, MD5[name]) for name in names), strict=True)
    return torch.cat(pixels), torch.cat(labels)


def _read_batch(path: Path, expected_md5: str) -> tuple[Tensor, Tensor]:
    advice = "delete it and run again to fetch it anew"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r} ({error.strerror}); {advice}") from error
    if md5(content, usedforsecurity=False).hexdigest() != expected_md5:
        raise DataError(f"{str(path)!r} is not the file that was published, by its MD5; {advice}")
    try:
        batch = ArrayUnpickler(BytesIO(content), encoding="latin1").load()
        pixels, labels = batch["data"], batch["labels" if "labels" in batch else "fine_labels"]
    except Exception as error:  # a hostile pickle can raise anything
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise DataError(f"{str(path)!r} is no CIFAR batch ({reason:.200}); {advice}") from error
    if not _is_batch(pixels, labels):
        raise DataError(f"{str(path)!r} does not hold the labels and pixels of 32 x 32 pictures; {advice}")
    return torch.from_numpy(pixels).view(-1, 3, 32, 32), torch.tensor(labels)


def _is_batch(pixels: object, labels: object) -> bool:
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
        return False
    return isinstance(labels, list) and len(labels) == len(pixels) and all(type(label) is int for label in labels)


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that makes numpy arrays, and numbers, text, lists and dicts, and can call nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the three things a pickled array is made with; raise UnpicklingError for any other."""
        from numpy._core.multiarray import _reconstruct

        # Python 2 wrote the archives, so the first has numpy's module name of those days.
        admitted = {
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in admitted:
            raise pickle.UnpicklingError(f"it asks for {module!r} {name!r}")
        return admitted[module, name]
