"""The tutorials' own programs, with their mistakes mended and their habits kept.

Mended: no softmax before the cross-entropy, one mean for one channel, the test set is the test set, training data are
shuffled, and evaluation is in eval mode. Kept: one example at a time through Pillow, the loss read at every step.
"""

import time

import torch
from torch import nn, optim
from torch.utils.data import DataLoader
from torchvision import transforms

from benchmarks.peers.works import Pictures, Work

__all__ = ["curve_of_pictures", "train_digits", "train_pictures"]

PRINT_EVERY = 40


def train_digits(work: Work) -> None:
    """MNIST with a multilayer perceptron; the running loss is printed every 40 steps."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((work.mean,), (work.std,))])
    loader = DataLoader(Pictures(work.stored, work.targets, transform), batch_size=work.batch_size, shuffle=True)
    model = work.build().to(work.device)
    optimizer = optim.SGD(model.parameters(), lr=work.lr)
    steps, running_loss = 0, 0.0
    for epoch in range(work.epochs):
        for images, labels in loader:
            steps += 1
            images, labels = images.to(work.device), labels.to(work.device)
            optimizer.zero_grad()
            loss = work.loss(model(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            if steps % PRINT_EVERY == 0:
                print(f"Epoch: {epoch + 1}/{work.epochs}...", f"Loss: {running_loss / PRINT_EVERY:.4f}")
                running_loss = 0.0


def train_pictures(work: Work) -> None:
    """CIFAR-10 with three convolutions; the loss is printed at every step."""
    loader = _loader(work, shuffle=True)
    model = work.build().to(work.device)
    optimizer = optim.SGD(model.parameters(), lr=work.lr)
    for _ in range(work.epochs):
        _epoch(work, model, optimizer, loader)


def curve_of_pictures(work: Work) -> list[tuple[float, float]]:
    """Train likewise with a test after each epoch, as the tutorial does; return (seconds so far, accuracy) of each."""
    started = time.perf_counter()
    loader, test_loader = _loader(work, shuffle=True), _loader(work, shuffle=False)
    model = work.build().to(work.device)
    optimizer = optim.SGD(model.parameters(), lr=work.lr)
    curve = []
    for _ in range(work.epochs):
        _epoch(work, model, optimizer, loader)
        curve.append((time.perf_counter() - started, _test(work, model, test_loader)))
    return curve


def _loader(work: Work, *, shuffle: bool) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    stored, targets = (work.stored, work.targets) if shuffle else work.test
    return DataLoader(Pictures(stored, targets, transforms.ToTensor()), batch_size=work.batch_size, shuffle=shuffle)


def _epoch(work: Work, model: nn.Module, optimizer: optim.Optimizer, loader: DataLoader) -> None:
    model.train()
    for step, (images, targets) in enumerate(loader, start=1):
        images, targets = images.to(work.device), targets.to(work.device)
        loss = work.loss(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"Step: {step}, Loss: {loss.item()}")


def _test(work: Work, model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, targets in loader:
            correct += (model(images.to(work.device)).argmax(1) == targets.to(work.device)).sum().item()
    return correct / len(work.test[1])
