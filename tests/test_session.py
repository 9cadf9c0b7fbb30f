"""From a plan to the objects that train it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import request, run_through, silent, tiny_pictures

from goodfit.distributed import Ranks
from goodfit.errors import ConfigError, DataError, RunError
from goodfit.models import build_model
from goodfit.randomness import reseed
from goodfit.session import Session, make_session
from goodfit.workflows import plan

SETTINGS: dict[str, Any] = {
    "model.name": "convnet",
    "train.epochs": 2,
    "train.batch_size": 16,
    "train.precision": "fp32",
    "train.device": "cpu",
    "train.threads": 1,
}
TABLE = ([[float(index), float(index % 7)] for index in range(40)], ["yes", "no"] * 20)
NUMBERS = (TABLE[0], [index * 10.0 + 0.5 for index in range(40)])


def session(settings: dict[str, Any] | None = None, data: Any = None) -> Session:
    data = {"train": data or tiny_pictures()}
    made = plan(request(data, Path("run"), SETTINGS | (settings or {})), silent())
    return make_session(made, Ranks(), lambda: False)


def weights(state_dict: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.double().flatten() for _, tensor in sorted(state_dict.items())])


def test_the_first_weights_follow_the_seed_alone() -> None:
    torch.rand(5)
    found = weights(session().state.model.state_dict())
    reseed(0, "init")
    model = build_model("convnet", input_shape=(3, 8, 8), num_outputs=3, arguments={})
    assert torch.equal(found, weights(model.state_dict()))
    assert not torch.equal(found, weights(session({"train.seed": 1}).state.model.state_dict()))


def test_nothing_is_written() -> None:
    session()
    assert not Path("run").exists()


def test_pictures_and_their_weights_have_the_channels_last() -> None:
    made = session()
    assert made.trainer.channels_last
    assert made.trained_model().channels_last
    weight = made.state.model.get_parameter("stem.0.conv.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not session({"model.name": "mlp"}, TABLE).trainer.channels_last


@pytest.mark.parametrize(
    ("settings", "data", "meaning", "columns"),
    [
        ({}, tiny_pictures(), "logits", 3),
        ({"model.name": "mlp", "model.outputs": "one-logit"}, TABLE, "one-logit", 1),
        ({"model.name": "mlp"}, TABLE, "logits", 2),
        ({"model.name": "mlp"}, NUMBERS, "value", 1),
    ],
)
def test_what_the_outputs_mean(settings: dict[str, Any], data: Any, meaning: str, columns: int) -> None:
    made = session(settings, data)
    assert made.trained_model().outputs == made.model_file(None).outputs == meaning
    assert made.trained_model()(made.plan.dataset.train.inputs[:4]).shape == (4, columns)


def test_the_average_is_what_is_evaluated_and_shipped() -> None:
    made = session({"train.ema": 0.9})
    for _ in made.trainer.steps(3):
        pass
    assert made.state.ema is not None
    averaged = weights(made.state.ema.module.state_dict())
    assert torch.equal(weights(made.model_file(None).tensors), averaged)
    assert torch.equal(weights(made.trained_model().module.state_dict()), averaged)
    assert not torch.equal(weights(made.state.model.state_dict()), averaged)


def test_the_record_says_how_and_not_where() -> None:
    made = session({"optim.name": "adam", "data.root": "somewhere", "data.budget": 1.0})
    next(made.trainer.steps(1))
    record = made.model_file(None).training
    assert record["steps"] == 1
    assert record["epochs"] == round(1 / 3, 6)
    assert record["examples"] == {"train": 43, "val": 5, "test": 12}
    assert record["fingerprint"] == made.plan.dataset.fingerprint
    configuration = record["configuration"]
    assert configuration["optim.name"] == "adam"
    assert configuration["optim.lr"] == 0.001
    left_out = made.plan.config.flat().keys() - configuration.keys()
    assert left_out == {
        "data.name",
        "data.root",
        "data.processes",
        "data.budget",
        "data.timeout",
        "train.device",
        "train.threads",
    }


def test_a_frozen_body_stays_as_it_came() -> None:
    made = session({"model.freeze": True, "model.dropout": 0.5})
    before = {name: tensor.clone() for name, tensor in made.state.model.state_dict().items()}
    for _ in made.trainer.steps(made.plan.total_steps):
        made.trained_model()(made.plan.dataset.train.inputs[:4])  # which is evaluation
    moved = {name for name, tensor in made.state.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"head.weight", "head.bias"}
    assert len(made.trainer.parameters) == 2


@pytest.mark.parametrize("freeze", [False, True])
def test_training_goes_on_from_a_model_file(freeze: bool, tmp_path: Path) -> None:
    run = run_through({"train": tiny_pictures()}, tmp_path / "run", SETTINGS | {"model.width": 4})
    made = session({"model.name": str(run.model), "model.freeze": freeze, "train.seed": 5})
    assert run.best is not None
    assert torch.equal(weights(made.state.model.state_dict()), weights(run.best.tensors))
    assert made.plan.config.model.arguments == {"width": 4, "depth": 2, "dropout": 0.0}
    before = weights(made.state.model.state_dict())
    next(made.trainer.steps(1))
    assert not torch.equal(weights(made.state.model.state_dict()), before)
    assert len(made.trainer.parameters) == (2 if freeze else len(list(made.state.model.parameters())))


def test_fp16_scales_the_loss_and_is_not_fused() -> None:
    sgd = {"optim.name": "sgd"}
    half, full = session({"train.precision": "fp16"} | sgd), session(sgd)
    assert (half.state.scaler.is_enabled(), full.state.scaler.is_enabled()) == (True, False)
    assert (half.state.optimizer.defaults["fused"], full.state.optimizer.defaults["fused"]) == (None, True)


@pytest.mark.parametrize("key", ["flip", "crop", "cutout", "rand", "cutmix"])
def test_changes_of_pictures_are_refused_for_others(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^augment\.{key} is for pictures, and memory has none; leave it out$"):
        session({"model.name": "mlp", f"augment.{key}": True if key == "flip" else 1, "augment.mixup": 0.5}, TABLE)


def test_mixing_is_for_classes() -> None:
    next(session({"model.name": "mlp", "augment.mixup": 0.5}, TABLE).trainer.steps(1))
    with pytest.raises(ConfigError, match="are for classes, and the target is a number"):
        session({"model.name": "mlp", "augment.mixup": 0.5}, NUMBERS)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train.batch_size": 1000}, "train.batch_size = 1000 is more than the 43 training examples"),
        ({"optim.nesterovv": True}, "optim.nesterovv.*did you mean optim.nesterov"),
        ({"schedule.gamma": 0.5}, "schedule.gamma"),
        ({"model.widht": 5}, "widht.*did you mean width"),
        ({"train.class_weights": [1.0, 2.0]}, "has 2 weights for 3 classes"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        session({"optim.name": "sgd", "schedule.name": "cosine"} | settings)


def test_its_methods_name_keywords_and_not_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any) -> None:
        raise DataError("no batch came in time; wait longer with --set data.timeout=SECONDS")

    made, longer = session(), r'wait longer with settings=\{"data\.timeout": SECONDS\}$'
    monkeypatch.setattr("goodfit.session.evaluate", slow)
    monkeypatch.setattr(made.trainer, "batch", slow)
    monkeypatch.setattr(made.trainer, "step", slow)
    for method in (made.evaluate, made.pictures, lambda: next(made.steps())):
        with pytest.raises(DataError, match=longer):
            method()
    with pytest.raises(RunError, match=r"choose another path=$"):
        made.save(tmp_path / "none" / "model.safetensors")
