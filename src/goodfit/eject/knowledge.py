"""What a program knows by name of a run's objects, and which of the package's functions it keeps, or can do without."""

import ast
import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from keyword import iskeyword
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from goodfit.data import augment, splits
from goodfit.data.augment import Augmentation, _first_sides, alternating_sides
from goodfit.data.dataset import Part
from goodfit.data.image_transform import ImageTransform
from goodfit.data.loader import Batch, Loader
from goodfit.data.stream import first_examples
from goodfit.data.tensor_transform import TensorTransform
from goodfit.data.transforms import Normalization
from goodfit.devices import spare_the_compiler, upload
from goodfit.distributed import Ranks
from goodfit.eject.blocks import give_name, run_block
from goodfit.eject.folding import WHOLE, prune
from goodfit.eject.layout import expression
from goodfit.eject.sources import function_tree
from goodfit.eject.specialize import Rule, Specializer
from goodfit.eject.stand_ins import has_place, is_unknown
from goodfit.eject.values import CannotWriteError, Code, Frame, Row, Static, Value, lift, name, parse
from goodfit.evaluation.calibration import CalibrationBins
from goodfit.evaluation.evaluate import TrainedModel
from goodfit.inputs import apply
from goodfit.models import MODELS
from goodfit.models.freezing import find_head
from goodfit.models.outputs import check_outputs, in_float32, prediction_of
from goodfit.randomness import address, generator, reseed
from goodfit.session import Session
from goodfit.training import optimizers, schedules
from goodfit.training.ema import MovingAverage
from goodfit.training.losses import CrossEntropy
from goodfit.training.muon import muon_groups
from goodfit.training.optimizers import optimizer_arguments
from goodfit.training.own import OwnLoss, OwnSchedule, _is_one_column
from goodfit.training.state import RunState
from goodfit.training.trainer import Trainer
from goodfit.training.updates import OptimizerUpdate

__all__ = ["SCHEDULE", "Knowledge", "know", "member_of"]

# Of functions whose docstring does not suit the program, or that have none.
SCHEDULE = "Return the factor on the learning rate at a step, counted from 0."
ABOUT = {
    "schedule": SCHEDULE,
    "draw": "Return the positions, ascending, of `take` random examples of each stratum.",
    "backward_part": "Add the gradient of a part of the batch; return its share of the loss, and the outputs.",
}
VARIABLES = {
    "model": "nn.Module",
    "optimizer": "torch.optim.Optimizer",
    "scaler": "torch.amp.GradScaler",
    "class_weights": "Tensor",
}


@dataclass
class Knowledge:
    """A specializer that knows a session, and the constants at the top of the program, with what is said of each."""

    session: Session
    specializer: Specializer
    trained: TrainedModel
    metrics: list[dict[str, Any]] = field(default_factory=list)  # the lines of the run's log
    constants: dict[str, tuple[Any, str]] = field(default_factory=dict)
    alive: list[Any] = field(default_factory=list)  # objects known by their identity

    @property
    def draws(self) -> bool:
        """Whether the module itself draws random numbers while it is trained."""
        if self.session.plan.architecture.name not in MODELS:
            return True  # perhaps
        kinds = {type(module).__name__ for module in self.session.model.modules()}
        return any("Dropout" in kind or kind == "RReLU" for kind in kinds)

    @property
    def code_name(self) -> str:
        """The name of the user's code for the model, as it was given now: "net.py:Net"; empty for any other model."""
        own, is_code = self.session.plan.own.model, self.session.plan.architecture.is_code
        return own.name if own and is_code and not self.model_has_place else ""

    @property
    def model_has_place(self) -> bool:
        """Whether the model is an object given from Python, which no import brings."""
        return self.session.plan.architecture.is_code and has_place(self.session.plan.own.model)

    def constant(self, title: str, value: Any, comment: str = "") -> Static:
        """Put a constant at the top of the program, and return it."""
        self.constants[title] = (value, comment)
        return Static(value, name(title))

    def run(
        self, function: Any, given: Mapping[str, Value], wanted: Sequence[str] = (), drops_result: bool = False
    ) -> tuple[list[ast.stmt], Value]:
        """Return the statements of one of the package's functions for what is `given`, and its result."""
        function = inspect.unwrap(function)
        out: list[ast.stmt] = []
        frame = Frame(dict(given), function.__globals__)
        result = run_block(self.specializer, function_tree(function).body, frame, out)
        end = ast.Constant(None) if drops_result else _lift_or_none(result)
        return prune([*out, ast.Expr(end)], wanted)[:-1], result or Static(None)

    def assigned(self, function: Any, target: str, given: Mapping[str, Value]) -> str:
        """Return what a function assigns to `target`, as the program's text."""
        tree = function_tree(function)
        found = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == target]
        return self._text(found[0].value, function, given)

    def keyword(self, function: Any, argument: str, given: Mapping[str, Value]) -> str:
        """Return what a function passes on as the argument of a name, as the program's text."""
        found = [node for node in ast.walk(function_tree(function)) if isinstance(node, ast.keyword) and node.arg == argument]
        return self._text(found[0].value, function, given)

    def _text(self, node: ast.expr, function: Any, given: Mapping[str, Value]) -> str:
        return expression(lift(self.specializer.value(node, Frame(dict(given), function.__globals__), [])))


