"""The summary: layers, shapes, parameters and FLOPs, without a trace on the model."""

import pytest
import torch
from torch import nn

from goodfit.errors import ConfigError, ModelError
from goodfit.models import build_model
from goodfit.models.summary import LayerSummary, summarize, summarize_by_name


def test_lenet_is_counted_as_by_hand() -> None:
    summary = summarize_by_name("lenet", "3, 32, 32", 10)
    assert summary.parameters == summary.trainable_parameters == 62_006
    convolutions = 28 * 28 * 6 * (3 * 5 * 5) + 10 * 10 * 16 * (6 * 5 * 5)
    assert summary.flops == 2 * (convolutions + 400 * 120 + 120 * 84 + 84 * 10)
    assert summary.layers[0] == LayerSummary("conv1", "Conv2d", (6, 28, 28), 456)
    assert summary.layers[-1] == LayerSummary("fc3", "Linear", (10,), 850)
    assert [layer.output_shape for layer in summary.layers if layer.kind == "MaxPool2d"] == [(6, 14, 14), (16, 5, 5)]


class Unusual(nn.Module):
    """A parameter of its own, a layer used twice, one never used, dropout that draws in evaluation, a tuple inside."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(4))
        self.shared, self.unused = nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False)
        self.recurrent = nn.GRU(4, 2, bias=False, batch_first=True)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        hidden = nn.functional.dropout(self.shared(self.shared(inputs)) + self.token, training=True)
        return self.recurrent(hidden)[0]


def test_every_parameter_is_counted_once() -> None:
    layers = summarize(Unusual(), torch.zeros(1, 3, 4)).layers
    assert [(layer.name, layer.parameters) for layer in layers] == [
        ("shared", 16),
        ("shared", 0),
        ("recurrent", 36),
        ("model", 8),
    ]
    assert layers[2].output_shape == (3, 2)


def test_the_model_and_the_random_state_are_as_before() -> None:
    model = Unusual()
    model.shared.eval()
    random_state = torch.get_rng_state()
    summarize(model, torch.zeros(1, 3, 4))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.calls == 0
    assert model.training
    assert not model.shared.training
    assert not any(module._forward_hooks for module in model.modules())


def test_frozen_parameters_are_told_apart() -> None:
    model = nn.Linear(5, 2)
    model.bias.requires_grad_(False)
    summary = summarize(model, torch.zeros(1, 5))
    assert (summary.parameters, summary.trainable_parameters) == (12, 10)
    assert summary.layers == (LayerSummary("model", "Linear", (2,), 12),)


@pytest.mark.skipif(torch.__version__ < "2.12", reason="torch's counter does not see fused attention there")
def test_attention_is_counted_also_where_torch_fuses_it() -> None:
    length, width = 6, 8
    summary = summarize(
        nn.TransformerEncoderLayer(width, nhead=2, dim_feedforward=16, batch_first=True), torch.zeros(1, length, width)
    )
    projections = length * width * 4 * width
    products = 2 * length * length * width
    assert summary.flops == 2 * (projections + products + 2 * length * width * 16)


def test_a_model_without_memory_has_the_same_summary() -> None:
    shape = (1, 28, 28)
    with torch.device("meta"):
        empty = build_model("convnet", input_shape=shape, num_outputs=10, arguments={})
    assert summarize(empty, torch.zeros(1, *shape)) == summarize_by_name("convnet", "1,28,28", 10)


def test_a_shape_that_does_not_fit_is_named() -> None:
    with pytest.raises(ModelError, match=r"Linear cannot take an example of shape \(4,\): .*; its layers and the data"):
        summarize(nn.Linear(5, 2), torch.zeros(1, 4))
    for shape in ("3x32x32", "", "3,0,3", "3,,3"):
        with pytest.raises(ConfigError, match="write it as 3,32,32 or 13"):
            summarize_by_name("mlp", shape, 10)
