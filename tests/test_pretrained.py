"""Training that goes on from pretrained weights: chosen where they are at hand, needed once, kept in the run folder."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import StopAt, fingerprints, request, run_through, silent
from test_eject import Case, check_same_weights, put_data

from goodfit.config import Layer
from goodfit.errors import Interrupted, ModelError
from goodfit.planning import Plan, make_plan
from goodfit.signals import StopSignals
from goodfit.workflows import resume, train

SHUFFLENET = {"model.name": "torchvision/shufflenet_v2_x0_5", "model.pretrained": True}
FEW = {"train.epochs": 2, "train.batch_size": 20, "train.threads": 1, "checkpoint.every_seconds": 0.0}


def photos(side: int = 72, channels: int = 3, count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 255, (count, channels, side, side), dtype=torch.uint8, generator=draw), torch.arange(count) % 3


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put weights of an architecture where torchvision keeps those that it has fetched; every download fails at once."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # an earlier test's, which knows no proxy

    def put(architecture: str) -> Path:
        from torchvision.models import get_model, get_model_weights

        torch.manual_seed(5)
        path = tmp_path / "home" / "hub" / "checkpoints" / Path(get_model_weights(architecture).DEFAULT.url).name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(get_model(architecture).state_dict(), path)
        return path

    return put


def plan(data: Any, level: str = "auto", **settings: Any) -> Plan:
    layers = [
        Layer("test", {"data.name": "memory", "train.threads": 1} | {f"model.{key}": value for key, value in settings.items()})
    ]
    return make_plan({"train": data}, layers, level)


def chosen(made: Plan) -> tuple[str, str, bool]:
    assert made.recipe
    return made.recipe.name, made.config.model.name, made.config.model.pretrained


def test_larger_colour_pictures_go_on_from_weights_that_are_at_hand(weights: Any) -> None:
    none = plan(photos())
    assert chosen(none) == ("auto: pictures", "resnet18", False)
    (note,) = none.notes
    assert "the pretrained weights of torchvision/resnet18 are not on this disk" in note
    assert "--set model.pretrained=true" in note
    weights("resnet18")
    found = plan(photos())
    assert chosen(found) == ("auto: pretrained-pictures", "torchvision/resnet18", True)
    assert found.notes == ()
    assert found.config.optim.name == "adamw"


@pytest.mark.parametrize(
    ("data", "settings", "expected"),
    [
        (photos(channels=1), {}, ("auto: pictures", "resnet18", False)),
        (photos(side=32), {}, ("auto: small-colour-pictures", "whitened-vgg", False)),
        (photos(), {"pretrained": False}, ("auto: pictures", "resnet18", False)),
        (photos(), {"name": "convnet"}, ("auto: pictures", "convnet", False)),
        (photos(side=32), {"pretrained": True}, ("auto: pretrained-pictures", "torchvision/resnet18", True)),
    ],
)
def test_others_are_trained_from_the_start_unless_asked(weights: Any, data: Any, settings: Any, expected: Any) -> None:
    weights("resnet18")
    made = plan(data, **settings)
    assert chosen(made) == expected
    assert made.notes == ()


def test_another_pretrained_network_has_the_recipe_for_such(weights: Any) -> None:
    weights("shufflenet_v2_x0_5")
    named, pretrained = (
        plan(photos(), name=SHUFFLENET["model.name"]),
        plan(photos(), name=SHUFFLENET["model.name"], pretrained=True),
    )
    assert chosen(pretrained) == ("auto: pretrained-pictures", SHUFFLENET["model.name"], True)
    assert pretrained.config.optim.lr < named.config.optim.lr  # type: ignore[operator]


def test_weights_that_are_asked_for_and_cannot_be_had_are_an_error(weights: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="weights of torchvision/resnet18 could not be had"):
        run_through({"train": photos()}, tmp_path / "run", FEW | {"model.pretrained": True})
    assert not (tmp_path / "run").exists()


def test_a_run_needs_the_weights_once(weights: Any, tmp_path: Path) -> None:
    """Its first weights are in its folder: it is resumed, also from its start, where they are no longer at hand."""
    data = {"train": photos()}
    file = weights("shufflenet_v2_x0_5")
    whole = run_through(data, tmp_path / "whole", FEW | SHUFFLENET)
    out = tmp_path / "stopped"
    with suppress(Interrupted):
        train(request(data, out, FEW | SHUFFLENET), silent(), StopAt(1))
    file.unlink()
    shutil.copytree(out, tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun" / "checkpoints")
    for place in (out, tmp_path / "begun"):
        assert fingerprints(resume(place, silent(), StopSignals(), data=data)) == fingerprints(whole)
    longer = resume(out, silent(), StopSignals(), epochs=3, data=data)
    assert (longer.config.model.pretrained, longer.config.train.epochs) == (True, 3)


def test_eject_writes_a_run_that_went_on_from_pretrained_weights(weights: Any, tmp_path: Path) -> None:
    weights("shufflenet_v2_x0_5")
    pictures, targets = (tensor.numpy() for tensor in photos())
    case = Case(FEW | SHUFFLENET, data=(pictures, targets), edit=put_data(pictures, targets, tmp_path))
    programs = check_same_weights({"pretrained": case}, tmp_path)
    assert "model.load_state_dict(load_file(START))" in programs["pretrained"]
