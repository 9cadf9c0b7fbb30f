"""Memory that is kept while a run computes: counted in the page faults of processes of their own."""

import subprocess
import sys

import pytest

from goodfit import memory
from goodfit.memory import CHOSEN_BY_USER

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")

# Each turn asks for eight tensors of 8 MB and frees them, as a step does. glibc's limits are those that it begins with.
PROGRAM = """
import ctypes, os, resource
import torch
from goodfit.devices import computing
from goodfit.memory import keeping_memory

def faults(turns=5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(turns):
        held = [torch.ones(2 << 20) for _ in range(8)]
        del held
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / turns

def megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

for option in (-1, -3):
    ctypes.CDLL(None).mallopt(option, 128 << 10)
print("plain", faults())
for name, block in {BLOCKS}.items():
    with block:
        faults()
        print(name, faults())
        with keeping_memory():
            pass
        print(name, faults())
        inside = megabytes()
    print("given back", inside - megabytes())
"""
BLOCKS = "{'kept': keeping_memory(), 'computing': computing(torch.device('cpu'), 2, True)}"


def test_what_is_freed_is_asked_for_again_without_the_kernel() -> None:
    program = PROGRAM.replace("{BLOCKS}", BLOCKS)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    (_, plain), *rest = [
        (name, float(number)) for name, _, number in (line.rpartition(" ") for line in done.stdout.splitlines())
    ]
    assert plain > 1_000
    assert [name for name, _ in rest] == ["kept", "kept", "given back", "computing", "computing", "given back"]
    for name, number in rest:
        assert number > 50 if name == "given back" else number < plain / 4  # a piece may be asked for where others lie


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """What glibc is asked for, in place of doing it."""
    found: list[tuple[int, ...]] = []
    for name in ("set_option", "give_back"):
        monkeypatch.setattr(memory, name, lambda *option: found.append(option))
    return found


@pytest.mark.parametrize("name", CHOSEN_BY_USER)
def test_what_the_user_chose_stays(name: str, asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "65536")
    with memory.keeping_memory():
        pass
    assert asked == []


@pytest.mark.parametrize("name", ["set_option", "give_back"])
def test_another_c_library_is_left_alone(name: str, asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, name, None)
    with memory.keeping_memory():
        pass
    assert asked == []


def test_blocks_in_blocks_end_with_the_outermost(asked: list[tuple[int, ...]]) -> None:
    with memory.keeping_memory():
        first = list(asked)
        with pytest.raises(KeyError), memory.keeping_memory():
            raise KeyError
        assert asked == first
    assert len(first) == 2
    assert asked == [*first, (memory.TRIM_THRESHOLD, memory.KEPT_BY_ITSELF), (0,)]
