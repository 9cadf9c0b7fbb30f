"""A store of pictures that stay in their files: decoded by processes of their own as batches need them, ahead of the training."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path

import torch
from torch import Tensor

from goodfit.data.processes import runner
from goodfit.data.survey import CHUNK, FEW, Survey, read_names
from goodfit.devices import choose_threads

__all__ = ["PictureFiles"]

AHEAD_BYTES = 1 << 29  # of pictures that wait for the training


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Pictures (N, C, H, W) uint8 as a tensor would hold them, each read from its file whenever it is asked for.

    Raises DataError for a picture that is not the one it was when it was surveyed, and RunError where a process that decodes
    dies, or takes longer than `timeout` seconds for one.
    """

    root: Path
    names: Sequence[str]
    survey: Survey  # of these names, in their order
    processes: int = 0  # 0: one a core
    timeout: float = 60.0

    device = torch.device("cpu")
    dtype = torch.uint8

    @property
    def name(self) -> str:
        """What the data set is called."""
        return self.root.name

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor that would hold them."""
        return torch.Size((len(self), *self.survey.geometry.shape))

    def __getitem__(self, rows: slice) -> "PictureFiles":
        """Return some of the pictures in a row."""
        survey = replace(self.survey, digests=self.survey.digests[rows], sums=self.survey.sums[rows], unreadable={})
        return replace(self, names=self.names[rows], survey=survey)

    @cached_property
    def first(self) -> Tensor:
        """The first picture, (1, C, H, W)."""
        return self.index_select(0, torch.zeros(1, dtype=torch.int64))

    def index_select(self, _: int, rows: Tensor) -> Tensor:
        """Return the pictures of some rows, read in this process."""
        return self._together(list(read_names(*self._request(rows.tolist()))))

    def stream(self, batches: Sequence[Sequence[int]]) -> Generator[Tensor, None, None]:
        """Give the pictures (n, C, H, W) of each batch of rows; processes read as far ahead as the next two batches, or more."""
        total, largest = sum(map(len, batches)), max(map(len, batches), default=0)
        count = 0 if total < FEW else min(choose_threads(self.processes), ceil(total / CHUNK))
        chunk_bytes = CHUNK * self.survey.geometry.shape[0] * self.survey.geometry.height * self.survey.geometry.width
        ahead = max(4 * count, min(2 * ceil(largest / CHUNK), AHEAD_BYTES // chunk_bytes))
        with runner(count, self.timeout, ahead) as run:
            read = run(read_names, (self._request(chunk) for batch in batches for chunk in _chunks(batch)))
            for batch in batches:
                yield self._together([pixels for _ in _chunks(batch) for pixels in next(read)])

    def pixel_sums(self, rows: Tensor) -> tuple[list[int], list[int]]:
        """Return the sum of the values and of their squares in each channel, over the pictures of some rows."""
        first, second = self.survey.sums[rows.numpy()].sum(axis=0).tolist()
        return first, second

    def _request(self, rows: Sequence[int]) -> tuple[str, list[str], tuple[object, ...], list[str]]:
        digests = [self.survey.digests[row].tobytes().hex() for row in rows]
        return str(self.root), [self.names[row] for row in rows], self.survey.geometry, digests

    def _together(self, pixels: list[bytes]) -> Tensor:
        if not pixels:  # a rank may have none of a small batch
            return torch.empty((0, *self.shape[1:]), dtype=torch.uint8)
        return torch.frombuffer(bytearray().join(pixels), dtype=torch.uint8).view(-1, *self.shape[1:])


def _chunks(batch: Sequence[int]) -> Iterator[Sequence[int]]:
    return (batch[start : start + CHUNK] for start in range(0, len(batch), CHUNK))
