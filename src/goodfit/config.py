"""The configuration: typed, frozen, merged once from layers; an unknown key is an error with the nearest name."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from goodfit.errors import ConfigError, unknown_name

__all__ = ["Config", "Layer", "dump_toml", "merge", "parse_assignment", "read_toml"]

# Named in the design, and refused by name until they change a run.
NOT_BUILT = {
    "parallel.mode": "ranks are started with torchrun",
    "parallel.ranks": "ranks are started with torchrun",
    "parallel.bitwise": "results repeat bit for bit at the same number of ranks only",
}

MOST_SHOWN = 80  # characters of a value in a message

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _OpenSection(_Section):
    """A section whose further keys are arguments of the thing it names; that thing checks them."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    @property
    def arguments(self) -> dict[str, Any]:
        """The keys beyond the section's own."""
        return dict(self.model_extra or {})


class DataConfig(_Section):
    """Which data, and how they are split."""

    name: str = "digits"  # a data set's name, or the path of a folder, table or .npz
    root: str = ""  # where named data sets lie; empty: GOODFIT_DATA, else the user's data folder
    target: str = ""  # a table's target column
    task: Literal["auto", "classification", "regression"] = "auto"
    val: Share = 0.1  # of the training split; 0: none
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2  # set aside where the data bring no test split
    max_train: Count = 0  # use at most this many training examples; 0: all
    image_size: Annotated[int, Field(ge=0, le=1024)] = 0  # pixels a side; 0: from the pictures
    skip_bad: bool = False  # leave unreadable pictures out and count them
    download: bool = True  # fetch a named data set that is not on this disk
    processes: Count = 0  # that decode pictures; 0: one a core
    budget: NonNegative = 0.0  # gigabytes of decoded pictures on disk, the least used going first; 0: a quarter of what is free
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0  # seconds that a process may take for one picture


class TransformConfig(_Section):
    """Overrides of what preprocessing fits on the training split."""

    mean: float | list[float] | None = None  # per channel or feature; pictures in 0..1
    std: float | list[float] | None = None


class ModelConfig(_OpenSection):
    """Which model; further keys are its own arguments."""

    name: str = "mlp"
    pretrained: bool = False
    freeze: bool = False  # train the head alone
    frozen: list[str] = []  # parameters, or what they are below, that are not trained
    outputs: Literal["auto", "logits", "log-probabilities", "probabilities", "one-logit", "value"] = "auto"  # what they mean


class TrainConfig(_Section):
    """How long, in what batches, and on what."""

    epochs: Positive = 10
    batch_size: Positive | Literal["full"] = 64  # examples of one update, over all ranks and accumulation
    accumulate: Positive = 1  # parts that a batch is computed in
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    ema: Share = 0.0  # decay of the weights' moving average; 0: off
    loss: str = "auto"  # the one that fits the task and the outputs; or the name of one given from Python
    label_smoothing: Share = 0.0
    class_weights: Literal["none", "balanced"] | list[NonNegative] = "none"
    clip: NonNegative = 0.0  # largest norm of the gradient; 0: off
    early_stopping: Count = 0  # epochs without a better validation loss; 0: off
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: str = "auto"
    threads: Count = 0  # 0: one a core
    deterministic: bool = True


class OptimConfig(_OpenSection):
    """Which optimiser of torch.optim; further keys are its own arguments."""

    name: str = "sgd"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # the optimiser's usual one, if not set
    momentum: Share = 0.0
    weight_decay: NonNegative = 0.0  # never on biases and norms


class ScheduleConfig(_OpenSection):
    """How the learning rate moves; further keys are the schedule's own arguments."""

    name: str = "constant"
    warmup: Share = 0.0  # share of all steps


class AugmentConfig(_Section):
    """Random changes of the training examples, drawn per example on the device."""

    flip: bool | Literal["alternating"] = False  # left-right, half of the time; or every second epoch
    crop: Annotated[int, Field(ge=0, le=64)] = 0  # pixels of shift, each way
    fill: Literal["reflect", "zero"] = "reflect"  # of what a shift leaves empty
    cutout: Annotated[int, Field(ge=0, le=512)] = 0  # side of a blanked square, pixels
    rand: Annotated[float, Field(ge=0, le=1)] = 0.0  # strength of one random change of geometry or colour
    mixup: NonNegative = 0.0  # alpha of Beta(alpha, alpha)
    cutmix: NonNegative = 0.0  # alpha of Beta(alpha, alpha)


