"""What is known of pictures that do not fit on the disk decoded: looked at once, then decoded again for each batch.

It is kept in a small file beside the decoded pictures, so that a second run need not look at them all again. Nothing here
imports torch: the decoding processes run this module.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goodfit.data.images import Geometry, Header, printable, read_each
from goodfit.data.processes import Runner
from goodfit.errors import DataError

__all__ = ["CHUNK", "FEW", "Survey", "look_at_names", "read_names", "survey_pictures"]

CHUNK = 32  # pictures in one request to a process
FEW = 200  # pictures: as many are decoded in the time it takes to start processes
POWERS = np.stack([np.arange(256), np.arange(256) ** 2], axis=1)  # of the values that a pixel can have


@dataclass(frozen=True, eq=False)
class Survey:
    """The form of `count` pictures, what their pixels come to, and the names of those that cannot be read with the reason."""

    geometry: Geometry
    digests: NDArray[np.uint8]  # (count, 32) the SHA-256 of each picture's pixels
    sums: NDArray[np.int64]  # (count, 2, C) of the values and of their squares in each channel
    unreadable: dict[str, str]

    @property
    def count(self) -> int:
        """The number of pictures that can be read."""
        return len(self.digests)

    def has_pictures_of(self, other: "Survey") -> bool:
        """Whether the pixels are those of another survey."""
        return np.array_equal(self.digests, other.digests)

    def to_bytes(self) -> bytes:
        """Return the content of a file: the digests, the sums, then an index in JSON, and its length in 8 bytes."""
        body = self.digests.tobytes() + self.sums.tobytes()
        index = {"geometry": self.geometry, "count": self.count, "unreadable": self.unreadable, "sha256": _hex(body)}
        text = json.dumps(index).encode()
        return body + text + len(text).to_bytes(8, "little")

    @classmethod
    def load(cls, file: Path) -> "Survey | None":
        """Return what a file holds, or None where there is none or it is not whole."""
        try:
            content = file.read_bytes()
            start = len(content) - 8 - int.from_bytes(content[-8:], "little")
            index = json.loads(content[max(0, start) : -8])
            if index["sha256"] != _hex(content[:start]):
                return None
            geometry, count = Geometry(*index["geometry"]), index["count"]
            digests = np.frombuffer(content, np.uint8, 32 * count).reshape(-1, 32)
            sums = np.frombuffer(content, np.int64, 2 * geometry.shape[0] * count, offset=32 * count)
            return cls(geometry, digests, sums.reshape(-1, 2, geometry.shape[0]), dict(index["unreadable"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _hex(content: bytes) -> str:
    return sha256(content).hexdigest()


def survey_pictures(
    run: Runner, root: Path, names: Sequence[str], geometry: Geometry, progress: Callable[[int, int], None] | None
) -> tuple[list[Header | None], Survey]:
    """Decode every picture without keeping it; return the headers, and what there is to know."""
    headers: list[Header | None] = []
    unreadable: dict[str, str] = {}
    digests, sums = bytearray(), [np.zeros((0, 2, geometry.shape[0]), np.int64)]
    requests = ((str(root), names[start : start + CHUNK], geometry) for start in range(0, len(names), CHUNK))
    for reply in run(look_at_names, requests):
        for header, reason, _, digest in reply:
            if reason:
                unreadable[names[len(headers)]] = reason
            headers.append(Header(*header) if header else None)
            digests += bytes.fromhex(digest)
        sums += [np.array([of_one], np.int64) for _, reason, of_one, _ in reply if not reason]
        if progress:
            progress(len(headers), len(names))
    return headers, Survey(geometry, np.frombuffer(digests, np.uint8).reshape(-1, 32), np.concatenate(sums), unreadable)


def look_at_names(root: str, names: Sequence[str], geometry: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the header of each picture, why it cannot be read, the sums of its pixels and their squares, and its digest."""
    for header, pixels, reason in read_each(root, names, Geometry(*geometry)):
        if pixels is None:
            yield header, reason, [], ""
            continue
        counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in pixels])
        yield header, None, (counts @ POWERS).T.tolist(), _hex(pixels.tobytes())


def read_names(root: str, names: Sequence[str], geometry: Sequence[Any], digests: Sequence[str]) -> Iterator[bytes]:
    """Yield the pixels of each picture; raise DataError for one that can no longer be read, or that is another by now."""
    for name, digest, read in zip(names, digests, read_each(root, names, Geometry(*geometry)), strict=True):
        if read.pixels is None:
            raise DataError(f"{read.reason}; it could be read before: put it back as it was")
        pixels = read.pixels.tobytes()
        # What is trained on must not change from one epoch to the next, nor between a run and its resumption.
        if _hex(pixels) != digest:
            raise DataError(f"{printable(name)} is another picture than when it was first read; put it back as it was")
        yield pixels
