"""Which tensor of a file is which of a model's: by name, by what follows a prefix, in order; and what is said of it."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from goodfit.errors import FileError
from goodfit.models.matching import Matching, Shapes, match_tensors

SMALL = {"fc1.weight": (16, 6), "fc1.bias": (16,), "fc2.weight": (3, 16), "fc2.bias": (3,)}


def match(expected: Shapes, found: Shapes) -> Matching:
    return match_tensors(expected, found, "net.py:Net", "old.pth")


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def renamed(change: Callable[[str], str], found: Shapes = SMALL) -> dict[str, tuple[int, ...]]:
    return {change(name): shape for name, shape in found.items()}


def test_the_same_names_match_in_any_order() -> None:
    matching = match(SMALL, dict(reversed(SMALL.items())))
    assert (matching.by, matching.sources) == ("name", {name: name for name in SMALL})
    assert matching.describe() == "4 tensors matched by name"
    assert matching.to_json() == {"tensors": 4, "by": "name", "renamed": {}, "missing": []}


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod."])
def test_a_common_prefix_is_removed(prefix: str) -> None:
    matching = match(SMALL, renamed(lambda name: prefix + name))
    assert matching.sources == {name: prefix + name for name in SMALL}
    assert matching.describe() == f"4 tensors matched by name, without the prefix {prefix!r}"


def test_the_prefix_of_a_model_of_one_layer_does_not_swallow_the_layer() -> None:
    one = {"fc.weight": (3, 6), "fc.bias": (3,)}
    assert match(one, renamed("module.{}".format, one)).prefixes == ("module.", "")


def test_a_prefix_that_only_the_model_has_or_another_one_is_no_obstacle() -> None:
    ours = renamed("net.{}".format)
    assert match(ours, SMALL).describe() == "4 tensors matched by name, with 'net.' before each"
    other = match(ours, renamed("module.body.{}".format))
    assert other.sources["net.fc1.bias"] == "module.body.fc1.bias"
    assert "with 'net.' in place of 'module.body.'" in other.describe()


def test_other_names_match_in_order_and_it_is_said() -> None:
    matching = match(SMALL, {"0.weight": (16, 6), "0.bias": (16,), "2.weight": (3, 16), "2.bias": (3,)})
    assert (matching.by, matching.sources["fc2.bias"]) == ("order", "2.bias")
    assert matching.describe() == (
        "4 tensors matched in order, as their names differ and their shapes agree: 0.weight is fc1.weight, 0.bias is fc1.bias, "
        "2.weight is fc2.weight and 1 more"
    )
    assert matching.to_json()["renamed"]["2.bias"] == "fc2.bias"


def test_one_renamed_layer_is_enough() -> None:
    matching = match(SMALL, renamed(lambda name: name.replace("fc2", "head")))
    assert matching.sources == {**{name: name for name in SMALL}, "fc2.weight": "head.weight", "fc2.bias": "head.bias"}


def deep(*names: str) -> dict[str, tuple[int, ...]]:
    """Four layers, of which the second and third have the same shapes."""
    sizes = [(8, 4), (8, 8), (8, 8), (2, 8)]
    return {f"{name}.weight": size for name, size in zip(names, sizes, strict=True)}


def test_layers_of_the_same_shapes_are_told_apart_by_numbers_alone() -> None:
    ours = deep("fc1", "fc2", "fc3", "fc4")
    assert match(ours, deep("0", "2", "4", "10")).sources["fc3.weight"] == "4.weight"
    for names in (("in", "left", "right", "out"), ("0", "4", "2", "6")):
        with pytest.raises(FileError) as caught:
            match(ours, deep(*names))
        first, second = names[1:3]
        assert f"the order does not settle it: {first} and {second} have the same shapes" in str(caught.value)


def test_names_that_contradict_the_order_are_not_overruled() -> None:
    ours = {"a.weight": (4, 4), "b.weight": (2, 4), "c.weight": (2, 2)}
    theirs = {"b.weight": (4, 4), "x.weight": (2, 4), "c.weight": (2, 2)}
    with pytest.raises(FileError, match=r"names and order contradict each other: b\.weight is in both"):
        match(ours, theirs)


def test_what_does_not_fit_is_listed_a_few_of_each() -> None:
    ours = shapes(nn.Sequential(*(nn.Linear(4, 4) for _ in range(6))))
    theirs = {f"module.{name}": shape for name, shape in ours.items() if int(name[0]) < 3}
    theirs |= {"module.2.weight": (9, 9), "module.extra": (1,)}
    with pytest.raises(FileError) as caught:
        match(ours, theirs)
    assert str(caught.value).splitlines() == [
        "the weights in 'old.pth' do not fit net.py:Net; give the model that they were saved from, with its arguments",
        "  missing from the file: 3.weight (4, 4), 3.bias (4,), 4.weight (4, 4) and 3 more",
        "  only in the file: extra (1,)",
        "  of another shape: 2.weight is (9, 9) in the file and (4, 4) in the model",
    ]


def test_the_counters_of_old_batch_norms_may_be_missing() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    old = {name: tensor + 1 for name, tensor in module.state_dict().items() if "num_batches" not in name}
    matching = match(shapes(module), {name: tuple(tensor.shape) for name, tensor in old.items()})
    assert matching.describe().endswith("; the file has no 1.num_batches_tracked, which is left at 0")
    given = matching.tensors_for(module, old)
    assert list(given) == list(module.state_dict())
    assert given["1.num_batches_tracked"] == 0
    assert torch.equal(given["1.running_mean"], torch.ones(4))


def test_numbers_of_another_type_become_the_models_and_it_is_said() -> None:
    module = nn.Linear(3, 2)
    old = {name: tensor.double() for name, tensor in module.state_dict().items()}
    matching = match(shapes(module), {name: tuple(tensor.shape) for name, tensor in old.items()})
    assert matching.changed_types(module, old) == "float64 numbers become float32"
    assert matching.changed_types(module, module.state_dict()) == ""
    assert matching.tensors_for(module, old)["weight"].dtype == torch.float32


def test_a_name_that_a_file_made_up_stays_in_its_line() -> None:
    with pytest.raises(FileError) as caught:
        match(SMALL, {"a\x1b[31m\nb": (1,), "x" * 10_000: (2,)})
    assert all(line.isprintable() and len(line) < 300 for line in str(caught.value).splitlines())
