"""A Sequential as data: described, rebuilt, trained and loaded without a line of the user's code; and what is no data."""

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import tiny_pictures
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

import goodfit
from goodfit.config import Layer, dump_toml, merge, read_toml
from goodfit.errors import ConfigError, ModelError
from goodfit.models import build_model
from goodfit.models.arguments import describe_kind
from goodfit.models.sequential import LAYERS, MAX_LAYERS, NotDescribable, _build, _parameters, build_sequential, describe_layers

LINE, PICTURE, VOLUME = (4, 16), (4, 8, 8), (4, 8, 8, 8)
SHAPES = {"1d": LINE, "2d": PICTURE, "3d": VOLUME}

# Arguments that are all other than the defaults, and the shape of an example where the name does not tell it.
CONVOLUTION: dict[str, Any] = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2, "padding": 1}
CONVOLUTION |= {"dilation": 2, "groups": 2, "bias": False}
NORM: dict[str, Any] = {"num_features": 4, "eps": 1e-3, "momentum": 0.3}
POOL: dict[str, Any] = {"kernel_size": 3, "stride": 2, "padding": 1}
FLAG: dict[str, Any] = {"inplace": True}
NONE: dict[str, Any] = {}
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "Linear": ({"in_features": 16, "out_features": 3, "bias": False}, LINE),
    "Identity": (NONE, LINE),
    "Embedding": (
        {"num_embeddings": 9, "embedding_dim": 3, "padding_idx": 2, "max_norm": 1.5, "norm_type": 1.0}
        | {"scale_grad_by_freq": True, "sparse": True},
        (5,),
    ),
    "EmbeddingBag": (
        {"num_embeddings": 9, "embedding_dim": 3, "norm_type": 1.0, "mode": "sum", "sparse": True, "padding_idx": 2},
        (5,),
    ),
    **{f"Conv{d}": (CONVOLUTION, SHAPES[d]) for d in SHAPES},
    **{f"ConvTranspose{d}": (CONVOLUTION | {"output_padding": 1}, SHAPES[d]) for d in SHAPES},
    "Fold": ({"output_size": (4, 5), "kernel_size": 2, "dilation": 2, "padding": (1, 2), "stride": 2}, (8, 8)),
    "Unfold": ({"kernel_size": (2, 3), "dilation": 2, "padding": 1, "stride": 2}, PICTURE),
    **{f"MaxPool{d}": (POOL | {"dilation": 2, "ceil_mode": True}, SHAPES[d]) for d in SHAPES},
    "AvgPool1d": (POOL | {"ceil_mode": True, "count_include_pad": False}, LINE),
    **{
        f"AvgPool{d}": (POOL | {"ceil_mode": True, "count_include_pad": False, "divisor_override": 5}, SHAPES[d])
        for d in ("2d", "3d")
    },
    **{f"AdaptiveMaxPool{d}": ({"output_size": 2}, SHAPES[d]) for d in SHAPES},
    "AdaptiveAvgPool1d": ({"output_size": 3}, LINE),
    "AdaptiveAvgPool2d": ({"output_size": (2, 3)}, PICTURE),
    "AdaptiveAvgPool3d": ({"output_size": (1, 2, 3)}, VOLUME),
    **{f"LPPool{d}": ({"norm_type": 2.0, "kernel_size": 2, "stride": 3, "ceil_mode": True}, SHAPES[d]) for d in SHAPES},
    **{f"ConstantPad{d}": ({"padding": 2, "value": 0.5}, SHAPES[d]) for d in SHAPES},
    **{
        f"{kind}Pad{d}": ({"padding": 2}, SHAPES[d])
        for kind in ("Zero", "Reflection", "Replication", "Circular")
        for d in SHAPES
    },
    **{f"BatchNorm{d}": (NORM | {"affine": False, "track_running_stats": False}, SHAPES[d]) for d in SHAPES},
    **{f"InstanceNorm{d}": (NORM | {"affine": True, "track_running_stats": True}, SHAPES[d]) for d in SHAPES},
    "GroupNorm": ({"num_groups": 2, "num_channels": 4, "eps": 1e-3, "affine": False}, PICTURE),
    "LayerNorm": ({"normalized_shape": (8, 8), "eps": 1e-3, "bias": False}, PICTURE),
    "RMSNorm": ({"normalized_shape": 16, "eps": 1e-3, "elementwise_affine": False}, LINE),
    "LocalResponseNorm": ({"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2.0}, PICTURE),
    **dict.fromkeys(("ReLU", "ReLU6", "SELU", "SiLU", "Mish", "Hardsigmoid", "Hardswish"), (FLAG, LINE)),
    **dict.fromkeys(("Sigmoid", "LogSigmoid", "Tanh", "Tanhshrink", "Softsign"), (NONE, LINE)),
    **{name: ({"alpha": 0.5} | FLAG, LINE) for name in ("ELU", "CELU")},
    **{name: ({"dim": 1}, LINE) for name in ("Softmax", "LogSoftmax", "Softmin", "GLU")},
    **{name: ({"lambd": 0.2}, LINE) for name in ("Softshrink", "Hardshrink")},
    "LeakyReLU": ({"negative_slope": 0.2} | FLAG, LINE),
    "PReLU": ({"num_parameters": 4, "init": 0.1}, LINE),
    "RReLU": ({"lower": 0.1, "upper": 0.2} | FLAG, LINE),
    "GELU": ({"approximate": "tanh"}, LINE),
    "Hardtanh": ({"min_val": -2.0, "max_val": 0.5} | FLAG, LINE),
    "Threshold": ({"threshold": 0.1, "value": 20.0} | FLAG, LINE),
    "Softmax2d": (NONE, PICTURE),
    "Softplus": ({"beta": 2.0, "threshold": 5.0}, LINE),
    **{name: ({"p": 0.25} | FLAG, LINE) for name in ("Dropout", "AlphaDropout", "FeatureAlphaDropout")},
    **{f"Dropout{d}": ({"p": 0.25} | FLAG, SHAPES[d]) for d in SHAPES},
    "Flatten": ({"start_dim": 2, "end_dim": 3}, VOLUME),
    "Unflatten": ({"dim": 1, "unflattened_size": (2, -1)}, LINE),
    "PixelShuffle": ({"upscale_factor": 2}, PICTURE),
    "PixelUnshuffle": ({"downscale_factor": 2}, PICTURE),
    "ChannelShuffle": ({"groups": 2}, PICTURE),
    "Upsample": ({"scale_factor": 2.0, "mode": "bilinear", "align_corners": True, "recompute_scale_factor": True}, PICTURE),
    "UpsamplingNearest2d": ({"scale_factor": (2.0, 3.0)}, PICTURE),
    "UpsamplingBilinear2d": ({"size": (5, 6)}, PICTURE),
}

# Of which the above has another kind of value, or what excludes it.
MORE: list[Callable[[], nn.Module]] = [
    lambda: nn.Conv2d(4, 4, (3, 5), padding="same", padding_mode="circular"),
    lambda: nn.Conv2d(4, 4, 3, padding="valid"),
    lambda: nn.MaxPool2d((2, 2)),
    lambda: nn.MaxPool2d([2, 2]),
    lambda: nn.ZeroPad2d((1, 2, 3, 4)),
    lambda: nn.EmbeddingBag(9, 3, max_norm=1.0, scale_grad_by_freq=True, include_last_offset=True),
    lambda: nn.InstanceNorm2d(4),
    lambda: nn.BatchNorm2d(4),
    lambda: nn.LayerNorm((4, 8, 8), elementwise_affine=False),
    lambda: nn.LayerNorm([8], bias=True),
    lambda: nn.Linear(int(np.prod((4, 4))), np.int64(3)),  # type: ignore[arg-type]
    lambda: nn.Dropout(np.float64(0.5)),
    lambda: nn.Upsample(size=(4, 4)),
]


def rebuilt(module: nn.Module) -> Any:
    """Describe and rebuild through JSON, with the same weights."""
    layers = json.loads(json.dumps(describe_layers(module), allow_nan=False))
    with torch.device("meta"):
        again = _build(layers).to_empty(device="cpu")
    again.load_state_dict(module.state_dict())
    return again


def assert_same(module: nn.Module, again: nn.Module) -> None:
    first, second = dict(module.named_modules(remove_duplicate=False)), dict(again.named_modules(remove_duplicate=False))
    assert [(name, type(layer)) for name, layer in first.items()] == [(name, type(layer)) for name, layer in second.items()]
    for name, layer in first.items():
        assert layer.extra_repr().replace("[", "(").replace("]", ")") == second[name].extra_repr().replace("[", "(").replace(
            "]", ")"
        )
    assert {key: value.shape for key, value in module.state_dict().items()} == {
        key: value.shape for key, value in again.state_dict().items()
    }


def examples(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    torch.manual_seed(1)
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return torch.randint(0, 9, (2, *shape))
    return torch.randn(2, *shape)


# Every layer of the list


def test_every_layer_of_the_list_has_a_case() -> None:
    assert CASES.keys() == LAYERS.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_layer_comes_back_with_its_arguments_and_answers_alike(name: str) -> None:
    arguments, shape = CASES[name]
    module = nn.Sequential(LAYERS[name](**arguments)).eval()
    (layer,) = describe_layers(module)
    described = {key: tuple(value) if isinstance(value, list) else value for key, value in layer.get("arguments", {}).items()}
    assert described.keys() == arguments.keys()
    for key, value in arguments.items():
        assert described[key] in (value, (value,) * np.size(described[key]))
    again = rebuilt(module).eval()
    assert_same(module, again)
    inputs = examples(module[0], shape)
    assert torch.equal(module(inputs.clone()), again(inputs.clone()))


@pytest.mark.parametrize("name", CASES)
def test_a_layer_with_its_usual_arguments_has_only_the_needed_ones(name: str) -> None:
    arguments, _ = CASES[name]
    (whole,) = describe_layers(nn.Sequential(LAYERS[name](**arguments)))
    needed = needed_of(name)
    usual = nn.Sequential(LAYERS[name](**{key: arguments[key] for key in needed}))
    (layer,) = describe_layers(usual)
    assert set(layer.get("arguments", {})) == needed
    assert needed <= set(whole.get("arguments", {}))
    assert_same(usual, rebuilt(usual))


def needed_of(name: str) -> set[str]:
    return {key for key, parameter in _parameters(name).items() if parameter.default is parameter.empty}


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_built_by_name_and_tried(name: str) -> None:
    arguments, shape = CASES[name]
    (layer,) = describe_layers(nn.Sequential(LAYERS[name](**arguments)))
    inputs = examples(LAYERS[name](**arguments), shape)
    expected = LAYERS[name](**arguments).eval()(inputs)
    features = expected[0].numel()
    head = [{"layer": "Flatten"}, {"layer": "Linear", "arguments": {"in_features": features, "out_features": 3}}]
    assert build_sequential(shape, 3, layers=[layer, *head]).eval()(inputs).shape == (2, 3)


@pytest.mark.parametrize("make", MORE)
def test_other_kinds_of_values_come_back_too(make: Callable[[], nn.Module]) -> None:
    module = nn.Sequential(make())
    assert_same(module, rebuilt(module))


def test_every_argument_has_a_kind_that_is_understood() -> None:
    for kind in LAYERS:
        for name, parameter in _parameters(kind).items():
            assert describe_kind(parameter.annotation), (kind, name)


# The whole


def network() -> nn.Sequential:
    features = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3, padding="same"), norm=nn.BatchNorm2d(4), pool=nn.MaxPool2d(2)))
    return nn.Sequential(OrderedDict(features=features, flatten=nn.Flatten(), relu=nn.ReLU(inplace=True), fc=nn.Linear(64, 3)))


