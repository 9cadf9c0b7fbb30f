"""Which device a run is on, in which precision and memory layout."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

from goodfit.errors import DeviceError

if TYPE_CHECKING:
    import torch

__all__ = ["Precision", "autocast", "choose_device", "choose_precision", "choose_threads", "computing", "sum_dtype"]

Precision = Literal["fp32", "bf16", "fp16"]
KINDS = ("cuda", "mps", "xpu", "cpu")


def choose_device(name: str) -> "torch.device":
    """Return the device called `name` ("auto", "cpu", "cuda", "cuda:1", "mps", "xpu"); auto takes the first that is here.

    Raises DeviceError for a device that torch does not know or this machine does not have.
    """
    import torch

    here: dict[str, Callable[[], int]] = {
        "cuda": torch.cuda.device_count,
        "mps": lambda: int(torch.backends.mps.is_available()),
        "xpu": torch.xpu.device_count,
        "cpu": lambda: 1,
    }
    if name == "auto":
        kind = next(kind for kind in KINDS if here[kind]())
        return torch.device(kind, _local_rank()) if kind == "cuda" else torch.device(kind)
    kind, _, index = name.partition(":")
    if kind not in here or (index and not index.isdecimal()):
        raise DeviceError(f"unknown device {name!r}; choose from: auto, {', '.join(KINDS)}, or one by number such as cuda:1")
    count = here[kind]()
    if int(index or 0) >= count:
        found = ", ".join(kind for kind in KINDS if here[kind]())
        raise DeviceError(f"device {name!r} is not on this machine (found: {found}); leave --device out to use the best one")
    return torch.device(kind, int(index)) if index else torch.device(kind)


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def choose_precision(name: str, device: "torch.device") -> Precision:
    """Return the precision called `name`; auto takes bf16 where the device computes it natively, else fp32.

    Raises DeviceError for fp16 or bf16 where the device cannot train in it.
    """
    import torch

    native_bf16: dict[str, Callable[[], bool]] = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": _cpu_multiplies_bf16,
        "xpu": torch.xpu.is_bf16_supported,
        "mps": lambda: False,
    }
    if name == "auto":
        return "bf16" if native_bf16[device.type]() else "fp32"
    if name == "fp16" and device.type not in ("cuda", "cpu", "xpu"):
        raise DeviceError(f"fp16 with gradient scaling does not run on {device.type}; use --set train.precision=fp32")
    return name  # type: ignore[return-value]


def _cpu_multiplies_bf16() -> bool:
    """Whether the processor has bf16 arithmetic; without it autocast works but is slower than fp32."""
    import torch

    flags = torch.cpu.get_capabilities()
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))


def choose_threads(count: int) -> int:
    """Return how many threads a rank computes with: `count`, or this machine's usable cores shared among its ranks."""
    if count:
        return count
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def computing(device: "torch.device", threads: int, deterministic: bool) -> Iterator[None]:
    """Compute with `threads` threads, and with kernels that repeat bit for bit, for the length of the block."""
    import torch

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    if device.type == "cuda":  # CPU kernels repeat as they are
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(deterministic)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def autocast(device: "torch.device", precision: Precision) -> AbstractContextManager[None]:
    """Return the context in which a forward pass runs in `precision`."""
    import torch

    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def sum_dtype(device: "torch.device") -> "torch.dtype":
    """Return the dtype in which sums over many examples are kept."""
    import torch

    return torch.float32 if device.type == "mps" else torch.float64
