"""The arrays of an .npz in a program: read with numpy, which lets no file run code."""

from pathlib import Path

import numpy as np
import torch

from goodfit.data.arrays import _find_pairs, read_npz
from goodfit.data.image_transform import ImageTransform
from goodfit.eject.knowledge import Knowledge
from goodfit.eject.layout import docstring
from goodfit.errors import ConfigError

__all__ = ["npz_lines"]


def npz_lines(known: Knowledge, path: Path, noun: str) -> tuple[list[str], list[str]]:
    """Return the function that reads an .npz, and the lines that call it; raise ConfigError for targets of an unusual form."""
    if not path.exists():
        raise ConfigError(f"{str(path)!r} is not here; put it back, or run this in the folder where the run was made")
    plan = known.session.plan
    settings, dataset = plan.config.data, plan.dataset
    raw = read_npz(path, dataset.task, None, settings.target or None)
    with np.load(path, allow_pickle=False) as arrays:
        pairs = _find_pairs(path, arrays.files, settings.target or None)
        inputs, labels = arrays[pairs["train"][0]], arrays[pairs["train"][1]].reshape(-1)
        is_counted = "classes" in arrays.files
    values, numbers = "arrays[inputs_name]", "arrays[targets_name].reshape(-1)"
    if inputs.dtype == np.uint8 and inputs.ndim == 3:
        values += "[:, None]"
    elif inputs.dtype == np.uint8 and inputs.ndim == 4 and inputs.shape[1:] != raw.parts["train"].inputs.shape[1:]:
        values += ".transpose(0, 3, 1, 2)"
    distinct = np.unique(labels)
    is_in_order = labels.dtype.kind in "iu" and np.array_equal(distinct, np.arange(len(distinct)))
    if dataset.classes and not is_counted and not is_in_order:
        known.constant("LABELS", tuple(distinct.tolist()), "in the order of their classes")
        numbers = f"np.searchsorted(LABELS, {numbers})"
        found = np.searchsorted(distinct, labels) if len(labels) == len(inputs) else labels[:0]
        if not torch.equal(torch.from_numpy(found), raw.parts["train"].targets):
            raise ConfigError(f"eject of targets such as those of {path.name} is not built yet; write each class in one way")
    else:
        numbers += ".astype(np.int64)" if dataset.classes else ".astype(np.float32)"
    is_picture = isinstance(dataset.transform, ImageTransform)
    shape = ", ".join(map(str, ("N", *dataset.transform.input_shape)))
    about = f"Return {noun} ({shape}) {'uint8' if is_picture else 'float32'} and their targets (N,)."
    function = [
        "def read(path: str, inputs_name: str, targets_name: str) -> tuple[Tensor, Tensor]:",
        *docstring(about),
        "    with np.load(path, allow_pickle=False) as arrays:",
        f"        inputs = np.ascontiguousarray({values}{'' if is_picture else ', np.float32'})",
        f"        targets = {numbers}",
        "    return torch.from_numpy(inputs), torch.from_numpy(targets)",
    ]
    calls = []
    for part, (inputs_name, targets_name) in pairs.items():
        titles = f"{part}_{noun}, {part}_targets" if len(pairs) > 1 else f"{noun}, targets"
        calls.append(f'    {titles} = read(root, "{inputs_name}", "{targets_name}")')
    return function, calls
