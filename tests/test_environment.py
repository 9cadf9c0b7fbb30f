"""Where a run was made, and what of it decides the last bits."""

import json
from importlib.metadata import version

import pytest
import torch

from goodfit.artefacts.environment import CLASS_KEYS, describe_environment, differences


def test_an_environment_is_json_and_names_what_is_here() -> None:
    found = describe_environment(torch.device("cpu"), threads=3, ranks=2)
    assert json.loads(json.dumps(found)) == found
    assert (found["device_kind"], found["threads"], found["ranks"]) == ("cpu", 3, 2)
    assert (found["torch"], found["goodfit"]) == (torch.__version__, version("goodfit"))
    assert set(CLASS_KEYS) <= found.keys()
    assert all(found.values())


@pytest.mark.parametrize("key", CLASS_KEYS)
def test_a_difference_in_the_determinism_class_is_said(key: str) -> None:
    then = describe_environment(torch.device("cpu"), threads=1, ranks=1)
    assert differences(then, dict(then)) == []
    assert differences(then, then | {key: "other"}) == [f"{key} {then[key]!r} became 'other'"]


def test_what_cannot_change_the_bits_is_not_said() -> None:
    then = describe_environment(torch.device("cpu"), threads=1, ranks=1)
    assert differences(then, then | {"python": "9", "goodfit": "9", "system": "Plan 9"}) == []


def test_an_environment_of_which_a_part_is_missing_differs() -> None:
    now = describe_environment(torch.device("cpu"), threads=1, ranks=1)
    assert len(differences({}, now)) == len(CLASS_KEYS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_named() -> None:
    found = describe_environment(torch.device("cuda"), threads=1, ranks=1)
    assert found["device_name"] == torch.cuda.get_device_name()
