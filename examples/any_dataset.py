"""Any data set of (data, label) pairs, a 2-3-1 network, and a gradient by hand.

The note loads its model with a pickle, which can run code. Here the file is data, and is loaded with the class that it names.
"""

import torch
from torch import nn
from torch.utils.data import Dataset

import goodfit

x = torch.tensor(2.0, requires_grad=True)
(x**2 + 3 * x).backward()
print("the gradient of x² + 3x at 2 is", x.grad.item())


class Points(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, index):
        point = torch.tensor([index % 20, index // 20]) / 10 - 1
        return point, int(point.norm() < 0.7)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))

    def forward(self, x):
        return self.layers(x)


run = goodfit.train(Points(), model=Net, optimizer="rmsprop", lr=0.05, epochs=60)
print(goodfit.load(run.model, model=Net)(torch.zeros(2)))
