"""What a plain module over a plain TensorDataset loses: steps per second of `goodfit.trainer` against the loop by hand.

    python benchmarks/own_code.py --rounds 15

Both train the same network from the same weights, on the same tensors, with the same optimiser, in turns of `--steps`
steps; the figure is the median of the turns' ratios, with their quartiles.
"""

import argparse
import statistics
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import goodfit

BATCH = 64


class Digits(nn.Module):
    """The multilayer perceptron of the MNIST tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(784, 128), nn.Linear(128, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


class Pictures(nn.Module):
    """The network of the CIFAR-10 tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *(nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(2), nn.Conv2d(32, 32, 5, padding=2), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 5, padding=2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 64), nn.Linear(64, 10)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def by_hand(net: nn.Module, inputs: Tensor, targets: Tensor) -> Iterator[Tensor]:
    """The careful loop: shuffled indices, fused SGD, no reading of the device."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, fused=True)
    net.train()
    while True:
        for rows in torch.randperm(len(inputs)).split(BATCH):
            loss = F.cross_entropy(net(inputs[rows]), targets[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            yield loss.detach()


def with_goodfit(net: nn.Module, inputs: Tensor, targets: Tensor) -> Iterator[Tensor]:
    trainer = goodfit.trainer(
        TensorDataset(inputs, targets),
        val=0,
        test=TensorDataset(inputs[:100], targets[:100]),
        model=net,
        batch_size=BATCH,
        epochs=1_000,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01, fused=True),
        device="cpu",
    )
    for step in trainer.steps():
        yield step.loss


def ratio_of_turns(shape: tuple[int, ...], kind: type[nn.Module], steps: int, rounds: int) -> list[float]:
    inputs, targets = torch.randn(6_400, *shape), torch.randint(0, 10, (6_400,))
    torch.manual_seed(0)
    net = kind()
    other = kind()
    other.load_state_dict(net.state_dict())
    loops = by_hand(net, inputs, targets), with_goodfit(other, inputs, targets)
    ratios = []
    for number in range(rounds + 1):
        seconds = {}
        for place in ((0, 1), (1, 0))[number % 2]:
            started = time.perf_counter()
            for _ in range(steps):
                next(loops[place])
            seconds[place] = time.perf_counter() - started
        if number:  # the first turn warms up
            ratios.append(seconds[0] / seconds[1])
    return ratios


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--steps", type=int, default=100)
    given = arguments.parse_args()
    for name, shape, kind, steps in (
        ("MNIST MLP", (784,), Digits, 5 * given.steps),
        ("CIFAR-10 network", (3, 32, 32), Pictures, given.steps),
    ):
        ratios = ratio_of_turns(shape, kind, steps, given.rounds)
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name}: {middle:.3f} of the steps per second by hand ({low:.3f} to {high:.3f}, {len(ratios)} turns)")


if __name__ == "__main__":
    main()
