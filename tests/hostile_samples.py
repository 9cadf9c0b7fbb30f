"""A whole file of every kind that goodfit reads, how it is mutated beyond plain bytes, and how it is read."""

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import tiny_pictures
from PIL import Image

from goodfit.artefacts.checkpoint import Snapshot, newest_checkpoint, save_checkpoint
from goodfit.artefacts.host_copy import HostCopy
from goodfit.artefacts.metrics_log import read_metrics
from goodfit.artefacts.model_file import BLANK, KEY, Architecture, ModelFile
from goodfit.config import Config, Layer, dump_toml, merge, read_toml
from goodfit.data import cifar
from goodfit.data.arrays import read_npz
from goodfit.data.dataset import TargetScale
from goodfit.data.image_transform import ImageTransform
from goodfit.data.images import FORMATS, MAX_PIXELS, Geometry, opened, read_header, to_pixels
from goodfit.data.named import read_named
from goodfit.data.table import read_table
from goodfit.data.tensor_transform import TensorTransform
from goodfit.errors import FileError
from goodfit.training.optimizers import build_optimizer
from goodfit.training.state import RunState

__all__ = ["BATCH", "FOREIGN", "LOADERS", "Files", "Loader", "Mutant", "load_cifar", "signed_checkpoint", "signed_manifest"]

Files = dict[str, bytes]  # contents by name below a folder
FOREIGN = (Exception, RecursionError, MemoryError)


@dataclass(frozen=True)
class Mutant:
    """Files that were mutated; `must_be_refused` where a checksum has to notice it."""

    files: Files
    must_be_refused: bool = False


@dataclass(frozen=True)
class Loader:
    """How files of a kind are made, mutated and read; `room` is the memory that their format may ask for beyond their size."""

    samples: Callable[[Path], list[Files]]
    load: Callable[[Path], object]
    mutant: Callable[[random.Random, Files, Any], Mutant]
    room: int = 0


def mutate_one(chance: random.Random, files: Files, mutations: Any) -> Mutant:
    name = chance.choice(sorted(files))
    return Mutant(files | {name: mutations.bytes(chance, files[name])})


# --- the model file


def model_samples(folder: Path) -> list[Files]:
    picture = ImageTransform("RGB", 8, 8, (0.5,) * 3, (0.25,) * 3)
    numbers = TensorTransform((6,), (0.0,) * 6, (1.0,) * 6)
    made = []
    for name, arguments, transform in [
        ("mlp", {"hidden": [4]}, picture),
        ("mlp", {"hidden": [16, 8], "dropout": 0.1}, numbers),
        ("convnet", {"width": 2}, picture),
        ("resnet18", {"width": 1}, picture),
    ]:
        architecture = Architecture(name, arguments, transform.input_shape, 3)
        training = {"configuration": {"data.target": "", "train.seed": 0}, "fingerprint": "0" * 64, "steps": 3}
        file = ModelFile(
            task="classification",
            architecture=architecture,
            outputs="logits",
            precision="fp32",
            transform=transform,
            classes=("a", "b", "c"),
            target_scale=TargetScale(),
            tensors=architecture.build().state_dict(),
            training=training,
            val={"n": 4, "accuracy": 0.5},
        )
        file.save(folder / "sample.safetensors")
        made.append({"model.safetensors": (folder / "sample.safetensors").read_bytes()})
    return made


def load_model(folder: Path) -> object:
    return ModelFile.load(folder / "model.safetensors").module()


def mutate_model(chance: random.Random, files: Files, mutations: Any) -> Mutant:
    """Half of the time leave the SHA-256 wrong; else change document, tensor table, header text or data, and sign again."""
    whole = files["model.safetensors"]
    kind = chance.choice(("bytes", "bytes", "document", "document", "table", "text", "data"))
    if kind == "bytes":
        changed = mutations.bytes(chance, whole)
        return Mutant({"model.safetensors": changed}, must_be_refused=changed != whole)
    size = int.from_bytes(whole[:8], "little")
    head, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    document = json.loads(head["__metadata__"][KEY]) | {"sha256": BLANK}
    if kind == "document":
        document = mutations.json(chance, document)
    if isinstance(document, dict):
        document["sha256"] = BLANK
    inner = json.dumps(document)
    if kind == "text":
        inner = mutations.bytes(chance, inner.encode()).decode(errors="surrogateescape")
    if kind == "table":
        metadata = {"__metadata__": head.pop("__metadata__")}
        table = mutations.json(chance, [head])[0]
        head = metadata | (table if isinstance(table, dict) else {"table": table})
    if kind == "data":
        data = mutations.bytes(chance, data)
    head["__metadata__"][KEY] = inner
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    if chance.random() < 0.1:  # a name that stands twice
        text = text.rstrip()[:-1] + b',"t":0,"t":1}'
    content = len(text).to_bytes(8, "little") + text + data
    return Mutant({"model.safetensors": content.replace(BLANK.encode(), sha256(content).hexdigest().encode(), 1)})


# --- the checkpoint


