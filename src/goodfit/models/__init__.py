"""The models by name: one literal dict of the built-in families, and the libraries that bring more."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from goodfit.errors import ModelError, unknown_name
from goodfit.models.arguments import Builder, check_arguments, default_arguments, needed_arguments
from goodfit.models.cifar_quick import build_cifar_quick
from goodfit.models.convnet import build_convnet
from goodfit.models.external import build_timm, build_torchvision, has_weights
from goodfit.models.lenet import build_lenet
from goodfit.models.mlp import build_mlp
from goodfit.models.resnet import build_resnet18
from goodfit.models.sequential import build_sequential
from goodfit.models.whitened_vgg import build_whitened_vgg, whiten

__all__ = [
    "LIBRARIES",
    "MODELS",
    "build_model",
    "fit_first_layer",
    "has_weights",
    "may_draw",
    "model_arguments",
    "model_names",
    "model_needs",
]

MODELS: dict[str, Builder] = {
    "mlp": build_mlp,
    "lenet": build_lenet,
    "cifar10-quick": build_cifar_quick,
    "convnet": build_convnet,
    "whitened-vgg": build_whitened_vgg,
    "resnet18": build_resnet18,
    "sequential": build_sequential,
}

LIBRARIES: dict[str, Builder] = {"torchvision": build_torchvision, "timm": build_timm}


def build_model(name: str, *, input_shape: tuple[int, ...], num_outputs: int, arguments: Mapping[str, object]) -> nn.Module:
    """Build the model `name`, which maps (N, *input_shape) float32 to (N, num_outputs).

    Weights are drawn from torch's default generator, or fetched if `arguments` ask for pretrained ones. Raises
    ModelError for an unknown name, or an input that the model cannot take, and ConfigError for an argument it does not
    have or a value it does not allow.
    """
    builder = _builder(name)
    if name in MODELS and "pretrained" in arguments:
        if arguments["pretrained"] is not False:
            raise ModelError(f"{name} has no pretrained weights; leave model.pretrained out, or --model torchvision/resnet18")
        arguments = {key: value for key, value in arguments.items() if key != "pretrained"}
    model: nn.Module = builder(tuple(input_shape), num_outputs, **check_arguments(name, builder, arguments))
    return model


def fit_first_layer(name: str, model: nn.Module, inputs: Callable[[], Tensor]) -> None:
    """Give a first layer that follows the data its weights, from what `inputs` returns (N, C, H, W); most models have none."""
    if name == "whitened-vgg":
        layer = model.get_submodule("whitening")
        assert isinstance(layer, nn.Conv2d)
        whiten(layer, inputs())


def may_draw(name: str, model: nn.Module) -> bool:
    """Whether the model `name` may draw at random in training; of goodfit's own only those do that have dropout."""
    is_own = name in MODELS and name != "sequential"  # which may have any layer of torch
    return not is_own or any(isinstance(layer, nn.Dropout) for layer in model.modules())


def model_arguments(name: str) -> dict[str, Any]:
    """Return a model's own arguments with their defaults, as JSON values; raise ModelError for an unknown name.

    Those that have no default are in `model_needs`. `pretrained` is in neither: it says where the first weights come
    from, not what is built.
    """
    return {key: value for key, value in default_arguments(_builder(name)).items() if key != "pretrained"}


def model_needs(name: str) -> dict[str, str]:
    """Return the arguments that a model cannot do without, and what each must be; raise ModelError for an unknown name."""
    return needed_arguments(_builder(name))


def model_names() -> list[str]:
    """Return the names of the built-in models; those of the libraries begin with "torchvision/" or "timm/"."""
    return list(MODELS)


def _builder(name: str) -> Builder:
    if name in MODELS:
        return MODELS[name]
    library, _, architecture = name.partition("/")
    if library in LIBRARIES and architecture:
        return partial(LIBRARIES[library], architecture)
    if name.endswith(".py"):
        raise ModelError(f"{name!r} names a file and no class in it; name both, such as --model {name}:Net")
    raise ModelError(unknown_name("model", name, [*MODELS, *(f"{library}/NAME" for library in LIBRARIES)]))
