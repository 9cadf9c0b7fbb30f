"""Models that are code of the user's own: given as objects from Python, and by name on the command line."""

import functools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR, ReduceLROnPlateau, StepLR
from two_inputs import Both

import goodfit
from goodfit.cli.main import run_command
from goodfit.errors import CodeNeededError, ConfigError, DataError, ModelError, RunError
from goodfit.session import Session

FAST: dict[str, Any] = {"train.threads": 1}
X = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 0)
TWO = (X[:, 0] > 0).astype(int)


class Net(nn.Module):
    """What a person writes first."""

    def __init__(self, hidden: int = 16, outputs: int = 3, last: str = "none", drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, hidden)
        self.drop = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden, outputs)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc2(self.drop(torch.relu(self.fc1(x))))
        ends = {"softmax": lambda: x.softmax(1), "log_softmax": lambda: F.log_softmax(x, 1), "sigmoid": lambda: x.sigmoid()}
        ends["over the batch"] = lambda: x.softmax(0)
        return ends.get(self.last, lambda: x)()


def train(model: Any, data: Any = (X, Y), **options: Any) -> goodfit.Run:
    settings = FAST | options.pop("settings", {})
    given = {"epochs": 2, "batch_size": 20, "quiet": True, "out": "run", "device": "cpu"} | options
    return goodfit.train(data, model=model, settings=settings, **given)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def tensors(run: goodfit.Run) -> dict[str, Tensor]:
    assert run.best is not None
    return run.best.tensors


def make_net() -> Net:
    return Net(hidden=9)


@pytest.mark.parametrize("model", [Net, make_net, functools.partial(Net, 7), lambda: Net(5)])
def test_what_builds_a_module_is_a_model(model: Any) -> None:
    run = train(model)
    assert tensors(run)["fc1.weight"].shape == model().fc1.weight.shape
    assert run.predictor()(X[0]).label in "012"


def test_a_built_module_starts_from_its_weights_and_ends_with_the_best() -> None:
    net = Net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    run = train(net, optimizer="sgd", lr=1e-9)
    for name, tensor in tensors(run).items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-5)
    run = train(net, optimizer="sgd", lr=0.5, out="again")
    assert not torch.equal(net.fc1.weight, before["fc1.weight"])
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, tensors(run)[name])


def test_a_sequential_is_data_and_loads_without_code() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    run = train(net)
    assert run.best is not None
    assert run.best.architecture.name == "sequential"
    prediction = goodfit.load(run.model)(X[:3])
    assert [item.label for item in prediction] == [item.label for item in run.predictor()(X[:3])]
    assert goodfit.evaluate(run.model, (X[:50], Y[:50])).n == 50


def test_a_sequential_that_is_no_data_says_why_and_asks_for_what_builds_it(capsys: pytest.CaptureFixture[str]) -> None:
    layer = nn.Linear(6, 6)
    run = train(nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(6, 3)), quiet=False)
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "cannot be stored as its layers, so its model file will ask for code: '0.weight' and '2.weight' share their numbers"
        in said
    )
    with pytest.raises(CodeNeededError, match=r"torch's Sequential, not stored as layers: give a function that builds it"):
        goodfit.load(run.model)

    def build() -> nn.Module:
        return nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(6, 3))

    assert goodfit.load(run.model, model=build)(X[0]).label in "012"


def test_the_file_of_a_class_asks_for_its_code() -> None:
    run = train(Net(hidden=7))
    with pytest.raises(CodeNeededError, match=r"code of your own, test_own_model.py:Net, .* name it with model=$"):
        goodfit.load(run.model)
    expected = run.predictor()(X[0])
    assert goodfit.load(run.model, model=lambda: Net(hidden=7))(X[0]) == expected
    assert goodfit.evaluate(goodfit.load(run.model, model=Net(hidden=7)), (X, Y)).accuracy > 0  # type: ignore[union-attr]
    assert goodfit.evaluate(run, (X, Y)).accuracy == run.test.accuracy  # type: ignore[union-attr]
    with pytest.raises(goodfit.GoodfitError, match=r"'fc1.bias' is \(7,\) in the file, and \(16,\) in the code"):
        goodfit.load(run.model, model=Net)
    source = run.best.architecture.source if run.best else None
    assert source is not None
    assert "What a person writes first" in source.text


