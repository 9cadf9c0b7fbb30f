"""Architectures of other libraries: torchvision/NAME and timm/NAME, with head and first layer made to fit.

They are built on the CPU even within `torch.device("meta")`: some compute in their constructors, and some hold buffers
that no file keeps. There nothing else is real: torchvision's parameters have no memory, and the proof that an example fits
takes none. Those of timm are drawn, as some of its constructors compute with them.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path, PurePosixPath
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.module import register_module_parameter_registration_hook

from goodfit.errors import ModelError, unknown_name
from goodfit.models.freezing import find_head
from goodfit.models.layers import picture_shape
from goodfit.models.outputs import check_outputs

__all__ = ["build_timm", "build_torchvision", "has_weights"]


def build_torchvision(
    architecture: str, input_shape: tuple[int, ...], num_outputs: int, *, pretrained: bool = False
) -> nn.Module:
    """Build a classification model of torchvision for pictures of 1 or 3 channels.

    `pretrained` fetches the library's default weights, except the head's; raises ModelError if they cannot be had.
    """
    from torchvision import models as library

    name = f"torchvision/{architecture}"
    _check_torchvision_name(architecture)
    channels, *_ = picture_shape(name, input_shape)
    if channels not in (1, 3):
        raise ModelError(f"{name} needs pictures of 1 or 3 channels, and these have {channels}; choose --model convnet")
    options: dict[str, Any] = {}
    if architecture in ("googlenet", "inception_v3"):  # the auxiliary heads would give several outputs in training
        options = {"aux_logits": False, "init_weights": True, "transform_input": channels == 3}
    with _parameters_where_asked():
        model: nn.Module = library.get_model(architecture, weights=None, **options)
        if pretrained:
            with _fetching(name):
                model.load_state_dict(_torchvision_weights(architecture))
        _fit_first_convolution(model, channels)
        _fit_head(model, num_outputs)
        if pretrained:
            _quiet_head(model)
    return _proved(model, name, input_shape, num_outputs)


def build_timm(architecture: str, input_shape: tuple[int, ...], num_outputs: int, *, pretrained: bool = False) -> nn.Module:
    """Build a model of timm for pictures; the library itself makes head and first layer fit.

    `pretrained` fetches the library's weights for this name, except the head's; raises ModelError if they cannot be had.
    """
    name = f"timm/{architecture}"
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModelError(f"{name} needs timm, which is not installed; pip install 'goodfit[timm]'") from error
    names = {*timm.list_models(), *timm.list_pretrained()}  # the latter with the tag of the weights: resnet18.a1_in1k
    if architecture not in names:
        raise ModelError(unknown_name("timm model", architecture, names))
    channels, *_ = picture_shape(name, input_shape)
    if pretrained and not timm.models.is_model_pretrained(architecture):
        raise ModelError(f"{name} has no pretrained weights; --set model.pretrained=false")
    with torch.device("cpu"), _fetching(name) if pretrained else nullcontext():
        model: nn.Module = timm.create_model(architecture, pretrained=pretrained, num_classes=num_outputs, in_chans=channels)
    if isinstance(getattr(model, "get_classifier", lambda: None)(), tuple):  # trained by distillation, the two averaged
        raise ModelError(f"{name} has two heads, and goodfit trains models with one; choose another, such as timm/resnet18")
    if pretrained:
        _quiet_head(model)
    return _proved(model, name, input_shape, num_outputs)


def has_weights(architecture: str) -> bool:
    """Whether torchvision's default weights for an architecture lie on this disk, so that nothing need be fetched."""
    from torchvision import models as library

    file = PurePosixPath(library.get_model_weights(architecture).DEFAULT.url).name
    return Path(torch.hub.get_dir(), "checkpoints", file).is_file()


@contextmanager
def _parameters_where_asked() -> Iterator[None]:
    """Build on the CPU, and within `torch.device("meta")` let go of each parameter before anything is written into it."""
    thread = get_ident()

    def empty(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or get_ident() != thread:
            return None  # it stays what it is
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(empty) if _is_on_meta() else None  # type: ignore[arg-type]
    try:
        with torch.device("cpu"):
            yield
    finally:
        if hook:
            hook.remove()


def _is_on_meta() -> bool:
    return torch.get_default_device().type == "meta"


def _check_torchvision_name(architecture: str) -> None:
    from torchvision import models as library

    names = library.list_models(module=library)
    if architecture in names:
        return
    for kind in ("detection", "optical_flow", "quantization", "segmentation", "video"):
        if architecture in library.list_models(module=getattr(library, kind)):
            raise ModelError(
                f"torchvision/{architecture} is a {kind} model, and goodfit trains plain classifiers and regressors; "
                "choose one such as torchvision/resnet18"
            )
    raise ModelError(unknown_name("torchvision model", architecture, names))


def _torchvision_weights(architecture: str) -> dict[str, Tensor]:
    from torchvision import models as library

    # Not through get_model(weights=...), which would unpickle the file with the power to run code.
    weights = library.get_model_weights(architecture).DEFAULT.get_state_dict(check_hash=True, weights_only=True)
    # Names in torchvision's files that its modules no longer have: DenseNet's dots, and the auxiliary heads left out here.
    dotted = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
    return {dotted.sub(r"\1\2", key): value for key, value in weights.items() if not key.lower().startswith("aux")}


@contextmanager
def _fetching(name: str) -> Iterator[None]:
    try:
        with redirect_stdout(sys.stderr):  # torch.hub announces a download on standard output
            yield
    except Exception as error:
        raise ModelError(
            f"the pretrained weights of {name} could not be had: {_first_line(error)}; "
            "to train without them, --set model.pretrained=false"
        ) from error


def _fit_first_convolution(model: nn.Module, channels: int) -> None:
    name, old = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    if old.in_channels == channels:
        return
    new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)  # type: ignore[arg-type]
    with torch.no_grad():
        # A grey picture is one with three equal channels, to which the sum of the weights answers as they did.
        new.weight.copy_(old.weight.sum(dim=1, keepdim=True))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    model.set_submodule(name, new)


def _fit_head(model: nn.Module, num_outputs: int) -> None:
    name, old = find_head(model)
    if isinstance(old, nn.Conv2d):
        model.set_submodule(name, nn.Conv2d(old.in_channels, num_outputs, kernel_size=1))
    elif isinstance(old, nn.Linear):
        model.set_submodule(name, nn.Linear(old.in_features, num_outputs, bias=old.bias is not None))


def _quiet_head(model: nn.Module) -> None:
    """Make the last layer's weights zero, so that what it has not learned yet does not undo the rest (Kolesnikov et al. 2019)."""
    _, head = find_head(model)
    last = [layer for layer in head.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1:]
    for parameter in (parameter for layer in last for parameter in layer.parameters()):
        nn.init.zeros_(parameter)


def _proved(model: nn.Module, name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Return `model` if it takes an example; within `torch.device("meta")` that costs neither memory nor arithmetic."""
    device = "meta" if _is_on_meta() else "cpu"
    tensors = {key: tensor.to(device) for key, tensor in (*model.named_parameters(), *model.named_buffers())}
    try:
        with torch.no_grad():
            outputs = functional_call(model.eval(), tensors, (torch.zeros(1, *input_shape, device=device),))
    except Exception as error:
        shape = " x ".join(map(str, input_shape))
        raise ModelError(
            f"{name} cannot take an example of shape {shape}: {_first_line(error)}; "
            "try --set data.image_size=224, or choose --model convnet"
        ) from error
    check_outputs(outputs, "logits", num_outputs)
    return model.train()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
