"""Files are written whole or not at all."""

import errno
import os
from hashlib import sha256
from pathlib import Path

import pytest

from goodfit.errors import FileError, RunError
from goodfit.files import file_sha256, new_folder, sync_folder, write_atomically


def full_disk(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["naïve\n", b"\x00\xff", ""])
def test_a_file_is_written_and_replaced(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "file"
    for _ in range(2):
        write_atomically(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(tmp_path) == ["file"]


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RunError, match=r"cannot write '.*file': No space left on device; free space or choose another --out"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_nothing_is_left_in_the_way_of_what_cannot_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(RunError, match=r"cannot write '.*folder'"):
        write_atomically(tmp_path / "folder", "text")
    with pytest.raises(RunError, match=r"cannot write '.*missing/file': No such file or directory"):
        write_atomically(tmp_path / "missing" / "file", "text")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["inside"]


def test_the_temporary_file_lies_beside_and_is_synced_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    seen: list[tuple[list[str], bool]] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        seen.append((names(tmp_path), path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_atomically(path, "text")
    assert [exists for _, exists in seen] == [False, True]  # the file, then its folder
    assert len(seen[0][0]) == 1


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "run"
    with new_folder(path) as folder:
        (folder / "file").write_text("text")
        assert not path.exists()
        assert folder.stat().st_dev == tmp_path.stat().st_dev
    assert (path / "file").read_text() == "text"
    assert names(tmp_path / "a") == ["run"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "run") as folder:
            (folder / "file").write_text("text")
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert names(tmp_path) == []


def test_a_folder_that_a_killed_process_was_making_is_removed_after_a_day(tmp_path: Path) -> None:
    old, recent, other = tmp_path / ".run.1.goodfit-new", tmp_path / ".run.2.goodfit-new", tmp_path / ".other"
    for path in (old, recent, other):
        (path / "new").mkdir(parents=True)
    for path in (old, other):
        os.utime(path, (0, 0))
    with new_folder(tmp_path / "run"):
        pass
    assert names(tmp_path) == [".other", ".run.2.goodfit-new", "run"]


def test_an_empty_folder_is_taken_and_another_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as folder:
        (folder / "file").touch()
    assert names(tmp_path / "empty") == ["file"]
    with (
        pytest.raises(FileError, match=r"'.*empty' exists and is not empty; choose another --out"),
        new_folder(tmp_path / "empty"),
    ):
        pass
    with (
        pytest.raises(FileError, match=r"'.*file' exists and is a file; choose another --out"),
        new_folder(tmp_path / "empty" / "file"),
    ):
        pass
    assert names(tmp_path / "empty") == ["file"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(FileError, match=r"cannot make the output folder '.*file/run': .*; choose another --out"),
        new_folder(tmp_path / "file" / "run"),
    ):
        pass
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(FileError, match="No space left on device"), new_folder(tmp_path / "run"):
        pass
    assert names(tmp_path) == ["file"]


def test_digests(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 17)
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == sha256(content).hexdigest()
    sync_folder(tmp_path)
