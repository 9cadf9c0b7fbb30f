"""Which device a run is on, in which precision and memory layout."""

import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from goodfit.errors import DeviceError
from goodfit.memory import keeping_memory

if TYPE_CHECKING:
    import torch

__all__ = [
    "Precision",
    "autocast",
    "choose_device",
    "choose_precision",
    "choose_threads",
    "computing",
    "spare_the_compiler",
    "sum_dtype",
    "upload",
]

Precision = Literal["fp32", "bf16", "fp16"]
NO_DETERMINISTIC_FORM = r"(\S+) does not have a deterministic implementation"  # begins torch's warning
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
    """Return how many threads a rank computes with: `count`, or this machine's usable cores shared among its ranks.

    OMP_NUM_THREADS is respected, but for torchrun's, which sets it to 1 whatever the machine.
    """
    if count:
        return count
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) and "LOCAL_WORLD_SIZE" not in os.environ:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def computing(device: "torch.device", threads: int, deterministic: bool) -> Iterator[list[str]]:
    """Compute with `threads` threads, kept memory, and kernels that repeat bit for bit, for the length of the block.

    Yields a list to which the name of each operation that is used, and has no such kernel, is added once.
    """
    import torch

    before = torch.get_num_threads()
    # CPU kernels repeat as they are.
    listening: AbstractContextManager[list[str]] = (
        _deterministic() if deterministic and device.type == "cuda" else nullcontext([])
    )
    torch.set_num_threads(threads)
    try:
        with keeping_memory(), listening as heard:
            yield heard
    finally:
        torch.set_num_threads(before)


@contextmanager
def _deterministic() -> Iterator[list[str]]:
    """Use torch's deterministic kernels, and where there is none, hear which operation it warns of."""
    import torch

    heard: list[str] = []
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills, memory.fill_uninitialized_memory = (
        memory.fill_uninitialized_memory,
        False,
    )  # a help to find mistakes, which costs time
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", message=NO_DETERMINISTIC_FORM)
            say = warnings.showwarning

            def listen(message: Warning | str, *rest: Any, **named: Any) -> None:
                found = re.match(NO_DETERMINISTIC_FORM, str(message))
                if not found:
                    say(message, *rest, **named)
                elif found[1] not in heard:
                    heard.append(found[1])

            warnings.showwarning = listen
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield heard
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fills


def spare_the_compiler(*functions: Callable[..., Any]) -> None:
    """Keep torch from importing its compiler (1.6 s, 70 MB) only to tell it to leave these functions of torch's alone."""
    if "torch._dynamo" not in sys.modules:
        for function in functions:
            plain = inspect.unwrap(function)
            vars(plain).setdefault("__dynamo_disable", plain)  # what torch looks for before it asks


def autocast(device: "torch.device", precision: Precision) -> AbstractContextManager[None]:
    """Return the context in which a forward pass runs in `precision`."""
    if precision == "fp32":
        return nullcontext()
    import torch

    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def upload(tensor: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """Return a tensor on `device`; CUDA copies it when its turn comes, and what computes there need not be done before."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def sum_dtype(device: "torch.device") -> "torch.dtype":
    """Return the dtype in which sums over many examples are kept."""
    import torch

    return torch.float32 if device.type == "mps" else torch.float64
