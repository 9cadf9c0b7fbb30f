"""The model section of a program: the module as its layers, its initialisation, the optimiser, and what is frozen."""

import ast
import inspect
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

from torch import nn

from goodfit.eject.knowledge import Knowledge, member_of
from goodfit.eject.layout import WIDTH, docstring, expression, statements
from goodfit.eject.own_data import is_own
from goodfit.eject.signatures import class_lines
from goodfit.eject.sources import class_tree, docstring_sentence, function_tree
from goodfit.eject.specialize import Rule
from goodfit.eject.values import Code, Frame, Row, Static, Value, lift, literal, name, parse
from goodfit.errors import ConfigError
from goodfit.models import MODELS, convnet, external, whitened_vgg
from goodfit.models.freezing import find_head, freeze_body, freeze_parts, set_training
from goodfit.models.resnet import BasicBlock, build_resnet18
from goodfit.models.sequential import NotDescribable, describe_layers
from goodfit.session import _some_inputs
from goodfit.training.muon import orthogonal
from goodfit.training.optimizers import build_optimizer, optimizer_arguments

__all__ = ["first_layer_lines", "model_section", "optimizer_lines", "preparation_lines", "training_mode_lines"]


# The functions that build the blocks of a family, and what is said of them.
BLOCKS = {
    "convnet": (convnet._block, "Return a convolution, and what follows it."),
    "whitened-vgg": (
        whitened_vgg._block,
        "Return a convolution that begins by passing on what comes in, and what follows it.",
    ),
}


def model_section(known: Knowledge) -> list[str]:
    """Return the function that builds the module with fresh weights."""
    architecture = known.session.plan.architecture
    if architecture.is_code:
        return []
    if architecture.name == "resnet18":
        return _resnet(known)
    if architecture.name.startswith("torchvision/"):
        return _torchvision(known)
    if architecture.name.startswith("timm/"):
        return _timm(known)
    if architecture.name not in MODELS:
        raise ConfigError(
            f"eject of {architecture.name} is not built yet; it is built for {', '.join(MODELS)} and code of your own"
        )
    try:
        layers = describe_layers(known.session.model.requires_grad_(True))
    except NotDescribable as error:
        raise ConfigError(f"eject of this model is not built yet: {error}") from error
    if architecture.name in BLOCKS:
        layers = _with_blocks(known, layers)
    start = _initialization(known) if architecture.name != "sequential" else []
    network = _layers(layers, "    model = " if start else "    return ")
    return [
        "def build_model() -> nn.Sequential:",
        f'    """Return {"the layers" if architecture.name == "sequential" else architecture.name} with fresh weights."""',
        *network,
        *statements(start, 1),
        *(["    return model"] if start else []),
    ]


