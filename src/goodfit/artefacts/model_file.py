"""The model file: one `.safetensors` with the weights, and in its header all that is needed to use them.

The header's metadata hold one entry, a JSON document: format version, task, architecture, what the outputs mean,
transform, classes, training record, results, and a SHA-256 over every other byte of the file. Nothing in it depends on
clock, host or path, so equal runs give equal files; nothing in it can run code.
"""

import json
import shlex
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import chain
from math import isfinite
from pathlib import Path
from threading import get_ident
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from goodfit.artefacts.document import MAX_HEADER, parse_json
from goodfit.artefacts.tensor_file import data_chunks, header
from goodfit.data.dataset import TargetScale, Task
from goodfit.data.transforms import Transform, transform_from_json
from goodfit.devices import Precision
from goodfit.errors import CodeNeededError, ConfigError, FileError, ModelError
from goodfit.evaluation.evaluate import TrainedModel
from goodfit.files import write_atomically
from goodfit.models import build_model
from goodfit.models.outputs import OutputMeaning, num_columns
from goodfit.models.own import OwnModel, load_weights
from goodfit.user_code import Source, is_code, level_of_user, source_of

__all__ = ["Architecture", "ModelFile"]

FORMAT = 1
KEY = "goodfit"
BLANK = "0" * 64  # stands in the place of the SHA-256 while it is computed
SPARE_PARAMETERS = 100  # tensors that a module may have beyond twice those of its file
SPARE_WEIGHTS = 8_000_000  # numbers in them beyond those of the file


@dataclass(frozen=True)
class Architecture:
    """What a module is built from, as JSON values."""

    name: str
    arguments: dict[str, Any]
    input_shape: tuple[int, ...]
    num_outputs: int
    source: Source | None = field(default=None, compare=False)  # of the user's own code, to be read and never to be run

    @property
    def is_code(self) -> bool:
        """Whether it is code of the user's own, which no file can bring."""
        return is_code(self.name)

    @property
    def channels_last(self) -> bool:
        """Whether it computes in the memory format that convolutions like; layers not of our choosing may rely on the usual."""
        return len(self.input_shape) == 3 and not self.is_code and self.name != "sequential"

    def build(self, pretrained: bool = False) -> nn.Module:
        """Build the module with fresh weights, drawn from torch's default generator, or with its library's own."""
        if self.is_code:
            raise CodeNeededError(self.name)
        arguments = self.arguments | ({"pretrained": True} if pretrained else {})
        return build_model(self.name, input_shape=self.input_shape, num_outputs=self.num_outputs, arguments=arguments)


