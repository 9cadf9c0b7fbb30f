"""Writing the safetensors format piece by piece, from where the tensors lie and without a copy of the whole.

The format: https://huggingface.co/docs/safetensors. Files are read with the library itself. Writing and hashing such pieces
lets other threads run meanwhile, which the library's own `save` does not. What a thread beside the training does is done with
numpy: a second thread that computes with torch brings its own pool of processors' threads, and the two pools get in each
other's way (a run of small steps took 2.5 times as long).
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["as_integers", "data_chunks", "header", "is_finite"]

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size in bytes
ALIGNMENT = 8  # bytes, of the place where the data begin


def header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes before the data: their length, and JSON with every tensor's dtype, shape and place."""
    document: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for name in _order(tensors):
        tensor = tensors[name]
        end = place + tensor.numel() * tensor.element_size()
        document[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def data_chunks(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """Yield the data of each tensor, on the CPU, in the order of the header."""
    for name in _order(tensors):
        if tensors[name].numel():
            yield np.ascontiguousarray(as_integers(tensors[name])).reshape(-1).view(np.uint8).data


def as_integers(tensor: Tensor) -> "NDArray[Any]":
    """Return a CPU tensor's memory as an array of integers of the elements' size; what is written to it is in the tensor."""
    array: NDArray[Any] = tensor.detach().view(INTEGERS[tensor.element_size()]).numpy()
    return array


def is_finite(tensor: Tensor) -> bool:
    """Whether a CPU tensor holds neither infinities nor what is not a number."""
    if not tensor.is_floating_point():
        return True
    if tensor.dtype == torch.bfloat16:  # which numpy does not know: all bits of the exponent are set
        return not bool(((as_integers(tensor) & 0x7F80) == 0x7F80).any())
    if tensor.element_size() == 1:  # float8, which only torch knows, and not its isfinite
        return bool(tensor.float().isfinite().all())
    return bool(np.isfinite(tensor.detach().numpy()).all())


def _order(tensors: Mapping[str, Tensor]) -> list[str]:
    """The largest element types first, so that every tensor lies where its type asks for, and then by name."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
