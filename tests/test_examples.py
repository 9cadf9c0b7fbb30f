"""What a user's batches mean, and the targets of all examples."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from goodfit.data.examples import Examples, Labels, separate
from goodfit.data.reading import MapReader
from goodfit.errors import DataError
from goodfit.inputs import Inputs, tensors

TWO = torch.arange(4.0).view(2, 2)
LABELS = torch.tensor([1, 0])


class Made(Dataset[Any]):
    """Examples that a function makes."""

    def __init__(self, make: Callable[[int], Any], count: int = 10) -> None:
        self.make, self.count, self.reads = make, count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return self.make(index)


def examples(make: Callable[[int], Any], **fields: Any) -> Examples:
    return Examples(MapReader("mine", Made(make)), **fields)


@pytest.mark.parametrize(
    ("batch", "inputs"),
    [
        ((TWO, LABELS), TWO),
        ([TWO, LABELS.view(2, 1)], TWO),
        ([TWO, TWO + 1, LABELS], (TWO, TWO + 1)),
        (([TWO, TWO + 1], LABELS), (TWO, TWO + 1)),
        (((TWO,), LABELS), TWO),
        (({"a": TWO, "b": TWO}, LABELS), {"a": TWO, "b": TWO}),
        ({"a": TWO, "label": LABELS, "b": TWO}, {"a": TWO, "b": TWO}),
        ({"y": LABELS, "x": TWO}, {"x": TWO}),
    ],
)
def test_the_forms_of_a_batch(batch: Any, inputs: Inputs) -> None:
    found, targets = separate(batch, "mine")
    assert torch.equal(targets, LABELS)
    assert type(found) is type(inputs)
    assert (list(found) if isinstance(found, dict) else None) == (list(inputs) if isinstance(inputs, dict) else None)
    assert all(map(torch.equal, tensors(found), tensors(inputs)))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (TWO, r"gives batches of float32 \(2, 2\); give \(inputs, target\)"),
        ([TWO], "gives batches of"),
        ({"x": TWO}, r"gives batches of \{'x': float32 \(2, 2\)\}; .* label, labels, target, targets, y"),
        ({"x": TWO, "y": LABELS, "label": LABELS}, "gives batches of"),
        ((TWO, ["cat", "dog"]), "gives the label 'cat', and a class is a whole number"),
        ((["a", "b"], LABELS), "gives batches of"),
        ((TWO, LABELS[:1]), "one row for each example"),
        ((TWO, torch.rand(2, 3)), r"gives targets of shape \(2, 3\); .*label_smoothing"),
        ((TWO, torch.tensor(1)), "one row for each example"),
        (None, "gives batches of a NoneType"),
    ],
)
def test_other_batches_are_refused_in_one_line(batch: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        separate(batch, "mine")
    assert "\n" not in str(raised.value)


def test_a_collate_function_that_leaves_examples_out_is_refused() -> None:
    some = Examples(MapReader("mine", Made(lambda index: index), lambda found: (torch.zeros(1, 2), torch.zeros(1))))
    with pytest.raises(DataError, match=r"gives 1 examples for the 3 of the batch of examples 4, 5, 6"):
        list(some.stream([[4, 5, 6]]))


def test_targets_of_an_attribute_are_taken_without_reading_all() -> None:
    some = examples(lambda index: (TWO, index % 3))
    data_set: Any = some.reader.data_set  # type: ignore[union-attr]
    data_set.targets = [index % 3 for index in range(10)]
    assert some.measured()[1].tolist() == data_set.targets
    assert data_set.reads == 3
    subset = Examples(MapReader("mine", Subset(data_set, [4, 2, 7])))
    assert subset.measured()[1].tolist() == [1, 2, 1]


@pytest.mark.parametrize("attribute", [{"targets": [0] * 10}, {"targets": [1], "labels": ["a"] * 10}, {"labels": 3}])
def test_targets_of_an_attribute_that_are_others_are_not_taken(attribute: dict[str, Any]) -> None:
    some = examples(lambda index: (TWO, index % 3))
    for name, value in attribute.items():
        setattr(some.reader.data_set, name, value)  # type: ignore[union-attr]
    said: list[tuple[str, int, int]] = []
    assert some.measured(lambda *news: said.append(news))[1].tolist() == [index % 3 for index in range(10)]
    assert said[-1] == ("reading labels", 10, 10)


def test_a_target_transform_has_the_last_word() -> None:
    some = examples(lambda index: (TWO, 1 if index == 4 else 0))
    vars(some.reader.data_set).update(targets=[0] * 10, target_transform=lambda target: target)  # type: ignore[union-attr]
    assert some.measured()[1].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_labels_become_classes_and_unknown_ones_are_named() -> None:
    labels = Labels(torch.tensor([3, 10, 20]), torch.tensor([1, 0, 2]))
    some = examples(lambda index: (TWO, [3, 10, 20, 7][index]), labels=labels)
    ((_, targets),) = some.stream([[2, 0, 1]])
    assert targets.tolist() == [2, 1, 0]
    with pytest.raises(DataError, match=r"mine: example 3 has the label 7, and the labels are 3, 10, 20"):
        list(some.stream([[1, 3]]))
    assert next(iter(some.reordered(torch.tensor([2, 0, 1])).stream([[0]])))[1].tolist() == [0]


def test_numbers_to_predict_are_float32() -> None:
    ((_, targets),) = examples(lambda index: (TWO, index / 2)).stream([[1, 2]])
    assert targets.dtype == torch.float32
    assert targets.tolist() == [0.5, 1.0]


def test_the_head_is_read_here() -> None:
    inputs, targets = examples(lambda index: (torch.full((2,), float(index)), index)).head([4, 7, 9], 2)
    assert isinstance(inputs, Tensor)
    assert inputs[:, 0].tolist() == targets.tolist() == [4.0, 7.0]


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ([0.0, 1.0, 0.0], r"they are one-hot: give the classes' numbers, \(N,\), such as y\.argmax\(1\)"),
        ([0.0, 1.0, 1.0], "goodfit does not do multi-label"),
        ([0.2, 0.5, 0.3], "give one class or one number per example"),
    ],
)
def test_targets_of_several_numbers_are_refused_with_advice(target: list[float], advice: str) -> None:
    batch = torch.zeros(4, 2), torch.tensor([target] * 4)
    with pytest.raises(DataError, match=rf"things gives targets of shape \(4, 3\); .*{advice}"):
        separate(batch, "things")