@dataclass(frozen=True)
class ModelFile:
    """A model file's content: see the module for what it promises."""

    task: Task
    architecture: Architecture
    outputs: OutputMeaning
    precision: Precision
    transform: Transform
    classes: tuple[str, ...]
    target_scale: TargetScale
    tensors: dict[str, Tensor] = field(repr=False)
    training: dict[str, Any] = field(repr=False)  # how it was made: data, configuration, seed, steps
    val: dict[str, Any] | None = field(default=None, repr=False)
    test: dict[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raise ValueError where the parts do not belong together, so that no file can ask for what is not there."""
        wanted = num_columns(self.outputs, len(self.classes))
        one_is_enough = self.outputs == "probabilities" and len(self.classes) == 2
        fits = {
            "task": self.task in get_args(Task),
            "outputs": self.outputs in get_args(OutputMeaning) and (self.outputs == "value") == (self.task == "regression"),
            "precision": self.precision in get_args(Precision),
            "classes": all(isinstance(name, str) for name in self.classes) and len(set(self.classes)) == len(self.classes),
            "architecture": isinstance(self.architecture.name, str) and isinstance(self.architecture.arguments, dict),
            "input_shape": self.architecture.input_shape == self.transform.input_shape,
            "num_outputs": self.architecture.num_outputs == wanted or (one_is_enough and self.architecture.num_outputs == 1),
            "target_scale": isfinite(self.target_scale.mean) and isfinite(self.target_scale.std) and self.target_scale.std > 0,
            "training": _is_record(self.training),
            "val, test": all(result is None or isinstance(result, dict) for result in (self.val, self.test)),
        }
        for name, fit in fits.items():
            if not fit:
                raise ValueError(f"its {name} cannot be so")
        if "pretrained" in self.architecture.arguments:
            raise ValueError("it asks for other weights than its own")

    def save(self, path: Path) -> None:
        """Write the file atomically; raise RunError where the disk does not take it."""
        document = {
            "format": FORMAT,
            "sha256": BLANK,
            "task": self.task,
            "architecture": asdict(self.architecture),
            "outputs": self.outputs,
            "precision": self.precision,
            "transform": self.transform.to_json(),
            "classes": list(self.classes),
            "target_scale": asdict(self.target_scale),
            "training": self.training,
            "val": self.val,
            "test": self.test,
        }
        tensors = {name: tensor.detach().cpu() for name, tensor in self.tensors.items()}
        head = header(tensors, {KEY: json.dumps(document, allow_nan=False)})
        digest = sha256(head)
        for chunk in data_chunks(tensors):
            digest.update(chunk)
        head = head.replace(BLANK.encode(), digest.hexdigest().encode(), 1)
        write_atomically(path, chain([head], data_chunks(tensors)))

    @classmethod
    def load(cls, path: Path) -> "ModelFile":
        """Read and verify a file; raise FileError, naming it and what is wrong, if it is foreign or damaged."""
        document = _read_document(path)
        if document.get("format") != FORMAT:
            raise FileError(
                f"{str(path)!r} has format {document.get('format')!r:.40}, and this goodfit reads {FORMAT}; update goodfit"
            )
        try:
            tensors = load_file(path)
            shape = document["architecture"]
            return cls(
                task=document["task"],
                architecture=Architecture(
                    shape["name"],
                    shape["arguments"],
                    tuple(shape["input_shape"]),
                    shape["num_outputs"],
                    Source(**shape["source"]) if shape.get("source") else None,
                ),
                outputs=document["outputs"],
                precision=document["precision"],
                transform=transform_from_json(document["transform"]),
                classes=tuple(document["classes"]),
                target_scale=TargetScale(**document["target_scale"]),
                tensors=tensors,
                training=document["training"],
                val=document["val"],
                test=document["test"],
            )
        except FileError as error:
            raise FileError(f"{str(path)!r}: {error!s:.300}") from error
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError, SafetensorError) as error:
            raise FileError(f"{str(path)!r} is not a whole goodfit model file: {error!r:.300}; get a fresh copy") from error

    def module(self, own: OwnModel | None = None) -> nn.Module:
        """Build the module and give it the file's weights; raise FileError where they do not fit.

        `own` is the user's code, where the model is that: raises CodeNeededError without it. A model that is data is built without memory first, and no further than the file's weights go, so a file that asks for a huge model
        is refused at once and before anything is allocated.
        """
        if self.architecture.is_code:
            return self._own_module(own)
        if own and self.architecture.name != "sequential":
            raise ModelError(f"the file's model is {self.architecture.name}, which needs no code of yours; leave the model out")
        try:
            with torch.device("meta"), _at_most(self.tensors, self.architecture.name):
                empty = self.architecture.build()
        except (ConfigError, ModelError) as error:
            raise FileError(f"the model file's {self.architecture.name:.60} cannot be built: {error!s:.300}") from error
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            raise FileError(f"the model file's {self.architecture.name} cannot be built: {error!r:.200}") from error
        expected, found = _forms(empty.state_dict()), _forms(self.tensors)
        if expected != found:
            name = min(name for name in expected | found if expected.get(name) != found.get(name))
            raise FileError(
                f"the weights do not fit the architecture {self.architecture.name}: "
                f"{name!r:.100} is {found.get(name, 'missing'):.100}, and should be {expected.get(name, 'left out')}; get a fresh copy"
            )
        if any(buffer.is_meta for name, buffer in empty.named_buffers() if name not in expected):
            empty = self.architecture.build()  # it has buffers that no file holds, so they must be computed
        # Copies lie where torch puts tensors, as they did in training: in a file's memory products may round otherwise.
        empty.load_state_dict({name: tensor.clone() for name, tensor in self.tensors.items()}, assign=True)
        return empty

    def _own_module(self, own: OwnModel | None) -> nn.Module:
        if own is None:
            raise CodeNeededError(self.architecture.name)
        module = own.build(self.architecture.arguments if own.module is None else {})
        written, found = self.architecture.source, source_of(type(module))
        if written and found and written.sha256 != found.sha256:
            name = type(module).__name__
            said = f"{name} is not written as it was when the model was saved; its answers may differ"
            warnings.warn(said, stacklevel=level_of_user())
        return load_weights(module, self.tensors, own.name)

    def trained_model(self, device: torch.device, own: OwnModel | None = None) -> TrainedModel:
        """Return the model, ready for use on `device`; see `module` for `own`."""
        channels_last = self.architecture.channels_last
        module = self.module(own).to(device).requires_grad_(False)
        if channels_last:
            module = module.to(memory_format=torch.channels_last)
        return TrainedModel(
            module=module,
            transform=self.transform,
            task=self.task,
            classes=self.classes,
            outputs=self.outputs,
            target_scale=self.target_scale,
            precision=self.precision,
            device=device,
            channels_last=channels_last,
        )

    def check_start(self, architecture: Architecture) -> None:
        """Raise ModelError if training of `architecture` cannot go on from these weights."""
        if (self.architecture.name, self.architecture.arguments) != (architecture.name, architecture.arguments):
            raise ModelError(
                f"the model file holds {self.architecture.name} with {self.architecture.arguments}, and the run asks for "
                f"{architecture.name} with {architecture.arguments}; leave the model's own arguments out"
            )
        if self.architecture != architecture:
            raise ModelError(
                f"the model file holds {self.architecture.name} for inputs {self.architecture.input_shape} and "
                f"{self.architecture.num_outputs} outputs, and the data need inputs {architecture.input_shape} and "
                f"{architecture.num_outputs} outputs; train on data like those it was made for"
            )


def _read_document(path: Path) -> dict[str, Any]:
    """Return the JSON document in a file's header, once the file's SHA-256 has been found right."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= min(MAX_HEADER, path.stat().st_size - 8):
                raise FileError(f"{str(path)!r} is not a model file; name a .safetensors file or a run folder made by goodfit")
            header = file.read(size)
            document = _parse_header(header, path)
            digest = sha256(size.to_bytes(8, "little") + _blanked(header, document, path))
            while block := file.read(1 << 20):
                digest.update(block)
    except FileNotFoundError:
        raise FileError(_missing(path)) from None
    except OSError as error:
        raise FileError(f"cannot read the model file {str(path)!r}: {error.strerror}; name another, or a run folder") from error
    if digest.hexdigest() != document["sha256"]:
        raise FileError(f"{str(path)!r} is damaged: its SHA-256 does not match its content; get a fresh copy")
    return document


def _missing(path: Path) -> str:
    if (path.parent / "config.toml").is_file():
        return f"the run {str(path.parent)!r} has no {path.name} yet; go on with it: goodfit resume {shlex.quote(str(path.parent))}"
    return f"there is no model file {str(path)!r}; `goodfit runs` lists the runs that have one"


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for name, tensor in tensors.items()}