LAYERS_OF_NETWORK = [
    {
        "name": "features",
        "layer": "Sequential",
        "layers": [
            {
                "name": "conv",
                "layer": "Conv2d",
                "arguments": {"in_channels": 3, "out_channels": 4, "kernel_size": [3, 3], "padding": "same"},
            },
            {"name": "norm", "layer": "BatchNorm2d", "arguments": {"num_features": 4}},
            {"name": "pool", "layer": "MaxPool2d", "arguments": {"kernel_size": 2}},
        ],
    },
    {"name": "flatten", "layer": "Flatten"},
    {"name": "relu", "layer": "ReLU", "arguments": {"inplace": True}},
    {"name": "fc", "layer": "Linear", "arguments": {"in_features": 64, "out_features": 3}},
]


def test_a_nested_network_is_described_as_by_hand() -> None:
    assert describe_layers(network()) == LAYERS_OF_NETWORK


def test_the_built_network_is_the_described_one_and_draws_the_same_weights() -> None:
    torch.manual_seed(0)
    expected = network().state_dict()
    torch.manual_seed(0)
    module = build_model("sequential", input_shape=(3, 8, 8), num_outputs=3, arguments={"layers": LAYERS_OF_NETWORK})
    assert all(torch.equal(value, expected[key]) for key, value in module.state_dict().items())
    assert all(layer.training for layer in module.modules())
    assert_same(network(), module)


