"""Copies of tensors in the host's memory, made again and again into buffers that are allocated once."""

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from goodfit.artefacts.tensor_file import as_integers

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HostCopy"]


class HostCopy:
    """Holds one copy at a time: 100 MB take 9 ms (2 CPU cores), during which another thread can compute."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._forms: dict[str, tuple[object, ...]] = {}
        self._left: list[tuple[NDArray[Any], NDArray[Any]]] = []  # target and source

    def prepare(self, tensors: Mapping[str, Tensor]) -> None:
        """Allocate and touch the buffers that `tensors` will need."""
        forms: dict[str, tuple[object, ...]] = {
            name: (tensor.shape, tensor.dtype, tensor.stride()) for name, tensor in tensors.items()
        }
        self._buffers = {
            name: self._buffers[name] if self._forms.get(name) == forms[name] else _allocate(tensor)
            for name, tensor in tensors.items()
        }
        self._forms = forms

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor], now: Container[str] | None = None) -> dict[str, Tensor]:
        """Return copies of `tensors`, in their memory layout; what was returned before is overwritten.

        Where `now` is given, those on the CPU with other names are copied by `finish`, and must not change before that.
        """
        self.prepare(tensors)
        for name, tensor in tensors.items():
            if tensor.device.type == "cpu":
                self._left.append((as_integers(self._buffers[name]), as_integers(tensor)))
                if now is None or name in now:
                    _copy(*self._left.pop())
            else:
                self._buffers[name].copy_(tensor, non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()
        return dict(self._buffers)

    def finish(self) -> None:
        """Copy what was left for later; any thread may."""
        while self._left:
            _copy(*self._left.pop())


def _copy(target: "NDArray[Any]", source: "NDArray[Any]") -> None:
    # By this thread alone, and not by torch: waiting for its other threads can take longer than the copy.
    np.copyto(target, source)


def _allocate(tensor: Tensor) -> Tensor:
    if tensor.is_cuda:
        return torch.empty_like(tensor, device="cpu", requires_grad=False, pin_memory=True)
    form = torch.empty_like(tensor, device="meta")
    # By numpy, which asks for huge pages, as torch does not: they are touched and copied to faster.
    memory = np.empty(max(1, form.numel()) * form.element_size(), np.uint8)
    memory.fill(0)
    return torch.from_numpy(memory).view(form.dtype).as_strided(form.shape, form.stride())
