"""Losses against torch's own, and in parts that add up."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from goodfit.data.arrays import read_arrays
from goodfit.data.dataset import Dataset, TargetScale
from goodfit.data.splits import build_dataset
from goodfit.errors import ConfigError
from goodfit.training.losses import CrossEntropy, Loss, SquaredError, build_loss, class_weights

CPU = torch.device("cpu")
COUNT, CLASSES = 12, 4
WEIGHTS = torch.tensor([1.0, 0.5, 3.0, 0.25])


def mean(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    return loss.total(outputs, targets) / loss.weight(targets)


def examples(classes: int = CLASSES, columns: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(COUNT, columns or classes, generator=draws), torch.randint(classes, (COUNT,), generator=draws)


def dataset(targets: object) -> Dataset:
    raw = read_arrays((torch.arange(len(targets) * 2.0).view(-1, 2), targets))
    return build_dataset(raw, val=0, test=0.2, max_train=0, seed=0)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_classes_is_torch_s(weights: Tensor | None, smoothing: float) -> None:
    outputs, targets = examples()
    expected = F.cross_entropy(outputs, targets, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(mean(CrossEntropy(smoothing, weights), outputs, targets), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_probabilities_is_torch_s(smoothing: float) -> None:
    outputs, _ = examples()
    targets = examples(seed=1)[0].softmax(1)
    expected = F.cross_entropy(outputs, targets, label_smoothing=smoothing)
    torch.testing.assert_close(mean(CrossEntropy(smoothing), outputs, targets), expected)


def test_certain_probabilities_weigh_as_their_classes() -> None:
    outputs, targets = examples()
    certain = F.one_hot(targets, CLASSES).float()
    loss = CrossEntropy(0.1, WEIGHTS)
    torch.testing.assert_close(loss.total(outputs, certain), loss.total(outputs, targets))
    torch.testing.assert_close(loss.weight(certain), loss.weight(targets))


@pytest.mark.parametrize("weights", [None, WEIGHTS[:2]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_one_logit_is_softmax_over_zero_and_the_logit(weights: Tensor | None, smoothing: float) -> None:
    logit, targets = examples(2, columns=1)
    both = torch.cat([torch.zeros_like(logit), logit], 1)
    for some in (targets, F.one_hot(targets, 2).float() * 0.8 + 0.1):
        expected = mean(CrossEntropy(smoothing, weights), both, some)
        torch.testing.assert_close(mean(CrossEntropy(smoothing, weights, "one-logit"), logit, some), expected)


def test_one_logit_is_torch_s_binary_cross_entropy() -> None:
    logit, targets = examples(2, columns=1)
    expected = F.binary_cross_entropy_with_logits(logit[:, 0], targets.float())
    torch.testing.assert_close(mean(CrossEntropy(outputs="one-logit"), logit, targets), expected)


def test_squared_error_is_in_units_of_the_targets_deviation() -> None:
    outputs, values = torch.tensor([[0.0], [1.0]]), torch.tensor([16.0, 13.0])
    # In units of 3 from 10 the targets are 2 and 1.
    assert mean(SquaredError(TargetScale(10.0, 3.0)), outputs, values) == pytest.approx((2**2 + 0) / 2)


@given(st.lists(st.integers(0, COUNT), max_size=4), st.sampled_from(["classes", "weighted", "mixed", "one logit", "values"]))
@settings(deadline=None, max_examples=60)
def test_parts_of_a_batch_add_up_to_the_whole(cuts: list[int], kind: str) -> None:
    outputs, targets = examples(2 if kind == "one logit" else CLASSES, columns=1 if kind in ("one logit", "values") else None)
    loss: Loss = CrossEntropy(0.1, WEIGHTS if kind in ("weighted", "mixed") else None)
    if kind == "mixed":
        targets = examples(seed=1)[0].softmax(1)
    elif kind == "one logit":
        loss = CrossEntropy(0.1, WEIGHTS[:2], "one-logit")
    elif kind == "values":
        loss, targets = SquaredError(TargetScale(1.0, 2.0)), targets.float()
    parts = list(zip(*(tensor.tensor_split(sorted(cuts)) for tensor in (outputs, targets)), strict=True))
    torch.testing.assert_close(sum(loss.total(*part) for part in parts), loss.total(outputs, targets))
    assert float(sum(loss.weight(part[1]) for part in parts)) == pytest.approx(float(loss.weight(targets)))


def test_balanced_weights_are_scikit_learn_s() -> None:
    data = dataset(["a"] * 20 + ["b"] * 10 + ["c"] * 5)
    seen = data.train.targets.numpy()
    expected = compute_class_weight("balanced", classes=np.arange(3), y=seen)
    weights = class_weights("balanced", data, CPU)
    assert weights is not None
    assert weights.tolist() == pytest.approx(expected)
    assert float(CrossEntropy(0.0, weights).weight(data.train.targets)) == pytest.approx(len(seen))


def test_given_weights_are_taken_in_the_order_of_the_classes() -> None:
    data = dataset(["cat", "dog"] * 5)
    weights = class_weights([1.0, 2.5], data, CPU)
    assert weights is not None
    assert weights.tolist() == [1.0, 2.5]
    assert class_weights("none", data, CPU) is None


def test_a_batch_of_classes_that_do_not_count_has_no_loss() -> None:
    outputs, targets = torch.randn(3, 2, requires_grad=True), torch.zeros(3, dtype=torch.int64)
    loss = mean(CrossEntropy(0.0, torch.tensor([0.0, 1.0])), outputs, targets)
    loss.backward()
    assert loss == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_what_does_not_fit_the_targets_is_named() -> None:
    numbers = dataset([0.5 * value for value in range(30)])
    classes = dataset(["cat", "dog"] * 5)
    with pytest.raises(ConfigError, match=r"class_weights has 3 weights for 2 classes; .* in this order: cat, dog"):
        class_weights([1.0, 1.0, 1.0], classes, CPU)
    with pytest.raises(ConfigError, match=r"class_weights .* gives no class any weight"):
        class_weights([0.0, 0.0], classes, CPU)
    with pytest.raises(ConfigError, match="class_weights is for classes"):
        class_weights("balanced", numbers, CPU)
    with pytest.raises(ConfigError, match="label_smoothing is for classes"):
        build_loss(numbers, outputs="value", label_smoothing=0.1, weights=None)


def test_the_loss_fits_the_task() -> None:
    numbers, classes = dataset([0.5 * value for value in range(30)]), dataset(["cat", "dog"] * 5)
    assert build_loss(numbers, outputs="value", label_smoothing=0, weights=None) == SquaredError(numbers.target_scale)
    assert build_loss(classes, outputs="one-logit", label_smoothing=0.1, weights=None) == CrossEntropy(0.1, None, "one-logit")
    assert build_loss(classes, outputs="logits", label_smoothing=0.1, weights=None) == CrossEntropy(0.1)
