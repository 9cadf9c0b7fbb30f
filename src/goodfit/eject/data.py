"""The data section of a program: examples read as goodfit reads them, and split as the run split them."""

import ast
from dataclasses import dataclass, field
from pathlib import Path

import torch

from goodfit.data import images
from goodfit.data.dataset import Part, RawData
from goodfit.data.folder import _split_folders
from goodfit.data.image_transform import ImageTransform
from goodfit.data.named import NAMED, NamedDataset, _read_cifar, _read_idx, _read_part, _read_with_torchvision
from goodfit.data.splits import _set_aside, _strata, choose_rows
from goodfit.eject.arrays import npz_lines
from goodfit.eject.knowledge import Knowledge
from goodfit.eject.layout import docstring, expression, statements
from goodfit.eject.own_data import is_own, own_data_functions, split_lines
from goodfit.eject.sources import function_tree
from goodfit.eject.tables import table_functions
from goodfit.eject.values import Code, Frame, Row, Static, Value, lift, literal, name, parse
from goodfit.errors import ConfigError

__all__ = ["DataSection", "data_section"]


@dataclass
class DataSection:
    """Functions, and statements of the main function that end with `train_pictures`, `train_targets` and so on."""

    noun: str  # what examples are called: pictures, or examples
    source: str  # what the data are, in a few words
    option: str = ""  # what a person may say about where they lie: the default of --data
    help: str = ""
    functions: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)  # of a data set of the user's own, whose examples are read in turn


def data_section(known: Knowledge) -> DataSection:
    """Return the section for the run's data; raise ConfigError for those that it is not built for."""
    plan = known.session.plan
    data = plan.config.data.name
    noun = "pictures" if isinstance(plan.dataset.transform, ImageTransform) else "examples"
    if data in NAMED:
        section = _named(known, data, noun)
    elif data == "memory":
        section = _in_memory(known, noun)
    elif data.lower().endswith(".npz"):
        section = DataSection(noun, f"the arrays in {Path(data).name}", option=data, help="the file of the arrays")
        functions, lines = npz_lines(known, Path(data), noun)
        section.functions += functions
        section.lines += lines
    elif noun == "pictures":
        section = _folder(known, Path(data))
    else:
        section = DataSection(noun, f"the table {Path(data).name}", option=data, help="the table")
        section.functions += table_functions(known, Path(data))
        section.lines.append(f"    {noun}, targets = read_table(root)")
    _split(known, section)
    return section


def _named(known: Knowledge, data: str, noun: str) -> DataSection:
    """Read a data set through the class that publishes it."""
    entry = NAMED[data]
    specializer = known.specializer
    if entry.reader == "digits":
        section = DataSection(noun, "the handwritten digits of scikit-learn")
        body, result = known.run(
            _read_part, {"entry": Static(entry), "root": Code(name("root")), "split": Static(entry.splits["train"])}
        )
        section.lines += statements([*body, *_assigned(("pictures", "targets"), result)], 1)
        return section
    section = DataSection(
        noun,
        f"{data.upper() if len(data) < 8 else data} ({entry.title})",
        option="data",
        help="where the data lie, or are downloaded to",
    )
    # The class of CIFAR holds pictures as (N, H, W, C).
    pixels = "published.data.transpose(0, 3, 1, 2)" if entry.reader == "cifar" else "published.data"
    published = Row((Code(parse(pixels)), Code(parse(f"published.{_labels(entry)}"))))
    for reader in (_read_idx, _read_cifar, _read_with_torchvision):
        specializer.rules[reader] = lambda *_: published
    body, result = known.run(
        _read_part, {"entry": Static(entry), "root": Code(name("root")), "split": Static(entry.splits["train"])}
    )
    about = f"Return the pictures {('N', *entry.shape)} uint8 and the classes (N,) of a published data set.".replace("'", "")
    section.functions += [
        "def read(published: datasets.VisionDataset) -> tuple[Tensor, Tensor]:",
        *docstring(about),
        *statements([*body, ast.Return(lift(result))], 1),
    ]
    for part, split in entry.splits.items():
        arguments = split.arguments or ({"train": part == "train"} if entry.reader == "cifar" else {})
        given = ", ".join(f"{key}={expression(literal(value))}" for key, value in arguments.items())
        titles = f"{part}_{noun}, {part}_targets" if "test" in entry.splits else f"{noun}, targets"
        call = f"datasets.{entry.source}(root, {given}{', ' * bool(given)}download=True)"
        section.lines.append(f"    {titles} = read({call})")
    return section


