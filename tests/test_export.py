"""A model's weights, written as a plain PyTorch program loads them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command import goodfit as command
from safetensors.torch import load_file
from torch import Tensor, nn

import goodfit

X = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


class Net(nn.Module):
    """A class of the user's own, whose layers are not in the order of the alphabet."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.norm, self.end = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.end(torch.relu(self.norm(self.start(x))))
        return outputs


def train(model: object) -> goodfit.Run:
    return goodfit.train((X, Y), model=model, epochs=1, quiet=True, out="run", settings={"train.threads": 1})


@pytest.mark.parametrize("name", ["net.pth", "net.pt", "net.bin", "net.safetensors"])
def test_a_plain_program_loads_what_is_exported_and_answers_to_the_bit(name: str) -> None:
    run = train(Net)
    done = command("export", run.path, "--format", "state-dict", "--out", name, "--json")
    assert done.code == 0, done.err
    net = Net()
    net.load_state_dict(load_file(name) if name.endswith("safetensors") else torch.load(name, weights_only=True))
    inputs = torch.from_numpy(X)
    with torch.no_grad():
        assert torch.equal(net.eval()(inputs), run.predictor().model.module.eval()(inputs))
    assert (done.json["file"], done.json["format"], set(done.json["tensors"])) == (name, "state-dict", set(net.state_dict()))


def test_a_model_of_ours_keeps_the_order_of_its_layers_and_comes_back() -> None:
    run = train("mlp")
    done = command("export", run.path / "last.safetensors", "--format", "state-dict")
    assert done.code == 0
    path = run.path / "last.pth"
    assert f"torch.load({str(path)!r}, weights_only=True)" in done.out
    plain = nn.Sequential(nn.Linear(6, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2))
    state = torch.load(path, weights_only=True)
    assert list(state) == [f"fc{number}.{part}" for number in (1, 2, 3) for part in ("weight", "bias")]
    plain.load_state_dict(dict(zip(plain.state_dict(), state.values(), strict=True)))
    again = goodfit.convert(path, model="mlp", data=(X, Y), out="again.safetensors", quiet=True)
    assert command("export", again.model, "--format", "state-dict").code == 0
    for name, tensor in torch.load("again.pth", weights_only=True).items():
        assert torch.equal(tensor, state[name])


def test_what_cannot_be_exported_is_said_in_a_line() -> None:
    run = train("mlp")
    cases = {
        ("--format", "onnx"): "--format onnx is not built yet; choose from: state-dict",
        ("--format", "pt2"): "--format pt2 is not built yet; choose from: state-dict",
        ("--format", "pickle"): "unknown format 'pickle'; choose from: state-dict",
        ("--format", "state-dict", "--out", "x.onnx"): "--out 'x.onnx' is for no state dict; end it in .pth or .safetensors",
        ("--format", "state-dict", "--out", "no/x.pth"): "there is no folder 'no' for the output x.pth; choose another --out",
    }
    for arguments, message in cases.items():
        done = command("export", run.path, *arguments)
        assert (done.code, done.err) == (2, f"goodfit: {message}\n")
    Path("there.pth").write_text("mine")
    done = command("export", run.path, "--format", "state-dict", "--out", "there.pth")
    assert (done.code, done.err) == (2, "goodfit: the output 'there.pth' exists; choose another --out\n")
    assert Path("there.pth").read_text() == "mine"
    assert "there is no model file 'none.safetensors'" in command("export", "none.safetensors", "--format", "state-dict").err