OUTPUTS = [
    ({}, (X, Y), {}, "logits"),
    ({"last": "softmax"}, (X, Y), {}, "probabilities"),
    ({"last": "log_softmax"}, (X, Y), {}, "log-probabilities"),
    ({"last": "log_softmax"}, (X, Y), {"loss": nn.NLLLoss()}, "log-probabilities"),
    ({"last": "log_softmax"}, (X, Y), {"loss": F.cross_entropy}, "log-probabilities"),
    ({}, (X, Y), {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, "logits"),
    ({"outputs": 1}, (X, TWO), {}, "one-logit"),
    ({"outputs": 1}, (X, TWO), {"loss": nn.BCEWithLogitsLoss()}, "one-logit"),
    ({"outputs": 1, "last": "sigmoid"}, (X, TWO), {"loss": nn.BCELoss()}, "probabilities"),
    ({"outputs": 1, "last": "sigmoid"}, (X, TWO), {}, "probabilities"),
    ({"outputs": 2}, (X, TWO), {}, "logits"),
    ({"outputs": 1}, (X, X[:, 0] * 3 + 5), {"loss": nn.MSELoss()}, "value"),
    ({"outputs": 1}, (X, X[:, 0] * 3 + 5), {}, "value"),
]


@pytest.mark.parametrize(("arguments", "data", "options", "meaning"), OUTPUTS)
def test_outputs_mean_what_the_last_layer_and_the_loss_say(
    arguments: dict[str, Any], data: Any, options: dict[str, Any], meaning: str
) -> None:
    run = train(Net(**arguments), data, epochs=30, optimizer="adamw", lr=0.05, **options)
    assert run.best is not None
    assert run.best.outputs == meaning
    if meaning == "value":
        assert run.test.mae < 1  # type: ignore[union-attr]
    else:
        assert run.test.accuracy > 0.6  # type: ignore[union-attr]


class Several(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.fc, self.form = nn.Linear(6, 3), form

    def forward(self, x: Tensor) -> Any:
        out = self.fc(x)
        return {"tuple": (out, x), "dict": {"hidden": x, "logits": out}, "list": [out, x]}[self.form]


@pytest.mark.parametrize("form", ["tuple", "dict", "list"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_prediction_is_found_among_several_outputs(form: str, precision: str) -> None:
    run = train(Several(form), settings={"train.precision": precision})
    assert run.predictor()(X[:2])[1].label in "012"


def test_a_loss_gets_all_that_the_module_gives() -> None:
    def loss(outputs: Any, targets: Tensor) -> Tensor:
        first, second = outputs
        assert second.shape == (len(targets), 6)
        return F.cross_entropy(first, targets) + 0.01 * first.square().mean()

    assert train(Several("tuple"), loss=loss).test is not None


def test_values_and_targets_of_other_shapes_are_not_broadcast() -> None:
    seen = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append((outputs.shape, targets.shape))
        return F.mse_loss(outputs, targets)

    train(Net(outputs=1), (X, X[:, 0] * 2.0), loss=loss)
    assert all(one == other for one, other in seen)


def run_with_optimizer(optimizer: Any, net: nn.Module, **options: Any) -> goodfit.Run:
    return train(net, optimizer=optimizer, **options)


def test_an_optimizer_may_be_a_class_a_function_or_an_instance() -> None:
    net = Net()
    start = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    runs = []
    for number, optimizer in enumerate(
        (
            lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
            functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
            torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        )
    ):
        net.load_state_dict(start)
        runs.append(train(net, optimizer=optimizer, out=f"run{number}"))
    net.load_state_dict(start)
    runs.append(train(net, optimizer=torch.optim.SGD, lr=0.1, settings={"optim.momentum": 0.9}, out="class"))
    for run in runs[1:]:
        for name, tensor in tensors(run).items():
            assert torch.equal(tensor, tensors(runs[0])[name])


def test_parameter_groups_keep_their_own_rates() -> None:
    net = Net()
    before = net.fc1.weight.clone()
    groups = [{"params": net.fc1.parameters(), "lr": 0.0}, {"params": net.fc2.parameters()}]
    train(net, optimizer=torch.optim.SGD(groups, lr=0.1))
    assert torch.equal(net.fc1.weight, before)


def test_what_trains_the_model_is_said_by_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    net = Net(last="log_softmax")
    groups = [{"params": net.fc1.parameters()}, {"params": net.fc2.parameters(), "lr": 0.001}]
    train(net, optimizer=torch.optim.SGD(groups, lr=0.01), quiet=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "; SGD with lr 0.01, 0.001, constant" in said
    assert "for one example, gives log-probabilities" in said
    made = {"optimizer": lambda parameters: torch.optim.Adam(parameters, lr=0.1), "schedule": lambda step: 1 / (1 + step)}
    train(Net, **made, out="other", quiet=False)
    assert "; Adam with lr 0.1, a schedule of your own" in " ".join(capsys.readouterr().out.split())


def test_frozen_parts_stay_as_they_are_and_are_written_down() -> None:
    net = Net()
    net.fc1.requires_grad_(False)
    before = net.fc1.weight.clone()
    run = train(net)
    assert torch.equal(net.fc1.weight, before)
    assert run.config.model.model_dump()["frozen"] == ["fc1.weight", "fc1.bias"]
    train(Net(), settings={"model.frozen": ["fc2"]}, out="other")
    with pytest.raises(ModelError, match="unknown part 'fc3'; did you mean"):
        train(Net(), settings={"model.frozen": ["fc3"]}, out="third")


def rates(run: goodfit.Run) -> list[float]:
    return [line["learning_rate"] for line in run.metrics if line["event"] == "train"]


def test_a_schedule_is_a_function_of_the_step() -> None:
    run = train(Net(), optimizer="sgd", lr=0.1, schedule=lambda step: 1 / (1 + step), settings={"log.every_steps": 1})
    assert rates(run)[:3] == pytest.approx([0.1, 0.05, 0.1 / 3])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (functools.partial(StepLR, step_size=1, gamma=0.5), [0.1, 0.05, 0.025]),
        (functools.partial(MultiStepLR, milestones=[2], gamma=0.5), [0.1, 0.1, 0.05]),
        (functools.partial(ReduceLROnPlateau, patience=0, factor=0.5, threshold=1e9, threshold_mode="abs"), [0.1, 0.1, 0.05]),
    ],
)
def test_a_scheduler_of_torch_steps_by_epochs(schedule: Any, expected: list[float]) -> None:
    run = train(Net(), optimizer="sgd", lr=0.1, schedule=schedule, epochs=3, settings={"log.every_steps": 1})
    per_epoch = len(rates(run)) // 3
    assert rates(run)[::per_epoch] == pytest.approx(expected)
    assert rates(run)[per_epoch - 1 :: per_epoch] == pytest.approx(expected)


def test_a_scheduler_that_counts_steps_steps_by_them() -> None:
    schedule = functools.partial(OneCycleLR, max_lr=0.1, total_steps=100)
    run = train(Net(), optimizer="sgd", lr=0.1, schedule=schedule, settings={"log.every_steps": 1})
    assert len(set(rates(run))) == len(rates(run))


def test_a_model_may_know_more_classes_than_have_examples(capsys: pytest.CaptureFixture[str]) -> None:
    run = train(Net(outputs=5), quiet=False)
    assert "tells 5 classes apart, and memory has examples of the first 3 only" in capsys.readouterr().out
    assert run.predictor().classes == ("0", "1", "2", "3", "4")
    assert goodfit.evaluate(run, (X, Y)).accuracy == run.test.accuracy  # type: ignore[union-attr]
    assert goodfit.resume("run", data=(X, Y), model=Net(outputs=5), epochs=3, quiet=True).end["step"] == 15  # type: ignore[index]


def layers_of(hidden: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 3))


def test_a_function_that_gives_layers_gets_its_arguments() -> None:
    run = train(layers_of, settings={"model.hidden": 9})
    assert tensors(run)["0.weight"].shape == (9, 6)
    assert "hidden" not in run.config.model.arguments
    assert goodfit.load(run.model)(X[0]).label in "012"
    again = goodfit.train((X, Y), config="run/config.toml", out="again", quiet=True)
    assert again.model.read_bytes() == run.model.read_bytes()
    assert goodfit.resume("again", data=(X, Y), model=layers_of, epochs=3, quiet=True).end["step"] == 15  # type: ignore[index]
    assert goodfit.resume("run", data=(X, Y), epochs=3, quiet=True).model.read_bytes() == again.model.read_bytes()


def test_lazy_layers_get_their_shapes() -> None:
    run = train(nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3)))
    assert goodfit.load(run.model)(X[0]).label in "012"