def _folder(known: Knowledge, path: Path) -> DataSection:
    """Read class folders with Pillow."""
    plan, specializer = known.session.plan, known.specializer
    if plan.config.data.skip_bad:
        raise ConfigError(
            "eject of a run with data.skip_bad is not built yet; remove the pictures that cannot be read, and train again"
        )
    transform = plan.dataset.transform
    assert isinstance(transform, ImageTransform)
    specializer.rules[images._check_size] = lambda *_: Static(None)
    specializer.kept |= {
        images._convert: ("convert", {"mode": Static(transform.mode)}),
        images._from_array: ("from_array", {}),
        images._eight_bits: ("eight_bits", {}),
        images._resize: ("resize", {"resize": Static(transform.resize), "interpolation": Static(transform.interpolation)}),
        images._crop: ("crop", {"geometry": Static(transform.geometry)}),
        images._margin: ("margin", {}),
    }
    specializer.keep(images.to_pixels, "to_pixels", {"geometry": Static(transform.geometry)})
    known.constant("SUFFIXES", tuple(sorted(images.SUFFIXES)))
    shape = ", ".join(map(str, transform.input_shape))
    section = DataSection(
        "pictures", f"the pictures in {path.resolve().name}", option=str(path), help="the folder of the pictures"
    )
    section.functions += f'''\
def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures below a folder, by name, without hidden ones."""
    inside = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    shown = [path for path in inside if "/." not in path.relative_to(folder.parent).as_posix()]
    return sorted(shown, key=lambda path: path.as_posix())


def read(folder: Path) -> tuple[Tensor, Tensor]:
    """Return the pictures (N, {shape}) uint8 in class folders, and their classes (N,)."""
    folders = [path.name for path in folder.iterdir() if path.is_dir()]
    classes = sorted(name for name in folders if not name.startswith("."))
    paths = [path for name in classes for path in find_pictures(folder / name)]
    pixels = np.empty((len(paths), {shape}), np.uint8)
    for row, path in enumerate(paths):
        with Image.open(path) as image:
            pixels[row] = to_pixels(image)
    targets = [classes.index(path.relative_to(folder).parts[0]) for path in paths]
    return torch.from_numpy(pixels), torch.tensor(targets)'''.splitlines()
    folders = _split_folders(path)
    section.lines.append("    folder = Path(root)")
    for part in ("train", "val", "test"):
        if part in folders:
            section.lines.append(f'    {part}_pictures, {part}_targets = read(folder / "{folders[part]}")')
    if not folders:
        section.lines.append("    pictures, targets = read(folder)")
    return section


def _labels(entry: NamedDataset) -> str:
    """Return where the class that publishes a data set holds its labels: beside the first there is the writer in QMNIST."""
    others = {"SVHN": "labels", "STL10": "labels", "SEMEION": "labels", "QMNIST": "targets[:, 0]"}
    return others.get(entry.source, "targets")


def _in_memory(known: Knowledge, noun: str) -> DataSection:
    """Leave a marked place for data that were given from Python."""
    dataset = known.session.plan.dataset
    section = DataSection(noun, "your own data")
    shape = ", ".join(map(str, ("N", *dataset.transform.input_shape)))
    kind = "uint8" if noun == "pictures" else "float32"
    targets = f"classes (N,) int64, from 0 to {len(dataset.classes) - 1}" if dataset.classes else "targets (N,) float32"
    parts = _parts_of(known)
    if is_own(known):
        section.functions += own_data_functions(known, parts)
        section.parts = parts
        return section
    section.functions += [
        "def read(part: str) -> tuple[Tensor, Tensor]:",
        *docstring(f"Return {noun} ({shape}) {kind} and {targets}, of the part {' or '.join(map(repr, parts))}."),
        "    # >>> put your own data here <<<",
        '    raise NotImplementedError("put your own data here")',
    ]
    for part in parts:
        titles = f"{part}_{noun}, {part}_targets" if len(parts) > 1 else f"{noun}, targets"
        section.lines.append(f'    {titles} = read("{part}")')
    return section


def _parts_of(known: Knowledge) -> list[str]:
    """Return the parts that data in memory brought; what was set aside is no part of them."""
    settings, splits = known.session.plan.config.data, known.session.plan.dataset.splits
    total = sum(len(split) for split in splits.values())
    parts = ["train"]
    # A part that was given has any size; one that was set aside has just the share that was asked for.
    trained = len(splits["train"])
    slack = settings.max_train or max(1, len(known.session.plan.dataset.classes), 10)
    if "test" in splits and abs(len(splits["test"]) - settings.test * total) > slack:
        parts.append("test")
    if "val" in splits and abs(len(splits["val"]) - settings.val * (trained + len(splits["val"]))) > slack:
        parts.append("val")
    return parts


