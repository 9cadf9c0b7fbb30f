"""CIFAR-10 with LeNet: accuracy overall and for each class.

The note counts its classes in batches of exactly four, without eval() or no_grad(). Here every example is counted once,
whatever the batch.
"""

import os

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.datasets import CIFAR10
from torchvision.transforms import Compose, Normalize, ToTensor

import goodfit


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(16 * 5 * 5, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.max_pool2d(F.relu(self.conv1(x)), 2))), 2)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.view(-1, 16 * 5 * 5))))))


transform, root = Compose([ToTensor(), Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]), os.environ.get("GOODFIT_DATA", "data")
train_set, test_set = (CIFAR10(root, train=train, download=True, transform=transform) for train in (True, False))
net = Net()
sgd = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
run = goodfit.train(train_set, val=0, test=test_set, model=net, optimizer=sgd, batch_size=4, epochs=2)
for row in run.test.per_class:
    print(f"{row.name:12} {row.recall:.1%}")
