"""Decoded pictures on disk: a folder is decoded once, by processes, into one file of uint8 pixels.

A cache file holds the pixels (N, C, H, W) of the readable pictures in the order of their names, then an index in JSON
(geometry and unreadable pictures), then the length of the index in 8 bytes; it appears by one rename. Its name is a SHA-256
over the names, sizes and times of the pictures and what is wanted of them. Of pictures that do not fit there is a survey
under the same name, see `Survey`.

Nothing here imports torch: the decoding processes run this module.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from shutil import disk_usage
from statistics import median_low
from tempfile import mkstemp
from time import time
from typing import Any

from goodfit.data.images import Geometry, Header, opened, read_each, read_header
from goodfit.data.processes import Runner, runner
from goodfit.data.survey import CHUNK, FEW, Survey, survey_pictures
from goodfit.devices import choose_threads
from goodfit.errors import DataError, InputError
from goodfit.files import sync_folder

__all__ = [
    "DecodedPictures",
    "allowed_bytes",
    "cache_directory",
    "choose_geometry",
    "decode_names",
    "decode_pictures",
    "scan_names",
]

FORMAT_VERSION = 1  # part of the key: raise it when the same files would give other pixels
SAMPLE = 1024  # headers from which the geometry is guessed
SIDES = (128, 96, 64, 32)  # of the square that is chosen where the pictures differ
DAY = 86_400  # seconds
KEPT = 90 * DAY  # that a survey stays though it is not used

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DecodedPictures:
    """A cache file of `count` uint8 pictures, and the names of those that are not in it, each with the reason."""

    file: Path
    count: int
    geometry: Geometry
    unreadable: dict[str, str]


def cache_directory() -> Path:
    """Return where decoded pictures are kept: below GOODFIT_CACHE, or goodfit's part of the user's cache directory."""
    if chosen := os.environ.get("GOODFIT_CACHE"):
        return Path(chosen).expanduser() / "pictures"
    default = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or default).expanduser() / "goodfit" / "pictures"


def choose_geometry(headers: Sequence[Header], wanted: int | Geometry) -> Geometry:
    """Return `wanted`, or the geometry that suits the pictures: small ones of one size as they are, others as a square.

    `wanted` is the side of the square; for 0 it is the largest of 32, 64, 96 and 128 that is not above the median of the
    pictures' shorter sides. Pictures that are all grey are stored as "L", others as "RGB".
    """
    if isinstance(wanted, Geometry):
        return wanted
    mode: Any = "L" if headers and all(header.grey for header in headers) else "RGB"
    sizes = {(header.height, header.width) for header in headers}
    if not wanted and len(sizes) == 1 and max(max(sizes)) <= 64:
        return Geometry(mode, *sizes.pop())
    shorter = median_low([min(header.width, header.height) for header in headers] or [0])
    side = wanted or next((side for side in SIDES if side <= shorter), min(SIDES))
    return Geometry(mode, side, side)


def decode_pictures(
    root: Path,
    names: Sequence[str],
    *,
    wanted: int | Geometry,
    num_training: int,
    processes: int = 0,
    budget: int | None = None,
    timeout: float = 60.0,
    progress: Progress | None = None,
    self_test: Callable[[Geometry], None] | None = None,
    or_survey: bool = False,
) -> DecodedPictures | Survey:
    """Return the pictures `root/name` decoded, at once if that was done before.

    The first `num_training` of them choose the geometry (see `choose_geometry`). Without `processes` there is one a core.
    `budget` limits the bytes of all caches; None: a quarter of the disk that is free for them. A process may take `timeout`
    seconds for one picture. `progress` is told (done, total), and `self_test` the geometry before the first is decoded: what it
    raises ends the decoding. Where the pixels do not fit on the disk, returns a Survey of
    them if `or_survey`, else raises DataError, as it does where none of the pictures can be read; and RunError where a process
    dies or hangs.
    """
    stem = cache_directory() / _key(root, names, wanted, num_training)
    file, survey_file = stem.with_suffix(".pictures"), stem.with_suffix(".survey")
    known = _load(file)
    if known:
        return known
    survey = _load_survey(survey_file) if or_survey else None
    if survey and not _fit(survey_file.parent, len(names), survey.geometry, budget):
        return survey
    count = 1 if len(names) < FEW else min(choose_threads(processes), math.ceil(len(names) / CHUNK))
    with _new_file(file.parent) as new, runner(count if count > 1 else 0, timeout) as run:
        # Most folders are what a first look says, and then each picture is opened once; of the others some are twice.
        geometry = _look_ahead(partial(_scan, run, root), names[:num_training], wanted, self_test)
        while True:
            found: DecodedPictures | Survey
            if or_survey and not _fit(file.parent, len(names), geometry, budget):
                headers, found = survey_pictures(run, root, names, geometry, progress)
            else:
                _make_room(new, len(names), geometry, budget)
                headers, unreadable = _decode_all(run, root, names, new, geometry, progress)
                found = DecodedPictures(file, len(names) - len(unreadable), geometry, unreadable)
            geometry = choose_geometry([header for header in headers[:num_training] if header], wanted)
            if geometry == found.geometry:
                break
        if not found.count:
            raise DataError(
                f"none of the {len(names)} pictures in {str(root)!r} can be read; the first: {found.unreadable[names[0]]}"
            )
        _keep(new, survey_file if isinstance(found, Survey) else file, names, found)
    return found


def _key(root: Path, names: Sequence[str], wanted: int | Geometry, num_training: int) -> str:
    from PIL import __version__ as decoder

    digest = sha256(repr((FORMAT_VERSION, decoder, wanted, num_training)).encode())
    for name in names:
        try:
            status = os.stat(f"{root}/{name}")  # noqa: PTH116  60,000 paths are made in half a second
            # The time of change cannot be set: it tells a copy with the old name, size and date from the original.
            state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        except OSError:  # such as a link that leads nowhere: the decoding will say so
            state = "unreadable"
        digest.update(os.fsencode(f"{name}\0{state}\n"))
    return digest.hexdigest()


def _load(file: Path) -> DecodedPictures | None:
    """Return what a cache file holds, or None where there is none or it is not whole, so that it is made anew."""
    try:
        with file.open("rb") as stream:
            stream.seek(-8, os.SEEK_END)
            length = int.from_bytes(stream.read(8), "little")
            size = stream.seek(-8 - length, os.SEEK_END)
            index = json.loads(stream.read(length))
        decoded = DecodedPictures(file, index["count"], Geometry(*index["geometry"]), dict(index["unreadable"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if size != decoded.count * math.prod(decoded.geometry.shape):
        return None
    with suppress(OSError):  # of a cache that is another user's
        os.utime(file)  # the time of last use
    return decoded


def _load_survey(file: Path) -> Survey | None:
    survey = Survey.load(file)
    if survey:
        with suppress(OSError):  # of a cache that is another user's
            os.utime(file)  # the time of last use
    return survey


def _keep(new: Path, file: Path, names: Sequence[str], found: DecodedPictures | Survey) -> None:
    """Complete a new file, and make it `file` by one rename."""
    with _writing(file.parent):
        if isinstance(found, Survey):
            with new.open("wb") as stream:
                stream.write(found.to_bytes())
                stream.flush()
                os.fsync(stream.fileno())
        else:
            _finish(new, names, found)
        new.replace(file)
        sync_folder(file.parent)


def _finish(new: Path, names: Sequence[str], decoded: DecodedPictures) -> None:
    """Close the gaps that unreadable pictures left in the file, and append the index."""
    size = math.prod(decoded.geometry.shape)
    index = {"geometry": decoded.geometry, "count": decoded.count, "unreadable": decoded.unreadable}
    text = json.dumps(index).encode()
    with new.open("r+b") as stream:
        for place, row in enumerate(row for row, name in enumerate(names) if name not in decoded.unreadable):
            if place != row:
                stream.seek(row * size)
                pixels = stream.read(size)
                stream.seek(place * size)
                stream.write(pixels)
        stream.seek(decoded.count * size)
        stream.truncate()
        stream.write(text + len(text).to_bytes(8, "little"))
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _new_file(folder: Path) -> Iterator[Path]:
    """Yield an empty file in `folder` that vanishes at the end of the block, unless it has another name by then."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for pattern, age in (("*.partial", DAY), ("*.survey", KEPT)):  # by a process that was killed, or of no use any more
            for left in folder.glob(pattern):
                with suppress(FileNotFoundError):  # another process tidies up too
                    if time() - left.stat().st_mtime > age:
                        left.unlink()
        descriptor, name = mkstemp(dir=folder, prefix="new-", suffix=".partial")
        os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "free some space there, or name another place with GOODFIT_CACHE"
        raise DataError(f"cannot write decoded pictures in {str(folder)!r}: {error.strerror}; {advice}") from error


