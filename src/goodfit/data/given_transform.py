"""The transform of data that come ready: what the inputs of one example are, and nothing that is done to them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from goodfit.data.examples import Examples
from goodfit.data.tensor_transform import TensorTransform, as_array
from goodfit.data.transforms import Transform
from goodfit.errors import DataError, kind_of
from goodfit.inputs import Inputs, tensors

__all__ = ["GivenTransform", "fit_given_transform"]

DTYPES = {
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


@dataclass(frozen=True)
class GivenTransform:
    """Inputs that the user's code has prepared: the shape and dtype of each for one example, and its name if it has one.

    One input without a name is a tensor, several are a tuple, and those with names a dict.
    """

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.shapes or len(self.dtypes) != len(self.shapes) or len(self.names) not in (0, len(self.shapes)):
            raise ValueError(
                f"{len(self.shapes)} shapes, {len(self.dtypes)} dtypes and {len(self.names)} names do not go together"
            )
        if not set(self.dtypes) <= DTYPES.keys() or min(map(min, filter(None, self.shapes)), default=0) < 0:
            raise ValueError(f"dtypes {list(self.dtypes)} or shapes {list(self.shapes)} are no tensor's")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the first input of one example."""
        return self.shapes[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing that a user should be told."""
        return ()

    @property
    def bytes_per_example(self) -> int:
        """How large the inputs of one example are."""
        return sum(math.prod(shape) * DTYPES[dtype].itemsize for shape, dtype in zip(self.shapes, self.dtypes, strict=True))

    def encode(self, examples: Any) -> Any:
        """Return a batch of `Inputs` from one example or several: an array, tensor or list, or a tuple or dict of them where there are several.

        Raises DataError for what is missing or too much, for other shapes, and for numbers of another kind.
        """
        if self.names:
            if not isinstance(examples, Mapping) or set(examples) != set(self.names):
                raise DataError(f"the inputs are {_describe(examples)}; this model takes a dict of {', '.join(self.names)}")
            return self._together({name: self._encode(place, examples[name]) for place, name in enumerate(self.names)})
        if len(self.shapes) == 1:
            return self._encode(0, examples)
        if not isinstance(examples, tuple | list) or len(examples) != len(self.shapes):
            raise DataError(f"the inputs are {_describe(examples)}; this model takes a tuple of {len(self.shapes)}")
        return self._together(tuple(self._encode(place, example) for place, example in enumerate(examples)))

    def are_many(self, examples: Any) -> bool:
        """Whether `examples`, in the structure of the inputs, are a batch of them and not one."""
        first = examples
        if self.names:
            first = examples[self.names[0]] if isinstance(examples, Mapping) and self.names[0] in examples else examples
        elif len(self.shapes) > 1 and isinstance(examples, tuple | list) and examples:
            first = examples[0]
        return getattr(as_array(first, "the input"), "ndim", 0) > len(self.shapes[0])

    def normalize(self, stored: Any) -> Any:
        """Return the batch as it is."""
        return stored

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values."""
        shapes = [list(shape) for shape in self.shapes]
        return {"kind": "given", "shapes": shapes, "dtypes": list(self.dtypes), "names": list(self.names)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "GivenTransform":
        """Rebuild the transform from `to_json` without its kind; raise KeyError, TypeError or ValueError for others."""
        shapes = tuple(tuple(map(int, shape)) for shape in fields["shapes"])
        return cls(**fields | {"shapes": shapes} | {name: tuple(map(str, fields[name])) for name in ("dtypes", "names")})

    def _encode(self, place: int, value: Any) -> Tensor:
        """Return (N, *shape) of input number `place`."""
        what = (
            f"the input {self.names[place]!r}" if self.names else f"input {place + 1}" if len(self.shapes) > 1 else "the input"
        )
        shape, dtype = self.shapes[place], DTYPES[self.dtypes[place]]
        array = as_array(value, what)
        if array.dtype.kind not in "biuf":
            raise DataError(f"{what} holds {array.dtype} values; this model takes {self.dtypes[place]} numbers")
        tensor = torch.from_numpy(array.copy())
        if tuple(tensor.shape) == shape:
            tensor = tensor.unsqueeze(0)
        # Bytes are pictures, which such a model was not trained on.
        fits = torch.can_cast(tensor.dtype, dtype) and (tensor.dtype != torch.uint8 or not dtype.is_floating_point)
        if not tensor.ndim or tuple(tensor.shape[1:]) != shape or not fits:
            found = f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
            wanted = ", ".join(map(str, ("N", *shape)))
            raise DataError(f"{what} is {found}; this model takes {self.dtypes[place]} ({wanted}), or one {shape}")
        return tensor.to(dtype)

    def _together(self, inputs: Inputs) -> Inputs:
        lengths = [len(tensor) for tensor in tensors(inputs)]
        if len(set(lengths)) > 1:
            raise DataError(f"the inputs have {', '.join(map(str, lengths))} examples; give as many of each")
        return inputs


def fit_given_transform(inputs: Examples, _rows: Tensor) -> Transform:
    """Return what the first example's inputs are; one float32 tensor alone is a TensorTransform that changes nothing."""
    first = inputs.first
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(first))
    if isinstance(first, Tensor) and first.dtype == torch.float32 and first[0].numel() and first.ndim > 1:
        channels = shapes[0][0]
        return TensorTransform(shapes[0], (0.0,) * channels, (1.0,) * channels)
    dtypes = tuple(str(tensor.dtype).removeprefix("torch.") for tensor in tensors(first))
    unknown = [dtype for dtype in dtypes if dtype not in DTYPES]
    if unknown:
        raise DataError(f"{inputs.name} gives {unknown[0]} inputs; give them as one of {', '.join(DTYPES)}")
    return GivenTransform(shapes, dtypes, tuple(first) if isinstance(first, dict) else ())


def _describe(examples: Any) -> str:
    if isinstance(examples, Mapping):
        return f"a dict of {', '.join(map(str, examples)) or 'nothing'}"
    length = f" of {len(examples)}" if isinstance(examples, tuple | list) else ""
    return f"{kind_of(examples)}{length}"
