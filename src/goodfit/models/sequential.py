"""An nn.Sequential of torch.nn layers, given as data: each layer's name and its constructor's arguments.

Nothing in such a description can run code: it names layers of the list below, and gives them plain values.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from inspect import Parameter, signature
from itertools import count
from numbers import Integral, Real
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from goodfit.errors import ConfigError, ModelError, kind_of, unknown_name
from goodfit.models.arguments import Example, describe_kind, is_allowed
from goodfit.models.outputs import check_outputs

__all__ = ["LAYERS", "Layers", "NotDescribable", "build_sequential", "describe_layers"]

# Every layer of one tensor to one tensor whose arguments can be read back by name, and that answers alike each time.
LAYERS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        *(nn.Linear, nn.Identity, nn.Embedding, nn.EmbeddingBag),
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Fold, nn.Unfold),
        *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
        *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
        *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.LPPool1d, nn.LPPool2d, nn.LPPool3d),
        *(nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
        *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
        *(nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
        *(nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm),
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.GLU, nn.SiLU, nn.Mish),
        *(nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Tanh, nn.Hardtanh, nn.Tanhshrink, nn.Hardswish, nn.Threshold),
        *(nn.Softmax, nn.LogSoftmax, nn.Softmax2d, nn.Softmin, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink),
        *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
        *(nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
        *(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d),
    )
}

MAX_DEPTH = 20
MAX_LAYERS = 10_000
# Arguments that are no part of a description: where and as what the weights lie, weights themselves, and old spellings.
NOT_DESCRIBED = ("device", "dtype", "_weight", "_freeze", "min_value", "max_value")
POSITIVE = (
    *("in_features", "out_features", "in_channels", "out_channels", "num_features", "num_channels", "num_groups", "groups"),
    *("num_embeddings", "embedding_dim", "num_parameters", "normalized_shape", "kernel_size", "stride", "dilation"),
    *("output_size", "size", "upscale_factor", "downscale_factor", "divisor_override"),
)
# What a layer keeps for its own use, or is compared in another way.
NOT_COMPARED = ("training", "_parameters", "_buffers", "_modules", "_is_full_backward_hook")

Layer = dict[str, Any]
Layers = Annotated[
    Sequence[Mapping[str, Any]],
    Example('[{layer="Flatten"}, {name="fc", layer="Linear", arguments={in_features=64, out_features=10}}]'),
]


class NotDescribable(Exception):  # noqa: N818 - an answer, which the caller takes
    """A module that is not data: the message says why, in words that go on "the model is code of your own: "."""


def build_sequential(input_shape: tuple[int, ...], num_outputs: int, *, layers: Layers) -> nn.Sequential:
    """Build the layers; a layer without a name gets its place as one, as in torch.

    Raises ConfigError for what is no layer or argument, and ModelError where a layer cannot be built or cannot take what
    the one before it gives. On the meta device, where no layer can be called without loading torch's compiler, that is
    not tried.
    """
    if not layers:
        raise ConfigError(f"model.layers is empty; it must be {describe_kind(Layers)}")
    with torch.device("meta"):
        empty = _build(layers)  # without memory first, as a description may hold anything
    if torch.get_default_device().type == "meta":
        return empty
    model = _build(layers)
    _try_out(model, input_shape, num_outputs)
    return model


def describe_layers(module: nn.Module) -> list[Layer]:
    """Return the `layers` that `build_sequential` builds the same module from, except for its weights.

    Arguments that have their defaults are left out. It is proved by building it; raises NotDescribable for everything that
    would not come back: classes of one's own, hooks, shared or parametrised weights, other numbers than float32. Whether
    parameters are frozen is not described.
    """
    if type(module) is not nn.Sequential:
        raise NotDescribable(f"it is {kind_of(module)}, and not an nn.Sequential itself")
    if not len(module):
        raise NotDescribable("it has no layers")
    with torch.device("meta"):
        try:
            _check_plain(module, "it")
            layers = _describe(module, count(1))
            rebuilt = _build(layers)
        except (ConfigError, ModelError) as error:
            raise NotDescribable(str(error)) from error
    _check_tensors(module)
    _check_same(module, rebuilt)
    return layers


def _build(
    layers: Sequence[Any], path: str = "model.layers", numbers: Iterator[int] | None = None, depth: int = 1
) -> nn.Sequential:
    numbers = numbers or count(1)
    if depth > MAX_DEPTH:
        raise ConfigError(f"model.layers is nested deeper than {MAX_DEPTH}; put the layers side by side")
    sequential = nn.Sequential()
    for index, entry in enumerate(layers):
        here = f"{path}[{index}]"
        if next(numbers) > MAX_LAYERS:
            raise ConfigError(f"model.layers has more than {MAX_LAYERS} layers; leave some out")
        _check_entry(entry, here)
        name = entry.get("name", str(index))
        if not isinstance(name, str) or not name or "." in name or hasattr(sequential, name):
            raise ConfigError(
                f"{here}: name = {name!r:.60} is not possible; it must be text without dots, that stands for no other layer "
                "and nothing of torch's own, such as 'conv1'"
            )
        if entry["layer"] == "Sequential":
            sequential.add_module(name, _build(entry["layers"], f"{here}.layers", numbers, depth + 1))
        else:
            sequential.add_module(name, _construct(LAYERS[entry["layer"]], entry.get("arguments", {}), here))
    return sequential


def _check_entry(entry: Any, here: str) -> None:
    """Raise ConfigError unless an entry has a layer's form; its name and the arguments' values are looked at later."""
    kind = entry.get("layer") if isinstance(entry, dict) else None
    if not isinstance(kind, str):
        raise ConfigError(f"{here} = {entry!r:.60} is no layer; model.layers must be {describe_kind(Layers)}")
    if kind not in LAYERS and kind != "Sequential":
        raise ConfigError(f"{here}: {unknown_name('layer', kind, [*LAYERS, 'Sequential'])}")
    inner = "layers" if kind == "Sequential" else "arguments"
    for key in entry:
        if key not in ("name", "layer", inner):
            raise ConfigError(f"{here}: {unknown_name(f'key of a {kind}', str(key), ('name', 'layer', inner))}")
    if kind == "Sequential" and not isinstance(entry.get("layers"), list):
        raise ConfigError(f"{here}: a Sequential needs layers, a list such as model.layers itself")
    if not isinstance(entry.get("arguments", {}), dict):
        raise ConfigError(f"{here}: arguments = {entry['arguments']!r:.60} is no table of names and values")


def _construct(kind: type[nn.Module], arguments: dict[str, Any], here: str) -> nn.Module:
    parameters = _parameters(kind.__name__)
    for key, value in arguments.items():
        if key not in parameters:
            raise ConfigError(f"{here}: {unknown_name(f'argument of {kind.__name__}', str(key), parameters)}")
        wanted, least = parameters[key].annotation, " of at least 1" if key in POSITIVE else ""
        if not is_allowed(value, wanted) or (least and min(value if isinstance(value, list) else [value], default=0) < 1):
            raise ConfigError(
                f"{here}: {key} = {value!r:.60} is not possible for {kind.__name__}; it must be {describe_kind(wanted)}{least}"
            )
    missing = [key for key, parameter in parameters.items() if parameter.default is Parameter.empty and key not in arguments]
    if missing:
        raise ConfigError(f"{here}: {kind.__name__} needs {' and '.join(missing)}; give them among its arguments")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()})
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{here}: {kind.__name__} cannot be built: {_first_line(error)}; correct its arguments") from error


@cache
def _parameters(kind: str) -> dict[str, Parameter]:
    variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)  # of layers that take no arguments
    found = signature(LAYERS[kind]).parameters.items()
    return {key: each for key, each in found if key not in NOT_DESCRIBED and each.kind not in variable}


def _try_out(model: nn.Sequential, input_shape: tuple[int, ...], num_outputs: int) -> None:
    """Send two examples of zeros through a copy of each layer, as an embedding's call can change its weights."""
    layers = [(name, layer) for name, layer in model.named_modules() if type(layer) is not nn.Sequential]
    takes_indices = any(isinstance(layer, nn.Embedding | nn.EmbeddingBag) for _, layer in layers)  # no layer gives them
    outputs = torch.zeros(2, *input_shape, dtype=torch.int64 if takes_indices else torch.float32)
    for name, layer in layers:
        here = f"the model's layer {name!r}, {layer}, cannot take"
        if not isinstance(outputs, Tensor):
            raise ModelError(f"{here} several tensors; let the layer before it give one")
        shape = str(tuple(outputs.shape)).replace("(2", "(N", 1)
        try:
            with torch.no_grad():
                outputs = copy.deepcopy(layer).eval()(outputs)
        except Exception as error:
            raise ModelError(f"{here} the shape {shape}: {_first_line(error)}; correct model.layers") from error
    check_outputs(outputs, "logits", num_outputs)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")[:200] or type(error).__name__