def know(session: Session) -> Knowledge:
    """Return what can be known of a session before its program runs."""
    known = Knowledge(session, Specializer(session.device, variables=VARIABLES), session.trained_model())
    _name_state(known)
    _name_settings(known)
    _name_batches(known)
    _set_rules(known)
    _keep_functions(known)
    known.specializer.about |= ABOUT
    for function in (address, generator):  # first, for all else draws through them
        known.specializer.keep(function, "", known.specializer.kept[function][1])
    return known


def _name_state(known: Knowledge) -> None:
    trainer, names = known.session.trainer, known.specializer.objects
    state = trainer.state
    trainer.update = OptimizerUpdate(state.optimizer)  # which any other is the same as, to the last bit
    names |= {id(state.model): Code(name("model")), id(state.optimizer): Code(name("optimizer"))}
    names |= {id(trainer.parameters): Code(name("parameters")), id(trainer.base_rates): Code(name("base_rates"))}
    if state.scaler.is_enabled():
        names[id(state.scaler)] = Code(name("scaler"))
        known.specializer.facts["scaler.is_enabled()"] = Static(True)
    if isinstance(trainer.loss, CrossEntropy) and trainer.loss.class_weights is not None:
        names[id(trainer.loss.class_weights)] = Code(name("class_weights"))
    for attribute in ("step", "loss_sum", "weight_sum"):
        known.specializer.attributes[id(state), attribute] = Code(name(attribute))


def _name_settings(known: Knowledge) -> None:
    plan, trainer, attributes = known.session.plan, known.session.trainer, known.specializer.attributes
    settings = plan.config.train
    attributes[id(trainer), "seed"] = known.constant("SEED", settings.seed)
    known.constant("EPOCHS", settings.epochs)
    attributes[id(trainer.loader), "batch_size"] = known.constant("BATCH_SIZE", plan.batch_size)
    if plan.own.optimizer is None:
        rate = known.constant("LEARNING_RATE", float(plan.config.optim.lr or 0))
        if set(trainer.base_rates) == {rate.value}:
            known.specializer.repeated["base_rates"] = rate
    if settings.accumulate > 1:
        attributes[id(trainer), "parts"] = known.constant("ACCUMULATE", settings.accumulate, "parts of a batch")
    if settings.clip:
        attributes[id(trainer), "clip"] = known.constant("CLIP", settings.clip, "largest norm of the gradient")
    total = Static(plan.total_steps, parse("EPOCHS * STEPS_PER_EPOCH"))
    attributes[id(trainer.schedule), "total_steps"] = total
    normalization = getattr(plan.dataset.transform, "_normalization", None)
    if isinstance(normalization, Normalization):
        note = "of the training split's pixels, from 0 to 1" if normalization.scale == 255 else "of the training split"
        if plan.config.transform.mean is not None or plan.config.transform.std is not None:
            note = ""
        attributes[id(normalization), "mean"] = known.constant("MEAN", normalization.mean, note)
        attributes[id(normalization), "std"] = known.constant("STD", normalization.std)


def _name_batches(known: Knowledge) -> None:
    specializer, session = known.specializer, known.session
    shape = session.plan.dataset.transform.input_shape
    is_mixed = session.trainer.augmentation.mixes
    stored_type = torch.uint8 if isinstance(session.plan.dataset.transform, ImageTransform) else torch.float32
    specializer.facts |= {"stored.dtype": Static(stored_type), "stored.ndim": Static(len(shape) + 1)}
    specializer.facts |= {"outputs.ndim": Static(2), "targets.ndim": Static(2 if is_mixed else 1)}
    if session.trainer.precision == "fp32":
        specializer.float32.add("model")
    if session.plan.architecture.name == "mlp":  # has nothing that a memory format could change
        for holder in (session.trainer, known.trained):
            specializer.attributes[id(holder), "channels_last"] = Static(False)
    if isinstance(session.trainer.loss, OwnLoss):
        specializer.objects[id(session.trainer.loss.function)] = Code(name("loss_function"))
        is_float = is_mixed or session.plan.dataset.task == "regression"
        columns = session.plan.architecture.num_outputs
        specializer.facts |= {"targets.is_floating_point()": Static(is_float), "outputs.shape[1]": Static(columns)}


