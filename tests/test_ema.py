"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from goodfit.training.ema import MovingAverage


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_an_update_moves_the_average_by_the_decay() -> None:
    network = model()
    average = MovingAverage(network, decay=0.9)
    before = {name: tensor.clone() for name, tensor in average.module.state_dict().items()}
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor += 1
    average.update(10**6)
    for name, tensor in average.module.state_dict().items():
        is_count = not tensor.is_floating_point()
        torch.testing.assert_close(tensor, before[name] + (1 if is_count else 0.1))


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (8, 0.5), (80, 0.9), (10**6, 0.9)])
def test_the_decay_starts_small(step: int, decay: float) -> None:
    network = nn.Linear(1, 1, bias=False)
    average = MovingAverage(network, decay=0.9)
    before = average.module.weight.item()
    with torch.no_grad():
        network.weight += 1
    average.update(step)
    assert average.module.weight.item() - before == pytest.approx(1 - decay)


def test_the_average_is_a_copy_that_is_not_trained() -> None:
    network = model()
    average = MovingAverage(network, decay=0.5)
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        network[0].weight.zero_()
    assert average.module[0].weight.any()
