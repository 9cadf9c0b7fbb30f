"""The evaluation of a program: the function that measures a model on a split."""

import ast
import copy
from typing import Any

from torch import Tensor

from goodfit.data.stream import _batch_size
from goodfit.eject.data import DataSection
from goodfit.eject.knowledge import Knowledge
from goodfit.eject.layout import statements
from goodfit.eject.values import Code, Static, Value, lift, name, parse
from goodfit.evaluation.evaluate import TrainedModel, _count
from goodfit.evaluation.metrics import ClassificationCounts, RegressionSums

__all__ = ["evaluation_section"]


def evaluation_section(known: Knowledge, data: DataSection) -> list[str]:
    """Return the function that measures a model on a split."""
    specializer, session = known.specializer, known.session
    model, dataset = known.trained, session.plan.dataset
    specializer.objects[id(model.module)] = Code(name("model"))
    is_classifier = dataset.task == "classification"
    sums = ClassificationCounts(len(dataset.classes), session.device) if is_classifier else RegressionSums(session.device, 0.0)
    names = {"_confusion": "confusion", "_loss": "loss"} if is_classifier else {"_sums": "sums", "_count": "count"}
    for attribute, title in names.items():
        specializer.attributes[id(sums), attribute] = Code(name(title))
        specializer.facts[f"{title}.dtype"] = Static(getattr(sums, attribute).dtype)
    known.alive.append(sums)
    body, outputs = known.run(
        TrainedModel.__call__, {"self": Static(model), "stored": Code(name("stored"))}, wanted=("outputs", "inputs")
    )
    body = [node for node in body if statements([node])[0] != "model.eval()"]
    if ast.unparse(lift(outputs)) != "outputs":
        body.append(ast.Assign([name("outputs")], lift(outputs)))
    specializer.float32.add("outputs")
    given: dict[str, Value] = {
        "sums": Static(sums),
        "model": Static(model),
        "outputs": Code(name("outputs")),
        "targets": Code(name("targets")),
    }
    body += known.run(_count, given, wanted=list(names.values()))[0]
    kind: Any = type(sums)
    init = kind.__init__
    sizes = {"num_classes": Static(len(dataset.classes)), "device": Static(session.device)}
    starts = [f"    {title} = {known.assigned(init, f'self.{attribute}', sizes)}" for attribute, title in names.items()]
    assert isinstance(dataset.train.inputs, Tensor)
    size = _batch_size(dataset.train.inputs[:1])
    noun, place = data.noun, "" if session.device.type == "cpu" else ".to(DEVICE)"
    result = _result(known, kind)
    return [
        "@torch.no_grad()",
        f"def evaluate(model: nn.Module, {noun}: Tensor, targets: Tensor) -> tuple[float, float]:",
        f'    """Return the loss and the {"accuracy" if is_classifier else "root of the mean squared error"} of the model."""',
        "    model.eval()",
        *starts,
        f"    for stored, some_targets in zip({noun}.split({size}), targets.split({size}), strict=True):",
        *statements(_renamed(body, place), 2),
        f"    return {result}",
    ]


def _renamed(body: list[ast.stmt], place: str) -> list[ast.stmt]:
    """Call the targets of a batch by another name than those of all."""
    body = copy.deepcopy(body)
    for node in (inner for statement in body for inner in ast.walk(statement)):
        if isinstance(node, ast.Name) and node.id == "targets":
            node.id = "some_targets"
    if place:
        moved = f"stored, some_targets = stored{place}, some_targets{place}"
        body = [*ast.parse(moved).body, *body]
    return body


def _result(known: Knowledge, kind: Any) -> str:
    """Return the loss and the other measure, made of the sums."""
    given: dict[str, Value]
    if kind is ClassificationCounts:
        given = {"self": Static(None), "n": Code(parse("len(targets)")), "correct": Code(parse("int(confusion.trace())"))}
        sums = Code(name("loss"))
        known.specializer.attributes[id(None), "_loss"] = sums
        return ", ".join(known.keyword(kind.result, key, given) for key in ("loss", "accuracy"))
    first, third = Code(parse("sums[0].item()")), Code(parse("sums[2].item()"))
    given = {"n": Code(parse("len(targets)")), "loss": first, "squared": third, "sqrt": Static(None, parse("math.sqrt"))}
    return ", ".join(known.keyword(kind.result, key, given) for key in ("loss", "rmse"))
