"""Old files of weights, as programs without goodfit save them, made into model files; and files that are none."""

import math
import os
import pickle
import re
import runpy
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command import goodfit as command
from safetensors.torch import save_file
from torch import Tensor, nn

import goodfit
from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.old_files import read_old_file
from goodfit.errors import ConfigError, DataError, FileError, GoodfitError, ModelError

AS_THEY_ARE = {"transform.mean": 0.0, "transform.std": 1.0, "train.threads": 1, "train.device": "cpu"}
FLAGS = [word for key, value in AS_THEY_ARE.items() for word in ("--set", f"{key}={value}")]
X = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 0)


class Network(nn.Module):
    """The digits network as the notes have it, its widths given."""

    def __init__(self, input_size: int, output_size: int, hidden_layers: list[int], drop_p: float = 0.5) -> None:
        super().__init__()
        widths = [input_size, *hidden_layers]
        self.hidden_layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, hidden_layers, strict=False))
        self.output = nn.Linear(widths[-1], output_size)
        self.dropout = nn.Dropout(drop_p)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(x.shape[0], -1)
        for layer in self.hidden_layers:
            x = self.dropout(F.relu(layer(x)))
        return F.log_softmax(self.output(x), dim=1)


PROGRAM = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)
    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))

if __name__ == "__main__":
    torch.save(Net(), "model.pth")
