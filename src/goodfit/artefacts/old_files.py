"""Files that programs without goodfit have saved: a state dict, a dictionary with one in it, or a whole pickled module.

Nothing in such a file runs, unless the user says that it may: then it is unpickled as Python itself would.
"""

import errno
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from goodfit.artefacts.document import check_tensor_table
from goodfit.errors import FileError, kind_of
from goodfit.models.sequential import NotDescribable, describe_layers

__all__ = ["OldFile", "read_old_file"]

STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params")
MOST_NAMED = 6


@dataclass(frozen=True)
class OldFile:
    """What is of use in such a file."""

    path: Path
    tensors: dict[str, Tensor] = field(repr=False)
    values: dict[str, Any]  # what a checkpoint dictionary says beside them: numbers, and lists of numbers
    layers: list[dict[str, Any]] | None = None  # those of a whole nn.Sequential

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, in the file's order."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}


def read_old_file(
    path: Path, *, trust_pickle: bool = False, definitions: Mapping[str, Any] | None = None, say: Callable[[str], None] = print
) -> OldFile:
    """Read a .safetensors file, or one that torch.save wrote, and find the state dict in it.

    With `trust_pickle` a file that is more than weights is unpickled, which can run any code; `say` is told so first.
    `definitions` are what the user's code defines: a program that is run saves its classes under the name `__main__`. Raises
    FileError for files that are missing, damaged, pickled and not trusted, or without a state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return OldFile(path, _checked(_read_safetensors(path), path), {})
        _check_archive(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own about sparse tensors, which are refused in a line below
                content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            content = _read_pickle(path, error, definitions or {}, say if trust_pickle else None)
    except FileError:
        raise
    except FileNotFoundError:
        raise FileError(f"there is no file {str(path)!r}; name one that torch.save wrote, or a .safetensors") from None
    except OSError as error:
        if error.errno == errno.EINVAL:  # from looking for what lies beyond the end
            raise FileError(f"{str(path)!r} is damaged, or no file of weights (it ends too soon); get a fresh copy") from error
        raise FileError(f"cannot read {str(path)!r}: {error.strerror}; name a file that torch.save wrote") from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise FileError(f"{str(path)!r} is damaged, or no file of weights ({_reason(error)}); get a fresh copy") from error
    if isinstance(content, nn.Module):
        return OldFile(path, _checked(content.state_dict(), path), {}, _layers(content))
    state, rest = _find_state_dict(content, path)
    return OldFile(path, _checked(state, path), {name: value for name, value in rest.items() if _is_plain(value)})


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    check_tensor_table(path)
    with safe_open(path, "pt") as file:
        if "goodfit" in (file.metadata() or {}):
            raise FileError(f"{str(path)!r} is a goodfit model file already; use it as it is: goodfit evaluate, predict")
    return dict(load_file(path))


def _check_archive(path: Path) -> None:
    """Raise FileError for an archive that is none of torch.save's, which compresses nothing."""
    size = path.stat().st_size
    if not size:
        raise FileError(f"{str(path)!r} is empty; get a fresh copy")
    if not is_zipfile(path):  # as torch wrote before 1.6
        return
    try:
        with ZipFile(path) as archive:
            members = archive.infolist()
    except (BadZipFile, ValueError) as error:
        raise FileError(f"{str(path)!r} is a damaged archive ({_reason(error)}); get a fresh copy") from error
    if sum(member.file_size for member in members) > size:
        raise FileError(f"{str(path)!r} would unpack to more than its {size:,} bytes; it is damaged or meant to do harm")
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise FileError(
            f"{str(path)!r} is a TorchScript program, and not weights; save the state_dict() of what it was made from"
        )


def _read_pickle(
    path: Path, refusal: pickle.UnpicklingError, definitions: Mapping[str, Any], say: Callable[[str], None] | None
) -> Any:
    """Unpickle what is more than weights, if that is allowed: `say` is then told what it means."""
    named = re.search(r"GLOBAL ([\w.]+)", str(refusal))
    if not named:
        raise FileError(
            f"{str(path)!r} is damaged, or no file of weights that torch.save wrote; get a fresh copy, or save the state_dict() with it"
        ) from refusal
    if say is None:
        raise FileError(
            f"{str(path)!r} is no mere state dict: it holds a pickled {named[1]:.80}, and loading that can run any code. Save the "
            "module's state_dict() instead or, if you trust whoever made the file: --trust-pickle, in Python trust_pickle=True"
        )
    say(f"unpickling {str(path)!r}, which can run any code that its maker put in it, as --trust-pickle allows")

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            try:
                return super().find_class(module, name)
            except (ImportError, AttributeError) as error:
                if module == "__main__" and name in definitions:
                    return definitions[name]
                raise FileError(_not_importable(path, module, name)) from error

    ours = SimpleNamespace(__name__=pickle.__name__, Unpickler=Unpickler, load=pickle.load)
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=ours)


def _not_importable(path: Path, module: str, name: str) -> str:
    if module == "__main__":
        return (
            f"{str(path)!r} needs the class {name} of the program that saved it; name that program: --model program.py:{name}"
        )
    return (
        f"{str(path)!r} needs {name} of the module {module}, which is not here or lacks it; put the folder of {module} on "
        f"PYTHONPATH, or name its file, such as --model {module.rpartition('.')[2]}.py:{name}"
    )


def _find_state_dict(content: Any, path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the state dict in what was read, and what stands beside it."""
    state = _as_state_dict(content)
    if state is not None:
        return state, {}
    if not isinstance(content, Mapping):
        raise FileError(
            f"{str(path)!r} holds {kind_of(content)} and no state dict; save one: torch.save(net.state_dict(), ...)"
        )
    states = {name: state for name, value in content.items() if (state := _as_state_dict(value)) is not None}
    name = next((name for name in STATE_KEYS if name in states), next(iter(states)) if len(states) == 1 else None)
    if name is None:
        among = [f"{name!r:.60} ({type(value).__name__})" for name, value in content.items()]
        named = ", ".join(among[:MOST_NAMED]) + (", ..." if len(among) > MOST_NAMED else "") or "nothing"
        problem = f"{len(states)} state dicts among {named}" if states else f"no state dict among {named}"
        raise FileError(f"{str(path)!r} has {problem}; save one alone: torch.save(net.state_dict(), ...)")
    return states[name], {key: value for key, value in content.items() if key != name}


def _as_state_dict(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, nn.Module):
        return value.state_dict()
    is_one = isinstance(value, Mapping) and value and all(isinstance(item, Tensor) for item in value.values())
    return value if is_one and all(isinstance(name, str) for name in value) else None


def _checked(state: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the tensors; raise FileError for one that is no plain block of numbers on the CPU, as large as it says."""
    if not state:
        raise FileError(f"{str(path)!r} has no tensors; save the state_dict() of a module that has parameters")
    for name, tensor in state.items():
        plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_quantized or tensor.is_complex():
            raise FileError(f"{str(path)!r} holds {name!r:.60}, which is no plain tensor of real numbers; save it as one")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise FileError(
                f"{str(path)!r}: {name!r:.60} of shape {tuple(tensor.shape)} is larger than its numbers; save a copy of it"
            )
    return {name: tensor.detach() for name, tensor in state.items()}


def _is_plain(value: Any) -> bool:
    numbers = value if isinstance(value, list | tuple) else [value]
    return all(type(number) in (int, float) for number in numbers)


def _layers(module: nn.Module) -> list[dict[str, Any]] | None:
    try:
        return describe_layers(module)
    except NotDescribable:
        return None


def _reason(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0][:160]
    return said if " " in said else type(error).__name__  # such as the number of a byte