def test_libraries_are_seeded_for_code_that_draws() -> None:
    class Noisy(Net):
        def forward(self, x: Tensor) -> Tensor:
            noise = float(np.random.rand()) if self.training else 0.5
            return super().forward(x * noise)

    torch.manual_seed(1)
    one = train(Noisy, out="one")
    torch.manual_seed(2)
    np.random.seed(5)
    two = train(Noisy, out="two")
    assert one.model.read_bytes() == two.model.read_bytes()


def test_a_trainer_trains_the_module_itself() -> None:
    net = Net()
    before = net.fc1.weight.clone()
    trainer = goodfit.trainer((X, Y), model=net, batch_size=20, device="cpu", optimizer="sgd", lr=0.1, schedule="constant")
    for step in trainer.steps(until=1):
        assert step.predictions is not None
        assert step.predictions.shape == (20, 3)
        gradient = net.fc1.weight.grad
        assert gradient is not None
        torch.testing.assert_close(net.fc1.weight, before - 0.1 * gradient)
    assert trainer.model is net
    trainer.set_learning_rate(0.0)
    after = net.fc1.weight.clone()
    for _ in trainer.steps(until=3):
        assert torch.equal(net.fc1.weight, after)
    trainer.set_learning_rate(0.2)
    assert next(trainer.steps(until=4)).learning_rate == 0.2
    assert not torch.equal(net.fc1.weight, after)
    assert trainer.evaluate().n == len(trainer.plan.dataset.splits["val"])
    assert goodfit.load(trainer.save("now.safetensors"), model=Net)(X[0]).label in "012"
    assert [path.name for path in Path().iterdir()] == ["now.safetensors"]