def make_state() -> RunState:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
    optimizer = build_optimizer("adamw", model, lr=0.001)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return RunState(model, optimizer, None, scaler, torch.zeros(()).double(), torch.zeros(()).double())


def checkpoint_samples(folder: Path) -> list[Files]:
    state = make_state()
    state.model(torch.randn(8, 6)).square().mean().backward()
    state.optimizer.step()
    state.step = 7
    path = save_checkpoint(folder / "sample", Snapshot.take(state, 1.5, HostCopy())).path
    return [{f"step-7/{file.name}": file.read_bytes() for file in path.iterdir()}]


def load_checkpoint(folder: Path) -> object:
    checkpoint, damage = newest_checkpoint(folder)
    if checkpoint is None:
        raise FileError(damage[0])
    state = make_state()
    checkpoint.restore(state)
    return json.dumps(state.values()), state.tensors()


def mutate_checkpoint(chance: random.Random, files: Files, mutations: Any) -> Mutant:
    """Mutate one of the three files; half of the time write a right manifest for it."""
    name = chance.choice(sorted(files))
    if chance.random() < 0.4:
        changed = mutations.bytes(chance, files[name])
        return Mutant(files | {name: changed}, must_be_refused=changed != files[name])
    manifest = json.loads(files["step-7/manifest.json"])
    if name.endswith("state.json") and chance.random() < 0.7:
        changed = json.dumps(mutations.json(chance, json.loads(files[name]))).encode()
    elif name.endswith(".safetensors") and chance.random() < 0.5:
        size = int.from_bytes(files[name][:8], "little")
        text = json.dumps(mutations.json(chance, json.loads(files[name][8 : 8 + size]))).encode()
        changed = len(text).to_bytes(8, "little") + text + files[name][8 + size :]
    else:
        changed = mutations.bytes(chance, files[name])
    if name.endswith("manifest.json"):
        return Mutant(files | {name: signed_manifest(mutations.json(chance, manifest))})
    return Mutant(signed_checkpoint(files, Path(name).name, changed))


def signed_checkpoint(files: Files, name: str, content: bytes) -> Files:
    """Put `content` into the file `name` of a checkpoint, with a right manifest."""
    manifest = json.loads(files["step-7/manifest.json"])
    manifest["files"][name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    return files | {f"step-7/{name}": content, "step-7/manifest.json": signed_manifest(manifest)}


def signed_manifest(manifest: Any) -> bytes:
    """Return the bytes of a manifest with its own SHA-256 in it."""
    if isinstance(manifest, dict):
        rest = {key: value for key, value in manifest.items() if key != "sha256"}
        manifest["sha256"] = sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return json.dumps(manifest, indent=1).encode()


# --- pictures


def picture_samples(form: str) -> Callable[[Path], list[Files]]:
    def samples(folder: Path) -> list[Files]:
        Image.init()  # imports every reader, and tries to import libraries that may not be there
        pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 4), dtype=np.uint8)
        colour = Image.fromarray(pixels[:, :, :3])
        exif = Image.Exif()
        exif[0x0112] = 6
        ways: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
            "JPEG": [(colour, {"exif": exif}), (colour.convert("L"), {"progressive": True}), (colour.convert("CMYK"), {})],
            "PNG": [(Image.fromarray(pixels), {}), (colour.quantize(16), {"bits": 4}), (colour.convert("I;16"), {})],
            "BMP": [(colour, {}), (colour.convert("1"), {}), (colour.quantize(16), {})],
            "GIF": [
                (colour, {"save_all": True, "append_images": [colour.rotate(90)]}),
                (colour.convert("L"), {"transparency": 3}),
            ],
            "TIFF": [(colour, {"compression": way}) for way in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")],
            "WEBP": [(Image.fromarray(pixels), {"lossless": True}), (colour, {"exif": exif}), (colour, {"quality": 10})],
            "PPM": [(colour, {}), (colour.convert("L"), {}), (colour.convert("1"), {})],
        }
        made = []
        for image, options in ways[form]:
            file = io.BytesIO()
            image.save(file, form, **options)
            made.append({"picture": file.getvalue()})
        return made

    return samples


def load_picture(folder: Path) -> object:
    with opened(folder / "picture") as image:
        read_header(image)
        return to_pixels(image, Geometry("RGB", 8, 8))


# --- tables


def table_samples(suffix: str) -> Callable[[Path], list[Files]]:
    def samples(folder: Path) -> list[Files]:
        import polars as pl

        chance = np.random.default_rng(0)
        frame = pl.DataFrame(
            {
                "size": chance.normal(size=60),
                "colour": [["red", "gréen", "blue, dark"][row % 3] for row in range(60)],
                "day": [f"2024-01-{1 + row % 28:02d}" for row in range(60)],
                "open": [bool(row % 2) for row in range(60)],
                "count": [None if row % 7 == 0 else row for row in range(60)],
                "y": [f"class {row % 2}" for row in range(60)],
            }
        )
        name, file = f"table{suffix}", io.BytesIO()
        if suffix != ".parquet":
            return [{name: frame.write_csv(separator="\t" if suffix == ".tsv" else ",").encode()}]
        made = []
        for compression in ("zstd", "snappy", "uncompressed", "gzip"):
            file = io.BytesIO()
            frame.write_parquet(file, compression=compression)
            made.append({name: file.getvalue()})
        return made

    return samples