def _make_room(file: Path, count: int, geometry: Geometry, budget: int | None) -> None:
    """Remove the caches that were not used for longest until `count` pictures fit the budget beside the rest.

    What another process has mapped stays readable to it. Raise DataError if the pictures alone take more.
    """
    caches = sorted(_sizes(file.parent))
    used = sum(size for _, size, _ in caches)
    needed = count * math.prod(geometry.shape)
    allowed = allowed_bytes(file.parent, budget)
    if needed > allowed:
        _, height, width = geometry.shape
        raise DataError(
            f"{count} pictures of {height} x {width} pixels take {needed / 1e9:.3g} GB decoded, and {allowed / 1e9:.3g} GB are "
            f"allowed; make them smaller with --set data.image_size={max(8, height // 2)}, or allow more with "
            f"--set data.budget={math.ceil(needed / 1e8) / 10:g}"
        )
    for _, size, path in caches:
        if used + needed <= allowed:
            break
        path.unlink(missing_ok=True)
        used -= size


def allowed_bytes(folder: Path, budget: int | None) -> int:
    """Return the bytes that all caches in `folder` may have: the budget, or a quarter of the disk that is free for them."""
    if budget is not None:
        return budget
    return (disk_usage(folder).free + sum(size for _, size, _ in _sizes(folder))) // 4


