"""Measuring a finished model on data: its own run's, or others with the same classes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.run import Run
from goodfit.config import Config, Layer, merge
from goodfit.data.dataset import Part, RawData, Split, SplitName, fingerprint
from goodfit.data.sources import Like, Progress, read_data
from goodfit.data.splits import choose_rows, encode_parts, make_splits
from goodfit.devices import choose_device, choose_threads, computing
from goodfit.errors import ConfigError, DataError
from goodfit.evaluation.evaluate import evaluate
from goodfit.evaluation.metrics import ClassificationEvaluation, Evaluation
from goodfit.evaluation.views import check_views, with_views
from goodfit.models.own import OwnModel

__all__ = ["DATA_KEYS", "evaluate_model"]

# Of a training record: what decides how data are read and split.
DATA_KEYS = (
    "data.target",
    "data.task",
    "data.val",
    "data.test",
    "data.max_train",
    "data.image_size",
    "data.skip_bad",
    "train.seed",
)
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


def evaluate_model(
    model: Path,
    data: Any,
    split: str = "test",
    layers: Sequence[Layer] = (),
    progress: Progress | None = None,
    own: OwnModel | None = None,
    tta: bool = False,
) -> Evaluation:
    """Return the metrics of a model file, or a run folder's best, on one split of `data`.

    Without `data` they are the run's own, split as for its training. Other data that bring no such split are evaluated
    whole, and the result's `split` is then "all". Each use of the run's own test split is written down. With `tta` the result
    has another one in it, of test-time augmentation. Raises DataError where data and model do not fit, and ConfigError where
    training showed the model no other views of a picture.
    """
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; choose from: {', '.join(SPLITS)}")
    path = model / "best.safetensors" if model.is_dir() else model
    file = ModelFile.load(path)
    if tta:
        check_views(file.transform, file.classes, file.training["configuration"])
    run = Run(path.parent) if (path.parent / "config.toml").is_file() else None
    if data is None and run is None:
        raise DataError(
            f"{str(model)!r} does not lie in a run folder, so its data are not known; add them: evaluate MODEL DATA"
        )
    config = _configuration(file, run, layers)
    like = Like(file.transform, file.task, file.classes, file.training["configuration"]["data.target"] or None)
    raw = read_data(config.data.name if data is None else data, config.data, config.transform, progress, like)
    parts = encode_parts(raw, file.transform)
    is_own = fingerprint(raw.task, raw.classes, parts) == file.training["fingerprint"]
    chosen, name = _own_split(raw, parts, config, split) if is_own else _other_split(raw, parts, split)
    if is_own and run and split == "test":
        run.count_test_use("evaluate", file.training["steps"])
    device, settings = choose_device(config.train.device), config.train
    # With the run's own number of threads its result comes out again, bit for bit.
    with computing(device, choose_threads(settings.threads), settings.deterministic):
        trained = file.trained_model(device, own)
        result = evaluate(trained, chosen, name)
        if tta:
            viewed = evaluate(with_views(trained, file.training["configuration"]), chosen, name)
            assert isinstance(result, ClassificationEvaluation)
            assert isinstance(viewed, ClassificationEvaluation)
            result = replace(result, tta=viewed)
        return result


def _configuration(file: ModelFile, run: Run | None, layers: Sequence[Layer]) -> Config:
    """Return how the data were read and split for training, with what the flags say on top."""
    for key in (key for layer in layers for key in layer.values):
        if not key.startswith("data."):
            raise ConfigError(f"{key} has no effect on an evaluation; leave it out")
    recorded = {key: value for key, value in file.training["configuration"].items() if key in DATA_KEYS}
    own = [Layer("config.toml", run.config.flat())] if run else []
    return merge([Layer("the model file", recorded), *own, *layers, Layer("evaluate", {"train.device": "auto"})])[0]


def _own_split(raw: RawData, parts: dict[SplitName, Part], config: Config, split: str) -> tuple[Split, str]:
    """Return a split of the training data, as it was when they were trained on."""
    data = config.data
    rows = choose_rows(raw, val=data.val, test=data.test, max_train=data.max_train, seed=config.train.seed)
    splits = {str(name): chosen for name, chosen in make_splits(parts, rows).items()}
    if split not in splits:
        raise DataError(f"the run was trained without a {split} split; choose from: {', '.join(splits)}")
    return splits[split], split


def _other_split(raw: RawData, parts: dict[SplitName, Part], split: str) -> tuple[Split, str]:
    """Return a split that other data bring for themselves, or all of data that bring only one."""
    part = next((part for name, part in parts.items() if name == split), None)
    name = split
    if part is None and len(parts) == 1:
        part, name = next(iter(parts.values())), "all"
    if part is None:
        raise DataError(f"{raw.name} has no {split} split; choose from: {', '.join(parts)}")
    return Split(part.inputs, part.targets, torch.arange(len(part.targets)), part.names), name
