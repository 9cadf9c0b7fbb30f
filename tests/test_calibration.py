import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from goodfit.evaluation.calibration import NUM_BINS, CalibrationBins, expected_calibration_error

CPU = torch.device("cpu")


def filled(confidence: list[float], correct: list[bool]) -> CalibrationBins:
    bins = CalibrationBins(CPU)
    bins.update(torch.tensor(confidence, dtype=torch.float32), torch.tensor(correct, dtype=torch.bool))
    return bins


def error_by_definition(confidence: list[float], correct: list[bool]) -> float:
    """Equation 3 of Guo et al. (2017), bin by bin."""
    total = 0.0
    for low, high in ((index / NUM_BINS, (index + 1) / NUM_BINS) for index in range(NUM_BINS)):
        inside = [index for index, value in enumerate(confidence) if low < value <= high]
        if inside:
            accuracy = sum(correct[index] for index in inside) / len(inside)
            mean_confidence = sum(confidence[index] for index in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean_confidence)
    return total


examples = st.lists(st.tuples(st.floats(2**-6, 1, width=32), st.booleans()), min_size=1, max_size=60)


@given(examples)
@settings(deadline=None, max_examples=50)
def test_error_is_that_of_the_definition(pairs: list[tuple[float, bool]]) -> None:
    confidence, correct = (list(column) for column in zip(*pairs, strict=True))
    bins = filled(confidence, correct)
    assert expected_calibration_error(bins) == pytest.approx(error_by_definition(confidence, correct), abs=1e-8)


def test_error_by_hand() -> None:
    # Four at 0.75, three right: no gap. One at 0.5, wrong: a gap of 0.5, of weight 1 in 5.
    assert expected_calibration_error(filled([0.75] * 4 + [0.5], [True, True, True, False, False])) == pytest.approx(0.1)


def test_sums_count_examples_hits_and_confidences_per_bin() -> None:
    count, correct, confidence = filled([1.0, 1.0, 0.5], [True, False, True]).sums
    assert count.tolist() == [0] * 7 + [1] + [0] * 6 + [2]
    assert correct.tolist() == [0] * 7 + [1] + [0] * 6 + [1]
    assert confidence.tolist() == [0] * 7 + [2**31] + [0] * 6 + [2 * 2**32]


@given(examples, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_sums_do_not_depend_on_order_or_batches(pairs: list[tuple[float, bool]], random: object) -> None:
    whole = filled(*(list(column) for column in zip(*pairs, strict=True)))
    parts = CalibrationBins(CPU)
    random.shuffle(pairs)  # type: ignore[attr-defined]
    for value, right in pairs:
        parts.update(torch.tensor([value]), torch.tensor([right]))
    assert torch.equal(whole.sums, parts.sums)


def test_confidences_outside_zero_to_one_are_held_to_it_and_nan_is_zero() -> None:
    count, _, confidence = filled([1.0000001, float("inf"), float("nan"), -1.0], [True, False, False, False]).sums
    assert count.tolist() == [2] + [0] * 13 + [2]
    assert confidence.tolist() == [0] * 14 + [2 * 2**32]


def test_no_examples_no_error() -> None:
    assert expected_calibration_error(CalibrationBins(CPU)) == 0