"""


def network() -> Network:
    torch.manual_seed(5)
    return Network(6, 3, [16, 8]).eval()


def convert(file: str | Path, model: Any, data: Any = None, **options: Any) -> Any:
    settings = AS_THEY_ARE | options.pop("settings", {})
    return goodfit.convert(file, model=model, data=data, quiet=True, settings=settings, **options)


def module_of(conversion: Any) -> nn.Module:
    return ModelFile.load(conversion.model).module(conversion.own).eval()


def same_outputs(conversion: Any, original: nn.Module, inputs: Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(module_of(conversion)(inputs), original.eval()(inputs))


def checkpoint(net: Network) -> dict[str, Any]:
    sizes = [layer.out_features for layer in net.hidden_layers]
    return {"input_size": 6, "output_size": 3, "hidden_layers": sizes, "state_dict": net.state_dict()}


def test_a_state_dict_becomes_a_model_file_that_answers_to_the_bit() -> None:
    net = network()
    torch.save(net.state_dict(), "params.pth")
    done = convert("params.pth", lambda: Network(6, 3, [16, 8]), (X, Y))
    assert done.model == Path("params.safetensors")
    assert done.matched.by == "name"
    inputs = torch.from_numpy(X)
    assert same_outputs(done, net, inputs)
    model = done.predictor().model
    with torch.no_grad():
        assert torch.equal(model(inputs), net(inputs))
    assert (model.outputs, model.precision) == ("log-probabilities", "fp32")


def test_a_checkpoint_dictionary_says_how_the_class_is_built() -> None:
    net = network()
    torch.save(checkpoint(net), "checkpoint.pth")
    done = convert("checkpoint.pth", Network, (X, Y))
    file = ModelFile.load(done.model)
    assert file.architecture.name == "test_convert.py:Network"
    assert file.architecture.arguments == {"input_size": 6, "output_size": 3, "hidden_layers": [16, 8]}
    assert same_outputs(done, net, torch.from_numpy(X))
    with pytest.raises(GoodfitError, match=r"the weights in 'checkpoint.pth' do not fit .*\n .*: hidden_layers.0.weight is"):
        convert("checkpoint.pth", Network, (X, Y), settings={"model.hidden_layers": [5, 8]}, out="other.safetensors")


def test_a_checkpoint_becomes_an_mlp_that_needs_no_code_and_other_names_are_matched_in_order() -> None:
    net = network()
    torch.save(checkpoint(net), "checkpoint.pth")
    done = command("convert", "checkpoint.pth", "--model", "mlp", "--out", "mlp.safetensors", *FLAGS)
    assert done.code == 0, done.err
    assert "built with model.hidden = [16, 8], as the weights in checkpoint.pth are shaped" in done.out
    assert "hidden_layers.0.weight is fc1.weight" in done.out
    predictor = goodfit.load("mlp.safetensors")
    stored = torch.from_numpy(X)
    with torch.no_grad():
        assert torch.equal(predictor.model.module(stored).log_softmax(1), net(stored))
    assert predictor(X[0]).label == str(int(net(stored[:1]).argmax()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("number", [0.5, torch.nan])
def test_weights_that_are_not_finite_are_said(number: float, dtype: torch.dtype) -> None:
    state = network().state_dict()
    state["output.bias"][1] = number
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    torch.save({"input_size": 6, "output_size": 3, "hidden_layers": [16, 8], "state_dict": state}, "checkpoint.pth")
    done = command("convert", "checkpoint.pth", "--model", "mlp", "--out", "mlp.safetensors", *FLAGS)
    assert done.code == 0, done.err
    assert ("output.bias holds numbers that are not finite" in done.out) == math.isnan(number)


@pytest.mark.parametrize("layers", [{}, {"layers": ["a", "b", "c"]}])
def test_both_ways_of_writing_a_sequential_are_an_mlp(layers: dict[str, Any]) -> None:
    parts = [nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)]
    named = nn.Sequential()
    for name, part in zip(layers.get("layers", ["0", "1", "2"]), parts, strict=True):
        named.add_module(name, part)
    torch.save(named.state_dict(), "net.pt")
    assert same_outputs(convert("net.pt", "mlp"), named, torch.from_numpy(X))


def test_a_convolutional_network_of_the_notes_is_our_lenet() -> None:
    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.pool, self.conv2 = nn.Conv2d(3, 6, 5), nn.MaxPool2d(2, 2), nn.Conv2d(6, 16, 5)
            self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(F.relu(self.conv2(self.pool(F.relu(self.conv1(x))))))
            return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.view(-1, 400))))))

    net = LeNet()
    torch.save(nn.DataParallel(net).state_dict(), "cifar.pth")
    pictures = np.random.default_rng(1).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(40) % 10
    settings = {"transform.mean": 0.5, "transform.std": 0.5, "data.task": "classification"}
    done = convert("cifar.pth", "lenet", (pictures, labels), test=(pictures, labels), settings=settings)
    assert done.matched.describe() == "10 tensors matched by name, without the prefix 'module.'"
    inputs = torch.from_numpy(pictures).float() / 127.5 - 1
    assert same_outputs(done, net, inputs)
    with torch.no_grad():
        right = (net(inputs).argmax(1).numpy() == labels).mean()
    assert done.test.accuracy == pytest.approx(right)


def test_data_give_classes_and_preprocessing_as_training_would(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = [f"{number / 7},{number % 5},{'good' if number % 2 else 'bad'}" for number in range(50)]
    table.write_text("\n".join(["a,b,quality", *rows]) + "\n")
    run = goodfit.train(table, target="quality", model="mlp", epochs=1, quiet=True, out="run", settings={"train.threads": 1})
    torch.save(run.predictor().model.module.state_dict(), "old.pth")
    converted = goodfit.convert("old.pth", model="mlp", data=table, quiet=True, settings={"data.target": "quality"})
    file = ModelFile.load(converted.model)
    assert run.best is not None
    assert (file.transform, file.classes) == (run.best.transform, ("bad", "good"))
    assert converted.test.n == run.test.n  # type: ignore[union-attr]


def test_only_a_test_split_that_the_data_bring_is_kept_as_a_result() -> None:
    torch.save(network().state_dict(), "a.pth")
    data = {"data": (X, Y), "model": lambda: Network(6, 3, [16, 8])}
    without = convert("a.pth", **data)
    assert without.test.n == 12
    assert ModelFile.load(without.model).test is None
    bringing = convert("a.pth", **data, test=(X[:20], Y[:20]), out="b.safetensors")
    assert ModelFile.load(bringing.model).test == bringing.test.to_json()
    assert goodfit.evaluate(bringing.predictor(), {"train": (X, Y), "test": (X[:20], Y[:20])}) == bringing.test


def test_the_record_is_honest_and_knows_no_path(tmp_path: Path) -> None:
    folder = tmp_path / "secret"
    folder.mkdir()
    torch.save(network().state_dict(), folder / "old.pth")
    done = [convert(folder / "old.pth", "mlp", out=name) for name in ("a.safetensors", "b.safetensors")]
    assert done[0].model.read_bytes() == done[1].model.read_bytes()
    assert b"secret" not in done[0].model.read_bytes()
    record = ModelFile.load(done[0].model).training
    assert (record["converted from"], record["steps"], record["data"], record["fingerprint"]) == ("old.pth", 0, "", "")


def test_training_goes_on_from_a_converted_file() -> None:
    torch.save(network().state_dict(), "old.pth")
    done = convert("old.pth", "mlp", (X, Y))
    run = goodfit.train((X, Y), model=done.model, epochs=1, lr=1e-9, quiet=True, settings={"train.threads": 1})
    assert run.best is not None
    old = network().state_dict()["output.weight"]
    torch.testing.assert_close(run.best.tensors["fc3.weight"], old, rtol=0, atol=1e-6)


def test_json_and_the_result_on_the_test_split() -> None:
    torch.save(checkpoint(Network(64, 10, [32, 16])), "digits.pth")
    done = command("convert", "digits.pth", "--model", "mlp", "--data", "digits", *FLAGS, "--json")
    assert list(done.json) == ["model", "matched", "test"]
    assert done.json["model"] == "digits.safetensors"
    assert done.json["test"]["n"] == 359
    assert "digits has no test split of its own" in done.err
    assert command("evaluate", "digits.safetensors", "digits", "--json").json == done.json["test"]
    again = command("convert", "digits.pth", "--model", "mlp", "--data", "digits", "--json")
    assert again.err == "goodfit: the output 'digits.safetensors' exists; choose another --out\n"
    assert again.code == 2


def test_a_safetensors_file_is_read_too_and_a_model_file_is_none() -> None:
    net = network()
    save_file(net.state_dict(), "weights.safetensors")
    done = convert("weights.safetensors", "mlp", out="model.safetensors")
    assert same_outputs(
        done,
        nn.Sequential(*[part for each in (*net.hidden_layers, net.output) for part in (each, nn.ReLU())][:-1]),
        torch.from_numpy(X),
    )
    with pytest.raises(FileError, match="is a goodfit model file already"):
        convert(done.model, "mlp", out="other.safetensors")


def test_a_number_to_predict_is_asked_for_by_name() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    torch.save({"model": net.state_dict(), "epoch": 3}, "old.pth")
    with pytest.raises(ConfigError, match=r'gives one number: settings=\{"model\.outputs": "value"\} if it'):
        convert("old.pth", net)
    with pytest.raises(
        ConfigError, match=r'rows of 2 numbers settings=\{"transform.mean": .* gives one number: .* of classes give'
    ):
        goodfit.convert("old.pth", model=net)
    done = convert("old.pth", net, settings={"model.outputs": "value"})
    inputs = torch.randn(4, 2)
    assert ModelFile.load(done.model).architecture.name == "sequential"
    values = [estimate.value for estimate in done.predictor()(inputs)]
    assert values == net(inputs).detach()[:, 0].tolist()


def test_old_numbers_are_in_the_targets_own_unit() -> None:
    net = nn.Sequential(nn.Linear(6, 1))
    torch.save(net.state_dict(), "old.pth")
    done = convert("old.pth", "mlp", (X, X[:, 0] * 100 + 700))
    assert done.predictor()(X[0]).value == pytest.approx(float(net(torch.from_numpy(X[:1])).detach()))


UNKNOWN: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (
        "mlp",
        {"transform.std": None},
        ConfigError,
        'nothing says how the inputs are prepared: for rows of 6 numbers settings={"transform.mean": ..., "transform.std": ...}',
    ),
    ("lenet", {}, DataError, "the shape of the inputs of lenet is not to be known from old.pth: give as data="),
    (
        "lenet",
        {"transform.std": None},
        DataError,
        "give as data= what it was trained on, which tells how its inputs are prepared",
    ),
    ("lenex", {}, ModelError, "unknown model 'lenex'; did you mean lenet"),
    ("mlp", {"optim.lr": 1.0}, ConfigError, "optim.lr has no effect on a conversion"),
    ("mlp", {"model.pretrained": True}, ConfigError, "model.pretrained has no effect on a conversion"),
    ("mlp", {"model.hiden": [3]}, ConfigError, "model.hiden"),
    (lambda: nn.Sequential(nn.Conv2d(1, 2, 3)), {}, ModelError, "not known without data: give as data="),
]


@pytest.mark.parametrize(("model", "settings", "kind", "message"), UNKNOWN)
def test_what_cannot_be_known_is_asked_for_by_name(
    model: Any, settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    torch.save(network().state_dict(), "old.pth")
    given = {key: value for key, value in (AS_THEY_ARE | settings).items() if value is not None}
    with pytest.raises(kind, match=re.escape(message)):
        goodfit.convert("old.pth", model=model, quiet=True, settings=given)
    assert not Path("old.safetensors").exists()


# Whole pickles.


class Canary:
    """Sings when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sung",)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("inside", ["alone", "beside"])