def _describe(sequential: nn.Module, numbers: Iterator[int], path: str = "", depth: int = 1) -> list[Layer]:
    if depth > MAX_DEPTH:
        raise NotDescribable(f"its layers are nested deeper than {MAX_DEPTH}")
    layers: list[Layer] = []
    for name, layer in sequential._modules.items():  # named_children() leaves out a layer that stands twice
        place = f"{path}{name}"
        if next(numbers) > MAX_LAYERS:
            raise NotDescribable(f"it has more than {MAX_LAYERS} layers")
        if layer is None or (type(layer) is not nn.Sequential and LAYERS.get(type(layer).__name__) is not type(layer)):
            is_changed = layer is not None and is_parametrized(layer)
            kind = "parametrised" if is_changed else f"{kind_of(layer)}, which is none of the layers that are data"
            raise NotDescribable(f"{place!r} is {kind}")
        _check_plain(layer, repr(place))
        entry: Layer = {"name": name, "layer": type(layer).__name__}
        if type(layer) is nn.Sequential:
            entry["layers"] = _describe(layer, numbers, f"{place}.", depth + 1)
        elif arguments := _arguments(layer, place):
            entry["arguments"] = arguments
        layers.append(entry)
    return layers


def _arguments(layer: nn.Module, place: str) -> dict[str, Any]:
    """Read a layer's arguments, without those in which it is like a layer of which only the needed ones were given."""
    kind, parameters = type(layer), _parameters(type(layer).__name__)
    found = {key: _read(layer, key) for key in parameters}
    needed = {key: found[key] for key, parameter in parameters.items() if parameter.default is Parameter.empty}
    usual = _construct(kind, needed, repr(place))
    return {key: value for key, value in found.items() if key in needed or value != _read(usual, key)}