@contextmanager
def _at_most(tensors: Mapping[str, Tensor], name: str) -> Iterator[None]:
    """Let this thread build no module that needs far more weights than `tensors`: raise FileError as soon as one does.

    More is admitted, because libraries build their own head before the one that takes its place, and some layers twice.
    """
    thread = get_ident()
    parameters = 2 * len(tensors) + SPARE_PARAMETERS
    weights = sum(tensor.numel() for tensor in tensors.values()) + SPARE_WEIGHTS

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal parameters, weights
        if parameter is None or get_ident() != thread:
            return
        parameters -= 1
        weights -= parameter.numel()
        if parameters < 0 or weights < 0:
            raise FileError(
                f"the weights do not fit the architecture {name}: it asks for more than the file has; get a fresh copy"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _is_record(training: Any) -> bool:
    """Whether a training record says what evaluation asks it for."""
    target = training["configuration"]["data.target"]
    return isinstance(target, str) and isinstance(training["fingerprint"], str) and type(training["steps"]) is int


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of JSON, in which a name said twice could mean one thing here and another elsewhere."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return dict(pairs)


def _parse_header(header: bytes, path: Path) -> dict[str, Any]:
    try:
        metadata = parse_json(header.decode("ascii"), object_pairs_hook=_unique).get("__metadata__", {})
        document = parse_json(metadata[KEY], object_pairs_hook=_unique)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(f"{str(path)!r} was not made by goodfit; convert it, or name another file") from error
    if not isinstance(document, dict) or not isinstance(document.get("sha256"), str):
        raise FileError(f"{str(path)!r} has no SHA-256 in its header; get a fresh copy")
    return document


def _blanked(header: bytes, document: dict[str, Any], path: Path) -> bytes:
    """Return the header as it was when the SHA-256 was computed."""
    written = document["sha256"].encode(errors="replace")
    if len(written) != len(BLANK) or header.count(written) != 1:
        raise FileError(f"{str(path)!r} is damaged: its SHA-256 is not where it belongs; get a fresh copy")
    return header.replace(written, BLANK.encode())