def test_nothing_of_a_hostile_pickle_runs_untrusted(is_zip: bool, inside: str) -> None:
    content: Any = Canary() if inside == "alone" else {"state_dict": network().state_dict(), "extra": Canary()}
    torch.save(content, "evil.pth", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(
        FileError, match=r"holds a pickled (posix|nt)\.mkdir, and loading that can run any code.*: trust_pickle=True"
    ):
        convert("evil.pth", "mlp")
    assert not Path("sung").exists()
    done = command("convert", "evil.pth", "--model", "mlp", *FLAGS, "--trust-pickle")
    assert Path("sung").exists()  # the canary can sing
    assert done.out.startswith("unpickling 'evil.pth', which can run any code")
    assert done.code == (2 if inside == "alone" else 0)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_whole_module_is_taken_apart_where_it_is_trusted(is_zip: bool) -> None:
    net = network()
    torch.save(net, "model.pth", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(FileError, match=r"holds a pickled test_convert\.Network"):
        convert("model.pth", "mlp")
    done = convert("model.pth", "mlp", trust_pickle=True)
    assert same_outputs(
        done, nn.Sequential(net.hidden_layers[0], nn.ReLU(), net.hidden_layers[1], nn.ReLU(), net.output), torch.from_numpy(X)
    )


def test_a_whole_sequential_is_its_layers() -> None:
    net = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))
    torch.save(net, "model.pth")
    done = convert("model.pth", "sequential", trust_pickle=True)
    assert same_outputs(done, net, torch.from_numpy(X))