def _loop_rules(specializer: Specializer) -> dict[Any, Rule]:
    """Return the rules for what a step takes from the loop around it."""

    def sides(given: Sequence[Value], _named: Mapping[str, Value], out: list[ast.stmt]) -> Value:
        found = specializer.inline(alternating_sides, [given[0], Code(name("epoch")), *given[2:]], {}, out)
        return give_name(specializer, "sides", found, out)

    def rate(given: Sequence[Value], named: Mapping[str, Value], out: list[ast.stmt]) -> Value:
        specializer.inline(Trainer._set_learning_rate, given, named, out)
        return Static(None)  # the rate is for the log

    return {
        Loader.positions: lambda *_: Code(name("batch")),
        alternating_sides: sides,
        _first_sides: lambda *_: Code(name("first_sides")),
        Trainer._set_learning_rate: rate,
    }


def _set_rules(known: Knowledge) -> None:
    specializer, session = known.specializer, known.session
    stored, targets = torch.empty(0), torch.empty(0)
    specializer.objects |= {id(stored): Code(name("stored")), id(targets): Code(name("targets"))}
    batch = Batch(stored, targets, WHOLE)
    no_flags: Value = Row((Static(False), Static(False)))
    whole, nothing = (lambda *_: Static(WHOLE)), (lambda *_: Static(None))
    specializer.rules |= _loop_rules(specializer)
    specializer.rules |= {
        Loader.__call__: lambda *_: Static(batch),
        Ranks.slice: whole,
        Ranks.add_gradients: lambda *_: no_flags,
        RunState.wait_for_copy: nothing,
        RunState.add_loss: _add_loss,
        Ranks.share: nothing,
        Ranks.add: nothing,
        check_outputs: nothing,
        torch.cuda.is_initialized: lambda *_: Static(session.device.type == "cuda"),
        Normalization._remembered: lambda given, named, out: specializer.inline(
            Normalization._factor_and_shift, given, named, out
        ),
        MovingAverage.update: lambda given, *_: Code(ast.Call(parse("average.update"), [lift(given[1])], [])),
        Part: lambda given, *_: Row(tuple(given[:2])),
        CalibrationBins.update: nothing,
        apply: lambda given, *_: given[1],
        optimizer_arguments: lambda given, *_: Static(optimizer_arguments(ast.literal_eval(lift(given[0])))),
        optimizers._check: nothing,
        spare_the_compiler: nothing,
        upload: lambda given, _, out: specializer.call(
            Code(ast.Attribute(lift(given[0]), "to", ast.Load())), [given[1]], {}, out
        ),
        find_head: lambda *_: _head(session.model),
        _is_one_column: lambda *_: Static(session.plan.architecture.num_outputs == 1),
        OwnSchedule.after_step: lambda *_: _schedule_step(session),
    }
    if session.plan.architecture.is_code:
        outputs = _outputs(session)
        specializer.facts["isinstance(outputs, Tensor)"] = Static(isinstance(outputs, Tensor))
        specializer.rules[prediction_of] = lambda given, *_: _prediction(outputs, given[0])
        specializer.rules[in_float32] = lambda given, *_: Code(ast.Call(name("in_float32"), [lift(given[0])], []))
    if not known.draws:
        specializer.rules[reseed] = nothing
    if not session.state.scaler.is_enabled():
        specializer.rules |= {
            GradScaler.scale: lambda given, *_: given[1],
            GradScaler.step: lambda *_: Code(parse("optimizer.step()")),
            GradScaler.unscale_: nothing,
            GradScaler.update: nothing,
            GradScaler.is_enabled: lambda *_: Static(False),
        }
    known.alive += [stored, targets, batch]


def _outputs(session: Session) -> Any:
    """Return what the module gives for two examples, None where only a stand-in for it is here."""
    if is_unknown(session.plan.own.model):
        return None
    inputs, _ = first_examples(session.plan.dataset, 2, session.plan.config.train.seed)
    with torch.no_grad():
        return copy.deepcopy(session.model).cpu().eval()(inputs)