def test_nothing_is_allocated_on_the_meta_device() -> None:
    huge = [{"layer": "Linear", "arguments": {"in_features": 192, "out_features": 10**9}}]
    huge += [{"layer": "Linear", "arguments": {"in_features": 10**9, "out_features": 3}}]
    with torch.device("meta"):
        module = build_sequential((192,), 3, layers=huge)
    assert all(parameter.is_meta for parameter in module.parameters())
    assert module.training


def test_trying_changes_neither_weights_nor_the_random_state() -> None:
    layers = [{"layer": "Embedding", "arguments": {"num_embeddings": 5, "embedding_dim": 64, "max_norm": 0.1}}]
    layers += [{"layer": "Flatten"}, {"layer": "Dropout"}, {"layer": "BatchNorm1d", "arguments": {"num_features": 192}}]
    layers += [{"layer": "RReLU"}, {"layer": "Linear", "arguments": {"in_features": 192, "out_features": 2}}]
    torch.manual_seed(0)
    expected, state = _build(layers).state_dict(), torch.get_rng_state()
    torch.manual_seed(0)
    module = build_sequential((3,), 2, layers=layers)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, expected[key]) for key, value in module.state_dict().items())


def test_layers_without_a_name_are_named_by_their_place() -> None:
    module = build_sequential(
        (4,), 2, layers=[{"layer": "ReLU"}, {"layer": "Linear", "arguments": {"in_features": 4, "out_features": 2}}]
    )
    assert list(module.state_dict()) == ["1.weight", "1.bias"]