def load_table(suffix: str) -> Callable[[Path], object]:
    def load(folder: Path) -> object:
        raw = read_table(folder / f"table{suffix}", "y", None)
        part = raw.parts["train"]
        return raw.fit(part.inputs, torch.arange(len(part.targets))).encode(part.inputs)

    return load


# --- arrays and named data sets


def npz_samples(folder: Path) -> list[Files]:
    pictures, labels = tiny_pictures(12)
    made = []
    for save in (np.savez, np.savez_compressed):
        for arrays in (
            {
                "x_train": pictures,
                "y_train": labels,
                "x_test": pictures,
                "y_test": labels,
                "classes": np.array(["a", "b", "c"]),
            },
            {"X": pictures.reshape(12, -1)[:, :9].astype(np.float64), "y": np.linspace(0, 1, 12)},
        ):
            file = io.BytesIO()
            save(file, **arrays)
            made.append({"data.npz": file.getvalue()})
    return made


def load_npz(folder: Path) -> object:
    raw = read_npz(folder / "data.npz")
    part = raw.parts["train"]
    return raw.fit(part.inputs, torch.arange(len(part.targets))).normalize(part.inputs)


def mutate_npz(chance: random.Random, files: Files, mutations: Any) -> Mutant:
    """Mutate the archive, or an array in it, so that the archive's own sums are right."""
    if chance.random() < 0.5:
        return mutate_one(chance, files, mutations)
    with zipfile.ZipFile(io.BytesIO(files["data.npz"])) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = chance.choice(sorted(members))
    members[name] = mutations.bytes(chance, members[name])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return Mutant({"data.npz": file.getvalue()})


BATCH = "cifar-10-batches-py/test_batch"


def cifar_samples(folder: Path) -> list[Files]:
    """Return a batch as Python 2 pickled it, opcode by opcode: today's pickle writes other ones."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    pixels = np.random.default_rng(0).integers(0, 256, 3 * 3072, dtype=np.uint8).tobytes()
    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"(" + number(0) + b"t" + text(b"b") + b"\x87R"
    array = empty + b"(" + number(1) + b"(" + number(3) + number(3072) + b"t" + kind + b"\x89" + text(pixels) + b"tb"
    labels = b"](" + number(7) + number(0) + number(9) + b"e"
    return [{BATCH: b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."}]


def load_cifar(folder: Path) -> object:
    """Read a batch as if its sum were the published one, which is the harder case: what else is left is the unpickler."""
    published = cifar.MD5[BATCH]
    cifar.MD5[BATCH] = md5((folder / BATCH).read_bytes()).hexdigest()
    try:
        return cifar.read_cifar(folder, [BATCH])
    finally:
        cifar.MD5[BATCH] = published


def idx_samples(folder: Path) -> list[Files]:
    pixels = np.random.default_rng(0).integers(0, 256, 20 * 784, dtype=np.uint8).tobytes()
    pictures = b"\0\0\x08\x03" + struct.pack(">3I", 20, 28, 28) + pixels
    labels = b"\0\0\x08\x01" + struct.pack(">I", 20) + bytes(row % 10 for row in range(20))
    return [{f"MNIST/raw/{part}-{kind}": file for part in ("train", "t10k") for kind, file in
             (("images-idx3-ubyte", pictures), ("labels-idx1-ubyte", labels))}]  # fmt: skip


def load_idx(folder: Path) -> object:
    return read_named("mnist", folder, download=False)


# --- text files of a run


def load_toml(folder: Path) -> object:
    return merge([Layer("config.toml", read_toml(folder / "config.toml"))])


def metrics_samples(folder: Path) -> list[Files]:
    lines = [{"event": "train", "step": step, "loss": 1 / (step + 1), "clock": {"seconds": step}} for step in range(40)]
    return [{"metrics.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode()}]


LOADERS = {
    "model file": Loader(model_samples, load_model, mutate_model),
    "checkpoint": Loader(checkpoint_samples, load_checkpoint, mutate_checkpoint),
    **{f"picture {form}": Loader(picture_samples(form), load_picture, mutate_one, room=12 * MAX_PIXELS) for form in FORMATS},
    **{
        f"table {suffix}": Loader(table_samples(suffix), load_table(suffix), mutate_one)
        for suffix in (".csv", ".tsv", ".parquet")
    },
    "npz": Loader(npz_samples, load_npz, mutate_npz),
    "cifar batch": Loader(cifar_samples, load_cifar, mutate_one),
    "mnist idx": Loader(idx_samples, load_idx, mutate_one),
    "config.toml": Loader(lambda _: [{"config.toml": dump_toml(Config()).encode()}], load_toml, mutate_one),
    "metrics.jsonl": Loader(metrics_samples, lambda folder: read_metrics(folder / "metrics.jsonl"), mutate_one),
}
