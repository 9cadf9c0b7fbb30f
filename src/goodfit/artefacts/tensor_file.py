"""Writing the safetensors format piece by piece, from where the tensors lie and without a copy of the whole.

The format: https://huggingface.co/docs/safetensors. Files are read with the library itself. Writing and hashing such pieces
lets other threads run meanwhile, which the library's own `save` does not.
"""

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

__all__ = ["data_chunks", "header"]

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
        flat = tensors[name].detach().contiguous().reshape(-1)
        if len(flat):
            yield flat.view(torch.uint8).numpy().data


def _order(tensors: Mapping[str, Tensor]) -> list[str]:
    """The largest element types first, so that every tensor lies where its type asks for, and then by name."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