def _prediction(outputs: Any, given: Value) -> Value:
    """Return what the prediction is among such outputs as the module's."""
    if outputs is None:
        return Code(ast.Call(name("prediction_of"), [lift(given)], []))
    if isinstance(outputs, Mapping):
        return Code(ast.Subscript(lift(given), ast.Constant("logits"), ast.Load()))
    if isinstance(outputs, Sequence):
        return Code(ast.Subscript(lift(given), ast.Constant(0), ast.Load()))
    if outputs.ndim == 1:
        return Code(ast.Call(ast.Attribute(lift(given), "unsqueeze", ast.Load()), [ast.Constant(1)], []))
    return given


def _schedule_step(session: Session) -> Value:
    """Return the step of a scheduler that counts steps; others are stepped by the loop over epochs."""
    schedule = session.state.schedule
    return Code(parse("scheduler.step()")) if schedule and schedule.counts_steps else Static(None)


def _head(model: nn.Module) -> Value:
    path, _ = find_head(model)
    member = member_of(model, path)
    if not member:
        raise CannotWriteError(f"the head {path!r} is not written")
    return Row((Static(path), Code(parse(member))))


def member_of(model: nn.Module, path: str) -> str:
    """Return how the program names a part of the model, or a parameter; empty for one with a name that Python does not take."""
    text = "model"
    for place, part in enumerate(path.split(".") if path else []):
        owner = model.get_submodule(".".join(path.split(".")[:place]))
        if part.isdecimal() and isinstance(owner, nn.Sequential | nn.ModuleList):
            text += f"[{part}]"
        elif part.isidentifier() and not iskeyword(part):
            text += f".{part}"
        else:
            return ""
    return text


def _keep_functions(known: Knowledge) -> None:
    specializer, trainer, plan = known.specializer, known.session.trainer, known.session.plan
    seed, transform = specializer.attributes[id(trainer), "seed"], Static(plan.dataset.transform)
    mixing = {"self": Static(trainer.augmentation), "transform": transform, "num_classes": Static(trainer.num_classes)}
    specializer.kept |= {
        address: ("", {"seed": seed}),
        generator: ("", {"seed": seed}),
        splits.take_share: ("", {"seed": seed}),
        splits.take_number: ("", {"seed": seed}),
        splits._apportion: ("", {}),
        splits._draw: ("", {"seed": seed}),
        ImageTransform.normalize: ("normalize", {"self": transform}),
        augment.shift: ("", {"fill": Static(trainer.augmentation.fill)}),
        augment._reflected: ("", {}),
        augment._change: ("", {}),
        augment._blank: ("", {}),
        augment._box: ("draw_box", {}),
        muon_groups: ("", {}),
    }
    if plan.own.schedule is None:
        specializer.kept[trainer.schedule] = ("schedule", {})
    else:
        specializer.objects[id(trainer.schedule)] = Code(name("schedule"))
    if not (isinstance(plan.dataset.transform, TensorTransform) and plan.dataset.transform.is_identity):
        specializer.kept[TensorTransform.normalize] = ("normalize", {"self": transform})
    specializer.kept |= {shape: ("", {}) for shape in schedules.SCHEDULES.values()}
    specializer.kept[schedules.step] = ("stairs", {})  # there is a variable of that name
    if trainer.augmentation != Augmentation():
        if trainer.augmentation.flip != "alternating":
            mixing["sides"] = Static(None)
        elif replace(trainer.augmentation, flip=False).is_nothing:
            mixing["step"] = Static(None)  # nothing is drawn in a step
        specializer.kept[Augmentation.__call__] = ("augment", {**mixing, "seed": seed, "part": Static(WHOLE)})
    if plan.config.train.accumulate > 1:
        specializer.kept[Trainer._backward_part] = ("backward_part", {"self": Static(trainer)})
    if plan.config.schedule.name == "constant" and not plan.config.schedule.warmup:
        specializer.rules[Trainer._set_learning_rate] = lambda *_: Static(None)


def _lift_or_none(value: Value | None) -> ast.expr:
    """Return a result as an expression, None for one that no text can give."""
    try:
        return lift(value or Static(None))
    except CannotWriteError:
        return ast.Constant(None)


def _add_loss(given: Sequence[Value], _named: Mapping[str, Value], out: list[ast.stmt]) -> Value:
    """Add a step's loss to the sums at once, as one who writes it out would."""
    loss, weight = map(lift, given[1:])
    out.append(ast.AugAssign(ast.Name("loss_sum", ast.Store()), ast.Add(), ast.BinOp(loss, ast.Mult(), weight)))
    out.append(ast.AugAssign(ast.Name("weight_sum", ast.Store()), ast.Add(), weight))
    return Static(None)
