"""What people give that is nearly right: each is taken, or refused in one line before anything is written."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command import goodfit as command
from command import write_pictures
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import goodfit
from goodfit.errors import ConfigError, DataError, FileError, ModelError

X = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
PAIRS = TensorDataset(X, Y)


class Net(nn.Module):
    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, hidden), nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc2(torch.relu(self.fc1(x)))
        return result


class Listed(Dataset[Any]):
    """A data set of the user's own: its examples, and whatever else is set on it."""

    def __init__(self, examples: list[Any], **attributes: Any) -> None:
        self.examples = examples
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        return self.examples[index]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOODFIT_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)


def train(data: Any = PAIRS, model: Any = Net, **options: Any) -> goodfit.Run:
    settings = {"train.threads": 1} | options.pop("settings", {})
    return goodfit.train(data, model=model, settings=settings, **{"epochs": 1, "quiet": True, "out": "run"} | options)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_class_whose_modules_cannot_be_copied_is_trained() -> None:
    class Locked(Net):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    assert train(model=Locked).test
    with pytest.raises(ModelError, match=r"Locked cannot be copied: .*; give the class instead, model=Locked"):
        train(model=Locked(), out="other")


class Keeping(Net):
    """Keeps what it computed in training, with its gradient: such a module cannot be copied any more."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.features = self.fc1(x)
        return super().forward(x)


def test_what_a_module_keeps_of_training_does_not_fail_the_test() -> None:
    run = train(model=Keeping, epochs=3)
    assert run.test
    assert goodfit.evaluate(run).loss == run.test.loss


def test_a_moving_average_of_what_cannot_be_copied_is_refused() -> None:
    def locked() -> Net:
        net = Net()
        net.lock = threading.Lock()
        return net

    with pytest.raises(
        ModelError, match=r"Net cannot be copied .*, and train.ema averages the weights of a copy; leave it out"
    ):
        train(model=locked, settings={"train.ema": 0.9})


class Cached(Net):
    """Keeps a table that grows with what it is shown, also in evaluation."""

    table: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None or len(self.table) < len(x):
            self.table = torch.ones(len(x), 6) * self.fc1.weight.new_ones(())
        return super().forward(x * self.table[: len(x)])


def test_what_a_module_keeps_of_an_evaluation_can_be_trained_with() -> None:
    assert train(model=Cached, epochs=3, batch_size=10).test


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.EmbeddingBag(9, 2, sparse=True)), r"0 has sparse=True, and sparse gradients are not built yet"),
        (lambda: nn.EmbeddingBag(9, 2, sparse=True), r"has sparse=True.*build it with sparse=False"),
        (nn.Sequential(nn.Linear(6, 2, dtype=torch.complex64)), r"'0.weight' is torch.complex64, and complex weights are not"),
    ],
)
def test_weights_of_a_kind_that_is_not_built_yet_are_named(model: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        train(model=model)
    assert not Path("run").exists()


class Failing(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise ValueError("not like this")


def test_an_optimizer_that_cannot_step_is_named_before_anything_is_written() -> None:
    with pytest.raises(
        ConfigError, match=r"optimiser test_own_limits\.py:Failing cannot take a step by itself: ValueError: not"
    ):
        train(optimizer=Failing)
    assert not Path("run").exists()


def test_the_weights_of_a_lazy_module_that_do_not_fit_are_named() -> None:
    def lazy(hidden: int) -> nn.Module:
        return nn.ModuleList([nn.LazyLinear(hidden), nn.Linear(hidden, 2)])

    class Lazy(nn.Module):
        def __init__(self, hidden: int = 5) -> None:
            super().__init__()
            self.parts = lazy(hidden)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.parts[1](self.parts[0](x))
            return result

    run = train(model=Lazy)
    with pytest.raises(
        FileError, match=r"the weights do not fit .*size mismatch for parts.1.weight.*; give what built the model"
    ):
        goodfit.load(run.model, model=lambda: Lazy(7))


def test_a_compiled_module_is_trained_as_what_it_was_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    net = Net()
    before = net.fc1.weight.clone()
    run = train(model=torch.compile(net), quiet=False)
    assert "Net is trained as it is: torch.compile is not built yet" in said(capsys)
    assert run.best
    assert torch.equal(net.fc1.weight, run.best.tensors["fc1.weight"])
    assert not torch.equal(net.fc1.weight, before)


def test_a_loader_of_one_batch_gives_one_of_what_is_left_to_train_on() -> None:
    run = train(DataLoader(PAIRS, batch_size=len(PAIRS), shuffle=True))
    assert run.config.train.batch_size == "full"
    assert run.end
    assert run.end["step"] == 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (X.double(), r"the layer fc1 \(Linear\) has weights of torch.float32 and got torch.float64; give it float32"),
        (X.long(), r"the layer fc1 \(Linear\) has weights of torch.float32 and got torch.int64; give it float32"),
    ],
)
def test_inputs_of_another_kind_than_the_weights_are_named(inputs: Tensor, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        train(Listed(list(zip(inputs, Y.tolist(), strict=True))))


def test_names_of_classes_beside_other_targets_are_left_alone() -> None:
    inputs = list(X)
    values = Listed(list(zip(inputs, X[:, 0].tolist(), strict=True)), classes=["a", "b"])
    assert train(values, nn.Linear(6, 1)).best.task == "regression"  # type: ignore[union-attr]
    changed = Listed(list(zip(inputs, Y.tolist(), strict=True)), classes=["a", "b", "c"], target_transform=lambda label: label)
    assert train(changed, Net, out="changed").best.classes == ("0", "1")  # type: ignore[union-attr]
    with pytest.raises(DataError, match="has the class 2, and there are 2: count them from 0"):
        train(Listed([(row, index % 3) for index, row in enumerate(inputs)], classes=["a", "b"]), Net, out="other")


class Picky(nn.Module):
    """Takes only what is like real pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        assert (x[0] - x[1]).abs().max() < 3, "no pictures"
        result: Tensor = self.fc(x.mean((2, 3)))
        return result


