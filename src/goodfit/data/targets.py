"""What is to be learned: classes or numbers, told from the targets themselves, the same way for every reader."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from goodfit.data.dataset import Task
from goodfit.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Targets", "advice_on", "check_classes", "encode_classes", "infer_task", "read_targets"]

MAX_WHOLE_NUMBER_CLASSES = 20
MAX_DISTINCT_SHARE = 0.05  # of the rows, for whole numbers to be classes
MAX_CLASS_NAME = 1_000  # characters
MOST_SHOWN = 60  # of them, in a message
FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Targets:
    """Targets ready for training: (N,) int64 class indices or float32 values, and why they are read so."""

    task: Task
    classes: tuple[str, ...]  # empty for a regression
    values: Tensor
    reason: str


def read_targets(
    values: Any,
    task: Task | None = None,
    classes: Sequence[str] | None = None,
    locate: Callable[[int], str] = lambda row: f"row {row + 1}",
) -> Targets:
    """Turn the targets of N examples into class indices or values; `task` overrules what they look like.

    `values` is (N,) or (N, 1): a polars Series, an array, a tensor or a list. `classes` are those of a trained model to be
    tested, none for a regression: the targets must belong to them, and may be as few or as equal as they like. `locate` names a row in an error. Raises DataError for targets that are missing, not
    finite, or cannot be learned from.
    """
    array = _as_array(values, locate)
    if len(array) < 2 and classes is None:
        raise DataError(f"the data have {len(array)} labelled rows; training needs at least two")
    found, reason = _infer(array)
    if classes:
        return Targets("classification", tuple(classes), _match_classes(array, classes), "the classes of the model")
    if task is not None and task != found:
        reason = f"{task}: asked for by data.task"
    if (task or found) == "regression":
        numbers = _numbers(array, locate)
        if classes is None and bool((numbers == numbers[0]).all()):
            raise DataError(f"the target is {array[0]} in every row, which leaves nothing to learn; choose another target")
        return Targets("regression", (), numbers, reason)
    names, indices = encode_classes(array)
    check_classes(names, torch.bincount(indices, minlength=len(names)).tolist())
    return Targets("classification", names, indices, reason)


def infer_task(values: Any) -> tuple[Task, str]:
    """Tell classes from numbers, and say why in a short phrase.

    Text and booleans are classes, fractions a regression, whole numbers classes if at most 20 are distinct and these are at
    most 5% of the rows, else a regression.
    """
    return _infer(_as_array(values))


def encode_classes(values: Any) -> tuple[tuple[str, ...], Tensor]:
    """Return the classes in their fixed order and (N,) int64 indices into them.

    Numbers ascend, "false" is before "true", text is sorted by code point; the whole number 1.0 is the class "1".
    """
    distinct, indices = np.unique(_as_array(values), return_inverse=True)
    return tuple(_class_name(value) for value in distinct), torch.from_numpy(indices.astype(np.int64))


def check_classes(classes: Sequence[str], counts: Sequence[int]) -> None:
    """Raise DataError unless there are two classes with two examples each; `counts` says how many each class has."""
    if sum(counts) < 2:
        raise DataError(f"the data have {sum(counts)} labelled rows; training needs at least two")
    if len(classes) == 1:
        raise DataError(f"every example is of the one class {_shown(classes[0])}; add examples of another class")
    rare = [_shown(name) for name, count in zip(classes, counts, strict=True) if count < 2]
    if rare:
        more = f" and {len(rare) - 3} more" if len(rare) > 3 else ""
        noun, they = ("class", "has") if len(rare) == 1 else ("classes", "have")
        raise DataError(
            f"the {noun} {', '.join(rare[:3])}{more} {they} fewer than two examples: one must train and one must test;"
            " add examples or remove the class"
        )


def _shown(name: str) -> str:
    """Return a class's name for a message, which has to stay a line that can be read."""
    return repr(name if len(name) <= MOST_SHOWN else f"{name[:MOST_SHOWN]}...")


