"""Giving a module the tensors of a file in which they may be called otherwise, and saying which became which."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from torch import Tensor, nn

from goodfit.errors import FileError

__all__ = ["Matching", "match_tensors"]

COUNTER = "num_batches_tracked"  # of batch normalisation, which files from before torch 0.4.1 do not have
MOST_NAMED = 3
LONGEST_NAME = 120  # characters

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Matching:
    """Which tensor of a file is which of a module's, and how that is known."""

    sources: dict[str, str]  # the name in the file of each of the module's tensors
    by: Literal["name", "prefix", "order"]
    prefixes: tuple[str, str] = ("", "")  # that the file's names, and the module's, have before what is the same
    missing: tuple[str, ...] = ()  # counters that the file does not have, and that stay 0

    def tensors_for(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the file's tensors under the module's names, and as it keeps them."""
        own = module.state_dict()
        return {key: tensors[self.sources[key]].to(own[key].dtype) if key in self.sources else own[key] for key in own}

    def changed_types(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> str:
        """Say which types of numbers become others, the model's, and with that may be rounded; empty if none do."""
        own = module.state_dict()
        pairs = {(tensors[source].dtype, own[key].dtype) for key, source in self.sources.items()}
        named = sorted(f"{old} numbers become {new}" for old, new in pairs if old != new)
        return ", ".join(named).replace("torch.", "")

    def to_json(self) -> dict[str, Any]:
        """Return how many tensors were matched, by what, and the names that differ: the module's by the file's."""
        renamed = {source: key for key, source in self.sources.items() if key != source}
        return {"tensors": len(self.sources), "by": self.by, "renamed": renamed, "missing": list(self.missing)}

    def describe(self) -> str:
        """Say the same to a person, in a line."""
        count = f"{len(self.sources)} tensors" if len(self.sources) > 1 else "1 tensor"
        theirs, ours = self.prefixes
        match self.by:
            case "name":
                how = "by name"
            case "prefix" if not ours:
                how = f"by name, without the prefix {theirs!r}"
            case "prefix":
                how = f"by name, with {ours!r} " + (f"in place of {theirs!r}" if theirs else "before each")
            case "order":
                pairs = [f"{source} is {key}" for key, source in self.sources.items() if key != source]
                how = f"in order, as their names differ and their shapes agree: {_first(pairs)}"
        without = f"; the file has no {_first(list(self.missing))}, which is left at 0" if self.missing else ""
        return f"{count} matched {how}{without}"


def match_tensors(expected: Shapes, found: Shapes, model: str, file: str) -> Matching:
    """Say which of the tensors `found` in a file is which of those that a model expects.

    They are matched by name, else by what follows a prefix that all have in common, else in order, where only one order
    is possible. Raises FileError, saying what is missing, what is left over and what has another shape.
    """
    missing = () if any(key.endswith(COUNTER) for key in found) else tuple(key for key in expected if key.endswith(COUNTER))
    wanted = {key: shape for key, shape in expected.items() if key not in missing}
    if wanted == found:
        return Matching({key: key for key in wanted}, "name", missing=missing)
    theirs, ours = _prefixes(found, wanted)
    if {key.removeprefix(ours): shape for key, shape in wanted.items()} == {
        key.removeprefix(theirs): shape for key, shape in found.items()
    }:
        return Matching({key: theirs + key.removeprefix(ours) for key in wanted}, "prefix", (theirs, ours), missing)
    sources, doubt = _in_order(wanted, found)
    if sources and not doubt:
        return Matching(sources, "order", missing=missing)
    lines = [f"the weights in {file!r} do not fit {model}; give the model that they were saved from, with its arguments"]
    raise FileError("\n  ".join([*lines, *_differences(wanted, found, theirs, ours), *doubt]))


def _prefixes(found: Shapes, wanted: Shapes) -> tuple[str, str]:
    """Return what all names of either side begin with, up to a dot, without the end that both sides' beginnings share."""
    layers = ([key.split(".")[:-1] for key in keys] for keys in (found, wanted))
    theirs, ours = ([*takewhile(lambda parts: len(set(parts)) == 1, zip(*names, strict=False))] for names in layers)
    while theirs and ours and theirs[-1] == ours[-1]:
        theirs, ours = theirs[:-1], ours[:-1]
    return "".join(f"{part[0]}." for part in theirs), "".join(f"{part[0]}." for part in ours)


def _in_order(wanted: Shapes, found: Shapes) -> tuple[dict[str, str], list[str]]:
    """Match layer by layer in the order of both sides: return the sources, none if that fails, and what speaks against it."""
    ours, theirs = _layers(wanted), _layers(found)
    if list(ours.values()) != list(theirs.values()):
        return {}, []
    pairs = list(zip(ours, theirs, strict=True))
    sources = {_join(own, leaf): _join(their, leaf) for own, their in pairs for leaf in ours[own]}
    crossed = [key for key, source in sources.items() if key in found and source != key]
    if crossed:
        return sources, [f"names and order contradict each other: {crossed[0]} is in both, and not in the same place"]
    for own, shapes in ours.items():
        alike = [pair for pair in pairs if ours[pair[0]] == shapes]
        if len(alike) > 1 and alike[0][0] == own and not all(map(_are_numbered, zip(*alike, strict=True))):
            (first, *_), (second, *_) = ([pair[1] for pair in alike[place:]] for place in (0, 1))
            return sources, [
                f"names differ, and the order does not settle it: {_first([first])} and {_first([second])} have the same shapes; "
                "give the file's tensors the model's names"
            ]
    return sources, []


def _layers(shapes: Shapes) -> dict[str, dict[str, tuple[int, ...]]]:
    """Gather the tensors of each layer, by the name of the layer."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, shape in shapes.items():
        layer, _, leaf = key.rpartition(".")
        layers.setdefault(layer, {})[leaf] = shape
    return layers


def _join(layer: str, leaf: str) -> str:
    return f"{layer}.{leaf}" if layer else leaf


def _are_numbered(names: Sequence[str]) -> bool:
    """Whether the names are the same but for numbers in them, which rise."""
    numbers = [[int(digits) for digits in re.findall(r"\d+", name)] for name in names]
    return len({re.sub(r"\d+", "#", name) for name in names}) == 1 and numbers == sorted(numbers)


def _differences(wanted: Shapes, found: Shapes, theirs: str, ours: str) -> list[str]:
    """Return lines that say what is missing, what is left over and what has another shape."""
    stripped = {ours + key.removeprefix(theirs): shape for key, shape in found.items()}
    if len(stripped.keys() & wanted.keys()) > len(found.keys() & wanted.keys()):
        found = stripped
    missing = [f"{key} {shape}" for key, shape in wanted.items() if key not in found]
    unexpected = [f"{key} {shape}" for key, shape in found.items() if key not in wanted]
    shapes = [
        f"{key} is {found[key]} in the file and {shape} in the model"
        for key, shape in wanted.items()
        if key in found and found[key] != shape
    ]
    named = {"missing from the file": missing, "only in the file": unexpected, "of another shape": shapes}
    return [f"{what}: {_first(names)}" for what, names in named.items() if names]


def _first(names: Sequence[str]) -> str:
    """Return the first few names, which a file may have made as long and as strange as it likes, and how many more there are."""
    more = len(names) - MOST_NAMED
    shown = [f"{name if name.isprintable() else ascii(name):.{LONGEST_NAME}}" for name in names[:MOST_NAMED]]
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