def _read(layer: nn.Module, argument: str) -> Any:
    if argument == "bias":  # without weights there is none, whatever the argument
        return layer.bias is not None or layer.weight is None
    return _as_json(getattr(layer, argument))


def _as_json(value: Any) -> Any:
    """Return tuples as lists, and numpy's numbers as Python's."""
    if isinstance(value, tuple | list):
        return [_as_json(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _check_plain(module: nn.Module, place: str) -> None:
    """Raise NotDescribable where a module does more than its class."""
    for thing in (module, *module.parameters(recurse=False)):
        if any(value for key, value in vars(thing).items() if key.endswith("_hooks")):
            raise NotDescribable(f"{place} has hooks")
        if getattr(thing, "_backward_hooks", None) or getattr(thing, "_post_accumulate_grad_hooks", None):
            raise NotDescribable(f"{place} has hooks")
    replaced = [key for key in vars(module) if callable(getattr(type(module), key, None))]
    if replaced:
        raise NotDescribable(f"{place} has a {replaced[0]} of its own")


def _check_tensors(module: nn.Module) -> None:
    """Raise NotDescribable for tensors that are shared, or of a kind that a layer does not make for itself."""
    owners: dict[int, str] = {}
    tensors = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    for name, tensor in tensors:
        if type(tensor) not in (nn.Parameter, Tensor):
            raise NotDescribable(f"{name!r} is {kind_of(tensor)}")
        if tensor.dtype not in (torch.float32, torch.int64):
            raise NotDescribable(f"{name!r} is {str(tensor.dtype).removeprefix('torch.')}, and not float32")
        # Of parameters that share their numbers each is a tensor of its own; on the meta device there are no numbers.
        memory = tensor.untyped_storage().data_ptr() or id(tensor)
        if memory in owners:
            raise NotDescribable(f"{owners[memory]!r} and {name!r} share their numbers")
        owners[memory] = name


def _check_same(module: nn.Module, rebuilt: nn.Module) -> None:
    """Raise NotDescribable, naming the first difference, unless layers, attributes, names and shapes are the same."""
    expected, found = (dict(each.named_modules(remove_duplicate=False)) for each in (module, rebuilt))
    for name in expected | found:
        if name not in expected or name not in found or type(expected[name]) is not type(found[name]):
            raise NotDescribable(f"{name!r} is not there, or another layer, when it is rebuilt")
        ours, theirs = vars(expected[name]), vars(found[name])
        for key in theirs.keys() - set(NOT_COMPARED):
            if _as_json(ours.get(key)) != _as_json(theirs[key]):
                raise NotDescribable(f"{name!r} has another {key} when it is rebuilt: {theirs[key]!r}, not {ours.get(key)!r}")
    shapes = [{key: (value.shape, value.dtype) for key, value in each.state_dict().items()} for each in (module, rebuilt)]
    if shapes[0] != shapes[1]:
        name = min(key for key in shapes[0] | shapes[1] if shapes[0].get(key) != shapes[1].get(key))
        raise NotDescribable(f"{name!r} is not there, or of another shape, when it is rebuilt")