def _with_blocks(known: Knowledge, layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the layers with a call of the block's function for each block."""
    architecture = known.session.plan.architecture
    build, about = BLOCKS[architecture.name]
    known.specializer.about["block"] = about
    known.specializer.keep(build, "block", {key: Static(value) for key, value in architecture.arguments.items()})
    found = []
    for layer in layers:
        if layer["layer"] == "Sequential":
            blocks = [{each["name"]: each.get("arguments") for each in block["layers"]} for block in layer["layers"]]
            calls = [
                f"block({block['conv']['in_channels']}, {block['conv']['out_channels']}, pooled={'pool' in block})"
                for block in blocks
            ]
            layer = {**layer, "layers": [{"name": str(place), "text": call} for place, call in enumerate(calls)]}
        found.append(layer)
    return found


def first_layer_lines(known: Knowledge, noun: str) -> list[str]:
    """Return the statements that give a first layer that follows the data its weights."""
    plan, specializer = known.session.plan, known.specializer
    if plan.architecture.name != "whitened-vgg" or plan.start:
        return []
    examples = Code(name("train_rows" if is_own(known) else f"train_{noun}"))
    specializer.facts |= {
        f"{ast.unparse(examples.node)}.rows": examples,
        "layer.get_parameter('bias')": Code(parse("layer.bias")),
    }
    some = known.assigned(_some_inputs, "rows", {"split": examples})
    specializer.keep(whitened_vgg.whiten)
    inputs = "gather(train_set, some)[0]" if is_own(known) else "normalize(some)"
    about = f"    # The first layer is made to whiten patches of {noun} from all over the training split."
    return [about, f"    some = {some}", f"    whiten(model.whitening, {inputs})"]


def _layers(layers: list[dict[str, Any]], head: str) -> list[str]:
    """Return an nn.Sequential over several lines, a layer on each."""
    indent = " " * (len(head) - len(head.lstrip()) + 4)
    is_named = not all(layer["name"] == str(place) for place, layer in enumerate(layers))
    as_keywords = is_named and all(layer["name"].isidentifier() and layer["name"] != "self" for layer in layers)
    lines = []
    for layer in layers:
        title = layer["name"]
        start = f"{title}=" if as_keywords else f'("{title}", ' if is_named else ""
        end = "" if as_keywords or not is_named else ")"
        inner = indent + " " * 4 if is_named else indent
        one = f"{inner}{start}{_one_line(layer)}{end},"
        if layer.get("layer") == "Sequential" and len(one) > WIDTH:
            nested = _layers(layer["layers"], f"{inner}{start}")
            nested[-1] += f"{end},"
            lines += nested
        else:
            lines.append(one)
    opening, closing = ("OrderedDict(", ")") if as_keywords else ("OrderedDict([", "])")
    if not is_named:
        return [f"{head}nn.Sequential(", *lines, f"{indent[4:]})"]
    return [f"{head}nn.Sequential(", f"{indent}{opening}", *lines, f"{indent}{closing}", f"{indent[4:]})"]


def _one_line(layer: Mapping[str, Any]) -> str:
    if "text" in layer:
        return str(layer["text"])
    if layer["layer"] == "Sequential":
        inner = layer["layers"]
        if all(each["name"] == str(place) for place, each in enumerate(inner)):
            return f"nn.Sequential({', '.join(map(_one_line, inner))})"
        named = (f"{each['name']}={_one_line(each)}" for each in inner)
        return f"nn.Sequential(OrderedDict({', '.join(named)}))"
    arguments = {key: _plain(value) for key, value in layer.get("arguments", {}).items()}
    in_order = list(inspect.signature(getattr(nn, layer["layer"])).parameters)
    given, rest = [], dict(arguments)
    for key in in_order[:3]:  # as people write them: the sizes by place, all else by name
        if key not in rest:
            break
        given.append(expression(literal(rest.pop(key))))
    given += [f"{key}={expression(literal(value))}" for key, value in rest.items()]
    return f"nn.{layer['layer']}({', '.join(given)})"


def _plain(value: Any) -> Any:
    """Return one number for several equal ones, as layers take it, and a tuple for a list."""
    if isinstance(value, list):
        return value[0] if len(set(value)) == 1 and len(value) > 1 else tuple(value)
    return value


def _initialization(known: Knowledge) -> list[ast.stmt]:
    """Return the statements of the builder that draw weights in another way than torch does."""
    builder = MODELS[known.session.plan.architecture.name]
    arguments = known.session.plan.architecture.arguments
    frame = Frame({key: Static(value) for key, value in arguments.items()}, builder.__globals__)
    reached = _reached(known, function_tree(builder).body, frame)
    texts = [_as_attributes(ast.unparse(node)) for node in reached]
    return [ast.parse(text).body[0] for text in texts if "nn.init" in text]


def _reached(known: Knowledge, body: list[ast.stmt], frame: Frame) -> Iterator[ast.stmt]:
    """Give the statements that are reached; the tests are comparisons of an argument."""
    for node in body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and ast.unparse(node.test.left) in frame.names:
            holds = known.specializer.value(node.test, frame, [])
            assert isinstance(holds, Static)
            yield from _reached(known, node.body if holds.value else node.orelse, frame)
        else:
            yield node


def _as_attributes(text: str) -> str:
    """Say layers['fc1'].get_parameter('weight') as model.fc1.weight."""
    return text.replace("layers['", "model.").replace("'].get_parameter('", ".").replace("')", "")


def _resnet(known: Knowledge) -> list[str]:
    """Return the block's class as it is, and the builder for this run's arguments."""
    architecture = known.session.plan.architecture
    given: dict[str, Value] = {key: Static(value) for key, value in architecture.arguments.items()}
    given |= {"input_shape": Static(architecture.input_shape), "num_outputs": Static(architecture.num_outputs)}
    body, result = known.run(build_resnet18, given)
    return [
        *class_lines(class_tree(BasicBlock)),
        "",
        "",
        "def build_model() -> nn.Sequential:",
        *docstring(docstring_sentence(build_resnet18)),
        *statements([*body, ast.Return(lift(result))], 1),
    ]


def _torchvision(known: Knowledge) -> list[str]:
    """Return the library's model, with the head that fits."""
    architecture, rules = known.session.plan.architecture, known.specializer.rules
    if architecture.input_shape[0] != 3:
        raise ConfigError(
            f"eject of {architecture.name} for grey pictures is not built yet; it is built for pictures of 3 channels"
        )
    path, head = find_head(known.session.model)
    nothing = lambda *_: Static(None)  # noqa: E731
    changed: dict[Any, Rule] = {
        external._check_torchvision_name: nothing,
        external._fit_first_convolution: nothing,
        external._parameters_where_asked: lambda *_: Static(nullcontext()),
        external._proved: lambda given, *_: given[0],
        find_head: lambda *_: Row((Static(path), Static(head))),
    }
    before = dict(rules)
    rules |= changed
    given: dict[str, Value] = {
        "architecture": Static(architecture.name.partition("/")[2]),
        "input_shape": Static(architecture.input_shape),
        "num_outputs": Static(architecture.num_outputs),
        "pretrained": Static(False),
    }
    body, result = known.run(external.build_torchvision, given)
    rules.clear()
    rules |= before
    about = f'    """Return {architecture.name} with fresh weights."""'
    return ["def build_model() -> nn.Module:", about, *statements([*body, ast.Return(lift(result))], 1)]


def _timm(known: Knowledge) -> list[str]:
    """Return the library's model, which itself makes head and first layer fit."""
    architecture = known.session.plan.architecture
    name, channels = architecture.name.partition("/")[2], architecture.input_shape[0]
    call = f'timm.create_model("{name}", num_classes={architecture.num_outputs}, in_chans={channels})'
    about = f'    """Return {architecture.name} with fresh weights."""'
    return ["def build_model() -> nn.Module:", about, f"    return {call}"]


def preparation_lines(known: Knowledge) -> list[str]:
    """Return the statements that freeze what is not trained."""
    model, config = {"model": Code(name("model"))}, known.session.plan.config.model
    parts = [member_of(known.session.model, path) for path in config.frozen]
    body: list[ast.stmt] = []
    if all(parts):
        body = ast.parse("\n".join(f"{part}.requires_grad_(False)" for part in parts)).body
    else:
        body = known.run(freeze_parts, {**model, "names": Static(list(config.frozen))})[0]
    if config.freeze:
        body += known.run(freeze_body, model)[0]
    return statements(body, 1)


def training_mode_lines(known: Knowledge) -> list[str]:
    """Return the statements that make the module ready for training steps."""
    frozen = Static(known.session.plan.config.model.freeze)
    return statements(known.run(set_training, {"model": Code(name("model")), "frozen": frozen})[0], 2)


def optimizer_lines(known: Knowledge) -> list[str]:
    """Return the statements that make the optimiser; groups that would differ in nothing are one."""
    settings = known.session.plan.config.optim
    if known.session.plan.own.optimizer is not None:
        parameters = "    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]"
        return [*([parameters] if known.session.trainer.clip else []), "    optimizer = make_optimizer(model)"]
    given: dict[str, Value] = {
        "name": Static(settings.name),
        "model": Code(name("model")),
        "lr": Static(settings.lr, name("LEARNING_RATE")),
        "momentum": Static(settings.momentum),
        "weight_decay": Static(settings.weight_decay),
        "arguments": Static(settings.arguments),
        "precision": Static(known.session.plan.config.train.precision),
    }
    body, result = known.run(build_optimizer, given, wanted=("parameters",) if known.session.trainer.clip else ())
    made = lift(result)
    assert isinstance(made, ast.Call)
    if settings.name == "muon":
        known.specializer.keep(orthogonal)
        body = [node for node in body if known.session.trainer.clip or not statements([node])[0].startswith("parameters = ")]
    elif not settings.weight_decay:
        is_frozen = any(not parameter.requires_grad for parameter in known.session.model.parameters())
        body = [node for node in body if statements([node])[0].startswith("parameters = ")]
        body = body if is_frozen or known.session.trainer.clip else []
        made.args = [name("parameters") if body else parse("model.parameters()")]
        if optimizer_arguments(settings.name).get("weight_decay"):
            made.keywords.insert(1, ast.keyword("weight_decay", literal(0.0)))
    return statements([*body, ast.Assign([name("optimizer")], made)], 1)
