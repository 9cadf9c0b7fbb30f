import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from goodfit.data import cache
from goodfit.data.cache import cache_directory, choose_geometry, decode_pictures
from goodfit.data.images import Geometry, Header
from goodfit.errors import DataError, RunError

MANY = cache.FEW + 50
needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("GOODFIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictures"


def make(root, count, size=(8, 6), suffix="png"):
    root.mkdir(exist_ok=True)
    names = [f"{number:04}.{suffix}" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", size, (number % 256, 0, 0)).save(root / name)
    return names


def decode(root, names, wanted=0, **options):
    return decode_pictures(root, names, wanted=wanted, num_training=len(names), **options)


def first_red(decoded):
    pixels = np.memmap(decoded.file, np.uint8, "r", shape=(decoded.count, *decoded.geometry.shape))
    return pixels[:, 0, 0, 0].tolist()


def numbers(count):
    return [number % 256 for number in range(count)]


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch, tmp_path):
    assert cache_directory() == tmp_path / "cache" / "pictures"
    monkeypatch.delenv("GOODFIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "goodfit" / "pictures"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "goodfit" / "pictures"


@pytest.mark.parametrize(
    ("headers", "wanted", "expected"),
    [
        ([(28, 28, True)] * 3, 0, ("L", 28, 28)),
        ([(64, 48, True), (64, 48, False)], 0, ("RGB", 48, 64)),
        ([(65, 48, False)] * 2, 0, ("RGB", 32, 32)),
        ([(200, 100, False), (500, 95, False), (300, 900, False)], 0, ("RGB", 96, 96)),
        ([(4000, 3000, False)] * 2, 0, ("RGB", 128, 128)),
        ([(5, 9, True), (9, 5, True)], 0, ("L", 32, 32)),
        ([(28, 28, True)] * 3, 50, ("L", 50, 50)),
        ([(28, 28, True)] * 3, Geometry("RGB", 3, 4), ("RGB", 3, 4)),
    ],
)
def test_the_geometry_suits_the_pictures(headers, wanted, expected):
    assert choose_geometry([Header(*header) for header in headers], wanted) == Geometry(*expected)


@pytest.mark.parametrize(("count", "processes"), [(10, 0), (MANY, 1), (MANY, 2)])
def test_pictures_are_decoded_once(tmp_path, directory, count, processes):
    names = make(tmp_path / "data", count, (30, 20))
    (tmp_path / "data" / names[3]).write_bytes(b"bad")
    seen = []
    decoded = decode(tmp_path / "data", names, processes=processes, progress=lambda *now: seen.append(now))
    assert (decoded.count, decoded.geometry) == (count - 1, Geometry("RGB", 20, 30))
    assert first_red(decoded) == [number for row, number in enumerate(numbers(count)) if row != 3]
    assert list(decoded.unreadable) == [names[3]]
    assert seen == sorted(seen)
    assert seen[-1] == (count, count)
    seen.clear()
    assert decode(tmp_path / "data", names, progress=lambda *now: seen.append(now)) == decoded
    assert not seen
    assert list(directory.iterdir()) == [decoded.file]


def test_processes_and_this_one_write_the_same_file(tmp_path, monkeypatch):
    names = make(tmp_path / "data", MANY, (50, 40), "jpg")
    alone = decode(tmp_path / "data", names, processes=1).file.read_bytes()
    monkeypatch.setenv("GOODFIT_CACHE", str(tmp_path / "other"))
    assert decode(tmp_path / "data", names, processes=3).file.read_bytes() == alone


def test_another_question_or_a_changed_picture_is_decoded_anew(tmp_path):
    names = make(tmp_path, 4)
    first = decode(tmp_path, names)
    times = (tmp_path / names[0]).stat()
    assert decode(tmp_path, names, wanted=16).geometry == Geometry("RGB", 16, 16)
    Image.new("RGB", (8, 6), (99, 0, 0)).save(tmp_path / names[0], compress_level=0)
    (tmp_path / names[0]).write_bytes((tmp_path / names[0]).read_bytes()[: times.st_size])
    os.utime(tmp_path / names[0], ns=(times.st_atime_ns, times.st_mtime_ns))  # a forged date does not hide the change
    assert decode(tmp_path, names).file != first.file


def test_a_damaged_cache_is_made_anew(tmp_path):
    names = make(tmp_path, 4)
    file = decode(tmp_path, names).file
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[1:], whole[:-8], b"", whole[:-8] + b"\xff" * 8, whole.replace(b"RGB", b"LLL")):
        file.write_bytes(damaged)
        decode(tmp_path, names)
        assert file.read_bytes() == whole


def test_the_rest_of_the_pictures_corrects_a_first_look(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SAMPLE", 4)  # looks at every third
    for row in range(12):
        Image.new(
            "L" if row % 3 == 0 else "RGB", (40, 40) if row % 3 == 0 else (70, 70), 200 if row % 3 == 0 else (50, 0, 0)
        ).save(tmp_path / f"{row:02}.png")
    decoded = decode(tmp_path, [f"{row:02}.png" for row in range(12)])
    assert decoded.geometry == Geometry("RGB", 64, 64)
    assert first_red(decoded) == [200, 50, 50] * 4
    assert decoded.file.stat().st_size < 12 * 3 * 64 * 64 + 200


def test_only_the_training_pictures_choose_the_geometry(tmp_path):
    names = make(tmp_path, 4)
    Image.new("RGB", (300, 300)).save(tmp_path / names[3])
    assert decode_pictures(tmp_path, names, wanted=0, num_training=3).geometry == Geometry("RGB", 6, 8)


def test_what_does_not_fit_the_budget_is_not_begun(tmp_path, directory):
    names = make(tmp_path, 4, (640, 480))
    message = (
        r"4 pictures of 128 x 128 pixels take 0\.000197 GB decoded, and 0\.0001 GB are allowed.*image_size=64.*budget=0\.1"
    )
    with pytest.raises(DataError, match=message):
        decode(tmp_path, names, budget=100_000)
    assert list(directory.iterdir()) == []
    assert decode(tmp_path, names, budget=4 * 3 * 128 * 128).count == 4


def test_the_cache_that_was_not_used_for_longest_makes_room(tmp_path, directory):
    size = 4 * 3 * 64 * 64 + 200  # the pixels of one folder, and its index
    roots = [tmp_path / name for name in ("first", "second", "third")]
    names = [make(root, 4, (64, 64)) for root in roots]
    first, second = (decode(roots[i], names[i], budget=3 * size).file for i in (0, 1))
    for age, file in ((200, first), (100, second)):
        os.utime(file, (time.time() - age, time.time() - age))
    assert decode(roots[0], names[0]).file == first  # used again, so the second is now the older
    third = decode(roots[2], names[2], budget=2 * size + 100).file
    assert {path.name for path in directory.iterdir()} == {first.name, third.name}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_one_error_and_nothing_is_left(tmp_path, directory, processes):
    names = make(tmp_path / "data", MANY, (640, 480), "jpg")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # the kernel refuses to write more, as on a full disk
    try:
        with pytest.raises(
            DataError, match=r"cannot write decoded pictures in '.*pictures': File too large; free some space there"
        ):
            decode(tmp_path / "data", names, processes=processes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(directory.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    names = make(tmp_path, 1)
    monkeypatch.setenv("GOODFIT_CACHE", str(tmp_path / names[0]))
    with pytest.raises(DataError, match=r"cannot write decoded pictures in '.*': Not a directory; .*GOODFIT_CACHE"):
        decode(tmp_path, names)


def children():
    return [int(number) for number in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]


@needs_proc
def test_ctrl_c_at_the_terminal_does_not_reach_the_processes(tmp_path):
    groups = set()
    decode(tmp_path, make(tmp_path, MANY), processes=2, progress=lambda *_: groups.update(map(os.getpgid, children())))
    assert len(groups) == 2
    assert os.getpgrp() not in groups


@needs_proc
def test_a_process_that_dies_is_an_error(tmp_path, directory):
    names = make(tmp_path, MANY)
    with pytest.raises(RunError, match=r"a process that decodes pictures died at '\d+\.png'; replace that file"):
        decode(tmp_path, names, processes=2, progress=lambda *_: [os.kill(child, signal.SIGKILL) for child in children()])
    assert not children()
    assert list(directory.iterdir()) == []


@needs_proc
def test_a_process_that_hangs_is_ended_and_the_picture_named(tmp_path, directory):
    names = make(tmp_path, MANY)
    (tmp_path / names[100]).unlink()
    os.mkfifo(tmp_path / names[100])  # to read it is to wait for ever
    with pytest.raises(RunError, match=rf"took too long at '{names[100]}'; replace that file, .*data\.timeout=SECONDS"):
        decode(tmp_path, names, processes=2, timeout=0.5)
    assert not children()
    assert list(directory.iterdir()) == []


SCRIPT = """
import sys
from pathlib import Path
from goodfit.data.cache import decode_pictures
print("started", flush=True)
names = sorted(path.name for path in Path(sys.argv[1]).iterdir())
print(decode_pictures(Path(sys.argv[1]), names, wanted=0, num_training=len(names), processes=2).count)
"""


def start(tmp_path, root):
    (tmp_path / "script.py").write_text(SCRIPT)  # as a user writes it: no `if __name__ == "__main__"`
    command = [sys.executable, str(tmp_path / "script.py"), str(root)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, process_group=0
    )


def test_two_at_once_make_one_cache(tmp_path, directory):
    make(tmp_path / "data", MANY)
    both = [start(tmp_path, tmp_path / "data") for _ in range(2)]
    assert [process.communicate(timeout=60) for process in both] == [(f"started\n{MANY}\n", "")] * 2
    (file,) = directory.iterdir()
    assert file.suffix == ".pictures"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_ends_the_processes(tmp_path, directory, signum):
    names = make(tmp_path / "data", MANY)
    Image.new("RGB", (1600, 1200)).save(tmp_path / "slow.jpg")
    for name in names[: MANY // 2]:
        (tmp_path / "data" / name).write_bytes((tmp_path / "slow.jpg").read_bytes())
    process = start(tmp_path, tmp_path / "data")
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size for file in directory.glob("*")) and time.monotonic() < deadline:
        time.sleep(0.02)  # until the first pixels are there
    os.killpg(process.pid, signum)  # Ctrl-C goes to all in the group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signum
    assert errors.count("Traceback") == (signum == signal.SIGINT)  # the processes have nothing to say
    left = list(directory.iterdir())
    assert [file.suffix for file in left] == [".partial"] * (signum == signal.SIGKILL)
    for file in left:  # goes when it is a day old
        os.utime(file, (0, 0))
    decoded = decode(tmp_path / "data", names[-3:])
    assert list(directory.iterdir()) == [decoded.file]