class Fails(Net):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise ValueError("no such luck")
        return super().forward(x)


class Uncopied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.lines = (line for line in ("a", "b"))


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 3), nn.Linear(6, 3, device="meta")


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Broken:
    def __init__(self) -> None:
        raise OSError("no weights")


WRONG: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (
        Net(outputs=2),
        {},
        ModelError,
        "Net gives 2 numbers for each example, and memory has 3 classes: its last layer must give 3",
    ),
    (
        nn.Sequential(nn.Linear(6, 8), nn.Linear(9, 3)),
        {},
        ModelError,
        r"the layer 1 \(Linear\) got \(4, 8\) and wants in_features=9",
    ),
    (
        Net(last="softmax"),
        {"loss": nn.CrossEntropyLoss()},
        ModelError,
        "ends in a softmax or sigmoid, and the loss .* has its own",
    ),
    (Net(), {"loss": nn.NLLLoss()}, ModelError, "wants log-probabilities, and .* does not end in log_softmax"),
    (Net(), {"loss": lambda outputs, targets: outputs}, ModelError, r"gives \(4, 3\) where one number is wanted"),
    (Net(), {"loss": lambda outputs: outputs}, ModelError, r"cannot take outputs \(4, 3\) and targets \(4,\): TypeError"),
    (Net(), {"loss": nn.MSELoss()}, ModelError, "memory has one number to predict: its last layer must give 1"),
    (Uncopied(), {}, ModelError, r"Uncopied cannot be copied: TypeError: .*; give the class instead, model=Uncopied"),
    (Net().requires_grad_(requires_grad=False), {}, ModelError, "every parameter of Net is frozen, so nothing would learn"),
    (Net().double(), {}, ModelError, r"the layer fc1 \(Linear\) has weights of torch.float64 and got torch.float32; make them"),
    (
        Net(last="over the batch"),
        {},
        ModelError,
        "gives each example 3 probabilities that come to .* and not to 1; a softmax is",
    ),
    (
        Net(),
        {"loss": lambda outputs, targets: F.cross_entropy(outputs, targets).detach()},
        ConfigError,
        "the loss .* has no gradient, so nothing would learn; is a result detached",
    ),
    (Mixed, {}, ModelError, r"Mixed has one.bias on cpu and two.bias on meta"),
    (Nothing, {}, ModelError, "has no parameters"),
    (Broken, {}, ModelError, "Broken cannot be built: OSError: no weights"),
    (lambda: 5, {}, ModelError, "gives an int, and a torch.nn.Module is wanted"),
    (Net, {"settings": {"model.hiden": 3}}, ConfigError, "unexpected keyword argument 'hiden'"),
    (Net(), {"settings": {"model.hidden": 3}}, ConfigError, "model.hidden is for a model that is still to be built"),
    (Net(), {"optimizer": torch.optim.LBFGS}, ConfigError, "LBFGS evaluates the model several times"),
    (Net(), {"optimizer": torch.optim.SGD(Net().parameters())}, ConfigError, "holds parameters that are not the model's"),
    (Net, {"optimizer": torch.optim.SGD(Net().parameters())}, ConfigError, "the optimizer is built for a module that is built"),
    (Net(), {"optimizer": 5}, ConfigError, "optimizer = 5 is neither a name nor"),
    (Net(), {"optimizer": lambda parameters: parameters}, ConfigError, "gives a list, and a torch.optim.Optimizer is wanted"),
    (
        Net(),
        {"optimizer": lambda parameters: torch.optim.SGD(parameters), "lr": 0.1},
        ConfigError,
        "so optim.lr = 0.1 has no effect",
    ),
    (Net(), {"schedule": lambda step: "high"}, ConfigError, "gives no number at step 0"),
    (
        Net(),
        {"loss": F.cross_entropy, "settings": {"train.label_smoothing": 0.1}},
        ConfigError,
        "has no effect on a loss of your own",
    ),
    (Net(), {"settings": {"train.loss": "huber"}}, ConfigError, "train.loss = 'huber' is unknown"),
    (Net(), {"settings": {"model.outputs": "value"}}, ConfigError, "is for numbers to predict, and memory has classes"),
    ("absent.py:Net", {}, ModelError, "there is no Python file 'absent.py'"),
]


