"""Training the head alone: which layer it is, and how the rest of the model is kept as it came."""

from collections.abc import Sequence

from torch import nn

from goodfit.errors import ModelError, unknown_name

__all__ = ["find_head", "freeze_body", "freeze_parts", "frozen_parts", "set_training"]


def find_head(model: nn.Module) -> tuple[str, nn.Module]:
    """Return the name and module of the head: the attribute `head`, else the last linear or convolutional layer.

    Raises ModelError if the model has neither. A model wrapped for several processes has to be unwrapped first.
    """
    head = getattr(model, "head", None)
    if isinstance(head, nn.Module) and any(True for _ in head.parameters()):
        return "head", head
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has no linear or convolutional layer to train alone; "
            "name one by an attribute `head`, or --set model.freeze=false"
        )
    return layers[-1]


def freeze_body(model: nn.Module) -> None:
    """Leave only the head's parameters to be trained; give the optimiser those that still require gradients."""
    _, head = find_head(model)
    model.requires_grad_(False)
    head.requires_grad_()


def freeze_parts(model: nn.Module, names: Sequence[str]) -> None:
    """Leave the named parameters, and all below a named part, as they are; raise ModelError for a name that leads to none.

    Unlike a frozen body they stay in training mode: dropout is on and batch statistics move.
    """
    for name in names:
        below = [value for key, value in model.named_parameters() if key == name or key.startswith(f"{name}.")]
        if not below:
            tops = {key.partition(".")[0] for key, _ in model.named_parameters()}
            raise ModelError(f"model.frozen: {unknown_name('part', name, tops)}")
        for parameter in below:
            parameter.requires_grad_(False)


def frozen_parts(model: nn.Module) -> list[str]:
    """Return the names of the parameters that are not trained."""
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def set_training(model: nn.Module, *, frozen: bool) -> None:
    """Make `model` ready for training steps; call it wherever `model.train()` would stand, also after each evaluation.

    The layers of a frozen body stay in evaluation mode: their dropout is off and their batch statistics do not move.
    """
    model.train()
    if frozen:
        for child in model.children():
            child.eval()
        find_head(model)[1].train()
