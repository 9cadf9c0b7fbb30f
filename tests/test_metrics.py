import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan, nan, sqrt
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from torch import Tensor

from goodfit.errors import DataError, FileError
from goodfit.evaluation.metrics import (
    ClassificationCounts,
    ClassificationEvaluation,
    RegressionEvaluation,
    RegressionSums,
    evaluation_from_json,
    wilson_interval,
)

CPU = torch.device("cpu")


@dataclass
class Predictions:
    num_classes: int
    probabilities: Tensor  # (N, C) float32
    losses: Tensor  # (N,) float32
    targets: Tensor  # (N,) int64

    @property
    def classes(self) -> list[str]:
        return [f"class {index}" for index in range(self.num_classes)]

    def counts(self, batches: Sequence[Tensor] | None = None) -> ClassificationCounts:
        counts = ClassificationCounts(self.num_classes, CPU)
        for rows in [torch.arange(len(self.targets))] if batches is None else batches:
            counts.update(self.probabilities[rows], self.losses[rows], self.targets[rows])
        return counts

    def evaluation(self) -> ClassificationEvaluation:
        return self.counts().result("test", self.classes)


@st.composite
def predictions(draw: st.DrawFn) -> Predictions:
    """Few examples of many classes, so that some are never seen and some never predicted."""
    num_classes, n = draw(st.integers(2, 7)), draw(st.integers(1, 30))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    probabilities = (3 * torch.randn(n, num_classes, generator=random)).softmax(dim=1)
    targets = torch.randint(draw(st.integers(1, num_classes)), (n,), generator=random)
    return Predictions(num_classes, probabilities, -probabilities[torch.arange(n), targets].log(), targets)


def batches_of(n: int, sizes: list[int]) -> list[Tensor]:
    cuts = [min(sum(sizes[:index]), n) for index in range(1, len(sizes) + 1)]
    return list(torch.arange(n).tensor_split(cuts))


@given(predictions())
@settings(deadline=None, max_examples=50)
def test_classification_agrees_with_scikit_learn(case: Predictions) -> None:
    labels, targets, predicted = list(range(case.num_classes)), case.targets.numpy(), case.probabilities.argmax(1).numpy()
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        targets, predicted, labels=labels, zero_division=0
    )
    exact = case.probabilities.double()  # the reference clips float32 at 1e-7
    log_loss = reference.log_loss(targets, (exact / exact.sum(1, keepdim=True)).numpy(), labels=labels)
    evaluation = case.evaluation()
    assert evaluation.n == len(targets)
    assert [list(row) for row in evaluation.confusion] == reference.confusion_matrix(targets, predicted, labels=labels).tolist()
    assert evaluation.accuracy == pytest.approx(reference.accuracy_score(targets, predicted))
    assert evaluation.loss == pytest.approx(log_loss, rel=1e-5, abs=1e-6)
    assert [result.name for result in evaluation.per_class] == case.classes
    assert [result.n for result in evaluation.per_class] == support.tolist()
    assert [result.precision for result in evaluation.per_class] == pytest.approx(precision)
    assert [result.recall for result in evaluation.per_class] == pytest.approx(recall)
    assert [result.accuracy for result in evaluation.per_class] == pytest.approx(recall)
    assert [result.f1 for result in evaluation.per_class] == pytest.approx(f1)


