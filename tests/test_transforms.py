"""What all transforms share: the normalisation, and the way back from JSON."""

import json

import pytest
import torch

from goodfit.data.given_transform import GivenTransform
from goodfit.data.image_transform import ImageTransform
from goodfit.data.table_transform import ScaledColumn, TableTransform
from goodfit.data.tensor_transform import TensorTransform
from goodfit.data.transforms import Normalization, Transform, transform_from_json
from goodfit.errors import FileError

TRANSFORMS: list[Transform] = [
    GivenTransform(((2,), (3, 4)), ("float32", "int64"), ("wide", "deep")),
    ImageTransform("L", 4, 5, (0.5,), (0.25,)),
    TensorTransform((2, 3), (0.0, 1.0), (1.0, 2.0)),
    TableTransform((ScaledColumn("age", "number", ("value",), (40.0,), (12.0,), True),), (("id", "a name for each row"),)),
]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(7, 2), (7, 2, 3), (7, 2, 3, 4)])
def test_each_channel_is_less_its_mean_and_over_its_deviation(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    stored = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = stored.clone()
    found = Normalization((0.5, 0.1), (0.2, 0.4), scale=255.0)(stored)
    for channel, (mean, std) in enumerate([(0.5, 0.2), (0.1, 0.4)]):
        torch.testing.assert_close(found[:, channel], (stored[:, channel].float() / 255 - mean) / std)
    assert found.dtype == torch.float32
    assert torch.equal(stored, before)


def test_one_normalisation_serves_batches_of_any_form() -> None:
    normalization = Normalization((1.0, 2.0), (2.0, 4.0))
    for shape in ((3, 2), (3, 2, 5), (3, 2)):
        assert normalization(torch.ones(shape))[:, 1].unique().tolist() == [-0.25]


def test_a_normalisation_that_does_nothing_copies_nothing() -> None:
    normalization, stored = Normalization((0.0, 0.0), (1.0, 1.0)), torch.rand(3, 2)
    assert normalization(stored) is stored
    assert torch.equal(normalization(torch.ones(3, 2, dtype=torch.uint8)), torch.ones(3, 2))
    for other in (Normalization((0.0, 0.1), (1.0, 1.0)), Normalization((0.0,), (1.0,), 255.0), Normalization((0.0,), (2.0,))):
        assert not other.is_identity


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_a_transform_is_the_same_after_json(transform: Transform) -> None:
    assert transform_from_json(json.loads(json.dumps(transform.to_json()))) == transform


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_a_document_that_is_not_whole_is_refused_in_one_line(transform: Transform) -> None:
    document = transform.to_json()
    for key in document.keys() - {"kind"}:
        with pytest.raises(FileError, match=r"transform cannot be read: .*; the file is damaged or needs a newer") as raised:
            transform_from_json({name: value for name, value in document.items() if name != key})
        assert "\n" not in str(raised.value)
        with pytest.raises(FileError, match="transform cannot be read"):
            transform_from_json(document | {key: None})
    with pytest.raises(FileError, match="transform cannot be read"):
        transform_from_json(document | {"unheard_of": 1})


@pytest.mark.parametrize("kind", ["sound", None, 3, ["image"]])
def test_an_unknown_kind_needs_a_newer_goodfit(kind: object) -> None:
    with pytest.raises(FileError, match=r"unknown transform kind .*; this file needs a newer goodfit"):
        transform_from_json({"kind": kind})