def _assigned(titles: tuple[str, str], result: Value) -> list[ast.stmt]:
    """Return assignments of two results, without those of a name to itself."""
    assert isinstance(result, Row)
    pairs = [(title, lift(item)) for title, item in zip(titles, result.items, strict=True)]
    return [ast.Assign([name(title)], node) for title, node in pairs if ast.unparse(node) != title]


def _split(known: Knowledge, section: DataSection) -> None:
    """Set aside what is to validate and to test, and take fewer examples if that was asked for."""
    plan, noun = known.session.plan, section.noun
    brought = section.parts or [
        line.split("_")[0].strip() for line in section.lines if line.strip().startswith(("train_", "val_", "test_"))
    ]
    settings = plan.config.data
    aside = [part for part in ("test", "val") if part in plan.dataset.splits and part not in brought]
    limited = settings.max_train and len(plan.dataset.train) == settings.max_train
    if not aside and not limited and not section.parts:
        if not brought:
            raise ConfigError("the run has neither a test split nor a share of the examples for one")
        return
    targets = torch.empty(0)
    known.specializer.objects[id(targets)] = Code(name("targets"))
    raw = RawData(
        "", plan.dataset.task, plan.dataset.classes, {"train": Part(None, targets)}, lambda *_: plan.dataset.transform
    )
    known.alive.append((targets, raw))
    whole, start = ("targets", noun) if not brought or section.parts else ("train_targets", f"train_{noun}")
    if aside:
        section.functions += ["", "", *_set_aside_lines(known, raw)]
    calls = [f'    rows, {part}_rows = set_aside({whole}, rows, {getattr(settings, part)}, "{part}")' for part in aside]
    if section.parts:
        section.lines += split_lines(known, section.parts, calls, _limited(known, raw, whole) if limited else "")
        return
    lines = [f"    rows = torch.arange(len({whole}))", *calls]
    if limited:
        lines.append(f"    rows = {_limited(known, raw, whole)}")
    lines += [f"    {part}_{noun}, {part}_targets = {start}[{part}_rows], {whole}[{part}_rows]" for part in aside]
    lines.append(f"    train_{noun}, train_targets = {start}[rows], {whole}[rows]")
    section.lines += lines


def _set_aside_lines(known: Knowledge, raw: RawData) -> list[str]:
    rows: dict[str, Value | Row] = {"train": Row((Static("train"), Code(name("rows"))))}
    seed = Static(known.session.plan.config.train.seed, name("SEED"))
    given: dict[str, Value] = {
        "raw": Static(raw),
        "rows": Static(rows),
        "name": Static("taken", name("purpose")),
        "share": Code(name("share")),
        "seed": seed,
    }
    body, _ = known.run(_set_aside, given, wanted=("stays", "taken"))
    stays, taken = (value.items[1] for value in (rows["train"], rows["taken"]) if isinstance(value, Row))
    return [
        "def set_aside(targets: Tensor, rows: Tensor, share: float, purpose: str) -> tuple[Tensor, Tensor]:",
        '    """Return the rows that stay, and a random share of them for another purpose."""',
        *statements([*body, ast.Return(ast.Tuple([lift(stays), lift(taken)], ast.Load()))], 1),
    ]


def _limited(known: Knowledge, raw: RawData, whole: str) -> str:
    """Return the rows of as many examples as were asked for."""
    settings = known.session.plan.config.data
    known.specializer.objects[id(raw.parts["train"].targets)] = Code(name(whole))
    strata = known.run(_strata, {"raw": Static(raw), "targets": Code(parse(f"{whole}[rows]"))})
    if strata[0]:
        raise ConfigError("eject of data.max_train for a regression is not built yet; leave it out")
    given: dict[str, Value] = {"kept": Code(name("rows")), "strata": strata[1], "max_train": Static(settings.max_train)}
    given["seed"] = Static(known.session.plan.config.train.seed, name("SEED"))
    found = [
        node
        for node in ast.walk(function_tree(choose_rows))
        if isinstance(node, ast.Assign) and "take_number" in ast.unparse(node)
    ]
    value = known.specializer.value(found[0].value, Frame(given, choose_rows.__globals__), [])
    assert isinstance(value, Row)
    return expression(lift(value.items[1]))
