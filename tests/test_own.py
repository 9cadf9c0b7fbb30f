"""Data sets, loaders and iterables as a person has them: which way they are read, and what is refused."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command import write_pictures
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from goodfit.config import DataConfig, TransformConfig
from goodfit.data.dataset import Dataset as Data
from goodfit.data.dataset import RawData
from goodfit.data.examples import Examples
from goodfit.data.given_transform import GivenTransform
from goodfit.data.own import is_own, read_own
from goodfit.data.sources import Like, read_data
from goodfit.data.splits import build_dataset, encode_parts
from goodfit.data.stream import StreamLoader, make_loader, read_in_order
from goodfit.data.tensor_transform import TensorTransform
from goodfit.distributed import Ranks
from goodfit.errors import ConfigError, DataError

COUNT = 40
X, Y = torch.arange(2.0 * COUNT).view(COUNT, 2), torch.arange(COUNT) % 2


class Made(Dataset[Any]):
    """Examples that a function makes."""

    def __init__(self, make: Callable[[int], Any] = lambda index: (X[index], index % 2), count: int = COUNT) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


class Passing(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(X[index], index % 2) for index in range(COUNT)])


def build(raw: RawData, **settings: Any) -> Data:
    values: dict[str, Any] = {"val": raw.settings.get("data.val", 0.1), "test": 0.2, "max_train": 0, "seed": 0} | settings
    return build_dataset(raw, **values)


def first_batch(raw: RawData) -> Any:
    dataset = build(raw)
    return make_loader(dataset.train, raw.settings.get("train.batch_size", 4), seed=0, device=torch.device("cpu"))(0)


def test_a_plain_data_set_is_read_by_its_own_code_and_split() -> None:
    raw = read_own(Made())
    assert (raw.name, raw.task, raw.classes, raw.settings) == ("Made", "classification", ("0", "1"), {})
    assert any("Made prepares its examples by its own code, which the model file does not hold" in note for note in raw.notes)
    dataset = build(raw)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 29, "val": 3, "test": 8}
    assert dataset.transform == TensorTransform((2,), (0.0, 0.0), (1.0, 1.0))
    assert dataset.fingerprint == build(read_own(Made()), seed=5).fingerprint
    assert dataset.fingerprint != build(read_own(Made(lambda index: (X[index] + 1, index % 2)))).fingerprint
    assert dataset.fingerprint != build(read_own(Made(lambda index: (X[index], index // 2 % 2)))).fingerprint


def test_what_is_recognised_takes_the_fast_path() -> None:
    tensors = TensorDataset(X, Y)
    for data in (
        tensors,
        DataLoader(tensors, batch_size=8, shuffle=True),
        DataLoader(Subset(tensors, range(30)), 8, shuffle=True),
    ):
        raw = read_own(data)
        assert isinstance(raw.parts["train"].inputs, Tensor)
        assert raw.settings == ({"train.batch_size": 8} if isinstance(data, DataLoader) else {})
    together = read_own({"train": DataLoader(tensors, shuffle=True), "test": DataLoader(tensors, 5), "val": (X, Y)})
    assert all(isinstance(part.inputs, Tensor) for part in together.parts.values())


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": True, "drop_last": True},
        {"shuffle": True, "collate_fn": lambda examples: default_collate(examples)},
        {"shuffle": False},
        {"sampler": WeightedRandomSampler([1.0] * COUNT, COUNT)},
    ],
)
def test_a_loader_that_does_more_keeps_its_own_way(options: dict[str, Any]) -> None:
    raw = read_own({"train": DataLoader(TensorDataset(X, Y), batch_size=8, **options), "test": TensorDataset(X, Y)})
    assert all(isinstance(part.inputs, Examples) for part in raw.parts.values())
    assert raw.settings["train.batch_size"] == 8


def test_a_loader_that_does_not_shuffle_keeps_its_order_and_is_told_of() -> None:
    raw = read_own(DataLoader(Made(), batch_size=5))
    assert any("does not shuffle, and every epoch has its order; give it shuffle=True" in note for note in raw.notes)
    assert first_batch(raw).inputs[:, 0].diff().min() > 0


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Made(), 5, sampler=WeightedRandomSampler([0.0] * 30 + [1.0] * 10, 20)),
        DataLoader(Made(), batch_sampler=BatchSampler(range(30, 40), 5, drop_last=False)),
        DataLoader(Made(), 5, sampler=SubsetRandomSampler(range(30, 40))),
    ],
)
def test_a_loader_with_a_sampler_of_its_own_is_not_split(loader: Any) -> None:
    with pytest.raises(DataError, match=r"Made has an order of its own, .* give them with test="):
        read_own(loader)
    raw = read_own({"train": loader, "test": Made()})
    assert raw.settings == {"data.val": 0.0, "train.batch_size": 5}
    assert first_batch(raw).inputs[:, 0].min() >= 60
    assert read_own({"train": loader, "val": Made(), "test": Made()}).settings == {"train.batch_size": 5}


def test_examples_are_not_taken_out_of_an_order_of_its_own() -> None:
    raw = read_own({"train": DataLoader(Made(), 5, sampler=WeightedRandomSampler([1.0] * COUNT, 20)), "test": Made()})
    for settings in ({"val": 0.1}, {"max_train": 10}):
        with pytest.raises(DataError, match="Made has an order of its own, so no examples are taken out of it"):
            build(raw, **settings)


def test_two_loaders_over_parts_of_one_data_set() -> None:
    data_set = Made()
    raw = read_own(
        {
            "train": DataLoader(data_set, 5, sampler=SubsetRandomSampler(range(20))),
            "val": DataLoader(data_set, 5, sampler=SubsetRandomSampler([35, 33, 34])),
            "test": DataLoader(data_set, 8, shuffle=True, drop_last=True),
        }
    )
    dataset = build(raw)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 20, "val": 3, "test": 40}
    ((inputs, targets, _),) = read_in_order(dataset.splits["val"], slice(0, 3))
    assert inputs[:, 0].tolist() == [66.0, 68.0, 70.0]  # type: ignore[call-overload]
    assert targets.tolist() == [1, 0, 1]
    assert dataset.splits["val"].name(2) == "example 35"


def test_a_sampler_names_each_example_of_an_evaluation_once() -> None:
    twice = DataLoader(Made(), batch_sampler=[[3, 1], [3, 2]])
    raw = read_own({"train": Made(), "test": twice})
    assert [raw.parts["test"].inputs.reader.place(index) for index in range(3)] == [1, 2, 3]
    assert len(raw.parts["test"].targets) == 3


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda index: (X[index], X[index] + 1, index % 2), GivenTransform(((2,), (2,)), ("float32",) * 2)),
        (lambda index: ((X[index], index), index % 2), GivenTransform(((2,), ()), ("float32", "int64"))),
        (lambda index: {"wide": X[index], "label": index % 2}, GivenTransform(((2,),), ("float32",), ("wide",))),
        (lambda index: (np.float64([index, 1]), index % 2), GivenTransform(((2,),), ("float64",))),
    ],
)
def test_inputs_of_every_form(make: Callable[[int], Any], kind: GivenTransform) -> None:
    raw = read_own(Made(make))
    assert build(raw).transform == kind
    batch = first_batch(raw)
    assert batch.is_ready
    assert type(batch.inputs) in ((dict,) if kind.names else (tuple,) if len(kind.shapes) > 1 else (Tensor,))


def test_a_collate_function_of_the_user_s_makes_the_batch() -> None:
    def collate(examples: list[Any]) -> Any:
        inputs, targets = default_collate(examples)
        return nn.functional.one_hot(inputs[:, 0].long() % 3, 3).float(), targets

    raw = read_own(DataLoader(Made(), 4, shuffle=True, collate_fn=collate))
    assert build(raw).transform.input_shape == (3,)
    assert first_batch(raw).inputs.sum(1).tolist() == [1.0] * 4


def test_labels_are_class_indices_whatever_their_type() -> None:
    for label in (lambda index: float(index % 2), lambda index: bool(index % 2), lambda index: np.int32(index % 2)):
        raw = read_own(Made(lambda index, label=label: (X[index], label(index))), "classification")
        assert len(raw.classes) == 2
        assert raw.parts["train"].targets.dtype == first_batch(raw).targets.dtype == torch.int64
        assert first_batch(raw).targets.unique().tolist() == [0, 1]
    far = read_own(Made(lambda index: (X[index], 1000 + 500 * (index % 2))))
    assert far.classes == ("1000", "1500")
    assert first_batch(far).targets.unique().tolist() == [0, 1]


def test_numbers_to_predict() -> None:
    raw = read_own(Made(lambda index: (X[index], index / 3)))
    assert (raw.task, raw.classes) == ("regression", ())
    assert first_batch(raw).targets.dtype == torch.float32
    assert read_own(Made(lambda index: (X[index], index % 7 - 3)), "regression").task == "regression"


def test_a_data_set_names_its_classes() -> None:
    data_set = Made()
    data_set.classes = ["cat", "dog"]  # type: ignore[attr-defined]
    assert read_own(DataLoader(Subset(data_set, range(20)), 4, shuffle=True)).classes == ("cat", "dog")
    data_set.make = lambda index: (X[index], index % 3)
    with pytest.raises(DataError, match="Made: train has the class 2, and there are 2"):
        read_own(data_set)


def test_a_hugging_face_data_set_names_its_classes() -> None:
    data_set = Made(lambda index: {"wide": X[index], "label": index % 2})
    data_set.features = {"wide": None, "label": SimpleNamespace(names=["cat", "dog"])}  # type: ignore[attr-defined]
    assert read_own(data_set).classes == ("cat", "dog")


def test_a_trained_model_s_classes_are_matched_by_name() -> None:
    data_set = Made()
    data_set.classes = ["dog", "cat"]  # type: ignore[attr-defined]
    like = Like(TensorTransform((2,), (0.0, 0.0), (1.0, 1.0)), "classification", ("cat", "dog"))
    raw = read_data(data_set, DataConfig(), TransformConfig(), like=like)
    assert raw.classes == ("cat", "dog")
    part = encode_parts(raw, like.transform)["train"]
    assert part.targets[:3].tolist() == [1, 0, 1]
    ((_, targets),) = part.inputs.stream([[0, 1, 2]])
    assert targets.tolist() == [1, 0, 1]


def test_a_model_is_tested_on_data_that_were_prepared_its_own_way() -> None:
    prepares = Like(TensorTransform((2,), (0.5, 0.5), (1.0, 1.0)), "classification", ("0", "1"))
    with pytest.raises(DataError, match="Made prepares its examples by its own code, and the model prepares its inputs itself"):
        read_data(Made(), DataConfig(), TransformConfig(), like=prepares)
    ready = Like(TensorTransform((2,), (0.0, 0.0), (1.0, 1.0)), "classification", ("0", "1"))
    raw = read_data(TensorDataset(X, Y), DataConfig(), TransformConfig(), like=ready)
    assert torch.equal(raw.parts["train"].inputs, X)
    pictures = TensorDataset(torch.zeros(COUNT, 1, 2, 2, dtype=torch.uint8), Y)
    assert isinstance(read_data(pictures, DataConfig(), TransformConfig(), like=ready).parts["train"].inputs, Examples)


def test_an_iterable_is_read_as_it_comes() -> None:
    with pytest.raises(DataError, match="give them with test="):
        read_own(Passing())
    raw = read_own({"train": DataLoader(Passing(), 8), "test": Passing()})
    assert raw.settings == {"data.val": 0.0, "train.batch_size": 8}
    assert any("can only be read in its own order" in note for note in raw.notes)
    assert first_batch(raw).inputs[:, 0].tolist() == [2.0 * index for index in range(8)]


def test_a_list_of_examples_is_a_data_set() -> None:
    data: Any = [(X[index], index % 2) for index in range(COUNT)]
    assert is_own(data)
    assert not is_own((X, Y))
    assert not is_own({"train": (X, Y)})
    raw = read_data(data, DataConfig(), TransformConfig())
    assert (raw.name, len(raw.parts["train"].targets)) == ("list", COUNT)


class Batches:
    """Whole batches from an iterable that is no DataLoader."""

    def __init__(self, size: int = 16, promised: int | None = None, as_given: Callable[[Tensor], Any] = Tensor.clone) -> None:
        self.size, self.promised, self.as_given = size, promised, as_given

    def __len__(self) -> int:
        return self.promised or -(-COUNT // self.size)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, COUNT, self.size):
            yield tuple(self.as_given(part[start : start + self.size]) for part in (X, Y))


@pytest.mark.parametrize("batches", [Batches(), list(Batches()), tuple(Batches()), Batches(as_given=Tensor.numpy)])
def test_whole_batches_are_taken_as_they_are(batches: Any) -> None:
    raw = read_own({"train": batches, "test": batches})
    assert raw.settings == {"data.val": 0.0, "train.batch_size": 16}
    assert any("gives whole batches, the first of 16 examples: each is taken as it is" in note for note in raw.notes)
    dataset = build(raw)
    loader = make_loader(dataset.train, 16, seed=0, device=torch.device("cpu"))
    assert [len(loader(step).targets) for step in range(4)] == [16, 16, 8, 16]
    assert torch.equal(loader(4).inputs, X[16:32])
    assert torch.equal(loader(4).targets, Y[16:32])


class Promising(Passing):
    def __init__(self, promised: int) -> None:
        self.promised = promised

    def __len__(self) -> int:
        return self.promised


@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Promising(60), "Promising has a length of 60 and gives 40 examples: these are an epoch"),
        (Promising(30), "Promising has a length of 30 and gives 40 examples: these are an epoch"),
        (DataLoader(Promising(60), batch_size=10), "Promising has a length of 6 and gives 4 batches: these are an epoch"),
        (Batches(promised=5), "Batches has a length of 5 and gives 3 batches: these are an epoch"),
        (Promising(COUNT), None),
        (Passing(), None),
        (DataLoader(Passing(), batch_size=10), None),
    ],
)
def test_a_length_that_is_not_kept_is_said(data: Any, said: str | None) -> None:
    notes = [note for note in read_own({"train": data, "test": Made()}).notes if "has a length of" in note]
    assert notes == ([said] if said else [])


class Unsized(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return X[index], 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Made(count=0), "Made has no examples for train"),
        ({"train": Made(), "test": Made(count=0)}, "Made has no examples for test"),
        ({"train": Made(), "val": DataLoader(Made(), sampler=SubsetRandomSampler([]))}, "gives no examples"),
        (DataLoader(Made(), batch_sampler=[]), "batch_sampler gives no batches"),
        (DataLoader(Made(), batch_size=None), "DataLoader with batch_size=None"),
        (Unsized(), "Unsized has no __len__; define it"),
        (((X[index], 0) for index in range(9)), "generator can be read only once"),
        ({"train": Made(), "tset": Made()}, "the data have the parts 'train', 'tset'"),
        ({"test": Made()}, "the data have the parts 'test'"),
        ({"train": Made(), "test": 3}, "test is an int; give a data set, a DataLoader"),
        (Made(lambda index: (X[index], -1 if index == 7 else 0)), "example 7 has the target -1, which is not a class"),
        (Made(lambda index: (X[index], float("nan") if index == 7 else 0.5)), "example 7 has the target nan"),
        (Made(lambda index: (X[index], "cat" if index == 7 else 0)), "example 7 cannot be put|examples 0, 1, 2, 3"),
        (Made(lambda index: (X[index], "cat")), "gives the label 'cat', and a class is a whole number; give its place"),
        (Made(lambda index: (X[index], torch.rand(3))), r"targets of shape \(40, 3\)"),
        (Made(lambda _index: (X, Y)), "gives a batch of 40 for each example; give single ones, or an iterable of the batches"),
        (Made(lambda index: X[index]), "give \\(inputs, target\\)"),
        ({"train": Made(), "test": Made(lambda index: (X[index, 0], 0))}, r"train float32 \(2,\), test float32 \(\)"),
    ],
)
def test_bad_input_is_named_in_one_line(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read_own(data)
    assert "\n" not in str(raised.value)


def test_settings_that_would_do_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.target = 'label' is for tables"):
        read_data(Made(), DataConfig(target="label"), TransformConfig())
    overrides = TransformConfig(mean=0.5)
    with pytest.raises(ConfigError, match=r"Made prepares its examples itself; leave them out"):
        read_data(Made(), DataConfig(), overrides)


def test_the_processes_of_the_loader_and_the_patience_for_them_are_kept() -> None:
    loader = DataLoader(Made(), 4, shuffle=True, num_workers=1, prefetch_factor=3)
    raw = read_data(loader, DataConfig(timeout=7.0), TransformConfig())
    workers = raw.parts["train"].inputs.reader.workers
    assert (workers.count, workers.prefetch, workers.timeout) == (1, 3, 7.0)
    stream = make_loader(build(raw).train, 4, seed=0, device=torch.device("cpu"), ranks=Ranks())
    assert isinstance(stream, StreamLoader)


def test_pictures_that_a_model_wants_ready_are_not_decoded_beforehand(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, RandomHorizontalFlip, ToTensor

    def decode(*_: Any) -> None:
        raise AssertionError("nothing of it would be kept")

    folder = str(write_pictures(tmp_path / "photos"))
    data = {
        "train": ImageFolder(folder, ToTensor()),
        "test": ImageFolder(folder, Compose([RandomHorizontalFlip(), ToTensor()])),
    }
    raw = read_own(data, classes=("cat", "dog"), is_ready=True, decode=decode)
    assert all(isinstance(part.inputs, Examples) for part in raw.parts.values())