@given(predictions(), st.lists(st.integers(0, 9), max_size=6), st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_counts_are_the_same_in_any_batches_on_any_ranks(case: Predictions, sizes: list[int], ranks: int) -> None:
    batches = batches_of(len(case.targets), sizes)
    first, *others = (case.counts(batches[rank::ranks]) for rank in range(ranks))
    for other in others:
        for mine, theirs in zip(first.tensors(), other.tensors(), strict=True):
            mine += theirs
    *whole_counts, whole_loss = case.counts().tensors()
    *counts, loss = first.tensors()
    assert all(torch.equal(*pair) for pair in zip(whole_counts, counts, strict=True))
    assert loss.item() == pytest.approx(whole_loss.item(), rel=1e-12)
    assert first.result("val", case.classes).ece == case.evaluation().ece


def test_of_equal_probabilities_the_first_class_wins() -> None:
    counts = ClassificationCounts(3, CPU)
    counts.update(torch.full((50, 3), 1 / 3), torch.zeros(50), torch.zeros(50, dtype=torch.int64))
    assert counts.result("test", "abc").confusion == ((50, 0, 0), (0, 0, 0), (0, 0, 0))


@pytest.mark.parametrize("target", [-1, 3])
def test_a_target_outside_the_classes_is_not_counted_as_another(target: int) -> None:
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        ClassificationCounts(3, CPU).update(torch.eye(3)[:1], torch.zeros(1), torch.tensor([target]))


def test_updates_read_nothing_from_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # torch sets it on the way, and would leave it set
    # A meta tensor has no values, so whatever reads one raises.
    meta = torch.device("meta")
    ClassificationCounts(3, meta).update(
        torch.ones(4, 3, device=meta), torch.ones(4, device=meta), torch.ones(4, dtype=torch.int64, device=meta)
    )
    RegressionSums(meta, center=0.0).update(*torch.ones(3, 4, device=meta))


def test_the_interval_is_wilsons() -> None:
    # The formula of 1927 as printed, with its own z, and the 0.0 to 27.8% that tables give for none of ten.
    z, share, n = 1.959963984540054, 0.9, 10
    middle, half = share + z * z / (2 * n), z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    assert wilson_interval(9, 10) == pytest.approx(((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)))
    assert wilson_interval(0, 10) == (0, pytest.approx(0.2775, abs=5e-5))
    assert wilson_interval(10, 10) == (pytest.approx(0.7225, abs=5e-5), 1)
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe (1998), table I, method 3


@given(st.integers(1, 10**7).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_accuracy(case: tuple[int, int]) -> None:
    correct, n = case
    low, high = wilson_interval(correct, n)
    assert 0 <= low <= correct / n <= high <= 1


numbers = st.floats(-100, 100, width=32)
regressions = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=30)


def regression_sums(values: Tensor, targets: Tensor, center: float) -> RegressionSums:
    sums = RegressionSums(CPU, center)
    sums.update(values, (values - targets).square(), targets)
    return sums


@given(regressions, numbers, st.sampled_from([0.0, 1e6]))
@settings(deadline=None, max_examples=50)
def test_regression_agrees_with_scikit_learn(pairs: list[tuple[float, float]], near: float, far: float) -> None:
    values, targets = torch.tensor(pairs, dtype=torch.float32).add(far).unbind(1)
    evaluation = regression_sums(values, targets, center=far + near).result("test")
    y_true, y_pred = targets.double().numpy(), values.double().numpy()
    assert evaluation.mae == pytest.approx(reference.mean_absolute_error(y_true, y_pred))
    assert evaluation.rmse == pytest.approx(reference.root_mean_squared_error(y_true, y_pred))
    assert evaluation.loss == pytest.approx(reference.mean_squared_error(y_true, y_pred), rel=1e-5)
    if y_true.std() > 1e-3:
        assert evaluation.r2 == pytest.approx(reference.r2_score(y_true, y_pred), rel=1e-6)


@given(regressions, st.integers(0, 30))
@settings(deadline=None, max_examples=50)
def test_regression_sums_add_up_over_ranks(pairs: list[tuple[float, float]], cut: int) -> None:
    values, targets = torch.tensor(pairs, dtype=torch.float32).unbind(1)
    one, two = regression_sums(values[:cut], targets[:cut], 5.0), regression_sums(values[cut:], targets[cut:], 5.0)
    for mine, theirs in zip(one.tensors(), two.tensors(), strict=True):
        mine += theirs
    assert one.result("test").n == len(pairs)
    whole = regression_sums(values, targets, 5.0)
    assert all(torch.allclose(*pair, rtol=1e-12, atol=0) for pair in zip(one.tensors(), whole.tensors(), strict=True))


def test_r2_keeps_its_digits_far_from_zero() -> None:
    targets = 1e6 + torch.arange(50) / 16
    values = targets + torch.arange(50).remainder(3) / 16
    expected = reference.r2_score(targets.double().numpy(), values.double().numpy())
    assert regression_sums(values, targets, center=1e6).result("test").r2 == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("center", [0.0, 0.1, 3.0, 1e6])
def test_r2_of_constant_targets_is_not_defined(center: float) -> None:
    evaluation = regression_sums(torch.arange(3.0), torch.full((3,), 0.1), center).result("test")
    assert evaluation.r2 is None
    assert evaluation.to_json()["r2"] is None


def test_values_of_another_shape_are_refused() -> None:
    with pytest.raises(RuntimeError, match="equal size"):
        RegressionSums(CPU, center=0.0).update(torch.zeros(4, 1), torch.zeros(4), torch.zeros(4))


def test_a_split_without_examples_is_bad_input() -> None:
    with pytest.raises(DataError, match="the val split has 0 examples"):
        ClassificationCounts(2, CPU).result("val", ["no", "yes"])
    with pytest.raises(DataError, match="the test split has 0 examples"):
        RegressionSums(CPU, center=0.0).result("test")


def classification(loss: float = 0.25) -> ClassificationEvaluation:
    """Three of four right: a, a -> a and b, a -> b."""
    counts = ClassificationCounts(2, CPU)
    sure = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    counts.update(sure, torch.full((4,), loss), torch.tensor([0, 0, 1, 0]))
    return counts.result("test", ["a", "b"])


def test_json_has_the_documented_keys_in_order() -> None:
    document = classification().to_json()
    low, high = wilson_interval(3, 4)
    assert json.dumps(document) == json.dumps(
        {
            "split": "test",
            "n": 4,
            "loss": 0.25,
            "accuracy": 0.75,
            "accuracy_ci95": [low, high],
            "ece": 0.25,
            "per_class": [
                {"class": "a", "n": 3, "accuracy": 2 / 3, "precision": 1.0, "recall": 2 / 3, "f1": 0.8},
                {"class": "b", "n": 1, "accuracy": 1.0, "precision": 0.5, "recall": 1.0, "f1": 2 / 3},
            ],
            "confusion": [[2, 1], [0, 1]],
        }
    )
    assert list(RegressionEvaluation("test", 2, 0.5, 0.5, 0.7, None).to_json()) == ["split", "n", "loss", "mae", "rmse", "r2"]


@pytest.mark.parametrize("evaluation", [classification(), RegressionEvaluation("val", 9, 0.1, 0.2, 0.3, 0.4)])
def test_json_is_read_back(evaluation: ClassificationEvaluation | RegressionEvaluation) -> None:
    assert evaluation_from_json(json.loads(json.dumps(evaluation.to_json()))) == evaluation


@pytest.mark.parametrize("loss", [inf, nan])
def test_what_is_not_finite_is_null_in_json_and_named_in_the_summary(loss: float) -> None:
    for evaluation in (classification(loss), RegressionEvaluation("test", 4, loss, 1.0, 2.0, 0.5)):
        text = json.dumps(evaluation.to_json(), allow_nan=False)
        assert '"loss": null' in text
        assert isnan(evaluation_from_json(json.loads(text)).loss)
        assert f"loss {loss}" in evaluation.summary()


@pytest.mark.parametrize("document", [{}, {"accuracy": 1.0}, {**classification().to_json(), "per_class": 3}])
def test_a_damaged_evaluation_is_named(document: dict[str, object]) -> None:
    with pytest.raises(FileError, match="the evaluation cannot be read"):
        evaluation_from_json(document)


def test_summaries_read_well() -> None:
    assert classification().summary() == "accuracy 75.0% (95% interval 30.1% to 95.4%), loss 0.25, 4 examples"
    regression = RegressionEvaluation("test", 1200, loss=0.19, mae=2.2, rmse=52341.5, r2=0.81)
    assert regression.summary() == "rmse 52,342, mae 2.2, R² 0.81, loss 0.19, 1,200 examples"
    assert "R² undefined" in RegressionEvaluation("test", 1, 0.1, 0.1, 0.1, None).summary()
