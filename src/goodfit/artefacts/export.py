"""Taking a model out: its weights alone, as a plain PyTorch program loads them."""

from io import BytesIO
from itertools import chain
from pathlib import Path

import torch

from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.tensor_file import data_chunks, header
from goodfit.errors import ConfigError, unknown_name
from goodfit.files import check_new_file, write_atomically

__all__ = ["export_model"]

FORMATS = ("state-dict",)
NOT_BUILT = ("onnx", "pt2")
PICKLED = (".pth", ".pt", ".bin")


def export_model(model: Path, format_name: str, out: Path | None = None) -> tuple[Path, list[str]]:
    """Write the state dict of a model file, or of a run folder's best, and return where it lies and its tensors' names.

    `net.load_state_dict(torch.load(path, weights_only=True))` loads it; a path that ends in .safetensors is written so. It
    takes no code, also where the model is code of the user's own. Raises ConfigError for a format that is unknown or not
    built, and FileError where something is in the way.
    """
    if format_name in NOT_BUILT:
        raise ConfigError(f"--format {format_name} is not built yet; choose from: {', '.join(FORMATS)}")
    if format_name not in FORMATS:
        raise ConfigError(unknown_name("format", format_name, FORMATS))
    path = model / "best.safetensors" if model.is_dir() else model
    target = out or path.with_suffix(".pth")
    if target.suffix not in (*PICKLED, ".safetensors"):
        raise ConfigError(f"--out {str(target)!r} is for no state dict; end it in .pth or .safetensors")
    check_new_file(target)
    file = ModelFile.load(path)
    # A file keeps its tensors by name, and a module in the order of its layers.
    tensors = file.tensors if file.architecture.is_code else dict(file.module().state_dict())
    if target.suffix == ".safetensors":
        write_atomically(target, chain([header(tensors, {"format": "pt"})], data_chunks(tensors)))
    else:
        buffer = BytesIO()
        torch.save(tensors, buffer)
        write_atomically(target, [buffer.getbuffer()])
    return target, list(tensors)
