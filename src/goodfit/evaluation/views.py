"""Test-time augmentation: a picture is judged by the mean of what the model says of several views of it.

The views are those that training showed: mirrored if it flipped, shifted by a pixel if it shifted. That takes as many times
as long as there are views, and is reported beside the plain result, never in its place.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from goodfit.data.augment import shift
from goodfit.data.image_transform import ImageTransform
from goodfit.data.transforms import Transform
from goodfit.errors import ConfigError
from goodfit.evaluation.evaluate import TrainedModel
from goodfit.inputs import Inputs
from goodfit.models.outputs import OutputMeaning, log_probabilities

__all__ = ["ManyViews", "check_views", "with_views"]

REACH = 1  # pixels
KEYS = ("augment.flip", "augment.crop")  # of training, that make views


@dataclass(frozen=True)
class ManyViews(TrainedModel):
    """A classifier of pictures whose probabilities are the means over views; its outputs are their logarithms."""

    of_one: OutputMeaning = "logits"  # what the module's outputs mean
    mirrored: bool = False
    shifted: bool = False

    @torch.no_grad()
    def __call__(self, stored: Inputs) -> Tensor:
        """Return the logarithms (N, C) of the mean probabilities for stored pictures (N, C, H, W)."""
        assert isinstance(stored, Tensor)
        found = [log_probabilities(super(ManyViews, self).__call__(view), self.of_one) for view in self.views(stored)]
        return torch.stack(found).logsumexp(0) - math.log(len(found))

    def views(self, stored: Tensor) -> Iterator[Tensor]:
        """Give the pictures as they are, then shifted to both sides, and each of these mirrored."""
        for place in (REACH, 0, 2 * REACH) if self.shifted else (REACH,):
            places = torch.full((len(stored),), place, device=stored.device)
            view = stored if place == REACH else shift(stored, REACH, "reflect", places, places)
            yield view
            if self.mirrored:
                yield view.flip(-1)


def check_views(transform: Transform, classes: tuple[str, ...], configuration: Mapping[str, Any]) -> None:
    """Raise ConfigError where a model was trained on a single view of each example."""
    if not isinstance(transform, ImageTransform) or not classes:
        raise ConfigError(
            "--tta shows a model each picture in several views, and this one does not tell pictures apart; leave it out"
        )
    if not any(configuration.get(key) for key in KEYS):
        raise ConfigError("--tta shows the model what training showed it, which was neither flipped nor shifted; leave it out")


def with_views(model: TrainedModel, configuration: Mapping[str, Any]) -> ManyViews:
    """Return a classifier of pictures with the views that its training showed it; see `check_views`."""
    mirrored, shifted = (bool(configuration.get(key)) for key in KEYS)
    known = {field.name: getattr(model, field.name) for field in fields(TrainedModel)} | {"outputs": "log-probabilities"}
    return ManyViews(**known, of_one=model.outputs, mirrored=mirrored, shifted=shifted)