def test_a_layer_that_stands_twice_is_two_where_it_has_no_weights() -> None:
    relu = nn.ReLU()
    module = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu)
    assert [layer["layer"] for layer in describe_layers(module)] == ["Linear", "ReLU", "Linear", "ReLU"]


def test_the_layers_survive_the_configuration_file(tmp_path: Path) -> None:
    given = {"model.name": "sequential", "model.layers": LAYERS_OF_NETWORK}
    config, _ = merge([Layer("test", given)])
    path = tmp_path / "config.toml"
    path.write_text(dump_toml(config))
    again, _ = merge([Layer("file", read_toml(path))])
    assert again == config
    assert again.model.arguments["layers"] == LAYERS_OF_NETWORK


def test_a_network_given_as_data_is_trained_and_loaded_without_code(tmp_path: Path) -> None:
    pictures, targets = tiny_pictures()
    settings = {"model.name": "sequential", "model.layers": LAYERS_OF_NETWORK, "train.threads": 1}
    run = goodfit.train((pictures, targets), epochs=1, out=tmp_path / "run", settings=settings)
    predictor = goodfit.load(run.model)
    assert len(predictor(pictures[:4])) == 4
    assert list(predictor.model.module.state_dict()) == list(network().state_dict())


# What is no data


class Own(nn.Linear):
    pass


def with_hook(name: str) -> nn.Module:
    module = network()
    getattr(module.fc, name)(lambda *_: None)
    return module


def with_forward_of_its_own() -> nn.Module:
    module = network()
    module.relu.forward = lambda inputs: inputs  # type: ignore[method-assign]
    return module


def with_shared_numbers() -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight.data = module[0].weight.data.t()
    return module


def with_parameter_hook() -> nn.Module:
    module = network()
    module.fc.weight.register_hook(lambda gradient: gradient)
    return module


def changed(layer: nn.Module, **attributes: Any) -> nn.Module:
    for name, value in attributes.items():
        setattr(layer, name, value)
    return nn.Sequential(layer)


def pruned() -> nn.Module:
    module = network()
    prune.random_unstructured(module.fc, "weight", amount=0.5)
    return module


def nested(depth: int) -> nn.Module:
    module: nn.Module = nn.ReLU()
    for _ in range(depth):
        module = nn.Sequential(module)
    return module


def endless() -> nn.Module:
    module = nn.Sequential(nn.ReLU())
    module.append(module)
    return module