class LogConfig(_Section):
    """How often the training loss is read."""

    every_steps: Count = 0  # 0: ten times an epoch


class CheckpointConfig(_Section):
    """When checkpoints are written, and which stay."""

    every_seconds: NonNegative = 60.0  # 0: not by the clock
    every_steps: Count = 0  # 0: not by steps
    keep: Positive | Literal["best", "all"] = 2


class Config(_Section):
    """Everything that decides a run, beside the data themselves."""

    data: DataConfig = DataConfig()
    transform: TransformConfig = TransformConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()
    log: LogConfig = LogConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    def flat(self) -> dict[str, Any]:
        """Return every set value under its dotted key, in the order of the sections."""
        sections = self.model_dump(exclude_none=True)
        return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}


@dataclass(frozen=True)
class Layer:
    """Values under dotted keys, and where they came from ("recipe auto", "--epochs", "config.toml")."""

    source: str
    values: Mapping[str, Any]


def merge(layers: Sequence[Layer]) -> tuple[Config, dict[str, str]]:
    """Merge layers, later ones winning, over the defaults; return the configuration and each key's source.

    Raises ConfigError for an unknown key, a value of the wrong type or range, and a key that is not built yet.
    """
    sources = dict.fromkeys(Config().flat(), "default")
    sections: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for key, value in layer.values.items():
            section, _, name = key.partition(".")
            _check_key(key, section, name)
            sections.setdefault(section, {})[name] = value
            sources[key] = layer.source
    try:
        config = Config.model_validate(sections)
    except ValidationError as error:
        raise ConfigError(_say(error, sources)) from None
    return config, sources


def _check_key(key: str, section: str, name: str) -> None:
    if key in NOT_BUILT:
        raise ConfigError(f"{key} is not built yet ({NOT_BUILT[key]}); leave it out")
    field = Config.model_fields.get(section)
    if field is None or not name:
        whole = [known for known in _known_keys() if known.endswith(f".{key}")]
        if whole:
            raise ConfigError(f"unknown configuration key {key!r}; did you mean {' or '.join(whole)}?")
        raise ConfigError(unknown_name("configuration key", key, _known_keys()))
    kind = field.annotation
    assert isinstance(kind, type)
    assert issubclass(kind, _Section)
    if not issubclass(kind, _OpenSection) and name not in kind.model_fields:
        raise ConfigError(unknown_name("configuration key", key, _known_keys()))


def _known_keys() -> list[str]:
    return [f"{section}.{key}" for section, values in Config() for key in type(values).model_fields]


def _say(error: ValidationError, sources: Mapping[str, str]) -> str:
    """Return one line for the first thing that pydantic found wrong, or for the branch of a union that came nearest."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"][:2])
    about_key = [item for item in error.errors() if item["loc"][:2] == first["loc"][:2]]
    said = " or ".join(dict.fromkeys(_plain(item["msg"]) for item in about_key))
    value = about_key[0]["input"]
    shown = repr(value) if len(repr(value)) <= MOST_SHOWN else f"{repr(value)[:MOST_SHOWN]}..."
    return f"{key} = {shown} (from {sources.get(key, 'default')}): {said}"


def _plain(message: str) -> str:
    return message.removeprefix("Input ").replace("should be", "must be")


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read one `section.key=value` of `--set`; the value is TOML, and a bare word is a string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r} is not of the form section.key=value, such as --set train.epochs=5")
    try:
        return key.strip(), tomllib.loads(f"value = {value.strip()}")["value"]
    except (ValueError, RecursionError):
        return key.strip(), value.strip()


def read_toml(path: Path) -> dict[str, Any]:
    """Read a configuration file into dotted keys; raise ConfigError naming the line that is not TOML."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration file {str(path)!r} does not exist; a run's own is RUN/config.toml") from None
    except IsADirectoryError:
        raise ConfigError(
            f"configuration file {str(path)!r} is a folder; name the file, such as {path / 'config.toml'}"
        ) from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of thousands of digits, or nested as deep
        raise ConfigError(f"configuration file {str(path)!r} is not TOML: {error}") from None
    flat: dict[str, Any] = {}
    for section, values in document.items():
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {section!r} stands outside a section; write it as [section] and key = value")
        flat |= {f"{section}.{key}": value for key, value in values.items()}
    return flat


def dump_toml(config: Config) -> str:
    """Return the configuration as a TOML document that `read_toml` and `merge` turn back into an equal one."""
    import tomli_w

    return tomli_w.dumps(config.model_dump(exclude_none=True))