@pytest.mark.parametrize(("model", "options", "error", "said"), WRONG)
def test_what_is_wrong_is_said_in_one_line_before_anything_is_written(
    model: Any, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        train(model, **options)
    assert "\n" not in str(raised.value)
    assert not Path("run").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")
def test_torchscript_is_refused_in_one_line() -> None:
    with pytest.raises(
        ModelError, match="is compiled by TorchScript, which hides its layers; give the module that it was made of"
    ):
        train(torch.jit.script(nn.Linear(6, 3)))


def test_a_failing_forward_keeps_the_user_s_frames_and_no_others() -> None:
    with pytest.raises(
        RunError, match=r"the model failed at step 0 with a batch of \(20, 6\): ValueError: no such luck"
    ) as raised:
        train(Fails())
    assert "test_own_model.py" in raised.value.frames
    assert "torch/nn" not in raised.value.frames
    assert "goodfit/training" not in raised.value.frames


def test_a_batch_too_small_for_batch_normalisation_is_said() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    with pytest.raises(RunError, match=r"with a batch of \(1, 6\): .* train with a larger batch_size"):
        train(model, batch_size=1)


def test_what_the_optimizer_was_not_given_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    net = Net()
    train(net, optimizer=torch.optim.SGD(net.fc2.parameters(), lr=0.1), quiet=False)
    assert "fc1.weight, fc1.bias: not among what the optimiser was given" in capsys.readouterr().out


def test_a_part_that_takes_no_part_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    class Unused(Net):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(2, 2)

    train(Unused(), quiet=False)
    assert "spare.weight, spare.bias: no part of the outputs depends on it" in capsys.readouterr().out


CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, hidden=[8]):
        super().__init__()
        widths = [64, *hidden]
        self.layers = nn.Sequential(*[nn.Linear(a, b) for a, b in zip(widths, widths[1:])])
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x):
        return self.head(torch.relu(self.layers(x.flatten(1))))
