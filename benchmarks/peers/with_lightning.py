"""Lightning with everything off that can be: no logger, no checkpoints, no progress bar."""

from collections.abc import Iterable
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers.works import Batches, Work

__all__ = ["train", "train_from_loader"]


class Classifier(lightning.LightningModule):
    """The work's network as Lightning wants it."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.model, self.loss, self.lr = work.build(), work.loss, work.lr

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return self.loss(self.model(inputs), targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=self.lr, fused=True)


def train(work: Work) -> None:
    """Train on an iterable of ready batches."""
    _fit(work, Batches(work))


def train_from_loader(work: Work) -> None:
    """Train on the tensors through a DataLoader, as its documentation shows."""
    _fit(work, DataLoader(TensorDataset(work.inputs, work.targets), work.batch_size, shuffle=True))


def _fit(work: Work, batches: Iterable[Any]) -> None:
    accelerator = "gpu" if work.device == "cuda" else work.device
    trainer = lightning.Trainer(max_epochs=work.epochs, accelerator=accelerator, devices=1, barebones=True)
    trainer.fit(Classifier(work), batches)
