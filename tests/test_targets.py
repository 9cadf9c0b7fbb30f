import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from goodfit.data.targets import check_classes, encode_classes, infer_task, read_targets
from goodfit.errors import DataError


@pytest.mark.parametrize(
    ("values", "task", "reason"),
    [
        (["cat", "dog", "cat"], "classification", "2 classes: the target is text"),
        ([True, False], "classification", "2 classes: the target is true or false"),
        ([0.5, 1.0], "regression", "regression: the target has fractions"),
        ([0, 1] * 20, "classification", "2 classes: the target is 2 distinct whole numbers"),
        ([0.0, 1.0] * 20, "classification", "2 classes: the target is 2 distinct whole numbers"),
        (list(range(20)) * 20, "classification", "20 classes: the target is 20 distinct whole numbers"),
        (list(range(21)) * 100, "regression", "regression: 21 distinct whole numbers in 2100 rows"),
        ([0, 1] * 19, "regression", "regression: 2 distinct whole numbers in 38 rows"),
    ],
)
def test_task_follows_from_the_values(values, task, reason):
    found = infer_task(values)
    assert found[0] == task
    assert found[1].startswith(reason)


@pytest.mark.parametrize("form", [list, np.array, torch.tensor, pl.Series, lambda values: torch.tensor(values)[:, None]])
def test_every_container_gives_the_same_targets(form):
    targets = read_targets(form([3, 1, 3, 1] * 10))
    assert (targets.task, targets.classes) == ("classification", ("1", "3"))
    assert targets.values.dtype == torch.int64
    assert targets.values[:2].tolist() == [1, 0]
    values = read_targets(form([0.5, 2.0, 3.0])).values
    assert values.dtype == torch.float32
    assert values.tolist() == [0.5, 2.0, 3.0]


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([10, 9, 2], ("2", "9", "10")),
        ([1.0, 0.0], ("0", "1")),
        (np.array([0.1, 2], np.float32), ("0.1", "2")),
        (torch.tensor([0.5, 2], dtype=torch.bfloat16), ("0.5", "2")),
        ([True, False], ("false", "true")),
        (["b", "B", "a", "é"], ("B", "a", "b", "é")),
        (np.array([b"y", b"x"]), ("x", "y")),
        (np.array(["y", "x"], dtype=object), ("x", "y")),
    ],
)
def test_classes_have_a_fixed_order_and_plain_names(values, classes):
    assert encode_classes(values)[0] == classes


@settings(deadline=None)
@given(st.lists(st.text(max_size=3).filter(lambda text: "\0" not in text), min_size=1))
def test_an_index_leads_back_to_its_class(values):
    classes, indices = encode_classes(values)
    assert [classes[index] for index in indices] == values


@pytest.mark.parametrize(
    ("classes", "counts", "message"),
    [
        (("cat",), [5], "every example is of the one class 'cat'; add examples of another class"),
        (("cat", "dog"), [5, 1], "the class 'dog' has fewer than two examples"),
        (("a", "b", "c", "d", "e"), [1, 1, 1, 1, 9], "the classes 'a', 'b', 'c' and 1 more have fewer than two examples"),
        (("c" * 999, "dog"), [1, 9], "the class 'c{60}...' has fewer than two examples"),
        (("cat",), [1], "1 labelled rows; training needs at least two"),
        ((), [], "0 labelled rows"),
    ],
)
def test_classes_that_cannot_be_learned_are_refused(classes, counts, message):
    with pytest.raises(DataError, match=message):
        check_classes(classes, counts)


def test_enough_examples_of_two_classes_pass():
    check_classes(("cat", "dog"), [2, 2])


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        ([1.0, float("inf")], None, "row 2: the target is inf, not a finite number"),
        ([float("nan"), 1.0], None, "row 1: the target is nan"),
        ([0.5, 1e300], None, "row 2: the target 1e\\+300 is beyond float32"),
        ([0.5, 0.5], None, "the target is 0.5 in every row"),
        (["1", "2", "x"], "regression", "row 3: the target 'x' is text"),
        ([0.1, 0.2, 0.3], "classification", "the classes '0.1', '0.2', '0.3' have fewer than two examples"),
        ([[1, 2], [3, 4]], None, r"the targets have the shape \(2, 2\); give one class or one number per example"),
        (torch.eye(3)[[0, 1, 2, 1]], None, r"the shape \(4, 3\); they are one-hot: .* y\.argmax\(1\)"),
        ([[True, False], [False, True]], None, "one-hot"),
        ([[0, 1, 1], [1, 0, 0], [0, 0, 0]], None, "several classes of one example: goodfit does not do multi-label"),
        ([[1], [2, 3]], None, "lists of different lengths"),
        (["cat", None], None, "none missing"),
        ([1j, 2j], None, "the targets are complex128 values"),
        ([1.5], None, "1 labelled rows"),
    ],
)
def test_bad_targets_are_named(values, task, message):
    with pytest.raises(DataError, match=message):
        read_targets(values, task)


def test_the_task_can_be_overruled():
    targets = read_targets([0.5, 1.5] * 3, "classification")
    assert (targets.classes, targets.reason) == (("0.5", "1.5"), "classification: asked for by data.task")
    targets = read_targets([0, 1] * 40, "regression")
    assert (targets.task, targets.values.dtype, targets.classes) == ("regression", torch.float32, ())


def test_the_classes_of_a_model_are_matched_by_name():
    targets = read_targets([1.0, 2.0], classes=("2", "1", "0"))
    assert (targets.classes, targets.values.tolist()) == (("2", "1", "0"), [1, 0])
    with pytest.raises(DataError, match="the class 'bird', which the model does not; its classes are cat, dog"):
        read_targets(["dog", "bird"], classes=("cat", "dog"))


def test_a_target_of_long_text_is_refused_before_every_row_takes_its_room():
    with pytest.raises(
        DataError, match=r"row 3: the target 'xxx.* has 100000 characters, and the name of a class at most 1000"
    ):
        read_targets(["a", "b", "x" * 100_000, "a"])
