"""skorch: a scikit-learn estimator fitted to arrays in memory."""

import torch
from skorch import NeuralNetClassifier

from benchmarks.peers.works import Work

__all__ = ["train"]


def train(work: Work) -> None:
    """Fit; no validation, nothing printed."""
    classifier = NeuralNetClassifier(
        work.build(),
        criterion=work.loss,
        optimizer=torch.optim.SGD,
        optimizer__fused=True,
        lr=work.lr,
        batch_size=work.batch_size,
        max_epochs=work.epochs,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        device=work.device,
    )
    classifier.fit(work.inputs.numpy(), work.targets.numpy())
