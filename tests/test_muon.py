"""Muon: steps of matrices are orthogonal, all else has Adam's, and which is which follows from the model."""

import pytest
import torch
from torch import Tensor, nn

from goodfit.training.muon import Muon, muon_groups, orthogonal
from goodfit.training.optimizers import build_optimizer


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 2)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8), (1, 5)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    matrix = drawn(*shape)
    found = orthogonal(matrix, 5)
    assert found.shape == matrix.shape
    values = torch.linalg.svdvals(found)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_singular_vectors_stay() -> None:
    matrix = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    found = orthogonal(matrix, 5)
    torch.testing.assert_close(found, torch.diag(found.diagonal()), atol=1e-5, rtol=0)


def test_nothing_comes_of_nothing() -> None:
    assert not orthogonal(torch.zeros(3, 4), 5).any()


def test_the_head_biases_and_norms_are_not_orthogonal() -> None:
    model = network()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    inside, head, small = ([names[id(parameter)] for parameter in group["params"]] for group in muon_groups(model, 0.1))
    assert (inside, head) == (["0.weight", "3.weight"], ["5.weight"])
    assert small == ["0.bias", "1.weight", "1.bias", "3.bias", "5.bias"]


def test_what_is_frozen_is_in_no_group() -> None:
    model = network()
    model[0].requires_grad_(False)
    assert [len(group["params"]) for group in muon_groups(model, 0.1)] == [1, 1, 4]


def test_a_step_of_a_convolution_is_that_of_its_matrix() -> None:
    weight, gradient = drawn(4, 3, 2, 2), drawn(4, 3, 2, 2).flip(0)
    changed = {}
    for shape in ((4, 3, 2, 2), (4, 12)):
        parameter = nn.Parameter(weight.reshape(shape).clone())
        optimizer = Muon([parameter], lr=0.5, momentum=0.6)
        for _ in range(3):
            parameter.grad = gradient.reshape(shape)
            optimizer.step()
        changed[shape] = parameter.detach().reshape(4, 12)
    assert torch.equal(*changed.values())


def test_the_first_step_has_the_size_of_the_rate() -> None:
    parameter = nn.Parameter(torch.zeros(6, 6))
    optimizer = Muon([parameter], lr=0.5, momentum=0.9, iterations=10)
    parameter.grad = drawn(6, 6)
    optimizer.step()
    assert float(torch.linalg.svdvals(parameter.detach()).max()) == pytest.approx(0.5, rel=0.3)


def test_normalized_weights_keep_their_norm_and_turn_as_far() -> None:
    model, other = network(), network()
    optimizers = [build_optimizer("muon", model, lr=0.5, arguments={"normalize": True}), build_optimizer("muon", other, lr=0.5)]
    for parameters, optimizer in zip((model, other), optimizers, strict=True):
        for index, parameter in enumerate(parameters.parameters()):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        optimizer.step()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        size = 8**0.5 / theirs.norm() if ours.ndim == 4 else 1.0
        torch.testing.assert_close(ours, theirs * size)
    assert float(model[0].weight.detach().norm()) == pytest.approx(8**0.5)


def test_in_bf16_the_products_are_and_nothing_else() -> None:
    stepped = {}
    for precision in ("fp32", "bf16"):
        model = network()
        optimizer = build_optimizer("muon", model, lr=0.5, precision=precision)
        for index, parameter in enumerate(model.parameters()):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        optimizer.step()
        stepped[precision] = [parameter.detach() for parameter in model.parameters()]
        assert all(parameter.dtype == torch.float32 for parameter in stepped[precision])
        assert optimizer.state[model[0].weight]["momentum_buffer"].dtype == torch.float32
    for full, half in zip(*stepped.values(), strict=True):
        assert torch.equal(full, half) == (full.ndim != 4)
        torch.testing.assert_close(full, half, atol=0.03, rtol=0)


def test_other_groups_have_adams_steps() -> None:
    ours, theirs = nn.Parameter(drawn(5)), nn.Parameter(drawn(5))
    optimizers = [
        Muon([{"params": [ours], "orthogonal": False}], adam_lr=0.1, betas=(0.8, 0.9)),
        torch.optim.Adam([theirs], lr=0.1, betas=(0.8, 0.9)),
    ]
    for step in range(4):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = drawn(5) * (step - 1.5)
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_weight_decay_is_decoupled_and_of_matrices_only() -> None:
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build_optimizer("muon", model, lr=0.5, weight_decay=0.1, momentum=0.6)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for start, parameter, factor in zip(before, model.parameters(), (0.95, 1, 1, 1, 0.95, 1, 0.9997, 1), strict=True):
        torch.testing.assert_close(parameter.detach(), start * factor)