def test_a_class_of_the_program_that_saved_it_is_found_where_that_is_named(tmp_path: Path) -> None:
    Path("net.py").write_text(PROGRAM)
    done = command("convert", "model.pth", "--model", "net.py:Net")
    assert done.err == "goodfit: there is no file 'model.pth'; name one that torch.save wrote, or a .safetensors\n"
    runpy.run_path("net.py", run_name="__main__")
    lost = command("convert", "model.pth", "--model", "mlp", "--trust-pickle", *FLAGS)
    assert lost.err.endswith("needs the class Net of the program that saved it; name that program: --model program.py:Net\n")
    assert command("convert", "model.pth", "--model", "net.py:Net", *FLAGS).code == 2  # naming the code does not trust the file
    found = command("convert", "model.pth", "--model", "net.py:Net", "--trust-pickle", *FLAGS, "--json")
    assert found.code == 0, found.err
    assert found.json["matched"]["by"] == "name"


def test_a_module_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gone_net.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    import gone_net  # type: ignore[import-not-found]

    torch.save(gone_net.Net(), "model.pth")
    (tmp_path / "gone_net.py").unlink()
    monkeypatch.delitem(sys.modules, "gone_net")
    with pytest.raises(FileError, match="needs Net of the module gone_net, which is not here"):
        convert("model.pth", "mlp", trust_pickle=True)


# Files that are none.


def rezip(path: Path, change: Any, kind: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))


def write_empty(path: Path) -> None:
    path.write_bytes(b"")


def write_text(path: Path) -> None:
    path.write_text("hello world, this is no archive\n" * 9)


def write_cut(path: Path) -> None:
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:900])


def write_half(path: Path) -> None:
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_cut_legacy(path: Path) -> None:
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-9])


def write_bomb(path: Path) -> None:
    torch.save(network().state_dict(), path)
    rezip(path, lambda name, content: b"\0" * 50_000_000 if name.endswith("data/0") else content, zipfile.ZIP_DEFLATED)


