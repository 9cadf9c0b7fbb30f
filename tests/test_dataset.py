"""What a data set is: names, scales and fingerprints."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from harness import tiny_pictures
from hypothesis import given, settings
from hypothesis import strategies as st

from goodfit.data.arrays import read_arrays
from goodfit.data.dataset import Dataset, Part, Split, TargetScale, fingerprint
from goodfit.data.splits import build_dataset


def dataset(data: object = None, **shares: float) -> Dataset:
    chosen = {"val": 0.1, "test": 0.2, "max_train": 0, "seed": 0} | shares
    return build_dataset(read_arrays(tiny_pictures() if data is None else data), **chosen)  # type: ignore[arg-type]


def test_examples_have_names() -> None:
    store = torch.zeros(4, 1)
    assert Split(store, torch.tensor([0, 1]), torch.tensor([3, 1]), ["a", "b", "c", "d"]).name(0) == "d"
    assert Split(store, torch.tensor([0, 1]), torch.tensor([3, 1])).name(1) == "example 1"


def test_a_fingerprint_is_of_the_data_and_not_of_their_splits() -> None:
    data = dataset()
    assert dataset(val=0.3, test=0.4, seed=5).fingerprint == data.fingerprint
    assert len(data.fingerprint) == 64


def test_any_change_of_the_data_changes_the_fingerprint() -> None:
    data = dataset()
    part = data.parts["train"]
    pixel, target = part.inputs.clone(), part.targets.clone()
    pixel[7, 0, 3, 3] ^= 1
    target[7] = (target[7] + 1) % 3
    changed = [
        fingerprint("regression", data.classes, data.parts),
        fingerprint(data.task, ("0", "2", "1"), data.parts),
        fingerprint(data.task, data.classes, {"test": part}),
        fingerprint(data.task, data.classes, {"train": replace(part, inputs=pixel)}),
        fingerprint(data.task, data.classes, {"train": replace(part, targets=target)}),
        fingerprint(data.task, data.classes, {"train": replace(part, inputs=part.inputs.view(60, 3, 4, 16))}),
        fingerprint(data.task, data.classes, {"train": Part(part.inputs[:59], part.targets[:59])}),
    ]
    assert len({data.fingerprint, *changed}) == len(changed) + 1


def test_the_scale_is_that_of_the_training_targets() -> None:
    values = np.arange(100.0) ** 2
    data = dataset((values[:, None], values))
    seen = data.train.targets.double()
    assert data.target_scale.mean == pytest.approx(float(seen.mean()))
    assert data.target_scale.std == pytest.approx(float(seen.std(correction=0)))
    assert data.num_outputs == 1
    assert (dataset().target_scale, dataset().num_outputs) == (TargetScale(), 3)


@given(st.floats(-1e4, 1e4), st.floats(0.01, 1e4), st.lists(st.floats(-1e4, 1e4, width=32), min_size=1))
@settings(deadline=None)
def test_units_go_there_and_back(mean: float, std: float, values: list[float]) -> None:
    scale, targets = TargetScale(mean, std), torch.tensor(values)
    outputs = scale.from_unit(targets)
    assert outputs.dtype == torch.float32
    assert scale.to_unit(outputs).dtype == torch.float64
    torch.testing.assert_close(scale.to_unit(outputs), targets.double(), rtol=1e-5, atol=1e-2)
