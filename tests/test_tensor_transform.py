import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from goodfit.data import tensor_transform
from goodfit.data.tensor_transform import TensorTransform, as_float32, fit_tensor_transform
from goodfit.errors import ConfigError, DataError

finite = st.floats(-1e30, 1e30)


@given(st.lists(st.tuples(finite, st.floats(1e-30, 1e30)), min_size=1, max_size=5), st.lists(st.integers(1, 9), max_size=2))
def test_json_round_trip_is_exact(moments, rest):
    mean, std = zip(*moments, strict=True)
    transform = TensorTransform((len(mean), *rest), mean, std)
    document = json.loads(json.dumps(transform.to_json()))
    assert document.pop("kind") == "tensor"
    assert TensorTransform.from_json(document) == transform


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": [2], "mean": [0.0], "std": [1.0]},
        {"shape": [], "mean": [], "std": []},
        {"shape": [1], "mean": [0.0], "std": [0.0]},
        {"shape": [1], "mean": [float("inf")], "std": [1.0]},
        {"shape": [1], "mean": [0.0], "std": [1.0], "more": 1},
        {"shape": [1], "mean": [0.0]},
    ],
)
def test_damaged_json_is_refused(fields):
    with pytest.raises((KeyError, TypeError, ValueError)):
        TensorTransform.from_json(fields)


@pytest.mark.parametrize(("shape", "dimensions"), [((50, 3), (0,)), ((50, 3, 4), (0, 2)), ((50, 3, 4, 5), (0, 2, 3))])
def test_moments_are_those_of_the_training_rows(monkeypatch, shape, dimensions):
    monkeypatch.setattr(tensor_transform, "CHUNK", 100)  # several chunks, the last one short
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 1000
    rows = torch.arange(0, 50, 3)
    inputs[1] = 1e20  # not a training row
    transform = fit_tensor_transform(inputs, rows)
    values = inputs[rows].double()
    torch.testing.assert_close(torch.tensor(transform.mean).double(), values.mean(dimensions), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.tensor(transform.std).double(), values.std(dimensions, correction=0), rtol=1e-6, atol=0)
    normalized = transform.normalize(inputs[rows]).double()
    assert normalized.mean(dimensions).abs().max() < 1e-3
    assert (normalized.std(dimensions, correction=0) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("values", [[0.0, 0.0], [0.1, 0.1], [123456.7, 123456.7], [-1e30, -1e30], [0.0, 1e-42]])
def test_a_feature_that_does_not_vary_becomes_zeros(values):
    inputs = torch.tensor(values * 500 + values[:1]).view(-1, 1).repeat(1, 2)
    inputs[:, 1] = torch.arange(1001)
    transform = fit_tensor_transform(inputs, torch.arange(1001))
    assert transform.std[0] == 1.0
    assert transform.normalize(inputs)[:, 0].abs().max() <= abs(values[1]) * 1e-6 + 1e-40


def test_given_moments_are_taken_as_they_are():
    transform = fit_tensor_transform(torch.tensor([[1.0], [3.0]]), torch.arange(2), mean=(0.0,), std=(4.0,))
    assert transform == TensorTransform((1,), (0.0,), (4.0,))
    assert fit_tensor_transform(torch.tensor([[1.0], [3.0]]), torch.arange(2), mean=5).std == (1.0,)
    assert fit_tensor_transform(torch.zeros(3, 2), torch.arange(2), mean=[1, 2], std=0.5).std == (0.5, 0.5)


@pytest.mark.parametrize("given", [{"mean": [1.0]}, {"std": [1.0, 0.0]}, {"std": -1.0}, {"mean": float("nan")}])
def test_given_moments_that_do_not_fit_are_refused(given):
    with pytest.raises(ConfigError, match=f"transform.{next(iter(given))} is .*; give one, or 2"):
        fit_tensor_transform(torch.zeros(3, 2), torch.arange(3), **given)


def test_encode_takes_arrays_tensors_lists_and_a_single_example():
    transform = TensorTransform((2, 3), (0.0, 0.0), (1.0, 1.0))
    examples = np.arange(12).reshape(2, 2, 3)
    expected = torch.arange(12).view(2, 2, 3).float()
    for form in (
        examples,
        examples.astype(">f8"),
        torch.from_numpy(examples).bfloat16(),
        examples.tolist(),
        examples[:, :, ::-1][:, :, ::-1],
    ):
        encoded = transform.encode(form)
        assert encoded.dtype == torch.float32
        assert torch.equal(encoded, expected)
    assert torch.equal(transform.encode(examples[1].tolist()), expected[1:])


def test_encode_shares_the_memory_of_float32():
    examples = torch.zeros(3, 2)
    assert TensorTransform((2,), (0.0, 0.0), (1.0, 1.0)).encode(examples).data_ptr() == examples.data_ptr()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 3)), r"shape \(4, 3\); this model takes \(N, 2\)"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.array([[0, 1], [2, np.nan]]), "nan in row 1, column 1"),
        (np.array([[0, 1e300]]), r"1e\+300 in row 0, column 1"),
        (np.zeros((2, 2, 2)) - np.inf, r"-inf in row 0, index \(0, 0\)"),
        ([[1, 2], [3]], "same shape"),
        ([["a", "b"]], "encode text first"),
        (np.array([[1, None]]), "object"),
        (3.0, "the input is 3.0; an array of examples is needed"),
        ("seven.png", "the input is 'seven.png'; an array of examples is needed"),
        (torch.zeros(2, 2).to_sparse(), "not one array"),
    ],
)
def test_encode_refuses_what_does_not_fit(values, message):
    with pytest.raises(DataError, match=message) as error:
        TensorTransform((2,), (0.0, 0.0), (1.0, 1.0)).encode(values)
    assert "\n" not in str(error.value)


def test_read_only_arrays_are_copied_without_a_warning():
    array = np.ones((2, 2), dtype=np.float32)
    array.flags.writeable = False
    assert as_float32(array, "X").sum() == 4
