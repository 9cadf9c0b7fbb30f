"""The loops that a careful person writes by hand."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers.works import Batches, Work

__all__ = ["train", "train_from_loader"]


def train(work: Work) -> None:
    """Train on tensors in memory: one indexing a batch, fused SGD, no reading of the loss."""
    model = _model(work)
    batches = Batches(work)
    if batches.inputs.ndim == 4 and any(isinstance(layer, nn.Conv2d) for layer in model):
        model = model.to(memory_format=torch.channels_last)
        batches.inputs = batches.inputs.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=work.lr, fused=True)
    for _ in range(work.epochs):
        for inputs, targets in batches:
            _update(work, model, optimizer, inputs, targets)


def train_from_loader(work: Work) -> None:
    """Train on the same tensors through a DataLoader."""
    model = _model(work)
    loader = DataLoader(TensorDataset(work.inputs, work.targets), work.batch_size, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=work.lr, fused=True)
    for _ in range(work.epochs):
        for inputs, targets in loader:
            _update(work, model, optimizer, inputs.to(work.device), targets.to(work.device))


def _model(work: Work) -> nn.Sequential:
    return work.build().to(work.device).train()


def _update(work: Work, model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> None:
    loss = work.loss(model(inputs), targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
