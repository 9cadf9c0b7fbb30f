"""The models: their layers, what they accept, and what they refuse."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from goodfit.errors import ConfigError, ModelError
from goodfit.models import MODELS, build_model, may_draw, model_arguments, model_names, model_needs
from goodfit.models.freezing import find_head, freeze_body, set_training
from goodfit.models.outputs import check_outputs, log_probabilities, probabilities

GREY, COLOUR = (1, 28, 28), (3, 32, 32)
READY = [name for name in MODELS if not model_needs(name)]


def build(name: str, input_shape: tuple[int, ...] = COLOUR, num_outputs: int = 10, **arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, input_shape=input_shape, num_outputs=num_outputs, arguments=arguments)


def parameter_shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in model.parameters()]


# Built-in models


@pytest.mark.parametrize("name", READY)
@pytest.mark.parametrize("input_shape", [GREY, COLOUR, (3, 66, 46)])
def test_every_model_maps_pictures_to_outputs_in_both_memory_formats(name: str, input_shape: tuple[int, ...]) -> None:
    model = build(name, input_shape, num_outputs=7).eval()
    pictures = torch.randn(4, *input_shape)
    outputs = model(pictures)
    assert outputs.shape == (4, 7)
    assert outputs.dtype == torch.float32
    channels_last = model.to(memory_format=torch.channels_last)(pictures.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, outputs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", READY)
def test_a_model_is_rebuilt_from_json_and_its_weights_from_the_seed(name: str) -> None:
    arguments = json.loads(json.dumps(model_arguments(name)))
    first, second = build(name, GREY, 3), build(name, GREY, 3, **arguments)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    assert first.state_dict().keys() == second.state_dict().keys()


def test_every_parameter_of_every_model_learns() -> None:
    for name in READY:
        model = build(name, GREY)
        model(torch.randn(4, *GREY)).square().sum().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters()), name


def test_what_a_model_needs_is_named() -> None:
    assert [name for name in model_names() if model_needs(name)] == ["sequential"]
    assert model_needs("sequential").keys() == {"layers"}
    assert model_arguments("sequential") == {}
    with pytest.raises(ConfigError, match=r"sequential needs model\.layers, a list .* such as \[\{.*--set 'model\.layers="):
        build("sequential")


def test_the_mlp_has_the_widths_it_is_given() -> None:
    assert parameter_shapes(build("mlp", GREY)) == [(128, 784), (128,), (64, 128), (64,), (10, 64), (10,)]
    assert parameter_shapes(build("mlp", (5,), 1, hidden=[])) == [(1, 5), (1,)]
    assert parameter_shapes(build("mlp", (2, 3, 2, 2), 2, hidden=(4,))) == [(4, 24), (4,), (2, 4), (2,)]
    layers = [type(layer) for layer in build("mlp", (5,), hidden=[4], activation="gelu", dropout=0.5).children()]
    assert layers == [nn.Flatten, nn.Linear, nn.GELU, nn.Dropout, nn.Linear]


def test_the_small_first_layer_is_drawn_as_its_name_says() -> None:
    model, default = build("mlp", GREY, initialization="small-first-layer"), build("mlp", GREY)
    first, second = model.get_submodule("fc1"), model.get_submodule("fc2")
    assert first.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert first.weight.mean().item() == pytest.approx(0, abs=1e-4)
    assert not first.bias.any()
    assert torch.equal(second.weight, default.get_submodule("fc2").weight)
    assert default.get_submodule("fc1").bias.any()


def test_lenet_has_the_tutorial_s_layers() -> None:
    model = build("lenet")
    assert parameter_shapes(model)[::2] == [(6, 3, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]
    convolution, dense = [nn.Conv2d, nn.ReLU, nn.MaxPool2d], [nn.Linear, nn.ReLU]
    assert [type(layer) for layer in model] == [*convolution * 2, nn.Flatten, *dense * 2, nn.Linear]
    assert set(model.state_dict()) == {
        f"{layer}.{kind}" for layer in ("conv1", "conv2", "fc1", "fc2", "fc3") for kind in ("weight", "bias")
    }


def test_cifar10_quick_has_no_activation_unless_asked() -> None:
    model, active = build("cifar10-quick"), build("cifar10-quick", activation="relu")
    assert parameter_shapes(model)[::2] == [(32, 3, 5, 5), (32, 32, 5, 5), (64, 32, 5, 5), (64, 1024), (10, 64)]
    convolution = [nn.Conv2d, nn.MaxPool2d]
    assert [type(layer) for layer in model] == [*convolution * 3, nn.Flatten, nn.Linear, nn.Linear]
    assert sum(isinstance(layer, nn.ReLU) for layer in active) == 4
    assert parameter_shapes(active) == parameter_shapes(model)


@pytest.mark.parametrize("sides", [(1, 1), (2, 5), (8, 8), (31, 33)])
def test_convnet_takes_pictures_of_any_size(sides: tuple[int, int]) -> None:
    model = build("convnet", (1, *sides), width=4, depth=1, dropout=0.1)
    assert model(torch.randn(3, 1, *sides)).shape == (3, 10)
    assert parameter_shapes(model)[::3] == [(4, 1, 3, 3), (8, 4, 3, 3), (16, 8, 3, 3), (10, 16)]


def test_resnet18_computes_what_torchvision_s_does() -> None:
    from torchvision.models import resnet18

    reference, model = resnet18(num_classes=10).eval(), build("resnet18", small_stem=False).eval()
    model.load_state_dict(reference.state_dict())
    pictures = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(model(pictures), reference(pictures))


def test_resnet18_chooses_its_stem_by_the_picture() -> None:
    def kernel(**arguments: object) -> tuple[int, ...]:
        return build("resnet18", width=8, **arguments).get_submodule("conv1").kernel_size

    assert (kernel(input_shape=(3, 64, 64)), kernel(input_shape=(3, 65, 65))) == ((3, 3), (7, 7))
    assert (kernel(input_shape=(3, 224, 224), small_stem=True), kernel(small_stem=False)) == ((3, 3), (7, 7))


# What is refused


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mlp", {"hiden": [3]}, r"model\.hiden = \[3\]: unknown argument of mlp 'hiden'; did you mean hidden\?"),
        ("mlp", {"hidden": 3}, r"model\.hidden = 3 is not possible for mlp; it must be a list of which each is a whole number"),
        ("mlp", {"hidden": [3, 0]}, r"model\.hidden = \[3, 0\] .*a whole number of at least 1"),
        ("mlp", {"hidden": [True]}, r"model\.hidden = \[True\]"),
        ("mlp", {"dropout": 1.0}, r"model\.dropout = 1\.0 .*a number of at least 0 and below 1"),
        ("mlp", {"dropout": float("nan")}, r"model\.dropout = nan"),
        ("mlp", {"activation": "rleu"}, r"model\.activation = 'rleu' .*'relu' or 'gelu' or 'silu' or 'tanh'"),
        ("mlp", {"activation": ["relu"]}, r"model\.activation = \['relu'\]"),
        ("convnet", {"width": 2.5}, r"model\.width = 2\.5 .*a whole number of at least 1"),
        ("resnet18", {"small_stem": "yes"}, r"model\.small_stem = 'yes' .*true or false or 'auto'"),
        ("torchvision/resnet18", {"pretrained": 1}, r"model\.pretrained = 1 .*true or false"),
    ],
)
def test_an_argument_that_is_not_possible_is_named(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, GREY, **arguments)


@pytest.mark.parametrize(
    ("name", "input_shape", "message"),
    [
        ("lenet", (13,), "lenet needs pictures, and one example here has the shape 13; choose --model mlp"),
        ("convnet", (), "convnet needs pictures, and one example here is a single number; choose --model mlp"),
        (
            "lenet",
            (1, 15, 99),
            "lenet needs pictures of at least 16 x 16 pixels, and these are 15 x 99; choose --model convnet",
        ),
        ("cifar10-quick", (1, 7, 8), "cifar10-quick needs pictures of at least 8 x 8 pixels"),
        ("resnet18", (1, 2, 3, 4), "the shape 1 x 2 x 3 x 4"),
        (
            "torchvision/squeezenet1_1",
            (3, 8, 8),
            r"torchvision/squeezenet1_1 cannot take an example of shape 3 x 8 x 8: .*data\.image_size",
        ),
        ("torchvision/resnet18", (4, 64, 64), "torchvision/resnet18 needs pictures of 1 or 3 channels, and these have 4"),
    ],
)
def test_an_input_that_does_not_fit_is_named(name: str, input_shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(name, input_shape)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "unknown model 'resnet81'; did you mean resnet18"),
        ("torchvison/resnet18", "did you mean torchvision/NAME"),
        ("torchvision/resnet81", "unknown torchvision model 'resnet81'; did you mean resnet"),
        ("torchvision/fcn_resnet50", "is a segmentation model"),
        ("torchvision/fasterrcnn_resnet50_fpn", "is a detection model"),
        ("torchvision/r3d_18", "is a video model"),
    ],
)
def test_a_model_that_is_unknown_or_does_something_else_is_named(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(name)


def test_a_built_in_model_has_no_pretrained_weights() -> None:
    with pytest.raises(ModelError, match=r"lenet has no pretrained weights"):
        build("lenet", pretrained=True)
    assert parameter_shapes(build("lenet", pretrained=False)) == parameter_shapes(build("lenet"))


# Models of other libraries


@pytest.mark.parametrize("architecture", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_torchvision_models_fit_grey_pictures_and_the_classes(architecture: str) -> None:
    model = build(f"torchvision/{architecture}", (1, 64, 64), num_outputs=7)
    assert model.training
    assert model(torch.randn(2, 1, 64, 64)).shape == (2, 7)


def test_models_are_built_without_memory_where_asked() -> None:
    with torch.device("meta"):
        assert all(parameter.is_meta for name in READY for parameter in build(name).parameters())
        before = torch.get_rng_state()
        model = build_model("torchvision/shufflenet_v2_x0_5", input_shape=COLOUR, num_outputs=10, arguments={})
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())  # there may be some that no file keeps
    assert torch.equal(torch.get_rng_state(), before)  # so none was drawn and thrown away
    assert not any(parameter.is_meta for parameter in build("torchvision/shufflenet_v2_x0_5").parameters())


@pytest.mark.parametrize("name", ["torchvision/shufflenet_v2_x0_5", "timm/test_resnet"])
def test_without_memory_no_example_is_computed(name: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    devices: set[str] = set()
    hook = nn.modules.module.register_module_forward_pre_hook(lambda _module, inputs: devices.add(inputs[0].device.type))
    try:
        with torch.device("meta"):
            build(name, (3, 1 << 14, 1 << 14))  # whose first layer's output would take gigabytes
            with pytest.raises(ModelError, match="cannot take an example of shape 3 x 8 x 8"):
                build("torchvision/squeezenet1_1", (3, 8, 8))
    finally:
        hook.remove()
    assert devices == {"meta"}


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of downloaded weights, on a machine whose every download fails at once."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    monkeypatch.setattr("urllib.request._opener", None)  # an earlier test's, which knows no proxy
    return checkpoints


def weights_file(torch_home: Path, architecture: str) -> Path:
    from torchvision.models import get_model_weights

    return torch_home / Path(get_model_weights(architecture).DEFAULT.url).name


@pytest.mark.parametrize("channels", [1, 3])
def test_pretrained_weights_are_the_library_s_but_for_the_head(torch_home: Path, channels: int) -> None:
    from torchvision.models import shufflenet_v2_x0_5

    library = shufflenet_v2_x0_5().eval()
    torch.save(library.state_dict(), weights_file(torch_home, "shufflenet_v2_x0_5"))
    model = build("torchvision/shufflenet_v2_x0_5", (channels, 64, 64), num_outputs=5, pretrained=True).eval()
    pictures = torch.randn(2, channels, 64, 64)
    expected = library.conv1(pictures.expand(-1, 3, -1, -1))  # grey seen as three equal channels
    torch.testing.assert_close(model.conv1(pictures), expected, rtol=1e-4, atol=1e-5)
    assert model.fc.out_features == 5
    assert not model.fc.weight.any()  # a head that has learned nothing yet does not undo the rest
    assert not model.fc.bias.any()
    for key, value in library.state_dict().items():
        assert key.startswith(("conv1.0", "fc")) or torch.equal(model.state_dict()[key], value), key


def test_densenet_s_and_googlenet_s_old_names_are_understood(torch_home: Path) -> None:
    from torchvision.models import googlenet

    with_heads = googlenet(init_weights=False)
    torch.save(with_heads.state_dict(), weights_file(torch_home, "googlenet"))
    model = build("torchvision/googlenet", (3, 64, 64), pretrained=True)
    assert torch.equal(model.inception5b.branch1.conv.weight, with_heads.inception5b.branch1.conv.weight)
    assert model.aux1 is None
    densenet = build("torchvision/densenet121", (3, 64, 64), num_outputs=1000).state_dict()
    for old in ("norm.1", "norm.2", "conv.1", "conv.2"):
        densenet = {
            key.replace(old.replace(".", ""), old) if "denselayer" in key else key: value for key, value in densenet.items()
        }
    assert "features.denseblock1.denselayer1.norm.1.weight" in densenet
    torch.save(densenet, weights_file(torch_home, "densenet121"))
    model = build("torchvision/densenet121", (3, 64, 64), pretrained=True)
    key = "features.denseblock4.denselayer16.conv"
    assert torch.equal(model.state_dict()[f"{key}2.weight"], densenet[f"{key}.2.weight"])


def test_pretrained_weights_that_cannot_be_had_end_in_one_line(torch_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ModelError, match=r"torchvision/shufflenet_v2_x0_5 could not be had: .*refused.*model\.pretrained=false"
    ) as raised:
        build("torchvision/shufflenet_v2_x0_5", (3, 64, 64), pretrained=True)
    assert "\n" not in str(raised.value)
    assert capsys.readouterr().out == ""


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["TORCH_HOME"] + "/attacked",)


def test_a_weights_file_cannot_run_code(torch_home: Path) -> None:
    path = weights_file(torch_home, "shufflenet_v2_x0_5")
    torch.save({"fc.weight": Attack()}, path)
    with pytest.raises(ModelError, match="could not be had: Weights only load failed"):
        build("torchvision/shufflenet_v2_x0_5", (3, 64, 64), pretrained=True)
    assert not Path(os.environ["TORCH_HOME"], "attacked").exists()


def test_a_new_head_of_timm_begins_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm", reason="timm is an extra")
    real = timm.create_model  # the weights themselves come from a network
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **options: real(name, **options))
    for name, head in (("resnet10t", "fc"), ("convnext_atto", "head.fc")):
        model = build(f"timm/{name}", (3, 64, 64), pretrained=True)
        assert not any(parameter.any() for parameter in model.get_submodule(head).parameters())
    assert model.get_submodule("head.norm").get_parameter("weight").all()


def test_timm_models_fit_grey_pictures_and_the_classes() -> None:
    pytest.importorskip("timm", reason="timm is an extra")
    assert build("timm/resnet10t", (1, 32, 32), num_outputs=7)(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    with pytest.raises(ModelError, match=r"unknown timm model 'resnet10tt'; did you mean resnet10t"):
        build("timm/resnet10tt")
    with pytest.raises(ModelError, match=r"timm/vit_tiny_patch16_224 cannot take an example of shape 3 x 32 x 32"):
        build("timm/vit_tiny_patch16_224")
    with pytest.raises(ModelError, match="has no pretrained weights"):
        build("timm/convnext_atto_rms", pretrained=True)
    with pytest.raises(ModelError, match="has two heads"):
        build("timm/deit_tiny_distilled_patch16_224", (3, 224, 224))
    with pytest.raises(ModelError, match=r"unknown timm model 'resnet10t\.c3_in1'; did you mean resnet10t\.c3_in1k"):
        build("timm/resnet10t.c3_in1")


def test_timm_is_asked_for_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"pip install 'goodfit\[timm\]'"):
        build("timm/resnet18")


# Training the head alone


@pytest.mark.parametrize(("name", "head"), [("mlp", "fc3"), ("convnet", "head"), ("torchvision/squeezenet1_1", "classifier.1")])
def test_only_the_head_is_left_to_train(name: str, head: str) -> None:
    model = build(name, (3, 64, 64))
    freeze_body(model)
    trainable = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {f"{head}.weight", f"{head}.bias"}


def test_a_step_of_a_frozen_model_changes_nothing_but_the_head() -> None:
    model = build("convnet", GREY, dropout=0.5)
    freeze_body(model)
    model.eval()
    set_training(model, frozen=True)
    assert model.training
    assert model.head.training
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(torch.randn(8, *GREY)).square().mean().backward()
    torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1).step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"head.weight", "head.bias"}
    set_training(model, frozen=False)
    assert all(module.training for module in model.modules())


def test_the_head_may_be_named_by_the_model_itself() -> None:
    class HeadFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body = nn.Linear(3, 2), nn.Linear(4, 3)

    assert find_head(HeadFirst())[0] == "head"
    with pytest.raises(ModelError, match="BatchNorm1d has no linear or convolutional layer"):
        find_head(nn.BatchNorm1d(3))


# What outputs mean


def test_all_meanings_give_the_same_probabilities() -> None:
    logits = torch.randn(6, 3, dtype=torch.float64)
    expected = logits.softmax(1).float()
    torch.testing.assert_close(probabilities(logits, "logits"), expected)
    torch.testing.assert_close(probabilities(logits.log_softmax(1), "log-probabilities"), expected)
    torch.testing.assert_close(probabilities(expected, "probabilities"), expected)
    for outputs, meaning in ((logits, "logits"), (logits.log_softmax(1), "log-probabilities"), (expected, "probabilities")):
        torch.testing.assert_close(log_probabilities(outputs, meaning), expected.log())
    one = logits[:, :1]
    two = torch.cat([torch.zeros_like(one), one], 1)
    torch.testing.assert_close(probabilities(one, "one-logit"), two.softmax(1).float())
    torch.testing.assert_close(log_probabilities(one, "one-logit"), two.log_softmax(1).float())


def test_log_probabilities_stay_finite_and_exact_at_the_extremes() -> None:
    torch.testing.assert_close(log_probabilities(torch.tensor([[90.0]]), "one-logit"), torch.tensor([[-90.0, 0.0]]))
    torch.testing.assert_close(log_probabilities(torch.tensor([[0.0, 1e4]]), "logits"), torch.tensor([[-1e4, 0.0]]))
    assert log_probabilities(torch.tensor([[0.0, 1.0]]), "probabilities").isfinite().all()
    assert probabilities(torch.tensor([[8.0]], dtype=torch.bfloat16), "one-logit").dtype == torch.float32


def test_values_have_no_probabilities() -> None:
    for function in (probabilities, log_probabilities):
        with pytest.raises(ModelError, match="'value' have no class probabilities"):
            function(torch.zeros(2, 1), "value")


def test_outputs_of_another_form_are_named() -> None:
    check_outputs(torch.zeros(5, 3), "logits", 3)
    check_outputs(torch.zeros(5, 1), "one-logit", 2)
    with pytest.raises(ModelError, match=r"shape \(5, 4\), not \(N, 3\) numbers, one per class"):
        check_outputs(torch.zeros(5, 4), "logits", 3)
    with pytest.raises(ModelError, match=r"shape \(5,\), not \(N, 1\) numbers, one per example"):
        check_outputs(torch.zeros(5), "value", 1)
    with pytest.raises(ModelError, match="a tuple where a tensor"):
        check_outputs((torch.zeros(5, 3),), "logits", 3)
    with pytest.raises(ModelError, match=r"torch\.int64, not floating point"):
        check_outputs(torch.zeros(5, 3, dtype=torch.int64), "logits", 3)


@pytest.mark.parametrize(
    ("name", "arguments", "draws"),
    [("convnet", {}, False), ("convnet", {"dropout": 0.1}, True), ("resnet18", {}, False), ("torchvision/resnet18", {}, True)],
)
def test_which_models_may_draw_in_training(name: str, arguments: dict[str, Any], draws: bool) -> None:
    model = build_model(name, input_shape=(3, 32, 32), num_outputs=2, arguments=arguments)
    assert may_draw(name, model) is draws
    assert may_draw("sequential", nn.Sequential(nn.RReLU()))