def test_a_module_that_minds_the_numbers_is_tried_on_real_ones() -> None:
    assert train(write_pictures(Path("photos")), Picky).test


def test_tensors_that_no_file_keeps_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    class Shifted(Net):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.ones(6)

    train(model=Shifted, quiet=False)
    printed = said(capsys)
    assert "shift: a tensor that no file keeps, so a loaded model has what" in printed
    assert 'register_buffer("shift", ...) keeps it' in printed
    train(quiet=False, out="other")
    assert "no file keeps" not in said(capsys)


def test_what_is_done_to_arrays_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    note = "Net is given numbers of mean 0 and deviation 1, which a predictor sees to"
    train((X.numpy(), Y.numpy()), quiet=False)
    assert note in said(capsys)
    train(quiet=False, out="as they are")
    assert note not in said(capsys)


@pytest.mark.parametrize(
    ("loss", "options", "note"),
    [
        (nn.CrossEntropyLoss(), {}, ""),
        (F.multi_margin_loss, {}, "val loss, which chooses the best epoch, and test loss are the plain cross-entropy"),
        (F.multi_margin_loss, {"val": 0}, "small; test loss is the plain cross-entropy"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), {}, "are the plain cross-entropy"),
    ],
)
def test_another_loss_than_the_one_that_is_measured_is_said(
    capsys: pytest.CaptureFixture[str], loss: Any, options: Any, note: str
) -> None:
    train(loss=loss, quiet=False, **options)
    printed = said(capsys)
    assert note in printed
    assert ("your loss is what training makes small" in printed) == bool(note)


SCRIPT = """
import goodfit, torch
from torch import nn
from torch.utils.data import TensorDataset

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        return self.fc(x)

X = torch.randn(60, 6)
goodfit.train(TensorDataset(X, (X[:, 0] > 0).long()), model=Net, epochs=1, out="run", settings={"train.threads": 1})
"""


def test_a_script_that_trains_is_not_run_for_its_model() -> None:
    Path("script.py").write_text(SCRIPT)
    subprocess.run([sys.executable, "script.py"], check=True, capture_output=True)
    done = command("evaluate", "run", "--model", "script.py:Net")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "script.py is run for the model that it defines, and calls goodfit itself; put that call behind" in done.err
    assert sorted(path.name for path in Path().iterdir() if path.is_dir() and path.name != "__pycache__") == ["run"]


def test_pictures_are_not_given_to_a_model_of_ready_numbers() -> None:
    photos = write_pictures(Path("photos"))
    inputs = torch.rand(40, 3, 8, 8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    for data in (Listed(list(zip(inputs, [0, 1] * 20, strict=True))), (inputs.numpy(), np.array([0, 1] * 20))):
        run = train(data, model, out=f"run-{type(data).__name__}")
        done = command("evaluate", run.path, "photos")
        assert done.code == 2
        assert "'photos' holds pictures, and the model was trained on numbers that it was given" in done.err
        done = command("predict", run.path, photos / "cat" / "0.png")
        assert done.code == 2
        assert "takes numbers as they were given to its training, and no files; predict in Python: goodfit.load(" in done.err


@pytest.mark.parametrize("data", [PAIRS, DataLoader(PAIRS, 10, shuffle=True), Listed(list(PAIRS))])
def test_the_data_that_a_model_was_trained_on_are_known_again(data: Any) -> None:
    """Else it would be measured on what it has learned, too."""
    run = train(data)
    assert run.test
    for again in (goodfit.evaluate(run), goodfit.evaluate(goodfit.load(run.model, model=Net), data)):
        assert (again.split, again.loss) == ("test", run.test.loss)
