"""fastai: a Learner over tensors in memory, with torch's SGD and no progress bar."""

from functools import partial

import torch
from fastai.basics import DataLoader, DataLoaders, Learner, OptimWrapper
from torch.utils.data import TensorDataset

from benchmarks.peers.works import Work

__all__ = ["train"]


def train(work: Work) -> None:
    """Train at a constant rate; there is no validation."""
    data = TensorDataset(work.inputs, work.targets)
    training, nothing = DataLoader(data, bs=work.batch_size, shuffle=True), DataLoader(data, bs=work.batch_size, n=0)
    loaders = DataLoaders(training, nothing, device=work.device)
    sgd = partial(OptimWrapper, opt=partial(torch.optim.SGD, fused=True))
    learner = Learner(loaders, work.build(), loss_func=work.loss, opt_func=sgd)
    with learner.no_logging():
        learner.fit(work.epochs, lr=work.lr)
