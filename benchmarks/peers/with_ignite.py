"""ignite: an engine around the supervised update, over ready batches."""

import torch
from ignite.engine import create_supervised_trainer

from benchmarks.peers.works import Batches, Work

__all__ = ["train"]


def train(work: Work) -> None:
    """Run the engine; nothing is attached to it, and the loss is not read."""
    model = work.build().to(work.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=work.lr, fused=True)
    trainer = create_supervised_trainer(
        model,
        optimizer,
        work.loss,
        device=work.device,
        output_transform=lambda x, y, y_pred, loss: loss.detach(),  # noqa: ARG005
    )
    trainer.run(Batches(work), max_epochs=work.epochs)