def _infer(array: "NDArray[Any]") -> tuple[Task, str]:
    if array.dtype.kind in "bU":
        looks = "text" if array.dtype.kind == "U" else "true or false"
        return "classification", f"{len(np.unique(array))} classes: the target is {looks}"
    if not _is_whole(array):
        return "regression", "regression: the target has fractions"
    distinct = len(np.unique(array))
    if distinct <= min(MAX_WHOLE_NUMBER_CLASSES, MAX_DISTINCT_SHARE * len(array)):
        return "classification", f"{distinct} classes: the target is {distinct} distinct whole numbers"
    few = f"classes would be at most {MAX_WHOLE_NUMBER_CLASSES}, and at most {MAX_DISTINCT_SHARE:.0%} of the rows"
    return "regression", f"regression: {distinct} distinct whole numbers in {len(array)} rows ({few}; data.task overrules)"


def _is_whole(array: "NDArray[Any]") -> bool:
    return array.dtype.kind in "iu" or bool((array == np.trunc(array)).all())


def _class_name(value: Any) -> str:  # a numpy scalar, so that float32 0.1 is the class "0.1"
    if value.dtype.kind == "b":
        return str(value).lower()
    return str(int(value)) if value.dtype.kind == "f" and value.is_integer() else str(value)


def _match_classes(array: "NDArray[Any]", classes: Sequence[str]) -> Tensor:
    names, indices = encode_classes(array)
    places = {name: place for place, name in enumerate(classes)}
    for name in names:
        if name not in places:
            known = ", ".join(f"{known:.40}" for known in classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise DataError(f"the data have the class {_shown(name)}, which the model does not; its classes are {known}")
    return torch.tensor([places[name] for name in names], dtype=torch.int64)[indices]


def _numbers(array: "NDArray[Any]", locate: Callable[[int], str]) -> Tensor:
    if array.dtype.kind == "U":
        row = _find_text(array)
        raise DataError(
            f"{locate(row)}: the target {str(array[row])!r:.60} is text, and a regression needs numbers; correct it"
        )
    values = array.astype(np.float64)
    too_large = np.abs(values) > FLOAT32_MAX
    if too_large.any():
        row = int(too_large.argmax())
        raise DataError(f"{locate(row)}: the target {values[row]} is beyond float32; rescale the target")
    return torch.from_numpy(values.astype(np.float32))


def _find_text(array: "NDArray[Any]") -> int:
    for row, value in enumerate(array):
        try:
            float(value)
        except ValueError:
            return row
    return 0


def _as_array(values: Any, locate: Callable[[int], str] = lambda row: f"row {row + 1}") -> "NDArray[Any]":
    """Return (N,) booleans, whole numbers, finite float64 numbers, or text."""
    array = _to_numpy(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"the targets have the shape {array.shape}; {advice_on(array)}")
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind == "f":
        _check_finite(array, locate)
    if array.dtype.kind not in "biufU":
        raise DataError(f"the targets are {array.dtype} values; give text, booleans or numbers, with none missing")
    return array


def advice_on(array: "NDArray[Any]") -> str:
    """Say what to give in place of targets that are not one for each example."""
    is_marks = array.ndim == 2 and array.dtype.kind in "biuf" and bool(((array == 0) | (array == 1)).all())
    if is_marks and bool((array.sum(axis=1) == 1).all()):
        return "they are one-hot: give the classes' numbers, (N,), such as y.argmax(1)"
    if is_marks:
        return "they mark several classes of one example: goodfit does not do multi-label; choose one class for each, (N,)"
    return "give one class or one number per example, (N,)"


def _to_numpy(values: Any) -> "NDArray[Any]":
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        return np.asarray(values)
    array = values.to_numpy() if hasattr(values, "to_numpy") else values
    try:
        # numpy finds the common type of a list, where an array of objects keeps each value's own
        array = array.tolist() if isinstance(array, np.ndarray) and array.dtype.kind == "O" else array
        if isinstance(array, list | tuple):
            _check_lengths(array)
        return np.asarray(array)
    except ValueError as error:
        raise DataError("the targets are lists of different lengths; give one class or one number per example") from error


def _check_lengths(values: Sequence[Any]) -> None:
    """Raise DataError for a text that names no class: numpy would give every row the room of the longest."""
    for row, value in enumerate(values):
        if isinstance(value, str) and len(value) > MAX_CLASS_NAME:
            raise DataError(
                f"row {row + 1}: the target {value!r:.60} has {len(value)} characters, and the name of a class at most "
                f"{MAX_CLASS_NAME}; choose a column of classes or numbers"
            )


def _check_finite(array: "NDArray[Any]", locate: Callable[[int], str]) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        row = int((~finite).argmax())
        raise DataError(f"{locate(row)}: the target is {array[row]}, not a finite number; correct it or remove the row")
