"""Models that are code of the user's own: a module that is built already, or a class or function that builds one."""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from goodfit.errors import ConfigError, FileError, ModelError, kind_of
from goodfit.user_code import blame, code_name, load_code, said

__all__ = ["OwnModel", "check_module", "copied", "load_weights", "own_model", "plain_tensors"]

Copied = TypeVar("Copied")

SAME_BUILDER = "give what built the model that was trained, with the same arguments, such as model=lambda: Net(32)"


@dataclass(frozen=True)
class OwnModel:
    """The user's way to a module, and the name under which files speak of it."""

    name: str  # such as "net.py:Net"
    make: Callable[..., Any]
    module: nn.Module | None = None  # where it is built already: its weights are the start
    notes: tuple[str, ...] = ()  # what the user should be told of it

    def build(self, arguments: Mapping[str, Any]) -> nn.Module:
        """Return a new module; its weights are those of the user's, or drawn from torch's default generator.

        Raises ConfigError for arguments that it does not take, and ModelError where the user's code fails or gives none.
        """
        if self.module is not None:
            if arguments:
                raise ConfigError(
                    f"model.{min(arguments)} is for a model that is still to be built, and this one is; leave it out"
                )
            return copied(self.module, type(self.module).__name__)
        try:
            inspect.signature(self.make).bind(**arguments)
        except TypeError as error:
            raise ConfigError(
                f"{self.name}{inspect.signature(self.make)}: {error}; set its arguments as --set model.NAME=VALUE"
            ) from None
        except ValueError:  # built-in callables have no signature to compare with
            pass
        try:
            module = self.make(**arguments)
        except Exception as error:
            raise blame(ModelError(f"{self.name} cannot be built: {said(error)}; correct it and try again"), error) from error
        if not isinstance(module, nn.Module):
            raise ModelError(f"{self.name} gives {kind_of(module)}, and a torch.nn.Module is wanted; return one")
        check_module(module, self.name)
        return module


def own_model(given: Any) -> OwnModel:
    """Return a module, class, function, or "net.py:Net" as a way to a module; raise ModelError for anything else."""
    if isinstance(given, str):
        loaded = own_model(load_code(given))
        return replace(loaded, name=given.rpartition("/")[2])
    if isinstance(given, nn.Module):
        inner = getattr(given, "_orig_mod", given)  # of what torch.compile returns, whose parameters are the same
        kind = type(inner)
        check_module(inner, kind.__name__)
        notes = (f"{kind.__name__} is trained as it is: torch.compile is not built yet",) if inner is not given else ()
        return OwnModel(code_name(kind), kind, inner, notes)
    if not callable(given):
        raise ModelError(f"{given!r:.80} is no model; give a name of `goodfit models`, a torch.nn.Module, or what builds one")
    named = given.func if isinstance(given, functools.partial) else given
    return OwnModel(code_name(named if hasattr(named, "__qualname__") else type(named)), given)


def check_module(module: nn.Module, name: str) -> None:
    """Raise ModelError for a module whose state cannot be kept in a file, or that lies on several devices."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(f"{name} is compiled by TorchScript, which hides its layers; give the module that it was made of")
    devices = {tensor.device: key for key, tensor in (*module.named_parameters(), *module.named_buffers())}
    if len({device.type for device in devices}) > 1:
        places = " and ".join(f"{key} on {device}" for device, key in list(devices.items())[:2])
        raise ModelError(f"{name} has {places}; move it to one device")
    if any(device.type == "meta" for device in devices):
        raise ModelError(f"{name} has no weights: it was built on the meta device; build it on the CPU")
    if not any(True for _ in module.parameters()):
        raise ModelError(f"{name} has no parameters, so there is nothing to train; assign its layers as attributes")
    for key, layer in module.named_modules():
        if getattr(layer, "sparse", False) is True:
            raise ModelError(
                f"{key or name} has sparse=True, and sparse gradients are not built yet; build it with sparse=False"
            )
    for key, value in module.state_dict().items():
        if isinstance(value, Tensor) and value.is_complex():
            raise ModelError(f"{key!r} is {value.dtype}, and complex weights are not built yet; keep two real ones")
        if not isinstance(value, Tensor):
            raise ModelError(f"{name} keeps {key!r}, {kind_of(value)}, in its state, and files hold tensors; make it one")


def plain_tensors(module: nn.Module) -> list[str]:
    """Return the names of tensors that are plain attributes, which no file keeps."""
    return [
        f"{key}.{attribute}" if key else attribute
        for key, part in module.named_modules()
        for attribute, value in vars(part).items()
        if isinstance(value, Tensor)
    ]


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> nn.Module:
    """Give a module the weights of a file; raise FileError naming the first tensor that does not fit."""
    if any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters()):
        try:
            module.load_state_dict(dict(tensors))  # lazy layers take their shapes from the file
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip().rstrip(".")
            raise FileError(f"the weights do not fit {name}: {reason}; {SAME_BUILDER}") from error
        return module
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if expected != found:
        key = min(key for key in expected | found if expected.get(key) != found.get(key))
        raise FileError(
            f"the weights do not fit {name}: {key!r} is {found.get(key, 'missing')} in the file, and {expected.get(key, 'missing')} "
            f"in the code; {SAME_BUILDER}"
        )
    module.load_state_dict(dict(tensors))
    return module


def copied(thing: Copied, name: str) -> Copied:
    """Return a copy of what was given built; raise ModelError, of the class `name`, where it cannot be copied."""
    try:
        return copy.deepcopy(thing)
    except Exception as error:
        message = f"{name} cannot be copied: {said(error)}; give the class instead, model={name}"
        raise blame(ModelError(message), error) from error