LINEAR = nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: nn.Linear(2, 2), "it is a Linear, and not an nn.Sequential"),
        (lambda: type("Mine", (nn.Sequential,), {})(nn.ReLU()), "it is a Mine"),
        (lambda: nn.Sequential(nn.ReLU(), Own(2, 2)), "'1' is an Own, which is none of the layers"),
        (lambda: nn.Sequential(nn.Sequential(type("ReLU", (nn.Module,), {})())), r"'0\.0' is a ReLU, which is none"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "'0' is a LazyLinear"),
        (lambda: nn.Sequential(nn.GRU(2, 2)), "'0' is a GRU"),
        (lambda: with_hook("register_forward_hook"), "'fc' has hooks"),
        (lambda: with_hook("register_forward_pre_hook"), "'fc' has hooks"),
        (lambda: with_hook("register_full_backward_hook"), "'fc' has hooks"),
        (lambda: with_hook("register_state_dict_post_hook"), "'fc' has hooks"),
        (with_parameter_hook, "'fc' has hooks"),
        (pruned, "'fc' has hooks"),
        (with_forward_of_its_own, "'relu' has a forward of its own"),
        (lambda: nn.Sequential(weight_norm(nn.Linear(2, 2))), "'0' is parametrised"),
        (lambda: nn.Sequential(LINEAR, LINEAR), r"'0\.weight' and '1\.weight' share"),
        (with_shared_numbers, r"'0\.weight' and '1\.weight' share"),
        (lambda: network().double(), r"'features\.conv\.weight' is float64"),
        (lambda: network().bfloat16(), "is bfloat16"),
        (lambda: changed(nn.Linear(2, 2), in_features=3), r"'0\.weight' is not there, or of another shape"),
        (lambda: changed(nn.Linear(2, 2), scale=nn.Parameter(torch.ones(1))), r"'0\.scale' is not there"),
        (lambda: changed(nn.Linear(2, 2), more=nn.ReLU()), r"'0\.more' is not there"),
        (lambda: changed(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), padding=(2, 2)), "_reversed_padding"),
        (lambda: nn.Sequential(nn.BatchNorm1d(2, momentum=None)), "momentum = None is not possible"),
        (lambda: nn.Sequential(nn.ConstantPad1d(1, float("-inf"))), "value = -inf is not possible"),
        (lambda: nn.Sequential(nn.Hardtanh(-1, float("inf"))), "max_val = inf is not possible"),
        (lambda: nn.Sequential(nn.AdaptiveAvgPool2d((None, 2))), r"output_size = \[None, 2\] is not possible"),
        (lambda: nested(21), "nested deeper than 20"),
        (endless, "nested deeper than 20"),
        (lambda: nn.Sequential(*[nn.ReLU()] * (MAX_LAYERS + 1)), "more than 10000 layers"),
        (nn.Sequential, "it has no layers"),
    ],
)
def test_what_is_no_data_is_told_with_the_reason(make: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(NotDescribable, match=reason):
        describe_layers(make())


def test_what_makes_no_difference_to_the_layers_is_let_be() -> None:
    module = network().eval().requires_grad_(False).to(memory_format=torch.channels_last)
    module.fc.register_forward_hook(lambda *_: None).remove()
    module.classes = ("a", "b", "c")
    assert describe_layers(module) == LAYERS_OF_NETWORK
    assert describe_layers(nested(20))


# What cannot be built


def linear(**arguments: Any) -> dict[str, Any]:
    return {"layer": "Linear", "arguments": {"in_features": 4, "out_features": 3} | arguments}


def deep(depth: int) -> dict[str, Any]:
    layer: dict[str, Any] = {"layer": "ReLU"}
    for _ in range(depth):
        layer = {"layer": "Sequential", "layers": [layer]}
    return layer


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (None, r"sequential needs model\.layers, a list .* such as \[\{layer=\"Flatten\"\}, .*--set"),
        ("Linear", r"model\.layers = 'Linear' is not possible for sequential; it must be a list .*such as"),
        (["Linear"], r"model\.layers = \['Linear'\] is not possible"),
        ([], r"model\.layers is empty; it must be .* such as"),
        ([{}], r"model\.layers\[0\] = \{\} is no layer"),
        ([{"layer": ["ReLU"]}], r"model\.layers\[0\] = .* is no layer"),
        ([{"layer": "Relu"}], r"model\.layers\[0\]: unknown layer 'Relu'; did you mean"),
        ([{"layer": "os.system"}], "unknown layer 'os.system'"),
        ([{"layer": "Module"}], "unknown layer 'Module'"),
        ([{"layer": "ReLU", "layers": []}], "unknown key of a ReLU 'layers'"),
        ([{"layer": "Sequential", "arguments": {}}], "unknown key of a Sequential 'arguments'"),
        ([{"layer": "Sequential"}], "a Sequential needs layers"),
        ([{"layer": "Sequential", "layers": {}}], "a Sequential needs layers"),
        ([{"layer": "Sequential", "layers": [3]}], r"model\.layers\[0\]\.layers\[0\] = 3 is no layer"),
        ([{"layer": "ReLU", "arguments": [True]}], r"arguments = \[True\] is no table"),
        ([linear(in_feature=4)], "unknown argument of Linear 'in_feature'; did you mean in_features"),
        ([linear(device="cuda")], "unknown argument of Linear 'device'"),
        ([linear(dtype="float64")], "unknown argument of Linear 'dtype'"),
        ([linear(in_features="4")], "in_features = '4' is not possible for Linear; it must be a whole number of at least 1"),
        ([linear(in_features=True)], "in_features = True is not possible"),
        ([linear(in_features=4.0)], r"in_features = 4\.0 is not possible"),
        ([linear(in_features=0)], "in_features = 0 is not possible .* at least 1"),
        ([linear(bias=None)], "bias = None is not possible for Linear; it must be true or false"),
        ([linear(in_features=2**80)], r"model\.layers\[0\]: Linear cannot be built"),
        ([{"layer": "Linear", "arguments": {"in_features": 4}}], "Linear needs out_features"),
        ([{"layer": "Dropout", "arguments": {"p": 2}}], "Dropout cannot be built: dropout probability"),
        ([{"layer": "Dropout", "arguments": {"p": float("nan")}}], "p = nan is not possible"),
        ([{"layer": "Embedding", "arguments": {"num_embeddings": 2, "embedding_dim": 2, "padding_idx": 7}}], "cannot be built"),
        ([{"layer": "MaxPool2d", "arguments": {"kernel_size": [2] * 99}}], "kernel_size = .* is not possible"),
        ([{"layer": "MaxPool2d", "arguments": {"kernel_size": [2, 0]}}], r"kernel_size = \[2, 0\] is not possible"),
        ([{"layer": "ZeroPad2d", "arguments": {"padding": [1, 2]}}], r"padding = \[1, 2\] .* or a list of 4 of which each"),
        ([{"layer": "GLU", "arguments": {"dim": 10**30}}], r"layer '0', GLU\(.*\), cannot take"),
        ([linear() | {"name": ""}], "name = '' is not possible"),
        ([linear() | {"name": "a.b"}], r"name = 'a\.b' is not possible"),
        ([linear() | {"name": 3}], "name = 3 is not possible"),
        ([linear() | {"name": "forward"}], "name = 'forward' is not possible"),
        ([linear() | {"name": "_modules"}], "name = '_modules' is not possible"),
        ([linear() | {"name": "1"}, linear()], "name = '1' is not possible"),
        ([deep(20)], "nested deeper than 20"),
        ([deep(900)], "nested deeper than 20"),
        ([{"layer": "ReLU"}] * (MAX_LAYERS + 1), "more than 10000 layers"),
        ([linear(in_features=5)], r"the model's layer '0', Linear\(in_features=5, .*\), cannot take the shape \(N, 4\)"),
        ([linear(out_features=4)], r"shape \(2, 4\), not \(N, 3\) numbers, one per class; change its last layer"),
        (
            [
                {"layer": "Unflatten", "arguments": {"dim": 1, "unflattened_size": [1, 4]}},
                {"layer": "AdaptiveMaxPool1d", "arguments": {"output_size": 3, "return_indices": True}},
                {"layer": "Flatten"},
            ],
            r"layer '2', Flatten\(.*\), cannot take several tensors",
        ),
    ],
)
def test_layers_that_cannot_be_are_named(layers: Any, message: str) -> None:
    arguments = {} if layers is None else {"layers": layers}
    with pytest.raises((ConfigError, ModelError), match=message) as raised:
        build_model("sequential", input_shape=(4,), num_outputs=3, arguments=arguments)
    assert "\n" not in str(raised.value)