def _fit(folder: Path, count: int, geometry: Geometry, budget: int | None) -> bool:
    return count * math.prod(geometry.shape) <= allowed_bytes(folder, budget)


def _sizes(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield the time of last use, the size and the path of each cache."""
    for path in folder.glob("*.pictures"):
        with suppress(FileNotFoundError):  # another process makes room too
            status = path.stat()
            yield status.st_mtime, status.st_size, path


def _look_ahead(
    scan: Callable[[Sequence[str]], list[Header]],
    names: Sequence[str],
    wanted: int | Geometry,
    self_test: Callable[[Geometry], None] | None,
) -> Geometry:
    """Return the geometry that some of the pictures have; all are looked at before a failed self-test is believed."""
    is_known = isinstance(wanted, Geometry)
    headers = [] if is_known else scan(names[:: math.ceil(len(names) / SAMPLE)])
    geometry = choose_geometry(headers, wanted)
    if self_test and (is_known or headers):
        try:
            self_test(geometry)
        except InputError:
            if is_known or len(names) <= SAMPLE or choose_geometry(scan(names), wanted) == geometry:
                raise
    return geometry


def _scan(run: Runner, root: Path, names: Sequence[str]) -> list[Header]:
    requests = ((str(root), names[start : start + CHUNK]) for start in range(0, len(names), CHUNK))
    return [Header(*header) for reply in run(scan_names, requests) for header in reply if header]


def _decode_all(
    run: Runner, root: Path, names: Sequence[str], file: Path, geometry: Geometry, progress: Progress | None
) -> tuple[list[Header | None], dict[str, str]]:
    """Write every picture to its row of `file`; return the headers, and why some rows stay empty."""
    starts = range(0, len(names), CHUNK)
    requests = ((str(root), names[start : start + CHUNK], start, str(file), geometry) for start in starts)
    headers: list[Header | None] = []
    unreadable: dict[str, str] = {}
    for reply in run(decode_names, requests):
        for header, reason in reply:
            if reason:
                unreadable[names[len(headers)]] = reason
            headers.append(Header(*header) if header else None)
        if progress:
            progress(len(headers), len(names))
    return headers, unreadable


def scan_names(root: str, names: Sequence[str]) -> Iterator[Header | None]:
    """Yield the header of each picture, None for one that cannot be read."""
    for name in names:
        header = None
        with suppress(DataError), opened(f"{root}/{name}", name) as image:  # the decoding will say it again
            header = read_header(image)
        yield header


def decode_names(
    root: str, names: Sequence[str], start: int, file: str, geometry: Sequence[Any]
) -> Iterator[tuple[Header | None, str | None]]:
    """Write the pictures to the rows of `file` from `start` on; yield each one's header and why it is not there."""
    wanted = Geometry(*geometry)
    size = math.prod(wanted.shape)
    with _writing(Path(file).parent), Path(file).open("r+b") as stream:
        stream.seek(start * size)
        for header, pixels, reason in read_each(root, names, wanted):
            stream.write(bytes(size) if pixels is None else pixels.tobytes())
            yield header, reason
