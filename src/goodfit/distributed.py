"""Rank, world and sums over ranks; with one process every function is a no-op.

Ranks are started by torchrun, which tells them their place through the environment.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Ranks", "ranks"]


@dataclass(frozen=True)
class Ranks:
    """This process's place among the processes of one run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def slice(self, count: int) -> slice:
        """Return this rank's share of `count` things in a row: shares differ by one at most and are disjoint."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def add(self, tensors: Iterable["Tensor"]) -> None:
        """Replace each tensor by its sum over the ranks."""
        if self.world > 1:
            import torch.distributed as dist

            for tensor in tensors:
                dist.all_reduce(tensor)

    def add_gradients(self, parameters: Sequence["Tensor"], flags: tuple[bool, ...]) -> tuple[bool, ...]:
        """Replace each gradient by its sum over the ranks, in one message; return which of `flags` any rank raised.

        A parameter without a gradient counts as zero, so that the ranks agree on the message's layout.
        """
        if self.world == 1:
            return flags
        import torch
        import torch.distributed as dist

        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        message = torch.cat(
            [gradient.reshape(-1).float() for gradient in gradients] + [gradients[0].new_tensor(flags, dtype=torch.float32)]
        )
        dist.all_reduce(message)
        parts = message.split([gradient.numel() for gradient in gradients] + [len(flags)])
        for gradient, part in zip(gradients, parts[:-1], strict=True):
            gradient.copy_(part.view_as(gradient))
        return tuple(raised > 0 for raised in parts[-1].tolist())

    def largest(self, numbers: tuple[int, ...], device: "torch.device") -> tuple[int, ...]:
        """Return the largest of each number over the ranks; `device` is where their messages lie."""
        if self.world == 1:
            return numbers
        import torch
        import torch.distributed as dist

        message = torch.tensor(numbers, device=device)
        dist.all_reduce(message, dist.ReduceOp.MAX)
        return tuple(message.tolist())

    def share(self, tensors: Iterable["Tensor"]) -> None:
        """Give every rank the first rank's values of `tensors`."""
        if self.world > 1:
            import torch.distributed as dist

            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def share_object(self, value: Any) -> Any:
        """Give every rank the first rank's value, which travels pickled between our own processes."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.world > 1:
            import torch.distributed as dist

            dist.barrier()


@contextmanager
def ranks(device: "torch.device") -> Iterator[Ranks]:
    """Join the ranks that torchrun started, gloo on CPU and NCCL on CUDA, and leave them at the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield Ranks()
        return
    import torch.distributed as dist

    # Functions of this module keep, as a default argument, the group that there is when torch comes to import it. They would
    # keep ours beyond its destruction, and a thread of it that frees a tensor while Python ends aborts the process.
    import torch.distributed.nn.functional  # noqa: F401

    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), world, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
