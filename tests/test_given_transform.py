"""The transform of data that come ready."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from goodfit.data.examples import Examples
from goodfit.data.given_transform import GivenTransform, fit_given_transform
from goodfit.data.reading import MapReader
from goodfit.data.tensor_transform import TensorTransform
from goodfit.data.transforms import transform_from_json
from goodfit.errors import DataError, FileError
from goodfit.inputs import tensors

ONE = GivenTransform(((3,),), ("float64",))
TWO = GivenTransform(((2,), ()), ("float32", "int64"))
NAMED = GivenTransform(((2,), (1, 2)), ("float32", "bool"), ("wide", "mask"))


def fit(inputs: Any) -> Any:
    examples = Examples(MapReader("mine", [(inputs, 0), (inputs, 1)]))
    return fit_given_transform(examples, torch.arange(2))


@pytest.mark.parametrize("transform", [ONE, TWO, NAMED])
def test_it_is_the_same_after_json(transform: GivenTransform) -> None:
    assert transform_from_json(json.loads(json.dumps(transform.to_json()))) == transform


@pytest.mark.parametrize(
    "change",
    [{"shapes": []}, {"shapes": [[-1]]}, {"dtypes": ["complex64"]}, {"dtypes": []}, {"names": ["a", "b"]}, {"names": None}],
)
def test_a_document_of_no_tensors_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FileError, match="the given transform cannot be read"):
        transform_from_json(ONE.to_json() | change)


def test_it_is_what_one_example_s_inputs_are() -> None:
    assert fit(torch.zeros(3, dtype=torch.float64)) == ONE
    assert fit((torch.zeros(2), torch.tensor(1))) == TWO
    assert fit({"wide": torch.zeros(2), "mask": torch.ones(1, 2, dtype=torch.bool)}) == NAMED
    assert ONE.input_shape == (3,)


def test_one_float32_tensor_is_a_tensor_transform_that_does_nothing() -> None:
    transform = fit(torch.zeros(2, 5))
    assert transform == TensorTransform((2, 5), (0.0, 0.0), (1.0, 1.0))
    assert transform.is_identity
    stored = torch.rand(3, 2, 5)
    assert transform.normalize(stored) is stored


def test_one_example_or_several_are_a_batch() -> None:
    assert torch.equal(ONE.encode([1, 2, 3]), torch.tensor([[1.0, 2, 3]], dtype=torch.float64))
    assert ONE.encode(np.zeros((4, 3), np.float32)).dtype == torch.float64
    wide, number = TWO.encode((torch.zeros(4, 2), torch.arange(4)))
    assert (wide.shape, number.shape) == ((4, 2), (4,))
    wide, number = TWO.encode(([1.0, 2.0], 3))
    assert (wide.tolist(), number.tolist()) == ([[1.0, 2.0]], [3])
    named = NAMED.encode({"mask": [[True, False]], "wide": [1, 2]})
    assert list(named) == ["wide", "mask"]
    assert all(isinstance(tensor, Tensor) and len(tensor) == 1 for tensor in tensors(named))
    assert NAMED.normalize(named) is named


@pytest.mark.parametrize(
    ("transform", "given", "message"),
    [
        (ONE, [1.0, 2.0], r"the input is float64 of shape \(2,\); this model takes float64 \(N, 3\), or one \(3,\)"),
        (ONE, "cat.png", "the input holds <U7 values; this model takes float64 numbers"),
        (TWO, [1.0, 2.0, 3.0], "the inputs are a list of 3; this model takes a tuple of 2"),
        (TWO, ([1.0, 2.0], 0.5), r"input 2 is float64 of shape \(1,\); this model takes int64 \(N\), or one \(\)"),
        (TWO, (torch.zeros(3, 2), torch.arange(2)), "the inputs have 3, 2 examples; give as many of each"),
        (TWO, (np.zeros((3, 2), np.uint8), torch.arange(3)), "input 1 is uint8 .*; this model takes float32"),
        (NAMED, {"wide": [1, 2]}, "the inputs are a dict of wide; this model takes a dict of wide, mask"),
        (NAMED, {"wide": [1, 2], "mask": [[1.0, 2.0]]}, "the input 'mask' is float64"),
    ],
)
def test_what_does_not_fit_is_named(transform: GivenTransform, given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        transform.encode(given)


def test_inputs_of_no_known_type_are_refused() -> None:
    with pytest.raises(DataError, match="mine gives complex64 inputs; give them as one of bool, uint8"):
        fit(torch.zeros(2, dtype=torch.complex64))
