"""Does a model that says 90% get nine of ten right? Counts by confidence, and the expected calibration error."""

import torch
from torch import Tensor

__all__ = ["NUM_BINS", "CalibrationBins", "expected_calibration_error"]

NUM_BINS = 15  # as Guo et al. (2017)
_BITS = 32  # confidences are added as whole multiples of 2^-32, so a sum does not depend on the order of its terms


class CalibrationBins:
    """Examples counted in 15 equal intervals of confidence, each open below and closed above.

    `sums` is (3, 15) int64: examples, examples predicted right, and the sum of confidences in units of 2^-32. Batches and
    ranks add to it exactly.
    """

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(3, NUM_BINS, dtype=torch.int64, device=device)

    def update(self, confidence: Tensor, correct: Tensor) -> None:
        """Add a batch: the probability of each predicted class (N,) float32, and whether it was right (N,) bool.

        A confidence that is not a number counts as 0.
        """
        units = (confidence.nan_to_num().clamp(0, 1) * 2**_BITS).to(torch.int64)
        # No edge between two bins is a multiple of 2^-32, so only a confidence of 1 needs to be kept below the edge.
        bins = ((units * NUM_BINS) >> _BITS).clamp_max(NUM_BINS - 1)
        index = torch.cat((bins, bins + NUM_BINS, bins + 2 * NUM_BINS))
        self.sums.view(-1).index_add_(0, index, torch.cat((torch.ones_like(units), correct.to(torch.int64), units)))


def expected_calibration_error(bins: CalibrationBins) -> float:
    """Return the mean gap between confidence and accuracy over bins, weighted by examples; 0 without examples.

    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, 2017.
    """
    count, correct, confidence = bins.sums.tolist()
    gap = sum(abs((right << _BITS) - units) for right, units in zip(correct, confidence, strict=True))
    return float(gap / (max(sum(count), 1) << _BITS))
