"""From a run folder to the objects that trained it, without its data where a model file tells what is needed of them."""

from dataclasses import replace
from math import isclose

import torch

from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.run import START, Run
from goodfit.config import Layer, read_toml
from goodfit.data.dataset import Dataset, Part, Split
from goodfit.data.picture_files import PictureFiles
from goodfit.distributed import Ranks
from goodfit.eject.stand_ins import StandInOptimizer, can_be_built, stand_in_loss, stand_in_model, stand_in_schedule
from goodfit.errors import CodeNeededError, ConfigError, FileError
from goodfit.planning import Plan, make_plan
from goodfit.session import Session, make_session
from goodfit.training.own import OwnCode
from goodfit.user_code import is_code

__all__ = ["learning_rates_fit", "read_session"]


def read_session(run: Run, own: OwnCode) -> Session:
    """Return everything that the run is made of, as it was before the first step; stand-ins for objects given from Python.

    Raises CodeNeededError where it has code of the user's that a file holds and was not given, and ConfigError for what has
    no plain program.
    """
    ranks = run.environment.get("ranks", 1)
    if ranks > 1:
        raise ConfigError(f"eject of a run of {ranks} ranks is not built yet; train with one process to get a program")
    halved = [line["step"] for line in run.metrics if line["event"] == "halving"]
    if halved:
        raise ConfigError(
            f"eject of a run whose batches memory made smaller, as at step {halved[0]}, is not built yet; train with "
            "train.accumulate to get a program"
        )
    config = run.config
    if config.train.loss != "auto":
        own = replace(own, loss=stand_in_loss)
    if is_code(config.optim.name):
        own = replace(own, optimizer=StandInOptimizer)
    if is_code(config.schedule.name):
        own = replace(own, schedule=stand_in_schedule(run))
    file = ModelFile.load(run.last) if run.last.exists() else None
    made = _plan_of(run, file, own) if file else _plan(run, own)
    return make_session(made, Ranks(), bool)


def _plan(run: Run, own: OwnCode) -> Plan:
    """Plan the run anew, from its data."""
    values = read_toml(run.path / "config.toml")
    no_model = f"{str(run.path)!r} has no model yet, which would tell what its data are like; resume it first"
    if values["data.name"] == "memory":
        raise ConfigError(no_model)
    if values.get("model.name") == START:
        values["model.name"] = str(run.path / START)
    made = make_plan(None, [Layer("config.toml", values)], is_complete=True, own=own)
    if isinstance(made.dataset.train.inputs, PictureFiles):  # a program has its pictures in memory
        raise ConfigError(no_model)
    return made


def _plan_of(run: Run, file: ModelFile, own: OwnCode) -> Plan:
    """Plan the run from a model file of it: its data are known by their form alone."""
    in_a_file = file.architecture.name.partition(":")[0].endswith(".py")
    if file.architecture.is_code and own.model is None and in_a_file:
        raise CodeNeededError(file.architecture.name)
    arguments = file.architecture.arguments
    if file.architecture.is_code and (own.model is None or not can_be_built(own.model, arguments)):
        own = replace(own, model=stand_in_model(file.architecture.name, file.tensors))
        _check_head(run, file)
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
    _check_record(run, file)
    if "order" in file.training:
        raise ConfigError(
            f"eject of a data loader with an order of its own ({file.training['order']}) is not built yet; "
            "give the data set itself to get a program"
        )
    for name, count in file.training["examples"].items():
        rows = torch.zeros((), dtype=torch.int64).expand(count)  # only their number counts
        splits[name] = Split(store.expand(count, *file.transform.input_shape), targets.expand(count), rows)
        parts[name] = Part(splits[name].inputs, splits[name].targets)
    dataset = Dataset(file.training["data"], file.task, file.classes, file.transform, parts, splits)
    dataset.__dict__["target_scale"] = file.target_scale  # computed from the targets, which are not here
    found = ModelFile.load(start) if start.exists() else None
    if file.architecture.is_code:
        own = replace(own, arguments=arguments)
    return Plan(dataset, config, {}, None, file.architecture, found, own)


def _check_head(run: Run, file: ModelFile) -> None:
    """Raise ConfigError where the program has to name the head of a module that is not here, and it may be any layer."""
    is_muon = run.config.optim.name == "muon"
    key = "model.freeze" if run.config.model.freeze else "optim.name = 'muon'" if is_muon else ""
    if key and not any(name.startswith("head.") for name in file.tensors):
        raise ConfigError(
            f"eject of a module given from Python that has no `head`, with {key}, is not built yet; give it with --model"
        )


def _check_record(run: Run, file: ModelFile) -> None:
    """Raise FileError where a model file does not say what it was trained on."""
    told, kinds = file.training, {"data": str, "examples": dict, "epochs": int | float}
    counts = told["examples"] if isinstance(told.get("examples"), dict) else {}
    is_told = all(isinstance(told.get(key), kind) for key, kind in kinds.items())
    is_counted = "train" in counts and counts.keys() <= {"train", "val", "test"}
    if not (is_told and is_counted and all(type(count) is int and 0 < count < 1 << 40 for count in counts.values())):
        raise FileError(f"{str(run.last)!r} does not say what it was trained on; train the run anew to get a program")


def learning_rates_fit(run: Run, session: Session) -> bool:
    """Whether the schedule gives the learning rates that were logged; not if the run was given more epochs later."""
    own, schedule, base = session.plan.own, session.trainer.schedule, session.trainer.base_rates[0]
    logged = [(line["step"], line["learning_rate"]) for line in run.metrics if line["event"] == "train"]
    if own.schedule is not None or not logged:
        return True  # what it gives is the user's own affair
    if own.optimizer is not None:
        step, rate = logged[0]
        base = rate / (schedule(step - 1) or 1.0)
    return all(isclose(base * schedule(step - 1), rate, rel_tol=1e-9, abs_tol=1e-15) for step, rate in logged)