"""


def test_the_command_line_names_code_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(CODE)
    np.savez("digits.npz", X=np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32), y=np.arange(200) % 10)
    given = [
        "--model",
        "net.py:Net",
        "--set",
        "model.hidden=[12,7]",
        "--epochs",
        "2",
        "--out",
        "run",
        "--set",
        "train.threads=1",
    ]
    assert run_command(["train", "digits.npz", *given, "--dry-run"]) == 0
    assert re.search(r'name +"net.py:Net" +--model\n', shown := capsys.readouterr().out)
    assert re.search(r'outputs +"logits" +auto\n', shown)
    assert run_command(["train", "digits.npz", *given]) == 0
    model = goodfit.load("run", model="net.py:Net").model.module
    assert model.head.in_features == 7
    capsys.readouterr()
    assert run_command(["evaluate", "run"]) == 2
    assert "that is: goodfit evaluate run --model net.py:Net" in capsys.readouterr().err
    assert run_command(["evaluate", "run", "--model", "net.py:Net"]) == 0
    capsys.readouterr()
    assert run_command(["train", "--config", "run/config.toml", "--out", "again"]) == 2
    assert "--model net.py:Net" in capsys.readouterr().err
    assert run_command(["train", "--config", "run/config.toml", "--out", "again", "--model", "net.py:Net"]) == 0
    assert Path("again/best.safetensors").read_bytes() == Path("run/best.safetensors").read_bytes()
    assert run_command(["resume", "run", "--epochs", "3"]) == 2
    assert run_command(["resume", "run", "--epochs", "3", "--model", "net.py:Net"]) == 0
    assert run_command(["resume", "run", "--verify", "--model", "net.py:Net"]) == 0
    assert run_command(["train", "digits.npz", "--model", "net.py:Nett"]) == 2
    assert "unknown class or function 'Nett'; did you mean Net?" in capsys.readouterr().err


def test_code_that_has_changed_is_said(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(CODE)
    data = (np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32), np.arange(200) % 10)
    run = train("net.py:Net", data)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "net.py").write_text(CODE.replace("torch.relu", "torch.tanh"))
    with pytest.warns(UserWarning, match="Net is not written as it was when the model was saved") as said:
        goodfit.load(run.model, model="other/net.py:Net")
    assert said[0].filename == __file__


def test_an_error_shows_the_line_that_asked_and_none_of_the_package(tmp_path: Path) -> None:
    lines = ["import goodfit, torch", "from torch import nn", "class Bad(nn.Module):", "    def __init__(self):"]
    lines += ["        super().__init__()", "        self.fc = nn.Linear(9, 3)", "    def forward(self, x):"]
    lines += ["        return self.fc(x)", "goodfit.train((torch.zeros(60, 6), torch.arange(60) % 3), model=Bad)"]
    (tmp_path / "script.py").write_text("\n".join(lines))
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    frames = [line.strip() for line in done.stderr.splitlines() if line.startswith("  File ")]
    assert [re.sub(r'.*script.py"', "", frame) for frame in frames] == [", line 8, in forward", ", line 9, in <module>"]
    assert done.stderr.splitlines()[-1].startswith(
        "goodfit.errors.ModelError: Bad cannot take a batch of float32 (4, 6): the layer fc"
    )


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda trainer: trainer.set_learning_rate(-1), "-1 is no learning rate; give a number from 0 on"),
        (lambda trainer: trainer.set_learning_rate("x"), "'x' is no learning rate"),
        (lambda trainer: trainer.steps(until="a"), "until = 'a' is no number of steps; give a whole number from 0 on"),
        (lambda trainer: trainer.steps(until=-3), "until = -3 is no number of steps"),
        (lambda trainer: trainer.steps(until=11), "until = 11 is beyond the run's 10 steps; give it more epochs="),
        (lambda trainer: trainer.pictures(step=-1), "step = -1 is no number of steps; give a whole number from 0 on"),
        (lambda trainer: trainer.save("no/such/folder/model.safetensors"), "No such file or directory; choose another path="),
    ],
)
def test_a_trainer_refuses_in_one_line(act: Callable[[Session], Any], said: str) -> None:
    trainer = goodfit.trainer((X, Y), model=Net, batch_size=20, epochs=2, device="cpu", settings={"data.test": 0.1})
    with pytest.raises(goodfit.GoodfitError, match=said):
        act(trainer)


def test_the_caller_s_generators_are_left_alone() -> None:
    np.random.seed(3)
    torch.manual_seed(3)
    expected = np.random.rand(), torch.rand(1)
    np.random.seed(3)
    torch.manual_seed(3)
    train(Net)
    assert (np.random.rand(), torch.rand(1)) == expected


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(6, 8)]  # a plain list, which torch does not look into
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden[0](x))


class Pairs(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> Any:
        return torch.randn(4), torch.ones(2) * (index % 3), index % 3


ROWS = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y + 1))
MISTAKES: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    (
        Listed,
        (X, Y),
        {},
        ModelError,
        "Listed calls a Linear that is no part of it, .* keep layers as attributes, or in an nn.ModuleList",
    ),
    (Net(), ROWS, {}, ModelError, "and the labels of TensorDataset begin at 1: count them from 0, such as y - 1"),
    (Net(), (X, Y), {"loss": nn.CrossEntropyLoss}, ConfigError, r"is a class; make one of it: loss=CrossEntropyLoss\(\)"),
    (Net(), (X, Y), {"loss": nn.BCEWithLogitsLoss()}, ModelError, "wants one; for 3 classes use nn.CrossEntropyLoss"),
    (Net(), (X, Y), {"loss": "mae"}, ConfigError, "train.loss = 'mae' is unknown"),
    (Net(), (X, Y), {"scheduler": "cosine"}, TypeError, "unexpected keyword 'scheduler'; did you mean schedule?"),
    (Net(), (X, Y), {"epoch": 3}, TypeError, "did you mean epochs?"),
    (
        Net(),
        (X, Y),
        {"optimizer": "sgd", "schedule": functools.partial(OneCycleLR, max_lr=0.1, total_steps=3)},
        ConfigError,
        "ends after 3 steps, and the run has 10: total_steps=10",
    ),
    (
        Net(),
        [(row, "cat") for row in torch.from_numpy(X)],
        {},
        DataError,
        "gives the label 'cat', and a class is a whole number; give its place in a list of the classes",
    ),
    (
        Net(),
        [{"x": row, "z": row, "label": place % 3} for place, row in enumerate(torch.from_numpy(X))],
        {},
        ModelError,
        "unexpected keyword argument 'z'; it is called with each of them: let its forward take them, or leave them out",
    ),
    (Net(), (X, Y / 2), {}, ModelError, "must give 1; if they are classes, give them as whole numbers"),
    ("net.py", (X, Y), {}, ModelError, "'net.py' names a file and no class in it; name both, such as model=.net.py:Net"),
]


@pytest.mark.parametrize(("model", "data", "options", "error", "said"), MISTAKES)
def test_a_beginner_s_mistake_is_named(model: Any, data: Any, options: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        train(model, data, **options)
    assert "\n" not in str(raised.value)
    assert not Path("run").exists()


def test_a_loss_for_numbers_makes_a_regression_of_whole_numbers() -> None:
    run = train(Net(outputs=1), (X, Y), loss=nn.MSELoss())
    assert run.best is not None
    assert run.best.task == "regression"


@pytest.mark.parametrize(("scale", "is_said"), [(1.0, False), (100.0, True)])
def test_numbers_that_are_large_for_a_model_are_said(scale: float, is_said: bool, capsys: pytest.CaptureFixture[str]) -> None:
    train(Net(outputs=1), (X, scale * X[:, 0] + scale), loss=nn.MSELoss(), quiet=False)
    said = " ".join(capsys.readouterr().out.split())
    assert ("Net is given them as they are: most models learn faster from targets near 0 and 1" in said) == is_said
    assert bool(re.search(r"the targets have mean [\d.]+ and deviation [\d.]+, and", said)) == is_said


def test_several_inputs_are_predicted_one_by_one_and_together() -> None:
    run = train(Both, Pairs())
    predictor = run.predictor()
    one = predictor((torch.zeros(4), torch.ones(2)))
    many = predictor((torch.zeros(3, 4), torch.ones(3, 2)))
    assert [item.label for item in many] == [one.label] * 3
    assert "(4,) and (2,)" in repr(predictor)


def test_another_optimizer_at_resume_is_refused() -> None:
    def optimizer(rate: float) -> Any:
        return lambda parameters: torch.optim.SGD(parameters, lr=rate)

    train(Net, optimizer=optimizer(0.1))
    with pytest.raises(goodfit.GoodfitError, match=r"its learning rate is 0\.1, and the optimiser's 0.5"):
        goodfit.resume("run", data=(X, Y), model=Net, optimizer=optimizer(0.5), epochs=3, quiet=True)


def test_a_class_that_changed_before_resume_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(CODE)
    data = (np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32), np.arange(200) % 10)
    train("net.py:Net", data)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "net.py").write_text(CODE.replace("torch.relu", "torch.tanh"))
    goodfit.resume("run", data=data, model="other/net.py:Net", epochs=3)
    assert "Net is not written as it was when the run was started" in capsys.readouterr().out.replace("\n          ", " ")


def test_data_in_memory_are_asked_for_again() -> None:
    """A folder does not hold them; the run that `train` returned does, for as long as it lives."""
    run = train(Net)
    with pytest.raises(goodfit.GoodfitError, match="given as Python objects; give them again, in Python, as data="):
        goodfit.evaluate(run.path)
    assert run.test
    assert goodfit.evaluate(run).loss == run.test.loss
    again = goodfit.resume(run.path, data=(X, Y), model=Net, epochs=3, quiet=True)
    assert again.test
    assert goodfit.evaluate(again).loss == again.test.loss


def test_other_data_at_resume_are_refused() -> None:
    train(Net)
    for other in ((X + 1, Y), (X[:90], Y[:90]), (X, 2 - Y)):
        with pytest.raises(goodfit.GoodfitError, match=r"memory is not what the run was started with.*; give the same data"):
            goodfit.resume("run", data=other, model=Net, epochs=3, quiet=True)
    assert goodfit.resume("run", data=(X, Y), model=Net, epochs=3, quiet=True).end["step"] == 15  # type: ignore[index]


def test_testing_on_the_training_data_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    train(Net, {"train": (X, Y), "test": (X, Y)}, quiet=False)
    assert "test has the very examples of train" in capsys.readouterr().out
    points = Pairs()
    train(Both, points, test=points, out="again", quiet=False)
    assert "test has the very examples of train" in capsys.readouterr().out


def test_layers_with_more_outputs_than_classes_resume_without_code() -> None:
    train(nn.Sequential(nn.Linear(6, 5)))
    assert goodfit.resume("run", data=(X, Y), epochs=3, quiet=True).predictor().classes == ("0", "1", "2", "3", "4")


def test_a_schedule_of_another_optimizer_is_refused() -> None:
    net = Net()
    mine, other = (torch.optim.SGD(net.parameters(), lr=0.1) for _ in range(2))
    with pytest.raises(ConfigError, match="the schedule is that of another optimizer"):
        train(net, optimizer=mine, schedule=StepLR(other, 1))


def test_a_model_file_is_not_called_what_it_is_not() -> None:
    run = train(Net)
    with pytest.raises(goodfit.GoodfitError, match=r"'net.pth' is no name for a model file.*goodfit export MODEL"):
        run.save("net.pth")
