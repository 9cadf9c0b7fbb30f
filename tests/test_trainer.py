"""The step: a plain PyTorch loop with nothing added, whatever the parts, the ranks or the options."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from goodfit.data.augment import Augmentation
from goodfit.data.dataset import Split
from goodfit.data.loader import Loader
from goodfit.data.tensor_transform import fit_tensor_transform
from goodfit.distributed import Ranks
from goodfit.models.freezing import freeze_body
from goodfit.randomness import generator, reseed
from goodfit.training.ema import MovingAverage
from goodfit.training.losses import CrossEntropy, Loss
from goodfit.training.optimizers import build_optimizer
from goodfit.training.schedules import build_schedule
from goodfit.training.state import RunState
from goodfit.training.trainer import Trainer

CPU = torch.device("cpu")
SEED, COUNT, BATCH = 3, 22, 6  # 4 steps an epoch, the last of 4 examples
INPUTS = torch.randn(COUNT, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(COUNT) % 3
WEIGHTS = torch.tensor([1.0, 5.0, 0.5])


@dataclass(frozen=True)
class QuietRanks(Ranks):
    """A rank that keeps its gradients to itself, so that they can be looked at."""

    def add_gradients(self, parameters: Any, flag: bool) -> bool:
        return flag


def network(dropout: float = 0.0) -> nn.Sequential:
    reseed(SEED, "init")
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3))


def make(
    model: nn.Module,
    *,
    optimizer: str = "sgd",
    momentum: float = 0.9,
    loss: Loss | None = None,
    ema: float = 0.0,
    schedule: str = "constant",
    augmentation: Augmentation | None = None,
    count: int = COUNT,
    ranks: Ranks | None = None,
    **options: Any,
) -> Trainer:
    augmentation, ranks = augmentation or Augmentation(), ranks or Ranks()
    split = Split(INPUTS, TARGETS[:count], torch.arange(count))
    state = RunState(
        model=model,
        optimizer=build_optimizer(optimizer, model, lr=0.1, momentum=momentum),
        ema=MovingAverage(model, ema) if ema else None,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        loss_sum=torch.zeros((), dtype=torch.float64),
        weight_sum=torch.zeros((), dtype=torch.float64),
    )
    return Trainer(
        state=state,
        loader=Loader(split, BATCH, seed=SEED, device=CPU, ranks=ranks, whole=augmentation.mixes),
        transform=fit_tensor_transform(INPUTS, torch.arange(COUNT)),
        augmentation=augmentation,
        loss=loss or CrossEntropy(),
        schedule=build_schedule(schedule, 8),
        seed=SEED,
        total_steps=10,
        num_classes=3,
        ranks=ranks,
        **options,
    )


def batches(epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    inputs = fit_tensor_transform(INPUTS, torch.arange(COUNT)).normalize(INPUTS)
    for epoch in range(epochs):
        order = torch.randperm(COUNT, generator=generator(SEED, "shuffle", epoch))
        for rows in order.split(BATCH):
            yield inputs[rows], TARGETS[rows]


def train(trainer: Trainer, steps: int = 8) -> list[float]:
    return [float(step.loss) for step in trainer.steps(steps)]


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in trainer.state.model.state_dict().values()])


def gradient(trainer: Trainer) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in trainer.parameters if parameter.grad is not None])


@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_the_steps_are_those_of_a_plain_loop_bit_for_bit(clip: float) -> None:
    trainer = make(network(dropout=0.2), clip=clip, schedule="cosine")
    found = train(trainer)

    model = network(dropout=0.2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    losses = []
    for step, (inputs, targets) in enumerate(batches(epochs=2)):
        reseed(SEED, "module", step, 0)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.param_groups[0]["lr"] = 0.1 * ((1 + math.cos(math.pi * step / 8)) / 2)
        optimizer.step()
        losses.append(loss.item())

    assert found == losses
    assert torch.equal(weights(trainer), torch.cat([tensor.flatten() for tensor in model.state_dict().values()]))


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(0.1, WEIGHTS)], ids=["plain", "weighted"])
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_a_batch_in_parts_is_the_batch_as_a_whole(loss: Loss, parts: int) -> None:
    whole, accumulated = make(network(), loss=loss), make(network(), loss=loss, accumulate=parts)
    assert train(whole) == pytest.approx(train(accumulated))
    torch.testing.assert_close(weights(accumulated), weights(whole))
    assert accumulated.take_loss() == pytest.approx(whole.take_loss())


def test_the_weight_of_a_batch_is_that_of_its_examples() -> None:
    trainer = make(network(), loss=CrossEntropy(0.1, WEIGHTS))
    first = next(trainer.steps(1))
    inputs, targets = next(batches(1))
    expected = F.cross_entropy(network()(inputs), targets, weight=WEIGHTS, label_smoothing=0.1)
    torch.testing.assert_close(first.loss, expected.detach())


class Sizes(nn.Sequential):
    """A network that notes how many examples it is given at once."""

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen = [*getattr(self, "seen", []), len(inputs)]
        return super().forward(inputs)


@pytest.mark.parametrize(
    ("count", "accumulate", "sizes"),
    [(13, 1, [6, 7]), (13, 2, [3, 3, 3, 4]), (10, 2, [3, 3, 4]), (17, 3, [2, 2, 2, 2, 2, 2, 2, 3]), (8, 6, [1] * 8)],
)
def test_a_last_part_of_one_example_joins_the_one_before(count: int, accumulate: int, sizes: list[int]) -> None:
    trainer = make(Sizes(*network()), count=count, accumulate=accumulate)
    train(trainer, trainer.loader.steps_per_epoch)
    assert trainer.state.model.seen == sizes


@pytest.mark.parametrize("world", [2, 4, 7])
@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_the_gradients_of_all_ranks_add_up_to_that_of_one(world: int, mixup: float) -> None:
    options: dict[str, Any] = {"loss": CrossEntropy(0.1, WEIGHTS), "augmentation": Augmentation(mixup=mixup), "accumulate": 2}
    alone = make(network(), **options)
    shared = [make(network(), **options, ranks=QuietRanks(rank, world)) for rank in range(world)]
    for trainer in (alone, *shared):
        trainer.state.step = 3  # the last batch, of 4: of 7 ranks some have no example
        next(trainer.steps(4))
    parts = [gradient(trainer) for trainer in shared if any(parameter.grad is not None for parameter in trainer.parameters)]
    assert len(parts) == min(world, 4)
    torch.testing.assert_close(torch.stack(parts).sum(0), gradient(alone))
    # What take_loss adds up over the ranks: each counts the whole batch.
    for each in (*shared, alone):
        each.state.sum_losses()
    losses, weight_sums = (torch.stack([getattr(t.state, key) for t in shared]).sum() for key in ("loss_sum", "weight_sum"))
    torch.testing.assert_close(losses / (weight_sums / len(shared)), alone.state.loss_sum / alone.state.weight_sum)


class NoReading(TorchDispatchMode):
    """Fails whatever reads a tensor's value, for which a device would have to be waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_no_step_reads_the_device(optimizer: str) -> None:
    trainer = make(
        network(dropout=0.1),
        optimizer=optimizer,
        momentum=0.0,
        loss=CrossEntropy(0.1, WEIGHTS),
        ema=0.9,
        clip=0.5,
        accumulate=2,
        precision="bf16",
    )
    with NoReading():
        for step in trainer.steps(8):
            assert step.index == trainer.state.step - 1
        with pytest.raises(AssertionError):
            trainer.take_loss()


