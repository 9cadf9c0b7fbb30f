"""From a run folder to the objects that trained it, without its data where a model file tells what is needed of them."""

from dataclasses import replace
from math import isclose
from typing import Any

import torch
from torch import Tensor

from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.run import START, Run
from goodfit.config import Layer, read_toml
from goodfit.data.dataset import Dataset, Part, Split
from goodfit.distributed import Ranks
from goodfit.errors import CodeNeededError, ConfigError
from goodfit.planning import Plan, make_plan
from goodfit.session import Session, make_session
from goodfit.training.own import OwnCode
from goodfit.user_code import is_code

__all__ = ["learning_rates_fit", "loss_function", "read_session"]


def read_session(run: Run, own: OwnCode) -> Session:
    """Return everything that the run is made of, as it was before the first step.

    Raises CodeNeededError where it has code of the user's that was not given, and ConfigError for what has no plain program.
    """
    ranks = run.environment.get("ranks", 1)
    if ranks > 1:
        raise ConfigError(f"eject of a run of {ranks} ranks is not built yet; train with one process to get a program")
    _refuse_objects(run)
    own = replace(own, loss=loss_function) if run.config.train.loss != "auto" else own
    file = ModelFile.load(run.last) if run.last.exists() else None
    made = _plan_of(run, file, own) if file else _plan(run, own)
    return make_session(made, Ranks(), bool)


def loss_function(outputs: Any, targets: Tensor) -> Tensor:
    """Stand for a loss that was given as an object; the program has a marked place for it."""
    raise NotImplementedError


def _refuse_objects(run: Run) -> None:
    for key, name in (("optim.name", run.config.optim.name), ("schedule.name", run.config.schedule.name)):
        if is_code(name):
            raise ConfigError(
                f"eject of {key} = {name!r}, an object given from Python, is not built yet; train with one by name"
            )


def _plan(run: Run, own: OwnCode) -> Plan:
    """Plan the run anew, from its data."""
    values = read_toml(run.path / "config.toml")
    if values["data.name"] == "memory":
        raise ConfigError(f"{str(run.path)!r} has no model yet, which would tell what its data are like; resume it first")
    if values.get("model.name") == START:
        values["model.name"] = str(run.path / START)
    return make_plan(None, [Layer("config.toml", values)], is_complete=True, own=own)


def _plan_of(run: Run, file: ModelFile, own: OwnCode) -> Plan:
    """Plan the run from a model file of it: its data are known by their form alone."""
    if file.architecture.is_code and own.model is None:
        raise CodeNeededError(file.architecture.name)
    if file.transform.to_json()["kind"] == "given":
        raise ConfigError(
            "eject of data that code of your own reads is not built yet; it is built for tensors and pictures in memory"
        )
    config, start = run.config, run.path / START
    if start.exists():
        config = config.model_copy(update={"model": config.model.model_copy(update={"name": file.architecture.name})})
    is_picture = file.transform.to_json()["kind"] == "image"
    store = torch.zeros((), dtype=torch.uint8 if is_picture else torch.float32)
    targets = torch.zeros((), dtype=torch.int64 if file.classes else torch.float32)
    splits, parts = {}, {}
    for name, count in file.training["examples"].items():
        rows = torch.arange(count)
        splits[name] = Split(store.expand(count, *file.transform.input_shape), targets.expand(count), rows)
        parts[name] = Part(splits[name].inputs, splits[name].targets)
    dataset = Dataset(file.training["data"], file.task, file.classes, file.transform, parts, splits)
    dataset.__dict__["target_scale"] = file.target_scale  # computed from the targets, which are not here
    found = ModelFile.load(start) if start.exists() else None
    if file.architecture.is_code:
        own = replace(own, arguments=file.architecture.arguments)
    return Plan(dataset, config, {}, None, file.architecture, found, own)


def learning_rates_fit(run: Run, session: Session) -> bool:
    """Whether the schedule gives the learning rates that were logged; not if the run was given more epochs later."""
    schedule, base = session.trainer.schedule, session.trainer.base_rates[0]
    logged = [(line["step"], line["learning_rate"]) for line in run.metrics if line["event"] == "train"]
    return all(isclose(base * schedule(step - 1), rate, rel_tol=1e-9, abs_tol=1e-15) for step, rate in logged)
