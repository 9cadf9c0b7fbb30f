"""Splits: disjoint, complete, stratified, and the same for the same seed."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from goodfit.data.arrays import read_arrays
from goodfit.data.dataset import Part, RawData
from goodfit.data.splits import build_dataset, choose_rows, take_share
from goodfit.data.tensor_transform import fit_tensor_transform
from goodfit.errors import ConfigError, DataError

strata = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(torch.tensor)
shares = st.floats(0.01, 0.99)


def raw(targets: list[int], **more: list[int]) -> RawData:
    """Data whose inputs are all different, with parts of their own in `more`."""
    parts = {"train": targets} | more
    made = {
        name: Part(torch.arange(len(values) * 1.0).view(-1, 1), torch.tensor(values, dtype=torch.int64))
        for name, values in parts.items()
    }
    return RawData("made", "classification", ("a", "b", "c"), made, fit_tensor_transform)  # type: ignore[arg-type]


@given(strata, shares, st.integers(0, 9))
@settings(deadline=None, max_examples=50)
def test_a_share_is_stratified_within_one_of_exact(groups: torch.Tensor, share: float, seed: int) -> None:
    taken = take_share(groups, share, seed, "test")
    assert taken.tolist() == sorted(set(taken.tolist()))
    counts, found = torch.bincount(groups, minlength=6), torch.bincount(groups[taken], minlength=6)
    for count, number in zip(counts.tolist(), found.tolist(), strict=True):
        assert abs(number - share * count) < 1 + 1e-9
        if count >= 2:
            assert 0 < number < count
        else:
            assert number == 0  # a class of one stays where it is


@given(st.lists(st.integers(10, 60), min_size=2, max_size=6), st.floats(0.1, 0.9))
@settings(deadline=None, max_examples=50)
def test_the_total_is_the_share_where_no_class_is_rare(sizes: list[int], share: float) -> None:
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    assert len(take_share(groups, share, 0, "test")) == round(share * len(groups))


@given(strata, shares)
@settings(deadline=None, max_examples=30)
def test_a_share_follows_its_address_alone(groups: torch.Tensor, share: float) -> None:
    assert torch.equal(take_share(groups, share, 3, "val"), take_share(groups, share, 3, "val"))


def test_seeds_and_purposes_choose_differently() -> None:
    groups = torch.zeros(200, dtype=torch.int64)
    chosen = [take_share(groups, 0.5, *place).tolist() for place in ((0, "val"), (1, "val"), (0, "test"))]
    assert chosen[0] != chosen[1]
    assert chosen[0] != chosen[2]


def test_every_example_is_as_likely_to_be_taken() -> None:
    groups = torch.arange(20) % 2
    times = torch.zeros(20)
    for seed in range(300):
        times[take_share(groups, 0.3, seed, "test")] += 1
    assert times.min() > 60  # of 90 expected
    assert times.max() < 120


@given(st.lists(st.integers(0, 2), min_size=20, max_size=60), shares, st.floats(0, 0.5), st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_splits_are_disjoint_and_complete(targets: list[int], test: float, val: float, seed: int) -> None:
    assume(min(targets.count(value) for value in range(3)) >= 5)
    try:
        rows = choose_rows(raw(targets), val=val, test=test, max_train=0, seed=seed)
    except DataError:  # the test split leaves one example of each class at most, which cannot be on both sides
        left = torch.ones(len(targets), dtype=torch.bool)
        left[take_share(torch.tensor(targets), test, seed, "test")] = False
        assert int(torch.bincount(torch.tensor(targets)[left]).max()) <= 1
        return
    assert rows.keys() == ({"train", "val", "test"} if val else {"train", "test"})
    together = torch.cat([chosen for _, chosen in rows.values()])
    assert sorted(together.tolist()) == list(range(len(targets)))
    assert all(part == "train" for part, _ in rows.values())


def test_parts_that_the_data_bring_are_kept_whole() -> None:
    rows = choose_rows(raw([0, 1, 2] * 10, test=[0, 1, 2], val=[0, 1]), val=0.5, test=0.5, max_train=0, seed=0)
    assert [(name, part, len(chosen)) for name, (part, chosen) in rows.items()] == [
        ("train", "train", 30),
        ("test", "test", 3),
        ("val", "val", 2),
    ]


def test_a_part_without_examples_is_as_good_as_none() -> None:
    rows = choose_rows(raw([0, 1, 2] * 10, test=[]), val=0, test=0.2, max_train=0, seed=0)
    assert rows["test"][0] == "train"
    with pytest.raises(DataError, match="made has no training examples"):
        choose_rows(raw([], test=[0, 1]), val=0, test=0.2, max_train=0, seed=0)


@given(st.lists(st.integers(0, 2), min_size=20, max_size=60), st.integers(3, 60))
@settings(deadline=None, max_examples=50)
def test_at_most_so_many_train_and_no_class_is_lost(targets: list[int], most: int) -> None:
    assume(min(targets.count(value) for value in range(3)) >= 2)
    made = raw(targets, test=[0])
    all_rows = choose_rows(made, val=0.2, test=0.2, max_train=0, seed=0)
    rows = choose_rows(made, val=0.2, test=0.2, max_train=most, seed=0)
    kept = rows["train"][1]
    assert len(kept) == min(most, len(all_rows["train"][1]))
    assert set(kept.tolist()) <= set(all_rows["train"][1].tolist())
    assert set(made.parts["train"].targets[kept].tolist()) == {0, 1, 2}
    assert torch.equal(rows["val"][1], all_rows["val"][1])


def test_fewer_than_the_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.max_train = 2 is fewer than the 3 classes"):
        choose_rows(raw([0, 1, 2] * 10), val=0, test=0.2, max_train=2, seed=0)


def test_numbers_are_split_evenly_over_their_range() -> None:
    values = torch.arange(200.0).square()
    data = read_arrays((values.view(-1, 1), values))
    rows = choose_rows(data, val=0, test=0.2, max_train=0, seed=0)
    tenths = torch.bincount(rows["test"][1] // 20, minlength=10)
    assert tenths.tolist() == [4] * 10


def test_of_numbers_any_few_may_train() -> None:
    values = torch.arange(200.0).square()
    rows = choose_rows(read_arrays((values.view(-1, 1), values)), val=0, test=0.2, max_train=4, seed=0)
    assert len(rows["train"][1]) == 4


def test_too_few_to_split_is_said() -> None:
    with pytest.raises(DataError, match=r"made has 3 examples, too few to set 20% aside for test; add examples"):
        choose_rows(raw([0, 1, 2]), val=0, test=0.2, max_train=0, seed=0)


def test_the_transform_is_fitted_on_the_training_examples_alone() -> None:
    values = torch.cat([torch.zeros(50, 1), torch.full((50, 1), 100.0)])
    inputs = values[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    made = raw([0, 1] * 50)
    made.parts["train"] = Part(inputs, made.parts["train"].targets)
    data = build_dataset(made, val=0.3, test=0.3, max_train=0, seed=0)
    seen = data.train.inputs[data.train.rows]
    assert data.transform.to_json()["mean"] == pytest.approx(seen.mean(0).tolist())
    assert data.transform.to_json()["mean"] != pytest.approx(inputs.mean(0).tolist())
    for split in data.splits.values():
        assert torch.equal(split.targets, made.parts["train"].targets[split.rows])
        assert split.inputs is data.parts["train"].inputs  # one store, never copied
