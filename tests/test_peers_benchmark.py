"""The contestants of `benchmarks/peers` train the same: equal losses, update by update, and the batches that were asked for."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import goodfit

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))

from benchmarks.peers.contestants import CONTESTANTS, choose  # noqa: E402
from benchmarks.peers.request import Request  # noqa: E402
from benchmarks.peers.with_goodfit import options  # noqa: E402
from benchmarks.peers.works import Pictures, Work, build_digits, build_quick, tiny  # noqa: E402

Train = Callable[[Work], object]

STEPS, EXAMPLES = 20, 96
PICTURES = {"mnist-mlp": ((1, 28, 28), 0.5, 0.5, build_digits), "cifar10-quick": ((3, 32, 32), 0.0, 1.0, build_quick)}
KINDS = ["tiny", *PICTURES]
NO_TORCH_LOSS = {
    "goodfit",
    "goodfit, precision auto",
    "Keras on torch",
}  # they compute it by code of their own, and goodfit writes it down
# Imported here, as some change the environment when they are.
TRAINERS = {
    f"{work}, {name}": (work, CONTESTANTS[name].load())
    for work in KINDS
    for name in choose(work, None)[0]
    if name not in NO_TORCH_LOSS
}
KERAS = import_module("benchmarks.peers.with_keras") if CONTESTANTS["Keras on torch"].is_installed else None
everyone = pytest.mark.parametrize(("kind", "train"), TRAINERS.values(), ids=TRAINERS)


class Recorded(nn.CrossEntropyLoss):
    """Remembers each loss and the targets that it was of."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.targets: list[list[int]] = []

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = super().forward(outputs, targets)
        self.losses.append(loss.item())
        self.targets.append(targets.tolist())
        return loss


def generated(kind: str, batch_size: int, epochs: int) -> Work:
    work = tiny(Request(kind, EXAMPLES)) if kind == "tiny" else pictures(kind)
    options_of_goodfit = {**work.goodfit, "settings": {**work.goodfit.get("settings", {}), "log.every_steps": 1}}
    return replace(work, goodfit=options_of_goodfit, epochs=epochs, batch_size=batch_size, lr=0.1, loss=Recorded())


def pictures(kind: str) -> Work:
    shape, mean, std, build = PICTURES[kind]
    stored = torch.randint(0, 256, (EXAMPLES, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(EXAMPLES) % 10
    return Work(stored, targets, (stored, targets), build, mean, std, {"recipe": kind})


@cache
def losses_of_goodfit(kind: str) -> tuple[list[float], list[Tensor]]:
    """Train with all examples in each batch, so that their order makes no difference; return losses and first weights."""
    work = generated(kind, batch_size=EXAMPLES, epochs=STEPS)
    start = [parameter.detach().clone() for parameter in goodfit.trainer(**options(work)).model.parameters()]
    run = goodfit.train(out=f"run-{kind}", quiet=True, **options(work))
    return [line["loss"] for line in run.metrics if line["event"] == "train"], start


def starting_from(build: Callable[[], nn.Sequential], start: list[Tensor]) -> Callable[[], nn.Sequential]:
    def made() -> nn.Sequential:
        model = build()
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), start, strict=True):
                parameter.copy_(value)
        return model

    return made


@everyone
def test_everyone_has_the_losses_of_goodfit(kind: str, train: Train) -> None:
    expected, start = losses_of_goodfit(kind)
    assert len(expected) == STEPS
    assert expected[-1] < expected[0] - 0.01  # it does learn
    work = generated(kind, batch_size=EXAMPLES, epochs=STEPS)
    train(replace(work, build=starting_from(work.build, start)))
    assert work.loss.losses == pytest.approx(expected, rel=1e-4)


def test_another_precision_makes_the_same_updates(tmp_path: Path) -> None:
    expected, _ = losses_of_goodfit("cifar10-quick")
    work = generated("cifar10-quick", batch_size=EXAMPLES, epochs=STEPS)
    settings = {**work.goodfit["settings"], "train.precision": "bf16"}
    run = goodfit.train(
        out=tmp_path / "run", quiet=True, **options(replace(work, goodfit={**work.goodfit, "settings": settings}))
    )
    losses = [line["loss"] for line in run.metrics if line["event"] == "train"]
    assert losses == pytest.approx(expected, rel=0.01)
    assert losses != expected


@everyone
def test_everyone_sees_each_example_once_an_epoch_in_batches_of_the_size_asked_for(kind: str, train: Train) -> None:
    work = generated(kind, batch_size=36, epochs=2)
    train(work)
    assert [len(batch) for batch in work.loss.targets] == [36, 36, 24] * 2
    epochs = [list(chain(*work.loss.targets[first : first + 3])) for first in (0, 3)]
    assert Counter(epochs[0]) == Counter(epochs[1]) == Counter(work.targets.tolist())
    assert epochs[0] != epochs[1] != work.targets.tolist()  # shuffled, anew each time
    assert work.num_updates == 6


def test_pictures_are_what_the_others_have_in_memory() -> None:
    from torchvision.transforms import Compose, Normalize, ToTensor

    work = generated("cifar10-quick", batch_size=4, epochs=1)
    one_by_one = Pictures(work.stored, work.targets, Compose([ToTensor(), Normalize(work.mean, work.std)]))
    assert torch.allclose(torch.stack([inputs for inputs, _ in one_by_one]), work.inputs, atol=1e-6)


@pytest.mark.skipif(KERAS is None, reason="Keras is not installed; pip install goodfit[bench]")
@pytest.mark.parametrize("kind", KINDS)
def test_keras_computes_the_same_function(kind: str) -> None:
    work = generated(kind, batch_size=4, epochs=1)
    model = work.build()
    with torch.no_grad():
        outputs = KERAS.translate(model, work.inputs.shape[1:])(work.inputs)
        assert torch.allclose(outputs, model(work.inputs), atol=1e-5)


@pytest.mark.slow
def test_the_command_prints_a_table_of_those_who_take_part(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.peers", "overhead", "--rounds", "2", "--examples", "320"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    asked = [*command, "--only", "goodfit", "hand-written loop"]
    done = subprocess.run(asked, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows[2:]] == ["| hand-written loop", "| goodfit"]
    assert all(float(row[1]) > 0 for row in rows[2:])
