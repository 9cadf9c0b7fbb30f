"""The Python face: what a notebook or a script calls."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import tiny_pictures
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import goodfit
from goodfit.api import Options
from goodfit.errors import ConfigError, DataError, DeviceError, FileError, InputError, ModelError

FAST: dict[str, Any] = {"train.threads": 1, "train.precision": "fp32"}
X = np.linspace(-1, 1, 80, dtype=np.float32).reshape(40, 2)
Y = (X.sum(1) > 0).astype(int)


def train(data: Any = (X, Y), **options: Any) -> goodfit.Run:
    settings = FAST | options.pop("settings", {})
    return goodfit.train(data, **({"epochs": 2, "quiet": True, "out": "run", "device": "cpu"} | options), settings=settings)


def weights(run: goodfit.Run) -> torch.Tensor:
    assert run.best is not None
    return torch.cat([tensor.double().flatten() for tensor in run.best.tensors.values()])


def accuracy(evaluation: Any) -> float:
    return float(evaluation.accuracy)


@pytest.mark.parametrize(
    "data",
    [(torch.tensor(X), torch.tensor(Y)), (X, Y.tolist()), [X.tolist(), Y], {"train": (X, Y)}],
    ids=["tensors", "arrays", "lists", "dict"],
)
def test_the_same_data_give_the_same_run_in_any_form(data: Any) -> None:
    run = train(data)
    assert torch.equal(weights(run), weights(train(out="other")))
    assert run.test is not None
    assert repr(run) == f"Run('run'): {run.test.summary()}"


def test_keywords_are_the_keys_of_the_configuration() -> None:
    options = {"model": "mlp", "batch_size": 8, "optimizer": "sgd", "lr": 0.25, "seed": 4, "val": 0.25, "recipe": "table"}
    run = train(**options, settings={"model.hidden": [7], "train.ema": 0.5})
    expected = {
        "data.name": "memory",
        "data.val": 0.25,
        "model.name": "mlp",
        "model.hidden": [7],
        "train.epochs": 2,
        "train.batch_size": 8,
        "train.device": "cpu",
        "train.seed": 4,
        "train.ema": 0.5,
        "optim.name": "sgd",
        "optim.lr": 0.25,
    }
    flat = run.config.flat()
    assert {key: flat[key] for key in expected} == expected


def test_files_are_trained_on_by_path(tmp_path: Path) -> None:
    rows = "".join(f"{a},{b},{'yes' if y else 'no'}\n" for (a, b), y in zip(X, Y, strict=True))
    Path("table.csv").write_text(f"a,b,answer\n{rows}")
    run = train(Path("table.csv"), target="answer", config=None)
    assert run.predictor().classes == ("no", "yes")
    assert run.predictor()({"a": 0.5, "b": 0.5}).label in ("no", "yes")
    again = train(Path("table.csv"), config=run.path / "config.toml", out="again")
    assert torch.equal(weights(run), weights(again))


def test_a_configuration_file_repeats_a_run_in_memory() -> None:
    run = train(lr=0.02, seed=3)
    again = goodfit.train((X, Y), config=run.path / "config.toml", out="again", quiet=True)
    assert torch.equal(weights(run), weights(again))
    assert again.config == run.config


def test_splits_of_one_s_own_are_kept() -> None:
    parts = {"train": (X[:30], Y[:30]), "val": (X[30:], Y[30:]), "test": (X[20:], Y[20:])}
    run = train(parts["train"], val=parts["val"], test=parts["test"])
    assert run.best is not None
    assert run.best.training["examples"] == {"train": 30, "val": 10, "test": 20}
    assert goodfit.evaluate(run, parts) == run.test
    assert run.test_uses == 2


def test_a_run_is_loaded_saved_and_evaluated() -> None:
    run = train()
    saved = run.save("model.safetensors")
    assert saved.read_bytes() == run.model.read_bytes()
    for path in ("model.safetensors", "run", Path("run")):
        predictor = goodfit.load(path)
        assert predictor(X[0]) == run.predictor()(X[0])
        assert isinstance(predictor(X[0]), goodfit.Prediction)
        assert [item.label for item in predictor(X[:3])] == [predictor(row).label for row in X[:3]]
    assert run.test is not None
    for model in (run, "run", goodfit.load("run"), saved):
        assert goodfit.evaluate(model, (X, Y)) == run.test
    assert goodfit.evaluate(run, (X, Y), split="val") == run.val
    assert goodfit.evaluate(run, (X[:10], Y[:10])).n == 10


def test_numbers_are_estimated() -> None:
    run = train((X, X.sum(1) * 100))
    assert isinstance(run.predictor()(X[0]), goodfit.Estimate)


def test_training_can_be_gone_on_with() -> None:
    longer = train(out="longer", epochs=4, settings={"schedule.name": "constant"})
    run = train(settings={"schedule.name": "constant"})
    assert torch.equal(weights(goodfit.resume("run", data=(X, Y), epochs=4, quiet=True)), weights(longer))
    again = goodfit.resume(run.path, data=(X, Y), quiet=True)  # which is finished
    assert torch.equal(weights(again), weights(longer))


def test_a_loop_of_one_s_own() -> None:
    trainer = goodfit.trainer((X, Y), model="mlp", device="cpu", batch_size=8, settings=FAST)
    losses = [float(step.loss) for step in trainer.steps(until=40)]
    assert trainer.state.step == 40
    assert losses[-1] < losses[0]
    assert [step.index for step in trainer.steps(until=42)] == [40, 41]
    assert [step.index for step in trainer.steps()][-1] == trainer.total_steps - 1
    assert not list(Path().iterdir())


def test_a_loop_of_one_s_own_is_left_where_it_is_without_a_word() -> None:
    program = "import goodfit; turns = goodfit.trainer('digits', model='mlp', device='cpu').steps(); print(next(turns).index)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_what_is_given_in_the_wrong_form_is_said_in_one_line() -> None:
    with pytest.raises(DataError, match="the data are None; give a name, a path, or the data themselves"):
        goodfit.train(None)
    with pytest.raises(ConfigError, match=r"settings = 'train.ema' is no dict; give keys with their values"):
        goodfit.train((X, Y), settings="train.ema")  # type: ignore[arg-type]
    with pytest.raises(FileError, match=r"5 is no path; give that of a model file or a run folder"):
        goodfit.load(5)  # type: ignore[arg-type]
    short = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=50, drop_last=True)
    with pytest.raises(DataError, match="gives no batches: it has 40 examples, batch_size=50 and drop_last=True"):
        goodfit.train(short)


def test_it_says_what_it_does_unless_it_is_to_be_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    train()
    assert capsys.readouterr().out == ""
    train(quiet=False, out="other")
    assert "accuracy" in capsys.readouterr().out


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]


def test_ctrl_c_saves_and_then_interrupts() -> None:
    before = handlers()
    lines = Path("run/metrics.jsonl")

    def interrupt() -> None:
        while not lines.exists() or not lines.stat().st_size:  # until the first step has been logged
            if stop.wait(0.001):
                return
        os.kill(os.getpid(), signal.SIGINT)

    stop = threading.Event()
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt, match=r"stopped by SIGINT; go on with goodfit\.resume"):
            train(epochs=3000, batch_size=8)
    finally:
        stop.set()
        thread.join()
    assert handlers() == before
    run = goodfit.Run(Path("run"))
    assert run.end is None
    [checkpoint] = run.checkpoints.iterdir()
    assert 0 < int(checkpoint.name.removeprefix("step-")) < 3000 * 4


def test_handlers_are_put_back() -> None:
    before = handlers()
    train()
    with pytest.raises(DataError):
        train("absent.csv", out="another")
    assert handlers() == before


def test_other_threads_train_too() -> None:
    found: list[goodfit.Run] = []
    thread = threading.Thread(target=lambda: found.append(train()))
    thread.start()
    thread.join()
    assert found[0].test is not None


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"data": "mnits"}, DataError, "did you mean mnist"),
        ({"data": (X, Y, Y)}, DataError, r"give a pair \(X, y\)"),
        ({"data": 5}, DataError, "give a pair"),
        ({"data": (X, Y[:-1])}, DataError, "40 examples and 39 targets"),
        ({"data": "digits", "val": (X, Y)}, DataError, "val in memory go with training data in memory, and data='digits'"),
        ({"model": "mpl"}, ModelError, "did you mean mlp"),
        (
            {"model": nn.Linear(3, 2)},
            ModelError,
            r"Linear cannot take a batch of float32 \(4, 2\): RuntimeError: .*mat1 and mat2",
        ),
        (
            {"model": nn.Linear},
            ConfigError,
            "missing a required argument: 'in_features'; set its arguments as settings={\"model.NAME\": VALUE}",
        ),
        ({"model": 5}, ModelError, "5 is no model; give a name of `goodfit models`, a torch.nn.Module, or what builds one"),
        ({"optimizer": "sdg"}, ConfigError, "did you mean sgd"),
        ({"batch_size": "all"}, ConfigError, "train.batch_size"),
        ({"val": 1.5}, ConfigError, r"data\.val = 1\.5 \(from val=\)"),
        ({"settings": {"train.epoch": 5}}, ConfigError, "did you mean train.epochs"),
        ({"device": "gpu"}, DeviceError, "unknown device 'gpu'"),
        ({"config": "absent.toml"}, ConfigError, "does not exist"),
    ],
)
def test_what_is_wrong_is_a_typed_error_in_one_line(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        train(**options)
    assert isinstance(raised.value, InputError)
    assert isinstance(raised.value, goodfit.GoodfitError)
    assert "\n" not in str(raised.value)
    assert not Path("run").exists()


def test_what_is_no_run_or_model() -> None:
    Path("model.safetensors").write_bytes(b"12345678 not a model")
    for path in ("absent", "model.safetensors"):
        with pytest.raises(FileError, match=path):
            goodfit.load(path)
        with pytest.raises(FileError, match=path):
            goodfit.resume(path)
    train()
    with pytest.raises(FileError, match="'run' exists and is not empty"):
        train()


def test_what_is_said_names_keywords_and_not_flags(capsys: pytest.CaptureFixture[str]) -> None:
    run = train()
    with pytest.raises(FileError, match=r"exists and is not empty; choose another out=$"):
        train()
    with pytest.raises(ConfigError, match=r"has already trained 2 epochs; ask for more than that with epochs=$"):
        goodfit.resume(run.path, data=(X, Y), epochs=1)
    goodfit.resume(run.path, data=(X, Y))
    assert capsys.readouterr().out == 'this run has finished; give it more epochs with: goodfit.resume("run", epochs=N)\n'


def test_an_unknown_keyword_is_python_s_own_error() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword 'epoch'; did you mean epochs"):
        train(epoch=3)
    with pytest.raises(TypeError, match="unexpected keyword 'epoch'"):
        goodfit.trainer((X, Y), epoch=3)


def test_pictures_are_classified() -> None:
    inputs, targets = tiny_pictures(90)
    run = train((inputs, np.array(["cat", "dog", "eel"])[targets]), epochs=5)
    assert accuracy(run.test) > 0.5
    assert run.predictor()(inputs[0].transpose(1, 2, 0)).label in ("cat", "dog", "eel")


def test_the_help_names_every_keyword() -> None:
    said = " ".join((goodfit.train.__doc__ or "").split())
    for name in Options.__annotations__:
        assert re.search(rf"\b{name}\b", said), name


def test_importing_goodfit_imports_nothing_heavy() -> None:
    code = "import goodfit, sys; print(sorted({'torch', 'numpy', 'pydantic', 'rich'} & sys.modules.keys()), dir(goodfit))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[] {sorted(goodfit.__all__)}"
    assert all(getattr(goodfit, name) for name in goodfit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = goodfit.trian
