"""CIFAR-10 over ten epochs: validated, watched in TensorBoard, kept epoch by epoch, and used on a photo.

The note does not shuffle, chooses its best epoch on the test set, adds up batch losses, and retypes the preprocessing for its
photo. Here the epoch is chosen on a fiftieth of the training set, the test set is used once, and the file brings the
preprocessing.
"""

import os

import torch
from torch import nn
from torchvision.datasets import CIFAR10
from torchvision.transforms import ToTensor

import goodfit

convolutions = [nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(2), nn.Conv2d(32, 32, 5, padding=2), nn.MaxPool2d(2)]
head = [nn.Conv2d(32, 64, 5, padding=2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.Linear(64, 10)]
net, root = nn.Sequential(*convolutions, *head), os.environ.get("GOODFIT_DATA", "data")
train_set, test_set = (CIFAR10(root, train=train, download=True, transform=ToTensor()) for train in (True, False))

sgd = torch.optim.SGD(net.parameters(), lr=0.01)
keep = {"checkpoint.keep": "all"}  # a checkpoint for each epoch
run = goodfit.train(train_set, val=0.02, test=test_set, model=net, optimizer=sgd, batch_size=64, epochs=10, settings=keep)
print(f"watch it with: tensorboard --logdir {run.path}")
print(goodfit.load(run.model)(test_set[0][0]))