def test_the_loss_that_is_taken_is_the_mean_since_the_last_time() -> None:
    trainer = make(network(), loss=CrossEntropy(0.0, WEIGHTS))
    for epoch in range(2):
        losses = train(trainer, 4 * epoch + 4)
        each = [float(WEIGHTS[targets].sum()) for _, targets in list(batches(2))[4 * epoch : 4 * epoch + 4]]
        expected = sum(loss * weight for loss, weight in zip(losses, each, strict=True)) / sum(each)
        assert trainer.take_loss() == pytest.approx(expected)


def test_steps_go_up_to_a_number_and_say_what_was_done() -> None:
    asked: list[bool] = []
    trainer = make(network(), schedule="linear", stop_asked=lambda: len(asked) > 2)
    found = []
    for step in trainer.steps(5):
        asked.append(True)
        found.append((step.index, step.learning_rate, step.stop))
    assert found == [(i, pytest.approx(0.1 * (1 - i / 8)), i > 2) for i in range(5)]
    assert list(trainer.steps(5)) == []
    assert [step.index for step in trainer.steps(7)] == [5, 6]


def test_a_model_that_was_evaluated_goes_back_to_training() -> None:
    undisturbed, looked_at = make(network(dropout=0.5)), make(network(dropout=0.5))
    train(undisturbed)
    for _ in looked_at.steps(8):
        looked_at.state.model.eval()
        torch.rand(3)  # a user's own draw
    assert torch.equal(weights(undisturbed), weights(looked_at))


def test_of_a_frozen_model_the_head_alone_moves() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    freeze_body(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = make(model, frozen=True)
    for _ in trainer.steps(3):
        model.eval()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"3.weight", "3.bias"}


def test_the_average_follows_the_weights() -> None:
    trainer, plain = make(network(), ema=0.9), make(network())
    expected = weights(plain)
    for step in plain.steps(4):
        decay = (1 + step.index) / (10 + step.index)
        expected = decay * expected + (1 - decay) * weights(plain)
    train(trainer, 4)
    assert trainer.state.ema is not None
    averaged = replace(trainer.state, model=trainer.state.ema.module)
    torch.testing.assert_close(torch.cat([tensor.flatten() for tensor in averaged.model.state_dict().values()]), expected)
    assert torch.equal(weights(trainer), weights(plain))


def test_an_update_waits_for_the_copy_of_what_it_changes() -> None:
    trainer = make(network())
    before = weights(trainer).clone()

    class Copying:
        """Reads the weights when it is waited for, as late as a copy may be made."""

        def result(self) -> None:
            self.read = weights(trainer).clone()
            self.has_gradient = trainer.parameters[0].grad is not None

    copying = Copying()
    trainer.state.copying = copying  # type: ignore[assignment]
    train(trainer, 1)
    assert torch.equal(copying.read, before)
    assert copying.has_gradient, "the loop has computed meanwhile"
    assert not torch.equal(weights(trainer), before)
    assert trainer.state.copying is None


def test_a_model_that_does_not_draw_is_not_seeded() -> None:
    trainer = make(network(), draws=False)
    before = torch.get_rng_state()
    train(trainer, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(trainer), weights(_trained(make(network()), 3)))


def _trained(trainer: Trainer, steps: int) -> Trainer:
    train(trainer, steps)
    return trainer
