"""Data sets of the user's own in a program: a marked place for them, and their examples read as goodfit reads them."""

import ast

from goodfit.data.tensor_transform import TensorTransform
from goodfit.eject.knowledge import Knowledge
from goodfit.eject.layout import docstring, statements
from goodfit.eject.places import marked
from goodfit.eject.values import Code, Static, Value, name
from goodfit.randomness import address, reseed

__all__ = ["is_own", "own_data_functions", "split_lines"]


def is_own(known: Knowledge) -> bool:
    """Whether the examples came ready, as a data set gives them."""
    transform = known.session.plan.dataset.transform
    return isinstance(transform, TensorTransform) and transform.is_identity


def own_data_functions(known: Knowledge, parts: list[str]) -> list[str]:
    """Return the marked place, and what reads examples of a data set."""
    dataset = known.session.plan.dataset
    target = f"a class, from 0 to {len(dataset.classes) - 1}" if dataset.classes else "a number"
    shape = ", ".join(map(str, dataset.transform.input_shape))
    about = (
        f"Return your own data set of the part {' or '.join(map(repr, parts))}, which gives pairs of ({shape}) float32 and "
        f"{target}; the order is that of `main`."
    )
    seeding: list[ast.stmt] = []
    place: list[Value] = [Code(name("seed")), Static("example"), Code(name("epoch")), Code(name("row"))]
    kept = known.specializer.kept.pop(address)  # in which the seed is the run's, and an evaluation has another
    known.specializer.inline(reseed, place, {"libraries": Static(True)}, seeding)
    known.specializer.kept[address] = kept
    return [
        *marked("def read(part: str) -> Dataset:", about, "data"),
        "",
        "",
        "def gather(data_set: Dataset, rows: Tensor, seed: int = 0, epoch: int = 0) -> tuple[Tensor, Tensor]:",
        *docstring("Return the examples of some rows; what a data set draws for one depends on seed, epoch and row alone."),
        "    examples = []",
        "    for row in rows.tolist():",
        *statements(seeding, 2),
        "        examples.append(data_set[row])",
        "    inputs, targets = default_collate(examples)",
        f"    return inputs, targets{'' if dataset.classes else '.float()'}",
    ]


def split_lines(known: Knowledge, brought: list[str], set_aside: list[str], limited: str) -> list[str]:
    """Return the statements that read the data sets; examples to validate and to test on are read once, those to train in turn."""
    lines = ['    train_set = read("train")', "    _, targets = gather(train_set, torch.arange(len(train_set)))"]
    lines.append("    rows = torch.arange(len(targets))")
    lines += set_aside
    lines += [f"    rows = {limited}"] if limited else []
    for part in ("val", "test"):
        if part in brought:
            lines.append(f'    {part}_set = read("{part}")')
            lines.append(f"    {part}_examples, {part}_targets = gather({part}_set, torch.arange(len({part}_set)))")
        elif part in known.session.plan.dataset.splits:
            lines.append(f"    {part}_examples, {part}_targets = gather(train_set, {part}_rows)")
    return [*lines, "    train_rows, train_targets = rows, targets[rows]"]
