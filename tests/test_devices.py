"""Devices, precision and threads."""

import os
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from goodfit import devices
from goodfit.devices import autocast, choose_device, choose_precision, choose_threads, computing, sum_dtype, upload
from goodfit.errors import DeviceError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)


@pytest.fixture
def without_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("without_accelerators")
def test_auto_falls_back_on_the_processor() -> None:
    assert choose_device("auto") == CPU
    assert choose_device("cpu") == CPU


@pytest.mark.usefixtures("without_accelerators")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "xpu"])
def test_a_device_that_is_not_here_is_named(name: str) -> None:
    with pytest.raises(DeviceError, match=rf"device '{name}' is not on this machine \(found: cpu\); leave --device out"):
        choose_device(name)


@pytest.mark.usefixtures("without_accelerators")
@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "", "CPU", "cpu:1:2"])
def test_a_device_that_there_is_not_is_named(name: str) -> None:
    with pytest.raises(DeviceError, match=rf"unknown device '{name}'; choose from: auto, cuda, mps, xpu, cpu"):
        choose_device(name)


def test_the_best_device_is_chosen_and_each_rank_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda", 0)
    assert choose_device("cuda:1") == CUDA
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == CUDA
    with pytest.raises(DeviceError, match="device 'cuda:2' is not on this machine"):
        choose_device("cuda:2")


@pytest.mark.parametrize(("flags", "precision"), [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({}, "fp32")])
def test_auto_precision_is_what_the_processor_has(
    flags: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    assert choose_precision("auto", CPU) == precision
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("fp16", CPU) == "fp16"


def test_fp16_needs_gradient_scaling() -> None:
    with pytest.raises(DeviceError, match=r"fp16 with gradient scaling does not run on mps; use --set train\.precision=fp32"):
        choose_precision("fp16", torch.device("mps"))


def test_threads_are_shared_among_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert choose_threads(3) == 3
    assert choose_threads(0) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert choose_threads(0) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "20")
    assert choose_threads(0) == 1


def test_threads_are_set_and_put_back() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with computing(CPU, before + 1, deterministic=True):
            assert torch.get_num_threads() == before + 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("wanted", [True, False])
def test_kernels_that_repeat_are_asked_of_cuda_alone(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with computing(SimpleNamespace(type="cuda"), 1, deterministic=wanted):  # type: ignore[arg-type]
        assert torch.are_deterministic_algorithms_enabled() is wanted
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"  # the user's own is kept
    assert not torch.are_deterministic_algorithms_enabled()
    with computing(CPU, 1, deterministic=wanted):
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_forward_pass_runs_in_its_precision(precision: str, dtype: torch.dtype) -> None:
    layer, inputs = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with autocast(CPU, precision):  # type: ignore[arg-type]
        assert layer(inputs).dtype == dtype
    assert layer(inputs).dtype == torch.float32


def test_sums_are_kept_in_double_where_there_is_one() -> None:
    assert sum_dtype(CPU) == sum_dtype(CUDA) == torch.float64
    assert sum_dtype(torch.device("mps")) == torch.float32


def test_an_operation_without_a_deterministic_form_is_heard_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`put_` is one on every device."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else it stays set
    place = torch.zeros(3)
    with computing(SimpleNamespace(type="cuda"), 1, deterministic=True) as heard:  # type: ignore[arg-type]
        assert heard == []
        for _ in range(3):
            place.put_(torch.tensor([0]), torch.tensor([1.0]))
        assert heard == ["put_"]
        with pytest.warns(UserWarning, match="something else"):
            warnings.warn("something else", UserWarning, stacklevel=1)
    assert heard == ["put_"]
    with computing(SimpleNamespace(type="cuda"), 1, deterministic=False) as heard:  # type: ignore[arg-type]
        place.put_(torch.tensor([0]), torch.tensor([1.0]))
    assert heard == []


def test_memory_is_not_filled_for_kernels_that_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    settings: Any = torch.utils.deterministic
    before = settings.fill_uninitialized_memory
    with computing(SimpleNamespace(type="cuda"), 1, deterministic=True):  # type: ignore[arg-type]
        assert not settings.fill_uninitialized_memory
    assert settings.fill_uninitialized_memory == before


def test_the_environment_s_number_of_threads_is_respected_but_for_torchrun_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert choose_threads(0) == 3
    assert choose_threads(5) == 5
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert choose_threads(0) < 100000


def test_an_upload_is_waited_for_by_nobody() -> None:
    tensor = torch.arange(3)
    assert upload(tensor, CPU) is tensor
    assert upload(tensor, torch.device("meta")).is_meta
    asked: list[Any] = []

    class Pinned:
        def to(self, *arguments: Any, **named: Any) -> None:
            asked.append((arguments, named))

    upload(SimpleNamespace(device=CPU, pin_memory=Pinned), CUDA)  # type: ignore[arg-type]  # there may be no CUDA here
    upload(SimpleNamespace(device=CUDA, to=Pinned().to), CUDA)  # type: ignore[arg-type]
    assert asked == [((CUDA,), {"non_blocking": True}), ((CUDA,), {})]