def write_huge_storage(path: Path) -> None:
    torch.save({"weight": torch.zeros(6)}, path)
    huge = b"\x8a\x06" + (1 << 40).to_bytes(6, "little")
    rezip(path, lambda name, content: content.replace(b"K\x06t", huge + b"t", 1) if name.endswith("data.pkl") else content)


def write_huge_legacy(path: Path) -> None:
    torch.save({"weight": torch.zeros(6)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"K\x06N", b"\x8a\x08" + (1 << 60).to_bytes(8, "little") + b"N", 1))
    assert path.read_bytes() != content


def write_expanded(path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(1 << 40)}, path)


def write_meta(path: Path) -> None:
    torch.save(nn.Linear(1 << 20, 1 << 20, device="meta").state_dict(), path)


def write_sparse(path: Path) -> None:
    torch.save({"weight": torch.eye(3).to_sparse()}, path)


def write_list(path: Path) -> None:
    torch.save([1, 2], path)


def write_other(path: Path) -> None:
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}}, path)


def write_two(path: Path) -> None:
    torch.save({"generator": network().state_dict(), "critic": network().state_dict()}, path)


def write_nothing(path: Path) -> None:
    torch.save(nn.ReLU().state_dict(), path)


def write_numpy(path: Path) -> None:
    torch.save({"state_dict": network().state_dict(), "loss": np.float64(3)}, path)


def write_script(path: Path) -> None:
    torch.save(network().state_dict(), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("old/constants.pkl", b"")


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": [1.0]}))


def write_folder(path: Path) -> None:
    path.mkdir()


BAD = [
    (write_empty, "is empty; get a fresh copy"),
    (write_text, "is damaged, or no file of weights"),
    (write_cut, "is damaged, or no file of weights"),
    (write_half, "is damaged, or no file of weights"),
    (write_cut_legacy, "is damaged, or no file of weights"),
    (write_bomb, "would unpack to more than its"),
    (write_huge_storage, "is damaged, or no file of weights"),
    (write_huge_legacy, "is damaged, or no file of weights"),
    (write_expanded, "'weight' of shape (1099511627776,) is larger than its numbers"),
    (write_meta, "holds 'weight', which is no plain tensor of real numbers"),
    (write_sparse, "holds 'weight', which is no plain tensor of real numbers"),
    (write_list, "holds a list and no state dict"),
    (write_other, "has no state dict among 'epoch' (int), 'optimizer' (dict); save one alone"),
    (write_two, "has 2 state dicts among 'generator' (OrderedDict), 'critic' (OrderedDict); save one alone"),
    (write_nothing, "has no state dict among nothing"),
    (write_numpy, "holds a pickled numpy"),
    (write_script, "is a TorchScript program, and not weights"),
    (write_pickle, "is damaged, or no file of weights that torch.save wrote"),
    (write_folder, "cannot read"),
]


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize(("write", "message"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_a_file_that_is_none_is_refused_in_a_line(write: Any, message: str) -> None:
    path = Path("old.pth")
    write(path)
    with pytest.raises(FileError) as caught:
        read_old_file(path)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


BAD_SAFETENSORS = [
    b"",
    b"\xff" * 8 + b"{}",
    struct.pack("<Q", 2) + b"{}",
    struct.pack("<Q", 80)
    + b'{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'.ljust(80)
    + b"\0" * 8,
]


@pytest.mark.parametrize("content", BAD_SAFETENSORS)
def test_a_damaged_safetensors_is_refused_in_a_line(content: bytes) -> None:
    path = Path("old.safetensors")
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"is damaged, or no file of weights|has no tensors|is empty"):
        read_old_file(path)


def test_tensors_are_the_files_and_values_are_numbers_alone() -> None:
    net = network()
    torch.save(checkpoint(net) | {"optimizer": {"lr": 0.1}, "name": "mnist", "done": None}, "old.pth")
    old = read_old_file(Path("old.pth"))
    assert old.values == {"input_size": 6, "output_size": 3, "hidden_layers": [16, 8]}
    assert all(torch.equal(old.tensors[name], tensor) for name, tensor in net.state_dict().items())
