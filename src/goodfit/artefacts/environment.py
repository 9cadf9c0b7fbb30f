"""Where a run was made: versions, device and threads. Together they are its determinism class."""

import platform
from importlib.metadata import version
from typing import Any

import torch

__all__ = ["describe_environment", "differences"]

# What must be the same for a run to repeat bit for bit.
CLASS_KEYS = ("device_kind", "device_name", "threads", "torch", "ranks", "machine")


def describe_environment(device: torch.device, threads: int, ranks: int) -> dict[str, Any]:
    """Return the facts about this process's environment as JSON values."""
    return {
        "device_kind": device.type,
        "device_name": _device_name(device),
        "threads": threads,
        "ranks": ranks,
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "goodfit": version("goodfit"),
        "numpy": version("numpy"),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return str(torch.backends.cpu.get_cpu_capability())
    return device.type


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say what differs between two environments' determinism classes, an item each."""
    return [f"{key} {then.get(key)!r} became {now.get(key)!r}" for key in CLASS_KEYS if then.get(key) != now.get(key)]
